//! Lockouts: the knocks of a source are ignored for a time after too many failed attempts.
//!
//! Failures are counted per IPv4 address or IPv6 /64, since a host with one address of a /64 has all of them. They are
//! kept like first knocks (see [`mod@crate::first`]) in buckets that a secret key chooses. In a full bucket a new
//! source replaces an expired cell, else the one with the fewest failures, but never one that locks its source out: no
//! number of forged sources ends a lockout. If all cells of a bucket lock out, failures of other sources in it are not
//! counted, and [`Stat::LockoutsFull`] counts them.

use crate::{
    Address, Stat, Subprograms,
    env::{Bucket, Word},
    first::{self, CellAddress},
    layout::{Config, Features, LOCKOUT_BUCKETS, WAYS},
    packet_info::PacketInfo,
    time::{AHEAD_MS, Moment},
};

/// Bits of the time in a cell.
pub const MS_BITS: u32 = 34;
/// The time in a cell wraps after 198 days; a lockout lasts one day at most.
const MS_MASK: u64 = (1 << MS_BITS) - 1;
const COUNT_BITS: u32 = 10;
const COUNT_MASK: u64 = (1 << COUNT_BITS) - 1;
const TAG_SHIFT: u32 = MS_BITS + COUNT_BITS;
const TAG_BITS: u32 = u64::BITS - TAG_SHIFT;

/// Failed attempts and the last one's time, as they are in a cell.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Failures {
    /// The last failed attempt, in milliseconds since boot, modulo 2³⁴.
    pub last_ms: u64,
    /// Failed attempts until then, without expired ones: 1023 at most.
    pub count: u16,
}

impl Failures {
    /// Returns the part of a cell below the tag.
    #[inline(always)]
    pub const fn to_word(self) -> u64 {
        (self.count as u64 & COUNT_MASK) << MS_BITS | self.last_ms & MS_MASK
    }

    /// Reads a cell.
    #[inline(always)]
    pub const fn from_word(word: u64) -> Self {
        Self {
            last_ms: word & MS_MASK,
            count: (word >> MS_BITS & COUNT_MASK) as u16,
        }
    }

    /// Milliseconds since the last failure; 0 if another CPU's clock is ahead.
    #[inline(always)]
    const fn age_ms(self, now_ms: u64) -> u64 {
        let age = now_ms.wrapping_sub(self.last_ms) & MS_MASK;
        if age > MS_MASK - AHEAD_MS { 0 } else { age }
    }

    /// Returns the time until they expire, in milliseconds; 0 if they have.
    #[inline(always)]
    pub const fn left_ms(self, now: Moment, config: &Config) -> u64 {
        config.lockout_ms.saturating_sub(self.age_ms(now.millis()))
    }
}

/// Returns the cell of a source, by two strongly universal hashes as in [`CellAddress::of`].
#[inline(always)]
fn cell_address(subject: Address, key: &[u64; WAYS], shift: u32) -> CellAddress {
    let [k0, k1, k2, k3, l0, l1, l2, l3] = *key;
    let [a, b, c, d] = subject.words.map(u64::from);
    let hash = |k: [u64; 4]| {
        let [k0, k1, k2, k3] = k;
        let first = k0.wrapping_add(a).wrapping_mul(k1.wrapping_add(b));
        let second = k2.wrapping_add(c).wrapping_mul(k3.wrapping_add(d));
        (first.wrapping_add(second) >> 32) as u32
    };
    CellAddress {
        bucket: (first::shuffle(hash([k0, k1, k2, k3])) & (LOCKOUT_BUCKETS - 1)) >> (shift & 31),
        tag: u64::from(hash([l0, l1, l2, l3]) >> (u32::BITS - TAG_BITS)),
    }
}

/// Returns the key under which failures are counted together: an IPv4 address, an IPv6 /64, or all sources.
#[inline(always)]
fn subject(source: Address, features: Features) -> Address {
    if features.has(Features::LOCKOUT_GLOBAL) {
        Address::ANY
    } else if source.is_v4() {
        source
    } else {
        let [a, b, ..] = source.words;
        Address {
            words: [a, b, 0, 0],
        }
    }
}

/// Returns the cell of a source; `None` without lockouts.
#[inline(always)]
fn address_of<E: Subprograms>(env: &E, source: Address) -> Option<CellAddress> {
    let features = env.features();
    if !features.has(Features::LOCKOUT) {
        return None;
    }
    let key = env.lockout_key()?;
    let shift = env.config()?.lockouts_shift;
    Some(cell_address(subject(source, features), key, shift))
}

/// Returns the failures of a source; `None` if there are none or they have expired.
#[inline(always)]
pub fn failures<E: Subprograms>(
    env: &E,
    source: Address,
    config: &Config,
    now: Moment,
) -> Option<Failures> {
    let CellAddress { bucket, tag } = address_of(env, source)?;
    let cell = recall_cell(env, bucket, tag as u32);
    let failures = Failures::from_word(cell);
    (cell != 0 && failures.left_ms(now, config) > 0).then_some(failures)
}

/// Returns whether the source of a packet is locked out.
#[inline(always)]
pub fn is_locked_out<E: Subprograms>(env: &E, info: &PacketInfo) -> bool {
    let Some(config) = env.config() else {
        return false;
    };
    failures(env, info.source, config, info.now())
        .is_some_and(|failures| u32::from(failures.count) >= config.lockout_failures)
}

/// Counts a failed attempt of a packet's source.
#[inline(always)]
pub fn fail<E: Subprograms>(env: &E, info: &PacketInfo) {
    if !env.features().has(Features::LOCKOUT) {
        return;
    }
    let place = env.place_failures(info);
    let (bucket, tag) = ((place >> 32) as u32, place as u32);
    let now_ms = info.now().millis();
    // No loop: LLVM makes one that falls into its own beginning, which Linux 6.1 refuses (check_cfg, "back-edge").
    let _given_up = env.count_failure(bucket, tag, now_ms)
        || env.count_failure(bucket, tag, now_ms)
        || env.count_failure(bucket, tag, now_ms);
}

/// Returns the cell of a packet's source: the bucket in the upper half, the tag in the lower. Without a key the bucket
/// does not exist.
#[inline(always)]
pub fn place_word<E: Subprograms>(env: &E, info: &PacketInfo) -> u64 {
    address_of(env, info.source).map_or(u64::MAX, |CellAddress { bucket, tag }| {
        u64::from(bucket) << 32 | tag
    })
}

#[inline(always)]
const fn is_tagged(cell: u64, tag: u32) -> bool {
    cell >> TAG_SHIFT == tag as u64
}

/// Returns the cell with a tag, or 0.
#[inline(always)]
fn recall_cell<E: Subprograms>(env: &E, bucket: u32, tag: u32) -> u64 {
    let Some(bucket) = env.lockouts(bucket) else {
        return 0;
    };
    let mut found = 0;
    for way in 0..WAYS {
        let cell = bucket.cell(way).map_or(0, |word| word.load());
        // Two CPUs may have made a cell each; the one with more failures counts.
        if is_tagged(cell, tag) && cell > found {
            found = cell;
        }
    }
    found
}

/// The rank of the source's own cell, which is written first.
const OWN: u64 = 1 << 60;
/// The rank of the source's own cell if it has expired: its count starts again.
const OWN_EXPIRED: u64 = OWN | 1;
/// The rank of a cell that is empty or expired.
const EXPIRED: u64 = 1 << 59;
/// The rank of a cell that locks out another source.
const NEVER: u64 = 0;

/// Returns the rank of a cell for the source with a tag: the cell with the greatest rank is written.
#[inline(always)]
pub fn rank<E: Subprograms>(env: &E, cell: u64, tag: u32, now_ms: u64) -> u64 {
    // Read here, since the caller's stack has no room for it (check_max_stack_depth).
    let Some(config) = env.config() else {
        return NEVER;
    };
    let failures = Failures::from_word(cell);
    let age_ms = failures.age_ms(now_ms);
    if cell == 0 {
        EXPIRED
    } else if is_tagged(cell, tag) {
        match age_ms < config.lockout_ms {
            true => OWN,
            false => OWN_EXPIRED,
        }
    } else if age_ms >= config.lockout_ms {
        EXPIRED
    } else if u32::from(failures.count) >= config.lockout_failures {
        NEVER
    } else {
        // The fewest failures first, then the oldest.
        COUNT_MASK.wrapping_sub(failures.count.into()) << MS_BITS | age_ms
    }
}

/// Tries to count a failure in the cell with the greatest rank; `false` if another CPU was faster.
#[inline(always)]
pub fn count_once<E: Subprograms>(env: &E, bucket: u32, tag: u32, now_ms: u64) -> bool {
    let Some(bucket) = env.lockouts(bucket) else {
        return true;
    };
    let rank = |cell| env.rank_failures(cell, tag, now_ms);
    // Rank and way in one number, so that the verifier follows one path instead of one per way.
    let mut first_to_write = 0;
    for way in 0..WAYS {
        let cell = bucket.cell(way).map_or(0, |word| word.load());
        first_to_write = core::cmp::max(first_to_write, rank(cell) << 3 | way as u64);
    }
    if first_to_write >> 3 == NEVER {
        env.count(Stat::LockoutsFull);
        return true;
    }
    let Some(word) = bucket.cell(first_to_write as usize & (WAYS - 1)) else {
        return true;
    };
    let old = word.load();
    let before = Failures::from_word(old);
    let count = match rank(old) {
        NEVER => return false,
        OWN => before.count.saturating_add(1),
        _ => 1,
    };
    let failures = Failures {
        last_ms: now_ms,
        count: core::cmp::min(count, COUNT_MASK as u16),
    };
    word.replace(old, u64::from(tag) << TAG_SHIFT | failures.to_word())
}

#[cfg(test)]
mod tests;
