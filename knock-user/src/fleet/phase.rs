//! How far a host has got in following the engine.

use std::collections::HashMap;

use super::record::{Place, Record};

/// How far this host has got.
#[derive(Clone, Debug)]
pub(super) enum Phase {
    /// Records are collected until the engine says that these are all.
    Collecting(Batch),
    /// Each record is applied as it comes.
    Following,
}

impl Default for Phase {
    fn default() -> Self {
        Self::Collecting(Batch::default())
    }
}

impl Phase {
    /// Returns whether everything that the engine has was applied, so that this host may write.
    pub(super) const fn is_following(&self) -> bool {
        matches!(self, Self::Following)
    }
}

/// Records that were received and not applied yet.
#[derive(Clone, Debug, Default)]
pub(super) struct Batch {
    /// The list that they belong to; none for changes.
    pub(super) list: Option<List>,
    pub(super) records: Vec<(Place, Record, u64)>,
    /// The revisions of all records of the list, by their keys; of unreadable ones, too.
    pub(super) keys: HashMap<String, u64>,
}

/// How a list began.
#[derive(Clone, Debug)]
pub(super) struct List {
    pub(super) cluster: String,
    pub(super) is_other: bool,
}
