//! Packets of fwknop, encrypted with AES-256-CBC and authenticated with HMAC-SHA256.
//!
//! ```text
//! whole  = base64("Salted__" ‖ salt ‖ AES-256-CBC(text))    key and IV: MD5 of passphrase and salt, as OpenSSL does
//! packet = whole without its first ten characters ‖ base64(HMAC-SHA256(whole))
//! ```
//!
//! Base64 is without padding. The steps are here; `judge` puts them in order, from the cheapest to the dearest.

pub mod aes;
pub mod base64;
pub mod judge;
pub mod md5;
pub mod text;

use core::fmt;

use bytemuck::{Pod, Zeroable};

use self::text::{Kind, PORTS_MAX, Request};
use crate::{
    Address,
    hmac_sha256::{self, Key},
    packet_info::PacketInfo,
    sha256,
    spa::layout::FwknopKey,
};

/// Characters of a packet at least, as in fwknopd.
pub const PACKET_MIN: usize = 140;
/// Characters of a packet at most: room for the longest user name and eight ports. fwknopd takes 1500.
pub const PACKET_MAX: usize = 480;

/// The first characters of the base64, which the client leaves out: they are the same in each packet.
pub const PREFIX: [u8; 10] = *b"U2FsdGVkX1";
/// The bits of the next character that belong to "Salted__", too.
const PREFIX_BITS: u32 = 0x3c;

/// The longest passphrase in bytes: an AES key, as `fwknop --key-gen` makes it.
pub const PASSPHRASE_MAX: usize = 32;

/// Characters of the HMAC.
const TAG: usize = 43;

/// The capacity of the text: a power of two, so that a mask keeps an index within it.
const TEXT: usize = 512;
/// Blocks of the longest text, for HMAC-SHA256.
const SHA_BLOCKS: usize = (PACKET_MAX + PREFIX.len() - TAG + 9).div_ceil(sha256::BLOCK_BYTES);
/// Groups of the longest base64.
const GROUPS: usize = (PACKET_MAX + PREFIX.len()).div_ceil(base64::GROUP);
/// Bytes before the encrypted text: "Salted__" and the salt.
const HEADER: usize = 16;
/// Blocks of the longest encrypted text.
const AES_BLOCKS: usize = (GROUPS * 3 - HEADER) / aes::BLOCK_BYTES;

const _: () =
    assert!(PACKET_MAX + PREFIX.len() <= TEXT && SHA_BLOCKS * sha256::BLOCK_BYTES <= TEXT);

/// The memory in which a packet is judged: 1.6 KB, too much for the kernel's stack.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Scratch {
    /// The packet, for the events and the grants that it causes.
    info: PacketInfo,
    /// What the packet asks for.
    pub request: Request,
    /// The doors of the ports that it asks for.
    doors: [Door; PORTS_MAX],
    /// The packet behind [`PREFIX`].
    text: [u32; TEXT / 4],
    /// What the base64 encodes.
    plain: [u32; TEXT / 4],
    /// The HMAC that the packet has.
    tag: [u32; sha256::DIGEST_WORDS],
    sha256: sha256::Work,
    md5: md5::Work,
    aes: aes::Work,
    /// The block before, or the IV.
    chain: [u32; aes::BLOCK_WORDS],
    passphrase: Passphrase,
    /// Characters of the base64 without the HMAC.
    length: u32,
    /// Bytes that the base64 encodes.
    plain_length: u32,
    /// How many of `doors` are used.
    door_count: u32,
}

/// A door that a packet asks for.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
struct Door {
    /// For how long, in milliseconds.
    open_for_ms: u64,
    /// The index of its entry in `DOORS`.
    entry: u32,
    /// The number of the user who asks.
    user: u32,
}

/// Decrypts and reads an authentic packet into [`Scratch::request`].
#[inline(always)]
pub fn open(steps: &impl Steps, scratch: &mut Scratch, passphrase: &Passphrase) -> Kind {
    if !steps.decode(scratch) {
        return Kind::Unreadable;
    }
    steps.derive_key(scratch, passphrase);
    if !steps.decrypt(scratch) {
        return Kind::Unreadable;
    }
    steps.read(scratch);
    scratch.request.kind()
}

/// The steps that the kernel side makes BPF subprograms; see [`crate::Subprograms`].
pub trait Steps: Sized {
    /// See [`sha256::compress`].
    fn compress_sha256(&self, work: &mut sha256::Work) {
        sha256::compress(work);
    }

    /// See [`md5::compress`].
    fn compress_md5(&self, work: &mut md5::Work) {
        md5::compress(work);
    }

    /// See [`aes::expand`].
    fn expand_key(&self, work: &mut aes::Work) {
        aes::expand(work);
    }

    /// See [`aes::decrypt`].
    fn decrypt_block(&self, work: &mut aes::Work) {
        aes::decrypt(work);
    }

    /// See [`Request::read`].
    fn read_character(&self, request: &mut Request, character: u8) {
        request.read(character);
    }

    /// See [`FwknopKey::admits`].
    fn admits(&self, key: &FwknopKey, source: &Address) -> bool {
        key.admits(*source)
    }

    /// See [`Scratch::begin`].
    fn begin(&self, scratch: &mut Scratch) -> bool {
        scratch.begin()
    }

    /// See [`Scratch::is_authentic`].
    fn is_authentic(&self, scratch: &mut Scratch, key: &Key) -> bool {
        scratch.is_authentic(self, key)
    }

    /// See [`Scratch::decode`].
    fn decode(&self, scratch: &mut Scratch) -> bool {
        scratch.decode()
    }

    /// See [`Scratch::derive_key`].
    fn derive_key(&self, scratch: &mut Scratch, passphrase: &Passphrase) {
        scratch.derive_key(self, passphrase);
    }

    /// See [`Scratch::decrypt`].
    fn decrypt(&self, scratch: &mut Scratch) -> bool {
        scratch.decrypt(self)
    }

    /// See [`Scratch::read`].
    fn read(&self, scratch: &mut Scratch) {
        scratch.read(self);
    }
}

/// The steps as ordinary functions.
#[derive(Clone, Copy, Debug, Default)]
pub struct Native;

impl Steps for Native {}

/// The passphrase of a user: the AES key of `fwknop --key-gen`, or what else a client was given.
#[repr(C)]
#[derive(Clone, Copy, Default, Eq, PartialEq, Pod, Zeroable)]
pub struct Passphrase {
    /// Its bytes in memory order, and zeros behind them.
    words: [u32; PASSPHRASE_MAX / 4],
    /// Its length in bytes; 0 if there is none.
    length: u32,
}

impl Passphrase {
    /// Takes over a passphrase; `None` if it is empty or longer than [`PASSPHRASE_MAX`].
    pub fn new(bytes: &[u8]) -> Option<Self> {
        let mut words = [0; PASSPHRASE_MAX / 4];
        let place = bytemuck::bytes_of_mut(&mut words).get_mut(..bytes.len())?;
        place.copy_from_slice(bytes);
        let length = bytes.len() as u32;
        (length > 0).then_some(Self { words, length })
    }

    /// Whether there is one.
    #[inline(always)]
    pub const fn is_set(&self) -> bool {
        self.length != 0
    }
}

/// The passphrase is never printed.
impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase(…)")
    }
}

impl Scratch {
    /// Expects a packet of a length. Returns whether it may be one of fwknop.
    #[inline(always)]
    pub fn expect(&mut self, packet_length: usize) -> bool {
        self.length = packet_length as u32;
        (PACKET_MIN..=PACKET_MAX).contains(&packet_length)
    }

    /// Returns where the expected packet is to be copied to.
    ///
    /// The length comes from memory here and below: LLVM knows no bound of it then, and keeps the masks that the
    /// verifier needs.
    #[inline(always)]
    pub fn room(&mut self) -> &mut [u8] {
        // Linux 6.1 learns nothing from a comparison with 0, and refuses to copy 0 bytes: the least length is 1.
        let length = (self.length.wrapping_sub(1) as usize & (TEXT - 1)).wrapping_add(1);
        let end = length.wrapping_add(PREFIX.len());
        let room = bytemuck::bytes_of_mut(&mut self.text).get_mut(PREFIX.len()..end);
        room.unwrap_or_default()
    }

    /// Prepares the packet that was copied to [`Self::room`]: puts the prefix in front, decodes the HMAC, and pads the
    /// rest for SHA-256. Returns whether it may be a packet of fwknop.
    #[inline(always)]
    pub fn begin(&mut self) -> bool {
        let Self {
            text, tag, length, ..
        } = self;
        *length = length
            .wrapping_add(PREFIX.len() as u32)
            .wrapping_sub(TAG as u32);
        let length = *length as usize;
        let text = bytemuck::bytes_of_mut(text);
        // A copy with the prefix put back in front would have another HMAC, and be no replay.
        let next = base64::digit(byte(text, PREFIX.len()));
        if next & PREFIX_BITS != PREFIX_BITS {
            return false;
        }
        for (place, character) in text.iter_mut().zip(PREFIX) {
            *place = character;
        }
        let is_base64 = decode_tag(text, length, tag);
        // The end of the text, zeros, and its length in bits.
        for after in 0..sha256::BLOCK_BYTES.wrapping_add(9) {
            if let Some(place) = text.get_mut(length.wrapping_add(after) & (TEXT - 1)) {
                *place = if after == 0 { 0x80 } else { 0 };
            }
        }
        let last = sha_blocks(length)
            .wrapping_mul(sha256::BLOCK_WORDS)
            .wrapping_sub(1);
        if let Some(place) = self.text.get_mut(last & (TEXT / 4 - 1)) {
            *place = hmac_sha256::text_bits(length as u32).to_be();
        }
        is_base64
    }

    /// Whether the packet has the HMAC that a key gives.
    #[inline(always)]
    pub fn is_authentic(&mut self, steps: &impl Steps, key: &Key) -> bool {
        let Self {
            text,
            tag,
            sha256,
            length,
            ..
        } = self;
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

    /// The first half of the HMAC, by which the packet is remembered.
    #[inline(always)]
    pub const fn tag(&self) -> [u32; 4] {
        let [a, b, c, d, ..] = self.tag;
        [a, b, c, d]
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
        let text = bytemuck::bytes_of(text);
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
                // The last group may be short.
                let digit = match at < length {
                    true => base64::digit(byte(text, at)),
                    false => 0,
                };
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
    /// It is a function of its own, so that its part of the stack is free again when MD5 needs some.
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

    /// Decrypts, and removes the padding. Returns whether the padding is right.
    #[inline(always)]
    pub fn decrypt(&mut self, steps: &impl Steps) -> bool {
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
        let plain = bytemuck::bytes_of(plain);
        let padding = byte(plain, length.wrapping_sub(1));
        let mut difference = 0;
        for before in 1..=aes::BLOCK_BYTES {
            if before <= padding.into() {
                difference |= byte(plain, length.wrapping_sub(before)) ^ padding;
            }
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

/// Decodes the HMAC. Returns whether it is base64, whose last character has two bits to spare.
#[inline(always)]
fn decode_tag(text: &[u8], from: usize, tag: &mut [u32; sha256::DIGEST_WORDS]) -> bool {
    let mut bits = 0_u64;
    let mut bit_count = 0_u32;
    let mut digits = 0;
    let mut words = tag.iter_mut();
    for after in 0..TAG {
        let digit = base64::digit(byte(text, from.wrapping_add(after)));
        digits |= digit;
        bits = bits << base64::BITS | u64::from(digit & 63);
        bit_count = bit_count.wrapping_add(base64::BITS);
        if bit_count >= u32::BITS {
            bit_count = bit_count.wrapping_sub(u32::BITS);
            if let Some(word) = words.next() {
                *word = (bits >> bit_count) as u32;
            }
        }
    }
    digits < 64 && bits & 3 == 0
}

/// A byte of a text, whose index is kept within it by a mask.
#[inline(always)]
fn byte(text: &[u8], at: usize) -> u8 {
    text.get(at & (TEXT - 1)).copied().unwrap_or(0)
}

/// Blocks of a text of a length, with its padding.
#[inline(always)]
const fn sha_blocks(length: usize) -> usize {
    length.wrapping_add(9 + sha256::BLOCK_BYTES - 1) / sha256::BLOCK_BYTES
}

/// The second block of a text of `bytes` bytes that leaves room for nothing but its length.
#[inline(always)]
const fn length_block(bytes: u32) -> [u32; md5::BLOCK_WORDS] {
    let mut block = [0; md5::BLOCK_WORDS];
    let [.., bits, _] = &mut block;
    *bits = bytes.wrapping_mul(8);
    block
}
