//! The known openings, and the steps that change them.

use std::collections::{BTreeMap, BTreeSet};

use knock_common::{
    Address, GrantPrefix,
    grant::Grant,
    layout::{ALLOW_MAX, DoorEntry, GrantKey},
    time::{NANOS_PER_MILLI, SKEW_MS},
};

use super::{
    action::{By, Ending, HostId, LedgerAction},
    recent::Recent,
};
use crate::compile::grant_keys;

/// The first address of what a grant covers, and the index of a door.
pub(super) type Holder = (Address, u16);
/// A [`GrantKey`] in an order: source, port group, target.
pub(super) type Entry = (Address, u16, u16);

/// The result of reading the allow map.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Lookup {
    /// The grant, which may have ended.
    Found(Grant),
    /// There is no entry.
    Absent,
    /// The entry could not be read.
    Failed,
}

/// The known openings.
#[derive(Debug)]
pub struct Ledger {
    pub(super) doors: Vec<DoorEntry>,
    /// The prefixes of the doors, each once.
    pub(super) prefixes: BTreeSet<GrantPrefix>,
    pub(super) openings: BTreeMap<Holder, Opening>,
    pub(super) deadlines: BTreeSet<(u64, Holder)>,
    /// Entries without an opening, and when to check them.
    pub(super) suspects: BTreeSet<(u64, Entry)>,
    /// Removed entries, with their ends in nanoseconds.
    pub(super) removed: Recent<GrantKey, u64>,
    /// Restored entries, with the times when they were given, in nanoseconds.
    pub(super) restored: Recent<GrantKey, (u64, Grant)>,
    pub(super) ended: Recent<Holder, End>,
    pub(super) untracked: u64,
}

/// The giver of a grant.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Giver {
    /// Knocks of the source.
    Knocks,
    /// A SPA packet of the user with this number.
    User(u16),
    /// The user with this id, by hand.
    Hand(u32),
    /// Another host of the group.
    Host(HostId),
}

impl From<By> for Giver {
    fn from(by: By) -> Self {
        match by {
            By::Hand(uid) => Self::Hand(uid),
            By::Host(host) => Self::Host(host),
        }
    }
}

/// A door that is open for a source.
#[derive(Debug)]
pub(super) struct Opening {
    pub(super) until_ms: u64,
    /// When to check it: at its end, or later if the map could not be read.
    pub(super) deadline_ms: u64,
    /// The time of the latest knock that gave it, in nanoseconds.
    pub(super) given_ns: u64,
    /// The giver; none if only the map shows that it was given.
    pub(super) giver: Option<Giver>,
    /// The entries that last as long as the opening.
    pub(super) keys: Vec<GrantKey>,
}

/// The way in which an opening ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct End {
    pub(super) at_ns: u64,
    /// Before its end.
    pub(super) early: bool,
    /// The event of a closing sequence was received.
    pub(super) by_event: bool,
}

impl Ledger {
    /// Creates an empty ledger for the doors of a configuration, by number; unused numbers have an
    /// empty door.
    pub fn new(doors: Vec<DoorEntry>) -> Self {
        Self {
            prefixes: prefixes_of(&doors),
            doors,
            openings: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            suspects: BTreeSet::new(),
            removed: Recent::new(),
            restored: Recent::new(),
            ended: Recent::new(),
            untracked: 0,
        }
    }

    /// Returns the openings: source, index of the door, end in milliseconds since boot.
    pub fn openings(&self) -> impl Iterator<Item = (Address, u16, u64)> {
        self.openings
            .iter()
            .map(|(&(source, door), opening)| (source, door, opening.until_ms))
    }

    /// Returns how many openings had no room; they were not reported, and their commands did not
    /// run.
    pub fn untracked(&self) -> u64 {
        self.untracked
    }

    pub(super) fn restore(
        &mut self,
        key: GrantKey,
        grant: Grant,
        given_ns: u64,
        now_ms: u64,
    ) -> LedgerAction {
        self.restored.note(key, (given_ns, grant), now_ms);
        LedgerAction::Restore { key, grant }
    }

    /// Returns when a grant in the map was given, as far as its end shows.
    pub(super) fn given_ns(&self, grant: Grant, now_ms: u64) -> u64 {
        let door = self.doors.get(usize::from(grant.door));
        let open_for_ms = door.map_or(0, |door| door.open_for_ms);
        let given_ms = grant.until_ms.saturating_sub(open_for_ms).min(now_ms);
        given_ms.saturating_mul(NANOS_PER_MILLI)
    }

    /// Opens a door, or extends the opening.
    pub(super) fn extend(
        &mut self,
        source: Address,
        grant: Grant,
        given_ns: u64,
    ) -> Option<LedgerAction> {
        let Grant { until_ms, door } = grant;
        let source = self.prefix_of(door).first_of(source);
        let holder = (source, door);
        let keys = self.keys_of(source, door);
        let Some(opening) = self.openings.get_mut(&holder) else {
            if self.openings.len() >= ALLOW_MAX as usize {
                self.untracked = self.untracked.saturating_add(1);
                return None;
            }
            self.deadlines.insert((until_ms, holder));
            let opening = Opening {
                until_ms,
                deadline_ms: until_ms,
                given_ns,
                giver: None,
                keys,
            };
            self.openings.insert(holder, opening);
            return Some(LedgerAction::Opened {
                source,
                door,
                until_ms,
                by: None,
            });
        };
        opening.given_ns = opening.given_ns.max(given_ns);
        if until_ms <= opening.until_ms {
            return None;
        }
        opening.keys = keys;
        opening.until_ms = until_ms;
        opening.giver = None;
        let old_ms = std::mem::replace(&mut opening.deadline_ms, until_ms);
        self.deadlines.remove(&(old_ms, holder));
        self.deadlines.insert((until_ms, holder));
        Some(LedgerAction::Refreshed {
            source,
            door,
            until_ms,
            by: None,
        })
    }

    pub(super) fn remove(
        &mut self,
        key: GrantKey,
        grant: Grant,
        end_ns: u64,
        now_ms: u64,
    ) -> LedgerAction {
        self.removed.note(key, end_ns, now_ms);
        LedgerAction::Remove { key, grant }
    }

    /// Removes entries that ended at `at_ns` from the openings that counted on them.
    ///
    /// An opening without entries is closed.
    pub(super) fn revoke_entries(
        &mut self,
        keys: &[GrantKey],
        at_ns: u64,
        ending: Ending,
        now_ms: u64,
    ) -> Vec<LedgerAction> {
        let Some(source) = keys.first().map(|key| key.source) else {
            return Vec::new();
        };
        // An event may be older than the grant; a value of the map is not. The clock of the CPU
        // that ended it may be behind that of the CPU that gave it.
        let is_old_news = matches!(ending, Ending::Sequence { by: Some(_) } | Ending::Packet);
        let latest_ns = at_ns.saturating_add(SKEW_MS * NANOS_PER_MILLI);
        let mut actions = Vec::new();
        for holder in self.holders(source) {
            let Some(opening) = self.openings.get_mut(&holder) else {
                continue;
            };
            let had_ended = opening.until_ms.saturating_mul(NANOS_PER_MILLI) <= at_ns;
            if had_ended || (is_old_news && opening.given_ns > latest_ns) {
                continue;
            }
            let count = opening.keys.len();
            opening.keys.retain(|key| !keys.contains(key));
            if opening.keys.is_empty() && count > 0 {
                actions.extend(self.close(holder, at_ns, ending, now_ms));
            }
        }
        actions
    }

    pub(super) fn close(
        &mut self,
        holder: Holder,
        at_ns: u64,
        ending: Ending,
        now_ms: u64,
    ) -> Option<LedgerAction> {
        let opening = self.openings.remove(&holder)?;
        self.deadlines.remove(&(opening.deadline_ms, holder));
        let early = ending != Ending::Expired;
        let end = End {
            at_ns,
            early,
            by_event: matches!(ending, Ending::Sequence { by: Some(_) } | Ending::Packet),
        };
        self.ended.note(holder, end, now_ms);
        let (source, door) = holder;
        Some(LedgerAction::Closed {
            source,
            door,
            ending,
        })
    }

    /// Schedules a check of an entry at its end.
    pub(super) fn recheck_later(&mut self, key: GrantKey, end_ms: u64) {
        let entry: Entry = (key.source, key.port_group, key.target_id);
        // A later sweep finds entries that had no room here.
        if self.suspects.len() < ALLOW_MAX as usize {
            self.suspects.insert((end_ms, entry));
        }
    }
    pub(super) fn has_door(&self, door: u16) -> bool {
        let door = self.doors.get(usize::from(door));
        door.is_some_and(|door| *door != DoorEntry::default())
    }

    /// Returns whether an entry belongs to a door of this configuration. One that a configuration with other ports or
    /// prefixes wrote belongs to none.
    pub(super) fn is_of_door(&self, key: GrantKey, door: u16) -> bool {
        self.has_door(door) && self.keys_of(key.source, door).contains(&key)
    }

    /// Returns the prefixes that the grants of a door cover.
    pub(super) fn prefix_of(&self, door: u16) -> GrantPrefix {
        let door = self.doors.get(usize::from(door));
        door.map_or(GrantPrefix::SINGLE, |door| door.grant_prefix)
    }

    pub(super) fn keys_of(&self, source: Address, door: u16) -> Vec<GrantKey> {
        let Some(door) = self.doors.get(usize::from(door)) else {
            return Vec::new();
        };
        grant_keys(door, source).collect()
    }

    /// Returns the openings that cover a source.
    pub(super) fn holders_of(&self, source: Address) -> Vec<Holder> {
        let covering = self.prefixes.iter().flat_map(|prefix| {
            let holders = self.holders(prefix.first_of(source)).into_iter();
            holders.filter(|&(_, door)| self.prefix_of(door) == *prefix)
        });
        covering.collect()
    }

    /// Returns the openings whose prefix begins at an address.
    pub(super) fn holders(&self, source: Address) -> Vec<Holder> {
        let range = self.openings.range((source, 0)..=(source, u16::MAX));
        range.map(|(&holder, _)| holder).collect()
    }
}

/// Returns the prefixes of doors, each once.
pub(super) fn prefixes_of(doors: &[DoorEntry]) -> BTreeSet<GrantPrefix> {
    doors.iter().map(|door| door.grant_prefix).collect()
}

/// The time after an end at which the final state of its entry is certain.
///
/// The kernel side's clock may be behind by [`SKEW_MS`], and a grant that it ends early gets an end
/// that is earlier by as much. After twice that time, a grant that it gives after a check of the
/// entry has a time later than [`settled_ns`], which distinguishes it from the ended one.
pub(super) const SETTLE_MS: u64 = 2 * SKEW_MS;

/// Returns whether an end has certainly passed.
pub(super) const fn is_over(until_ms: u64, now_ms: u64) -> bool {
    until_ms.saturating_add(SETTLE_MS) < now_ms
}

/// Returns the latest time at which a grant with the end `until_ms` in the map was given or ended.
pub(super) const fn settled_ns(until_ms: u64) -> u64 {
    until_ms
        .saturating_add(SKEW_MS)
        .saturating_mul(NANOS_PER_MILLI)
        .saturating_add(NANOS_PER_MILLI - 1)
}
