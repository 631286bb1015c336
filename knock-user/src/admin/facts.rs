//! Facts about an instance that several answers have.
//!
//! These are plain functions of plain data: a daemon has it in memory, and a client reads it from
//! pinned maps.

use std::collections::BTreeMap;

use knock_common::{
    GrantPrefix,
    access::Flow,
    grant,
    layout::{FlowKey, GrantKey},
};

use crate::{
    host::clock::Clock,
    kernel::registry::Registry,
    ledger::{Giver, Open},
    model::settings::Prefix,
};

/// A door, as answers have it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct DoorFacts {
    /// Its name.
    pub name: String,
    /// The ports that it opens or closes: `tcp/22`.
    pub ports: Vec<String>,
}

/// Doors by their numbers in the maps.
pub type Doors = BTreeMap<u16, DoorFacts>;

/// Returns the doors of a registry.
pub fn doors(registry: &Registry) -> Doors {
    let facts = registry.numbers.doors.iter().map(|(name, &number)| {
        let facts = DoorFacts {
            name: name.clone(),
            ports: registry.ports.get(name).cloned().unwrap_or_default(),
        };
        (number, facts)
    });
    facts.collect()
}

/// Returns how many connections, which are words of the map, are kept.
pub fn kept(flows: &[(FlowKey, u64)], idle_ms: [u64; 2], clock: Clock) -> usize {
    let is_kept = |(key, word): &&(FlowKey, u64)| {
        clock.now_ms < Flow::from_word(*word).until_ms(key.idle_ms(idle_ms))
    };
    flows.iter().filter(is_kept).count()
}

/// A grant.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct HeldGrant {
    /// The source that has it, or the prefix that it covers.
    pub source: Prefix,
    /// Number of the door.
    pub door: u16,
    /// When it ends, in milliseconds since boot.
    pub until_ms: u64,
    /// When it was given, in milliseconds since boot, and what gave it; `None` if that is unknown.
    pub given: Option<(u64, Giver)>,
}

impl From<Open> for HeldGrant {
    fn from(open: Open) -> Self {
        Self {
            source: Prefix::covered(open.source, open.prefix),
            door: open.door,
            until_ms: open.until_ms,
            given: open.giver.map(|giver| (open.given_ms, giver)),
        }
    }
}

impl HeldGrant {
    /// Returns the grant of an entry of the allow map; `prefixes` are those of port groups.
    pub fn of_entry(
        (key, grant): (GrantKey, grant::Grant),
        prefixes: &BTreeMap<u16, GrantPrefix>,
    ) -> Self {
        let prefix = prefixes.get(&key.port_group).copied().unwrap_or_default();
        Self {
            source: Prefix::covered(key.source, prefix),
            door: grant.door,
            until_ms: grant.until_ms,
            given: None,
        }
    }
}
