//! What the commands answer: the fields are those of `--json`.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// How a firewall is.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Status {
    /// Name of the instance.
    pub instance: String,
    /// The process that tells what happens; none if nobody does.
    pub pid: Option<u32>,
    /// The version of that process.
    pub version: Option<String>,
    /// The configuration.
    pub config: String,
    /// Since when that process runs: RFC 3339.
    pub since: Option<String>,
    /// Where packets are judged.
    pub interfaces: Vec<Interface>,
    /// What is protected: `tcp/22`.
    pub ports: Vec<String>,
    /// Whether nothing is dropped.
    pub dry_run: bool,
    /// In how many seconds everything goes back, unless it is confirmed.
    pub trial_seconds: Option<f64>,
    /// How many doors there are.
    pub doors: usize,
    /// The doors with one-time sequences; none if no process runs.
    #[serde(default)]
    pub one_time: Vec<OneTime>,
    /// How many grants are valid: a source and a door each.
    pub grants: usize,
    /// How many connections are kept.
    pub flows: usize,
    /// How many watch; none if no process runs.
    pub watchers: usize,
    /// What was counted, without the zeros.
    pub counters: Vec<Counter>,
    /// Whether everything that the configuration asks for is in force on every interface it names.
    #[serde(default)]
    pub in_force: bool,
    /// What is missing for that.
    #[serde(default)]
    pub shortfalls: Vec<Shortfall>,
    /// What else is worth knowing.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// Something that the configuration asks for and that is not so.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Shortfall {
    /// One word for programs: docs/control.md lists them.
    pub kind: String,
    /// The interface that it is about, if it is about one.
    pub interface: Option<String>,
    /// What is missing, and why.
    pub text: String,
}

/// How several firewalls of one network namespace are.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Statuses {
    /// Whether all of them are in force.
    pub in_force: bool,
    /// What is missing, of all of them.
    pub shortfalls: Vec<Shortfall>,
    /// Each of them.
    pub instances: Vec<Status>,
}

/// A door with one-time sequences.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct OneTime {
    /// Its name.
    pub door: String,
    /// The line of its file that is next; none if nobody can open the door.
    pub next_line: Option<u32>,
    /// How many lines are left.
    pub sequences_left: usize,
    /// Why nobody can open the door.
    pub because: Option<String>,
}

/// An interface.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Interface {
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
    /// `native` in the driver, `skb` behind it; none if it is not attached.
    pub mode: Option<String>,
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

/// Who has grants.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Grants {
    /// The grants, by source and door.
    pub grants: Vec<Held>,
}

/// A grant.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Held {
    /// Who has it.
    pub source: IpAddr,
    /// Name of the door.
    pub door: String,
    /// What it opens: `tcp/22`.
    pub ports: Vec<String>,
    /// When it ends: RFC 3339.
    pub until: String,
    /// In how many seconds it ends.
    pub seconds: f64,
    /// When it was given, if that is known: RFC 3339.
    pub since: Option<String>,
    /// `knock`, or `uid 0` of who gave it, if that is known.
    pub by: Option<String>,
}

/// What `grant` did.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Granted {
    /// Who was let in.
    pub source: IpAddr,
    /// Name of the door.
    pub door: String,
    /// What is open now: `tcp/22`.
    pub ports: Vec<String>,
    /// When it ends: later than was asked for, if a longer grant was there.
    pub until: String,
    /// In how many seconds it ends.
    pub seconds: f64,
}

/// What `revoke` did.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Revoked {
    /// Whose grants were ended.
    pub source: IpAddr,
    /// Names of the doors; none if there was no grant.
    pub doors: Vec<String>,
    /// Its connections that go on.
    pub flows: usize,
}

/// What `reload` did.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Reloaded {
    /// The configuration.
    pub config: String,
    /// What has changed, a line each; none if nothing has.
    pub changes: Vec<String>,
    /// What is unwise in it, a line each.
    pub warnings: Vec<String>,
}

/// What `confirm` did.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Confirmed {
    /// Whether there was something to confirm.
    pub was_on_trial: bool,
}

/// What `detach` did.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Detached {
    /// Interfaces that are no longer protected; none if none was.
    pub interfaces: Vec<String>,
    /// What is no longer protected there: `tcp/22`.
    pub ports: Vec<String>,
}
