//! The parts of a status that a daemon and a client without one have in common.

use knock_common::{Reason, Stat};

use super::answer::{Answer, Counter, InterfaceAnswer, TablesAnswer};
use crate::{
    host::clock::Clock,
    interfaces::{
        coverage::{Coverage, CoverageState},
        preceding,
    },
    kernel::registry::Registry,
};

/// A running process, as the status has it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct DaemonProcess {
    /// Its number.
    pub pid: u32,
    /// Since when it runs, in milliseconds since boot.
    pub since_ms: u64,
    /// How many watch.
    pub watchers: usize,
}

/// The content of the maps of an instance.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct MapContent {
    /// How many grants are valid.
    pub grants: usize,
    /// How many connections are kept.
    pub flows: usize,
    /// How many prefixes commands block.
    pub blocked: usize,
    /// The counters by number.
    pub counts: Vec<u64>,
    /// The sizes of the tables.
    pub tables: TablesAnswer,
}

/// Returns the status of an instance, without what is missing.
pub fn status(
    name: &str,
    registry: &Registry,
    interfaces: Vec<InterfaceAnswer>,
    process: Option<DaemonProcess>,
    found: &MapContent,
    clock: Clock,
) -> Answer {
    Answer {
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
        grants: found.grants,
        flows: found.flows,
        blocked: found.blocked,
        watchers: process.map_or(0, |process| process.watchers),
        tables: found.tables.clone(),
        counters: counters(&found.counts),
        ..Answer::default()
    }
}

/// Returns a warning if the table of grants, which has room for `most`, is nearly full; `entries` counts expired grants
/// too. `held_by_hand` is the number of grants by hand that leave no room that a process could make; `None` if no
/// process runs.
pub fn room(entries: usize, most: usize, held_by_hand: Option<usize>) -> Option<String> {
    let is_full = entries >= most;
    match (is_full, held_by_hand) {
        (true, Some(by_hand)) if by_hand >= most => Some(format!(
            "the table of grants is full ({most}), and all are given by hand, which do not end before their \
             time: clients that have no entry are not let in; `knock-user revoke` ends one"
        )),
        (true, Some(_)) => Some(format!(
            "the table of grants is full ({most}): clients that knock are not let in until \
             knock-user has made room, which it does every second"
        )),
        (true, None) => Some(format!(
            "the table of grants is full ({most}): clients that have no entry are not let in until \
             knock-user is started, which removes expired ones and makes room"
        )),
        (false, Some(by_hand)) if by_hand > 0 => Some(format!(
            "the table of grants has {entries} of {most} entries, and {by_hand} of them are given by hand, which \
             do not end before their time: grants that clients open end before theirs"
        )),
        (false, _) if entries >= most / 8 * 7 => Some(format!(
            "the table of grants has {entries} of {most} entries: grants may end before their time \
             to make room"
        )),
        (false, _) => None,
    }
}

/// Returns the interfaces of an instance, from what is true of them.
pub fn interfaces(all: Vec<Coverage>) -> Vec<InterfaceAnswer> {
    let described = all.into_iter().map(|one| {
        let mut answer = InterfaceAnswer {
            state: one.state.name().to_owned(),
            because: one.state.because(),
            name: one.name,
            current_name: one.now,
            ..InterfaceAnswer::default()
        };
        if let CoverageState::Protected {
            mode,
            chosen,
            is_pinned,
            behind,
            ..
        } = one.state
        {
            answer.attached = true;
            answer.mode = Some(mode.name().to_owned());
            answer.mode_because = chosen;
            answer.ends_with_process = !is_pinned;
            answer.behind = behind.iter().map(|placed| placed.program).collect();
            answer.preceding = preceding::named(&behind);
        }
        answer
    });
    described.collect()
}

/// Returns the counters that are not zero; `counts` has them by number.
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
        Stat::KnocksPassed => "knocks that passed, because of knock_pass",
    }
}
