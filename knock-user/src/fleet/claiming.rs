//! How a host uses what opens a door once in the whole group.
//!
//! A use is a record that is written only if the engine has none in its place, or a lower line of the same
//! file; the grant is written in the same transaction. The first one counts. The answer may be lost: then the
//! write is repeated, and finds the record with the id of this claim, or another one.

use super::{
    action::{FleetAction, NewRecord},
    claims::{Pending, Standing, Way},
    entry::Own,
    group::{Group, SLACK_MS},
    record::{Grant, Origin, Place, Record, Rule},
    times::Now,
    uses::{Claim, Denial, UseRecord, UsedBy},
};

impl<R: Rule> Group<R> {
    pub(super) fn grant_of(&self, claim: &Claim, now: Now) -> Grant {
        self.grant_at(
            &claim.door,
            claim.source,
            claim.at_ms,
            claim.until_ms,
            None,
            now,
        )
    }

    /// Takes a use that the engine has at a revision.
    pub(super) fn take_use(
        &mut self,
        record: UseRecord,
        revision: u64,
        now: Now,
    ) -> Vec<FleetAction> {
        let spend = FleetAction::Spend {
            used: record.used.clone(),
            by: record.by.clone(),
        };
        let place = Place::of_use(&record.used);
        let is_claimed = self.claims.get(record.id).is_some();
        let is_new = self.claims.learn(record, revision, now.boot_ms);
        // An older line, as from a backup.
        self.write_use_if_missing(place, now);
        match is_new && !is_claimed {
            true => vec![spend],
            false => Vec::new(),
        }
    }

    pub(super) fn write_use_if_missing(&mut self, place: Place, now: Now) {
        let host = &self.member.host;
        if self.claims.unwritten(&place, host, now.boot_ms).is_some() {
            self.outbox.add(place);
        }
    }

    /// Decides claims, as far as that is possible.
    pub(super) fn settle_claims(&mut self, now: Now) -> Vec<FleetAction> {
        let ids = self.claims.ids();
        ids.into_iter()
            .flat_map(|id| self.settle_claim(id, now))
            .collect()
    }

    fn settle_claim(&mut self, id: u64, now: Now) -> Vec<FleetAction> {
        let Some(pending) = self.claims.get(id) else {
            return Vec::new();
        };
        let is_waiting = pending.in_flight.is_none();
        let has_time = now.boot_ms < pending.gives_up_ms;
        let is_shut = pending.way == Way::Shut;
        let is_revoked = is_shut && self.revocations.ending(&pending.grant, None).is_some();
        let because = match self.claims.standing::<R>(&pending.claim) {
            Standing::Won(revision) => return self.won(id, revision, now),
            // Where an answer is to come, it may be that this host was first, with a lower line.
            Standing::Lost(by) if is_waiting || is_shut && !has_time => Denial::Used { by },
            Standing::Free if is_revoked && is_waiting => Denial::Revoked,
            Standing::Free if is_shut && !has_time => Denial::CutOff,
            Standing::Lost(_) | Standing::Free => return Vec::new(),
        };
        self.lose(id, because, now)
    }

    fn won(&mut self, id: u64, revision: u64, now: Now) -> Vec<FleetAction> {
        self.is_unsaved = true;
        let Some(Pending {
            claim, way, grant, ..
        }) = self.claims.remove(id)
        else {
            return Vec::new();
        };
        let place = self.place_of(&claim.door, claim.source);
        let is_written = !self.outbox.has(&place);
        if !is_written {
            // The record of an earlier grant may come last.
            self.outbox.add(place);
        }
        let is_revoked = self.revocations.ending(&grant, Some(revision)).is_some();
        let entry = self.entry(&claim.door, claim.source);
        let revision = is_written.then_some(revision);
        match way {
            Way::Open => {
                let own = entry.own.as_mut();
                if let Some(own) = own.filter(|own| own.claim == Some(id)) {
                    own.claim = None;
                    own.revision = revision;
                }
                Vec::new()
            }
            Way::Shut => {
                let because = match () {
                    () if is_revoked => Denial::Revoked,
                    () if claim.until_ms <= now.boot_ms => Denial::Late,
                    () => {
                        let longer_ms = entry.own.as_ref().map_or(0, |own| own.until_ms);
                        let until_ms = claim.until_ms.max(longer_ms);
                        entry.open_ms = entry.open_ms.max(until_ms);
                        entry.own = Some(Own {
                            revision,
                            ..Own::new(grant, until_ms)
                        });
                        return vec![FleetAction::Claimed { claim }];
                    }
                };
                vec![FleetAction::Denied { claim, because }]
            }
        }
    }

    /// Records that the claim of this host was written at a revision.
    pub(super) fn claim_written(&mut self, id: u64, revision: u64, now: Now) -> Vec<FleetAction> {
        let Some(pending) = self.claims.get(id) else {
            return Vec::new();
        };
        let (_, before) = self.claims.replaced(&Place::of_use(&pending.claim.used));
        let record = self.use_of(&pending.claim, before, now);
        self.claims.learn(record, revision, now.boot_ms);
        self.won(id, revision, now)
    }

    fn use_of(&self, claim: &Claim, before: Vec<u64>, now: Now) -> UseRecord {
        UseRecord {
            used: claim.used.clone(),
            id: claim.id,
            by: UsedBy {
                host: self.member.host.clone(),
                source: Some(claim.source),
            },
            at_ms: now.wall_of(claim.at_ms),
            before,
        }
    }

    /// Ends a claim that was not won.
    pub(super) fn lose(&mut self, id: u64, because: Denial, now: Now) -> Vec<FleetAction> {
        self.is_unsaved = true;
        let Some(Pending { claim, way, .. }) = self.claims.remove(id) else {
            return Vec::new();
        };
        let by = match (way, because) {
            (Way::Open, Denial::Used { by }) => by,
            // Nobody is known to have used it: the grant counts, and is written.
            (Way::Open, because) => {
                let entry = self.entry(&claim.door, claim.source);
                if let Some(own) = entry.own.as_mut().filter(|own| own.claim == Some(id)) {
                    own.claim = None;
                    let place = self.place_of(&claim.door, claim.source);
                    self.outbox.add(place);
                }
                return vec![FleetAction::Denied { claim, because }];
            }
            (Way::Shut, because) => return vec![FleetAction::Denied { claim, because }],
        };
        let key = (claim.door.clone(), claim.source);
        let origin = Origin {
            host: by.host.clone(),
            user: None,
        };
        let mut actions = vec![FleetAction::UsedTwice { claim, by }];
        let entry = self.entry(&key.0, key.1);
        if entry.own.take_if(|own| own.claim == Some(id)).is_some() {
            actions.extend(self.settle_because(&key, Some(origin), now));
        }
        actions
    }

    /// Returns the records of a claim, or of a use that the engine has lost, and what they replace.
    pub(super) fn records_of_use(
        &mut self,
        place: &Place,
        write: u64,
        now: Now,
    ) -> Option<(Vec<NewRecord>, Option<u64>)> {
        let (found, before) = self.claims.replaced(place);
        let host = self.member.host.clone();
        let longest_ms = self.member.longest_ms;
        let Some(pending) = self.claims.next::<R>(place) else {
            let record = self.claims.unwritten(place, &host, now.boot_ms)?;
            let write = NewRecord {
                place: place.clone(),
                record: Record::Use(UseRecord {
                    before,
                    ..record.clone()
                }),
                keep_ms: record.used.keep_ms(),
            };
            return Some((vec![write], Some(found)));
        };
        pending.in_flight = Some(write);
        let Pending {
            claim, way, grant, ..
        } = pending.clone();
        let record = self.use_of(&claim, before, now);
        // A host that was cut off for long still learns that it was not the only one.
        let keep_ms = claim.used.keep_ms().map(|keep_ms| match way {
            Way::Shut => keep_ms,
            Way::Open => keep_ms.max(longest_ms),
        });
        let mut records = vec![NewRecord {
            place: place.clone(),
            record: Record::Use(record),
            keep_ms,
        }];
        let own = self.entry(&claim.door, claim.source).own.as_ref();
        let longer_ms = own.map_or(0, |own| own.until_ms);
        let is_own = own.is_some_and(|own| own.claim == Some(claim.id));
        let until_ms = claim.until_ms.max(longer_ms);
        let left_ms = until_ms.saturating_sub(now.boot_ms);
        if left_ms > 0 && (way == Way::Shut || is_own) {
            records.push(NewRecord {
                place: self.place_of(&claim.door, claim.source),
                record: Record::Grant(Grant {
                    until_ms: now.wall_ms.saturating_add(left_ms),
                    length_ms: left_ms,
                    ..grant
                }),
                keep_ms: Some(left_ms.saturating_add(SLACK_MS)),
            });
        }
        Some((records, R::replaces(found)))
    }
}
