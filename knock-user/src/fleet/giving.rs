//! What a host gives, uses and revokes.

use std::collections::BTreeMap;

use knock_common::GrantPrefix;

use super::{
    action::FleetAction,
    claims::{Pending, Way},
    entry::Own,
    group::Group,
    presence::Facts,
    record::{Grant, Place, Revocation, Rule},
    signed::{AdminPublic, SharedConfig},
    times::Now,
    uses::{Claim, Denial, Use, UseRecord, UsedBy},
};
use crate::model::prefix::Prefix;

impl<R: Rule> Group<R> {
    /// Takes over a grant that the allow map had when the daemon started: call it before the engine
    /// is reached. What is known of it comes from the engine.
    pub fn adopt(&mut self, door: &str, source: Prefix, until_ms: u64, now: Now) {
        let grant = Grant {
            door: door.to_owned(),
            source,
            given_ms: now.wall_ms,
            until_ms: now.wall_of(until_ms),
            length_ms: until_ms.saturating_sub(now.boot_ms),
            seen: 0,
            knows: Vec::new(),
            by: None,
        };
        let entry = self.entry(door, source);
        entry.open_ms = entry.open_ms.max(until_ms);
        // This host knows more of it than of one that it finds.
        if entry.own.as_ref().is_some_and(|own| !own.is_adopted) {
            entry.adopted_ms = Some(until_ms);
            return;
        }
        entry.own = Some(Own {
            is_adopted: true,
            ..Own::new(grant, until_ms)
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
        let entry = self.entry(door, source);
        // What is still open was not revoked by anything that this grant has seen.
        let longer_ms = entry.own.as_ref().map_or(0, |own| own.until_ms);
        let until_ms = until_ms.max(longer_ms);
        entry.open_ms = entry.open_ms.max(until_ms);
        let grant = self.grant_at(door, source, given_ms, until_ms, by, now);
        self.is_unsaved |= !grant.knows.is_empty();
        self.entry(door, source).own = Some(Own::new(grant, until_ms));
        self.outbox.add(self.place_of(door, source));
        let mut actions = self.settle(&(door.to_owned(), source), now);
        actions.extend(self.advance(now));
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
        self.hosts.confirm(&[id]);
        self.is_unsaved = true;
        self.revocations.make(revocation, now.boot_ms, until_ms);
        self.outbox.add(place.clone());
        let mut actions = self.settle_revoked(&place, now);
        actions.extend(self.advance(now));
        actions
    }

    /// Claims a use for a door that stays shut until the claim is decided. The answer is an action:
    /// `Claimed` or `Denied`.
    pub fn claim(&mut self, claim: Claim, now: Now) -> Vec<FleetAction> {
        if self.good_until_ms() <= now.boot_ms {
            return vec![FleetAction::Denied {
                claim,
                because: Denial::CutOff,
            }];
        }
        let grant = self.grant_of(&claim, now);
        self.begin(claim, Way::Shut, grant, now)
    }

    /// Records a use of a door that is open already, instead of [`Group::given`]. If others used it
    /// before, `UsedTwice` follows, as soon as the engine is reached.
    pub fn used(&mut self, claim: Claim, now: Now) -> Vec<FleetAction> {
        let grant = self.grant_of(&claim, now);
        self.is_unsaved = true;
        let entry = self.entry(&claim.door, claim.source);
        let longer_ms = entry.own.as_ref().map_or(0, |own| own.until_ms);
        let until_ms = claim.until_ms.max(longer_ms);
        entry.open_ms = entry.open_ms.max(until_ms);
        entry.own = Some(Own {
            claim: Some(claim.id),
            ..Own::new(grant.clone(), until_ms)
        });
        let key = (claim.door.clone(), claim.source);
        let mut actions = self.begin(claim, Way::Open, grant, now);
        actions.extend(self.settle(&key, now));
        actions
    }

    /// Takes over what a file of this host had as used when the daemon started: its highest line. `id` is
    /// random.
    pub fn spent(&mut self, used: Use, id: u64, now: Now) -> Vec<FleetAction> {
        let place = Place::of_use(&used);
        self.claims.spent(UseRecord {
            used,
            id,
            by: UsedBy {
                host: self.member.host.clone(),
                source: None,
            },
            at_ms: now.wall_ms,
            before: Vec::new(),
        });
        self.outbox.add(place);
        self.advance(now)
    }

    /// Records that a source was locked out here until then, in milliseconds since boot: it is locked out in
    /// the whole group.
    pub fn locked_out(&mut self, source: Prefix, until_ms: u64, now: Now) -> Vec<FleetAction> {
        if self.lockouts.begin(source, until_ms) {
            self.outbox.add(Place::Lockout { source });
        }
        self.advance(now)
    }

    /// Records what this host reports about itself to the others.
    pub fn describe(&mut self, facts: Facts, now: Now) -> Vec<FleetAction> {
        self.hosts.describe(facts);
        self.advance(now)
    }

    /// Sets who signs shared configurations for the group of this name, and the number of the one that is in
    /// force; 0 for none.
    pub fn trust(&mut self, admin: AdminPublic, group: &str, applied: u64) {
        self.rollout.trust(admin, group, applied);
    }

    /// Records whether a shared configuration was put in force on trial, or why not.
    pub fn adopted(
        &mut self,
        number: u64,
        result: Result<(), String>,
        now: Now,
    ) -> Vec<FleetAction> {
        self.rollout.adopted(number, result, now.boot_ms);
        self.is_unsaved = true;
        self.advance(now)
    }

    /// Writes a shared configuration for the group, unless the group has one with its number or a higher one.
    pub fn push(&mut self, config: SharedConfig, now: Now) -> Vec<FleetAction> {
        self.outgoing = Some(config);
        self.outbox.add(Place::Shared);
        self.advance(now)
    }

    /// Records what grants of the doors of the group cover here.
    pub fn set_doors(&mut self, doors: BTreeMap<String, GrantPrefix>) {
        self.doors = Some(doors);
    }

    /// Forgets what has ended, and gives up claims to which no answer came. The kernel side ends grants
    /// by itself.
    pub fn expire(&mut self, now: Now) -> Vec<FleetAction> {
        self.revocations.expire(now.boot_ms);
        self.entries.retain(|_, entry| entry.expire(now.boot_ms));
        self.claims.expire(now.boot_ms);
        self.lockouts.expire(now.boot_ms);
        self.hosts.expire(self.member.longest_ms, now.boot_ms);
        let mut actions = self.settle_claims(now);
        let turn = self.rollout.time_out(now.boot_ms);
        actions.extend(self.take_turn(turn));
        actions
    }

    fn begin(&mut self, claim: Claim, way: Way, grant: Grant, now: Now) -> Vec<FleetAction> {
        self.outbox.add(Place::of_use(&claim.used));
        self.claims.add(Pending {
            gives_up_ms: claim.at_ms.saturating_add(self.member.grace_ms),
            claim,
            way,
            grant,
            in_flight: None,
        });
        self.advance(now)
    }
}
