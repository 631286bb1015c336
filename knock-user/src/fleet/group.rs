//! A group as one of its hosts knows it.

use std::collections::BTreeMap;

use super::{
    action::{FleetAction, Origin},
    entry::{Change, Entry, Own, Received},
    history::History,
    outbox::Outbox,
    phase::Phase,
    record::{ByKnowledge, Grant, Place, Record, Revocation, Rule},
    revocations::Revocations,
    times::Now,
};
use crate::model::prefix::Prefix;

/// How long the engine keeps a record after the end of what it is about, in milliseconds.
const SLACK_MS: u64 = 60_000;
/// How far the ends of one grant may differ, by rounding and slewed clocks, in milliseconds.
const TOLERANCE_MS: u64 = 2_000;

/// This host as a member of a group.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Member {
    /// Its name, which no other host of the group has.
    pub host: String,
    /// No grant of another host lasts longer here, in milliseconds.
    pub longest_ms: u64,
    /// For how long the engine may be silent before this host counts as cut off, in milliseconds.
    pub grace_ms: u64,
}

/// What a host knows of a group.
///
/// Methods return the actions that their caller carries out before it calls the next one.
#[derive(Clone, Debug)]
pub struct Group<R = ByKnowledge> {
    pub(super) member: Member,
    pub(super) entries: BTreeMap<(String, Prefix), Entry>,
    pub(super) revocations: Revocations<R>,
    pub(super) history: History,
    pub(super) phase: Phase,
    pub(super) outbox: Outbox,
    /// When the engine last answered, in milliseconds since boot; none before the first time.
    pub(super) in_sync_ms: Option<u64>,
}

impl<R: Rule> Group<R> {
    /// Makes the state of a host that has not reached the engine yet.
    pub fn new(member: Member) -> Self {
        Self {
            member,
            entries: BTreeMap::new(),
            revocations: Revocations::default(),
            history: History::default(),
            phase: Phase::default(),
            outbox: Outbox::default(),
            in_sync_ms: None,
        }
    }

    /// Takes over a grant that the allow map had when the daemon started: call it before the engine
    /// is reached. What is known of it comes from the engine.
    pub fn adopt(&mut self, door: &str, source: Prefix, until_ms: u64, now: Now) {
        let entry = self.entry(door, source);
        entry.open_ms = entry.open_ms.max(until_ms);
        entry.own = Some(Own {
            grant: Grant {
                door: door.to_owned(),
                source,
                given_ms: now.wall_ms,
                until_ms: now.wall_of(until_ms),
                length_ms: until_ms.saturating_sub(now.boot_ms),
                seen: 0,
                knows: Vec::new(),
                by: None,
            },
            until_ms,
            revision: None,
            in_flight: None,
            is_adopted: true,
        });
    }

    /// Records a grant that was given here at `given_ms`, both times in milliseconds since boot; `by`
    /// is the user id that gave it by hand.
    pub fn given(
        &mut self,
        door: &str,
        source: Prefix,
        given_ms: u64,
        until_ms: u64,
        by: Option<u32>,
        now: Now,
    ) -> Vec<FleetAction> {
        let seen = self.history.applied.at(given_ms);
        let knows = self.revocations.known_at(door, source, given_ms);
        let entry = self.entry(door, source);
        // What is still open was not revoked by anything that this grant has seen.
        let longer_ms = entry.own.as_ref().map_or(0, |own| own.until_ms);
        let until_ms = until_ms.max(longer_ms);
        entry.open_ms = entry.open_ms.max(until_ms);
        entry.own = Some(Own {
            grant: Grant {
                door: door.to_owned(),
                source,
                given_ms: now.wall_of(given_ms),
                until_ms: now.wall_of(until_ms),
                length_ms: until_ms.saturating_sub(now.boot_ms),
                seen,
                knows,
                by,
            },
            until_ms,
            revision: None,
            in_flight: None,
            is_adopted: false,
        });
        self.outbox.add(Place::Grant {
            host: self.member.host.clone(),
            door: door.to_owned(),
            source,
        });
        let mut actions = self.settle(&(door.to_owned(), source), now);
        actions.extend(self.writes(now));
        actions
    }

    /// Ends grants of a source in the whole group, for a door or for all; `id` is random. Those that
    /// are given from now on know of it.
    pub fn revoke(
        &mut self,
        door: Option<&str>,
        source: Prefix,
        id: u64,
        by: Option<u32>,
        now: Now,
    ) -> Vec<FleetAction> {
        let revocation = Revocation {
            door: door.map(str::to_owned),
            source,
            ids: vec![id],
            after: Vec::new(),
            at_ms: now.wall_ms,
            host: self.member.host.clone(),
            by,
        };
        let place = revocation.place();
        let until_ms = now.boot_ms.saturating_add(self.revocations_last_ms());
        self.revocations.make(revocation, now.boot_ms, until_ms);
        self.outbox.add(place);
        let mut actions = self.settle_all(now);
        actions.extend(self.writes(now));
        actions
    }

    /// Records the answer to a write: the revision, or none if it failed and has to be repeated.
    pub fn written(&mut self, id: u64, revision: Option<u64>, now: Now) -> Vec<FleetAction> {
        let Some(place) = self.outbox.ended(id) else {
            return Vec::new();
        };
        let Some(revision) = revision else {
            // With the next sign of life of the engine.
            self.outbox.add(place);
            return Vec::new();
        };
        if let Place::Grant { door, source, .. } = place
            && let Some(entry) = self.entries.get_mut(&(door, source))
            && let Some(own) = &mut entry.own
            && own.in_flight == Some(id)
        {
            own.revision = Some(revision);
        }
        self.writes(now)
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
        match found {
            Some(Record::Revocation(revocation)) if revocation.place() == place => {
                self.take_revocation(revocation, revision, now);
                actions.extend(self.settle_all(now));
            }
            Some(Record::Revocation(_) | Record::Grant(_)) | None => {
                self.revocations.found(&place, revision);
            }
        }
        self.outbox.add(place);
        actions.extend(self.writes(now));
        actions
    }

    /// Returns the doors that other hosts opened and that this host should have open, for the doors
    /// of a new configuration.
    pub fn open(&self, now: Now) -> Vec<FleetAction> {
        let open = self.entries.iter().filter_map(|((door, source), entry)| {
            let others = entry.received.iter();
            let counting = others
                .filter(|(_, received)| !received.is_revoked && received.until_ms > now.boot_ms);
            let (host, received) = counting.max_by_key(|(_, received)| received.until_ms)?;
            Some(FleetAction::Open {
                door: door.clone(),
                source: *source,
                until_ms: received.until_ms,
                by: Origin {
                    host: host.clone(),
                    user: received.grant.by,
                },
            })
        });
        open.collect()
    }

    /// Forgets what has ended. The kernel side ends grants by itself.
    pub fn expire(&mut self, now: Now) {
        self.revocations.expire(now.boot_ms);
        self.entries.retain(|_, entry| entry.expire(now.boot_ms));
    }

    /// Returns until when this host counts as in sync, in milliseconds since boot: 0 if it never was.
    pub fn good_until_ms(&self) -> u64 {
        let in_sync_ms = self.in_sync_ms;
        in_sync_ms.map_or(0, |at_ms| at_ms.saturating_add(self.member.grace_ms))
    }

    /// Returns how many records wait to be written.
    pub fn unwritten(&self) -> usize {
        self.outbox.len()
    }

    pub(super) fn entry(&mut self, door: &str, source: Prefix) -> &mut Entry {
        self.entries.entry((door.to_owned(), source)).or_default()
    }

    /// Returns for how long revocations matter, in milliseconds: a host that was cut off for the
    /// longest time of a grant may have given one for the same time, in ignorance.
    pub(super) fn revocations_last_ms(&self) -> u64 {
        self.member
            .longest_ms
            .saturating_mul(2)
            .saturating_add(SLACK_MS)
    }

    /// Applies a revocation that the engine has at a revision.
    pub(super) fn take_revocation(&mut self, revocation: Revocation, revision: u64, now: Now) {
        let place = revocation.place();
        let until_ms = now.boot_ms.saturating_add(self.revocations_last_ms());
        self.revocations
            .receive(revocation, revision, now.boot_ms, until_ms);
        if self.revocations.unwritten(&place).is_some() {
            self.outbox.add(place);
        }
    }

    /// Applies the grant of a host that the engine has at a revision.
    pub(super) fn take_grant(&mut self, host: String, grant: Grant, revision: u64, now: Now) {
        let mut until_ms = now.end_of(grant.until_ms, grant.length_ms, self.member.longest_ms);
        let mut is_revoked = false;
        let entry = self.entry(&grant.door, grant.source);
        if let Some(known) = entry.received.get(&host) {
            // A backup may have an older one: it is of the same host, so its clock compares them.
            let is_older = known.revision == 0 && known.grant.given_ms > grant.given_ms;
            if known.revision > revision || is_older {
                return;
            }
            // The same grant, listed again, does not last longer.
            if known.grant == grant {
                until_ms = until_ms.min(known.until_ms);
                is_revoked = known.is_revoked;
            }
        }
        let received = Received {
            grant,
            revision,
            until_ms,
            is_revoked,
        };
        entry.received.insert(host, received);
    }

    pub(super) fn settle_all(&mut self, now: Now) -> Vec<FleetAction> {
        let keys: Vec<_> = self.entries.keys().cloned().collect();
        keys.iter().flat_map(|key| self.settle(key, now)).collect()
    }

    /// Settles what was known before a list or the changes of an absence. What a restarted daemon
    /// found has to wait until it is known who gave it.
    pub(super) fn settle_known(&mut self, now: Now) -> Vec<FleetAction> {
        let is_known = |entry: &Entry| entry.own.as_ref().is_none_or(|own| !own.is_adopted);
        let known = self.entries.iter().filter(|(_, entry)| is_known(entry));
        let keys: Vec<_> = known.map(|(key, _)| key.clone()).collect();
        keys.iter().flat_map(|key| self.settle(key, now)).collect()
    }

    pub(super) fn settle(&mut self, key: &(String, Prefix), now: Now) -> Vec<FleetAction> {
        let Some(entry) = self.entries.get_mut(key) else {
            return Vec::new();
        };
        let (door, source) = key;
        let change = entry.settle(&self.revocations, &self.member.host, now.boot_ms);
        let open = |until_ms, host, user| FleetAction::Open {
            door: door.clone(),
            source: *source,
            until_ms,
            by: Origin { host, user },
        };
        match change {
            Change::None => Vec::new(),
            Change::Open {
                until_ms,
                host,
                user,
            } => vec![open(until_ms, host, user)],
            Change::Close {
                because,
                is_own,
                until_ms,
                host,
                user,
            } => {
                let by = Origin {
                    host: because.host,
                    user: because.by,
                };
                let close = FleetAction::Close {
                    door: door.clone(),
                    source: *source,
                    by,
                    is_own,
                };
                let again = (until_ms > now.boot_ms).then(|| open(until_ms, host, user));
                std::iter::once(close).chain(again).collect()
            }
        }
    }

    /// Returns the records to write, while this host follows the engine.
    pub(super) fn writes(&mut self, now: Now) -> Vec<FleetAction> {
        let mut puts = Vec::new();
        while self.phase.is_following()
            && let Some((id, place)) = self.outbox.next()
        {
            match self.record_of(&place, id, now) {
                Some((record, replaces, keep_ms)) => puts.push(FleetAction::Put {
                    id,
                    place,
                    record,
                    replaces,
                    keep_ms,
                }),
                // It has ended meanwhile.
                None => drop(self.outbox.ended(id)),
            }
        }
        puts
    }

    /// Returns the record of a place as it is now, what it replaces, and for how long the engine
    /// keeps it.
    fn record_of(
        &mut self,
        place: &Place,
        id: u64,
        now: Now,
    ) -> Option<(Record, Option<u64>, u64)> {
        match place {
            Place::Grant { door, source, .. } => {
                let entry = self.entries.get_mut(&(door.clone(), *source))?;
                let own = entry.own.as_mut()?;
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
                Some((Record::Grant(grant), None, left_ms.saturating_add(SLACK_MS)))
            }
            Place::Revocation { .. } => {
                // One that this host does not know must not be replaced.
                let unwritten = self.revocations.unwritten(place)?;
                let keep_ms = unwritten.until_ms.saturating_sub(now.boot_ms);
                let record = Record::Revocation(unwritten.latest.clone());
                Some((record, Some(unwritten.found), keep_ms))
            }
        }
    }

    /// Compares grants that a restarted daemon found with those of the engine.
    pub(super) fn recognise_adopted(&mut self) {
        for entry in self.entries.values_mut() {
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
    pub(super) fn write_missing(&mut self) {
        for place in self.revocations.all_unwritten() {
            self.outbox.add(place);
        }
        for ((door, source), entry) in &mut self.entries {
            let Some(own) = &mut entry.own else {
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
