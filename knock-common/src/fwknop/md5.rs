//! MD5 (RFC 1321), as far as the derivation of fwknop's keys needs it.
//!
//! Nothing depends on its resistance to collisions: it only expands a passphrase into a key, and HMAC-SHA256
//! authenticates the packet.

use bytemuck::{Pod, Zeroable};

/// Words in a block.
pub const BLOCK_WORDS: usize = 16;
/// Bytes in a block.
pub const BLOCK_BYTES: usize = 64;
/// Words in a digest.
pub const DIGEST_WORDS: usize = 4;
/// The most bytes of text in the last block, which also has an end mark and the length.
pub const ROOM: u32 = 55;

/// The state before the first block.
pub const START: [u32; DIGEST_WORDS] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476];

const STEPS: usize = 64;

#[rustfmt::skip]
static CONSTANTS: [u32; STEPS] = [
    0xd76a_a478, 0xe8c7_b756, 0x2420_70db, 0xc1bd_ceee, 0xf57c_0faf, 0x4787_c62a, 0xa830_4613, 0xfd46_9501,
    0x6980_98d8, 0x8b44_f7af, 0xffff_5bb1, 0x895c_d7be, 0x6b90_1122, 0xfd98_7193, 0xa679_438e, 0x49b4_0821,
    0xf61e_2562, 0xc040_b340, 0x265e_5a51, 0xe9b6_c7aa, 0xd62f_105d, 0x0244_1453, 0xd8a1_e681, 0xe7d3_fbc8,
    0x21e1_cde6, 0xc337_07d6, 0xf4d5_0d87, 0x455a_14ed, 0xa9e3_e905, 0xfcef_a3f8, 0x676f_02d9, 0x8d2a_4c8a,
    0xfffa_3942, 0x8771_f681, 0x6d9d_6122, 0xfde5_380c, 0xa4be_ea44, 0x4bde_cfa9, 0xf6bb_4b60, 0xbebf_bc70,
    0x289b_7ec6, 0xeaa1_27fa, 0xd4ef_3085, 0x0488_1d05, 0xd9d4_d039, 0xe6db_99e5, 0x1fa2_7cf8, 0xc4ac_5665,
    0xf429_2244, 0x432a_ff97, 0xab94_23a7, 0xfc93_a039, 0x655b_59c3, 0x8f0c_cc92, 0xffef_f47d, 0x8584_5dd1,
    0x6fa8_7e4f, 0xfe2c_e6e0, 0xa301_4314, 0x4e08_11a1, 0xf753_7e82, 0xbd3a_f235, 0x2ad7_d2bb, 0xeb86_d391,
];

/// A state and the next block.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub struct Md5Work {
    /// The digest of the blocks so far.
    pub state: [u32; DIGEST_WORDS],
    /// The next block, as numbers.
    pub block: [u32; BLOCK_WORDS],
}

/// Adds the block to the state.
#[inline(always)]
pub fn compress(work: &mut Md5Work) {
    let Md5Work { state, block } = work;
    let [mut a, mut b, mut c, mut d] = *state;
    // Four steps at a time: after them the variables are in their places again.
    macro_rules! round {
        ($from:literal, $mix:expr, $times:literal, $plus:literal, $shifts:expr) => {
            let mut step = $from;
            while step < $from + BLOCK_WORDS {
                for shift in $shifts {
                    let word = step.wrapping_mul($times).wrapping_add($plus) & (BLOCK_WORDS - 1);
                    let mix: fn(u32, u32, u32) -> u32 = $mix;
                    let sum = a
                        .wrapping_add(mix(b, c, d))
                        .wrapping_add(CONSTANTS.get(step & (STEPS - 1)).copied().unwrap_or(0))
                        .wrapping_add(block.get(word).copied().unwrap_or(0));
                    (a, d, c, b) = (d, c, b, b.wrapping_add(sum.rotate_left(shift)));
                    step = step.wrapping_add(1);
                }
            }
        };
    }
    round!(0, |b, c, d| d ^ (b & (c ^ d)), 1, 0, [7, 12, 17, 22]);
    round!(16, |b, c, d| c ^ (d & (b ^ c)), 5, 1, [5, 9, 14, 20]);
    round!(32, |b, c, d| b ^ c ^ d, 3, 5, [4, 11, 16, 23]);
    round!(48, |b, c, d| c ^ (b | !d), 7, 0, [6, 10, 15, 21]);
    for (word, more) in state.iter_mut().zip([a, b, c, d]) {
        *word = word.wrapping_add(more);
    }
}
