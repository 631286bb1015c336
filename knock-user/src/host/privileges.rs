//! Checks the capabilities of this process, and drops those that it does not need.

use std::{fs, os::unix::fs::OpenOptionsExt as _, path::Path, thread, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use caps::{CapSet, Capability, CapsHashSet};
use nix::{libc, sys::prctl};

use crate::host::os_error;

/// The capabilities that loading and attaching need.
const NEEDED: [Capability; 3] = [
    Capability::CAP_BPF,
    Capability::CAP_NET_ADMIN,
    Capability::CAP_PERFMON,
];

/// How often threads are counted until the last one has to be gone, and the pause in between.
const TRIES: u32 = 200;
const PAUSE: Duration = Duration::from_millis(1);

/// Checks that this process may load and attach the program.
///
/// # Errors
/// Capabilities are missing; the error names them and the cure.
pub fn check() -> Result<()> {
    let effective = caps::read(None, CapSet::Effective).context("asking for our capabilities")?;
    let missing = missing(&effective);
    if missing.is_empty() {
        return Ok(());
    }
    bail!(
        "not allowed to load programs into the kernel: {} missing; run with sudo, or give the binary \
         these capabilities: sudo setcap cap_bpf,cap_net_admin,cap_perfmon+ep $(command -v knock-user)",
        missing.join(", ")
    )
}

fn missing(effective: &CapsHashSet) -> Vec<String> {
    NEEDED
        .iter()
        .filter(|&&needed| granting(needed, effective).is_none())
        .map(ToString::to_string)
        .collect()
}

/// Returns the capability in a set that grants what `needed` is for.
fn granting(needed: Capability, set: &CapsHashSet) -> Option<Capability> {
    // CAP_SYS_ADMIN includes CAP_BPF and CAP_PERFMON (a17b53c4a4b5, 980737282232).
    let includes = Capability::CAP_SYS_ADMIN;
    if set.contains(&needed) {
        Some(needed)
    } else {
        (needed != Capability::CAP_NET_ADMIN && set.contains(&includes)).then_some(includes)
    }
}

/// Drops all capabilities but those for loading and attaching, for good: this process and its
/// commands can't regain them, not even through set-user-id programs.
///
/// The rest is enough to load, attach, pin and reload. It is not enough to mount bpffs, or to read
/// files and environments of other processes against their modes: do that before.
///
/// Capabilities belong to threads, and a new thread inherits them: call this before a second thread
/// exists.
///
/// # Errors
/// A second thread exists already, or the kernel refuses.
pub fn drop_to_needed() -> Result<()> {
    // The kernel lists a thread for a moment after it was joined.
    let mut tries = 0;
    let threads = loop {
        let threads = fs::read_dir("/proc/self/task");
        let threads = threads.context("counting our threads")?.count();
        if threads == 1 || tries == TRIES {
            break threads;
        }
        tries += 1;
        thread::sleep(PAUSE);
    };
    ensure!(
        threads == 1,
        "capabilities can't be given up for {threads} threads at once; this is a bug"
    );
    of_this_thread()
}

/// Drops the capabilities of the calling thread.
fn of_this_thread() -> Result<()> {
    let permitted = caps::read(None, CapSet::Permitted).context("asking for our capabilities")?;
    let kept = kept(&permitted);
    prctl::set_no_new_privs().context("giving up new privileges")?;
    // This alone limits commands of root; those of other users get no capability anyway.
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
    // The effective set comes first: it must be a subset of the permitted one.
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

/// Returns why a file that was read before can't be read again, with the cure, if so: root without
/// all capabilities reads only what owner and mode allow.
pub fn unreadable(file: &Path) -> Option<String> {
    // Opening a pipe without a writer would block.
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
    use std::collections::BTreeMap;

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
    fn needed_capabilities_are_kept() {
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

    /// Whichever user runs this, only the needed capabilities are left, and none can be regained.
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
    fn capabilities_are_not_dropped_with_several_threads() {
        let waits = thread::spawn(thread::park);
        let message = drop_to_needed().unwrap_err().to_string();
        assert!(message.contains("threads"), "{message}");
        waits.thread().unpark();
        waits.join().unwrap();
    }

    #[test]
    fn a_file_that_cannot_be_read_again_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(unreadable(file.path()), None);
        let message = unreadable(Path::new("/no/seq.toml")).unwrap();
        assert!(message.contains("/no/seq.toml") && message.contains("install"));
    }
}
