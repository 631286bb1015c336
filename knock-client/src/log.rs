//! The client's own log.

use crate::refused;
use jiff::Timestamp;
use knock_sequence::terminal::harmless;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// A file to which a line is appended for each step.
///
/// The lines are kept and written at once: the knocks must not wait for a disk.
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
    file: File,
    host: String,
    lines: String,
}

/// A log that can't be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the log {}: {}", path.display(), refused::of_file(cause))]
pub struct LogError {
    /// The file.
    pub path: PathBuf,
    /// The system's error.
    pub cause: io::Error,
}

impl Log {
    /// Opens the file, or creates one that only its owner can read, because it contains the knocks.
    ///
    /// # Errors
    ///
    /// It can't be opened.
    pub fn open(path: &Path, host: &str) -> Result<Self, LogError> {
        let mut options = OpenOptions::new();
        options.append(true).create(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(path).map_err(|cause| LogError {
            path: path.to_owned(),
            cause,
        })?;
        Ok(Self {
            path: path.to_owned(),
            file,
            host: harmless(host).into_owned(),
            lines: String::new(),
        })
    }

    /// Adds a line with the current time.
    pub(crate) fn line(&mut self, text: &str) {
        let host = &self.host;
        self.lines += &format!("{:.3} {host}: {text}\n", Timestamp::now());
    }

    /// Writes the lines.
    ///
    /// # Errors
    ///
    /// It can't be written.
    pub(crate) fn flush(&mut self) -> Result<(), LogError> {
        let lines = std::mem::take(&mut self.lines);
        let Self { path, file, .. } = self;
        file.write_all(lines.as_bytes()).map_err(|cause| LogError {
            path: path.clone(),
            cause,
        })
    }
}
