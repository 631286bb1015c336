//! A group as one of its hosts knows it.

use std::collections::BTreeMap;

use knock_common::GrantPrefix;

use super::{
    action::FleetAction,
    claims::Claims,
    entry::{Change, Entry, Received},
    history::History,
    lockouts::Lockouts,
    outbox::Outbox,
    phase::Phase,
    presence::{Confirmed, HostState, Hosts},
    record::{ByKnowledge, Grant, Origin, Place, Revocation, Rule},
    revocations::Revocations,
    rollout::Rollout,
    signed::SharedConfig,
    times::Now,
};
use crate::model::prefix::Prefix;

/// How long the engine keeps a record after the end of what it is about, in milliseconds.
pub(super) const SLACK_MS: u64 = 60_000;

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
    pub(super) claims: Claims,
    pub(super) hosts: Hosts,
    pub(super) lockouts: Lockouts,
    pub(super) rollout: Rollout,
    /// A shared configuration that is to be written.
    pub(super) outgoing: Option<SharedConfig>,
    /// The revision of the one that the engine has; 0 for none.
    pub(super) shared_revision: u64,
    /// What grants of doors cover here; none if that is unknown.
    pub(super) doors: Option<BTreeMap<String, GrantPrefix>>,
    /// Whether something changed that has to be kept over a restart.
    pub(super) is_unsaved: bool,
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
            claims: Claims::default(),
            hosts: Hosts::default(),
            lockouts: Lockouts::default(),
            rollout: Rollout::default(),
            outgoing: None,
            shared_revision: 0,
            doors: None,
            is_unsaved: false,
            in_sync_ms: None,
        }
    }

    /// Returns the doors that other hosts opened and that this host should have open, for the doors
    /// of a new configuration.
    pub fn open(&self, now: Now) -> Vec<FleetAction> {
        let open = self.entries.iter().filter_map(|((door, source), entry)| {
            let others = entry.received.iter();
            let counting = others
                .filter(|(_, received)| !received.is_revoked && received.until_ms > now.boot_ms);
            let (host, received) = counting.max_by_key(|(_, received)| received.until_ms)?;
            if !self.covers(door, *source) {
                return None;
            }
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

    /// Returns until when this host counts as in sync, in milliseconds since boot: 0 if it never was.
    pub fn good_until_ms(&self) -> u64 {
        let in_sync_ms = self.in_sync_ms;
        in_sync_ms.map_or(0, |at_ms| at_ms.saturating_add(self.member.grace_ms))
    }

    /// Returns the hosts of the group, this one included once the engine has it.
    pub fn hosts(&self) -> Vec<HostState> {
        self.hosts.all()
    }

    /// Returns which hosts have applied a revocation by hand.
    pub fn confirmations(&self, id: u64) -> Confirmed {
        self.hosts.confirmations(id, &self.member.host)
    }

    /// Returns how many records wait to be written.
    pub fn unwritten(&self) -> usize {
        self.outbox.len()
    }

    pub(super) fn entry(&mut self, door: &str, source: Prefix) -> &mut Entry {
        self.entries.entry((door.to_owned(), source)).or_default()
    }

    /// Returns a grant of this host with what it knew at `given_ms`.
    pub(super) fn grant_at(
        &self,
        door: &str,
        source: Prefix,
        given_ms: u64,
        until_ms: u64,
        by: Option<u32>,
        now: Now,
    ) -> Grant {
        Grant {
            door: door.to_owned(),
            source,
            given_ms: now.wall_of(given_ms),
            until_ms: now.wall_of(until_ms),
            length_ms: until_ms.saturating_sub(now.boot_ms),
            seen: self.history.applied.at(given_ms),
            knows: self.revocations.known_at(door, source, given_ms),
            by,
        }
    }

    /// Returns the place of a grant of this host.
    pub(super) fn place_of(&self, door: &str, source: Prefix) -> Place {
        Place::Grant {
            host: self.member.host.clone(),
            door: door.to_owned(),
            source,
        }
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
        if revocation.by.is_some() {
            self.hosts.confirm(&revocation.ids);
        }
        self.is_unsaved = true;
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

    /// Settles what a revocation is about.
    pub(super) fn settle_revoked(&mut self, place: &Place, now: Now) -> Vec<FleetAction> {
        let Place::Revocation {
            door: of,
            source: revoked,
        } = place
        else {
            return Vec::new();
        };
        let is_about = |(door, source): &&(String, Prefix)| {
            let is_door = of.as_ref().is_none_or(|of| of == door);
            is_door && (revoked.contains(*source) || source.contains(*revoked))
        };
        let keys: Vec<_> = self.entries.keys().filter(is_about).cloned().collect();
        keys.iter().flat_map(|key| self.settle(key, now)).collect()
    }

    /// Returns whether grants of a door cover such a source here.
    pub(super) fn covers(&self, door: &str, source: Prefix) -> bool {
        let Some(doors) = &self.doors else {
            return true;
        };
        // A door that this host lacks opens nothing.
        doors.get(door).is_none_or(|grant_prefix| {
            Prefix::covered(source.address.into(), *grant_prefix) == source
        })
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
        self.settle_because(key, None, now)
    }

    /// Settles a door and a source; `used_by` is the host that used what opened it here, if another one
    /// did.
    pub(super) fn settle_because(
        &mut self,
        key: &(String, Prefix),
        used_by: Option<Origin>,
        now: Now,
    ) -> Vec<FleetAction> {
        let cuts = used_by.is_some();
        let covers = self.covers(&key.0, key.1);
        let Some(entry) = self.entries.get_mut(key) else {
            return Vec::new();
        };
        let (door, source) = key;
        let change = entry.settle(&self.revocations, &self.member.host, used_by, now.boot_ms);
        let open = |until_ms, host, user| FleetAction::Open {
            door: door.clone(),
            source: *source,
            until_ms,
            by: Origin { host, user },
        };
        match change {
            Change::Open { host, .. } if !covers => vec![FleetAction::Mismatch {
                door: door.clone(),
                source: *source,
                host,
            }],
            Change::Close { .. } if !covers => Vec::new(),
            Change::None => Vec::new(),
            Change::Open {
                until_ms,
                host,
                user,
            } => vec![open(until_ms, host, user)],
            Change::Close {
                by,
                is_own,
                until_ms,
                host,
                user,
            } => {
                let close = FleetAction::Close {
                    door: door.clone(),
                    source: *source,
                    by,
                    is_own,
                    cuts,
                };
                let again = (until_ms > now.boot_ms).then(|| open(until_ms, host, user));
                std::iter::once(close).chain(again).collect()
            }
        }
    }
}
