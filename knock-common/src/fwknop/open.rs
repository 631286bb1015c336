//! Authenticates, decrypts and reads a packet.

use super::{
    aes, base64, md5,
    passphrase::Passphrase,
    scratch::{AES_BLOCKS, FwknopScratch, GROUPS, HEADER, SHA_BLOCKS, TEXT, byte, sha_blocks},
    steps::Steps,
    text::MessageKind,
};
use crate::{
    hmac_sha256::{self, HmacKey},
    sha256,
};

/// Decrypts and reads an authentic packet into [`FwknopScratch::request`].
#[inline(always)]
pub fn open(
    steps: &impl Steps,
    scratch: &mut FwknopScratch,
    passphrase: &Passphrase,
) -> MessageKind {
    if !steps.decode(scratch) {
        return MessageKind::Unreadable;
    }
    steps.derive_key(scratch, passphrase);
    steps.decrypt(scratch);
    if !steps.unpad(scratch) {
        return MessageKind::Unreadable;
    }
    steps.read(scratch);
    scratch.request.kind()
}

impl FwknopScratch {
    /// Returns whether the packet has the HMAC that a key gives.
    #[inline(always)]
    pub fn is_authentic(&mut self, steps: &impl Steps, key: &HmacKey) -> bool {
        let Self {
            text,
            tag,
            sha256,
            length,
            spare,
            ..
        } = self;
        // A copy with other bits would not be recognized as a replay.
        if *spare != 0 {
            return false;
        }
        let blocks = sha_blocks(*length as usize);
        key.begin(sha256);
        for block in 0..SHA_BLOCKS {
            if block >= blocks {
                break;
            }
            let first = block.wrapping_mul(sha256::BLOCK_WORDS);
            for (at, place) in sha256.block.iter_mut().enumerate() {
                let word = text.get(first.wrapping_add(at) & (TEXT / 4 - 1));
                *place = u32::from_be(word.copied().unwrap_or(0));
            }
            steps.compress_sha256(sha256);
        }
        key.finish(sha256, |work| steps.compress_sha256(work));
        hmac_sha256::is_equal(&sha256.state, tag)
    }

    /// Decodes the base64. Returns whether it is well formed.
    #[inline(always)]
    pub fn decode(&mut self) -> bool {
        let Self {
            text,
            plain,
            length,
            plain_length,
            ..
        } = self;
        let length = *length as usize;
        let text = bytemuck::bytes_of_mut(text);
        // The last group may be short. Zeros fill it, which costs less than a branch per character: the verifier would
        // walk each group several times.
        for after in 0..base64::GROUP {
            if let Some(place) = text.get_mut(length.wrapping_add(after) & (TEXT - 1)) {
                *place = base64::ZERO;
            }
        }
        let plain = bytemuck::bytes_of_mut(plain);
        let mut digits = 0;
        for group in 0..GROUPS {
            let at = group.wrapping_mul(base64::GROUP);
            if at >= length {
                break;
            }
            let mut bits = 0;
            for after in 0..base64::GROUP {
                let at = at.wrapping_add(after);
                let digit = base64::digit(byte(text, at));
                digits |= digit;
                bits = bits << base64::BITS | digit & 63;
            }
            let [_, bytes @ ..] = u32::to_be_bytes(bits);
            for (after, byte) in bytes.into_iter().enumerate() {
                let at = group.wrapping_mul(bytes.len()).wrapping_add(after);
                if let Some(place) = plain.get_mut(at & (TEXT - 1)) {
                    *place = byte;
                }
            }
        }
        *plain_length = length.wrapping_mul(3).wrapping_div(base64::GROUP) as u32;
        digits < 64 && (*plain_length as usize).is_multiple_of(aes::BLOCK_BYTES)
    }

    /// Derives key and IV from the passphrase and the packet's salt, as OpenSSL's `EVP_BytesToKey` does with MD5.
    #[inline(always)]
    pub fn derive_key(&mut self, steps: &impl Steps, passphrase: &Passphrase) {
        self.passphrase = *passphrase;
        for turn in 0..3_usize {
            let bytes = self.fill_md5(turn);
            steps.compress_md5(&mut self.md5);
            // A digest, a passphrase of 32 bytes and the salt leave no room for the length.
            if bytes > md5::ROOM {
                self.md5.block = length_block(bytes);
                steps.compress_md5(&mut self.md5);
            }
            let digest = self.md5.state.map(|word| u32::from_be(word.to_le()));
            let (keys, _) = self.aes.keys.as_chunks_mut::<{ md5::DIGEST_WORDS }>();
            match keys.get_mut(turn) {
                Some(key) if turn < 2 => *key = digest,
                _ => self.chain = digest,
            }
        }
        steps.expand_key(&mut self.aes);
    }

    /// Fills the MD5 block of a turn: the digest before, the passphrase, the salt. Returns how many bytes there are.
    ///
    /// A separate function, whose stack is free again when MD5 needs it.
    #[inline(never)]
    fn fill_md5(&mut self, turn: usize) -> u32 {
        let Self {
            plain,
            md5,
            passphrase,
            ..
        } = self;
        let [_, _, salt_1, salt_2, ..] = *plain;
        let digest = md5.state;
        md5.block = [0; md5::BLOCK_WORDS];
        let mut first = 0_usize;
        if turn > 0 {
            for (word, digest) in md5.block.iter_mut().zip(digest) {
                *word = digest;
            }
            first = md5::DIGEST_WORDS;
        }
        for (at, word) in passphrase.words.iter().enumerate() {
            if let Some(place) = md5
                .block
                .get_mut(first.wrapping_add(at) & (md5::BLOCK_WORDS - 1))
            {
                *place = u32::from_le(*word);
            }
        }
        let mut at = first
            .wrapping_mul(4)
            .wrapping_add(passphrase.length as usize & (md5::BLOCK_BYTES - 1));
        let block = bytemuck::bytes_of_mut(&mut md5.block);
        for word in [salt_1, salt_2, u32::from_ne_bytes([0x80, 0, 0, 0])] {
            for byte in word.to_ne_bytes() {
                if let Some(place) = block.get_mut(at & (md5::BLOCK_BYTES - 1)) {
                    *place = byte;
                }
                at = at.wrapping_add(1);
            }
        }
        let bytes = (at as u32).wrapping_sub(4);
        if bytes <= md5::ROOM {
            let [.., bits, _] = &mut md5.block;
            *bits = bytes.wrapping_mul(8);
        }
        md5.state = md5::START;
        bytes
    }

    /// Returns whether the key that was derived decrypts the packet: then its text begins with 16 digits.
    #[inline(always)]
    pub fn begins_with_digits(&mut self, steps: &impl Steps) -> bool {
        let Self {
            plain, aes, chain, ..
        } = self;
        let [_, _, _, _, a, b, c, d, ..] = *plain;
        aes.block = [a, b, c, d].map(u32::from_be);
        steps.decrypt_block(aes);
        // Four characters at once and without a branch, which the verifier would walk both ways for each of the 16.
        let mut wrong = 0;
        for (word, before) in aes.block.iter().zip(*chain) {
            let value = word ^ before ^ 0x3030_3030;
            wrong |= (value | value.wrapping_add(0x0606_0606)) & 0xf0f0_f0f0;
        }
        wrong == 0
    }

    /// Decrypts.
    #[inline(always)]
    pub fn decrypt(&mut self, steps: &impl Steps) {
        let Self {
            plain,
            aes,
            chain,
            plain_length,
            ..
        } = self;
        let length = *plain_length as usize;
        for block in 0..AES_BLOCKS {
            let first = block.wrapping_add(1).wrapping_mul(aes::BLOCK_WORDS);
            if first.wrapping_mul(4) >= length {
                break;
            }
            let index = |at: usize| first.wrapping_add(at) & (TEXT / 4 - 1);
            for (at, place) in aes.block.iter_mut().enumerate() {
                *place = u32::from_be(plain.get(index(at)).copied().unwrap_or(0));
            }
            let encrypted = aes.block;
            steps.decrypt_block(aes);
            for (at, (word, before)) in aes.block.iter().zip(*chain).enumerate() {
                if let Some(place) = plain.get_mut(index(at)) {
                    *place = (word ^ before).to_be();
                }
            }
            *chain = encrypted;
        }
    }

    /// Removes the padding of the decrypted text. Returns whether it is right.
    ///
    /// The verifier would walk this once for each length if it were part of [`Self::decrypt`].
    #[inline(always)]
    pub fn unpad(&mut self) -> bool {
        let Self {
            plain,
            plain_length,
            ..
        } = self;
        let length = *plain_length as usize;
        let plain = bytemuck::bytes_of(plain);
        let padding = byte(plain, length.wrapping_sub(1));
        let mut difference = 0;
        for before in 1..=aes::BLOCK_BYTES {
            // All bits are set within the padding: a branch would double what the verifier walks.
            let within = (before as i64)
                .wrapping_sub(i64::from(padding))
                .wrapping_sub(1)
                >> 63;
            difference |= (byte(plain, length.wrapping_sub(before)) ^ padding) & within as u8;
        }
        *plain_length = (length as u32).wrapping_sub(padding.into());
        difference == 0 && (1..=aes::BLOCK_BYTES).contains(&padding.into())
    }

    /// Reads the decrypted text into [`Self::request`].
    #[inline(always)]
    pub fn read(&mut self, steps: &impl Steps) {
        let Self {
            plain,
            request,
            plain_length,
            ..
        } = self;
        let length = *plain_length as usize;
        let plain = bytemuck::bytes_of(plain);
        request.clear();
        for at in HEADER..HEADER.wrapping_add(AES_BLOCKS * aes::BLOCK_BYTES) {
            if at >= length {
                break;
            }
            steps.read_character(request, byte(plain, at));
        }
    }
}

/// Returns the second block of a text of `bytes` bytes that leaves room for nothing but its length.
#[inline(always)]
const fn length_block(bytes: u32) -> [u32; md5::BLOCK_WORDS] {
    let mut block = [0; md5::BLOCK_WORDS];
    let [.., bits, _] = &mut block;
    *bits = bytes.wrapping_mul(8);
    block
}
