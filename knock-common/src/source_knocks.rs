//! Knocks that depend on the source, as words that subprograms pass on.

use crate::layout::{Node, Symbol};

/// A position in a half that depends on the source.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct OtpPosition {
    /// The next knock of the half, from 1.
    pub knock: u8,
    /// The index of the sequence's entry in `DOORS` plus one.
    pub sequence: u16,
}

impl OtpPosition {
    /// Returns the position of a node.
    #[inline(always)]
    pub const fn of(node: &Node) -> Self {
        Self {
            knock: node.per_source,
            sequence: node.sequence,
        }
    }

    /// Returns a word below 2²⁴.
    #[inline(always)]
    pub const fn to_word(self) -> u64 {
        (self.knock as u64) << 16 | self.sequence as u64
    }

    /// Reads the word.
    #[inline(always)]
    pub const fn from_word(word: u64) -> Self {
        Self {
            knock: (word >> 16) as u8,
            sequence: word as u16,
        }
    }
}

/// The next and the last knock of a source at a position.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SourceKnocks(u64);

impl SourceKnocks {
    /// Unknown knocks: no node has this position, and no packet has these symbols.
    pub const NONE: Self = Self(Self::NOTHING << Self::SYMBOL_BITS | Self::NOTHING);

    /// One bit more than protocol and port take.
    const SYMBOL_BITS: u32 = 18;
    const SYMBOL_MASK: u64 = (1 << Self::SYMBOL_BITS) - 1;
    const NOTHING: u64 = Self::SYMBOL_MASK;

    #[inline(always)]
    pub(crate) const fn new(position: OtpPosition, next: Symbol, last: Option<Symbol>) -> Self {
        let last = match last {
            Some(last) => last.number() as u64,
            None => Self::NOTHING,
        };
        let symbols = last << Self::SYMBOL_BITS | next.number() as u64;
        Self(position.to_word() << (2 * Self::SYMBOL_BITS) | symbols)
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

    /// Returns the position.
    #[inline(always)]
    pub const fn position(self) -> OtpPosition {
        OtpPosition::from_word(self.0 >> (2 * Self::SYMBOL_BITS))
    }

    /// Returns whether a knock is the next one.
    #[inline(always)]
    pub const fn is_next(self, knock: Symbol) -> bool {
        self.0 & Self::SYMBOL_MASK == knock.number() as u64
    }

    /// Returns whether a knock repeats the last one.
    #[inline(always)]
    pub const fn is_last(self, knock: Symbol) -> bool {
        self.0 >> Self::SYMBOL_BITS & Self::SYMBOL_MASK == knock.number() as u64
    }
}
