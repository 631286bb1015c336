//! Replaces a file on the disk, under a lock.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;
use tempfile::NamedTempFile;

/// A lock under which one program at a time changes a file.
pub(super) struct FileLock(#[expect(dead_code, reason = "it is held")] File);

impl FileLock {
    /// Locks a file beside it, which stays: the file itself is replaced.
    pub(super) fn wait(file: &Path) -> io::Result<Self> {
        let mut name = file.as_os_str().to_owned();
        name.push(".lock");
        let mut options = File::options();
        options.write(true).create(true).truncate(false);
        // A link planted beside the file must not redirect the lock.
        #[cfg(unix)]
        {
            use std::os::unix::fs::OpenOptionsExt as _;
            options.mode(0o600).custom_flags(nix::libc::O_NOFOLLOW);
        }
        let lock = options.open(name)?;
        lock.lock()?;
        Ok(Self(lock))
    }
}

/// Replaces a file atomically, and syncs it to the disk.
pub(super) fn replace(file: &Path, text: &[u8]) -> io::Result<()> {
    let directory = file.parent().unwrap_or(Path::new("."));
    let mut new = NamedTempFile::new_in(directory)?;
    new.write_all(text)?;
    let old = fs::metadata(file)?;
    fs::set_permissions(new.path(), old.permissions())?;
    keep_owner(&old, new.path())?;
    new.as_file().sync_all()?;
    new.persist(file).map_err(|error| error.error)?;
    sync_directory(directory)
}

/// Keeps the owner, so that use by root does not make the file root's.
#[cfg(unix)]
fn keep_owner(old: &fs::Metadata, new: &Path) -> io::Result<()> {
    use std::os::unix::fs::{MetadataExt as _, chown};
    let made = fs::metadata(new)?;
    if (made.uid(), made.gid()) == (old.uid(), old.gid()) {
        return Ok(());
    }
    chown(new, Some(old.uid()), Some(old.gid()))
}

#[cfg(not(unix))]
fn keep_owner(_old: &fs::Metadata, _new: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(unix)]
fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Does nothing: elsewhere directories can't be opened.
#[cfg(not(unix))]
fn sync_directory(_directory: &Path) -> io::Result<()> {
    Ok(())
}
