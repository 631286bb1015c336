//! Takes over grants of a previous process or configuration.

use knock_common::{
    Address,
    grant::Grant,
    layout::{DoorEntry, GrantKey},
};

use super::{
    action::{Action, Ending},
    openings::{Holder, Ledger, NANOS_PER_MILLI},
};

/// A grant of a previous process that continues.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Adopted {
    /// The source.
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
        if !self.has_door(door) || was_known {
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

    /// Switches to the doors of a new configuration: openings of removed doors are closed.
    pub fn set_doors(&mut self, doors: Vec<DoorEntry>, now_ms: u64) -> Vec<Action> {
        self.doors = doors;
        let holders: Vec<Holder> = self.openings.keys().copied().collect();
        let mut actions = Vec::new();
        for holder in holders {
            let (source, door) = holder;
            if self.has_door(door) {
                let keys = self.keys_of(source, door);
                if let Some(opening) = self.openings.get_mut(&holder) {
                    opening.keys = keys;
                }
            } else {
                let at_ns = now_ms.saturating_mul(NANOS_PER_MILLI);
                actions.extend(self.close(holder, at_ns, Ending::Removed, now_ms));
            }
        }
        actions
    }
}
