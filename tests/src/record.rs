//! What the commands of doors did: a line each, in a file.

use std::fs;

use tempfile::NamedTempFile;

use crate::wait;

/// A file to which commands write a line each.
#[derive(Debug)]
pub struct Record(NamedTempFile);

impl Record {
    /// An empty one.
    ///
    /// # Panics
    /// The file can't be made.
    #[track_caller]
    pub fn new() -> Self {
        match NamedTempFile::with_prefix("knock-test-") {
            Ok(file) => Self(file),
            Err(error) => panic!("making a record: {error}"),
        }
    }

    /// The keys of a door that has its commands recorded: `open DOOR SOURCE`, `close DOOR SOURCE`.
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

    /// How often a command was run.
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
    /// It does not in time, or has run more than once.
    #[track_caller]
    pub fn gets(&self, line: &str) {
        wait::until(&format!("a command: {line}"), || self.count(line) > 0);
        assert_eq!(self.count(line), 1, "{line}");
    }
}

impl Default for Record {
    #[track_caller]
    fn default() -> Self {
        Self::new()
    }
}
