//! The daemon's end: the status of a running instance.

use std::io::Write;

use anyhow::Result;
use knock_common::layout::ALLOW_MAX;

use super::{
    answer::{Answer, OneTimeStatus, TablesAnswer},
    facts::{self, DaemonProcess, MapContent},
    health::{self, HealthInput},
};
use crate::{
    admin::facts::kept,
    daemon::{Daemon, fleet::FleetLink},
    host::clock::Clock,
    kernel::{maps, persistence::OnExit},
    model::table_sizes::SizedTable,
};

pub(super) fn status<W: Write>(daemon: &mut Daemon<W>) -> Result<Answer> {
    let clock = Clock::now();
    let counts = daemon.protection.program().counters()?;
    let idle_ms = daemon.protection.registry().idle_ms();
    let flows = kept(&daemon.flows()?, idle_ms, clock);
    let open = daemon.ledger.open();
    let grants = open.filter(|open| clock.now_ms < open.until_ms).count();
    let entries = maps::entries(&daemon.protection.program().allow()?, ALLOW_MAX).len();
    let found = MapContent {
        grants,
        flows,
        blocked: daemon.blocks.valid(clock.now_ms),
        counts,
        tables: tables(daemon),
    };
    judged(daemon, &found, entries)
}

/// Returns the sizes of the tables in force, and their memory.
pub(super) fn tables<W: Write>(daemon: &mut Daemon<W>) -> TablesAnswer {
    let program = daemon.protection.program();
    let (sizes, uses) = (program.sizes(), program.uses());
    let size = |table| Some(sizes.get(table));
    TablesAnswer {
        memory: program.memory(),
        first_knocks: size(SizedTable::FirstKnocks),
        attempts: size(SizedTable::Attempts),
        grants: sizes.get(SizedTable::Grants),
        flows: sizes.get(SizedTable::Flows),
        failures: size(SizedTable::Failures).filter(|_| uses.lockouts),
    }
}

/// Returns the status with these counts; `entries` counts expired grants too.
pub(super) fn judged<W: Write>(
    daemon: &mut Daemon<W>,
    found: &MapContent,
    entries: usize,
) -> Result<Answer> {
    let clock = Clock::now();
    let process = DaemonProcess {
        pid: std::process::id(),
        since_ms: daemon.since_ns / 1_000_000,
        watchers: daemon.console.watchers().count(),
    };
    let interfaces = facts::interfaces(daemon.protection.coverage()?);
    let instance = daemon.protection.instance();
    let registry = daemon.protection.registry();
    let status = facts::status(
        instance.name(),
        registry,
        interfaces,
        Some(process),
        found,
        clock,
    );
    let status = Answer {
        one_time: one_time(daemon),
        ..status
    };
    let circumstances = HealthInput {
        entries,
        room: found.tables.grants as usize,
        reload_failed: daemon.reload_failed.clone(),
        under_way: daemon.under_way(),
        is_to_stay: daemon.run.on_exit == OnExit::Keep,
        unpinned: daemon.protection.unpinned().map(str::to_owned),
        is_mute: daemon.is_mute,
        interrupted: None,
        is_hanging: false,
        waiting_doors: waiting_doors(daemon, clock.now_ms),
        other_secrets: daemon.plan.checked.other_secrets(),
        other_host_keys: daemon.plan.checked.other_host_keys(),
        commands: daemon.commands.pending(),
        cut_off: daemon.fleet.as_ref().and_then(FleetLink::cut_off),
        notes: daemon.host_notes(),
    };
    let mut status = health::judged(status, registry, &circumstances);
    let most = found.tables.grants as usize;
    status
        .notes
        .extend(facts::room(entries, most, Some(daemon.held_by_hand)));
    Ok(status)
}

/// Returns the doors with one-time sequences.
fn one_time<W: Write>(daemon: &Daemon<W>) -> Vec<OneTimeStatus> {
    daemon
        .files
        .iter()
        .map(|(door, state)| OneTimeStatus {
            door: door.clone(),
            next_line: state.next,
            sequences_left: state.left,
            because: state.failure.clone(),
        })
        .collect()
}

/// Returns the time-based doors that can't be opened yet, and for how many milliseconds.
fn waiting_doors<W: Write>(daemon: &Daemon<W>, now_ms: u64) -> Vec<(String, u64)> {
    let doors = &daemon.plan.settings().doors;
    daemon
        .protection
        .waits_ms(now_ms)
        .into_iter()
        .filter(|(_, wait_ms)| *wait_ms > 0)
        .filter_map(|(index, wait_ms)| Some((doors.get(index)?.name.clone(), wait_ms)))
        .collect()
}
