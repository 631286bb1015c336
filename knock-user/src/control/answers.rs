//! What the commands answer: the fields are those of `--json`.
//!
//! The functions here make answers of plain data, so that it does not matter whether a daemon has
//! it in memory or a client has read it from pinned maps.

use std::{collections::BTreeMap, net::IpAddr};

use anyhow::Result;
use jiff::{SignedDuration, Timestamp};
use knock_common::{
    Address, Reason, Tally, Verdict,
    access::{self, Flow},
    layout::{FlowKey, GrantKey},
};
use serde::{Deserialize, Serialize};

use crate::{
    console::Attached, instance::Instance, interface, ledger::Open, pins, registry::Registry,
};

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
    pub unconfirmed: Option<f64>,
    /// How many doors there are.
    pub doors: usize,
    /// How many grants are valid: a source and a door each.
    pub grants: usize,
    /// How many connections are kept.
    pub flows: usize,
    /// How many watch; none if no process runs.
    pub watchers: usize,
    /// What was counted, without the zeros.
    pub counters: Vec<Counter>,
}

/// An interface.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Whether its packets are judged now.
    pub attached: bool,
    /// `native` in the driver, `generic` behind it; none if it is not attached.
    pub mode: Option<String>,
}

/// A counter.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Counter {
    /// Name of the reason or tally.
    pub name: String,
    /// In words.
    pub text: String,
    /// `pass` or `drop`; none for what is not about a packet.
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

/// What would happen to a packet.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Explanation {
    /// Where it comes from.
    pub source: IpAddr,
    /// The port that it goes to: `tcp/22`.
    pub port: String,
    /// The address that it goes to, if one was named.
    pub to: Option<IpAddr>,
    /// `pass` or `drop`.
    pub verdict: String,
    /// Name of the reason.
    pub reason: String,
    /// Why, in words, a sentence each; the last one is the outcome.
    pub chain: Vec<String>,
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
    pub was_unconfirmed: bool,
}

/// What `detach` did.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Detached {
    /// Interfaces that are no longer protected; none if none was.
    pub interfaces: Vec<String>,
    /// What is no longer protected there: `tcp/22`.
    pub ports: Vec<String>,
}

/// What answers say about a door.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct DoorFacts {
    /// Its name.
    pub name: String,
    /// What it opens or closes: `tcp/22`.
    pub ports: Vec<String>,
}

/// Doors by their numbers in the maps.
pub type Doors = BTreeMap<u16, DoorFacts>;

/// The doors that a registry knows.
pub fn doors(registry: &Registry) -> Doors {
    let facts = registry.numbers.doors.iter().map(|(name, &number)| {
        let facts = DoorFacts {
            name: name.clone(),
            ports: registry.ports.get(name).cloned().unwrap_or_default(),
        };
        (number, facts)
    });
    facts.collect()
}

/// A running process, as the status has it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// Since when it runs, in milliseconds since boot.
    pub since_ms: u64,
    /// How many watch.
    pub watchers: usize,
}

/// The status of an instance, from what is known about it besides its maps, and from what those
/// hold: valid grants, kept connections, and counters by number.
pub fn status(
    name: &str,
    registry: &Registry,
    interfaces: Vec<Interface>,
    process: Option<Process>,
    (grants, flows, counts): (usize, usize, &[u64]),
    clock: Clock,
) -> Status {
    Status {
        instance: name.to_owned(),
        pid: process.map(|process| process.pid),
        version: process.map(|_| env!("CARGO_PKG_VERSION").to_owned()),
        config: registry.config.display().to_string(),
        since: process.map(|process| clock.wall(process.since_ms)),
        interfaces,
        ports: registry.protected.clone(),
        dry_run: registry.dry_run,
        unconfirmed: registry
            .confirm_by_ms
            .map(|by_ms| clock.seconds_until(by_ms)),
        doors: registry.ports.len(),
        grants,
        flows,
        watchers: process.map_or(0, |process| process.watchers),
        counters: counters(counts),
    }
}

/// How many of these connections, which are words of the map, are kept.
pub fn kept(flows: &[(FlowKey, u64)], idle_ms: u64, clock: Clock) -> usize {
    let goes_on = |word| clock.now_ms < Flow::from_word(word).until_ms(idle_ms);
    flows.iter().filter(|&&(_, word)| goes_on(word)).count()
}

/// The interfaces of an instance.
///
/// # Errors
/// The kernel does not tell.
pub fn interfaces(instance: &Instance) -> Result<Vec<Interface>> {
    let all = interface::list()?;
    let names = instance.interfaces().into_iter();
    let described = names.map(|name| {
        let found = all.iter().find(|interface| interface.name == name);
        let ours = found.filter(|interface| pins::is_ours(instance, interface));
        let mode = |interface: &interface::Interface| match interface.native {
            true => Attached::Native,
            false => Attached::Generic,
        };
        Interface {
            attached: ours.is_some(),
            mode: ours.map(|interface| mode(interface).name().to_owned()),
            name,
        }
    });
    Ok(described.collect())
}

/// The wall clock of the kernel side.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Clock {
    /// Now, in milliseconds since boot.
    pub now_ms: u64,
    /// The wall time at which that was 0.
    pub boot: Timestamp,
}

impl Clock {
    /// Now.
    pub fn now() -> Self {
        Self {
            now_ms: crate::clock::boot_ms(),
            boot: crate::clock::booted_at(),
        }
    }

    /// A moment as RFC 3339.
    pub fn wall(&self, at_ms: u64) -> String {
        let since_boot = SignedDuration::from_millis(i64::try_from(at_ms).unwrap_or(i64::MAX));
        format!(
            "{:.3}",
            self.boot.saturating_add(since_boot).unwrap_or(self.boot)
        )
    }

    /// Seconds from now until a moment.
    pub fn seconds_until(&self, at_ms: u64) -> f64 {
        std::time::Duration::from_millis(at_ms.saturating_sub(self.now_ms)).as_secs_f64()
    }
}

/// The counters that are not zero; `counts` has them by number.
pub fn counters(counts: &[u64]) -> Vec<Counter> {
    let count_of = |number: u8| counts.get(usize::from(number)).copied().unwrap_or(0);
    let reasons = Reason::ALL.iter().map(|&reason| Counter {
        name: reason.name().to_owned(),
        text: reason.text().to_owned(),
        verdict: Some(verdict(reason.verdict()).to_owned()),
        count: count_of(reason as u8),
    });
    let tallies = Tally::ALL.iter().map(|&tally| Counter {
        name: tally.name().to_owned(),
        text: tally_text(tally).to_owned(),
        verdict: None,
        count: count_of(tally as u8),
    });
    let all = reasons.chain(tallies);
    all.filter(|counter| counter.count > 0).collect()
}

/// The word for what happens to a packet.
pub const fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Pass => "pass",
        Verdict::Drop => "drop",
    }
}

const fn tally_text(tally: Tally) -> &'static str {
    match tally {
        Tally::EventsLeftOut => "events not told: too many at once",
        Tally::EventsLost => "events not told: not read in time",
        Tally::FirstKnocksEvicted => "first knocks pushed out by others",
        Tally::FlowsRefused => "connections for which there was no room",
        Tally::ProgressRefused => "knocks for which there was no room",
    }
}

/// A grant that somebody has.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Grant {
    /// Who has it.
    pub source: Address,
    /// Number of the door.
    pub door: u16,
    /// When it ends, in milliseconds since boot.
    pub until_ms: u64,
    /// When it was given, in milliseconds since boot, and by which user, if not with knocks; none
    /// if nobody remembers.
    pub given: Option<(u64, Option<u32>)>,
}

impl From<Open> for Grant {
    fn from(open: Open) -> Self {
        Self {
            source: open.source,
            door: open.door,
            until_ms: open.until_ms,
            given: Some((open.given_ms, open.by)),
        }
    }
}

impl From<(GrantKey, access::Grant)> for Grant {
    fn from((key, grant): (GrantKey, access::Grant)) -> Self {
        Self {
            source: key.source,
            door: grant.door,
            until_ms: grant.until_ms,
            given: None,
        }
    }
}

/// The grants that are valid, one for each source and door: the one that ends last.
pub fn list(grants: impl IntoIterator<Item = Grant>, doors: &Doors, clock: Clock) -> Grants {
    let mut longest: BTreeMap<(Address, u16), Grant> = BTreeMap::new();
    for grant in grants
        .into_iter()
        .filter(|grant| clock.now_ms < grant.until_ms)
    {
        let held = longest.entry((grant.source, grant.door)).or_insert(grant);
        if held.until_ms < grant.until_ms {
            *held = grant;
        }
    }
    let mut grants: Vec<_> = longest
        .values()
        .map(|grant| {
            let facts = doors.get(&grant.door);
            let number = || format!("number {}", grant.door);
            Held {
                source: grant.source.into(),
                door: facts.map_or_else(number, |facts| facts.name.clone()),
                ports: facts.map_or_else(Vec::new, |facts| facts.ports.clone()),
                until: clock.wall(grant.until_ms),
                seconds: clock.seconds_until(grant.until_ms),
                since: grant.given.map(|(given_ms, _)| clock.wall(given_ms)),
                by: grant.given.map(|(_, by)| giver(by)),
            }
        })
        .collect();
    grants.sort_by(|a, b| (a.source, &a.door).cmp(&(b.source, &b.door)));
    Grants { grants }
}

/// Who gave a grant: those who knocked, or a user.
fn giver(by: Option<u32>) -> String {
    by.map_or_else(|| "knock".to_owned(), |uid| format!("uid {uid}"))
}
