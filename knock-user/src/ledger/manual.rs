//! Grants that a user gives and revokes by hand.
//!
//! The caller writes the allow map first, as the ledger requests, and informs the ledger after
//! that. The kernel side gives grants by compare-and-exchange and user space can't: a grant to the
//! same source in the microsecond between the reading and the writing of an entry is lost.

use std::collections::BTreeSet;

use knock_common::{
    Address, GrantPrefix,
    grant::Grant,
    layout::GrantKey,
    time::{NANOS_PER_MILLI, SKEW_MS},
};

use super::{
    action::{By, Ending, LedgerAction},
    openings::{End, Giver, Holder, Ledger},
};

/// A door that is open for a source.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Open {
    /// The source, or the first address of its prefix.
    pub source: Address,
    /// The prefixes that grants of the door cover.
    pub prefix: GrantPrefix,
    /// The number of the door.
    pub door: u16,
    /// When it ends, in milliseconds since boot.
    pub until_ms: u64,
    /// When it was last given, in milliseconds since boot.
    pub given_ms: u64,
    /// The giver; none if that is unknown, as after a restart.
    pub giver: Option<Giver>,
}

/// The writes that end grants of a source.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Revocation {
    /// The entries to write into the allow map unconditionally.
    pub write: Vec<(GrantKey, Grant)>,
    /// The numbers of the doors that this closes.
    pub doors: BTreeSet<u16>,
}

impl Ledger {
    /// Returns the open doors, by source and door.
    pub fn open(&self) -> impl Iterator<Item = Open> {
        self.openings.iter().map(|(&(source, door), opening)| Open {
            source,
            prefix: self.prefix_of(door),
            door,
            until_ms: opening.until_ms,
            given_ms: opening.given_ns / NANOS_PER_MILLI,
            giver: opening.giver,
        })
    }

    /// Returns until when a door is open for a source, in milliseconds since boot, if it is.
    pub fn until_ms(&self, source: Address, door: u16) -> Option<u64> {
        let source = self.prefix_of(door).first_of(source);
        self.openings
            .get(&(source, door))
            .map(|opening| opening.until_ms)
    }

    /// Returns when the grant of a source for an open door was last given, in milliseconds since boot.
    pub fn given_ms(&self, source: Address, door: u16) -> Option<u64> {
        let source = self.prefix_of(door).first_of(source);
        let opening = self.openings.get(&(source, door))?;
        Some(opening.given_ns / NANOS_PER_MILLI)
    }

    /// Returns when a source's grant for a door ended, in milliseconds since boot, if that was in
    /// the last few seconds.
    pub fn ended_ms(&self, source: Address, door: u16, now_ms: u64) -> Option<u64> {
        let source = self.prefix_of(door).first_of(source);
        let end = self.ended.find(&(source, door), now_ms)?;
        Some(end.at_ns / NANOS_PER_MILLI)
    }

    /// Returns the entries of the allow map that grant a door to a source; each replaces an entry
    /// that ends earlier. None if the door gives no grants.
    pub fn entries_of(&self, source: Address, door: u16) -> Vec<GrantKey> {
        let closes = self.doors.get(usize::from(door));
        if closes.is_none_or(|door| door.closes != 0) {
            return Vec::new();
        }
        self.keys_of(source, door)
    }

    /// Records a grant by hand, or of another host, that was written to the map.
    pub fn granted(
        &mut self,
        source: Address,
        grant: Grant,
        giver: By,
        now_ms: u64,
    ) -> Vec<LedgerAction> {
        let given_ns = now_ms.saturating_mul(NANOS_PER_MILLI);
        let mut action = self.extend(source, grant, given_ns);
        if let Some(LedgerAction::Opened { by, .. } | LedgerAction::Refreshed { by, .. }) =
            &mut action
        {
            *by = Some(giver);
            let source = self.prefix_of(grant.door).first_of(source);
            if let Some(opening) = self.openings.get_mut(&(source, grant.door)) {
                opening.giver = Some(giver.into());
            }
        }
        action.into_iter().collect()
    }

    /// Returns how to end the grants that cover a source, for one door or for all; `entries` are those of the
    /// allow map.
    ///
    /// If another door grants the port too, that grant remains.
    pub fn revoke(
        &self,
        source: Address,
        door: Option<u16>,
        entries: &[(GrantKey, Grant)],
        now_ms: u64,
    ) -> Revocation {
        let is_meant = |number: u16| door.is_none_or(|door| door == number);
        let mut revocation = Revocation::default();
        let holders = self.holders_of(source).into_iter().map(|(_, door)| door);
        revocation
            .doors
            .extend(holders.filter(|&door| is_meant(door)));
        for &(key, grant) in entries {
            let is_valid = now_ms < grant.until_ms;
            let is_covered = self.prefix_of(grant.door).covers(key.source, source);
            if !is_covered || !is_valid || !is_meant(grant.door) {
                continue;
            }
            revocation.doors.insert(grant.door);
            let stays = self.longest(key, |door| !is_meant(door), now_ms);
            let over = Grant {
                // The kernel side does the same, since clocks of other CPUs may be behind.
                until_ms: now_ms.saturating_sub(SKEW_MS),
                ..grant
            };
            revocation.write.push((key, stays.unwrap_or(over)));
        }
        revocation
    }

    /// Records that these entries of a source were removed to make room.
    pub fn removed(&mut self, keys: &[GrantKey], now_ms: u64) -> Vec<LedgerAction> {
        let at_ns = now_ms.saturating_mul(NANOS_PER_MILLI);
        self.revoke_entries(keys, at_ns, Ending::Removed, now_ms)
    }

    /// Records that a user or another host revoked these grants, and that the map was written.
    pub fn revoked(
        &mut self,
        source: Address,
        revocation: &Revocation,
        by: By,
        now_ms: u64,
    ) -> Vec<LedgerAction> {
        let at_ns = now_ms.saturating_mul(NANOS_PER_MILLI);
        let mut actions = Vec::new();
        for &door in &revocation.doors {
            let holder = (self.prefix_of(door).first_of(source), door);
            let ending = Ending::Revoked { by };
            match self.close(holder, at_ns, ending, now_ms) {
                Some(closed) => actions.push(closed),
                // Its event has not been received yet, and must not be reported later.
                None => {
                    let end = End {
                        at_ns,
                        early: true,
                        by_event: false,
                    };
                    self.ended.note(holder, end, now_ms);
                }
            }
        }
        for &(key, grant) in &revocation.write {
            self.recheck_later(key, grant.until_ms);
        }
        actions
    }

    /// Returns the grant under a key that ends last, of the open doors that `counts` accepts.
    fn longest(&self, key: GrantKey, counts: impl Fn(u16) -> bool, now_ms: u64) -> Option<Grant> {
        let holders = self.holders(key.source).into_iter();
        let grants = holders
            .filter(|&(_, door)| counts(door))
            .filter_map(|holder: Holder| {
                let (source, door) = holder;
                let until_ms = self.openings.get(&holder)?.until_ms;
                let is_valid = now_ms < until_ms && self.keys_of(source, door).contains(&key);
                is_valid.then_some(Grant { until_ms, door })
            });
        grants.max_by_key(|grant| grant.until_ms)
    }
}
