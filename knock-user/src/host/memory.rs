//! How much memory this process may use: that of the machine, or less in a control group.

use std::{
    fs,
    path::{Path, PathBuf},
};

const MACHINE: &str = "/proc/meminfo";
const OWN_GROUPS: &str = "/proc/self/cgroup";
const GROUPS: &str = "/sys/fs/cgroup";

/// The limits of a control group, of version 2 and 1. The kernel charges the memory of maps to the group of the
/// process that makes them.
const LIMITS: [&str; 2] = ["memory.max", "memory.high"];
const LIMIT_BEFORE: &str = "memory.limit_in_bytes";

/// Returns the memory of the machine, or the least limit of the control groups of this process, in octets; `None` if
/// neither can be read.
pub fn available() -> Option<u64> {
    let machine = fs::read_to_string(MACHINE).ok();
    let machine = machine.and_then(|text| total(&text));
    let own = fs::read_to_string(OWN_GROUPS).unwrap_or_default();
    let limits = files(&own).into_iter().filter_map(|file| {
        let text = fs::read_to_string(file).ok()?;
        // `max` is no limit.
        text.trim().parse::<u64>().ok()
    });
    machine.into_iter().chain(limits).min()
}

/// Returns the memory of the machine, from a text like `MemTotal: 4028356 kB`.
fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kilobytes.checked_mul(1024)
}

/// Returns the files with limits of the control groups in a text like `0::/system.slice/knock-user.service`, and of the
/// groups that these are in.
fn files(own: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in own.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(group)) = (parts.next(), parts.next()) else {
            continue;
        };
        let (root, names) = match controllers {
            "" => (PathBuf::from(GROUPS), &LIMITS[..]),
            _ if controllers.split(',').any(|one| one == "memory") => {
                (Path::new(GROUPS).join("memory"), &[LIMIT_BEFORE][..])
            }
            _ => continue,
        };
        // In a namespace of control groups, a group outside of it is named by `..`.
        let group = Path::new(group.trim_start_matches('/'));
        for group in group.ancestors() {
            let group = root.join(group);
            files.extend(names.iter().map(|name| group.join(name)));
        }
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_of_the_machine_is_read() {
        for (text, octets) in [
            (
                "MemTotal:        4028356 kB\nMemFree: 1 kB\n",
                Some(4_125_036_544),
            ),
            ("MemFree: 1 kB\n", None),
            ("MemTotal: much\n", None),
            ("", None),
        ] {
            assert_eq!(total(text), octets, "{text:?}");
        }
    }

    #[test]
    fn the_groups_up_to_the_root_may_have_limits() {
        for (name, own, expected) in [
            (
                "a service",
                "0::/system.slice/knock-user.service\n",
                &[
                    "/sys/fs/cgroup/system.slice/knock-user.service/memory.max",
                    "/sys/fs/cgroup/system.slice/knock-user.service/memory.high",
                    "/sys/fs/cgroup/system.slice/memory.max",
                    "/sys/fs/cgroup/system.slice/memory.high",
                    "/sys/fs/cgroup/memory.max",
                    "/sys/fs/cgroup/memory.high",
                ][..],
            ),
            (
                "a container",
                "0::/\n",
                &["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.high"],
            ),
            (
                "version 1",
                "5:cpu,memory:/docker/1\n4:pids:/docker/1\n",
                &[
                    "/sys/fs/cgroup/memory/docker/1/memory.limit_in_bytes",
                    "/sys/fs/cgroup/memory/docker/memory.limit_in_bytes",
                    "/sys/fs/cgroup/memory/memory.limit_in_bytes",
                ],
            ),
            ("nothing", "", &[]),
            ("something else", "garbage\n", &[]),
        ] {
            let files = files(own);
            let files: Vec<_> = files.iter().map(|file| file.to_str().unwrap()).collect();
            assert_eq!(files, expected, "{name}");
        }
    }

    #[test]
    fn this_machine_has_memory() {
        assert!(available().is_some_and(|octets| octets > 1 << 20));
    }
}
