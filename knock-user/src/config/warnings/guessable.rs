//! Warns of sequences that are easier to guess than their length suggests.

use knock_common::packet::Protocol;
use knock_sequence::Knock;

use crate::{
    model::settings::{Door, Verify},
    strength::{self, Repetition, SYMBOLS},
};

/// A sequence of at most this many knocks is guessed within an hour at some thousand tries a
/// second.
const FEW_KNOCKS: usize = 2;

/// Returns why a door's sequence is easy to guess.
pub(super) fn reasons(door: &Door) -> Vec<String> {
    let knocks = &door.knock;
    let repeated = match strength::repetition(door, knocks) {
        Repetition::One {
            knock,
            times,
            one_attempt,
        } => return vec![one(door, knock, times, one_attempt)],
        Repetition::Part { knocks: part } => Some(format!(
            "the sequence repeats its first {part} knocks, so it is no harder to guess than \
             those: write other knocks after them"
        )),
        Repetition::Run { knock, times } => Some(format!(
            "{knock} {} in a row counts as one knock, because a duplicated packet or a \
             retransmitted SYN is taken for the next: put another knock in between",
            in_words(times)
        )),
        Repetition::None => None,
    };
    let counted = strength::counted(knocks);
    let few = (counted <= FEW_KNOCKS).then(|| {
        let tries = strength::blind_bits(SYMBOLS, counted) - 1.0;
        format!(
            "{counted} different knocks are guessed in {} tries: write three or more",
            strength::number(tries)
        )
    });
    repeated.into_iter().chain(few).collect()
}

/// Returns the warning for a sequence that has only one knock, once or repeated.
fn one(door: &Door, knock: Knock, times: usize, one_attempt: bool) -> String {
    const CURE: &str = "write three or more different knocks";
    match (times, knock.protocol) {
        (1, Protocol::Tcp) if one_attempt => format!(
            "one connection attempt to {knock} opens this door, and so does any port scan: {CURE}"
        ),
        (1, _) => {
            format!("one packet to {knock} opens this door, and so does any port scan: {CURE}")
        }
        (_, Protocol::Tcp) if one_attempt => format!(
            "{knock} {}: one connection attempt opens this door, because a client that gets no \
             reply retransmits its SYN: {CURE}",
            in_words(times)
        ),
        (_, Protocol::Tcp) if door.verify == Verify::Handshake => format!(
            "{knock} {}: repeated connections to this one port open this door: {CURE}",
            in_words(times)
        ),
        (_, _) => format!(
            "{knock} {}: repeated packets to this one port open this door: {CURE}",
            in_words(times)
        ),
    }
}

fn in_words(times: usize) -> String {
    match times {
        2 => "twice".to_owned(),
        times => format!("{times} times"),
    }
}
