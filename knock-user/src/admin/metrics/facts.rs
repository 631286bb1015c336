//! The data of metrics, from a daemon or from pins.

use std::collections::BTreeMap;

use crate::{admin::status, metrics::Tally};

/// Everything that is measured of an instance.
#[derive(Clone, Debug, Default)]
pub(super) struct MetricFacts {
    /// The status, with what is missing.
    pub(super) status: status::Answer,
    /// The counters of the kernel side, by number.
    pub(super) counts: Vec<u64>,
    /// The entries of tables.
    pub(super) tables: TableEntries,
    /// The valid grants of each door, by its name.
    pub(super) grants: BTreeMap<String, u64>,
    /// The time at which the program was loaded, in seconds since 1970, if the kernel reports it.
    pub(super) loaded_s: Option<f64>,
    /// Facts that only a process knows.
    pub(super) process: Option<ProcessFacts>,
}

/// The entries of tables, expired ones among them, and how many of them are valid.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct TableEntries {
    /// Entries of the table of grants.
    pub(super) grants: u64,
    /// Entries of the table of flows.
    pub(super) flows: u64,
    /// Entries of the table of attempts; unknown without a process, which alone can open it.
    pub(super) attempts: Option<u64>,
    /// Flows that are kept.
    pub(super) kept: u64,
    /// Attempts that have not expired; unknown without a process.
    pub(super) in_progress: Option<u64>,
    /// Sources that are locked out; unknown without a lockout or a process.
    pub(super) locked_out: Option<u64>,
}

/// Facts about the group of hosts.
#[derive(Clone, Debug, Default)]
pub(super) struct FleetFacts {
    /// The group.
    pub(super) group: String,
    /// Whether the engine has answered within `grace`.
    pub(super) is_in_sync: bool,
    /// Grants of other hosts that are in force.
    pub(super) grants: u64,
    /// Records that wait to be written.
    pub(super) waiting: u64,
    /// Records that could not be read.
    pub(super) unreadable: u64,
}

/// Facts that only a process knows.
#[derive(Clone, Debug, Default)]
pub(super) struct ProcessFacts {
    /// When it started, in seconds since 1970.
    pub(super) started_s: f64,
    /// When a start or reload put the configuration in force, in seconds since 1970.
    pub(super) configured_s: f64,
    /// Whether the last reload failed.
    pub(super) has_reload_failed: bool,
    /// When the trial ends, in seconds since 1970, if there is one.
    pub(super) trial_ends_s: Option<f64>,
    /// This host in its group, if it has one.
    pub(super) fleet: Option<FleetFacts>,
    /// Commands that run or wait.
    pub(super) commands: u64,
    /// The names of users, in the order of the configuration.
    pub(super) users: Vec<String>,
    /// Doors with commands, and the keys of these.
    pub(super) commanded: Vec<(String, &'static str)>,
    /// Counts since its start.
    pub(super) tally: Tally,
}
