//! A configuration on trial: it is rolled back unless it is confirmed.

use std::time::Duration;

use knock_sequence::duration::spell_short;

use crate::{apply::plan::Plan, host::clock};

/// How long before its end a trial is reported again, in milliseconds.
const LAST_CALL_MS: u64 = 10_000;

/// A configuration that awaits its confirmation.
pub(super) struct Trial {
    /// When it is rolled back, in milliseconds since boot.
    pub(super) until_ms: u64,
    /// The previous configuration; `None` if this process had none.
    pub(super) back: Option<Plan>,
    /// When it is reported again, in milliseconds since boot; `None` once that is done.
    pub(super) reminds_ms: Option<u64>,
}

/// How the last trial ended.
#[derive(Clone, Copy, Debug)]
pub(super) enum LastTrial {
    /// It was confirmed at this moment, in milliseconds since boot.
    Confirmed(u64),
    /// It expired at this moment, in milliseconds since boot.
    Undone(u64),
}

impl Trial {
    pub(super) fn new(until_ms: u64, back: Option<Plan>) -> Self {
        let reminds_ms = until_ms.saturating_sub(LAST_CALL_MS);
        Self {
            until_ms,
            back,
            // A short one is reported only once.
            reminds_ms: (reminds_ms > clock::boot_ms()).then_some(reminds_ms),
        }
    }

    /// Returns the time of the next deadline, in milliseconds since boot.
    pub(super) fn deadline_ms(&self) -> u64 {
        self.reminds_ms.unwrap_or(self.until_ms)
    }

    /// Returns the reason why another configuration has to wait.
    pub(super) fn reason_to_wait(&self) -> String {
        let left_ms = self.until_ms.saturating_sub(clock::boot_ms());
        format!(
            "a configuration is on trial for another {}: `knock-user confirm` keeps it, and \
             without that it is rolled back",
            spell_short(Duration::from_millis(left_ms))
        )
    }
}
