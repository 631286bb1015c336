//! Sequences that are easier to guess than their length suggests.

use knock_common::packet::Protocol;
use knock_sequence::Knock;

use crate::{
    model::settings::{Door, Verify},
    strength::{self, Repetition, SYMBOLS},
};

/// With fewer knocks a sequence is guessed in an hour of a few thousand tries a second.
const FEW_KNOCKS: usize = 2;

/// Why a door's sequence is easy to guess.
pub(super) fn reasons(door: &Door) -> Vec<String> {
    let knocks = &door.knock;
    let repeated = match strength::repetition(door, knocks) {
        Repetition::One {
            knock,
            times,
            one_attempt,
        } => return vec![one(door, knock, times, one_attempt)],
        Repetition::Part { knocks: part } => Some(format!(
            "the sequence repeats its first {part} knocks, so whoever sends those again and again \
             opens the door, and it is as hard to guess as {part} knocks: write others"
        )),
        Repetition::Run { knock, times } => Some(format!(
            "{knock} {} in a row counts as one knock, because a packet that the network doubles, \
             or a SYN that is sent again after a second, is the next: put another between",
            in_words(times)
        )),
        Repetition::None => None,
    };
    let counted = strength::counted(knocks);
    let few = (counted <= FEW_KNOCKS).then(|| {
        let tries = strength::blind_bits(SYMBOLS, counted) - 1.0;
        format!(
            "{counted} knocks are soon guessed, {} tries: write three or more",
            strength::number(tries)
        )
    });
    repeated.into_iter().chain(few).collect()
}

/// All knocks are the same.
fn one(door: &Door, knock: Knock, times: usize, one_attempt: bool) -> String {
    const CURE: &str = "write three or more different knocks";
    match (times, knock.protocol) {
        (1, Protocol::Tcp) if one_attempt => format!(
            "one knock: one connection attempt to {knock} opens this, and so does any scan; {CURE}"
        ),
        (1, _) => {
            format!("one knock: one packet to {knock} opens this, and so does any scan; {CURE}")
        }
        (_, Protocol::Tcp) if one_attempt => format!(
            "{knock} {} is one knock: one connection attempt opens this, because a client sends \
             its SYN again while nobody answers; {CURE}",
            in_words(times)
        ),
        (_, Protocol::Tcp) if door.verify == Verify::Handshake => format!(
            "{knock} {} is one knock: whoever connects to this one port again and again opens \
             this; {CURE}",
            in_words(times)
        ),
        (_, _) => format!(
            "{knock} {} is one knock: whoever sends packets to this one port opens this; {CURE}",
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
