//! The loop of the daemon: it turns events of the kernel side into lines on the console, entries in
//! the ledger, and commands. Packets do not wait for it: the program judges them even if the loop
//! stops reading.
//!
//! May use every room below it. Must not know which requests there are: `admin` handles those.

use std::{collections::BTreeSet, io::Write, time::Duration};

use anyhow::{Result, anyhow};
use aya::maps::{MapData, RingBuf};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, interval_at, sleep_until};

use crate::{
    control::ControlServer,
    host::{clock, os_error, service_manager},
};

mod blocks;
mod change;
mod difference;
mod doors;
mod end_trial;
mod ending;
mod events;
mod failed_commands;
mod files;
pub(crate) mod fleet;
mod follow_host;
mod frames;
mod free_grants;
mod held;
mod interfaces;
mod packets;
mod pending;
mod prepare;
mod reload;
mod ring;
mod signals;
mod start;
mod state;
mod stats;
mod status_line;
mod surroundings;
mod throttle;
mod trial;
mod upkeep;
mod waiting;

pub use frames::Watches;
pub use signals::Signals;
pub use state::{Daemon, Handle, Servers};

use failed_commands::log_result;
use frames::loaded_copy;
use pending::wait_until_ready;
use ring::{program_log, readable, something_logged};
use signals::SignalRequest;
use state::StopCause;
use stats::Stats;

/// How often the ledger is compared with the maps, so that lost events don't matter for long.
const SWEEP: Duration = Duration::from_secs(30);
/// How often counters are read.
const TALLY: Duration = Duration::from_secs(1);

impl<W: Write> Daemon<W> {
    /// Handles events, requests and deadlines until a signal, `detach` or the end of a trial.
    ///
    /// # Errors
    /// The events or the maps can't be read, an interface can't be detached, or the configuration
    /// was not confirmed.
    pub async fn run(
        mut self,
        mut signals: Signals,
        mut control: ControlServer,
        watches: Watches,
    ) -> Result<()> {
        let mut events = readable(self.protection.program().take_events()?)?;
        self.log = program_log(&mut self.protection)?;
        let Watches {
            mut links,
            mut resume,
        } = watches;
        // Interfaces may have changed before the watch began.
        self.follow_interfaces()?;
        self.begin_copy()?;
        self.follow_group();
        self.adopt(events.get_mut())?;
        self.tell_group();
        // Not at once: a grant found by a sweep lacks what its event reports.
        let mut sweep = interval_at(Instant::now() + SWEEP, SWEEP);
        let mut stat = interval(TALLY);
        let mut watchdog = service_manager::ping_interval().map(interval);
        self.notify_ready();
        for ticks in [&mut sweep, &mut stat] {
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        }
        let outcome = loop {
            let deadline = self.deadline();
            let done = tokio::select! {
                signal = signals.next() => match signal {
                    SignalRequest::ToEnd => break StopCause::Signal,
                    SignalRequest::ToReload => {
                        self.begin_to_reload(None, None);
                        Ok(())
                    }
                },
                loaded = loaded_copy(&mut self.copy) => self.take_copy(loaded),
                ready = wait_until_ready(&mut self.pending) => self.end_preparation(ready, &mut control),
                ready = events.readable_mut() => {
                    let mut ready = ready?;
                    if self.receive_all(ready.get_inner_mut()) {
                        ready.clear_ready();
                    }
                    Ok(())
                }
                ready = something_logged(&mut self.log) => {
                    let mut ready = ready?;
                    ready.get_inner_mut().flush();
                    ready.clear_ready();
                    Ok(())
                }
                changed = links.changed() => changed.and_then(|changes| self.links_changed(&changes)),
                // This also happens when the clock is set.
                () = resume.may_have_slept() => self
                    .do_what_is_due()
                    .and_then(|()| self.protection.follow_wall_clock())
                    .and_then(|()| self.resumed(resume.was_asleep())),
                call = control.call() => {
                    (self.handle)(&mut self, call);
                    if self.detaching.is_some() {
                        break StopCause::Detach;
                    }
                    Ok(())
                },
                () = sleep_until(deadline) => match self.follow_trial() {
                    Some(outcome) => break outcome,
                    None => self.do_what_is_due(),
                },
                told = fleet::told(&mut self.fleet) => self.take_told(told),
                Some(report) = self.reports.recv() => {
                    self.tally
                        .command(&report.job.door, report.job.occasion, (&report).into());
                    log_result(&mut self.failed_commands, &report);
                    Ok(())
                }
                _ = sweep.tick() => self.sweep(),
                _ = stat.tick() => self
                    .follow_spa()
                    .and_then(|()| self.resumed(resume.was_asleep()))
                    .and_then(|()| self.report_counters())
                    .and_then(|()| self.look_at_interfaces())
                    .and_then(|()| self.watch_frames())
                    .and_then(|()| self.tend_group()),
                () = ticked(&mut watchdog) => {
                    service_manager::ping();
                    Ok(())
                }
            };
            self.tell_group();
            // The program judges packets despite any failure here, and stopping would end that.
            if let Err(error) = done {
                tracing::warn!("{}", os_error::describe(&error));
            }
        };
        service_manager::stopping("ending");
        self.receive_last(events.get_mut());
        if let Some(pending) = self.pending.take() {
            self.trial = pending.give_up().or(self.trial);
        }
        let then = self.detaching.take();
        let ended = self.end(outcome).await;
        // Only when it has happened.
        if let Some(then) = then {
            then(match &ended {
                Ok(()) => Ok(()),
                Err(error) => Err(anyhow!(os_error::describe(error))),
            });
        }
        control.finish().await;
        ended
    }

    /// Catches up with what happened while no daemon ran: first the queued events, whose commands
    /// have not run yet, then grants in the map without an event.
    fn adopt(&mut self, events: &mut RingBuf<MapData>) -> Result<()> {
        self.stats = Stats::new(&self.protection.program().counters()?);
        self.adopt_blocks()?;
        let grants = self.protection.program().grants()?;
        let before: BTreeSet<_> = grants.into_iter().map(|(key, _)| key).collect();
        while !self.receive_all(events) {}
        let now_ms = clock::boot_ms();
        for (key, grant) in self.protection.program().grants()? {
            // The event of a grant that was given since then may still arrive.
            if !before.contains(&key) {
                continue;
            }
            if let Some(adopted) = self.ledger.adopt(key, grant, now_ms) {
                self.console.adopted(&adopted, clock::boot_ns());
                self.adopt_for_group(adopted.source, adopted.door, adopted.until_ms);
            }
        }
        if self.trial.is_none() {
            self.commit()?;
        }
        // Sequences may have been used without an event.
        self.follow_sequences();
        self.end_what_is_due()
    }
}

/// Waits for the next tick; never returns without a clock.
async fn ticked(clock: &mut Option<Interval>) {
    match clock {
        Some(clock) => {
            clock.tick().await;
        }
        None => std::future::pending().await,
    }
}
