//! A configuration on trial: it is undone unless somebody confirms it.

use std::{io::Write, time::Duration};

use anyhow::{Error, Result, anyhow, bail};

use knock_sequence::duration::spell_short;

use super::{
    Daemon, Outcome,
    change::difference,
    making::{Purpose, Ready},
};
use crate::{
    apply::plan::Plan,
    host::{
        clock::{self, Clock},
        os_error,
    },
};

/// How long before its end a trial is announced once more, in milliseconds.
const LAST_CALL_MS: u64 = 10_000;
/// After what time going back is tried again, in milliseconds.
const RETRY_MS: u64 = 5_000;

/// A configuration that awaits its confirmation.
pub(super) struct Trial {
    /// When it is undone, in milliseconds since boot.
    pub(super) until_ms: u64,
    /// The configuration before; none if there was none in this process.
    pub(super) back: Option<Plan>,
    /// When it is announced once more, in milliseconds since boot, unless that was done.
    reminds_ms: Option<u64>,
}

/// What became of the last trial.
#[derive(Clone, Copy, Debug)]
pub(super) enum LastTrial {
    /// It was confirmed at this moment, in milliseconds since boot.
    Confirmed(u64),
    /// No confirmation came until this moment, in milliseconds since boot.
    Undone(u64),
}

impl Trial {
    pub(super) fn new(until_ms: u64, back: Option<Plan>) -> Self {
        let reminds_ms = until_ms.saturating_sub(LAST_CALL_MS);
        Self {
            until_ms,
            back,
            // A short one is announced only once.
            reminds_ms: (reminds_ms > clock::boot_ms()).then_some(reminds_ms),
        }
    }

    /// When there is something to do, in milliseconds since boot.
    pub(super) fn deadline_ms(&self) -> u64 {
        self.reminds_ms.unwrap_or(self.until_ms)
    }

    /// Why another configuration has to wait.
    pub(super) fn reason_to_wait(&self) -> String {
        let left_ms = self.until_ms.saturating_sub(clock::boot_ms());
        format!(
            "a configuration is on trial for another {}: `knock-user confirm` keeps it, and \
             without that everything goes back to how it was",
            spell_short(Duration::from_millis(left_ms))
        )
    }
}

impl<W: Write> Daemon<W> {
    /// Says that there is a trial, how long it lasts, what ends it and what keeps it.
    pub(super) fn report_trial(&mut self) {
        let Some(trial) = &self.trial else {
            return;
        };
        let goes_back = trial.back.is_some() || self.protection.rolls_back_to_protection();
        let until_ms = trial.until_ms;
        self.console.trial(until_ms, goes_back, clock::boot_ns());
    }

    /// Does what is due: announces the end of a trial, or goes back to how it was.
    pub(super) fn follow_trial(&mut self) -> Option<Outcome> {
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
            return Some(Outcome::TrialExpired);
        };
        self.last_trial = Some(LastTrial::Undone(now_ms));
        tracing::warn!("no confirmation came: the previous configuration is being restored");
        trial.back = Some(plan.clone());
        self.begin(Purpose::GoBack(Box::new(trial)), None, move || Ok(plan));
        None
    }

    /// Goes back with the configuration before, which is ready. While that fails, it is tried again.
    pub(super) fn go_back_with(&mut self, trial: Trial, ready: Result<Ready>) {
        let back = ready.and_then(|ready| self.put_in_place(ready));
        let back = back.and_then(|(unconfirmed, _)| {
            let words = difference(&unconfirmed, &self.plan);
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

    /// Keeps what is on trial.
    ///
    /// # Errors
    /// Nothing is on trial any more, or a configuration is being made ready.
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
        // What undoes it may come a moment later than this.
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
        // It stays, whatever this leaves to the next start.
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
                "too late: no confirmation came until {}, and the configuration before was put \
                 back then",
                clock.wall(at_ms)
            ),
            None => anyhow!(
                "there is nothing to confirm: neither this start nor a reload was on trial \
                 (--confirm TIME)"
            ),
        }
    }

    /// How long a trial lasts, for whom it concerns.
    pub(super) fn trial_deadline_ms(&self) -> Option<u64> {
        self.trial.as_ref().map(Trial::deadline_ms)
    }
}
