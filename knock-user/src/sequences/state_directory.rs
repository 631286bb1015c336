//! The directory in which the daemon records what was used, for the time after a reboot.

use std::{
    env,
    fs::{self, TryLockError},
    os::unix::fs::{MetadataExt as _, lchown},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use nix::unistd::{AccessFlags, Uid, User, access};

use crate::{
    host::{os_error, paths::RUN, private_files},
    kernel::instance::Instance,
};

/// The directory without systemd, which names another one.
const DIRECTORY: &str = "/var/lib/knock";
/// How long the daemon's loop waits for a lock. Another process holds it while it writes a file.
const PATIENCE: Duration = Duration::from_millis(100);
/// The time between two attempts to lock.
const POLL: Duration = Duration::from_millis(5);
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Returns the directory whose files outlive a reboot.
fn lasting() -> PathBuf {
    let given = env::var_os("STATE_DIRECTORY");
    let given = given.as_deref().map(env::split_paths);
    let first = given.and_then(|mut paths| paths.next());
    first.unwrap_or_else(|| DIRECTORY.into())
}

/// Returns the candidates for the directory; the first writable one is used. Files in /run are lost
/// at a reboot.
pub(super) fn candidates() -> [PathBuf; 2] {
    [lasting(), RUN.into()]
}

/// Returns the files of that name in the directories that are not used: an earlier process may have
/// used another one.
pub(super) fn elsewhere(directory: &Path, file: &str) -> Vec<PathBuf> {
    let others = candidates().into_iter().filter(|other| other != directory);
    others.map(|other| other.join(file)).collect()
}

/// The result of `open` in the first usable directory.
#[derive(Debug)]
pub(super) struct Found<T> {
    /// The result.
    pub(super) result: T,
    /// Why the files are lost at a reboot, if they are, with the cure.
    pub(super) volatile: Option<String>,
}

/// Calls `open` with each candidate until it succeeds.
///
/// # Errors
/// Returns the reasons if no directory can be used.
pub(super) fn first_usable<T>(
    mut open: impl FnMut(&Path) -> Result<T>,
) -> Result<Found<T>, String> {
    let mut failures = Vec::new();
    for directory in candidates() {
        let opened = private_files::directory(&directory)
            .with_context(|| format!("creating {}", directory.display()))
            .and_then(|()| open(&directory));
        match opened {
            Ok(result) => {
                let volatile = (!failures.is_empty()).then(|| {
                    format!(
                        "what opened a door is recorded in {} only, so after a reboot it can be \
                         used again: {}",
                        directory.display(),
                        failures.join("; ")
                    )
                });
                return Ok(Found { result, volatile });
            }
            Err(error) => {
                let reason = os_error::describe(&error);
                let cure = cure();
                failures.push(format!("{reason}; {cure}"));
            }
        }
    }
    Err(failures.join("; "))
}

/// Returns how the directory becomes writable for this user.
fn cure() -> String {
    let directory = lasting();
    let owner = fs::metadata(&directory).ok().map(|found| found.uid());
    cure_of(&directory, Uid::effective(), owner.map(Uid::from_raw))
}

fn cure_of(directory: &Path, user: Uid, owner: Option<Uid>) -> String {
    let (shown, name) = (directory.display(), name_of(user));
    match owner {
        // No owner and no mode refuses root.
        Some(owner) if user.is_root() && owner.is_root() => {
            "name a writable directory in STATE_DIRECTORY".to_owned()
        }
        // Another user's service may use it.
        Some(owner) if owner != user && !owner.is_root() => format!(
            "run knock-user as user {}, or end its process and run `sudo chown -R {name} {shown}`",
            name_of(owner)
        ),
        Some(_) => format!("`sudo chown -R {name} {shown}`"),
        None => format!("`sudo install -d -m 700 -o {name} {shown}`"),
    }
}

fn name_of(uid: Uid) -> String {
    let user = User::from_uid(uid).ok().flatten();
    user.map_or_else(|| uid.to_string(), |user| user.name)
}

/// Returns why a daemon of this user could not record what was used for the time after a reboot,
/// with the cure; none if it can. Root takes the directory over.
pub fn obstacle() -> Option<String> {
    let lasting = lasting();
    let existing = lasting.ancestors().find(|path| path.exists())?;
    let may = access(existing, AccessFlags::W_OK | AccessFlags::X_OK);
    let user = Uid::effective();
    // The service may run as another user.
    let condition = match user.is_root() {
        true => String::new(),
        false => format!("if knock-user runs as user {}, ", name_of(user)),
    };
    may.err().map(|errno| {
        format!(
            "{condition}what opens a door can't be recorded in {}, so after a reboot it could be \
             used again: {}; {}",
            lasting.display(),
            os_error::plain(&errno.into()),
            cure()
        )
    })
}

/// Gives root the directory and the files in it if they belong to another user, such as that of the
/// service: without all capabilities, root can't write to them. The service manager gives them back
/// at the next start of the service.
///
/// Returns what is to be reported.
pub fn take_over() -> Option<String> {
    let directory = lasting();
    if !Uid::effective().is_root() {
        return None;
    }
    let found = fs::symlink_metadata(&directory).ok()?;
    if found.uid() == 0 || !found.is_dir() {
        return None;
    }
    let shown = directory.display();
    if let Some(pid) = other_users_process() {
        return Some(format!(
            "{shown} stays with uid {}, because process {pid} of another user serves an instance",
            found.uid()
        ));
    }
    match give_to_root(&directory) {
        Ok(()) => Some(format!(
            "{shown} belonged to uid {} and belongs to root now, so that this process can record \
             there what was used; systemd gives it back when the service starts",
            found.uid()
        )),
        Err(error) => Some(os_error::describe(&error)),
    }
}

fn give_to_root(directory: &Path) -> Result<()> {
    let give = |path: &Path| {
        lchown(path, Some(0), Some(0)).with_context(|| format!("giving {} to root", path.display()))
    };
    // From here on the other user can't replace files in it.
    give(directory)?;
    let entries =
        fs::read_dir(directory).with_context(|| format!("listing {}", directory.display()))?;
    for entry in entries {
        let path = entry.context("listing the directory")?.path();
        // Another link of a file is not ours to give.
        let is_own = |found: fs::Metadata| found.is_file() && found.nlink() == 1;
        if fs::symlink_metadata(&path).is_ok_and(is_own) {
            give(&path)?;
        }
    }
    Ok(())
}

/// Returns a process of another user that serves an instance.
fn other_users_process() -> Option<u32> {
    let instances = Instance::with_files().ok()?.into_iter();
    let mut owners = instances.filter_map(|instance| instance.owner());
    owners.find(|pid| {
        let process = fs::metadata(format!("/proc/{pid}"));
        process.is_ok_and(|process| process.uid() != 0)
    })
}

/// Returns where a file is that is to outlive a reboot, if possible.
///
/// # Errors
/// No directory can be used: returns why, with the cure.
pub(crate) fn place_of(file: &str) -> Result<PathBuf, String> {
    let found = first_usable(|directory| {
        access(directory, AccessFlags::W_OK)
            .with_context(|| format!("writing to {}", directory.display()))?;
        Ok(directory.join(file))
    });
    found.map(|found| found.result)
}

/// Returns the id of this boot.
///
/// # Errors
/// The kernel does not report it.
pub(crate) fn boot() -> Result<String> {
    let id = fs::read_to_string(BOOT_ID).with_context(|| format!("reading {BOOT_ID}"))?;
    Ok(id.trim().to_owned())
}

/// Returns the file that is locked in place of a file in the directory.
pub(super) fn lock_of(path: &Path) -> PathBuf {
    path.with_extension("lock")
}

/// Locks a file in the directory, since several instances may use it. Waits as long as another
/// process holds the lock, so a loop that serves others must not call this.
///
/// # Errors
/// The lock file can't be created.
pub(super) fn lock(path: &Path) -> Result<fs::File> {
    let lock = lock_of(path);
    let locked = private_files::open(&lock).and_then(|file| file.lock().map(|()| file));
    locked.with_context(|| format!("locking {}", lock.display()))
}

/// Does the same, but waits at most [`PATIENCE`].
///
/// # Errors
/// As for [`lock`], or another process holds the lock for longer.
pub(super) fn lock_soon(path: &Path) -> Result<fs::File> {
    let lock = lock_of(path);
    let locking = || format!("locking {}", lock.display());
    let file = private_files::open(&lock).with_context(locking)?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => thread::sleep(POLL),
            Err(TryLockError::WouldBlock) => bail!(
                "locking {}: another process holds the lock; `fuser {0}` names it: end it if it hangs",
                lock.display()
            ),
            Err(TryLockError::Error(error)) => return Err(error).with_context(locking),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cure_takes_no_directory_from_a_service() {
        let directory = Path::new("/var/lib/knock");
        let [root, user, other] = [0, 4_000_000_001, 4_000_000_002].map(Uid::from_raw);
        for (name, of, owner, expected) in [
            (
                "no directory",
                user,
                None,
                "`sudo install -d -m 700 -o 4000000001 /var/lib/knock`",
            ),
            (
                "after a start as root",
                user,
                Some(root),
                "`sudo chown -R 4000000001 /var/lib/knock`",
            ),
            (
                "files of root",
                user,
                Some(user),
                "`sudo chown -R 4000000001 /var/lib/knock`",
            ),
            (
                "the service's directory",
                root,
                Some(other),
                "run knock-user as user 4000000002, or end its process and run `sudo chown -R root \
                 /var/lib/knock`",
            ),
            (
                "another user's directory",
                user,
                Some(other),
                "run knock-user as user 4000000002, or end its process and run `sudo chown -R \
                 4000000001 /var/lib/knock`",
            ),
            (
                "a read-only file system",
                root,
                Some(root),
                "name a writable directory in STATE_DIRECTORY",
            ),
        ] {
            assert_eq!(cure_of(directory, of, owner), expected, "{name}");
        }
    }
}
