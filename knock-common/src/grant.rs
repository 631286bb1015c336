//! A grant, a change of grants, and the completed sequence that asks for it.

use crate::{layout::DoorEntry, time::Moment};

/// The end of a grant and its door: one word. The word with the later end is the greater one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Grant {
    /// When it ends, in milliseconds since boot.
    pub until_ms: u64,
    /// Number of the door.
    pub door: u16,
}

impl Grant {
    /// Returns the word that the map holds.
    #[inline(always)]
    pub const fn to_word(self) -> u64 {
        self.until_ms << 16 | self.door as u64
    }

    /// Reads a word of the map.
    #[inline(always)]
    pub const fn from_word(word: u64) -> Self {
        Self {
            until_ms: word >> 16,
            door: word as u16,
        }
    }

    /// Returns whether it has not expired at `now`.
    #[inline(always)]
    pub const fn is_valid(self, now: Moment) -> bool {
        now.millis() < self.until_ms
    }
}

/// A completed sequence.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Completed {
    /// Index of its entry in `DOORS`.
    pub entry: u16,
    /// Number of its knocks.
    pub stage: u8,
    /// Ticks from the first knock to the last.
    pub elapsed: u32,
}

/// The change of the grants of a door: one word, because a BPF subprogram takes five registers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct GrantChange(u64);

impl GrantChange {
    /// The grants end now.
    pub const CLOSE: Self = Self(u64::MAX);

    /// Returns a change that lets grants last for this long, in milliseconds.
    #[inline(always)]
    pub const fn open(open_for_ms: u64) -> Self {
        Self(open_for_ms)
    }

    /// Returns what a door does: one that closes ends its grants, others give them for `open_for_ms`.
    #[inline(always)]
    pub const fn of(door: &DoorEntry, open_for_ms: u64) -> Self {
        match door.closes {
            0 => Self::open(open_for_ms),
            _ => Self::CLOSE,
        }
    }

    /// Returns whether the grants end.
    #[inline(always)]
    pub(crate) const fn closes(self) -> bool {
        self.0 == Self::CLOSE.0
    }

    /// Returns when the grants end, in milliseconds since boot.
    #[inline(always)]
    pub const fn until_ms(self, now: Moment) -> u64 {
        match self.closes() {
            true => now.millis(),
            false => now.millis().saturating_add(self.0),
        }
    }

    /// Returns the word.
    #[inline(always)]
    pub const fn to_word(self) -> u64 {
        self.0
    }

    /// Reads the word.
    #[inline(always)]
    pub const fn from_word(word: u64) -> Self {
        Self(word)
    }
}
