//! HMAC-SHA256 (RFC 2104), with a key that is kept as two midstates.

use bytemuck::{Pod, Zeroable};

use crate::sha256::{
    self, BLOCK_BYTES, BLOCK_WORDS, DIGEST_BYTES, DIGEST_WORDS, END, START, Sha256Work, to_block,
};

const INNER: u32 = 0x3636_3636;
const OUTER: u32 = 0x5c5c_5c5c;

/// Bits of the outer digest's input: the key block and the inner digest.
const OUTER_BITS: u32 = 8 * (BLOCK_BYTES + DIGEST_BYTES) as u32;

/// The states after the two blocks that the key makes. Nothing else of the key is needed.
#[repr(C)]
#[derive(Clone, Copy, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct HmacKey {
    /// After the key XOR the inner mask.
    pub inner: [u32; DIGEST_WORDS],
    /// After the key XOR the outer mask.
    pub outer: [u32; DIGEST_WORDS],
}

/// The key is never printed.
impl core::fmt::Debug for HmacKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("HmacKey(…)")
    }
}

impl HmacKey {
    /// Derives the midstates of a key of any length. User space does this.
    pub fn new(key: &[u8]) -> Self {
        let hashed;
        let key = if key.len() > BLOCK_BYTES {
            hashed = sha256::to_bytes(sha256::digest(key));
            &hashed
        } else {
            key
        };
        let mut padded = [0; BLOCK_BYTES];
        for (to, from) in padded.iter_mut().zip(key) {
            *to = *from;
        }
        let block = to_block(&padded);
        let masked = |mask| {
            let mut work = Sha256Work {
                state: START,
                block: block.map(|word| word ^ mask),
            };
            sha256::compress(&mut work);
            work.state
        };
        Self {
            inner: masked(INNER),
            outer: masked(OUTER),
        }
    }

    /// Starts a digest: the caller then compresses the padded text, block by block.
    #[inline(always)]
    pub const fn begin(&self, work: &mut Sha256Work) {
        work.state = self.inner;
    }

    /// Ends a digest: turns the inner digest in `work.state` into the HMAC.
    ///
    /// `compress` is [`sha256::compress`], which the kernel side calls as a subprogram.
    #[inline(always)]
    pub fn finish(&self, work: &mut Sha256Work, compress: impl Fn(&mut Sha256Work)) {
        work.block = [0; BLOCK_WORDS];
        for (word, digest) in work.block.iter_mut().zip(work.state) {
            *word = digest;
        }
        let [.., end, _, _, _, _, _, _, bits] = &mut work.block;
        (*end, *bits) = (END, OUTER_BITS);
        work.state = self.outer;
        compress(work);
    }
}

/// Returns the number of bits that the padding of a text of `bytes` bytes names, with the key block before it.
#[inline(always)]
pub const fn text_bits(bytes: u32) -> u32 {
    bytes.wrapping_add(BLOCK_BYTES as u32).wrapping_mul(8)
}

/// Compares two digests, or the beginnings of two. It takes the same time wherever they differ.
#[inline(always)]
pub fn is_equal<const N: usize>(one: &[u32; N], other: &[u32; N]) -> bool {
    let mut difference = 0;
    for (one, other) in one.iter().zip(other) {
        difference |= one ^ other;
    }
    difference == 0
}

#[cfg(test)]
mod tests {
    use hmac::{Hmac, KeyInit as _, Mac as _};
    use proptest::{collection::vec, prelude::any, prop_assert_eq, proptest};
    use sha2::Sha256;

    use super::*;

    /// Returns the HMAC of whole blocks, as the kernel side computes it.
    fn of(key: &[u8], text: &[u8]) -> [u8; DIGEST_BYTES] {
        let key = HmacKey::new(key);
        let mut work = Sha256Work::default();
        key.begin(&mut work);
        let mut padded = text.to_vec();
        padded.push(0x80);
        padded.resize((text.len() + 9).next_multiple_of(BLOCK_BYTES), 0);
        let bits = text_bits(text.len() as u32).to_be_bytes();
        let end = padded.len();
        padded[end - bits.len()..].copy_from_slice(&bits);
        for block in padded.as_chunks().0 {
            work.block = to_block(block);
            sha256::compress(&mut work);
        }
        key.finish(&mut work, sha256::compress);
        sha256::to_bytes(work.state)
    }

    proptest! {
        #[test]
        fn digests_are_those_of_the_standard(key in vec(any::<u8>(), 0..150), text in vec(any::<u8>(), 0..300)) {
            let mut expected = Hmac::<Sha256>::new_from_slice(&key).unwrap();
            expected.update(&text);
            prop_assert_eq!(of(&key, &text), <[u8; DIGEST_BYTES]>::from(expected.finalize().into_bytes()));
        }
    }

    #[test]
    fn digests_that_differ_in_one_bit_are_not_equal() {
        let digest = [0x0123_4567; DIGEST_WORDS];
        assert!(is_equal(&digest, &digest));
        for bit in 0..8 * DIGEST_BYTES {
            let mut other = digest;
            other[bit / 32] ^= 1 << (bit % 32);
            assert!(!is_equal(&digest, &other), "bit {bit}");
        }
    }
}
