//! What opens a door once in the whole group, and who used it.

use serde::{Deserialize, Serialize};

use crate::model::prefix::Prefix;

/// Something that opens a door once: a line of a one-time file, a period of a time-based sequence, a packet
/// of single packet authorization.
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Use {
    /// What it belongs to: a text that is the same at all hosts of the group, and no secret.
    pub of: String,
    /// Which one it is.
    pub mark: Mark,
}

/// Distinguishes uses of one kind.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mark {
    /// A line of a one-time file. Its use voids the lines before it.
    Line {
        /// Its number, from 1.
        line: u32,
        /// A check of its content: other hosts have the same file.
        check: u32,
    },
    /// A period or packet.
    Once {
        /// A number that no other one of its kind has while it could be repeated.
        mark: [u64; 2],
        /// For how long it could be repeated, in milliseconds.
        keep_ms: u64,
    },
}

/// A use as hosts write it for each other.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct UseRecord {
    /// What was used.
    pub used: Use,
    /// The id of the claim, which is random: after a lost answer it shows whose record it is.
    pub id: u64,
    /// By whom.
    pub by: UsedBy,
    /// When, in milliseconds of the wall clock of its host.
    pub at_ms: u64,
    /// The ids of the claims of lower lines that it replaced, the latest ones: the answers to those may have
    /// been lost.
    pub before: Vec<u64>,
}

/// Who used something, and where.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct UsedBy {
    /// The name of the host.
    pub host: String,
    /// The addresses that the door was opened for; none if a file had the use.
    pub source: Option<Prefix>,
}

/// The use of something, which opens a door here if no host of the group used it before.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Claim {
    /// A random number.
    pub id: u64,
    /// What is used.
    pub used: Use,
    /// The name of the door.
    pub door: String,
    /// The addresses that it opens for.
    pub source: Prefix,
    /// When the packet came, in milliseconds since boot.
    pub at_ms: u64,
    /// When the grant ends, in milliseconds since boot.
    pub until_ms: u64,
}

/// The reason why a claim opens nothing.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Denial {
    /// It was used before: it, or a later line of the file.
    Used {
        /// By whom.
        by: UsedBy,
    },
    /// The engine was not reached in time. The use counts here, and maybe in the group.
    CutOff,
    /// The engine has a record of this use that no key of the group sealed for its place.
    Unreadable,
    /// The source was revoked after its packet came.
    Revoked,
    /// The grant ended before the engine answered.
    Late,
}

/// The most ids of earlier claims in a record.
const BEFORE: usize = 16;

impl UseRecord {
    /// Returns whether it is the record of a claim, or followed it.
    pub fn has(&self, id: u64) -> bool {
        self.id == id || self.before.contains(&id)
    }

    /// Returns the ids of the claims that a record has which replaces this one.
    pub(super) fn ids(&self) -> Vec<u64> {
        let before = self.before.iter().take(BEFORE - 1);
        std::iter::once(&self.id).chain(before).copied().collect()
    }
}

impl Use {
    /// Returns whether another one of its place can't be used after this one.
    pub fn voids(&self, other: &Self) -> bool {
        self.line() >= other.line()
    }

    /// Returns for how long the engine keeps its record, in milliseconds; none: until it is replaced.
    pub const fn keep_ms(&self) -> Option<u64> {
        match self.mark {
            Mark::Line { .. } => None,
            Mark::Once { keep_ms, .. } => Some(keep_ms),
        }
    }

    /// Returns the number of a line; 0 for what has none.
    pub(super) const fn line(&self) -> u32 {
        match self.mark {
            Mark::Line { line, .. } => line,
            Mark::Once { .. } => 0,
        }
    }
}
