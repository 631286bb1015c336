//! SHA-256 (FIPS 180-4), as far as HMAC needs it.
//!
//! It is written for the verifier and its 512-byte stack: eight rounds are unrolled, so that no variable moves, and run
//! eight times, so that no word of the schedule is kept outside the block.

use bytemuck::{Pod, Zeroable};

/// Words in a block.
pub const BLOCK_WORDS: usize = 16;
/// Bytes in a block.
pub const BLOCK_BYTES: usize = 64;
/// Words in a digest.
pub const DIGEST_WORDS: usize = 8;
/// Bytes in a digest.
pub const DIGEST_BYTES: usize = 32;

/// The state before the first block.
pub const START: [u32; DIGEST_WORDS] = [
    0x6a09_e667,
    0xbb67_ae85,
    0x3c6e_f372,
    0xa54f_f53a,
    0x510e_527f,
    0x9b05_688c,
    0x1f83_d9ab,
    0x5be0_cd19,
];

/// The word that ends a text of whole words: a bit that is set.
pub const END: u32 = 0x8000_0000;
/// The same as a byte.
const END_BYTE: u8 = 0x80;
/// Bytes of text that the last block has room for, beside [`END_BYTE`] and the length in 64 bits.
const ROOM: usize = BLOCK_BYTES - 1 - size_of::<u64>();

const ROUNDS: usize = 64;
/// The rounds that are unrolled: after them the variables are in their places again.
const UNROLLED: usize = 8;

#[rustfmt::skip]
static CONSTANTS: [u32; ROUNDS] = [
    0x428a_2f98, 0x7137_4491, 0xb5c0_fbcf, 0xe9b5_dba5, 0x3956_c25b, 0x59f1_11f1, 0x923f_82a4, 0xab1c_5ed5,
    0xd807_aa98, 0x1283_5b01, 0x2431_85be, 0x550c_7dc3, 0x72be_5d74, 0x80de_b1fe, 0x9bdc_06a7, 0xc19b_f174,
    0xe49b_69c1, 0xefbe_4786, 0x0fc1_9dc6, 0x240c_a1cc, 0x2de9_2c6f, 0x4a74_84aa, 0x5cb0_a9dc, 0x76f9_88da,
    0x983e_5152, 0xa831_c66d, 0xb003_27c8, 0xbf59_7fc7, 0xc6e0_0bf3, 0xd5a7_9147, 0x06ca_6351, 0x1429_2967,
    0x27b7_0a85, 0x2e1b_2138, 0x4d2c_6dfc, 0x5338_0d13, 0x650a_7354, 0x766a_0abb, 0x81c2_c92e, 0x9272_2c85,
    0xa2bf_e8a1, 0xa81a_664b, 0xc24b_8b70, 0xc76c_51a3, 0xd192_e819, 0xd699_0624, 0xf40e_3585, 0x106a_a070,
    0x19a4_c116, 0x1e37_6c08, 0x2748_774c, 0x34b0_bcb5, 0x391c_0cb3, 0x4ed8_aa4a, 0x5b9c_ca4f, 0x682e_6ff3,
    0x748f_82ee, 0x78a5_636f, 0x84c8_7814, 0x8cc7_0208, 0x90be_fffa, 0xa450_6ceb, 0xbef9_a3f7, 0xc671_78f2,
];

/// A state and the next block.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub struct Sha256Work {
    /// The digest of the blocks so far.
    pub state: [u32; DIGEST_WORDS],
    /// The next block, as numbers.
    pub block: [u32; BLOCK_WORDS],
}

/// Adds the block to the state, and overwrites the block.
#[inline(always)]
pub fn compress(work: &mut Sha256Work) {
    let Sha256Work { state, block } = work;
    let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = *state;
    let mut first = 0_usize;
    while first < ROUNDS {
        macro_rules! round {
            ($a:ident $b:ident $c:ident $d:ident $e:ident $f:ident $g:ident $h:ident, $after:literal) => {
                let at = |more: usize| first.wrapping_add(more).wrapping_add($after) & (BLOCK_WORDS - 1);
                let mut word = block.get(at(0)).copied().unwrap_or(0);
                if first >= BLOCK_WORDS {
                    word = word
                        .wrapping_add(sigma_1(block.get(at(14)).copied().unwrap_or(0)))
                        .wrapping_add(block.get(at(9)).copied().unwrap_or(0))
                        .wrapping_add(sigma_0(block.get(at(1)).copied().unwrap_or(0)));
                    if let Some(place) = block.get_mut(at(0)) {
                        *place = word;
                    }
                }
                let mixed = $h
                    .wrapping_add(sum_1($e))
                    .wrapping_add($g ^ ($e & ($f ^ $g)))
                    .wrapping_add(constant(first.wrapping_add($after)))
                    .wrapping_add(word);
                $d = $d.wrapping_add(mixed);
                $h = mixed
                    .wrapping_add(sum_0($a))
                    .wrapping_add(($a & $b) | ($c & ($a | $b)));
            };
        }
        round!(a b c d e f g h, 0);
        round!(h a b c d e f g, 1);
        round!(g h a b c d e f, 2);
        round!(f g h a b c d e, 3);
        round!(e f g h a b c d, 4);
        round!(d e f g h a b c, 5);
        round!(c d e f g h a b, 6);
        round!(b c d e f g h a, 7);
        first = first.wrapping_add(UNROLLED);
    }
    for (word, more) in state.iter_mut().zip([a, b, c, d, e, f, g, h]) {
        *word = word.wrapping_add(more);
    }
}

/// Returns the digest of a text. It is for user space; the verifier accepts no text of unknown length.
pub fn digest(text: &[u8]) -> [u32; DIGEST_WORDS] {
    let mut work = Sha256Work {
        state: START,
        block: [0; BLOCK_WORDS],
    };
    let (whole, rest) = text.as_chunks::<BLOCK_BYTES>();
    for block in whole {
        work.block = to_block(block);
        compress(&mut work);
    }
    let mut last = [0; BLOCK_BYTES];
    for (byte, from) in last.iter_mut().zip(rest.iter().chain(&[END_BYTE])) {
        *byte = *from;
    }
    work.block = to_block(&last);
    if rest.len() > ROOM {
        compress(&mut work);
        work.block = [0; BLOCK_WORDS];
    }
    let bits = (text.len() as u64).wrapping_mul(8);
    let [.., high, low] = &mut work.block;
    (*high, *low) = ((bits >> 32) as u32, bits as u32);
    compress(&mut work);
    work.state
}

/// Returns a digest as bytes.
pub fn to_bytes(digest: [u32; DIGEST_WORDS]) -> [u8; DIGEST_BYTES] {
    bytemuck::cast(digest.map(u32::to_be))
}

/// Reads a block as numbers.
pub(crate) fn to_block(bytes: &[u8; BLOCK_BYTES]) -> [u32; BLOCK_WORDS] {
    let mut block = [0; BLOCK_WORDS];
    for (word, bytes) in block.iter_mut().zip(bytes.as_chunks().0) {
        *word = u32::from_be_bytes(*bytes);
    }
    block
}

/// Returns the constant of a round.
#[inline(always)]
fn constant(round: usize) -> u32 {
    CONSTANTS.get(round & (ROUNDS - 1)).copied().unwrap_or(0)
}

/// Returns the word twice in a row. BPF has no rotation: a shift of this is one.
#[inline(always)]
fn twice(word: u32) -> u64 {
    u64::from(word) | u64::from(word) << 32
}

/// Returns the word rotated right by 2, 13 and 22 bits.
#[inline(always)]
fn sum_0(word: u32) -> u32 {
    let word = twice(word);
    (((((word >> 9) ^ word) >> 11) ^ word) >> 2) as u32
}

/// Returns the word rotated right by 6, 11 and 25 bits.
#[inline(always)]
fn sum_1(word: u32) -> u32 {
    let word = twice(word);
    (((((word >> 14) ^ word) >> 5) ^ word) >> 6) as u32
}

/// Returns the word rotated right by 7 and 18 bits and shifted by 3.
#[inline(always)]
fn sigma_0(word: u32) -> u32 {
    let twice = twice(word);
    ((((twice >> 11) ^ twice) >> 7) as u32) ^ (word >> 3)
}

/// Returns the word rotated right by 17 and 19 bits and shifted by 10.
#[inline(always)]
fn sigma_1(word: u32) -> u32 {
    let twice = twice(word);
    ((((twice >> 2) ^ twice) >> 17) as u32) ^ (word >> 10)
}

#[cfg(test)]
mod tests {
    use sha2::{Digest as _, Sha256};

    use super::*;

    #[test]
    fn digests_are_those_of_the_standard() {
        let text: Vec<u8> = (0..300_u16).map(|byte| (byte * 7) as u8).collect();
        for length in 0..=text.len() {
            let text = &text[..length];
            let expected: [u8; DIGEST_BYTES] = Sha256::digest(text).into();
            assert_eq!(to_bytes(digest(text)), expected, "{length} bytes");
        }
    }
}
