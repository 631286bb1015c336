//! SHA-1 (FIPS 180-4), as far as HMAC needs it.
//!
//! It is written for the verifier: one round per iteration on words in memory, so that the 512-byte stack holds nothing
//! and no index is unknown. SHA-1 no longer resists collisions, which time-based sequences do not depend on.

use bytemuck::{Pod, Zeroable};

/// Words in a block.
pub const BLOCK_WORDS: usize = 16;
/// Bytes in a block.
pub const BLOCK_BYTES: usize = 64;
/// Words in a digest.
pub const DIGEST_WORDS: usize = 5;
/// Bytes in a digest.
pub const DIGEST_BYTES: usize = 20;

/// The state before the first block.
pub const START: [u32; DIGEST_WORDS] = [
    0x6745_2301,
    0xefcd_ab89,
    0x98ba_dcfe,
    0x1032_5476,
    0xc3d2_e1f0,
];

const ROUNDS: usize = 80;

/// A state and the next block.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub struct Sha1Work {
    /// The digest of the blocks so far.
    pub state: [u32; DIGEST_WORDS],
    /// The next block, as numbers.
    pub block: [u32; BLOCK_WORDS],
}

/// Adds the block to the state, and overwrites the block.
#[inline(always)]
pub fn compress(work: &mut Sha1Work) {
    let Sha1Work { state, block } = work;
    let [mut a, mut b, mut c, mut d, mut e] = *state;
    for round in 0..ROUNDS {
        let (mix, constant) = match round {
            0..20 => (d ^ (b & (c ^ d)), 0x5a82_7999_u32),
            20..40 => (b ^ c ^ d, 0x6ed9_eba1),
            40..60 => ((b & c) | (d & (b | c)), 0x8f1b_bcdc),
            _ => (b ^ c ^ d, 0xca62_c1d6),
        };
        let next = a
            .rotate_left(5)
            .wrapping_add(mix)
            .wrapping_add(e)
            .wrapping_add(constant)
            .wrapping_add(scheduled(block, round));
        (e, d, c, b, a) = (d, c, b.rotate_left(30), a, next);
    }
    for (word, more) in state.iter_mut().zip([a, b, c, d, e]) {
        *word = word.wrapping_add(more);
    }
}

/// Returns the schedule's word for a round. It overwrites the word of sixteen rounds before.
#[inline(always)]
fn scheduled(block: &mut [u32; BLOCK_WORDS], round: usize) -> u32 {
    let word = |block: &[u32; BLOCK_WORDS], after: usize| {
        let index = round.wrapping_add(after) & (BLOCK_WORDS - 1);
        block.get(index).copied().unwrap_or(0)
    };
    if round < BLOCK_WORDS {
        return word(block, 0);
    }
    let mixed = word(block, 13) ^ word(block, 8) ^ word(block, 2) ^ word(block, 0);
    let mixed = mixed.rotate_left(1);
    if let Some(place) = block.get_mut(round & (BLOCK_WORDS - 1)) {
        *place = mixed;
    }
    mixed
}
