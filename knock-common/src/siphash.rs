//! SipHash-2-4 (Aumasson and Bernstein, 2012) of whole words, with results of 64 and of 128 bits.

/// A secret key.
pub type SipKey = [u64; 2];

/// Computes 64 bits of little-endian words.
#[inline(always)]
pub fn siphash<const N: usize>(key: SipKey, words: [u64; N]) -> u64 {
    let mut state = SipState::new(key);
    state.absorb(words);
    let SipState([_, _, c, _]) = &mut state;
    *c ^= 0xff;
    state.finalize()
}

/// Computes 128 bits of little-endian words.
#[inline(always)]
pub fn siphash_128<const N: usize>(key: SipKey, words: [u64; N]) -> [u64; 2] {
    let mut state = SipState::new(key);
    let SipState([_, b, _, _]) = &mut state;
    *b ^= 0xee;
    state.absorb(words);
    let SipState([_, _, c, _]) = &mut state;
    *c ^= 0xee;
    let low = state.finalize();
    let SipState([_, b, _, _]) = &mut state;
    *b ^= 0xdd;
    [low, state.finalize()]
}

struct SipState([u64; 4]);

impl SipState {
    #[inline(always)]
    const fn new([k0, k1]: SipKey) -> Self {
        Self([
            k0 ^ 0x736f_6d65_7073_6575,
            k1 ^ 0x646f_7261_6e64_6f6d,
            k0 ^ 0x6c79_6765_6e65_7261,
            k1 ^ 0x7465_6462_7974_6573,
        ])
    }

    #[inline(always)]
    fn round(&mut self) {
        let [mut a, mut b, mut c, mut d] = self.0;
        a = a.wrapping_add(b);
        b = b.rotate_left(13) ^ a;
        a = a.rotate_left(32);
        c = c.wrapping_add(d);
        d = d.rotate_left(16) ^ c;
        a = a.wrapping_add(d);
        d = d.rotate_left(21) ^ a;
        c = c.wrapping_add(b);
        b = b.rotate_left(17) ^ c;
        c = c.rotate_left(32);
        self.0 = [a, b, c, d];
    }

    #[inline(always)]
    fn compress(&mut self, word: u64) {
        let [_, _, _, d] = &mut self.0;
        *d ^= word;
        self.round();
        self.round();
        let [a, _, _, _] = &mut self.0;
        *a ^= word;
    }

    /// Compresses all words and their length.
    #[inline(always)]
    fn absorb<const N: usize>(&mut self, words: [u64; N]) {
        for word in words {
            self.compress(word);
        }
        // The last word holds the length in octets.
        self.compress((N as u64) << 59);
    }

    #[inline(always)]
    fn finalize(&mut self) -> u64 {
        self.round();
        self.round();
        self.round();
        self.round();
        let [a, b, c, d] = self.0;
        a ^ b ^ c ^ d
    }
}

#[cfg(test)]
mod tests {
    use std::{hash::Hasher as _, vec::Vec};

    use proptest::prelude::*;
    use siphasher::{sip::SipHasher24, sip128};

    use super::*;

    #[test]
    fn hashes_are_those_of_the_published_vectors() {
        // From the reference implementation: key 00 01 … 0f, input 00 01 ….
        let key = [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908];
        let word = |index: u64| 0x0706_0504_0302_0100 + index * 0x0808_0808_0808_0808;
        let one = [word(0)];
        let two = [word(0), word(1)];
        for (name, hash, expected) in [
            ("0 octets", siphash(key, []), 0x726f_db47_dd0e_0e31),
            ("8 octets", siphash(key, one), 0x93f5_f579_9a93_2462),
            ("16 octets", siphash(key, two), 0x3f2a_cc7f_57c2_9bdb),
        ] {
            assert_eq!(hash, expected, "{name}");
        }
        let empty = [0xe6a8_25ba_047f_81a3, 0x9302_55c7_1472_f66d];
        assert_eq!(siphash_128(key, []), empty, "0 octets, 128 bits");
    }

    proptest! {
        #[test]
        fn results_agree_with_another_implementation(key: SipKey, words: [u64; 8], fewer: [u64; 2]) {
            fn check<const N: usize>(key @ [k0, k1]: SipKey, words: [u64; N]) {
                let octets: Vec<u8> = words.into_iter().flat_map(u64::to_le_bytes).collect();
                let mut short = SipHasher24::new_with_keys(k0, k1);
                short.write(&octets);
                assert_eq!(siphash(key, words), short.finish());
                let wide = sip128::SipHasher24::new_with_keys(k0, k1).hash(&octets);
                assert_eq!(siphash_128(key, words), [wide.h1, wide.h2]);
            }
            check(key, words);
            check(key, fewer);
        }
    }
}
