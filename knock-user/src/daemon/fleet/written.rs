//! Informs callers which hosts have applied a revocation.

use std::io::Write;

use super::{
    super::state::Daemon,
    link::{Outcome, Waiting},
};
use crate::host::clock;

/// How long a caller waits for the hosts, in milliseconds.
const PATIENCE_MS: u64 = 1_000;

impl<W: Write> Daemon<W> {
    /// Calls `then` when all hosts of the group have applied a revocation, or after a second.
    pub(crate) fn when_confirmed(&mut self, id: u64, then: impl FnOnce(Outcome) + 'static) {
        let until_ms = clock::boot_ms().saturating_add(PATIENCE_MS);
        if let Some(fleet) = &mut self.fleet {
            fleet.callers.push(Waiting {
                id,
                until_ms,
                then: Box::new(then),
            });
        }
        self.answer_confirmed();
    }

    /// Answers the callers whose wait is over.
    pub(in crate::daemon) fn answer_confirmed(&mut self) {
        let Some(fleet) = &mut self.fleet else {
            return;
        };
        if fleet.callers.is_empty() {
            return;
        }
        let now_ms = clock::boot_ms();
        let group = fleet.exchange.group();
        let is_written = group.unwritten() == 0;
        let because = (!fleet.is_in_sync()).then(|| fleet.reason());
        let is_over = |caller: &mut Waiting| {
            let confirmed = group.confirmations(caller.id);
            is_written && confirmed.by == confirmed.of
                || because.is_some()
                || caller.until_ms <= now_ms
        };
        let over: Vec<_> = fleet.callers.extract_if(.., is_over).collect();
        for Waiting { id, then, .. } in over {
            then(Outcome {
                group: fleet.settings.group.clone(),
                is_written,
                confirmed: fleet.exchange.group().confirmations(id),
                because: because.clone(),
            });
        }
    }

    /// Returns when the next caller has waited long enough, in milliseconds since boot.
    pub(in crate::daemon) fn callers_deadline_ms(&self) -> Option<u64> {
        let callers = self.fleet.iter().flat_map(|fleet| &fleet.callers);
        callers.map(|caller| caller.until_ms).min()
    }
}
