//! One knock in, the next progress out.
//!
//! All doors are compiled into one automaton (Aho and Corasick, 1975) in which every way on that a
//! knock can take is an edge of its own, so a step is one lookup however many doors there are. An
//! edge that is missing means: as a first knock.

use crate::{
    Env,
    layout::{EdgeKey, Features, NODE_BITS, Node, Symbol},
    otp::{Place, SourceKnocks},
    packet_info::PacketInfo,
    time::{TICK_BITS, Tick},
};

const ELAPSED_BITS: u32 = 64 - NODE_BITS - TICK_BITS;
/// The longest `sequence_timeout` that progress can hold, in ticks: 73 minutes.
pub const WITHIN_MAX: u32 = (1 << ELAPSED_BITS) - 1;
const NODE_MASK: u64 = (1 << NODE_BITS) - 1;

/// How far a source has come: one word, so that a compare-and-exchange is all the locking there is.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Progress {
    /// Number of the node in the automaton; 0 is the root: no attempt.
    pub node: u32,
    /// Ticks from the first knock of the attempt to its last one.
    pub elapsed: u32,
    /// When the last right knock came.
    pub last: Tick,
}

impl Progress {
    /// No attempt.
    pub const NONE: Self = Self {
        node: 0,
        elapsed: 0,
        last: Tick::from_number(0),
    };

    /// The progress after a first knock.
    #[inline(always)]
    pub const fn first(node: u32, now: Tick) -> Self {
        Self {
            node,
            elapsed: 0,
            last: now,
        }
    }

    /// Whether there is no attempt.
    #[inline(always)]
    pub const fn is_none(self) -> bool {
        self.node == 0
    }

    /// Ticks from the first knock of the attempt to `now`.
    #[inline(always)]
    const fn elapsed_at(self, now: Tick) -> u32 {
        self.elapsed.wrapping_add(now.since(self.last))
    }

    /// Whether a knock at `now` still belongs to the attempt; `node` is the one that it is at.
    #[inline(always)]
    pub const fn is_alive(self, node: &Node, now: Tick) -> bool {
        now.since(self.last) <= node.step_timeout_ticks
            && self.elapsed_at(now) <= node.sequence_timeout_ticks
    }

    /// The word that the map holds.
    #[inline(always)]
    pub const fn to_word(self) -> u64 {
        (self.node as u64 & NODE_MASK) << (ELAPSED_BITS + TICK_BITS)
            | (self.elapsed as u64 & WITHIN_MAX as u64) << TICK_BITS
            | self.last.number() as u64
    }

    /// The progress that a word of the map means.
    #[inline(always)]
    pub const fn from_word(word: u64) -> Self {
        Self {
            node: (word >> (ELAPSED_BITS + TICK_BITS)) as u32,
            elapsed: (word >> TICK_BITS) as u32 & WITHIN_MAX,
            last: Tick::from_number(word as u32),
        }
    }
}

/// What a knock was.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// It began an attempt.
    First,
    /// It was the next of an attempt.
    Next,
    /// It repeated the last right one.
    Duplicate,
    /// It ended an attempt and began another, or went on with a shorter one.
    Restarted,
    /// It ended an attempt.
    Wrong,
    /// It would have gone on with an attempt that was over, and began none.
    Late,
    /// There was no attempt and it began none.
    OutOfSequence,
    /// What it was depends on who knocks, and has to be worked out first.
    Unknown,
}

/// A knock's effect.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Step {
    /// The progress after it.
    pub progress: Progress,
    /// What it was.
    pub outcome: Outcome,
}

/// Advances `held` by a knock; `first` is the node that the knock begins, or 0, and `source_knocks` what was
/// worked out about the source.
#[inline(always)]
pub fn step<W: Env>(
    env: &W,
    held: Progress,
    info: &PacketInfo,
    first: u32,
    source_knocks: SourceKnocks,
) -> Step {
    let now = info.now().tick();
    let afresh = |begun: Outcome, not_begun: Outcome| match first {
        0 => Step {
            progress: Progress::NONE,
            outcome: not_begun,
        },
        node => Step {
            progress: Progress::first(node, now),
            outcome: begun,
        },
    };
    if held.is_none() {
        return afresh(Outcome::First, Outcome::OutOfSequence);
    }
    let Some(node) = env.node(held.node) else {
        return afresh(Outcome::First, Outcome::OutOfSequence);
    };
    if !held.is_alive(node, now) {
        return afresh(Outcome::First, Outcome::Late);
    }
    let elapsed = held.elapsed_at(now);
    let symbol = info.symbol();
    let source_knocks = if !env.features().has(Features::PER_SOURCE) || node.per_source == 0 {
        SourceKnocks::NONE
    } else if source_knocks.place() == Place::of(node) {
        source_knocks
    } else {
        return Step {
            progress: held,
            outcome: Outcome::Unknown,
        };
    };
    let label = if source_knocks.is_next(symbol) {
        Symbol::PER_SOURCE
    } else {
        symbol
    };
    if let Some(next) = env.edge(&EdgeKey::from_node(held.node, label)) {
        let deeper = env.node(next).is_some_and(|next| next.depth > node.depth);
        let outcome = if deeper {
            Outcome::Next
        } else {
            Outcome::Restarted
        };
        return Step {
            progress: Progress {
                node: next,
                elapsed,
                last: now,
            },
            outcome,
        };
    }
    // A door with a single knock is refreshed by knocking again.
    let single = node.depth == 1 && node.ends_sequence();
    if (symbol == node.symbol || source_knocks.is_last(symbol)) && !single {
        return Step {
            progress: held,
            outcome: Outcome::Duplicate,
        };
    }
    if node.ends_sequence() {
        return afresh(Outcome::First, Outcome::OutOfSequence);
    }
    afresh(Outcome::Restarted, Outcome::Wrong)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn progress_survives_its_word(node in 0..1_u32 << NODE_BITS, elapsed in 0..=WITHIN_MAX, last: u32) {
            let progress = Progress { node, elapsed, last: Tick::from_number(last) };
            prop_assert_eq!(Progress::from_word(progress.to_word()), progress);
        }
    }
}
