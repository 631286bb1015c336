//! The programs that each command needs beyond cargo's, and the Debian packages that contain them.

use std::fs;

use anyhow::{Result, bail, ensure};

use crate::{package::Apt, shell};

/// A command of `cargo xtask`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// `demo`.
    Demo,
    /// `flood`.
    Flood,
    /// `bench`.
    Bench,
    /// `test`, with the tests that need root.
    Test,
    /// `vm`, the tests on other kernels.
    Vm,
    /// `dist`.
    Dist,
    /// `pictures`.
    Pictures,
    /// `fresh`.
    Fresh,
    /// `fuzz`.
    Fuzz,
}

impl Verb {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Demo,
        Self::Flood,
        Self::Bench,
        Self::Test,
        Self::Vm,
        Self::Dist,
        Self::Pictures,
        Self::Fresh,
        Self::Fuzz,
    ];

    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Demo => "demo",
            Self::Flood => "flood",
            Self::Bench => "bench",
            Self::Test => "test",
            Self::Vm => "vm",
            Self::Dist => "dist",
            Self::Pictures => "pictures",
            Self::Fresh => "fresh",
            Self::Fuzz => "fuzz",
        }
    }
}

/// A program, the Debian package that has it, and what runs it.
struct Tool {
    program: &'static str,
    package: &'static str,
    verbs: &'static [Verb],
}

const fn tool(program: &'static str, package: &'static str, verbs: &'static [Verb]) -> Tool {
    Tool {
        program,
        package,
        verbs,
    }
}

/// The table. QEMU is not in it, because `vm/qemu.rs` finds it. Programs that every Debian system has (dpkg, coreutils,
/// a shell) are listed if a system without dpkg may lack them.
const TOOLS: [Tool; 46] = {
    use Verb::{Bench, Demo, Dist, Flood, Fresh, Fuzz, Pictures, Test, Vm};
    [
        // Networks of tests, demo and bench.
        tool("ip", "iproute2", &[Demo, Flood, Bench, Test, Vm, Pictures]),
        tool("ethtool", "ethtool", &[Demo, Flood, Bench, Test, Vm]),
        tool("nft", "nftables", &[Bench, Test, Vm]),
        tool("iptables-nft", "iptables", &[Test]),
        tool("iptables-legacy", "iptables", &[Test]),
        tool("ip6tables-nft", "iptables", &[Test]),
        tool("ip6tables-legacy", "iptables", &[Test]),
        tool("nstat", "iproute2", &[Flood, Bench, Test, Vm]),
        tool("ss", "iproute2", &[Test]),
        // Foreign programs with which the tests communicate.
        tool("knockd", "knockd", &[Bench, Test]),
        tool("knock", "knockd", &[Test]),
        tool("nmap", "nmap", &[Test]),
        tool("hping3", "hping3", &[Test]),
        tool("nc", "netcat-openbsd", &[Test, Pictures]),
        tool("ssh", "openssh-client", &[Test]),
        tool("ssh-keygen", "openssh-client", &[Test]),
        tool("sshd", "openssh-server", &[Test]),
        tool("systemd-analyze", "systemd", &[Test]),
        tool("fwknopd", "fwknop-server", &[Bench]),
        tool("fwknop", "fwknop-client", &[Bench, Test]),
        tool("xdp-filter", "xdp-tools", &[Bench]),
        tool("prometheus", "prometheus", &[Test]),
        tool("promtool", "prometheus", &[Test]),
        tool("tmux", "tmux", &[Test, Pictures]),
        // Processes with other rights, priorities, mounts, buffers.
        tool("setpriv", "util-linux", &[Test]),
        tool("chrt", "util-linux", &[Bench]),
        tool("unshare", "util-linux", &[Bench, Test, Fresh]),
        tool("nsenter", "util-linux", &[Test, Pictures]),
        tool("script", "bsdutils", &[Test, Pictures]),
        tool("mount", "mount", &[Bench, Test, Fresh]),
        tool("stdbuf", "coreutils", &[Test]),
        tool("bash", "bash", &[Test, Pictures]),
        tool("python3", "python3", &[Test]),
        // Virtual machines: unpack kernels and pack programs.
        tool("busybox", "busybox-static", &[Vm]),
        tool("dpkg-deb", "dpkg", &[Vm]),
        tool("ldd", "libc-bin", &[Vm]),
        tool("timeout", "coreutils", &[Vm]),
        // A pristine system.
        tool("mmdebstrap", "mmdebstrap", &[Fresh]),
        tool("git", "git", &[Dist, Fresh]),
        // Archives.
        tool("tar", "tar", &[Dist]),
        tool("gzip", "gzip", &[Dist]),
        tool("zip", "zip", &[Dist]),
        // The client for Windows.
        tool(
            "x86_64-w64-mingw32-gcc",
            "gcc-mingw-w64-x86-64-win32",
            &[Dist],
        ),
        tool(
            "x86_64-w64-mingw32-dlltool",
            "binutils-mingw-w64-x86-64",
            &[Dist],
        ),
        tool("chroot", "coreutils", &[Fresh]),
        // libFuzzer is C++.
        tool("c++", "g++", &[Fuzz]),
    ]
};

/// Peers that `bench` measures; it leaves out those that are unavailable.
const PEERS: [&str; 4] = ["knockd", "fwknopd", "fwknop", "xdp-filter"];

/// Daemons that a package's installation could start.
const DAEMONS: [&str; 4] = ["knockd", "fwknopd", "sshd", "prometheus"];

/// Finds or installs the programs that a command runs. One line reports what was found or installed.
///
/// # Errors
/// A program is missing and can't be installed: the error names the packages and the command that
/// installs them.
pub fn get(apt: &Apt<'_>, verb: Verb) -> Result<()> {
    let missing = programs(verb).filter(|tool| shell::find_program(tool.program).is_none());
    let peers = |tool: &&Tool| verb == Verb::Bench && PEERS.contains(&tool.program);
    let (peers, needed): (Vec<&Tool>, Vec<&Tool>) = missing.partition(peers);
    install(apt, verb, &needed)?;
    if let Err(why) = install(apt, verb, &peers) {
        println!("tools for {}: left out of it: {why:#}", verb.name());
    }
    if needed.is_empty() && peers.is_empty() {
        let found: Vec<_> = programs(verb).map(|tool| tool.program).collect();
        if !found.is_empty() {
            println!("tools for {}: {} found", verb.name(), found.join(", "));
        }
    }
    Ok(())
}

fn install(apt: &Apt<'_>, verb: Verb, missing: &[&Tool]) -> Result<()> {
    if missing.is_empty() {
        return Ok(());
    }
    let mut packages: Vec<_> = missing.iter().map(|tool| tool.package).collect();
    packages.sort_unstable();
    packages.dedup();
    let before = DAEMONS.map(processes);
    let why = format!("`cargo xtask {}` runs programs of them", verb.name());
    apt.install(&packages, &why)?;
    for (daemon, before) in DAEMONS.into_iter().zip(before) {
        if processes(daemon) > before {
            bail!(
                "installing {daemon} started it: stop it with `systemctl disable --now {daemon}`"
            );
        }
    }
    let still: Vec<_> = missing
        .iter()
        .filter(|tool| shell::find_program(tool.program).is_none())
        .map(|tool| format!("{} (package {})", tool.program, tool.package))
        .collect();
    ensure!(
        still.is_empty(),
        "installed {}, but these programs are not there: {}",
        packages.join(", "),
        still.join(", ")
    );
    println!(
        "tools for {}: installed {}",
        verb.name(),
        packages.join(", ")
    );
    if packages.contains(&"openssh-server") {
        println!(
            "tools for {}: openssh-server would start with the next boot; `systemctl disable ssh` \
             if nobody shall log in",
            verb.name()
        );
    }
    Ok(())
}

fn programs(verb: Verb) -> impl Iterator<Item = &'static Tool> {
    TOOLS.iter().filter(move |tool| tool.verbs.contains(&verb))
}

fn processes(named: &str) -> usize {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter_map(|process| fs::read_to_string(process.path().join("comm")).ok())
        .filter(|name| name.trim_end() == named)
        .count()
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, path::Path};

    use super::*;

    /// The literal names in calls that start a program, such as `Command::new("ip")`.
    fn started(directory: &Path, found: &mut BTreeSet<String>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                started(&path, found);
            } else if path.extension().is_some_and(|is| is == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                let text: String = text.split_whitespace().collect();
                for call in ["Command::new(\"", "try_run(\"", ".run(\""] {
                    let rest = text.split(call).skip(1);
                    found.extend(rest.filter_map(|rest| Some(rest.split_once('"')?.0.to_owned())));
                }
            }
        }
    }

    #[test]
    fn every_program_that_tests_and_bench_start_is_in_the_table() {
        for (verb, directories) in [
            (Verb::Test, ["tests/src", "tests/tests"]),
            (Verb::Bench, ["bench/src", "tests/src"]),
        ] {
            let mut found = BTreeSet::new();
            for directory in directories {
                started(&shell::workspace().join(directory), &mut found);
            }
            assert!(found.contains("ip"), "{found:?}");
            for program in found {
                let name = program.rsplit('/').next().unwrap();
                let is_known = name == "sh" || programs(verb).any(|tool| tool.program == name);
                assert!(is_known, "{}: `{program}` is not in the table", verb.name());
            }
        }
    }

    #[test]
    fn no_program_is_in_the_table_twice() {
        let names: BTreeSet<_> = TOOLS.iter().map(|tool| tool.program).collect();
        assert_eq!(names.len(), TOOLS.len());
        for tool in &TOOLS {
            assert!(!tool.verbs.is_empty(), "{}", tool.program);
        }
    }

    /// Every command that makes networks runs the programs of `demo`, which `setup` installs.
    #[test]
    fn networks_need_the_same_programs() {
        for demo in programs(Verb::Demo) {
            for verb in [Verb::Flood, Verb::Bench, Verb::Test, Verb::Vm] {
                let has = programs(verb).any(|tool| tool.program == demo.program);
                assert!(has, "{} lacks {}", verb.name(), demo.program);
            }
        }
    }
}
