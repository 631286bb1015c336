//! Ends openings whose time has passed.

use std::collections::HashSet;

use knock_common::{grant::Grant, layout::GrantKey, time::NANOS_PER_MILLI};

use super::{
    action::{Ending, LedgerAction},
    openings::{Holder, Ledger, Lookup, SETTLE_MS, is_over, settled_ns},
};

/// The delay before an entry that could not be read is read again.
const RETRY_MS: u64 = 1_000;

/// One call of [`Ledger::due`].
struct Round<F> {
    now_ms: u64,
    look: F,
    /// Entries whose removal this call has requested; they are still in the map.
    gone: HashSet<GrantKey>,
    actions: Vec<LedgerAction>,
}

impl<F: FnMut(&GrantKey) -> Lookup> Round<F> {
    fn look(&mut self, key: &GrantKey) -> Lookup {
        if self.gone.contains(key) {
            Lookup::Absent
        } else {
            (self.look)(key)
        }
    }
}

impl Ledger {
    /// Returns when [`Ledger::due`] has work, in milliseconds since boot.
    pub fn next_deadline(&self) -> Option<u64> {
        let opening = self.deadlines.first().map(|&(deadline_ms, _)| deadline_ms);
        let suspect = self.suspects.first().map(|&(deadline_ms, _)| deadline_ms);
        let first = opening.into_iter().chain(suspect).min();
        first.map(|deadline_ms| deadline_ms.saturating_add(SETTLE_MS + 1))
    }

    /// Closes openings that have ended; `look` reads the allow map.
    ///
    /// Grants that the kernel side has refreshed meanwhile continue, even if their event was lost.
    pub fn due(&mut self, now_ms: u64, look: impl FnMut(&GrantKey) -> Lookup) -> Vec<LedgerAction> {
        let mut round = Round {
            now_ms,
            look,
            gone: HashSet::new(),
            actions: Vec::new(),
        };
        while let Some(&(deadline_ms, holder)) = self.deadlines.first() {
            if !is_over(deadline_ms, now_ms) {
                break;
            }
            self.deadlines.pop_first();
            self.end(holder, &mut round);
        }
        while let Some(&(deadline_ms, entry)) = self.suspects.first() {
            if !is_over(deadline_ms, now_ms) {
                break;
            }
            self.suspects.pop_first();
            let (source, port_group, target_id) = entry;
            let key = GrantKey {
                source,
                port_group,
                target_id,
            };
            self.check_entry(key, &mut round);
        }
        round.actions
    }

    /// Ends an expired opening, unless the map has a later end.
    fn end<F: FnMut(&GrantKey) -> Lookup>(&mut self, holder: Holder, round: &mut Round<F>) {
        let now_ms = round.now_ms;
        let (source, door) = holder;
        let Some(opening) = self.openings.get(&holder) else {
            return;
        };
        let until_ms = opening.until_ms;
        let mut newest_ms = until_ms;
        let mut over = Vec::new();
        let mut others = Vec::new();
        // Every entry is read: an ended one may have been given again.
        for key in self.keys_of(source, door) {
            match round.look(&key) {
                Lookup::Found(grant) if is_over(grant.until_ms, now_ms) => {
                    over.push((key, grant));
                }
                Lookup::Found(grant) if grant.door == door => {
                    newest_ms = newest_ms.max(grant.until_ms);
                }
                Lookup::Found(grant) => others.push((key, grant)),
                Lookup::Absent => {}
                Lookup::Failed => return self.retry(holder, now_ms),
            }
        }
        for (key, grant) in others {
            round.actions.extend(self.observe(key, grant, now_ms));
        }
        if newest_ms > until_ms {
            let grant = Grant {
                until_ms: newest_ms,
                door,
            };
            let given_ns = self.given_ns(grant, now_ms);
            round.actions.extend(self.extend(source, grant, given_ns));
            return;
        }
        let at_ns = until_ms.saturating_mul(NANOS_PER_MILLI);
        let closed = self.close(holder, at_ns, Ending::Expired, now_ms);
        round.actions.extend(closed);
        for (key, grant) in over {
            self.remove_ended(key, grant, round);
        }
    }

    fn retry(&mut self, holder: Holder, now_ms: u64) {
        if let Some(opening) = self.openings.get_mut(&holder) {
            opening.deadline_ms = now_ms.saturating_add(RETRY_MS);
            self.deadlines.insert((opening.deadline_ms, holder));
        }
    }

    /// Checks an entry that belongs to no opening.
    fn check_entry<F: FnMut(&GrantKey) -> Lookup>(&mut self, key: GrantKey, round: &mut Round<F>) {
        let now_ms = round.now_ms;
        match round.look(&key) {
            Lookup::Found(grant) if is_over(grant.until_ms, now_ms) => {
                self.remove_ended(key, grant, round);
            }
            Lookup::Found(grant) => round.actions.extend(self.observe(key, grant, now_ms)),
            Lookup::Absent => {}
            Lookup::Failed => self.recheck_later(key, now_ms.saturating_add(RETRY_MS)),
        }
    }

    /// Removes an expired entry from the map and from openings that counted on it.
    fn remove_ended<F>(&mut self, key: GrantKey, grant: Grant, round: &mut Round<F>) {
        let now_ms = round.now_ms;
        let end_ms = grant.until_ms;
        let ending = Ending::Sequence { by: None };
        let closed = self.revoke_entries(&[key], settled_ns(end_ms), ending, now_ms);
        round.actions.extend(closed);
        round.gone.insert(key);
        let removal = self.remove(key, grant, settled_ns(end_ms), now_ms);
        round.actions.push(removal);
    }
}
