//! A record of the commands that doors ran, one line each.

use std::fs;

use tempfile::NamedTempFile;

use crate::wait;

/// A file to which commands write a line each.
#[derive(Debug)]
pub struct CommandLog(NamedTempFile);

impl CommandLog {
    /// Creates an empty record.
    ///
    /// # Panics
    /// The file can't be created.
    #[track_caller]
    pub fn new() -> Self {
        match NamedTempFile::with_prefix("knock-test-") {
            Ok(file) => Self(file),
            Err(error) => panic!("making a record: {error}"),
        }
    }

    /// Returns the keys of a door that record its commands as `open DOOR SOURCE` and `close DOOR SOURCE`.
    pub fn keys(&self) -> String {
        let command = |occasion: &str| {
            // In one write, so that lines stay whole.
            format!(
                "on_{occasion} = [\"/bin/sh\", \"-c\", \
                 \"echo {occasion} $KNOCK_DOOR $KNOCK_SOURCE >> {}\"]\n",
                self.0.path().display()
            )
        };
        command("open") + &command("close")
    }

    /// Returns how often a command was run.
    ///
    /// # Panics
    /// The file can't be read.
    #[track_caller]
    pub fn count(&self, line: &str) -> usize {
        match fs::read_to_string(self.0.path()) {
            Ok(text) => text.lines().filter(|found| *found == line).count(),
            Err(error) => panic!("reading a record: {error}"),
        }
    }

    /// Waits until a command has run, once.
    ///
    /// # Panics
    /// It has not run in time, or has run more than once.
    #[track_caller]
    pub fn gets(&self, line: &str) {
        wait::until(&format!("a command: {line}"), || self.count(line) > 0);
        assert_eq!(self.count(line), 1, "{line}");
    }
}

impl Default for CommandLog {
    #[track_caller]
    fn default() -> Self {
        Self::new()
    }
}
