//! Describes errors of the operating system: the caller names the object, the number of the error
//! gives the reason, and both give the cure.

use std::{error::Error, fs, io};

use aya::{maps::MapError, sys::SyscallError};
use caps::{CapSet, Capability};
use nix::libc;

use crate::host::paths::{MOUNT_POINT, RUN};

/// The cure of a refusal for which another user would be advised to become root.
const REFUSED_TO_ROOT: &str = "root may not either: the process lacks a capability, the file is \
                               immutable (`lsattr` shows that), or a security module or the file \
                               system refuses";

/// Describes an error in one line: what was done, the reason and the cure.
pub fn describe(error: &anyhow::Error) -> String {
    describe_to(error, OwnPrivileges::find)
}

fn describe_to(error: &anyhow::Error, process: impl Fn() -> OwnPrivileges) -> String {
    let text = without_numbers(&format!("{error:#}"));
    // The error of a bpf(2) call contains that of the system.
    let all: Vec<_> = error.chain().filter_map(system_error).collect();
    let system = all.iter().find(|(_, call)| call.is_some()).or(all.last());
    let system = system.copied();
    let cure = system.and_then(|(number, call)| cure(number, call, &text, &process));
    match cure {
        // The caller may have given a better cure.
        Some(cure) if !text.contains(cure.as_str()) => format!("{text}; {cure}"),
        Some(_) | None => text,
    }
}

/// Returns the reason and the cure; `about` names the object, for example by its path.
pub fn reason(error: &io::Error, about: &str) -> String {
    let text = plain(error);
    let cure = error.raw_os_error();
    match cure.and_then(|number| cure_of(number, about)) {
        Some(cure) => format!("{text}; {cure}"),
        None => text,
    }
}

/// Returns the same for a file that a configuration names.
pub fn reason_of_named(error: &io::Error, about: &str) -> String {
    match error.raw_os_error() {
        Some(libc::ENOENT) if !about.contains(RUN) => format!(
            "{}; check the path: a relative one starts at the directory of the configuration",
            plain(error)
        ),
        Some(_) | None => reason(error, about),
    }
}

/// Returns the reason without the number of the error.
pub fn plain(error: &io::Error) -> String {
    without_numbers(&error.to_string())
}

fn cure_of(number: i32, about: &str) -> Option<String> {
    cure(number, None, about, OwnPrivileges::find)
}

/// Returns the number of a system error, and the bpf(2) command that was refused, if it was one.
fn system_error(error: &(dyn Error + 'static)) -> Option<(i32, Option<&'static str>)> {
    if let Some(error) = error.downcast_ref::<SyscallError>() {
        return Some((error.io_error.raw_os_error()?, Some(error.call)));
    }
    // aya does not store the name of the call here.
    if let Some(MapError::CreateError { io_error, .. }) = error.downcast_ref() {
        return Some((io_error.raw_os_error()?, Some("bpf_map_create")));
    }
    if let Some(error) = error.downcast_ref::<nix::errno::Errno>() {
        return Some((*error as i32, None));
    }
    Some((error.downcast_ref::<io::Error>()?.raw_os_error()?, None))
}

/// Returns a text without ` (os error 13)`, and with `permission denied` in place of `Permission
/// denied`.
fn without_numbers(text: &str) -> String {
    const NUMBER: &str = " (os error ";
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(NUMBER) {
        let Some((_, after)) = after.split_once(')') else {
            break;
        };
        // The text of the system follows the last colon.
        let (object, reason) = before
            .rsplit_once(": ")
            .map_or(("", before), |(object, reason)| (object, reason));
        if !object.is_empty() {
            plain.push_str(object);
            plain.push_str(": ");
        }
        let mut letters = reason.chars();
        plain.extend(letters.next().map(|first| first.to_ascii_lowercase()));
        plain.push_str(letters.as_str());
        rest = after;
    }
    plain + rest
}

/// The privileges of this process, as far as they matter here.
#[derive(Clone, Copy, Debug, Default)]
struct OwnPrivileges {
    /// Whether it has the capabilities that bpf(2) requires.
    may_load: bool,
    /// Whether a seccomp filter judges its system calls.
    is_filtered: bool,
    /// Whether it is in the user namespace of the host.
    is_on_host: bool,
    /// Whether it runs as root.
    is_root: bool,
}

impl OwnPrivileges {
    fn find() -> Self {
        let has = |capability| caps::has_cap(None, CapSet::Effective, capability).unwrap_or(false);
        let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
        let filter = status
            .lines()
            .find_map(|line| line.strip_prefix("Seccomp:"));
        let users = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
        let whole = ["0", "0", "4294967295"];
        Self {
            may_load: has(Capability::CAP_BPF) || has(Capability::CAP_SYS_ADMIN),
            is_filtered: filter.is_some_and(|mode| mode.trim() == "2"),
            is_on_host: users.split_whitespace().eq(whole),
            is_root: nix::unistd::Uid::effective().is_root(),
        }
    }
}

/// Returns the cure of an error, if there is one; `text` names the object.
fn cure(
    number: i32,
    call: Option<&str>,
    text: &str,
    process: impl Fn() -> OwnPrivileges,
) -> Option<String> {
    if let Some(call) = call.filter(|call| call.starts_with("bpf_")) {
        return of_bpf(number, call, process);
    }
    let is_ours = text.contains(MOUNT_POINT) || text.contains(RUN);
    let cure = match number {
        // Others are advised to become root.
        libc::EACCES | libc::EPERM if process().is_root => REFUSED_TO_ROOT,
        libc::EACCES | libc::EPERM if is_ours => {
            "only root and the user that runs knock-user may: use sudo, or run it as that user"
        }
        libc::EACCES | libc::EPERM => {
            "this user may not: `ls -l` shows the owner and the mode; root may"
        }
        libc::ENOENT if is_ours => "start knock-user, which makes it",
        libc::ENOENT => "check the path: a relative one starts at the current directory",
        libc::EISDIR => "it is a directory: name a file in it",
        libc::ENOTDIR => "a part of the path is not a directory",
        libc::ELOOP => "it is a symbolic link, or one that leads back to itself: remove it",
        libc::EROFS => {
            "it is mounted read-only here: in a systemd unit, ReadWritePaths= changes that"
        }
        libc::ENOSPC | libc::EDQUOT => "make room on the disk",
        libc::EMFILE | libc::ENFILE => {
            "too many files are open: raise the limit, in a systemd unit with LimitNOFILE="
        }
        libc::ENOMEM => "the system is out of memory, or the limit of this service is reached",
        libc::EADDRINUSE => {
            "something else listens there: `ss -lntup` shows what; take another port"
        }
        libc::EADDRNOTAVAIL => {
            "this host does not have that address: `ip address` shows those it has"
        }
        _ => return None,
    };
    Some(cure.to_owned())
}

fn of_bpf(number: i32, call: &str, process: impl Fn() -> OwnPrivileges) -> Option<String> {
    let is_of_pin = call.starts_with("bpf_obj_");
    let cure = match number {
        libc::EPERM | libc::EACCES if is_of_pin && process().is_root => REFUSED_TO_ROOT,
        libc::EPERM | libc::EACCES if is_of_pin => {
            "only root and the user that runs knock-user may: use sudo, or run it as that user"
        }
        libc::EPERM => return Some(not_permitted(process()).to_owned()),
        libc::ENOENT if is_of_pin => {
            "nothing is pinned there, or bpffs is not mounted any more: `mount -t bpf` shows it; \
             start knock-user again"
        }
        libc::E2BIG => {
            "the map is full: `knock-user list` shows the sources with grants, and `knock-user revoke` ends \
             some"
        }
        libc::ENOMEM => {
            "the kernel has no memory left for the maps, which take 84 MB: a limit of the container \
             or the service counts, too (MemoryMax=)"
        }
        libc::EEXIST | libc::EBUSY => "another XDP program is attached: `ip link` shows it",
        libc::ENOSYS | libc::EINVAL => {
            "the kernel must be 6.1 or newer, and built with CONFIG_BPF_SYSCALL"
        }
        _ => return None,
    };
    Some(cure.to_owned())
}

/// Returns why bpf(2) is not permitted. The kernel does not report it, so it is derived from the
/// privileges of this process.
const fn not_permitted(process: OwnPrivileges) -> &'static str {
    match process {
        OwnPrivileges {
            may_load: false, ..
        } => "it takes CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON: use sudo",
        OwnPrivileges {
            is_filtered: true, ..
        } => {
            "a seccomp filter refuses bpf(2): that of a container allows it only with CAP_SYS_ADMIN, \
             so add SYS_ADMIN to its capabilities, or start it with --security-opt \
             seccomp=unconfined; in a systemd unit, SystemCallFilter= must have bpf"
        }
        OwnPrivileges {
            is_on_host: false, ..
        } => {
            "the capabilities of a user namespace, as in a rootless container, are not enough: run \
             it as root of the host"
        }
        OwnPrivileges { .. } => {
            "the kernel is locked down, or a security module refuses: see \
             /sys/kernel/security/lockdown and `dmesg`"
        }
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    fn system(number: i32) -> io::Error {
        io::Error::from_raw_os_error(number)
    }

    fn bpf(call: &'static str, number: i32) -> SyscallError {
        SyscallError {
            call,
            io_error: system(number),
        }
    }

    #[test]
    fn each_error_names_the_object_the_reason_and_the_cure() {
        let io =
            |number, about: &'static str| Err::<(), _>(system(number)).context(about).unwrap_err();
        let of_bpf = |call, number, about: &'static str| {
            Err::<(), _>(bpf(call, number)).context(about).unwrap_err()
        };
        for (name, error, words) in [
            (
                "an ordinary user looks at pins",
                io(libc::EACCES, "reading /sys/fs/bpf/knock"),
                ["reading /sys/fs/bpf/knock: permission denied; ", "use sudo"],
            ),
            (
                "a registry of another user",
                io(libc::EPERM, "writing /run/knock/eth0@1.json"),
                ["operation not permitted; ", "use sudo"],
            ),
            (
                "any file",
                io(libc::EACCES, "reading /etc/knock/seq.toml"),
                ["permission denied; ", "`ls -l`"],
            ),
            (
                "a full disk",
                io(libc::ENOSPC, "writing /var/lib/knock/once"),
                ["no space left on device; ", "make room"],
            ),
            (
                "a port in use",
                io(libc::EADDRINUSE, "listening on [::]:7001"),
                ["address already in use; ", "`ss -lntup`"],
            ),
            (
                "a full map",
                of_bpf("bpf_map_update_elem", libc::E2BIG, "writing the grant"),
                ["writing the grant: ", "`knock-user list`"],
            ),
            (
                "bpffs is gone",
                of_bpf(
                    "bpf_obj_pin",
                    libc::ENOENT,
                    "pinning the link /sys/fs/bpf/knock/x",
                ),
                ["no such file or directory", "`mount -t bpf`"],
            ),
            (
                "no memory",
                of_bpf("bpf_map_create", libc::ENOMEM, "creating the maps"),
                ["creating the maps: ", "84 MB"],
            ),
            (
                "no memory, as aya reports it",
                Err::<(), _>(MapError::CreateError {
                    name: "FLOWS".to_owned(),
                    io_error: system(libc::ENOMEM),
                })
                .context("creating the maps")
                .unwrap_err(),
                ["`FLOWS`", "84 MB"],
            ),
        ] {
            let text = describe_to(&error, OwnPrivileges::default);
            for word in words {
                assert!(text.contains(word), "{name}: no {word:?} in {text}");
            }
            assert!(!text.contains("os error"), "{name}: {text}");
        }
    }

    #[test]
    fn root_is_not_advised_to_become_root() {
        let root = || OwnPrivileges {
            is_root: true,
            ..OwnPrivileges::default()
        };
        let io = |about: &'static str| Err::<(), _>(system(libc::EACCES)).context(about);
        let pin = Err::<(), _>(bpf("bpf_obj_get", libc::EPERM)).context("opening a pin");
        for (name, error) in [
            ("any file", io("reading /etc/knock/seq.toml")),
            ("a file of ours", io("reading /run/knock/eth0@1.json")),
            ("a pin", pin),
        ] {
            let text = describe_to(&error.unwrap_err(), root);
            assert!(text.contains("root may not either"), "{name}: {text}");
            assert!(!text.contains("sudo"), "{name}: {text}");
        }
    }

    #[test]
    fn a_refused_bpf_call_has_a_reason() {
        let process = |may_load, is_filtered, is_on_host| OwnPrivileges {
            may_load,
            is_filtered,
            is_on_host,
            is_root: false,
        };
        for (name, process, word) in [
            ("no capability", process(false, true, true), "CAP_BPF"),
            (
                "a container's filter",
                process(true, true, true),
                "seccomp=unconfined",
            ),
            ("and rootless", process(true, true, false), "seccomp"),
            ("rootless", process(true, false, false), "user namespace"),
            ("lockdown", process(true, false, true), "lockdown"),
        ] {
            let cure = of_bpf(libc::EPERM, "bpf_map_create", || process).unwrap();
            assert!(cure.contains(word), "{name}: {cure}");
        }
    }

    #[test]
    fn error_numbers_are_left_out() {
        for (text, expected) in [
            ("nothing else", "nothing else"),
            (
                "reading /x: No such file or directory (os error 2)",
                "reading /x: no such file or directory",
            ),
            (
                "Permission denied (os error 13); try",
                "permission denied; try",
            ),
            (
                "a: Is a directory (os error 21): b: Broken pipe (os error 32)",
                "a: is a directory: b: broken pipe",
            ),
            ("cut (os error 1", "cut (os error 1"),
        ] {
            assert_eq!(without_numbers(text), expected);
        }
    }
}
