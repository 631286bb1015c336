//! Finds out how long pins outlive this process, as far as the kernel shows.
//!
//! Pins last as long as their bpffs is mounted anywhere. `ip netns exec` and containers mount a
//! bpffs of their own, which ends with them and opens the ports.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path, process};

use anyhow::{Result, bail};
use clap::ValueEnum;
use nix::sys::stat::{major, minor};

use crate::{
    host::{netns, paths::MOUNT_POINT},
    kernel::bpffs::{self, DIRECTORY},
};

/// The inode number of the host's own PID namespace (`PROC_PID_INIT_INO`).
const HOST_PIDS: u64 = 0xEFFF_FFFC;

/// The fate of the protection when the process ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum OnExit {
    /// Detach: the ports are open to everybody.
    Detach,
    /// Keep the protection: grants expire in time, and the next start takes it over.
    Keep,
}

/// How long pins last.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Lifetime {
    /// Until they are removed, or the host shuts down.
    Host,
    /// At least as long as process 1 of this PID namespace runs, as in a container.
    Container,
    /// Until the last process in this mount namespace ends, which may be this one.
    Mounts,
    /// It can't be found out from here.
    Unknown,
}

/// The findings when this process started, with all its capabilities.
#[derive(Clone, Copy, Debug)]
pub struct Persistence {
    lifetime: Lifetime,
    /// The device number of the file system.
    device: Option<u64>,
    /// Whether this process mounted it.
    is_own: bool,
}

impl Persistence {
    /// Looks at the bpffs, which is mounted by now; `was_mounted` states whether it was mounted
    /// before this process started.
    pub fn find(was_mounted: bool) -> Self {
        let device = device();
        let is_own = !was_mounted;
        Self {
            lifetime: device.map_or(Lifetime::Unknown, |device| lifetime(device, is_own)),
            device,
            is_own,
        }
    }

    /// Refuses `--on-exit keep` where pins would not last, and warns where a crash would open the
    /// ports.
    ///
    /// # Errors
    /// The protection is to be kept and the pins would not last.
    pub fn check(self, on_exit: OnExit) -> Result<()> {
        let cure = cure();
        match (self.lifetime, on_exit) {
            (Lifetime::Host, OnExit::Keep | OnExit::Detach)
            | (Lifetime::Container, OnExit::Detach) => {}
            (Lifetime::Container, OnExit::Keep) => tracing::info!(
                "what is kept stays at least as long as process 1 of this container runs"
            ),
            (Lifetime::Mounts, OnExit::Keep) => bail!(
                "--on-exit keep can't keep anything: {MOUNT_POINT} is mounted for this mount \
                 namespace alone, as `ip netns exec` does it, and its pins go with it; {cure}"
            ),
            (Lifetime::Mounts, OnExit::Detach) => tracing::warn!(
                "if this process is killed, the ports are open: {MOUNT_POINT} is mounted for this \
                 mount namespace alone, as `ip netns exec` does it, and its pins go with it; {cure}"
            ),
            (Lifetime::Unknown, OnExit::Keep | OnExit::Detach) => tracing::warn!(
                "this process can't determine whether the ports stay closed without it: they do if \
                 {MOUNT_POINT} is mounted on the host, too"
            ),
        }
        Ok(())
    }

    /// Returns how long pins last by now: bpffs may have been mounted again, or unmounted
    /// elsewhere.
    pub fn now(self) -> Lifetime {
        let device = device();
        match device.map(|device| lifetime(device, self.is_own)) {
            // With fewer capabilities than at the start, less is visible.
            Some(Lifetime::Unknown) if device == self.device => self.lifetime,
            Some(lifetime) => lifetime,
            None => Lifetime::Unknown,
        }
    }
}

/// Returns the device number of the bpffs.
fn device() -> Option<u64> {
    let found = fs::metadata(DIRECTORY).ok()?;
    bpffs::is_mounted_at(Path::new(DIRECTORY)).then(|| found.dev())
}

fn lifetime(device: u64, is_own: bool) -> Lifetime {
    let inode = |path: &str| fs::metadata(path).ok().map(|found| found.ino());
    // Process 1 as /proc numbers it, which may be another PID namespace's /proc.
    let own_id = fs::read_link("/proc/self").unwrap_or_default();
    let is_first = own_id == Path::new("1");
    let is_own_proc = own_id == Path::new(&process::id().to_string());
    let pids = inode("/proc/1/ns/pid").or_else(|| {
        let own = inode("/proc/self/ns/pid");
        own.filter(|_| is_own_proc)
    });
    let own = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let first = fs::read_to_string("/proc/1/mountinfo");
    SeenMount {
        is_of_first: first
            .ok()
            .filter(|text| !is_first && !text.is_empty())
            .map(|text| mounts(&text, device).next().is_some()),
        is_host: pids == Some(HOST_PIDS),
        is_elsewhere: is_copy(&own, device),
        is_own,
    }
    .lifetime()
}

/// A line of the kernel about a mounted file system.
#[derive(Clone, Copy, Debug)]
struct SeenMount {
    /// Whether process 1 has it mounted; `None` if that is this process, or is not visible.
    is_of_first: Option<bool>,
    /// Whether process 1 is the host's.
    is_host: bool,
    /// Whether this mount is a slave of one in another mount namespace.
    is_elsewhere: bool,
    /// Whether this process mounted it.
    is_own: bool,
}

impl SeenMount {
    const fn lifetime(self) -> Lifetime {
        match (self.is_of_first, self.is_host, self.is_elsewhere) {
            (Some(true), true, _) | (None, _, true) => Lifetime::Host,
            (Some(true), false, _) => Lifetime::Container,
            (Some(false), true, _) | (Some(false), false, false) => Lifetime::Mounts,
            (Some(false), false, true) => Lifetime::Unknown,
            (None, _, false) if self.is_own => Lifetime::Mounts,
            (None, _, false) => Lifetime::Unknown,
        }
    }
}

/// Returns the lines of a mountinfo that are about a file system:
/// `36 35 0:33 / /sys/fs/bpf rw shared:11 master:2 - bpf bpf rw,mode=700`.
fn mounts(mountinfo: &str, device: u64) -> impl Iterator<Item = &str> {
    let wanted = format!("{}:{}", major(device), minor(device));
    let lines = mountinfo.lines();
    lines.filter(move |line| line.split(' ').nth(2) == Some(&wanted))
}

/// Returns whether a mount of this file system is a slave of one in another mount namespace.
fn is_copy(mountinfo: &str, device: u64) -> bool {
    let group = |line: &str, name: &str| {
        let words = line.split(' ').skip(6).take_while(|word| *word != "-");
        let mut words = words.filter_map(|word| word.split_once(':'));
        let (_, number) = words.find(|(found, _)| *found == name)?;
        number.parse::<u32>().ok()
    };
    let is_here = |master: u32| {
        let mut lines = mountinfo.lines();
        lines.any(|line| group(line, "shared") == Some(master))
    };
    let mut masters = mounts(mountinfo, device).filter_map(|line| group(line, "master"));
    masters.any(|master| !is_here(master))
}

/// Returns the command that enters this network namespace and no other one.
pub(crate) fn cure() -> String {
    let name = netns::name().unwrap_or_else(|| "NAME".to_owned());
    format!("enter the network namespace alone: `nsenter --net=/run/netns/{name} knock-user ...`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lifetime_follows_from_the_mounts() {
        use Lifetime::*;
        // Its mounts for process 1, the host's process 1, a copy, mounted by this process.
        type Row = (&'static str, Option<bool>, bool, bool, bool, Lifetime);
        let rows: [Row; 12] = [
            ("on the host", Some(true), true, false, false, Host),
            (
                "mounted there by this process",
                Some(true),
                true,
                false,
                true,
                Host,
            ),
            (
                "a unit with mounts of its own",
                Some(true),
                true,
                true,
                false,
                Host,
            ),
            ("and process 1 is hidden", None, false, true, false, Host),
            ("ip netns exec", Some(false), true, false, true, Mounts),
            (
                "started there again",
                Some(false),
                true,
                false,
                false,
                Mounts,
            ),
            (
                "a copy of what is not the host's",
                Some(false),
                true,
                true,
                false,
                Mounts,
            ),
            ("in a container", Some(true), false, false, false, Container),
            (
                "ip netns exec in a container",
                Some(false),
                false,
                false,
                true,
                Mounts,
            ),
            (
                "a copy in a container",
                Some(false),
                false,
                true,
                false,
                Unknown,
            ),
            (
                "process 1 of a container",
                None,
                false,
                false,
                false,
                Unknown,
            ),
            ("and has mounted it", None, false, false, true, Mounts),
        ];
        for (name, is_of_first, is_host, is_elsewhere, is_own, expected) in rows {
            let seen = SeenMount {
                is_of_first,
                is_host,
                is_elsewhere,
                is_own,
            };
            assert_eq!(seen.lifetime(), expected, "{name}");
        }
    }

    #[test]
    fn slave_mounts_are_copies() {
        // 0:33
        const DEVICE: u64 = 33;
        const HOST: &str = "30 24 0:33 / /sys/fs/bpf rw,nosuid shared:12 - bpf bpf rw,mode=700\n";
        let rows: [(&str, String, bool); 8] = [
            ("on the host", HOST.to_owned(), false),
            ("private", HOST.replace(" shared:12", ""), false),
            (
                "a unit's",
                HOST.replace("shared:12", "shared:99 master:12"),
                true,
            ),
            ("a slave", HOST.replace("shared:12", "master:12"), true),
            (
                "a directory of it, as with ReadWritePaths",
                HOST.replace("33 / /sys/fs/bpf", "33 /knock /sys/fs/bpf/knock")
                    .replace("shared:12", "master:12"),
                true,
            ),
            (
                "a slave of a mount of this namespace",
                format!(
                    "{HOST}{}",
                    HOST.replace("shared:12", "master:12")
                        .replace("30 24", "31 24")
                ),
                false,
            ),
            (
                "another file system",
                HOST.replace("0:33", "0:34")
                    .replace("shared:12", "master:12"),
                false,
            ),
            ("nothing", String::new(), false),
        ];
        for (name, text, expected) in rows {
            assert_eq!(is_copy(&text, DEVICE), expected, "{name}: {text}");
        }
        assert_eq!(mounts(HOST, DEVICE).count(), 1);
        assert_eq!(mounts(HOST, 34).count(), 0);
    }
}
