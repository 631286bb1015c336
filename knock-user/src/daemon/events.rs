//! Handles the events of the kernel side and carries out the ledger's actions.

use std::{io::Write, time::Instant};

use anyhow::{Context as _, Result};
use aya::maps::{MapData, RingBuf};
use knock_common::{
    Address, Reason,
    event::Event,
    grant::Grant,
    layout::{EVENTS_BYTES, GrantKey},
};

use super::state::Daemon;
use crate::model::settings::Prefix;
use crate::{
    commands::{Job, Occasion},
    host::{clock, os_error},
    kernel::maps,
    ledger::LedgerAction,
    metrics::CommandOutcome,
    sequences::clock_skew::SkewedKnock,
};

/// Events that are handled before the loop looks at anything else.
const BATCH: usize = 1_024;
/// Batches that are handled before the daemon ends: more than the ring buffer holds, unless a flood
/// keeps filling it.
const LAST_BATCHES: usize = EVENTS_BYTES as usize / size_of::<Event>() / BATCH + 1;

impl<W: Write> Daemon<W> {
    /// Handles a batch of events; returns whether the ring buffer is empty.
    ///
    /// The batch is bounded so that a flood of events does not delay signals and deadlines.
    pub(super) fn receive_all(&mut self, events: &mut RingBuf<MapData>) -> bool {
        self.some_are_spent = false;
        let all = self.receive_batch(events);
        if self.some_are_spent {
            self.follow_sequences();
        }
        all
    }

    /// Handles what happened before the daemon was asked to end, so that its own log reports it and
    /// its commands run.
    pub(super) fn receive_last(&mut self, events: &mut RingBuf<MapData>) {
        for _ in 0..LAST_BATCHES {
            if self.receive_all(events) {
                return;
            }
        }
    }

    fn receive_batch(&mut self, events: &mut RingBuf<MapData>) -> bool {
        for _ in 0..BATCH {
            let Some(item) = events.next() else {
                return true;
            };
            match bytemuck::try_pod_read_unaligned::<Event>(&item) {
                Ok(event) => self.receive(&event),
                Err(error) => {
                    tracing::warn!("an event of {} bytes can't be read: {error}", item.len());
                }
            }
        }
        false
    }

    fn receive(&mut self, event: &Event) {
        let ledger_reports_it = matches!(
            event.reason(),
            Some(Reason::Opened | Reason::Refreshed | Reason::Closed)
        );
        self.packets.note(event);
        self.is_full |= event.reason() == Some(Reason::GrantsFull);
        if !ledger_reports_it {
            self.console.event(event);
        }
        let door = self.doors.get(self.plan.settings(), event.door);
        self.tally.event(event, door.map(|door| door.name.as_str()));
        self.some_are_spent |= door.is_some_and(|door| door.dynamic.is_some())
            && matches!(
                event.reason(),
                Some(Reason::Opened | Reason::Refreshed | Reason::Closed | Reason::GrantsFull)
            );
        if let Some(SkewedKnock { place, behind_s }) =
            self.skew_detector.observe(event, clock::unix_ms())
            && let Some(door) = self.plan.settings().doors.get(place)
        {
            let source = event.source.into();
            self.console
                .clock(source, &door.name, behind_s, event.at_ns);
        }
        let actions = self.ledger.receive(event, clock::boot_ms());
        self.act_on(&actions, Some(event), event.at_ns);
    }

    /// Carries out all of the ledger's actions, even after one has failed.
    pub(crate) fn act(&mut self, actions: &[LedgerAction], at_ns: u64) {
        self.act_on(actions, None, at_ns);
    }

    /// Acts as [`Daemon::act`] does; `event` caused the actions.
    fn act_on(&mut self, actions: &[LedgerAction], event: Option<&Event>, at_ns: u64) {
        for action in actions {
            if let Some(number) = action.door()
                && let Some(door) = self.doors.get(self.plan.settings(), number)
            {
                self.tally.action(action, &door.name);
            }
            let done = match *action {
                LedgerAction::Remove { key, grant } => self.remove(key, grant),
                LedgerAction::Restore { key, grant } => self.restore(key, grant),
                LedgerAction::Opened { source, door, .. } => {
                    self.console.action(action, event, at_ns);
                    self.warn_of_gateway(source, door);
                    self.command(Occasion::Open, source, door, event);
                    self.note_for_group(action);
                    Ok(())
                }
                LedgerAction::Closed { source, door, .. } => {
                    self.console.action(action, event, at_ns);
                    self.command(Occasion::Close, source, door, event);
                    self.note_for_group(action);
                    Ok(())
                }
                LedgerAction::Refreshed { .. } => {
                    self.console.action(action, event, at_ns);
                    self.note_for_group(action);
                    Ok(())
                }
            };
            if let Err(error) = done {
                tracing::warn!("{}", os_error::describe(&error));
            }
        }
    }

    /// Keeps what a packet opened or closed, for the other hosts of the group.
    fn note_for_group(&mut self, action: &LedgerAction) {
        if let Some(fleet) = &mut self.fleet {
            fleet.note(action);
        }
    }

    /// Warns if the source is a gateway: all clients behind one that masquerades share its address.
    fn warn_of_gateway(&mut self, source: Address, door: u16) {
        let grant_prefix = self.door(door).map(|door| door.grant_prefix);
        let covered = Prefix::covered(source, grant_prefix.unwrap_or_default());
        let Some(source) = self.plan.gateway_in(covered) else {
            return;
        };
        let line = format!(
            "{source} is a gateway of this host: if it puts its own address in place of those \
             behind it, the door is open to all of them"
        );
        let line = self
            .gateways
            .note(&source.to_string(), line, Instant::now());
        line.inspect(|line| tracing::warn!("{line}"));
    }

    fn remove(&mut self, key: GrantKey, ended: Grant) -> Result<()> {
        let mut allow = self.protection.program().allow()?;
        maps::delete_if(&mut allow, key, ended.to_word())
            .map(drop)
            .context("removing an ended grant")
    }

    /// Runs a door's command for an occasion, if it has one; a dry run runs none. `event` caused the
    /// occasion, if one did.
    pub(super) fn command(
        &mut self,
        occasion: Occasion,
        source: Address,
        door: u16,
        event: Option<&Event>,
    ) {
        if self.run.dry_run {
            return;
        }
        let Some(door) = self.door(door) else {
            return;
        };
        let command = match occasion {
            Occasion::Open => &door.on_open,
            Occasion::Close => &door.on_close,
        };
        let Some(command) = command.clone() else {
            return;
        };
        let job = Job {
            occasion,
            source: Prefix::covered(source, door.grant_prefix),
            door: door.name.clone(),
            user: event
                .filter(|event| door.grant_prefix.covers(source, event.source))
                .and_then(|event| self.console.user_of(event)),
            port: door.opened().first().map(|ports| ports.first),
            command,
        };
        self.console.running(&job, clock::boot_ns());
        if let Err(left_out) = self.commands.run(job) {
            let job = &left_out.0;
            self.tally
                .command(&job.door, job.occasion, CommandOutcome::LeftOut);
            // One line for all doors: which of them is left out does not matter.
            let line = self
                .left_outs
                .note("", left_out.to_string(), Instant::now());
            line.inspect(|line| tracing::warn!("{line}"));
        }
    }

    fn restore(&mut self, key: GrantKey, grant: Grant) -> Result<()> {
        let mut allow = self.protection.program().allow()?;
        let was_missing =
            maps::insert_new(&mut allow, key, grant.to_word()).context("writing a grant again")?;
        if !was_missing {
            // The existing entry is newer.
            self.ledger.not_missing(&key);
        }
        Ok(())
    }
}
