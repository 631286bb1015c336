//! From what is known to answers.
//!
//! These are plain functions of plain data, so that it does not matter whether a daemon has it in
//! memory or a client has read it from pinned maps.

use std::collections::BTreeMap;

use knock_common::{
    Address, Reason, Stat,
    access::{self, Flow},
    layout::{ALLOW_MAX, FlowKey, GrantKey},
};

use crate::{
    console::Attached,
    control::answers::{Counter, Grants, Held, Interface, Status},
    host::clock::Clock,
    interfaces::coverage::{Coverage, State},
    kernel::registry::Registry,
    ledger::Open,
};

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
        trial_seconds: registry
            .confirm_by_ms
            .map(|by_ms| clock.seconds_until(by_ms)),
        doors: registry.ports.len(),
        one_time: Vec::new(),
        grants,
        flows,
        watchers: process.map_or(0, |process| process.watchers),
        counters: counters(counts),
        ..Status::default()
    }
}

/// What there is to say about the room for grants, of which so many are in the map, expired ones
/// among them.
pub fn room(entries: usize, has_process: bool) -> Option<String> {
    let most = ALLOW_MAX as usize;
    let is_full = entries >= most;
    match (is_full, has_process) {
        (true, true) => Some(format!(
            "the table of grants is full ({most}): clients that knock are not let in until \
             knock-user has made room, which it does every second"
        )),
        (true, false) => Some(format!(
            "the table of grants is full ({most}): clients that have no entry are not let in until \
             knock-user is started, which removes expired ones and makes room"
        )),
        (false, _) if entries >= most / 8 * 7 => Some(format!(
            "the table of grants has {entries} of {most} entries: grants may end before their time \
             to make room"
        )),
        (false, _) => None,
    }
}

/// How many of these connections, which are words of the map, are kept.
pub fn kept(flows: &[(FlowKey, u64)], idle_ms: [u64; 2], clock: Clock) -> usize {
    let goes_on = |(key, word): &&(FlowKey, u64)| {
        clock.now_ms < Flow::from_word(*word).until_ms(key.idle_ms(idle_ms))
    };
    flows.iter().filter(goes_on).count()
}

/// The interfaces of an instance, from what is true of them.
pub fn interfaces(all: Vec<Coverage>) -> Vec<Interface> {
    let described = all.into_iter().map(|one| {
        let mode = match &one.state {
            State::Protected { native: true, .. } => Some(Attached::Native),
            State::Protected { native: false, .. } => Some(Attached::Generic),
            State::Bypassed { .. }
            | State::Blocked
            | State::Absent
            | State::Refused(_)
            | State::Missing => None,
        };
        let is_held = matches!(
            one.state,
            State::Protected {
                is_pinned: false,
                ..
            }
        );
        let because = one.state.because();
        Interface {
            state: one.state.name().to_owned(),
            name: one.name,
            current_name: one.now,
            attached: mode.is_some(),
            mode: mode.map(|mode| mode.name().to_owned()),
            ends_with_process: is_held,
            because,
        }
    });
    described.collect()
}

/// The counters that are not zero; `counts` has them by number.
pub fn counters(counts: &[u64]) -> Vec<Counter> {
    let count_of = |number: u8| counts.get(usize::from(number)).copied().unwrap_or(0);
    let reasons = Reason::ALL.iter().map(|&reason| Counter {
        name: reason.name().to_owned(),
        text: reason.text().to_owned(),
        verdict: Some(reason.verdict().name().to_owned()),
        count: count_of(reason as u8),
    });
    let stats = Stat::ALL.iter().map(|&stat| Counter {
        name: stat.name().to_owned(),
        text: stat_text(stat).to_owned(),
        verdict: None,
        count: count_of(stat as u8),
    });
    let all = reasons.chain(stats);
    all.filter(|counter| counter.count > 0).collect()
}

const fn stat_text(stat: Stat) -> &'static str {
    match stat {
        Stat::EventsSuppressed => "events not reported: too many at once",
        Stat::EventsLost => "events not reported: not read in time",
        Stat::FirstKnocksEvicted => "first knocks pushed out by others",
        Stat::FlowsRefused => "connections for which there was no room",
        Stat::ProgressRefused => "knocks for which there was no room",
        Stat::LockoutsFull => "failed attempts not counted: too many sources are locked out",
        Stat::KnocksPassed => "knocks that passed, as knock_pass says",
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
