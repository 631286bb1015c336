//! Takes over grants of a previous process or configuration.

use std::collections::HashSet;

use knock_common::{
    Address, GrantPrefix,
    grant::Grant,
    layout::{DoorEntry, GrantKey},
    time::NANOS_PER_MILLI,
};

use super::{
    action::{Ending, LedgerAction},
    openings::{Holder, Ledger, prefixes_of},
};

/// A grant of a previous process that continues.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Adopted {
    /// The source, or the first address of its prefix.
    pub source: Address,
    /// The number of the door.
    pub door: u16,
    /// When it ends, in milliseconds since boot.
    pub until_ms: u64,
}

impl Ledger {
    /// Takes over an entry of the allow map from a previous process, which reported its opening and
    /// ran the command, but not its end. Returns the grant to report if it continues.
    pub fn adopt(&mut self, key: GrantKey, grant: Grant, now_ms: u64) -> Option<Adopted> {
        let Grant { until_ms, door } = grant;
        let was_known = self.openings.contains_key(&(key.source, door));
        if !self.is_of_door(key, door) || was_known {
            // Its event, or another of its entries, was processed before.
            self.recheck_later(key, until_ms);
            return None;
        }
        let given_ns = self.given_ns(grant, now_ms);
        self.extend(key.source, grant, given_ns)?;
        (now_ms < until_ms).then_some(Adopted {
            source: key.source,
            door,
            until_ms,
        })
    }

    /// Switches to the doors of a new configuration: openings of removed doors are closed, and so are those that would
    /// be narrower. Others become as wide as the grants of their door are now.
    pub fn set_doors(&mut self, doors: Vec<DoorEntry>, now_ms: u64) -> Vec<LedgerAction> {
        self.prefixes = prefixes_of(&doors);
        let before = std::mem::replace(&mut self.doors, doors);
        let holders: Vec<Holder> = self.openings.keys().copied().collect();
        let mut actions = Vec::new();
        for holder in holders {
            let (source, door) = holder;
            let old = before.get(usize::from(door));
            let old = old.map_or(GrantPrefix::SINGLE, |door| door.grant_prefix);
            let is_narrower = self.prefix_of(door).bits_for(source) > old.bits_for(source);
            let ending = match self.has_door(door) {
                false => Ending::Removed,
                true if is_narrower => Ending::Narrowed,
                true => {
                    self.widen(holder);
                    continue;
                }
            };
            let at_ns = now_ms.saturating_mul(NANOS_PER_MILLI);
            actions.extend(self.close(holder, at_ns, ending, now_ms));
        }
        actions
    }

    /// Closes the openings that have no entry left in the allow map, whose keys are `held`: after a change, what a
    /// closing sequence left of a grant may have none.
    pub fn close_without_entries(
        &mut self,
        held: &HashSet<GrantKey>,
        now_ms: u64,
    ) -> Vec<LedgerAction> {
        let lost = self.openings.iter().filter(|(_, opening)| {
            let mut keys = opening.keys.iter();
            now_ms < opening.until_ms
                && !opening.keys.is_empty()
                && !keys.any(|key| held.contains(key))
        });
        let lost: Vec<Holder> = lost.map(|(&holder, _)| holder).collect();
        let at_ns = now_ms.saturating_mul(NANOS_PER_MILLI);
        let closed = lost.into_iter();
        closed
            .filter_map(|holder| self.close(holder, at_ns, Ending::Removed, now_ms))
            .collect()
    }

    /// Gives an opening the prefix and the entries of its door; of several that become one, the one that ends last
    /// stays.
    fn widen(&mut self, holder: Holder) {
        let (source, door) = holder;
        let wide = (self.prefix_of(door).first_of(source), door);
        let Some(mut opening) = self.openings.remove(&holder) else {
            return;
        };
        opening.keys = self.keys_of(source, door);
        self.deadlines.remove(&(opening.deadline_ms, holder));
        if let Some(other) = self.openings.remove(&wide) {
            self.deadlines.remove(&(other.deadline_ms, wide));
            if opening.until_ms < other.until_ms {
                opening = other;
            }
        }
        self.deadlines.insert((opening.deadline_ms, wide));
        self.openings.insert(wide, opening);
    }
}
