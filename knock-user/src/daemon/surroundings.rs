//! The facts about the host that the daemon follows.

use std::collections::BTreeSet;

use tokio::sync::oneshot;

use crate::host::{Reading, addresses::Link};

/// The state of the host as last read, and the warnings that were reported.
#[derive(Default)]
pub(super) struct Surroundings {
    pub(super) links: Vec<Link>,
    pub(super) reported: BTreeSet<String>,
    /// The result of the thread that reads rules that translate ports, while it runs.
    pub(super) reading: Option<oneshot::Receiver<Reading>>,
    /// Whether the rules have changed since they were reported.
    pub(super) are_others: bool,
}
