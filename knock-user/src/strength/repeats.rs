//! Repetition in a sequence, which an attacker need not find.

use std::{collections::HashSet, time::Duration};

use knock_common::packet::{Protocol, flag};
use knock_sequence::Knock;

use crate::model::settings::{Door, Verify};

/// When a client sends the SYNs of one connection attempt, in seconds: with Linux's
/// `tcp_syn_linear_timeouts` = 4 and `tcp_syn_retries` = 6. Other systems send fewer.
const SYNS: [u64; 11] = [0, 1, 2, 3, 4, 5, 7, 11, 19, 35, 67];

/// Returns the sequence with each run of one knock as a single knock.
pub(super) fn without_runs(knocks: &[Knock]) -> Vec<Knock> {
    let mut runs = knocks.to_vec();
    runs.dedup();
    runs
}

/// Returns the length of the shortest part that, sent again and again, sends the whole sequence.
pub(super) fn period(knocks: &[Knock]) -> usize {
    let repeats = |length: &usize| {
        let shifted = knocks.iter().skip(*length);
        knocks
            .iter()
            .zip(shifted)
            .all(|(knock, later)| knock == later)
    };
    (1..=knocks.len()).find(repeats).unwrap_or(0)
}

pub(super) fn is_distinct(knocks: &[Knock]) -> bool {
    let distinct: HashSet<&Knock> = knocks.iter().collect();
    distinct.len() == knocks.len()
}

/// The repeated parts of a sequence.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Repetition {
    /// There is no entry.
    None,
    /// Returns the warning for a sequence that has only one knock, once or repeated.
    One {
        /// The knock.
        knock: Knock,
        /// How many there are.
        times: usize,
        /// Whether a client that tries to connect once sends them all.
        one_attempt: bool,
    },
    /// A knock comes several times in a row.
    Run {
        /// The knock.
        knock: Knock,
        /// How many times.
        times: usize,
    },
    /// A part of two or more knocks comes again.
    Part {
        /// How many knocks the part has, without runs.
        knocks: usize,
    },
}

/// Finds what is repeated in a door's sequence.
pub(crate) fn repetition(door: &Door, knocks: &[Knock]) -> Repetition {
    let runs = without_runs(knocks);
    if let [knock] = runs.as_slice() {
        return Repetition::One {
            knock: *knock,
            times: knocks.len(),
            one_attempt: is_one_attempt(door, *knock, knocks.len()),
        };
    }
    let part = period(&runs);
    if part < runs.len() {
        return Repetition::Part { knocks: part };
    }
    let longest = knocks.chunk_by(|a, b| a == b).max_by_key(|run| run.len());
    match longest {
        Some(run @ [knock, _, ..]) => Repetition::Run {
            knock: *knock,
            times: run.len(),
        },
        Some(_) | None => Repetition::None,
    }
}

/// Returns whether one connection attempt, whose SYN is sent again while nobody answers, is all of a run.
fn is_one_attempt(door: &Door, knock: Knock, times: usize) -> bool {
    let is_syn = knock.protocol == Protocol::Tcp && door.tcp_flags.admits(flag::SYN);
    // With a handshake each connection is one knock.
    if !is_syn || door.verify == Verify::Handshake {
        return times == 1 && is_syn;
    }
    let Some(sent) = SYNS.get(..times) else {
        return false;
    };
    let gaps = sent.iter().zip(sent.iter().skip(1));
    let longest_gap = gaps.map(|(before, after)| after - before).max();
    let last = sent.last().copied().unwrap_or_default();
    let fits = |limit: Duration, seconds: u64| Duration::from_secs(seconds) <= limit;
    fits(door.sequence_timeout, last)
        && door
            .step_timeout
            .is_none_or(|step| fits(step, longest_gap.unwrap_or_default()))
}
