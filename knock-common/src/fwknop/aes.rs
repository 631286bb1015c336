//! AES-256 decryption (FIPS 197), with tables.
//!
//! The time of a lookup depends on the key. Only packets with a valid HMAC get here, and no packet is answered.

use bytemuck::{Pod, Zeroable};

/// Words in a block.
pub const BLOCK_WORDS: usize = 4;
/// Bytes in a block.
pub const BLOCK_BYTES: usize = 16;
/// Words in a key.
pub const KEY_WORDS: usize = 8;

/// Words of the expanded key.
const ROUND_KEY_WORDS: usize = 60;
/// A power of two, so that a mask keeps an index within it.
const KEYS: usize = 64;

/// A key and a block.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct AesWork {
    /// The key in the first eight words, then, after [`expand`], the keys of the rounds.
    pub keys: [u32; KEYS],
    /// The block, as numbers.
    pub block: [u32; BLOCK_WORDS],
}

const fn double(byte: u8) -> u8 {
    byte << 1 ^ if byte & 0x80 != 0 { 0x1b } else { 0 }
}

const fn product(mut one: u8, mut other: u8) -> u8 {
    let mut sum = 0;
    while other != 0 {
        if other & 1 != 0 {
            sum ^= one;
        }
        one = double(one);
        other >>= 1;
    }
    sum
}

/// The S-box: the inverse of each element, and an affine map. Powers of a generator and of its inverse run through all
/// pairs.
#[expect(clippy::indexing_slicing, reason = "the compiler evaluates it")]
const SUBSTITUTE: [u8; 256] = {
    let mut substitute = [0; 256];
    substitute[0] = 0x63;
    let (mut power, mut inverse) = (1_u8, 1_u8);
    loop {
        power ^= double(power);
        inverse ^= inverse << 1;
        inverse ^= inverse << 2;
        inverse ^= inverse << 4;
        if inverse & 0x80 != 0 {
            inverse ^= 0x09;
        }
        substitute[power as usize] = 0x63
            ^ inverse
            ^ inverse.rotate_left(1)
            ^ inverse.rotate_left(2)
            ^ inverse.rotate_left(3)
            ^ inverse.rotate_left(4);
        if power == 1 {
            break;
        }
    }
    substitute
};

#[expect(clippy::indexing_slicing, reason = "the compiler evaluates it")]
const RESTORE: [u8; 256] = {
    let mut restore = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        restore[SUBSTITUTE[byte] as usize] = byte as u8;
        byte += 1;
    }
    restore
};

/// The inverse S-box, then the inverse of the mixing of columns, of a byte at one of four places.
#[expect(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "the compiler evaluates it"
)]
const fn columns(place: u32) -> [u32; 256] {
    let mut columns = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let restored = RESTORE[byte];
        let column = [
            product(restored, 14),
            product(restored, 9),
            product(restored, 13),
            product(restored, 11),
        ];
        columns[byte] = u32::from_be_bytes(column).rotate_right(8 * place);
        byte += 1;
    }
    columns
}

static S_BOX: [u8; 256] = SUBSTITUTE;
static INVERSE_S_BOX: [u8; 256] = RESTORE;
static COLUMNS: [[u32; 256]; 4] = [columns(0), columns(1), columns(2), columns(3)];

/// Returns the byte of a word at a place; 0 is the first in memory.
#[inline(always)]
fn byte(word: u32, place: u32) -> usize {
    (word >> (24_u32.wrapping_sub(place.wrapping_mul(8)) & 31)) as usize & 0xff
}

#[inline(always)]
fn look_up(table: &[u8; 256], index: usize) -> u32 {
    table.get(index & 0xff).copied().unwrap_or(0).into()
}

/// Looks up the byte of a word at a place, and leaves it there.
#[inline(always)]
fn replaced(table: &[u8; 256], word: u32, place: u32) -> u32 {
    look_up(table, byte(word, place)) << (24_u32.wrapping_sub(place.wrapping_mul(8)) & 31)
}

#[inline(always)]
fn column(place: usize, byte: usize) -> u32 {
    let columns = COLUMNS
        .get(place & 3)
        .and_then(|table| table.get(byte & 0xff));
    columns.copied().unwrap_or(0)
}

#[inline(always)]
fn key(keys: &[u32; KEYS], index: usize) -> u32 {
    keys.get(index & (KEYS - 1)).copied().unwrap_or(0)
}

#[inline(always)]
fn substitute(word: u32) -> u32 {
    replaced(&S_BOX, word, 0)
        | replaced(&S_BOX, word, 1)
        | replaced(&S_BOX, word, 2)
        | replaced(&S_BOX, word, 3)
}

/// Expands the key, for decryption with the equivalent inverse cipher.
#[inline(always)]
pub fn expand(work: &mut AesWork) {
    let keys = &mut work.keys;
    let mut constant = 1_u32 << 24;
    let mut index = KEY_WORDS;
    while index < ROUND_KEY_WORDS {
        let before = key(keys, index.wrapping_sub(1));
        let mixed = match index & (KEY_WORDS - 1) {
            0 => {
                let mixed = substitute(before.rotate_left(8)) ^ constant;
                constant <<= 1;
                mixed
            }
            4 => substitute(before),
            _ => before,
        };
        let word = key(keys, index.wrapping_sub(KEY_WORDS)) ^ mixed;
        if let Some(place) = keys.get_mut(index & (KEYS - 1)) {
            *place = word;
        }
        index = index.wrapping_add(1);
    }
    let mut index = BLOCK_WORDS;
    while index < ROUND_KEY_WORDS - BLOCK_WORDS {
        let word = key(keys, index);
        let mixed =
            |place: u32| column(place as usize, look_up(&S_BOX, byte(word, place)) as usize);
        let word = mixed(0) ^ mixed(1) ^ mixed(2) ^ mixed(3);
        if let Some(place) = keys.get_mut(index & (KEYS - 1)) {
            *place = word;
        }
        index = index.wrapping_add(1);
    }
}

/// Decrypts the block with an expanded key.
#[inline(always)]
pub fn decrypt(work: &mut AesWork) {
    let AesWork { keys, block } = work;
    let mut round = ROUND_KEY_WORDS - BLOCK_WORDS;
    let [mut a, mut b, mut c, mut d] = *block;
    a ^= key(keys, round);
    b ^= key(keys, round.wrapping_add(1));
    c ^= key(keys, round.wrapping_add(2));
    d ^= key(keys, round.wrapping_add(3));
    round = round.wrapping_sub(BLOCK_WORDS);
    while round > 0 {
        let mixed = |words: [u32; 4], index: usize| {
            let [w, x, y, z] = words;
            column(0, byte(w, 0))
                ^ column(1, byte(x, 1))
                ^ column(2, byte(y, 2))
                ^ column(3, byte(z, 3))
                ^ key(keys, round.wrapping_add(index))
        };
        (a, b, c, d) = (
            mixed([a, d, c, b], 0),
            mixed([b, a, d, c], 1),
            mixed([c, b, a, d], 2),
            mixed([d, c, b, a], 3),
        );
        round = round.wrapping_sub(BLOCK_WORDS);
    }
    let last = |words: [u32; 4], index: usize| {
        let [w, x, y, z] = words;
        let table = &INVERSE_S_BOX;
        (replaced(table, w, 0)
            | replaced(table, x, 1)
            | replaced(table, y, 2)
            | replaced(table, z, 3))
            ^ key(keys, index)
    };
    *block = [
        last([a, d, c, b], 0),
        last([b, a, d, c], 1),
        last([c, b, a, d], 2),
        last([d, c, b, a], 3),
    ];
}
