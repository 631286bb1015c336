//! Stamps: each packet of a key is used once. The replay cache has one word per key, its greatest stamp so far, so it
//! never fills, and words of two hosts with the same key merge into the greater one.

use crate::{Reason, env::Word};

/// How often a CPU tries to record a stamp while other CPUs record smaller ones of the same key.
const TRIES: usize = 8;

/// Returns whether a stamp lies within the window around the wall clock; all in nanoseconds.
#[inline(always)]
pub const fn is_fresh(stamp: u64, wall_ns: u64, window_ns: u64) -> bool {
    stamp.wrapping_sub(wall_ns).wrapping_add(window_ns) <= window_ns.wrapping_mul(2)
}

/// Returns how far a stamp is ahead of the wall clock, as a signed number of milliseconds.
#[inline(always)]
pub const fn offset_ms(stamp: u64, wall_ns: u64) -> u64 {
    // BPF has no signed division.
    if stamp >= wall_ns {
        stamp.wrapping_sub(wall_ns) / 1_000_000
    } else {
        (wall_ns.wrapping_sub(stamp) / 1_000_000).wrapping_neg()
    }
}

/// Records the stamp of an authenticated packet as its key's greatest. Returns the reason if that fails.
#[inline(always)]
pub fn record(last: &impl Word, stamp: u64) -> Option<Reason> {
    for _ in 0..TRIES {
        let greatest = last.load();
        if stamp <= greatest {
            return Some(Reason::SpaReplayed);
        }
        if last.replace(greatest, stamp) {
            return None;
        }
    }
    Some(Reason::Contended)
}
