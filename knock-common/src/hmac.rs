//! HMAC-SHA1 (RFC 2104) of short texts.
//!
//! What is `inline(never)` here would take its part of the stack of the one who calls.

use bytemuck::{Pod, Zeroable};

use crate::sha1::{BLOCK_BYTES, BLOCK_WORDS, DIGEST_BYTES, DIGEST_WORDS, START, Work};

/// Bytes that a text has room for: two blocks.
const TEXT_BYTES: usize = 2 * BLOCK_BYTES;
/// The longest text that can be a key: it and what pads it are two blocks.
pub const KEY_MOST: usize = TEXT_BYTES - PADDING_LEAST;
/// The longest text that can be a message: it and what pads it are one block.
pub const MESSAGE_MOST: usize = BLOCK_BYTES - PADDING_LEAST;
/// A bit that is set, and the length in 64 bits.
const PADDING_LEAST: usize = 9;
/// The bit that ends a text, as a byte.
const END: u8 = 0x80;

const INNER: u32 = 0x3636_3636;
const OUTER: u32 = 0x5c5c_5c5c;
/// Bits of what the outer digest is of: the key as a block, and the inner digest.
const OUTER_BITS: u32 = 8 * (BLOCK_BYTES + DIGEST_BYTES) as u32;

/// A short text.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct HashInput {
    bytes: [u8; TEXT_BYTES],
    length: u32,
}

impl HashInput {
    /// Takes everything out.
    #[inline(always)]
    pub const fn clear(&mut self) {
        self.bytes = [0; TEXT_BYTES];
        self.length = 0;
    }

    /// Adds a byte; one too many overwrites an earlier one.
    ///
    /// A function of its own, because the verifier then does not know the length, and so has not
    /// to follow each length that there can be.
    #[inline(never)]
    pub fn push(&mut self, byte: u8) {
        let at = self.length as usize & (TEXT_BYTES - 1);
        if let Some(place) = self.bytes.get_mut(at) {
            *place = byte;
        }
        self.length = self.length.wrapping_add(1);
    }

    /// The bytes in it.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.length as usize).unwrap_or_default()
    }

    /// The block that begins with this byte, as numbers.
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

/// What a digest is worked out in: 432 bytes, too many for the kernel's stack.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Scratch {
    /// The key, of at most [`KEY_MOST`] bytes.
    pub key: HashInput,
    /// The message, of at most [`MESSAGE_MOST`] bytes.
    pub message: HashInput,
    /// The key as a block.
    key_block: [u32; BLOCK_WORDS],
    /// The digest of the message, before it is hashed once more.
    inner: [u32; DIGEST_WORDS],
    work: Work,
}

impl Scratch {
    /// Without key and message.
    pub fn empty() -> Self {
        Self::zeroed()
    }

    /// The digest of the message under the key, as numbers. Both are used up.
    ///
    /// `compress` is [`crate::sha1::compress`], which the kernel side has as a part of its own.
    #[inline(always)]
    pub fn digest(&mut self, compress: impl Fn(&mut Work)) -> &[u32; DIGEST_WORDS] {
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

/// A new digest, whose first block is the key under a mask.
#[inline(never)]
fn begin(work: &mut Work, key_block: &[u32; BLOCK_WORDS], mask: u32) {
    work.state = START;
    for (word, key) in work.block.iter_mut().zip(key_block) {
        *word = key ^ mask;
    }
}

/// Makes a block of a digest and zeros.
#[inline(never)]
fn write_digest(block: &mut [u32; BLOCK_WORDS], digest: &[u32; DIGEST_WORDS]) {
    *block = [0; BLOCK_WORDS];
    for (word, digest) in block.iter_mut().zip(digest) {
        *word = *digest;
    }
}

/// Writes the length of all that was hashed, in bits, to the end of the last block.
#[inline(always)]
const fn set_bits(block: &mut [u32; BLOCK_WORDS], bits: u32) {
    let [.., last] = block;
    *last = bits;
}
