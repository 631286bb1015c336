//! The daemon's part: facts of its loop, which another thread completes with the content of the tables.

use std::{collections::BTreeMap, io::Write, time::Duration};

use anyhow::Result;
use knock_common::time::Moment;

use super::facts::{FleetFacts, MetricFacts, ProcessFacts, TableEntries};
use crate::{
    admin::{facts::kept, status},
    commands::Occasion,
    daemon::{Daemon, fleet::FleetLink},
    host::clock::{self, Clock},
    kernel::snapshot::Snapshot,
};

/// Facts that lack what is in the tables.
pub(super) struct IncompleteFacts {
    facts: MetricFacts,
    tables: Snapshot,
    idle_ms: [u64; 2],
    attempt_max_ticks: u32,
    has_lockout: bool,
}

/// Returns what the loop knows.
///
/// # Errors
/// The interfaces or the program can't be asked.
pub(super) fn facts<W: Write>(daemon: &mut Daemon<W>) -> Result<IncompleteFacts> {
    let clock = Clock::now();
    let wall_s = |at_ms: u64| seconds(at_ms) + seconds(clock::wall_ns() / 1_000_000);
    let status = status::without_tables(daemon)?;
    let mut grants: BTreeMap<u16, u64> = BTreeMap::new();
    for open in daemon.ledger.open() {
        if clock.now_ms < open.until_ms {
            let count = grants.entry(open.door).or_default();
            *count = count.saturating_add(1);
        }
    }
    let loaded = daemon.protection.program().info()?.loaded_at();
    let numbers = &daemon.protection.registry().numbers.doors;
    let doors = &daemon.settings().doors;
    let grants = doors.iter().map(|door| {
        let number = numbers.get(&door.name);
        let count = number.and_then(|number| grants.get(number)).copied();
        (door.name.clone(), count.unwrap_or(0))
    });
    let commanded = doors.iter().flat_map(|door| {
        let commands = [
            (Occasion::Open, &door.on_open),
            (Occasion::Close, &door.on_close),
        ];
        commands
            .into_iter()
            .filter(|(_, command)| command.is_some())
            .map(|(occasion, _)| (door.name.clone(), occasion.key()))
    });
    let process = ProcessFacts {
        started_s: wall_s(daemon.since_ns / 1_000_000),
        configured_s: wall_s(daemon.configured_ms),
        has_reload_failed: daemon.reload_failed.is_some(),
        trial_ends_s: daemon.protection.registry().confirm_by_ms.map(wall_s),
        fleet: daemon.fleet.as_ref().map(fleet),
        commands: daemon.commands.pending() as u64,
        users: daemon
            .settings()
            .users
            .iter()
            .map(|user| user.name.clone())
            .collect(),
        commanded: commanded.collect(),
        tally: daemon.tally.clone(),
    };
    let facts = MetricFacts {
        status,
        grants: grants.collect(),
        loaded_s: loaded.and_then(super::offline::unix_s),
        process: Some(process),
        ..MetricFacts::default()
    };
    Ok(IncompleteFacts {
        facts,
        idle_ms: daemon.protection.registry().idle_ms(),
        attempt_max_ticks: daemon.attempt_max_ticks,
        has_lockout: daemon.settings().lockout.is_some(),
        tables: Snapshot::of(daemon.protection.program())?,
    })
}

impl IncompleteFacts {
    /// Reads the tables.
    ///
    /// # Errors
    /// They can't be read.
    pub(super) fn complete(self) -> Result<MetricFacts> {
        let Self {
            facts,
            tables,
            idle_ms,
            attempt_max_ticks,
            has_lockout,
        } = self;
        let now = Moment::from_nanos(clock::boot_ns());
        let flows = tables.flows()?;
        let (attempts, in_progress) = tables.attempts(attempt_max_ticks, now)?;
        let locked_out = has_lockout.then(|| tables.locked_out(now)).transpose()?;
        Ok(MetricFacts {
            counts: tables.counters()?,
            tables: TableEntries {
                grants: tables.grants()? as u64,
                flows: flows.len() as u64,
                attempts: Some(attempts as u64),
                kept: kept(&flows, idle_ms, Clock::now()) as u64,
                in_progress: Some(in_progress as u64),
                locked_out: locked_out.map(|count| count as u64),
            },
            ..facts
        })
    }
}

fn seconds(millis: u64) -> f64 {
    Duration::from_millis(millis).as_secs_f64()
}

fn fleet(fleet: &FleetLink) -> FleetFacts {
    let grants = fleet.grants().into_iter();
    let others = grants.filter(|grant| grant.host != fleet.settings.host);
    FleetFacts {
        group: fleet.settings.group.clone(),
        is_in_sync: fleet.is_in_sync(),
        grants: others.count() as u64,
        waiting: fleet.waiting() as u64,
        unreadable: fleet.exchange.unreadable(),
    }
}
