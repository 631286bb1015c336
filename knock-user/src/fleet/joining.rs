//! How a host follows the engine, and how it comes back.
//!
//! Records that arrive before this host is up to date are collected. Then revocations come before
//! grants, so that nothing opens for a moment that was revoked meanwhile, and before what this host
//! gave itself is written.

use std::mem;

use super::{
    action::FleetAction,
    group::Group,
    lockouts::Lockout,
    phase::{Batch, List, Phase},
    record::{Place, Record, Rule},
    times::Now,
};

impl<R: Rule> Group<R> {
    /// Records that no member of the engine is watched. What is open stays open.
    pub fn lost(&mut self) {
        if self.phase.is_following() {
            self.phase = Phase::default();
        }
    }

    /// Records that the process that writes to the engine started again: no answer to an earlier write
    /// will come.
    pub fn restarted(&mut self) {
        self.phase = Phase::default();
        self.outbox.restart();
        self.claims.restart();
        self.hosts.restart();
        self.rollout.linked_again();
    }

    /// Begins to collect a list; `is_other` if the engine is known to have another history.
    pub fn list(&mut self, cluster: &str, is_other: bool) {
        self.phase = Phase::Collecting(Batch {
            list: Some(List {
                cluster: cluster.to_owned(),
                is_other,
            }),
            ..Batch::default()
        });
    }

    /// Takes a record under a key of the engine; none if it can't be read.
    pub fn record(
        &mut self,
        key: &str,
        record: Option<(Place, Record)>,
        revision: u64,
        now: Now,
    ) -> Vec<FleetAction> {
        match &record {
            Some((place, Record::Use(_))) => self.claims.note(key, place),
            Some((Place::Presence { host }, _)) => self.hosts.note(key, host),
            Some((_, Record::Grant(_) | Record::Revocation(_)))
            | Some((_, Record::Presence(_) | Record::Lockout(_) | Record::Shared(_)))
            | None => {}
        }
        if let Phase::Collecting(batch) = &mut self.phase {
            batch.keys.insert(key.to_owned(), revision);
            batch
                .records
                .extend(record.map(|(place, record)| (place, record, revision)));
            return Vec::new();
        }
        self.history.note(key, revision);
        let Some((place, record)) = record else {
            return Vec::new();
        };
        let kind = place.clone();
        let mut actions = self.take(place, record, revision, true, now);
        match &kind {
            Place::Grant { door, source, .. } => {
                actions.extend(self.settle(&(door.clone(), *source), now));
            }
            Place::Revocation { .. } => actions.extend(self.settle_revoked(&kind, now)),
            Place::Line { .. }
            | Place::Once { .. }
            | Place::Presence { .. }
            | Place::Lockout { .. }
            | Place::Shared => {}
        }
        actions.extend(self.advance(now));
        actions
    }

    /// Records that a key was deleted. That changes nothing: what is open ends by its own time, and
    /// only a revocation ends it earlier. What was used here is written again.
    pub fn deleted(&mut self, key: &str, now: Now) -> Vec<FleetAction> {
        match &mut self.phase {
            Phase::Collecting(batch) => drop(batch.keys.remove(key)),
            Phase::Following => self.history.forget(key),
        }
        self.hosts.deleted(key, now.boot_ms);
        let Some(place) = self.claims.deleted(key) else {
            return Vec::new();
        };
        self.write_use_if_missing(place, now);
        self.advance(now)
    }

    /// Ends the list.
    pub fn listed(&mut self, now: Now) -> Vec<FleetAction> {
        match &self.phase {
            Phase::Collecting(Batch { list: Some(_), .. }) => self.catch_up(now),
            Phase::Collecting(Batch { list: None, .. }) | Phase::Following => Vec::new(),
        }
    }

    /// Records that the engine was reached at a moment of the boot clock, and that everything that it
    /// had then was reported.
    pub fn current(&mut self, at_ms: u64, now: Now) -> Vec<FleetAction> {
        let mut actions = match &self.phase {
            Phase::Collecting(Batch { list: Some(_), .. }) => return Vec::new(),
            Phase::Collecting(Batch { list: None, .. }) => self.catch_up(now),
            Phase::Following => Vec::new(),
        };
        self.history.apply(now.boot_ms);
        // The engine was not reached in the future.
        let at_ms = at_ms.min(now.boot_ms);
        self.in_sync_ms = self.in_sync_ms.max(Some(at_ms));
        let turn = self.rollout.in_sync(at_ms);
        actions.extend(self.take_turn(turn));
        actions.extend(self.advance(now));
        actions
    }

    /// Applies what was collected.
    fn catch_up(&mut self, now: Now) -> Vec<FleetAction> {
        let Phase::Collecting(batch) = mem::replace(&mut self.phase, Phase::Following) else {
            return Vec::new();
        };
        match batch.list {
            Some(list) => {
                if self
                    .history
                    .take_list(&list.cluster, list.is_other, batch.keys)
                {
                    self.begin_history();
                }
                self.claims.list();
                self.hosts.list(now.boot_ms);
            }
            None => {
                for (key, revision) in &batch.keys {
                    self.history.note(key, *revision);
                }
            }
        }
        let is_revocation = |(place, ..): &(Place, _, _)| matches!(place, Place::Revocation { .. });
        let (revocations, others): (Vec<_>, Vec<_>) =
            batch.records.into_iter().partition(is_revocation);
        for (place, record, revision) in revocations {
            self.take(place, record, revision, false, now);
        }
        // A newer grant of a host replaces an older one, which may have been revoked before that.
        let mut actions = self.settle_known(now);
        for (place, record, revision) in others {
            actions.extend(self.take(place, record, revision, false, now));
        }
        self.recognise_adopted();
        // A claim that was won opens its door as a knock does, not as the grant of a host.
        actions.extend(self.settle_claims(now));
        actions.extend(self.settle_all(now));
        self.write_missing(now);
        self.history.apply(now.boot_ms);
        actions.extend(self.advance(now));
        actions
    }

    /// Forgets what revisions meant: the engine counts another history. Grants know revocations by
    /// their ids from now on.
    fn begin_history(&mut self) {
        for entry in self.entries.values_mut() {
            let received = entry.received.values_mut();
            for received in received {
                received.grant.seen = 0;
                received.revision = 0;
            }
            if let Some(own) = &mut entry.own {
                own.grant.seen = 0;
                own.revision = None;
            }
        }
        self.revocations.other_history();
    }

    /// Takes a record; `is_live` if it was written just now.
    fn take(
        &mut self,
        place: Place,
        record: Record,
        revision: u64,
        is_live: bool,
        now: Now,
    ) -> Vec<FleetAction> {
        match (place, record) {
            (Place::Grant { host, .. }, Record::Grant(grant)) => {
                self.take_grant(host, grant, revision, now);
            }
            (Place::Revocation { .. }, Record::Revocation(revocation)) => {
                self.take_revocation(revocation, revision, now);
            }
            (Place::Line { .. } | Place::Once { .. }, Record::Use(record)) => {
                return self.take_use(record, revision, now);
            }
            (Place::Presence { host }, Record::Presence(presence)) => {
                self.hosts.take(&host, presence, is_live, now);
            }
            (Place::Lockout { .. }, Record::Lockout(lockout)) => {
                return self.take_lockout(lockout, now);
            }
            (Place::Shared, Record::Shared(config)) => {
                return self.take_shared(config, revision);
            }
            // A record in a place of another kind is unreadable.
            (
                _,
                Record::Shared(_)
                | Record::Grant(_)
                | Record::Revocation(_)
                | Record::Use(_)
                | Record::Presence(_)
                | Record::Lockout(_),
            ) => {}
        }
        Vec::new()
    }

    fn take_lockout(&mut self, lockout: Lockout, now: Now) -> Vec<FleetAction> {
        let longest_ms = self.member.longest_ms;
        if lockout.host == self.member.host {
            return Vec::new();
        }
        let until_ms = self.lockouts.take(&lockout, longest_ms, now);
        let lock_out = until_ms.map(|until_ms| FleetAction::LockOut {
            source: lockout.source,
            until_ms,
            host: lockout.host,
        });
        lock_out.into_iter().collect()
    }
}
