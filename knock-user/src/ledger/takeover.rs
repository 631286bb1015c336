//! Grants and doors of before: another process's, or another configuration's.

use knock_common::{
    Address,
    access::Grant,
    layout::{DoorEntry, GrantKey},
};

use super::{Action, Ending, Holder, Ledger, NANOS_PER_MILLI};

/// A grant that another process gave or told, and that goes on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Adopted {
    /// For whom.
    pub source: Address,
    /// Number of the door.
    pub door: u16,
    /// When it ends, in milliseconds since boot.
    pub until_ms: u64,
}

impl Ledger {
    /// Takes in an entry of the allow map from before: it was told and its command was run, and if
    /// it has ended, that was not. What is to be told is returned if it goes on.
    pub fn adopt(&mut self, key: GrantKey, grant: Grant, now_ms: u64) -> Option<Adopted> {
        let Grant { until_ms, door } = grant;
        let was_known = self.openings.contains_key(&(key.source, door));
        if !self.knows(door) || was_known {
            // Its own event, or another of its entries, was taken in before.
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

    /// Goes on with the doors of another configuration: what was opened by a door that is no more
    /// is closed.
    pub fn set_doors(&mut self, doors: Vec<DoorEntry>, now_ms: u64) -> Vec<Action> {
        self.doors = doors;
        let holders: Vec<Holder> = self.openings.keys().copied().collect();
        let mut actions = Vec::new();
        for holder in holders {
            let (source, door) = holder;
            if self.knows(door) {
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
