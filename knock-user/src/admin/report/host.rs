//! Facts about the host that faults depend on.

use std::fs;

use nix::sys::utsname::uname;

use crate::{
    host::{interface, paths::MOUNT_POINT},
    interfaces::driver,
    kernel::{bpffs, tcx},
};

/// Settings of the kernel that BPF depends on.
const SETTINGS: [&str; 5] = [
    "/proc/sys/net/core/bpf_jit_enable",
    "/proc/sys/net/core/bpf_jit_harden",
    "/proc/sys/kernel/unprivileged_bpf_disabled",
    "/sys/kernel/security/lockdown",
    "/proc/sys/net/ipv4/ip_forward",
];

/// Returns lines about the system and the kernel.
pub(super) fn system() -> Vec<String> {
    let mut lines = Vec::new();
    if let Ok(release) = fs::read_to_string("/etc/os-release") {
        let name = release
            .lines()
            .find_map(|line| line.strip_prefix("PRETTY_NAME="));
        lines.extend(name.map(|name| format!("system: {}", name.trim_matches('"'))));
    }
    // The name of the host is not shown.
    if let Ok(names) = uname() {
        let word = |word: &std::ffi::OsStr| word.to_string_lossy().into_owned();
        lines.push(format!(
            "kernel: {} {} {}",
            word(names.release()),
            word(names.version()),
            word(names.machine())
        ));
    }
    for path in SETTINGS {
        let value = fs::read_to_string(path).map(|text| text.trim().to_owned());
        lines.push(format!(
            "{path}: {}",
            value.as_deref().unwrap_or("not readable")
        ));
    }
    let is_mounted = bpffs::is_mounted_at(MOUNT_POINT.as_ref());
    lines.push(format!(
        "bpffs at {MOUNT_POINT}: {}",
        if is_mounted { "mounted" } else { "not mounted" }
    ));
    lines
}

/// Returns a line for each interface: driver, kind and program.
pub(super) fn interfaces() -> Vec<String> {
    let all = match interface::list() {
        Ok(all) => all,
        Err(error) => return vec![format!("not readable: {error}")],
    };
    let line = |one: &interface::Interface| {
        let driver = driver::name(one).unwrap_or_else(|| "no driver".to_owned());
        let program = match (one.program, one.native) {
            (None, _) => "no XDP program".to_owned(),
            (Some(id), true) => format!("XDP program {id}, native"),
            (Some(id), false) => format!("XDP program {id}, generic"),
        };
        let placed = tcx::ingress(one.index).unwrap_or_default();
        let placed: Vec<_> = placed.iter().map(|one| one.program.to_string()).collect();
        let placed = match placed.as_slice() {
            [] => String::new(),
            ids => format!(", TCX programs {}", ids.join(", ")),
        };
        format!("{}: {driver}, {program}{placed}", one.name)
    };
    all.iter().map(line).collect()
}
