//! How many entries the tables of the kernel side have room for, and the memory that they take.
//!
//! Most of the memory is in tables whose use depends on the clients, so their sizes follow the memory of the machine.
//! Tables of the configuration (doors, keys, prefixes) always take what they need, and are not counted here.

use knock_common::layout::{
    ALLOW_MAX, BUCKETS, EVENTS_BYTES, FLOWS_MAX, LOCKOUT_BUCKETS, PROGRESS_MAX, USED_MAX, WAYS,
};

use super::octets;

/// The part of a machine's memory that the tables take at most, if nothing else is configured: a thirty-second.
const PART: u64 = 32;

/// Tables with a fixed size: ports, the presence filter, claims, log, counters. Measured as the kernel counts them
/// (6.18), and rounded up.
const FIXED: u64 = 3_500_000;
/// The replay caches of users' packets, while they are empty.
const USERS: u64 = 2_100_000;

/// What the kernel adds to an entry of a hash map with 8 octets of value: its header and the value.
const HASH_ENTRY: u64 = 48 + 8;
/// A bucket of a hash map; there are as many as entries, rounded up to a power of two.
const HASH_BUCKET: u64 = 16;

/// A table whose size can be chosen.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SizedTable {
    /// First knocks of sources.
    FirstKnocks,
    /// Kept connections.
    Flows,
    /// Attempts past the first knock.
    Attempts,
    /// Grants.
    Grants,
    /// Sources with failed attempts.
    Failures,
    /// Events that the daemon has not read yet, in octets.
    Events,
    /// Used sequences that the daemon has not recorded yet.
    Used,
}

impl SizedTable {
    /// All of them, in the order in which they get memory.
    pub const ALL: [Self; 7] = [
        Self::FirstKnocks,
        Self::Flows,
        Self::Attempts,
        Self::Grants,
        Self::Failures,
        Self::Events,
        Self::Used,
    ];

    /// Returns the key in `[limits]`.
    pub const fn key(self) -> &'static str {
        match self {
            Self::FirstKnocks => "first_knocks",
            Self::Flows => "flows",
            Self::Attempts => "attempts",
            Self::Grants => "grants",
            Self::Failures => "failures",
            Self::Events => "events",
            Self::Used => "used_sequences",
        }
    }

    /// Returns the name of the map.
    pub const fn map(self) -> &'static str {
        match self {
            Self::FirstKnocks => "FIRST_KNOCKS",
            Self::Flows => "FLOWS",
            Self::Attempts => "PROGRESS",
            Self::Grants => "ALLOW",
            Self::Failures => "LOCKOUTS",
            Self::Events => "EVENTS",
            Self::Used => "USED",
        }
    }

    /// Returns the size on a machine with enough memory, which is the greatest.
    pub const fn most(self) -> u32 {
        match self {
            Self::FirstKnocks => BUCKETS * WAYS as u32,
            Self::Flows => FLOWS_MAX,
            Self::Attempts => PROGRESS_MAX,
            Self::Grants => ALLOW_MAX,
            Self::Failures => LOCKOUT_BUCKETS * WAYS as u32,
            Self::Events => EVENTS_BYTES,
            Self::Used => USED_MAX,
        }
    }

    /// Returns the least size that is chosen without being configured: it keeps what docs/memory.md promises.
    pub const fn least(self) -> u32 {
        match self {
            Self::FirstKnocks => 1 << 19,
            Self::Failures => 1 << 16,
            Self::Events => 1 << 17,
            Self::Flows | Self::Attempts | Self::Grants | Self::Used => 1 << 13,
        }
    }

    /// Returns the least size that can be configured.
    ///
    /// An LRU map hands 128 free entries to each CPU (`LOCAL_FREE_TARGET`), so a smaller one evicts what is in use.
    pub const fn least_by_hand(self) -> u32 {
        match self {
            Self::FirstKnocks => 1 << 17,
            Self::Events => 1 << 16,
            Self::Failures | Self::Flows | Self::Attempts => 1 << 12,
            Self::Grants | Self::Used => 1 << 8,
        }
    }

    /// Returns the size that the table gets for a configured one: some take a power of two.
    pub const fn rounded(self, size: u32) -> u32 {
        match self {
            Self::FirstKnocks | Self::Failures | Self::Events => size.next_power_of_two(),
            Self::Flows | Self::Attempts | Self::Grants | Self::Used => size,
        }
    }

    /// Returns the memory of the table with this size, in octets: of `USED`, which grows, while it is empty.
    fn octets(self, size: u32) -> u64 {
        let size = u64::from(size);
        let buckets = size.next_power_of_two().saturating_mul(HASH_BUCKET);
        let hash = |key: u64| {
            size.saturating_mul(key + HASH_ENTRY)
                .saturating_add(buckets)
        };
        match self {
            Self::FirstKnocks | Self::Failures => size * size_of::<u64>() as u64,
            Self::Events => size,
            Self::Flows | Self::Attempts | Self::Grants => hash(24),
            Self::Used => buckets,
        }
    }

    const fn index(self) -> usize {
        self as usize
    }
}

/// `[limits]`: what is configured.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Limits {
    /// The memory of the tables at most, in octets; `None` follows the memory of the machine.
    pub memory: Option<u64>,
    /// The sizes that are set by hand, by table.
    tables: [Option<u32>; SizedTable::ALL.len()],
}

impl Limits {
    /// Sets the size of a table by hand.
    pub fn set(&mut self, table: SizedTable, size: u32) {
        if let Some(place) = self.tables.get_mut(table.index()) {
            *place = Some(size);
        }
    }

    /// Returns whether the size of a table does not follow the memory of the machine alone.
    pub fn configures(&self, table: SizedTable) -> bool {
        self.memory.is_some() || self.get(table).is_some()
    }

    /// Returns the size that is set by hand.
    pub fn get(&self, table: SizedTable) -> Option<u32> {
        self.tables.get(table.index()).copied().flatten()
    }
}

/// What a configuration uses besides the tables that every one needs.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Uses {
    /// Lockouts.
    pub lockouts: bool,
    /// SPA packets of users.
    pub users: bool,
}

/// The sizes of the tables.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TableSizes([u32; SizedTable::ALL.len()]);

impl Default for TableSizes {
    /// Returns the sizes on a machine with enough memory.
    fn default() -> Self {
        Self(SizedTable::ALL.map(SizedTable::most))
    }
}

impl TableSizes {
    /// Chooses the sizes: those set by hand, and for the others as much as fits into the memory that is configured, or
    /// into a thirty-second of the machine's `memory`, in octets. None is smaller than [`SizedTable::least`].
    pub fn choose(limits: &Limits, uses: Uses, memory: Option<u64>) -> Self {
        let budget = limits.memory.or_else(|| Some(memory? / PART));
        let budget = budget.unwrap_or(u64::MAX);
        let mut sizes = Self::least(limits);
        loop {
            let before = sizes;
            for table in SizedTable::ALL {
                let mut next = sizes;
                next.set(table, sizes.get(table).saturating_mul(2).min(table.most()));
                if limits.get(table).is_none() && next.octets(uses) <= budget {
                    sizes = next;
                }
            }
            if sizes == before {
                return sizes;
            }
        }
    }

    /// Returns the least sizes beside those set by hand.
    fn least(limits: &Limits) -> Self {
        Self(SizedTable::ALL.map(|table| match limits.get(table) {
            Some(size) => table.rounded(size),
            None => table.least(),
        }))
    }

    /// Returns the least memory that can be configured beside these sizes set by hand, in octets.
    pub fn least_memory(limits: &Limits, uses: Uses) -> u64 {
        Self::least(limits).octets(uses)
    }

    /// Returns the size of a table.
    pub fn get(&self, table: SizedTable) -> u32 {
        self.0.get(table.index()).copied().unwrap_or_default()
    }

    /// Sets the size of a table.
    pub fn set(&mut self, table: SizedTable, size: u32) {
        if let Some(place) = self.0.get_mut(table.index()) {
            *place = size;
        }
    }

    /// Returns the memory that the tables take before anybody knocks, in octets, without the tables of the
    /// configuration. Only used sequences, users' packets and blocked prefixes take more as they arrive.
    pub fn octets(&self, uses: Uses) -> u64 {
        let used = |table: &SizedTable| *table != SizedTable::Failures || uses.lockouts;
        let tables = SizedTable::ALL.into_iter().filter(used);
        let tables: u64 = tables.map(|table| table.octets(self.get(table))).sum();
        tables + FIXED + if uses.users { USERS } else { 0 }
    }

    /// Returns the tables that have other sizes than those `chosen`, of those whose sizes are configured or, with these
    /// keys, were `before`. The memory of a machine may change without a wish to change a table.
    pub fn unlike(&self, chosen: &Self, limits: &Limits, before: &[String]) -> Vec<SizedTable> {
        let differ = |table: &SizedTable| {
            let is_meant = limits.configures(*table) || before.iter().any(|key| key == table.key());
            is_meant && self.get(*table) != chosen.get(*table)
        };
        SizedTable::ALL.into_iter().filter(differ).collect()
    }

    /// Returns a warning about tables that keep other sizes than those `chosen`.
    pub fn kept_text(&self, chosen: &Self, kept: &[SizedTable]) -> Option<String> {
        let kept = kept.iter().map(|table| {
            let (is, wanted) = (self.get(*table), chosen.get(*table));
            format!("{} ({is}, not {wanted})", table.key())
        });
        let kept: Vec<_> = kept.collect();
        (!kept.is_empty()).then(|| {
            format!(
                "the size of {} is not changed while the program protects: `knock-user detach` and a start \
                 right after it change it",
                kept.join(", ")
            )
        })
    }

    /// Describes for how much there is room.
    pub fn room(&self, uses: Uses) -> String {
        let failures = match uses.lockouts {
            true => format!(
                ", {} sources with failed attempts",
                self.get(SizedTable::Failures)
            ),
            false => String::new(),
        };
        format!(
            "room for {} first knocks, {} attempts, {} grants, {} kept connections{failures}",
            self.get(SizedTable::FirstKnocks),
            self.get(SizedTable::Attempts),
            self.get(SizedTable::Grants),
            self.get(SizedTable::Flows),
        )
    }
}

/// Describes the memory of the tables of a configuration, for `check`.
pub fn described(limits: &Limits, uses: Uses, memory: Option<u64>) -> String {
    let sizes = TableSizes::choose(limits, uses, memory);
    let from = match (limits.memory, memory) {
        (Some(most), _) => format!("limit {}", octets::spell(most)),
        (None, Some(memory)) => format!(
            "a thirty-second of {} is {}",
            octets::spell(memory),
            octets::spell(memory / PART)
        ),
        (None, None) => "the memory of this machine is unknown".to_owned(),
    };
    format!(
        "{} in the kernel ({from}), {}",
        octets::spell(sizes.octets(uses)),
        sizes.room(uses)
    )
}

#[cfg(test)]
mod tests;
