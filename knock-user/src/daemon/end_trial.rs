//! Ends the trial of a configuration: it is confirmed, or rolled back.

use std::io::Write;

use anyhow::{Error, Result, anyhow, bail};

use super::{
    difference::difference,
    pending::{ChangePurpose, Ready},
    state::{Daemon, StopCause},
    trial::{LastTrial, Trial},
};
use crate::host::{
    clock::{self, Clock},
    os_error,
};

/// How long after a failure the roll-back is tried again, in milliseconds.
const RETRY_MS: u64 = 5_000;

impl<W: Write> Daemon<W> {
    /// Reports the approaching end of a trial, or begins the roll-back if it has expired.
    pub(super) fn follow_trial(&mut self) -> Option<StopCause> {
        let now_ms = clock::boot_ms();
        let trial = self.trial.as_mut()?;
        if trial.until_ms > now_ms {
            if trial.reminds_ms.take_if(|at_ms| *at_ms <= now_ms).is_some() {
                self.report_trial();
            }
            return None;
        }
        let mut trial = self.trial.take()?;
        let Some(plan) = trial.back.take() else {
            return Some(StopCause::TrialExpired);
        };
        self.last_trial = Some(LastTrial::Undone(now_ms));
        tracing::warn!("no confirmation came: the previous configuration is being restored");
        trial.back = Some(plan.clone());
        self.begin(ChangePurpose::RollBack(Box::new(trial)), None, move || {
            Ok(plan)
        });
        None
    }

    /// Puts the previous configuration in force, which is prepared; on failure schedules another try.
    pub(super) fn finish_roll_back(&mut self, trial: Trial, ready: Result<Ready>) {
        let back = ready.and_then(|ready| self.put_in_place(ready));
        let back = back.and_then(|(unconfirmed, _)| {
            let words = difference(unconfirmed.settings(), self.plan.settings(), &self.run);
            self.console.reloaded(&words, clock::boot_ns());
            self.commit().map(drop)
        });
        if let Err(error) = back {
            tracing::warn!(
                "the previous configuration could not be restored, and knock-user tries again: {}",
                os_error::describe(&error)
            );
            let until_ms = clock::boot_ms().saturating_add(RETRY_MS);
            self.trial = Some(Trial { until_ms, ..trial });
        }
        self.notify_state();
    }

    /// Confirms the configuration on trial.
    ///
    /// # Errors
    /// Nothing is on trial, or a configuration is being prepared.
    pub(crate) fn confirm(&mut self) -> Result<()> {
        if let Some(under_way) = self.under_way() {
            bail!(under_way);
        }
        let confirmed = self.keep_unconfirmed();
        self.notify_state();
        confirmed
    }

    fn keep_unconfirmed(&mut self) -> Result<()> {
        let Some(trial) = &self.trial else {
            return Err(self.nothing_to_confirm());
        };
        // The roll-back may begin a moment later than this.
        if trial.until_ms <= clock::boot_ms() {
            bail!(
                "too late: no confirmation came until {}",
                Clock::now().wall(trial.until_ms)
            );
        }
        self.protection.confirm()?;
        self.trial = None;
        self.last_trial = Some(LastTrial::Confirmed(clock::boot_ms()));
        self.console.confirmed(clock::boot_ns());
        // It stays in force, even if the rest is left to the next start.
        if let Err(error) = self.commit() {
            tracing::warn!("{}", os_error::describe(&error));
        }
        Ok(())
    }

    fn nothing_to_confirm(&self) -> Error {
        let clock = Clock::now();
        match self.last_trial {
            Some(LastTrial::Confirmed(at_ms)) => anyhow!(
                "there is nothing to confirm: what is in force was confirmed at {}, and nothing \
                 has been on trial since",
                clock.wall(at_ms)
            ),
            Some(LastTrial::Undone(at_ms)) => anyhow!(
                "too late: no confirmation came until {}, and the previous configuration was \
                 restored then",
                clock.wall(at_ms)
            ),
            None => anyhow!(
                "there is nothing to confirm: neither this start nor a reload was on trial \
                 (--confirm TIME)"
            ),
        }
    }

    /// Returns the next deadline of a trial, in milliseconds since boot.
    pub(super) fn trial_deadline_ms(&self) -> Option<u64> {
        self.trial.as_ref().map(Trial::deadline_ms)
    }
}
