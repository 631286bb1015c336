//! Files to which standard output and standard error go, and their rotation.
//!
//! A shell opens them (`knock-user >> /var/log/knock.log`), and logrotate moves them away or truncates
//! them while this process writes.

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

/// The files that are written to, if any.
#[derive(Debug, Default)]
pub struct LogFiles {
    stdout: Option<PathBuf>,
    stderr: Option<PathBuf>,
}

impl LogFiles {
    /// Finds the files, and has everything appended to them from now on.
    ///
    /// A file that was opened with `>` and is truncated later would otherwise begin with as many zero
    /// octets as it had before.
    pub fn find() -> Self {
        Self {
            stdout: find(io::stdout().as_fd(), "/proc/self/fd/1"),
            stderr: find(io::stderr().as_fd(), "/proc/self/fd/2"),
        }
    }

    /// Opens files again that were moved away or removed; a file that can't be opened is a warning,
    /// and what is written goes on to the old one.
    pub fn reopen(&self) {
        if let Some(path) = &self.stdout {
            // Nothing of a line may be left for the new file.
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

/// The same file, to be asked about.
fn file(fd: BorrowedFd<'_>) -> io::Result<File> {
    fd.try_clone_to_owned().map(File::from)
}

/// Has every write append.
fn append(fd: BorrowedFd<'_>) -> nix::Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
    fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_APPEND)).map(drop)
}

/// The file at a path, if what is written to is another one by now.
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
        // Whoever may write beside the file must not choose another one through a link, or one that
        // is not there to be written to.
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)?;
    anyhow::ensure!(file.metadata()?.is_file(), "it is no regular file");
    Ok(Some(file))
}

fn put(file: Option<File>, dup: impl FnOnce(&File) -> nix::Result<()>) -> Result<()> {
    match file {
        Some(file) => dup(&file).context("taking it in the old one's place"),
        None => Ok(()),
    }
}

fn warn(path: &Path, done: Result<()>) {
    if let Err(error) = done {
        tracing::warn!(
            "{} can't be opened again: {}; lines still go to the file that was moved away: \
             let this user write there, and reload again",
            path.display(),
            os_error::told(&error)
        );
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_truncated_file_begins_with_what_comes_next() {
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
    fn what_is_opened_again() {
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
