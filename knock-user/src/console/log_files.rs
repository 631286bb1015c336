//! Files to which standard output and standard error go, and their rotation.
//!
//! A shell opens them (`knock-user >> /var/log/knock.log`), and logrotate renames or truncates them
//! while this process writes.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    libc, unistd,
};

use crate::host::os_error;

/// The files behind standard output and standard error, if any.
#[derive(Debug, Default)]
pub struct LogFiles {
    stdout: Option<PathBuf>,
    stderr: Option<PathBuf>,
}

impl LogFiles {
    /// Finds the files, and switches them to append mode.
    ///
    /// Without it, a file that was opened with `>` and is truncated later begins with as many zero
    /// octets as it had before.
    pub fn find() -> Self {
        Self {
            stdout: find(io::stdout().as_fd(), "/proc/self/fd/1"),
            stderr: find(io::stderr().as_fd(), "/proc/self/fd/2"),
        }
    }

    /// Opens files again that were renamed or removed. If that fails, it warns, and lines still go
    /// to the old file.
    pub fn reopen(&self) {
        if let Some(path) = &self.stdout {
            // No part of a line may end up in the new file.
            let _unwritable = io::stdout().flush();
            let opened = again(io::stdout().as_fd(), path);
            warn(
                path,
                opened.and_then(|file| put(file, |file| unistd::dup2_stdout(file))),
            );
        }
        if let Some(path) = &self.stderr {
            let opened = again(io::stderr().as_fd(), path);
            warn(
                path,
                opened.and_then(|file| put(file, |file| unistd::dup2_stderr(file))),
            );
        }
    }
}

fn find(fd: BorrowedFd<'_>, link: &str) -> Option<PathBuf> {
    let is_file = file(fd).ok()?.metadata().ok()?.is_file();
    if !is_file {
        return None;
    }
    append(fd).ok()?;
    fs::read_link(link).ok()
}

/// Returns a duplicate for queries.
fn file(fd: BorrowedFd<'_>) -> io::Result<File> {
    fd.try_clone_to_owned().map(File::from)
}

/// Switches to append mode.
fn append(fd: BorrowedFd<'_>) -> nix::Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
    fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_APPEND)).map(drop)
}

/// Opens the file at a path if it is no longer the one that is written to.
fn again(fd: BorrowedFd<'_>, path: &Path) -> Result<Option<File>> {
    let old = file(fd)?.metadata()?;
    let there = fs::symlink_metadata(path);
    if there.is_ok_and(|there| (there.dev(), there.ino()) == (old.dev(), old.ino())) {
        return Ok(None);
    }
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(old.mode() & 0o777)
        // A user who may write to the directory must not redirect lines through a link, or to a
        // special file.
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)?;
    anyhow::ensure!(file.metadata()?.is_file(), "it is not a regular file");
    Ok(Some(file))
}

fn put(file: Option<File>, dup: impl FnOnce(&File) -> nix::Result<()>) -> Result<()> {
    match file {
        Some(file) => dup(&file).context("replacing the open file"),
        None => Ok(()),
    }
}

fn warn(path: &Path, done: Result<()>) {
    if let Err(error) = done {
        tracing::warn!(
            "{} can't be opened again: {}; lines still go to the file that was moved away: \
             let this user write there, and reload again",
            path.display(),
            os_error::describe(&error)
        );
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_truncated_file_begins_with_the_next_line() {
        for (name, is_appended, expected) in
            [("as opened", false, "\0\0\0two"), ("appended", true, "two")]
        {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("log");
            let mut file = File::create(&path).unwrap();
            if is_appended {
                append(file.as_fd()).unwrap();
            }
            file.write_all(b"one").unwrap();
            OpenOptions::new()
                .write(true)
                .truncate(true)
                .open(&path)
                .unwrap();
            file.write_all(b"two").unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), expected, "{name}");
        }
    }

    #[test]
    fn moved_files_are_opened_again_and_links_are_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let moved = directory.path().join("log.1");
        let other = directory.path().join("other");
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o640)
            .open(&path)
            .unwrap();
        let open = || again(file.as_fd(), &path);
        assert!(open().unwrap().is_none(), "still there");

        fs::rename(&path, &moved).unwrap();
        open().unwrap().unwrap().write_all(b"new").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new", "moved away");
        assert_eq!(
            fs::metadata(&path).unwrap().mode() & 0o777,
            0o640,
            "moved away"
        );

        fs::remove_file(&path).unwrap();
        fs::write(&other, "").unwrap();
        std::os::unix::fs::symlink(&other, &path).unwrap();
        assert!(open().is_err(), "a link in its place");
        assert_eq!(
            fs::read_to_string(&other).unwrap(),
            "",
            "a link in its place"
        );
    }
}
