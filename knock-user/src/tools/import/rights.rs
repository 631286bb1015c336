//! Recognises programs that need capabilities which commands of doors do not have.

/// Programs, with the capability that they need.
const PROGRAMS: [(&[&str], &str); 9] = [
    (
        &[
            "iptables-legacy",
            "ip6tables-legacy",
            "etherwake",
            "ether-wake",
            "arping",
            "tcpdump",
            "hping3",
        ],
        "CAP_NET_RAW",
    ),
    (
        &[
            "su",
            "sudo",
            "runuser",
            "doas",
            "gosu",
            "su-exec",
            "setpriv",
            "setuidgid",
            "chpst",
        ],
        "CAP_SETUID",
    ),
    (&["chown", "chgrp"], "CAP_CHOWN"),
    (&["mount", "umount", "nsenter", "unshare"], "CAP_SYS_ADMIN"),
    (&["chroot"], "CAP_SYS_CHROOT"),
    (&["modprobe", "insmod", "rmmod"], "CAP_SYS_MODULE"),
    (&["hwclock"], "CAP_SYS_TIME"),
    (&["renice", "chrt"], "CAP_SYS_NICE"),
    (&["kill", "pkill", "killall"], "CAP_KILL"),
];
/// Words that may precede a command.
const BEFORE: [&str; 14] = [
    "if", "then", "else", "elif", "do", "while", "until", "!", "exec", "nohup", "env", "time",
    "setsid", "nice",
];

/// Returns the programs in a shell script that need a capability, and which.
pub(super) fn missing(text: &str) -> Vec<(&str, &'static str)> {
    let mut missing = Vec::new();
    for part in text.split(|c: char| ";|&(){}`'\"\n".contains(c)) {
        let is_command = |word: &&str| !BEFORE.contains(word) && !word.contains('=');
        let Some(program) = part.split_whitespace().find(is_command) else {
            continue;
        };
        let name = program.rsplit('/').next().unwrap_or(program);
        let needs = PROGRAMS.iter().find(|(names, _)| names.contains(&name));
        if let Some((_, capability)) = needs
            && !missing.contains(&(name, *capability))
        {
            missing.push((name, *capability));
        }
    }
    missing
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_that_need_a_capability_are_found() {
        let rows: [(&str, &[(&str, &str)]); 10] = [
            (
                "/usr/sbin/etherwake -i eth0 00:11:22:33:44:55",
                &[("etherwake", "CAP_NET_RAW")],
            ),
            ("su - user -c 'start'", &[("su", "CAP_SETUID")]),
            (
                "logger x; chown www /run/x && /bin/su a",
                &[("chown", "CAP_CHOWN"), ("su", "CAP_SETUID")],
            ),
            (
                "if true; then mount /mnt; fi",
                &[("mount", "CAP_SYS_ADMIN")],
            ),
            ("A=1 nohup sudo b &", &[("sudo", "CAP_SETUID")]),
            (
                "x $(iptables-legacy -L)",
                &[("iptables-legacy", "CAP_NET_RAW")],
            ),
            ("sh -c \"chgrp a b\"; chgrp c d", &[("chgrp", "CAP_CHOWN")]),
            ("wakeonlan 00:11:22:33:44:55", &[]),
            ("echo su; logger chown", &[]),
            ("", &[]),
        ];
        for (text, expected) in rows {
            assert_eq!(missing(text), expected, "{text}");
        }
    }
}
