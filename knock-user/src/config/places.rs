//! The lines of keys and doors in a file.

use super::section::KeyLines;
use crate::{
    compile::Conflict,
    model::{problem::Problem, sources::Sources},
};

/// A problem of a door: its index, the key, and the reason.
pub(super) type DoorProblem = (usize, &'static str, String);

/// The lines of keys and doors in the file.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct FileLines {
    pub(super) keys: KeyLines,
    /// The lines of the keys of `[spa]`.
    pub(super) spa: KeyLines,
    /// The lines of the keys of `[limits]`.
    pub(super) limits: KeyLines,
    /// The lines of the keys of `[fleet]`.
    pub(super) fleet: KeyLines,
    pub(super) doors: Vec<TableLines>,
    pub(super) users: Vec<TableLines>,
    /// The values of `include`.
    pub(super) include: Vec<String>,
    /// The files whose lines these are.
    pub(super) sources: Sources,
}

/// The lines of a table and its keys.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct TableLines {
    pub(super) line: usize,
    pub(super) keys: KeyLines,
    /// Whether none of its keys gives a sequence, nor was probably meant to.
    pub(super) lacks_sequence: bool,
    /// The lines of a user's keys.
    pub(super) items: Vec<usize>,
}

impl FileLines {
    /// Returns the line of a key of a door, or of the door if the key is not written.
    pub(super) fn of_door(&self, door: usize, key: &str) -> Option<usize> {
        let places = self.doors.get(door)?;
        Some(places.keys.get(key).copied().unwrap_or(places.line))
    }

    pub(super) fn problem(&self, conflict: Conflict) -> Problem {
        let Conflict { door, key, reason } = conflict;
        let line = match door {
            Some(door) => self.of_door(door, key),
            None => self.keys.get(key).copied(),
        };
        Problem {
            line,
            key: key.to_owned(),
            reason,
        }
    }
}
