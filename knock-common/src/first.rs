//! First knocks: a table that a flood of spoofed ones can't empty.
//!
//! A first knock costs a spoofer one packet, so each takes one 8-byte cell and nothing else. A
//! source's bucket is chosen by a keyed hash; the cell holds more bits of the hash as a tag, so a
//! stranger's cell is not taken for one's own, and the time, so cells need no sweeping. In a full
//! bucket the oldest goes: an honest first knock survives until seven more strangers' hit the same
//! one of 524 288 buckets.

use crate::{
    Address, Tally, World,
    automaton::Progress,
    layout::{BUCKETS, Config, FIRST_NODES_MAX, ProgressKey, WAYS},
    time::{TICK_BITS, TICK_MASK, Tick},
    world::{Bucket, Word},
};

const NODE_BITS: u32 = 16;
const TAG_SHIFT: u32 = NODE_BITS + TICK_BITS;
/// Older than any cell can be: the source's own cell is replaced before all others.
const OWN: u32 = TICK_MASK + 1;

/// The place of a source in the table.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Place {
    bucket: u32,
    tag: u64,
}

impl Place {
    /// Pair-multiply-shift (Thorup, "High Speed Hashing for Integers and Strings", 2015, 3.5): two
    /// strongly universal 32-bit hashes under a secret key, for six multiplications.
    #[inline(always)]
    pub fn of(key: &ProgressKey, config: &Config) -> Self {
        let [k0, k1, k2, k3, k4, k5, l0, l1, l2, l3, l4, l5] = config.cell_key;
        let ProgressKey {
            source: Address { words },
            class,
            generation,
        } = *key;
        let [a, b, c, d] = words.map(u64::from);
        let rest = u64::from(class) << 16 | u64::from(generation);
        let hash = |k: [u64; 6]| {
            let [k0, k1, k2, k3, k4, k5] = k;
            let first = k0.wrapping_add(a).wrapping_mul(k1.wrapping_add(b));
            let second = k2.wrapping_add(c).wrapping_mul(k3.wrapping_add(d));
            let third = k4.wrapping_mul(rest).wrapping_add(k5);
            first.wrapping_add(second).wrapping_add(third) >> 32
        };
        let bucket = hash([k0, k1, k2, k3, k4, k5]) as u32 & (BUCKETS - 1);
        // The highest bit tells a used cell from an empty one.
        let tag = hash([l0, l1, l2, l3, l4, l5]) >> (32 - (64 - TAG_SHIFT)) | 1 << (63 - TAG_SHIFT);
        Self { bucket, tag }
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

/// The progress of a source that has made its first knock, or none.
#[inline(always)]
pub fn find<W: World>(world: &W, place: Place) -> Progress {
    let cell = world.recall_first(place.bucket, place.tag);
    Progress::first((cell >> TICK_BITS) as u32 & FIRST_NODES_MAX, tick(cell))
}

/// Forgets a source's first knock.
#[inline(always)]
pub fn forget<W: World>(world: &W, place: Place) {
    world.forget_first(place.bucket, place.tag);
}

/// Remembers a first knock; `false` if other CPUs kept changing the cell.
#[inline(always)]
pub fn remember<W: World>(world: &W, place: Place, first: Progress, config: &Config) -> bool {
    let node = u64::from(first.node & FIRST_NODES_MAX);
    let cell = place.tag << TAG_SHIFT | node << TICK_BITS | u64::from(first.last.number());
    world.remember_first(place.bucket, cell, config.horizon_ticks) != 0
}

/// The cell with a tag, or 0.
#[inline(always)]
pub fn recall_cell<W: World>(world: &W, bucket: u32, tag: u64) -> u64 {
    let Some(bucket) = world.bucket(bucket) else {
        return 0;
    };
    for way in 0..WAYS {
        let cell = bucket.cell(way).map_or(0, |word| word.load());
        if is_tagged(cell, tag) {
            return cell;
        }
    }
    0
}

/// Empties the cell with a tag.
#[inline(always)]
pub fn forget_cell<W: World>(world: &W, bucket: u32, tag: u64) {
    let Some(bucket) = world.bucket(bucket) else {
        return;
    };
    for way in 0..WAYS {
        let Some(word) = bucket.cell(way) else { return };
        let cell = word.load();
        if is_tagged(cell, tag) {
            // If another CPU was faster, its knock is the later one.
            word.replace(cell, 0);
            return;
        }
    }
}

/// Writes a cell in the place of the one with the same tag, an empty one, or the oldest; `0` if
/// other CPUs kept changing it.
#[inline(always)]
pub fn remember_cell<W: World>(world: &W, bucket: u32, new: u64, horizon_ticks: u32) -> u64 {
    let Some(bucket) = world.bucket(bucket) else {
        return 0;
    };
    for _ in 0..2 {
        // Age and way in one number, so that the verifier has one path to follow, not one per way.
        let mut oldest = 0;
        for way in 0..WAYS {
            let cell = bucket.cell(way).map_or(0, |word| word.load());
            let age = match cell {
                0 => TICK_MASK,
                _ if is_tagged(cell, new >> TAG_SHIFT) => OWN,
                _ => tick(new).since(tick(cell)),
            };
            oldest = core::cmp::max(oldest, u64::from(age) << 3 | way as u64);
        }
        let Some(word) = bucket.cell(oldest as usize & (WAYS - 1)) else {
            return 0;
        };
        let old = word.load();
        if word.replace(old, new) {
            if oldest >> 3 <= u64::from(horizon_ticks) {
                world.tally(Tally::FirstKnocksEvicted);
            }
            return 1;
        }
    }
    0
}
