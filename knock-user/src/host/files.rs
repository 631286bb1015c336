//! Opens files that other users may name or replace.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::Path,
};

use nix::unistd::User;

/// Opens a regular file without blocking; `otherwise` is the error for any other kind of file.
pub(crate) fn open_regular(path: &Path, otherwise: &str) -> io::Result<File> {
    // Opening a pipe without a writer would block.
    let opened = File::options()
        .read(true)
        .custom_flags(nix::libc::O_NONBLOCK)
        .open(path);
    opened.and_then(|file| {
        if file.metadata()?.is_file() {
            return Ok(file);
        }
        Err(io::Error::other(otherwise))
    })
}

/// Returns whether the owners and modes of a file and its directories let a user read it.
///
/// Access control lists are not considered. Returns true if the file does not exist.
pub(crate) fn may_read(path: &Path, user: &User) -> bool {
    const READ: u32 = 4;
    const SEARCH: u32 = 1;
    let Ok(path) = path.canonicalize() else {
        return true;
    };
    let parts = path
        .ancestors()
        .zip([READ].into_iter().chain(std::iter::repeat(SEARCH)));
    parts.into_iter().all(|(part, needed)| {
        let Ok(found) = fs::metadata(part) else {
            return true;
        };
        let shift = if found.uid() == user.uid.as_raw() {
            6
        } else if found.gid() == user.gid.as_raw() {
            3
        } else {
            0
        };
        found.mode() >> shift & needed == needed
    })
}

/// Returns whether every user of the host can enter the directories of a file.
///
/// Access control lists are not considered. Returns false if the file does not exist.
pub(crate) fn is_reached_by_all(path: &Path) -> bool {
    const SEARCHED_BY_ALL: u32 = 0o001;
    path.canonicalize().is_ok_and(|path| {
        let mut directories = path.ancestors().skip(1);
        directories.all(|directory| {
            fs::metadata(directory).is_ok_and(|found| found.mode() & SEARCHED_BY_ALL != 0)
        })
    })
}
