//! What a host writes for the others, and the answers.

use super::{
    action::{FleetAction, NewRecord},
    entry::Entry,
    group::{Group, SLACK_MS},
    presence::BEAT_MS,
    record::{Grant, Place, Record, Rule},
    times::Now,
    uses::Denial,
};

/// How far the ends of one grant may differ, by rounding and slewed clocks, in milliseconds.
const TOLERANCE_MS: u64 = 2_000;

impl<R: Rule> Group<R> {
    /// Records that a write was done at a revision.
    pub fn written(&mut self, id: u64, revision: u64, now: Now) -> Vec<FleetAction> {
        let Some(place) = self.outbox.ended(id) else {
            return Vec::new();
        };
        let mut actions = Vec::new();
        match place {
            Place::Grant { door, source, .. } => {
                let own = self.entries.get_mut(&(door, source));
                let own = own.and_then(|entry| entry.own.as_mut());
                if let Some(own) = own.filter(|own| own.in_flight == Some(id)) {
                    own.revision = Some(revision);
                }
            }
            Place::Shared => self.outgoing = None,
            // The engine reports it.
            Place::Revocation { .. } | Place::Presence { .. } | Place::Lockout { .. } => {}
            Place::Line { .. } | Place::Once { .. } => {
                if let Some(claim) = self.claims.ended(id) {
                    actions.extend(self.claim_written(claim, revision, now));
                }
                if self.claims.waits(&place) {
                    self.outbox.add(place);
                }
            }
        }
        actions.extend(self.advance(now));
        actions
    }

    /// Records that no answer came to a write, which may have been done. It is repeated.
    pub fn failed(&mut self, id: u64) {
        let Some(place) = self.outbox.ended(id) else {
            return;
        };
        self.claims.ended(id);
        // With the next sign of life of the engine.
        self.outbox.add(place);
    }

    /// Records that nothing was written, because the engine has another record in the place: the one
    /// that can be read, if it can, and its revision; 0 if there is none.
    pub fn refused(
        &mut self,
        id: u64,
        found: Option<Record>,
        revision: u64,
        now: Now,
    ) -> Vec<FleetAction> {
        let Some(place) = self.outbox.ended(id) else {
            return Vec::new();
        };
        let mut actions = Vec::new();
        let claim = self.claims.ended(id);
        match (&place, found) {
            (Place::Revocation { .. }, Some(Record::Revocation(revocation)))
                if revocation.place() == place =>
            {
                self.take_revocation(revocation, revision, now);
                actions.extend(self.settle_revoked(&place, now));
                self.outbox.add(place);
            }
            (Place::Line { .. } | Place::Once { .. }, Some(Record::Use(record)))
                if Place::of_use(&record.used) == place =>
            {
                actions.extend(self.take_use(record, revision, now));
                self.outbox.add(place);
            }
            (Place::Line { .. } | Place::Once { .. }, _) => {
                self.claims.found(&place, revision);
                let unreadable = claim.filter(|_| revision != 0);
                if let Some(claim) = unreadable {
                    actions.extend(self.lose(claim, Denial::Unreadable, now));
                }
                self.outbox.add(place);
            }
            (Place::Shared, found) => actions.extend(self.shared_refused(found, revision)),
            (
                Place::Revocation { .. }
                | Place::Grant { .. }
                | Place::Presence { .. }
                | Place::Lockout { .. },
                _,
            ) => {
                self.revocations.found(&place, revision);
                self.outbox.add(place);
            }
        }
        actions.extend(self.advance(now));
        actions
    }

    /// Decides claims, then returns what can be written.
    pub(super) fn advance(&mut self, now: Now) -> Vec<FleetAction> {
        let mut actions = self.settle_claims(now);
        if self.phase.is_following() {
            actions.extend(self.roll_out(now));
        }
        if self.phase.is_following()
            && let Some(presence) = self.hosts.beat(now)
        {
            actions.push(FleetAction::Beat {
                presence,
                keep_ms: BEAT_MS,
            });
        }
        actions.extend(self.writes(now));
        actions
    }

    /// Returns the records to write, while this host follows the engine.
    fn writes(&mut self, now: Now) -> Vec<FleetAction> {
        let mut puts = Vec::new();
        while self.phase.is_following()
            && let Some((id, place)) = self.outbox.next()
        {
            match self.records_of(&place, id, now) {
                Some((records, replaces)) => puts.push(FleetAction::Put {
                    id,
                    records,
                    replaces,
                }),
                // It has ended meanwhile.
                None => drop(self.outbox.ended(id)),
            }
        }
        puts
    }

    /// Returns the records of a place as they are now, and what the first one replaces.
    fn records_of(
        &mut self,
        place: &Place,
        id: u64,
        now: Now,
    ) -> Option<(Vec<NewRecord>, Option<u64>)> {
        let (record, replaces, keep_ms) = match place {
            Place::Grant { door, source, .. } => {
                let entry = self.entries.get_mut(&(door.clone(), *source))?;
                // What depends on a claim is written with it.
                let own = entry.own.as_mut().filter(|own| own.claim.is_none())?;
                let left_ms = own
                    .until_ms
                    .checked_sub(now.boot_ms)
                    .filter(|&left| left > 0)?;
                own.in_flight = Some(id);
                let grant = Grant {
                    until_ms: now.wall_ms.saturating_add(left_ms),
                    length_ms: left_ms,
                    ..own.grant.clone()
                };
                let keep_ms = left_ms.saturating_add(SLACK_MS);
                (Record::Grant(grant), None, keep_ms)
            }
            Place::Revocation { .. } => {
                // One that this host does not know must not be replaced.
                let unwritten = self.revocations.unwritten(place)?;
                let keep_ms = unwritten.until_ms.saturating_sub(now.boot_ms);
                let record = Record::Revocation(unwritten.latest.clone());
                (record, Some(unwritten.found), keep_ms)
            }
            Place::Lockout { source } => {
                let lockout = self.lockouts.record(*source, &self.member.host, now)?;
                let keep_ms = lockout.length_ms;
                (Record::Lockout(lockout), None, keep_ms)
            }
            Place::Shared => {
                let record = NewRecord {
                    place: Place::Shared,
                    record: Record::Shared(self.outgoing.clone()?),
                    keep_ms: None,
                };
                return Some((vec![record], Some(self.shared_revision)));
            }
            // It is kept, not written.
            Place::Presence { .. } => return None,
            Place::Line { .. } | Place::Once { .. } => {
                return self.records_of_use(place, id, now);
            }
        };
        let record = NewRecord {
            place: place.clone(),
            record,
            keep_ms: Some(keep_ms),
        };
        Some((vec![record], replaces))
    }

    /// Compares grants that a restarted daemon found with those of the engine.
    pub(super) fn recognise_adopted(&mut self) {
        for entry in self.entries.values_mut() {
            recognise_known(entry, &self.member.host);
            let Some(own) = entry.own.as_mut().filter(|own| own.is_adopted) else {
                continue;
            };
            let covers = |until_ms: u64| until_ms.saturating_add(TOLERANCE_MS) >= own.until_ms;
            let written = entry.received.get(&self.member.host);
            if let Some(written) = written.filter(|written| covers(written.until_ms)) {
                own.grant.seen = written.grant.seen;
                own.grant.knows.clone_from(&written.grant.knows);
                own.grant.by = written.grant.by;
                own.revision = Some(written.revision);
                own.is_adopted = false;
            } else if entry
                .received
                .iter()
                .any(|(host, received)| *host != self.member.host && covers(received.until_ms))
            {
                entry.own = None;
            } else {
                own.is_adopted = false;
            }
        }
    }

    /// Adds what this host made and the engine lacks to what is written. What the engine has written
    /// may be gone with the backup from which it was restored.
    pub(super) fn write_missing(&mut self, now: Now) {
        for place in self.revocations.all_unwritten() {
            self.outbox.add(place);
        }
        let uses = self.claims.all_unwritten(&self.member.host, now.boot_ms);
        for place in uses {
            self.outbox.add(place);
        }
        for ((door, source), entry) in &mut self.entries {
            let Some(own) = entry.own.as_mut().filter(|own| own.claim.is_none()) else {
                continue;
            };
            let written = entry.received.get(&self.member.host);
            let is_there = written.is_some_and(|written| own.revision == Some(written.revision));
            if !is_there {
                own.revision = None;
                self.outbox.add(Place::Grant {
                    host: self.member.host.clone(),
                    door: door.clone(),
                    source: *source,
                });
            }
        }
    }
}

/// Compares a grant that is known since before a restart with what was found and with those of the engine.
fn recognise_known(entry: &mut Entry, host: &str) {
    let adopted_ms = entry.adopted_ms.take();
    let Some(own) = entry.own.as_mut().filter(|own| !own.is_adopted) else {
        return;
    };
    // Revision 0 is of another history.
    let written = entry.received.get(host);
    let written = written.filter(|written| written.revision > 0 && own.revision.is_none());
    if let Some(written) = written {
        if written.grant.given_ms > own.grant.given_ms {
            own.until_ms = own.until_ms.max(written.until_ms);
            own.grant.clone_from(&written.grant);
        }
        if written.grant.given_ms == own.grant.given_ms && own.claim.is_none() {
            own.revision = Some(written.revision);
        }
    }
    let covers = |until_ms: u64, end_ms: u64| until_ms.saturating_add(TOLERANCE_MS) >= end_ms;
    if let Some(end_ms) = adopted_ms
        && !covers(own.until_ms, end_ms)
        && !entry
            .received
            .values()
            .any(|received| covers(received.until_ms, end_ms))
    {
        own.until_ms = end_ms;
        own.revision = None;
    }
}
