//! How events and reads of the allow map change the openings.

use knock_common::{Reason, event::Event, grant::Grant, layout::GrantKey, time::NANOS_PER_MILLI};

use super::{
    action::{Ending, LedgerAction},
    openings::{Giver, Holder, Ledger, is_over, settled_ns},
};

impl Ledger {
    /// Processes an event of the kernel side; events that do not concern grants change nothing.
    pub fn receive(&mut self, event: &Event, now_ms: u64) -> Vec<LedgerAction> {
        let reason = event.reason();
        if matches!(reason, Some(Reason::Opened | Reason::Refreshed)) {
            self.receive_opened(event, now_ms)
        } else if reason == Some(Reason::Closed) {
            let keys = self.keys_of(event.source, event.door);
            let ending = match event.user {
                0 => Ending::Sequence {
                    by: Some(event.door),
                },
                _ => Ending::Packet,
            };
            let mut actions = self.revoke_entries(&keys, event.at_ns, ending, now_ms);
            for key in keys {
                let restored = self.restored.find(&key, now_ms);
                if let Some((_, grant)) = restored.filter(|(given_ns, _)| *given_ns <= event.at_ns)
                {
                    // It may have been missing when the kernel side wanted to end it. If it was
                    // given again since, with the same end, the event of that brings it back.
                    actions.push(self.remove(key, grant, event.at_ns, now_ms));
                }
                self.recheck_later(key, event.at_ns / NANOS_PER_MILLI);
            }
            actions
        } else {
            Vec::new()
        }
    }

    /// Processes an entry of the allow map that was just read.
    ///
    /// This replaces lost events: grants, and grants that ended early.
    pub fn observe(&mut self, key: GrantKey, grant: Grant, now_ms: u64) -> Vec<LedgerAction> {
        if now_ms < grant.until_ms && self.is_of_door(key, grant.door) {
            let given_ns = self.given_ns(grant, now_ms);
            let action = self.extend(key.source, grant, given_ns);
            return action.into_iter().collect();
        }
        self.recheck_later(key, grant.until_ms);
        if !is_over(grant.until_ms, now_ms) {
            return Vec::new();
        }
        // Only a closing sequence or a SPA packet writes an end that is earlier than the reported one.
        self.revoke_entries(
            &[key],
            settled_ns(grant.until_ms),
            Ending::Sequence { by: None },
            now_ms,
        )
    }

    /// Records that an entry that [`LedgerAction::Restore`] names was in the map: the kernel side ends it
    /// itself.
    pub fn not_missing(&mut self, key: &GrantKey) {
        self.restored.forget(key);
    }

    fn receive_opened(&mut self, event: &Event, now_ms: u64) -> Vec<LedgerAction> {
        let &Event {
            source: asked_from,
            door,
            until_ms,
            at_ns,
            ..
        } = event;
        let grant = Grant { until_ms, door };
        let source = self.prefix_of(door).first_of(asked_from);
        if !self.has_door(door) {
            return Vec::new();
        }
        if self.is_stale((source, door), event, now_ms) {
            // Times are only as fine as timer ticks: what the map has decides.
            for key in self.keys_of(source, door) {
                self.recheck_later(key, at_ns / NANOS_PER_MILLI);
            }
            return Vec::new();
        }
        let mut actions = Vec::new();
        for key in self.keys_of(source, door) {
            let removed = self.removed.find(&key, now_ms);
            // A grant that was given before the end of the removed one was part of it. One that was
            // given in the same timer tick has the same time, and its event comes after the end's.
            let is_newer = removed.is_some_and(|end_ns| end_ns <= at_ns);
            if is_newer && now_ms < until_ms {
                actions.push(self.restore(key, grant, at_ns, now_ms));
            }
        }
        actions.extend(self.extend(source, grant, at_ns));
        let opening = self.openings.get_mut(&(source, door));
        if let Some(opening) = opening.filter(|opening| opening.until_ms == until_ms) {
            let by_packet = match event.user {
                0 => Giver::Knocks,
                user => Giver::User(user),
            };
            opening.giver.get_or_insert(by_packet);
        }
        actions
    }

    /// Returns whether an event is so late that its opening was found in the map and has ended.
    ///
    /// An opening that ended by an event is older than every event that is read after that, also if
    /// the times are equal, or if the clock of another CPU was behind.
    fn is_stale(&self, holder: Holder, event: &Event, now_ms: u64) -> bool {
        !self.openings.contains_key(&holder)
            && self.ended.find(&holder, now_ms).is_some_and(|end| {
                !end.by_event
                    && event.at_ns <= end.at_ns
                    && (end.early || is_over(event.until_ms, now_ms))
            })
    }
}
