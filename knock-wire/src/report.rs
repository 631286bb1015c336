//! What `knock-fleet` reports to the daemon.

use serde::{Deserialize, Serialize};

use crate::{octets::Octets, queue::Keyed};

/// A line from `knock-fleet`.
///
/// Changes come in the order of their revisions, each once, however many members are watched; those
/// of one revision are adjacent. A newer value of a key may replace an older one that waits.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(tag = "report", rename_all = "snake_case")]
pub enum Report {
    /// A member was reached and is watched. Others may be as well.
    Linked {
        /// Its URL.
        member: String,
        /// The version of the engine.
        version: String,
    },
    /// No member is watched, or the daemon's lines can't be followed. Attempts continue unless the
    /// process ends.
    Lost {
        /// The member or file that it concerns, the reason, and what to do.
        reason: String,
    },
    /// A list of all the records below a prefix begins. What was received before and is not in it
    /// was deleted meanwhile.
    List {
        /// The prefix.
        prefix: String,
        /// Why there is one.
        cause: Cause,
        /// The id of the cluster.
        cluster: String,
    },
    /// The list ends.
    Listed {
        /// The prefix.
        prefix: String,
        /// The revision of the engine that the list shows.
        revision: u64,
    },
    /// A record: of a list, or put since.
    Record {
        /// Its key.
        key: String,
        /// Its value.
        value: Octets,
        /// The revision at which it was put.
        revision: u64,
    },
    /// A key was deleted, by a command or by the end of its lease.
    Deleted {
        /// The key.
        key: String,
        /// The revision at which it was deleted.
        revision: u64,
    },
    /// Everything below the prefix up to a revision was reported, by a member that has a leader.
    ///
    /// It comes after each message of a watch, and at least each second while a watch answers.
    Current {
        /// The prefix.
        prefix: String,
        /// The revision.
        revision: u64,
        /// When the member was asked last such that a majority of the members has confirmed its answer, in
        /// milliseconds of `CLOCK_BOOTTIME`.
        at_ms: u64,
    },
    /// The keys were written.
    Written {
        /// The number of the request.
        id: u64,
        /// The revision at which they were.
        revision: u64,
    },
    /// The condition did not hold, so nothing was written.
    Refused {
        /// The number of the request.
        id: u64,
        /// The record under the key of the condition; none if there is none.
        found: Option<Found>,
        /// The revision of the engine at which it was read.
        revision: u64,
    },
    /// No answer came from any member.
    Failed {
        /// The number of the request.
        id: u64,
        /// Whether the keys may have been written nevertheless, now or in a moment.
        may_be_written: bool,
        /// The member, the reason, and what to do.
        reason: String,
    },
}

impl Keyed for Report {
    type Key = String;

    /// Returns the key of a change, or the prefix of `current`: later ones replace it.
    fn key(&self) -> Option<String> {
        match self {
            Self::Record { key, .. } | Self::Deleted { key, .. } => Some(key.clone()),
            // No key ends with a slash.
            Self::Current { prefix, .. } => Some(format!("{prefix}/")),
            Self::Linked { .. }
            | Self::Lost { .. }
            | Self::List { .. }
            | Self::Listed { .. }
            | Self::Written { .. }
            | Self::Refused { .. }
            | Self::Failed { .. } => None,
        }
    }
}

/// The record that a condition found.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Found {
    /// Its value.
    pub value: Octets,
    /// The revision at which it was put.
    pub revision: u64,
}

/// The reason for a list.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The daemon asked for one.
    Asked,
    /// The engine no longer has the changes since the point.
    Compacted,
    /// The point is not in the history of the engine: another cluster, or a restored backup.
    History,
    /// Lines were left out because the daemon did not read them in time.
    Overflow,
}
