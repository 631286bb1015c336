//! Identifies the network namespace of this thread, and finds all existing ones.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::{fs::MetadataExt as _, net::UnixDatagram},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use nix::{getsockopt_impl, libc, sockopt_impl, sys::socket::getsockopt};

sockopt_impl!(
    /// The cookie of the network namespace of the socket (`SO_NETNS_COOKIE`, Linux 5.14).
    Cookie,
    GetOnly,
    libc::SOL_SOCKET,
    libc::SO_NETNS_COOKIE,
    u64
);

const OWN: &str = "/proc/thread-self/ns/net";
/// The inode number of the host's own PID namespace (`PROC_PID_INIT_INO`).
const HOST_PIDS: u64 = 0xEFFF_FFFC;

/// Returns the cookie of the network namespace of this thread. Until the next boot the kernel gives
/// it to no other namespace, while it reuses inode numbers.
///
/// # Errors
/// The kernel is older than 5.14, or has no sockets left.
pub fn cookie() -> Result<u64> {
    let socket = UnixDatagram::unbound().context("opening a socket")?;
    getsockopt(&socket, Cookie).context(
        "asking for the cookie of this network namespace (SO_NETNS_COOKIE), which Linux has since \
         5.14",
    )
}

/// Returns the inode number of the network namespace of this thread.
///
/// # Errors
/// /proc can't be read.
pub fn inode() -> Result<u64> {
    let found = fs::metadata(OWN).with_context(|| format!("reading {OWN}"))?;
    Ok(found.ino())
}

/// Returns the name of the network namespace of this thread in `ip netns`.
pub fn name() -> Option<String> {
    let own = inode().ok()?;
    let entries = fs::read_dir("/run/netns").ok()?.flatten();
    let mut names = entries.filter(|entry| {
        // The number of the entry itself would be that of the file below the mount.
        fs::metadata(entry.path()).is_ok_and(|found| found.ino() == own)
    });
    Some(names.next()?.file_name().to_string_lossy().into_owned())
}

/// Network namespaces that a process, descriptor or mount keeps, by inode number.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Living {
    inodes: BTreeSet<u64>,
    /// Whether all processes could be inspected.
    is_complete: bool,
}

impl Living {
    /// Inspects all accessible processes: the namespaces of their threads, their descriptors and
    /// their mounts.
    pub fn find() -> Self {
        let own = fs::metadata("/proc/self/ns/pid").map(|found| found.ino());
        let mut living = Self {
            inodes: BTreeSet::new(),
            // /proc does not show processes of other PID namespaces.
            is_complete: own.is_ok_and(|own| own == HOST_PIDS),
        };
        living.inodes.extend(inode().ok());
        let mut mounts = BTreeSet::new();
        for process in numbered(Path::new("/proc")) {
            living.add_links(&process.join("fd"), |_| true);
            let tasks = numbered(&process.join("task"));
            for task in tasks {
                living.add_links(&task.join("ns"), |name| name == "net");
            }
            if let Ok(namespace) = fs::read_link(process.join("ns/mnt"))
                && mounts.insert(namespace)
            {
                let mounted = fs::read_to_string(process.join("mountinfo"));
                living
                    .inodes
                    .extend(mounted_in(&mounted.unwrap_or_default()));
            }
        }
        living
    }

    /// Returns whether a namespace with this inode number was found.
    pub fn has(&self, inode: u64) -> bool {
        self.inodes.contains(&inode)
    }

    /// Returns whether a namespace that was not found no longer exists, as far as this process can
    /// see.
    pub const fn is_complete(&self) -> bool {
        self.is_complete
    }

    /// Adds the targets of the links in a directory below /proc.
    fn add_links(&mut self, directory: &Path, is_wanted: impl Fn(&str) -> bool) {
        // A process may end at any time.
        let gone = |error: &std::io::Error| {
            error.kind() == std::io::ErrorKind::NotFound
                || error.raw_os_error() == Some(libc::ESRCH)
        };
        let entries = match fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(error) => {
                self.is_complete &= gone(&error);
                return;
            }
        };
        for entry in entries.flatten() {
            if !entry.file_name().to_str().is_some_and(&is_wanted) {
                continue;
            }
            match fs::read_link(entry.path()) {
                Ok(target) => self.inodes.extend(number_of(&target.to_string_lossy())),
                Err(error) => self.is_complete &= gone(&error),
            }
        }
    }
}

/// Returns the entries of a directory whose names are numbers.
fn numbered(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let is_number = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
    };
    entries
        .map(|entry| entry.path())
        .filter(is_number)
        .collect()
}

/// Parses `net:[4026531840]`.
fn number_of(target: &str) -> Option<u64> {
    target
        .strip_prefix("net:[")?
        .strip_suffix(']')?
        .parse()
        .ok()
}

/// Returns the namespaces in a mountinfo: `36 25 0:4 net:[4026532281] /run/netns/a rw …`.
fn mounted_in(mountinfo: &str) -> impl Iterator<Item = u64> + '_ {
    let roots = mountinfo.lines();
    roots.filter_map(|line| number_of(line.split(' ').nth(3)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_namespace_exists_and_has_one_cookie() {
        let cookie = cookie().unwrap();
        assert_ne!(cookie, 0);
        assert_eq!(super::cookie().unwrap(), cookie);
        assert!(Living::find().has(inode().unwrap()));
    }

    #[test]
    fn namespaces_in_links_and_mounts_are_parsed() {
        for (name, text, expected) in [
            (
                "a network namespace",
                "net:[4026531840]",
                Some(4_026_531_840),
            ),
            ("another kind", "mnt:[4026531840]", None),
            ("a socket", "socket:[17]", None),
            ("a path", "/net:[1]", None),
            ("cut off", "net:[1", None),
        ] {
            assert_eq!(number_of(text), expected, "{name}");
        }
        let mountinfo = "22 1 0:21 / /run rw - tmpfs tmpfs rw\n\
                         36 22 0:4 net:[4026532281] /run/netns/a rw shared:5 - nsfs nsfs rw\n\
                         37 22 0:4 mnt:[4026532282] /run/mnt/b rw - nsfs nsfs rw\n";
        assert_eq!(mounted_in(mountinfo).collect::<Vec<_>>(), [4_026_532_281]);
    }
}
