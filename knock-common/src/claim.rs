//! The right to change how far a source has come.
//!
//! An attempt is a cell of `FIRST_KNOCKS` or a word of `PROGRESS`. Each changes in one step, but a packet
//! reads and writes both, and two CPUs that did so at once could both have their packet count. So
//! a CPU claims one more word by compare-and-exchange before it reads either place, and gives it
//! back when it has written them. All sources of a bucket of `FIRST_KNOCKS` share a claim.
//!
//! A CPU waits for a claim no longer than [`TRIES`] attempts take: the holder may be a virtual CPU
//! that does not run. Then it *spoils* the claim and removes the attempt of its own source, and the
//! holder, who sees that when it gives the claim back, removes the attempt that it was changing. A
//! packet that was not judged in its turn therefore ends attempts and never lets one go on.

use crate::{Env, env::Word};

/// How often a CPU tries to get a claim that another one holds: longer than a knock takes.
const TRIES: usize = 24;

const FREE: u64 = 0;
const HELD: u64 = 1;
const SPOILED: u64 = 2;

/// Claims the word in a slot; 0 if another CPU holds it for too long, which is then spoiled.
#[inline(always)]
pub fn take_slot<W: Env>(env: &W, slot: u32, tries: usize) -> u64 {
    let Some(word) = env.claim_word(slot) else {
        return 0;
    };
    for _ in 0..tries {
        if word.replace(FREE, HELD) {
            return 1;
        }
    }
    for _ in 0..tries {
        // Whoever holds it now wipes what it changes; if nobody does any more, it is free.
        if word.replace(HELD, SPOILED) || word.load() == SPOILED {
            return 0;
        }
        if word.replace(FREE, HELD) {
            return 1;
        }
    }
    0
}

/// [`take_slot`] with as many tries as suit a machine.
#[inline(always)]
pub fn take<W: Env>(env: &W, slot: u32) -> u64 {
    take_slot(env, slot, TRIES)
}

/// Gives a claim back; 0 if it was spoiled. Then it is still held, for [`clear`].
#[inline(always)]
pub fn give_back<W: Env>(env: &W, slot: u32) -> u64 {
    let word = env.claim_word(slot);
    word.is_some_and(|word| word.replace(HELD, FREE)).into()
}

/// Frees a spoiled claim.
#[inline(always)]
pub fn clear<W: Env>(env: &W, slot: u32) {
    if let Some(word) = env.claim_word(slot) {
        word.replace(SPOILED, FREE);
    }
}
