//! First knocks: a table that a flood of spoofed first knocks can't empty.
//!
//! A first knock costs a spoofer one packet, so it takes one 8-byte cell only. A keyed hash chooses the source's
//! bucket. The cell holds more bits of the hash as a tag, which distinguishes sources, and the time, so that cells
//! need no sweeping. In a full bucket the oldest cell is replaced: a first knock is kept until first knocks of eight
//! other sources hit the same one of 524 288 buckets, or of fewer on a small machine.

use crate::{
    Address, Stat, Subprograms,
    automaton::Progress,
    env::{Bucket, Word},
    layout::{BUCKETS, CLAIMS, Config, FIRST_NODES_MAX, ProgressKey, WAYS},
    time::{TICK_BITS, TICK_MASK, Tick},
};

const NODE_BITS: u32 = 16;
const TAG_SHIFT: u32 = NODE_BITS + TICK_BITS;
/// Greater than any age, so that the source's own cell is replaced first.
const OWN: u32 = TICK_MASK + 1;

/// Mixes the bits of a number, one to one (the finalizer of `MurmurHash3`: Appleby, 2011).
#[inline(always)]
pub(crate) const fn shuffle(number: u32) -> u32 {
    let number = (number ^ number >> 16).wrapping_mul(0x85eb_ca6b);
    let number = (number ^ number >> 13).wrapping_mul(0xc2b2_ae35);
    number ^ number >> 16
}

/// The bucket of a source's cell, and the tag by which the cell is found in it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct CellAddress {
    pub(crate) bucket: u32,
    pub(crate) tag: u64,
}

impl CellAddress {
    /// Hashes by pair-multiply-shift (Thorup, "High Speed Hashing for Integers and Strings", 2015, 3.5): two strongly
    /// universal 32-bit hashes under a secret key, with six multiplications.
    #[inline(always)]
    pub fn of(key: &ProgressKey, config: &Config) -> Self {
        let [k0, k1, k2, k3, k4, k5, l0, l1, l2, l3, l4, l5] = config.cell_key;
        let ProgressKey {
            source: Address { words },
            target_id,
            padding: _,
        } = *key;
        let [a, b, c, d] = words.map(u64::from);
        let hash = |k: [u64; 6]| {
            let [k0, k1, k2, k3, k4, k5] = k;
            let first = k0.wrapping_add(a).wrapping_mul(k1.wrapping_add(b));
            let second = k2.wrapping_add(c).wrapping_mul(k3.wrapping_add(d));
            let third = k4.wrapping_mul(target_id.into()).wrapping_add(k5);
            first.wrapping_add(second).wrapping_add(third) >> 32
        };
        // The products are linear: with one key in twenty, neighbours would share buckets. A one-to-one mix
        // prevents that and keeps the hash universal.
        let bucket = shuffle(hash([k0, k1, k2, k3, k4, k5]) as u32) & (BUCKETS - 1);
        let bucket = bucket >> (config.first_knocks_shift & 31);
        // The highest bit distinguishes a used cell from an empty one.
        let tag = hash([l0, l1, l2, l3, l4, l5]) >> (32 - (64 - TAG_SHIFT)) | 1 << (63 - TAG_SHIFT);
        Self { bucket, tag }
    }

    /// Returns the content of the cell after a first knock.
    #[inline(always)]
    fn cell(self, first: Progress) -> u64 {
        let node = u64::from(first.node & FIRST_NODES_MAX);
        self.tag << TAG_SHIFT | node << TICK_BITS | u64::from(first.last.number())
    }

    /// Returns the slot of the claim on the source's attempt: see [`mod@crate::claim`].
    #[inline(always)]
    pub const fn claim(self) -> u32 {
        self.bucket & (CLAIMS - 1)
    }
}

#[inline(always)]
fn is_tagged(cell: u64, tag: u64) -> bool {
    cell >> TAG_SHIFT == tag
}

#[inline(always)]
fn tick(cell: u64) -> Tick {
    Tick::from_number(cell as u32 & TICK_MASK)
}

/// The cell of a source, or the one that its first knock will take.
///
/// All of it is always written, unlike an `Option` of a cell, whose other half the verifier would miss.
#[derive(Debug)]
pub struct FoundCell<W> {
    /// The cell; none if its bucket was not searched.
    word: Option<W>,
    /// The content of the cell.
    held: u64,
    /// The age of the cell, in ticks: [`OWN`] for the source's own one.
    age: u32,
}

impl<W: Word> FoundCell<W> {
    /// No cell.
    pub const NONE: Self = Self {
        word: None,
        held: 0,
        age: 0,
    };

    /// Finds the cell of a source in one pass through its bucket.
    #[inline(always)]
    pub fn of<E: Subprograms<Word = W>>(
        env: &E,
        address: CellAddress,
        now: Tick,
        config: &Config,
    ) -> Self {
        let Some(bucket) = env.bucket(address.bucket) else {
            return Self::NONE;
        };
        let rank = oldest(&bucket, address.tag, now);
        // Shifts are below 32, so this is 0. The verifier does not know, and forgets which way it is: else it would
        // follow what comes once for each.
        let unknown_zero = config.first_knocks_shift >> 5;
        let word = bucket.cell((rank as u32 ^ unknown_zero) as usize & (WAYS - 1));
        Self {
            held: word.as_ref().map_or(0, |word| word.load()),
            age: (rank >> 3) as u32,
            word,
        }
    }

    /// Returns the progress of the source after its first knock, or none.
    #[inline(always)]
    pub fn progress(&self, address: CellAddress) -> Progress {
        match is_tagged(self.held, address.tag) {
            true => Progress::first(
                (self.held >> TICK_BITS) as u32 & FIRST_NODES_MAX,
                tick(self.held),
            ),
            false => Progress::NONE,
        }
    }

    /// Empties the cell, which is the source's own one. If another CPU was faster, its knock is later and is kept.
    #[inline(always)]
    pub fn forget(&self) {
        if let Some(word) = &self.word {
            word.replace(self.held, 0);
        }
    }

    /// Stores a first knock; `false` if other CPUs changed the cell twice.
    #[inline(always)]
    pub fn remember<E: Subprograms<Word = W>>(
        &self,
        env: &E,
        address: CellAddress,
        first: Progress,
        config: &Config,
    ) -> bool {
        let word = self.word.as_ref();
        if !word.is_some_and(|word| word.replace(self.held, address.cell(first))) {
            return remember(env, address, first, config);
        }
        if self.age <= config.attempt_max_ticks {
            env.count(Stat::FirstKnocksEvicted);
        }
        true
    }
}

/// Removes a source's first knock.
#[inline(always)]
pub fn forget<E: Subprograms>(env: &E, address: CellAddress) {
    env.forget_first(address.bucket, address.tag);
}

/// Stores a first knock; `false` if another CPU changed the cell meanwhile.
#[inline(always)]
pub fn remember<E: Subprograms>(
    env: &E,
    address: CellAddress,
    first: Progress,
    config: &Config,
) -> bool {
    env.remember_first(
        address.bucket,
        address.cell(first),
        config.attempt_max_ticks,
    ) != 0
}

/// Returns the cell that a source's first knock at `now` takes: its age shifted left by three bits, and its way. Both
/// are in one number, so that the verifier follows one path instead of one per way.
#[inline(always)]
fn oldest(bucket: &impl Bucket, tag: u64, now: Tick) -> u64 {
    let mut oldest = 0;
    for way in 0..WAYS {
        let cell = bucket.cell(way).map_or(0, |word| word.load());
        let age = match cell {
            0 => TICK_MASK,
            _ if is_tagged(cell, tag) => OWN,
            _ => now.since(tick(cell)),
        };
        oldest = core::cmp::max(oldest, u64::from(age) << 3 | way as u64);
    }
    oldest
}

/// Empties the cell with a tag.
#[inline(always)]
pub fn forget_cell<E: Subprograms>(env: &E, bucket: u32, tag: u64) {
    let Some(bucket) = env.bucket(bucket) else {
        return;
    };
    for way in 0..WAYS {
        let Some(word) = bucket.cell(way) else { return };
        let cell = word.load();
        if is_tagged(cell, tag) {
            // If another CPU was faster, its knock is later and is kept.
            word.replace(cell, 0);
            return;
        }
    }
}

/// Writes a cell in place of the one with the same tag, an empty one, or the oldest; returns 0 if another CPU changed
/// it meanwhile.
#[inline(always)]
pub fn remember_cell<E: Subprograms>(
    env: &E,
    bucket: u32,
    new: u64,
    attempt_max_ticks: u32,
) -> u64 {
    let Some(bucket) = env.bucket(bucket) else {
        return 0;
    };
    let oldest = oldest(&bucket, new >> TAG_SHIFT, tick(new));
    let Some(word) = bucket.cell(oldest as usize & (WAYS - 1)) else {
        return 0;
    };
    let old = word.load();
    if !word.replace(old, new) {
        return 0;
    }
    if oldest >> 3 <= u64::from(attempt_max_ticks) {
        env.count(Stat::FirstKnocksEvicted);
    }
    1
}

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, vec::Vec};

    use proptest::prelude::*;

    use super::*;
    use crate::{Env as _, sim::Sim};

    fn config() -> Config {
        let random = |i: usize| (i as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Config {
            cell_key: std::array::from_fn(|i| random(i) ^ random(i) >> 29),
            attempt_max_ticks: 1000,
            ..Config::default()
        }
    }

    fn key(words: [u32; 4]) -> ProgressKey {
        ProgressKey {
            source: Address { words },
            target_id: 0,
            padding: 0,
        }
    }

    /// Returns a cell as [`remember`] writes it.
    fn cell(tag: u64, tick: u32) -> u64 {
        (tag | 1 << (63 - TAG_SHIFT)) << TAG_SHIFT | 7 << TICK_BITS | u64::from(tick)
    }

    /// Returns the cell with a tag, or 0.
    fn recall_cell(sim: &Sim, bucket: u32, tag: u64) -> u64 {
        let address = CellAddress { bucket, tag };
        let found = FoundCell::of(sim, address, Tick::from_number(0), &config());
        if is_tagged(found.held, tag) {
            found.held
        } else {
            0
        }
    }

    fn tags(sim: &Sim, bucket: u32) -> Vec<u64> {
        let bucket = sim.bucket(bucket).unwrap();
        let cells = (0..WAYS).map(|way| bucket.cell(way).unwrap().load());
        let mut tags: Vec<u64> = cells
            .filter(|cell| *cell != 0)
            .map(|cell| cell >> TAG_SHIFT)
            .collect();
        tags.sort_unstable();
        tags
    }

    fn evicted(sim: &Sim) -> u64 {
        let stats = sim.stats.borrow();
        stats.get(&Stat::FirstKnocksEvicted).copied().unwrap_or(0)
    }

    #[test]
    fn seven_other_sources_do_not_evict_a_first_knock() {
        let sim = Sim::default();
        assert_ne!(remember_cell(&sim, 5, cell(0, 100), 1000), 0);
        for other in 1..WAYS as u64 {
            remember_cell(&sim, 5, cell(other, 100 + other as u32), 1000);
            assert_eq!(recall_cell(&sim, 5, cell(0, 0) >> TAG_SHIFT), cell(0, 100));
        }
        assert_eq!(evicted(&sim), 0);
        // The eighth replaces the oldest.
        remember_cell(&sim, 5, cell(8, 200), 1000);
        assert_eq!(recall_cell(&sim, 5, cell(0, 0) >> TAG_SHIFT), 0);
        assert_ne!(recall_cell(&sim, 5, cell(1, 0) >> TAG_SHIFT), 0);
        assert_eq!(evicted(&sim), 1);
    }

    #[test]
    fn a_full_bucket_replaces_the_cell_of_the_source_or_the_oldest() {
        // A full bucket, in which the cell with tag 3 is the oldest, and one more knock.
        for (name, tag, tick, gone, pressure) in [
            ("the oldest", 9, 200, Some(3), 1),
            ("the oldest, expired long ago", 9, 5000, Some(3), 0),
            ("the oldest in its last tick", 9, 1010, Some(3), 1),
            ("the oldest, just expired", 9, 1011, Some(3), 0),
            ("its own cell", 5, 200, None, 0),
            ("its own cell, which is the oldest", 3, 200, None, 0),
        ] {
            let sim = Sim::default();
            for way in 0..WAYS as u64 {
                let tick = if way == 3 { 10 } else { 100 };
                remember_cell(&sim, 0, cell(way, tick), 1000);
            }
            remember_cell(&sim, 0, cell(tag, tick), 1000);
            let own = cell(tag, 0) >> TAG_SHIFT;
            assert_eq!(recall_cell(&sim, 0, own), cell(tag, tick), "{name}");
            assert_eq!(tags(&sim, 0).len(), WAYS, "{name}");
            if let Some(gone) = gone {
                assert_eq!(
                    recall_cell(&sim, 0, cell(gone, 0) >> TAG_SHIFT),
                    0,
                    "{name}"
                );
            }
            assert_eq!(evicted(&sim), pressure, "{name}");
        }
    }

    #[test]
    fn neighbours_in_the_address_space_fill_no_bucket() {
        const SOURCES: u32 = BUCKETS / 8;
        for (name, source) in [
            (
                "IPv4",
                (|i: u32| Address::from_v4((0x0a00_0000 + i).to_be_bytes())) as fn(u32) -> Address,
            ),
            ("IPv6 hosts", |i| {
                Address::from_v6((0x2001_0db8_u128 << 96 | u128::from(i)).to_be_bytes())
            }),
            ("IPv6 networks", |i| {
                Address::from_v6((0x2001_0db8_u128 << 96 | u128::from(i) << 64).to_be_bytes())
            }),
        ] {
            let mut load: HashMap<u32, u32> = HashMap::new();
            for i in 0..SOURCES {
                let key = ProgressKey {
                    source: source(i),
                    ..key([0; 4])
                };
                *load
                    .entry(CellAddress::of(&key, &config()).bucket)
                    .or_default() += 1;
            }
            let fullest = load.values().copied().max();
            assert!(fullest <= Some(WAYS as u32), "{name}: {fullest:?}");
        }
    }

    #[test]
    fn an_unlucky_key_spreads_neighbours_too() {
        const SOURCES: u32 = BUCKETS / 8;
        let mut unlucky = config();
        // The factor of the fourth word is 2^47: every 16th source would be in one bucket.
        unlucky.cell_key[2] = 1 << 47;
        let mut load: HashMap<u32, u32> = HashMap::new();
        for i in 0..SOURCES {
            let address = CellAddress::of(&key([0, 0, 0, i]), &unlucky);
            *load.entry(address.bucket).or_default() += 1;
        }
        let fullest = load.values().copied().max();
        assert!(fullest <= Some(WAYS as u32), "{fullest:?}");
    }

    #[test]
    fn the_cell_depends_on_the_whole_key() {
        let base = key([1, 2, 3, 4]);
        let address = CellAddress::of(&base, &config());
        for (name, other) in [
            ("first word", key([0, 2, 3, 4])),
            ("second word", key([1, 0, 3, 4])),
            ("third word", key([1, 2, 0, 4])),
            ("fourth word", key([1, 2, 3, 0])),
            (
                "target",
                ProgressKey {
                    target_id: 1,
                    ..base
                },
            ),
        ] {
            assert_ne!(CellAddress::of(&other, &config()), address, "{name}");
        }
        let mut rekeyed = config();
        rekeyed.cell_key[0] ^= 1 << 40;
        assert_ne!(CellAddress::of(&base, &rekeyed), address, "the secret key");
    }

    proptest! {
        #[test]
        fn a_first_knock_is_found_until_it_is_forgotten(
            words: [u32; 4],
            node in 1..=FIRST_NODES_MAX,
            last: u32,
            cell_key: [u64; 12],
        ) {
            let config = Config { cell_key, ..config() };
            let sim = Sim::default();
            let address = CellAddress::of(&key(words), &config);
            prop_assert!(address.bucket < BUCKETS);
            prop_assert_eq!(address.tag >> (63 - TAG_SHIFT), 1);
            let first = Progress::first(node, Tick::from_number(last));
            let find = || FoundCell::of(&sim, address, first.last, &config);
            for by_subprogram in [true, false] {
                let found = find();
                prop_assert!(found.progress(address).is_none());
                let is_stored = match by_subprogram {
                    true => remember(&sim, address, first, &config),
                    false => found.remember(&sim, address, first, &config),
                };
                prop_assert!(is_stored);
                prop_assert_eq!(find().progress(address), first);
                match by_subprogram {
                    true => forget(&sim, address),
                    false => find().forget(),
                }
                prop_assert!(find().progress(address).is_none());
            }
        }

        #[test]
        fn a_bucket_has_one_cell_per_source_with_its_latest_knock(
            knocks in prop::collection::vec((0..12_u64, 0..4000_u32), 1..60),
        ) {
            let sim = Sim::default();
            for (tag, tick) in knocks {
                let new = cell(tag, tick);
                prop_assert_ne!(remember_cell(&sim, 1, new, 1000), 0);
                prop_assert_eq!(recall_cell(&sim, 1, new >> TAG_SHIFT), new);
                let mut tags = tags(&sim, 1);
                let all = tags.len();
                tags.dedup();
                prop_assert_eq!(tags.len(), all);
            }
        }

        #[test]
        fn any_cells_are_read_without_a_panic(cells: [u64; WAYS], new: u64, attempt_max: u32) {
            let sim = Sim::default();
            for (way, cell) in cells.into_iter().enumerate() {
                sim.bucket(0).unwrap().cell(way).unwrap().store(cell);
            }
            remember_cell(&sim, 0, new, attempt_max);
            prop_assert_eq!(recall_cell(&sim, 0, new >> TAG_SHIFT), new);
            forget_cell(&sim, 0, new >> TAG_SHIFT);
        }
    }
}
