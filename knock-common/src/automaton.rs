//! Steps of the automaton: progress and a knock give the next progress.
//!
//! All doors are compiled into one automaton (Aho and Corasick, 1975). Each knock that continues or shortens an
//! attempt has an edge, so that a step is one lookup for any number of doors: in the node itself for the next knock of
//! a sequence, else in `EDGES`. A knock without an edge counts as a first knock.

use crate::{
    Env,
    layout::{EdgeKey, Features, NODE_BITS, Node, Symbol},
    packet_info::PacketInfo,
    source_knocks::{OtpPosition, SourceKnocks},
    time::{TICK_BITS, Tick},
};

const ELAPSED_BITS: u32 = 64 - NODE_BITS - TICK_BITS;
/// The longest `sequence_timeout` that progress can hold, in ticks: 73 minutes.
pub const WITHIN_MAX: u32 = (1 << ELAPSED_BITS) - 1;
const NODE_MASK: u64 = (1 << NODE_BITS) - 1;

/// The node that a source has reached, and when: one word, which changes by compare-and-exchange without a lock.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Progress {
    /// Number of the node in the automaton; 0 is the root: no attempt.
    pub node: u32,
    /// Ticks from the first knock of the attempt to its last one.
    pub elapsed: u32,
    /// The time of the last correct knock.
    pub last: Tick,
}

impl Progress {
    /// No attempt.
    pub const NONE: Self = Self {
        node: 0,
        elapsed: 0,
        last: Tick::from_number(0),
    };

    /// Returns the progress after a first knock.
    #[inline(always)]
    pub const fn first(node: u32, now: Tick) -> Self {
        Self {
            node,
            elapsed: 0,
            last: now,
        }
    }

    /// Returns whether there is no attempt.
    #[inline(always)]
    pub const fn is_none(self) -> bool {
        self.node == 0
    }

    /// Ticks from the first knock of the attempt to `now`.
    #[inline(always)]
    const fn elapsed_at(self, now: Tick) -> u32 {
        self.elapsed.wrapping_add(now.since(self.last))
    }

    /// Returns whether the attempt has not expired at `now`; `node` is the one that it has reached.
    #[inline(always)]
    pub const fn is_alive(self, node: &Node, now: Tick) -> bool {
        now.since(self.last) <= node.step_timeout_ticks
            && self.elapsed_at(now) <= node.sequence_timeout_ticks
    }

    /// Returns the word that the map holds.
    #[inline(always)]
    pub const fn to_word(self) -> u64 {
        (self.node as u64 & NODE_MASK) << (ELAPSED_BITS + TICK_BITS)
            | (self.elapsed as u64 & WITHIN_MAX as u64) << TICK_BITS
            | self.last.number() as u64
    }

    /// Reads a word of the map.
    #[inline(always)]
    pub const fn from_word(word: u64) -> Self {
        Self {
            node: (word >> (ELAPSED_BITS + TICK_BITS)) as u32,
            elapsed: (word >> TICK_BITS) as u32 & WITHIN_MAX,
            last: Tick::from_number(word as u32),
        }
    }
}

/// The effect of a knock.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum StepOutcome {
    /// It started an attempt.
    First,
    /// It continued an attempt.
    Next,
    /// It repeated the last correct knock.
    Duplicate,
    /// It ended an attempt and started another, or continues a shorter part of it.
    Restarted,
    /// It ended an attempt.
    Wrong,
    /// The attempt had expired, and the knock started none.
    Late,
    /// There was no attempt, and the knock started none.
    OutOfSequence,
    /// It depends on [`SourceKnocks`], which are not known yet.
    Unknown,
}

/// The progress after a knock, and its effect.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Step {
    /// The progress after the knock.
    pub progress: Progress,
    /// The effect.
    pub outcome: StepOutcome,
}

/// Advances `held` by a knock. `first` is the node to which the knock leads as a first knock, or 0.
#[inline(always)]
pub fn step<E: Env>(
    env: &E,
    held: Progress,
    info: &PacketInfo,
    first: u32,
    source_knocks: SourceKnocks,
) -> Step {
    let now = info.now().tick();
    let afresh = |begun: StepOutcome, not_begun: StepOutcome| match first {
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
        return afresh(StepOutcome::First, StepOutcome::OutOfSequence);
    }
    let Some(node) = env.node(held.node) else {
        return afresh(StepOutcome::First, StepOutcome::OutOfSequence);
    };
    if !held.is_alive(node, now) {
        return afresh(StepOutcome::First, StepOutcome::Late);
    }
    let elapsed = held.elapsed_at(now);
    let symbol = info.symbol();
    let source_knocks = if !env.features().has(Features::PER_SOURCE) || node.per_source == 0 {
        SourceKnocks::NONE
    } else if source_knocks.position() == OtpPosition::of(node) {
        source_knocks
    } else {
        return Step {
            progress: held,
            outcome: StepOutcome::Unknown,
        };
    };
    let label = if source_knocks.is_next(symbol) {
        Symbol::PER_SOURCE
    } else {
        symbol
    };
    if let Some(Follower { next, is_deeper }) = follow(env, held.node, node, label) {
        let outcome = if is_deeper {
            StepOutcome::Next
        } else {
            StepOutcome::Restarted
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
    // Another knock refreshes the grant of a door with a single knock.
    let single = node.depth == 1 && node.ends_sequence();
    if (symbol == node.symbol || source_knocks.is_last(symbol)) && !single {
        return Step {
            progress: held,
            outcome: StepOutcome::Duplicate,
        };
    }
    if node.ends_sequence() {
        return afresh(StepOutcome::First, StepOutcome::OutOfSequence);
    }
    afresh(StepOutcome::Restarted, StepOutcome::Wrong)
}

/// The node that a knock leads to.
struct Follower {
    next: u32,
    /// Whether the knock continues the sequence.
    is_deeper: bool,
}

/// Returns the node that a knock leads to from a node, if it leads anywhere.
#[inline(always)]
fn follow<E: Env>(env: &E, from: u32, node: &Node, knock: Symbol) -> Option<Follower> {
    // The knock that most packets are needs no lookup in a hash map.
    let next = node.next_node();
    if next != 0 && env.node(next).is_some_and(|next| next.symbol == knock) {
        return Some(Follower {
            next,
            is_deeper: true,
        });
    }
    if !node.has_others() {
        return None;
    }
    let next = env.edge(&EdgeKey::from_node(from, knock))?;
    Some(Follower {
        next,
        is_deeper: env.node(next).is_some_and(|next| next.depth > node.depth),
    })
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
