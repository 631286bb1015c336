//! Claims: a CPU reserves an attempt while it changes the attempt.
//!
//! An attempt is a cell of `FIRST_KNOCKS` or a word of `PROGRESS`. Each changes atomically, but a packet
//! reads and writes both, and with two CPUs at once both packets could count. So a CPU claims one more word by
//! compare-and-exchange before it reads either of them, and gives the claim back after it has written them. All
//! sources of a bucket of `FIRST_KNOCKS` share a claim.
//!
//! A CPU tries [`TRIES`] times to get a claim, because the holder may be a virtual CPU that does not run. Then it
//! *spoils* the claim and removes the attempt of its own source. The holder sees that when it gives the claim
//! back, and removes the attempt that it was changing. A packet that got no claim therefore ends attempts and
//! never continues one.

use crate::{Env, env::Word};

/// How often a CPU tries to get a claim that another CPU holds: longer than a knock takes.
const TRIES: usize = 24;

const FREE: u64 = 0;
const HELD: u64 = 1;
const SPOILED: u64 = 2;

/// Claims the word in a slot if no CPU holds it.
#[inline(always)]
pub fn take_free<E: Env>(env: &E, slot: u32) -> bool {
    let word = env.claim_word(slot);
    word.is_some_and(|word| word.replace(FREE, HELD))
}

/// Claims the word in a slot; 0 if another CPU holds it for too long, whose claim is then spoiled.
#[inline(always)]
pub fn take_slot<E: Env>(env: &E, slot: u32, tries: usize) -> u64 {
    let Some(word) = env.claim_word(slot) else {
        return 0;
    };
    for _ in 0..tries {
        if word.replace(FREE, HELD) {
            return 1;
        }
    }
    for _ in 0..tries {
        // The holder then removes the attempt that it changes. If there is no holder, the word is free.
        if word.replace(HELD, SPOILED) || word.load() == SPOILED {
            return 0;
        }
        if word.replace(FREE, HELD) {
            return 1;
        }
    }
    0
}

/// Takes the slot with at most [`TRIES`] tries, by [`take_slot`].
#[inline(always)]
pub fn take<E: Env>(env: &E, slot: u32) -> u64 {
    take_slot(env, slot, TRIES)
}

/// Gives a claim back; 0 if it was spoiled. Then it is still held, for [`clear`].
#[inline(always)]
pub fn give_back<E: Env>(env: &E, slot: u32) -> u64 {
    let word = env.claim_word(slot);
    word.is_some_and(|word| word.replace(HELD, FREE)).into()
}

/// Frees a spoiled claim.
#[inline(always)]
pub fn clear<E: Env>(env: &E, slot: u32) {
    if let Some(word) = env.claim_word(slot) {
        word.replace(SPOILED, FREE);
    }
}
