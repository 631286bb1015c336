//! What the kernel must allow this process, and what it gives up.

use std::{fs, os::unix::fs::OpenOptionsExt as _, path::Path};

use anyhow::{Context as _, Result, bail, ensure};
use caps::{CapSet, Capability, CapsHashSet};
use nix::{libc, sys::prctl};

use crate::host::os_error;

/// What loading and attaching need.
const NEEDED: [Capability; 3] = [
    Capability::CAP_BPF,
    Capability::CAP_NET_ADMIN,
    Capability::CAP_PERFMON,
];

/// Checks that this process may load and attach the program.
///
/// # Errors
/// Names the capabilities that are missing and how to get them.
pub fn check() -> Result<()> {
    let effective = caps::read(None, CapSet::Effective).context("asking for our capabilities")?;
    let missing = missing(&effective);
    if missing.is_empty() {
        return Ok(());
    }
    bail!(
        "not allowed to load programs into the kernel: {} missing; run with sudo, or give the binary \
         what it needs: sudo setcap cap_bpf,cap_net_admin,cap_perfmon+ep $(command -v knock-user)",
        missing.join(", ")
    )
}

fn missing(effective: &CapsHashSet) -> Vec<String> {
    let missing = NEEDED
        .iter()
        .filter(|&&needed| granting(needed, effective).is_none());
    missing.map(ToString::to_string).collect()
}

/// The capability in a set by which the kernel grants what this one is for.
fn granting(needed: Capability, set: &CapsHashSet) -> Option<Capability> {
    // It includes CAP_BPF and CAP_PERFMON (a17b53c4a4b5, 980737282232).
    let includes = Capability::CAP_SYS_ADMIN;
    if set.contains(&needed) {
        Some(needed)
    } else {
        (needed != Capability::CAP_NET_ADMIN && set.contains(&includes)).then_some(includes)
    }
}

/// Gives up everything but what loading and attaching need, for good: this process and the commands
/// that it runs can't get it back, not even by programs that are set-user-id.
///
/// What is left is enough to load, attach, pin and reload. It is not enough to mount bpffs, or to
/// read files and other processes' environments against their modes: that comes before.
///
/// Capabilities belong to threads, and a new thread has those of its maker: call it before there is
/// a second one.
///
/// # Errors
/// There is a second thread already, or the kernel refuses.
pub fn drop_to_needed() -> Result<()> {
    let threads = fs::read_dir("/proc/self/task")
        .context("counting our threads")?
        .count();
    ensure!(
        threads == 1,
        "capabilities can't be given up for {threads} threads at once; this is a bug"
    );
    of_this_thread()
}

/// Does so for the thread that calls it.
fn of_this_thread() -> Result<()> {
    let permitted = caps::read(None, CapSet::Permitted).context("asking for our capabilities")?;
    let kept = kept(&permitted);
    prctl::set_no_new_privs().context("giving up new privileges")?;
    // What commands of root get is bounded by this alone; those of others get nothing anyway.
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP)? {
        for given_up in caps::all().difference(&kept) {
            if caps::has_cap(None, CapSet::Bounding, *given_up).unwrap_or(false) {
                caps::drop(None, CapSet::Bounding, *given_up)
                    .with_context(|| format!("giving up {given_up} for good"))?;
            }
        }
    }
    caps::clear(None, CapSet::Ambient).context("giving up ambient capabilities")?;
    caps::clear(None, CapSet::Inheritable).context("giving up inheritable capabilities")?;
    // In this order: what is effective must be permitted.
    for set in [CapSet::Effective, CapSet::Permitted] {
        caps::set(None, set, &kept).context("giving up capabilities")?;
    }
    Ok(())
}

fn kept(permitted: &CapsHashSet) -> CapsHashSet {
    NEEDED
        .into_iter()
        .filter_map(|needed| granting(needed, permitted))
        .collect()
}

/// Why a file that was read before can't be read again, and what to do, if that is so: root without
/// all its capabilities reads what its owner and mode allow.
pub fn unreadable(file: &Path) -> Option<String> {
    // A pipe that nobody writes to must not be waited for.
    let mut options = fs::File::options();
    let opened = options.read(true).custom_flags(libc::O_NONBLOCK).open(file);
    let error = opened.err()?;
    let shown = file.display();
    Some(format!(
        "{shown} can't be read again ({}), so a reload of it will fail: move it to where this \
         user can read it, such as `sudo install -D -m 600 {shown} /etc/knock/seq.toml`",
        os_error::plain(&error)
    ))
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, thread};

    use caps::Capability::*;

    use super::*;

    #[test]
    fn missing_capabilities_are_named() {
        let rows: [(&str, CapsHashSet, &[&str]); 5] = [
            ("root", caps::all(), &[]),
            (
                "nobody",
                [].into(),
                &["CAP_BPF", "CAP_NET_ADMIN", "CAP_PERFMON"],
            ),
            ("exactly the three", NEEDED.into(), &[]),
            (
                "without perfmon",
                [CAP_BPF, CAP_NET_ADMIN].into(),
                &["CAP_PERFMON"],
            ),
            (
                "sys_admin and net_admin",
                [CAP_SYS_ADMIN, CAP_NET_ADMIN].into(),
                &[],
            ),
        ];
        for (name, effective, expected) in rows {
            assert_eq!(missing(&effective), expected, "{name}");
        }
    }

    #[test]
    fn what_is_needed_is_kept() {
        let rows: [(&str, CapsHashSet, CapsHashSet); 5] = [
            ("root", caps::all(), NEEDED.into()),
            ("nobody", [].into(), [].into()),
            ("the three", NEEDED.into(), NEEDED.into()),
            ("one of them", [CAP_BPF].into(), [CAP_BPF].into()),
            (
                "before there was CAP_BPF",
                [CAP_SYS_ADMIN, CAP_NET_ADMIN, CAP_CHOWN].into(),
                [CAP_SYS_ADMIN, CAP_NET_ADMIN].into(),
            ),
        ];
        for (name, permitted, expected) in rows {
            assert_eq!(kept(&permitted), expected, "{name}");
        }
    }

    /// Whoever runs this: nothing is left but what is needed, and nothing can be regained.
    #[test]
    fn a_thread_gives_up_what_it_does_not_need() {
        let status = thread::spawn(|| {
            of_this_thread().unwrap();
            fs::read_to_string("/proc/thread-self/status").unwrap()
        });
        let status = status.join().unwrap();
        let lines: BTreeMap<_, _> = status
            .lines()
            .filter_map(|line| line.split_once(":\t"))
            .collect();
        let set = |name: &str| u64::from_str_radix(lines[name], 16).unwrap();
        let needed: u64 = NEEDED.iter().map(Capability::bitmask).sum();
        assert_eq!(set("CapPrm") & !needed, 0, "{status}");
        assert_eq!(set("CapEff"), set("CapPrm"), "{status}");
        assert_eq!(set("CapInh"), 0, "{status}");
        assert_eq!(set("CapAmb"), 0, "{status}");
        assert_eq!(lines["NoNewPrivs"], "1", "{status}");
        if caps::has_cap(None, CapSet::Effective, CAP_SETPCAP).unwrap() {
            assert_eq!(set("CapBnd") & !needed, 0, "{status}");
        }
    }

    #[test]
    fn it_is_too_late_when_there_are_threads() {
        let waits = thread::spawn(thread::park);
        let told = drop_to_needed().unwrap_err().to_string();
        assert!(told.contains("threads"), "{told}");
        waits.thread().unpark();
        waits.join().unwrap();
    }

    #[test]
    fn a_file_that_cannot_be_read_again_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(unreadable(file.path()), None);
        let told = unreadable(Path::new("/no/seq.toml")).unwrap();
        assert!(told.contains("/no/seq.toml") && told.contains("install"));
    }
}
