//! HMAC-SHA1 (RFC 2104) of short texts.
//!
//! Functions are `inline(never)` where their variables would not fit into the caller's stack.

use bytemuck::{Pod, Zeroable};

use crate::sha1::{BLOCK_BYTES, BLOCK_WORDS, DIGEST_BYTES, DIGEST_WORDS, START, Sha1Work};

/// The capacity of a text: two blocks.
const TEXT_BYTES: usize = 2 * BLOCK_BYTES;
/// The longest key: with its padding it takes two blocks.
pub const KEY_MOST: usize = TEXT_BYTES - PADDING_LEAST;
/// The longest message: with its padding it takes one block.
pub const MESSAGE_MOST: usize = BLOCK_BYTES - PADDING_LEAST;
/// The least padding: the byte [`END`], and the length in 64 bits.
const PADDING_LEAST: usize = 9;
/// The byte that ends a text: a bit that is set.
const END: u8 = 0x80;

const INNER: u32 = 0x3636_3636;
const OUTER: u32 = 0x5c5c_5c5c;
/// Bits of the outer digest's input: the key block and the inner digest.
const OUTER_BITS: u32 = 8 * (BLOCK_BYTES + DIGEST_BYTES) as u32;

/// A short text.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct HashInput {
    bytes: [u8; TEXT_BYTES],
    length: u32,
}

impl HashInput {
    /// Removes all bytes.
    #[inline(always)]
    pub const fn clear(&mut self) {
        self.bytes = [0; TEXT_BYTES];
        self.length = 0;
    }

    /// Appends a byte; beyond the capacity it overwrites an earlier one.
    ///
    /// It is a function of its own, so that the verifier does not know the length and follows one path instead of one
    /// per length.
    #[inline(never)]
    pub fn push(&mut self, byte: u8) {
        let at = self.length as usize & (TEXT_BYTES - 1);
        if let Some(place) = self.bytes.get_mut(at) {
            *place = byte;
        }
        self.length = self.length.wrapping_add(1);
    }

    /// Returns the bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.length as usize).unwrap_or_default()
    }

    /// Reads the block at an offset, as big-endian numbers.
    #[inline(never)]
    fn block(&self, from: usize, block: &mut [u32; BLOCK_WORDS]) {
        for (word, at) in block.iter_mut().zip((from..).step_by(4)) {
            let byte = |after: usize| {
                let at = at.wrapping_add(after) & (TEXT_BYTES - 1);
                u32::from(self.bytes.get(at).copied().unwrap_or(0))
            };
            *word = byte(0) << 24 | byte(1) << 16 | byte(2) << 8 | byte(3);
        }
    }
}

/// The memory for a digest: 432 bytes, too many for the kernel's stack.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct HmacScratch {
    /// The key, of at most [`KEY_MOST`] bytes.
    pub key: HashInput,
    /// The message, of at most [`MESSAGE_MOST`] bytes.
    pub message: HashInput,
    /// The key as a block.
    key_block: [u32; BLOCK_WORDS],
    /// The inner digest.
    inner: [u32; DIGEST_WORDS],
    work: Sha1Work,
}

impl HmacScratch {
    /// Returns memory without key and message.
    pub fn empty() -> Self {
        Self::zeroed()
    }

    /// Computes the digest of the message with the key, as numbers, and overwrites both.
    ///
    /// `compress` is [`crate::sha1::compress`], which the kernel side calls as a subprogram.
    #[inline(always)]
    pub fn digest(&mut self, compress: impl Fn(&mut Sha1Work)) -> &[u32; DIGEST_WORDS] {
        let Self {
            key,
            message,
            key_block,
            inner,
            work,
        } = self;
        let key_bits = key.length.wrapping_mul(8);
        key.block(0, key_block);
        if key.length as usize > BLOCK_BYTES {
            key.push(END);
            begin(work, key_block, 0);
            compress(work);
            key.block(BLOCK_BYTES, &mut work.block);
            set_bits(&mut work.block, key_bits);
            compress(work);
            write_digest(key_block, &work.state);
        }

        begin(work, key_block, INNER);
        compress(work);
        let bits = message.length.wrapping_add(BLOCK_BYTES as u32);
        message.push(END);
        message.block(0, &mut work.block);
        set_bits(&mut work.block, bits.wrapping_mul(8));
        compress(work);

        *inner = work.state;
        begin(work, key_block, OUTER);
        compress(work);
        write_digest(&mut work.block, inner);
        if let Some(word) = work.block.get_mut(DIGEST_WORDS) {
            *word = u32::from(END) << 24;
        }
        set_bits(&mut work.block, OUTER_BITS);
        compress(work);
        &work.state
    }
}

/// Starts a digest, whose first block is the key XOR a mask.
#[inline(never)]
fn begin(work: &mut Sha1Work, key_block: &[u32; BLOCK_WORDS], mask: u32) {
    work.state = START;
    for (word, key) in work.block.iter_mut().zip(key_block) {
        *word = key ^ mask;
    }
}

/// Fills a block with a digest and zeros.
#[inline(never)]
fn write_digest(block: &mut [u32; BLOCK_WORDS], digest: &[u32; DIGEST_WORDS]) {
    *block = [0; BLOCK_WORDS];
    for (word, digest) in block.iter_mut().zip(digest) {
        *word = *digest;
    }
}

/// Writes the length of the input, in bits, to the end of the last block.
#[inline(always)]
const fn set_bits(block: &mut [u32; BLOCK_WORDS], bits: u32) {
    let [.., last] = block;
    *last = bits;
}
