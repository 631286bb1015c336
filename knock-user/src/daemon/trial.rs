//! A configuration on trial: it is undone unless somebody confirms it.

use std::{io::Write, time::Duration};

use anyhow::{Result, bail};

use knock_sequence::duration::spell_short;

use super::{
    Daemon, Outcome,
    change::difference,
    making::{Purpose, Ready},
};
use crate::{
    clock,
    control::{Answer, Call, Reply, answers::Confirmed, facts::Clock},
    refused,
    start::Plan,
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
    /// It was confirmed.
    Confirmed,
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
    pub(super) fn told_to_wait(&self) -> String {
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
    pub(super) fn tell_trial(&mut self) {
        let Some(trial) = &self.trial else {
            return;
        };
        let goes_back = trial.back.is_some() || self.protection.goes_back_to_protection();
        let until_ms = trial.until_ms;
        self.console.trial(until_ms, goes_back, clock::boot_ns());
    }

    /// Does what is due: announces the end of a trial, or goes back to how it was.
    pub(super) fn follow_trial(&mut self) -> Option<Outcome> {
        let now_ms = clock::boot_ms();
        let trial = self.trial.as_mut()?;
        if trial.until_ms > now_ms {
            if trial.reminds_ms.take_if(|at_ms| *at_ms <= now_ms).is_some() {
                self.tell_trial();
            }
            return None;
        }
        let mut trial = self.trial.take()?;
        let Some(plan) = trial.back.take() else {
            return Some(Outcome::Unconfirmed);
        };
        self.last_trial = Some(LastTrial::Undone(now_ms));
        tracing::warn!("no confirmation came: the configuration before is being put back");
        trial.back = Some(plan.clone());
        self.begin(Purpose::GoBack(trial), None, None, move || Ok(plan));
        None
    }

    /// Goes back with the configuration before, which is ready. While that fails, it is tried again.
    pub(super) fn go_back_with(&mut self, trial: Trial, ready: Result<Ready>) {
        let back = ready.and_then(|ready| self.put_in_place(ready));
        let back = back.and_then(|(unconfirmed, _)| {
            let words = difference(&unconfirmed, &self.plan);
            self.console.reloaded(&words, clock::boot_ns());
            self.settle().map(drop)
        });
        if let Err(error) = back {
            tracing::warn!(
                "the configuration before is not back yet, and this is tried again: {}",
                refused::told(&error)
            );
            let until_ms = clock::boot_ms().saturating_add(RETRY_MS);
            self.trial = Some(Trial { until_ms, ..trial });
        }
        self.say_standing();
    }

    /// Keeps what awaits its confirmation, and answers whoever asked.
    pub(super) fn confirm(&mut self, call: Call) {
        if let Some(making) = &self.making {
            call.answer(Reply::failed(making.told()));
            return;
        }
        let Some(trial) = self.trial.take() else {
            call.answer(Reply::of(self.nothing_to_confirm().map(Answer::Confirmed)));
            return;
        };
        // Such a program ends unless another one takes its place, which takes time to load.
        if self.protection.lets_pass_unconfirmed() {
            if let Err(error) = self.protection.outlast(true) {
                let done = self.is_confirmed(trial, Err(error));
                call.answer(Reply::of(
                    done.map(|()| Answer::Confirmed(Confirmed::default())),
                ));
                return;
            }
            let plan = self.plan.clone();
            self.begin(Purpose::Confirm(trial), Some(call), None, move || Ok(plan));
            return;
        }
        let done = self.settle().map(drop);
        let done = self.is_confirmed(trial, done);
        call.answer(Reply::of(done.map(|()| {
            Answer::Confirmed(Confirmed {
                was_unconfirmed: true,
            })
        })));
    }

    /// Keeps what awaits its confirmation, in a form that has no end and is ready.
    pub(super) fn confirm_with(&mut self, trial: Trial, ready: Result<Ready>) -> Result<()> {
        let done = ready.and_then(|ready| self.put_in_place(ready));
        let done = done.and_then(|_| self.settle().map(drop));
        self.is_confirmed(trial, done)
    }

    fn is_confirmed(&mut self, trial: Trial, done: Result<()>) -> Result<()> {
        match done {
            Ok(()) => {
                self.last_trial = Some(LastTrial::Confirmed);
                self.console.confirmed(clock::boot_ns());
            }
            Err(_) => {
                if self.protection.lets_pass_unconfirmed()
                    && let Err(error) = self.protection.outlast(false)
                {
                    tracing::warn!("{}", refused::told(&error));
                }
                self.trial = Some(trial);
            }
        }
        self.say_standing();
        done
    }

    fn nothing_to_confirm(&self) -> Result<Confirmed> {
        let clock = Clock::now();
        match self.last_trial {
            Some(LastTrial::Confirmed) => Ok(Confirmed::default()),
            Some(LastTrial::Undone(at_ms)) => bail!(
                "too late: no confirmation came until {}, and the configuration before was put \
                 back then",
                clock.wall(at_ms)
            ),
            None => bail!(
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
