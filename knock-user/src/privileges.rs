//! What the kernel must allow this process.

use std::fs;

use anyhow::{Result, bail};

/// Capabilities that loading and attaching need, with their numbers (`linux/capability.h`).
const NEEDED: [(&str, u32); 3] = [("CAP_BPF", 39), ("CAP_NET_ADMIN", 12), ("CAP_PERFMON", 38)];
const SYS_ADMIN: u32 = 21;

/// Checks that this process may load and attach the program.
///
/// # Errors
/// Names the capabilities that are missing and how to get them.
pub fn check() -> Result<()> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    // Without /proc the kernel's own refusal has to do.
    let Some(effective) = effective(&status) else {
        return Ok(());
    };
    let missing = missing(effective);
    if missing.is_empty() {
        return Ok(());
    }
    bail!(
        "not allowed to load programs into the kernel: {} missing; run with sudo, or give the binary \
         what it needs: sudo setcap cap_bpf,cap_net_admin,cap_perfmon+ep $(command -v knock-user)",
        missing.join(", ")
    )
}

fn effective(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

fn missing(effective: u64) -> Vec<&'static str> {
    let has = |number: u32| effective & 1 << number != 0;
    // CAP_SYS_ADMIN includes CAP_BPF and CAP_PERFMON (a17b53c4a4b5, 980737282232).
    let needed = NEEDED
        .iter()
        .filter(|(name, number)| !has(*number) && (*name == "CAP_NET_ADMIN" || !has(SYS_ADMIN)));
    needed.map(|(name, _)| *name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_capabilities_are_named() {
        for (name, effective, expected) in [
            ("root", "000001ffffffffff", vec![]),
            (
                "nobody",
                "0000000000000000",
                vec!["CAP_BPF", "CAP_NET_ADMIN", "CAP_PERFMON"],
            ),
            ("exactly the three", "000000c000001000", vec![]),
            ("without perfmon", "0000008000001000", vec!["CAP_PERFMON"]),
            ("sys_admin and net_admin", "0000000000201000", vec![]),
        ] {
            let status = format!("Name:\tx\nCapEff:\t{effective}\nCapBnd:\t0\n");
            assert_eq!(
                missing(super::effective(&status).unwrap()),
                expected,
                "{name}"
            );
        }
    }
}
