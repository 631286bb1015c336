//! The answer: the fields of `--json`.

use serde::{Deserialize, Serialize};

use crate::interfaces::preceding::Preceding;

/// The status of an instance.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Answer {
    /// Name of the instance.
    pub instance: String,
    /// The process that reports events; none if none runs.
    pub pid: Option<u32>,
    /// The version of that process.
    pub version: Option<String>,
    /// The configuration.
    pub config: String,
    /// Since when that process runs: RFC 3339.
    pub since: Option<String>,
    /// Where packets are judged.
    pub interfaces: Vec<InterfaceAnswer>,
    /// The protected ports: `tcp/22`.
    pub ports: Vec<String>,
    /// Whether nothing is dropped.
    pub dry_run: bool,
    /// In how many seconds the trial is rolled back, unless it is confirmed.
    pub trial_seconds: Option<f64>,
    /// How many doors there are.
    pub doors: usize,
    /// The doors with one-time sequences; none if no process runs.
    #[serde(default)]
    pub one_time: Vec<OneTimeStatus>,
    /// How many grants are valid: a source and a door each.
    pub grants: usize,
    /// How many connections are kept.
    pub flows: usize,
    /// How many prefixes commands block.
    #[serde(default)]
    pub blocked: usize,
    /// The sizes of the tables of the kernel side.
    #[serde(default)]
    pub tables: TablesAnswer,
    /// How many watch; none if no process runs.
    pub watchers: usize,
    /// The counters, without those at zero.
    pub counters: Vec<Counter>,
    /// Whether everything that the configuration asks for is in force on every interface it names.
    #[serde(default)]
    pub in_force: bool,
    /// The shortfalls.
    #[serde(default)]
    pub shortfalls: Vec<Shortfall>,
    /// Notes that change nothing of what is protected.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// Something that the configuration asks for and that is not in force.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Shortfall {
    /// One word for programs: docs/control.md lists them.
    pub kind: String,
    /// The interface that it is about, if it is about one.
    pub interface: Option<String>,
    /// The missing part, and the reason.
    pub text: String,
}

/// The status of several instances of one network namespace.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Statuses {
    /// Whether all of them are in force.
    pub in_force: bool,
    /// The shortfalls of all of them.
    pub shortfalls: Vec<Shortfall>,
    /// Each of them.
    pub instances: Vec<Answer>,
}

/// The tables of the kernel side: for how much they have room. What only a process knows is none without one.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct TablesAnswer {
    /// The memory of all tables, in octets, as the kernel counts it.
    pub memory: Option<u64>,
    /// First knocks.
    pub first_knocks: Option<u32>,
    /// Attempts past the first knock.
    pub attempts: Option<u32>,
    /// Grants.
    pub grants: u32,
    /// Kept connections.
    pub flows: u32,
    /// Sources with failed attempts; none without a lockout.
    pub failures: Option<u32>,
}

/// A door with one-time sequences.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct OneTimeStatus {
    /// Its name.
    pub door: String,
    /// The next line of its file; `None` if the door can't be opened.
    pub next_line: Option<u32>,
    /// How many lines are left.
    pub sequences_left: usize,
    /// The reason why the door can't be opened.
    pub because: Option<String>,
}

/// An interface.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct InterfaceAnswer {
    /// The name under which it is asked for.
    pub name: String,
    /// The name that it has, if that is another: it is asked for by an alternative name, or was
    /// renamed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current_name: Option<String>,
    /// `protected`, `absent`, `refused` or `missing`: nothing of ours is attached.
    #[serde(default)]
    pub state: String,
    /// Whether its packets are judged now.
    pub attached: bool,
    /// `native` in the driver, `skb` behind it, `tc` at traffic control; none if it is not attached.
    pub mode: Option<String>,
    /// Why the driver does not run the program, if `mode = "auto"` chose that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode_because: Option<String>,
    /// The ids of programs of others that run before it at traffic control: what they drop, pass or
    /// redirect is not judged.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub behind: Vec<u32>,
    /// The same, with their links and names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub preceding: Vec<Preceding>,
    /// Whether only the process keeps the program attached, because nothing can be pinned.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ends_with_process: bool,
    /// Why its packets are not judged, and what cures that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub because: Option<String>,
}

/// A counter.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Counter {
    /// Name of the reason or tally.
    pub name: String,
    /// In words.
    pub text: String,
    /// `pass`, `drop` or `answer`; none for what is not about a packet.
    pub verdict: Option<String>,
    /// How often.
    pub count: u64,
}
