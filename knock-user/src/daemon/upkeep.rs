//! Periodic work: ends expired entries, compares the ledger with the maps, and reads counters.

use std::{collections::BTreeMap, io::Write, time::Duration};

use anyhow::{Context as _, Result};
use aya::maps::MapError;
use knock_common::{
    access::Flow,
    automaton::Progress,
    grant::Grant,
    layout::{ALLOW_MAX, FLOWS_MAX, PROGRESS_MAX},
    time::Moment,
};
use tokio::time::Instant;

use super::state::Daemon;
use crate::{
    host::{clock, os_error},
    kernel::maps::{self, Plain},
    ledger::Lookup,
};

/// A flow that ended this long ago is removed, in milliseconds: the kernel side has long judged the
/// packet that could have raced with the removal.
const FLOW_GRACE_MS: u64 = 5_000;

impl<W: Write> Daemon<W> {
    /// Returns the time of the next deadline, at most a minute away.
    pub(super) fn deadline(&self) -> Instant {
        let now_ms = clock::boot_ms();
        let wait_ms = self
            .ledger
            .next_deadline()
            .map_or(u64::from(u32::MAX), |at| at.saturating_sub(now_ms));
        let trial = self.trial_deadline_ms();
        // While a configuration is prepared, sequences are not followed.
        let changes = match self.pending.is_some() {
            true => None,
            false => self.protection.sequences_change_ms(),
        };
        let rearm = self.protection.rearm_ms();
        let callers = self.callers_deadline_ms();
        let [trial_ms, change_ms, rearm_ms, callers_ms] = [trial, changes, rearm, callers]
            .map(|at_ms| at_ms.map_or(u64::MAX, |at_ms| at_ms.saturating_sub(now_ms)));
        // CLOCK_BOOTTIME counts suspend and tokio's clock does not: look at least once a minute.
        let wait_ms = [trial_ms, change_ms, rearm_ms, callers_ms]
            .into_iter()
            .fold(wait_ms, u64::min);
        Instant::now() + Duration::from_millis(wait_ms.min(60_000))
    }

    /// Does the work whose deadline has passed.
    pub(super) fn do_what_is_due(&mut self) -> Result<()> {
        if self.protection.has_dynamic_doors() {
            self.follow_sequences();
        }
        self.end_what_is_due()?;
        self.answer_confirmed();
        self.rearm_due()?;
        let now = Moment::from_nanos(clock::boot_ns());
        self.protection.program().renew_cookie_key(now)
    }

    /// Passes the wall clock on to the program, and writes used stamps of users to the disk.
    pub(super) fn follow_spa(&mut self) -> Result<()> {
        self.protection.follow_wall_clock()?;
        self.protection.save_stamps()
    }

    pub(super) fn end_what_is_due(&mut self) -> Result<()> {
        let allow = self.protection.program().allow()?;
        let actions = self
            .ledger
            .due(clock::boot_ms(), |&key| match allow.get(&Plain(key), 0) {
                Ok(Plain(word)) => Lookup::Found(Grant::from_word(word)),
                Err(MapError::KeyNotFound) => Lookup::Absent,
                Err(_) => Lookup::Failed,
            });
        self.act(&actions, clock::boot_ns());
        Ok(())
    }

    pub(super) fn sweep(&mut self) -> Result<()> {
        for (key, word) in maps::entries(&self.protection.program().allow()?, ALLOW_MAX) {
            let actions = self
                .ledger
                .observe(key, Grant::from_word(word), clock::boot_ms());
            self.act(&actions, clock::boot_ns());
        }
        self.remove_ended_progress()?;
        self.remove_ended_flows()?;
        self.protection.forget_seen()?;
        self.follow_interfaces()?;
        self.warn_of_waiting()?;
        self.follow_surroundings()?;
        self.notify_state();
        Ok(())
    }

    /// Removes attempts that have expired. The kernel side counts ticks modulo 9.8 hours: an old one must not look
    /// fresh again.
    fn remove_ended_progress(&mut self) -> Result<()> {
        let now = Moment::from_nanos(clock::boot_ns()).tick();
        let mut progress = self.protection.program().progress()?;
        for (key, word) in maps::entries(&progress, PROGRESS_MAX) {
            let age = now.since(Progress::from_word(word).last);
            if age > 2 * self.attempt_max_ticks {
                maps::delete_if(&mut progress, key, word).context("removing an ended attempt")?;
            }
        }
        Ok(())
    }

    fn remove_ended_flows(&mut self) -> Result<()> {
        let idle_ms = self.settings().established.idle_ms();
        let mut flows = self.protection.program().flows()?;
        let now_ms = clock::boot_ms();
        let mut ended: BTreeMap<_, _> = maps::entries(&flows, FLOWS_MAX)
            .into_iter()
            .filter(|(key, word)| {
                let until_ms = Flow::from_word(*word).until_ms(key.idle_ms(idle_ms));
                until_ms.saturating_add(FLOW_GRACE_MS) < now_ms
            })
            .collect();
        let mut kept = Vec::new();
        for (&key, &word) in &ended {
            if !maps::delete_if(&mut flows, key, word).context("removing an ended flow")? {
                kept.push(key);
            }
        }
        // A new connection between the same ports began meanwhile.
        ended.retain(|key, _| !kept.contains(key));
        for (key, word) in ended {
            let flow = Flow::from_word(word);
            let idle = Duration::from_millis(now_ms.saturating_sub(flow.seen_ms));
            self.console.flow_closed(&key, idle, clock::boot_ns());
        }
        Ok(())
    }

    /// Checks that the program is attached everywhere: the kernel does not report everything that
    /// detaches it.
    pub(super) fn look_at_interfaces(&mut self) -> Result<()> {
        match self.protection.is_intact() {
            true => Ok(()),
            false => self.follow_interfaces(),
        }
    }

    /// Writes warnings that were held back by a throttle.
    fn write_deferred(&mut self) {
        let now = std::time::Instant::now();
        let all = [
            &mut self.left_outs,
            &mut self.failed_commands,
            &mut self.gateways,
        ];
        for line in all.into_iter().flat_map(|throttle| throttle.due(now)) {
            tracing::warn!("{line}");
        }
    }

    /// Reports counters that increased since the last call.
    pub(super) fn report_counters(&mut self) -> Result<()> {
        self.follow_host()?;
        // The wall clock may have been set.
        self.console.set_boot(clock::booted_at());
        let counters = self.protection.program().counters()?;
        let delta = self.stats.delta(&counters, clock::boot_ms());
        let now_ns = clock::boot_ns();
        self.console.sum_up(now_ns, false);
        self.console
            .suppressed(delta.suppressed, delta.lost, now_ns);
        for (shortage, times) in delta.shortages {
            self.console.pressure(shortage, times, now_ns);
        }
        self.write_deferred();
        self.end_blocks()?;
        self.keep_room()?;
        let untracked = self.ledger.untracked();
        let more = untracked.saturating_sub(std::mem::replace(&mut self.untracked, untracked));
        if more > 0 {
            tracing::warn!(
                "{more} grants beyond {ALLOW_MAX} are not reported, and their commands not run"
            );
        }
        if let Some(error) = self.console.failure().filter(|_| !self.is_mute) {
            tracing::warn!(
                "events are no longer written to standard output: {}",
                os_error::reason(error, "standard output")
            );
            self.is_mute = true;
        }
        if delta.lost > 0 {
            self.sweep()?
        }
        Ok(())
    }
}
