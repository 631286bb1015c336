//! The memory in which a packet is judged, and what is done before its HMAC is computed.

use bytemuck::{Pod, Zeroable};

use super::{
    aes, base64, md5,
    passphrase::Passphrase,
    text::{PORTS_MAX, Request},
};
use crate::{hmac_sha256, packet_info::PacketInfo, sha256};

/// Characters of a packet at least, as in fwknopd.
pub const PACKET_MIN: usize = 140;

/// Characters of a packet at most: room for the longest user name and eight ports. fwknopd takes 1500.
pub const PACKET_MAX: usize = 480;

/// The first characters of the base64, which the client leaves out: they are the same in each packet.
pub const PREFIX: [u8; 10] = *b"U2FsdGVkX1";

/// The bits of the next character that belong to "Salted__", too.
pub(super) const PREFIX_BITS: u32 = 0x3c;

/// Characters of the HMAC.
pub(super) const TAG: usize = 43;

/// The capacity of the text: a power of two, so that a mask keeps an index within it.
pub(super) const TEXT: usize = 512;

/// Blocks of the longest text, for HMAC-SHA256.
pub(super) const SHA_BLOCKS: usize =
    (PACKET_MAX + PREFIX.len() - TAG + 9).div_ceil(sha256::BLOCK_BYTES);

/// Groups of the longest base64.
pub(super) const GROUPS: usize = (PACKET_MAX + PREFIX.len()).div_ceil(base64::GROUP);

/// Bytes before the encrypted text: "Salted__" and the salt.
pub(super) const HEADER: usize = 16;

/// Blocks of the longest encrypted text.
pub(super) const AES_BLOCKS: usize = (GROUPS * 3 - HEADER) / aes::BLOCK_BYTES;

const _: () =
    assert!(PACKET_MAX + PREFIX.len() <= TEXT && SHA_BLOCKS * sha256::BLOCK_BYTES <= TEXT);

/// The memory in which a packet is judged: 1.6 KB, too much for the kernel's stack.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct FwknopScratch {
    /// The packet, for the events and the grants that it causes.
    pub(super) info: PacketInfo,
    /// The request in the packet.
    pub request: Request,
    /// The doors of the ports that it asks for.
    pub(super) doors: [RequestedDoor; PORTS_MAX],
    /// The packet behind [`PREFIX`].
    pub(super) text: [u32; TEXT / 4],
    /// The content of the base64.
    pub(super) plain: [u32; TEXT / 4],
    /// The HMAC that the packet has.
    pub(super) tag: [u32; sha256::DIGEST_WORDS],
    pub(super) sha256: sha256::Sha256Work,
    pub(super) md5: md5::Md5Work,
    pub(super) aes: aes::AesWork,
    /// The previous block, or the IV.
    pub(super) chain: [u32; aes::BLOCK_WORDS],
    pub(super) passphrase: Passphrase,
    /// Characters of the base64 without the HMAC.
    pub(super) length: u32,
    /// Bytes that the base64 encodes.
    pub(super) plain_length: u32,
    /// How many of `doors` are used.
    pub(super) door_count: u32,
    /// The bits that the last character has to spare, which are 0 in a packet with an HMAC-SHA256.
    pub(super) spare: u32,
    /// The index of the port that the user may not open, if the packet is refused because of one.
    pub(super) refused_port: u32,
}

/// A door that a packet asks for.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub(super) struct RequestedDoor {
    /// For how long, in milliseconds.
    pub(super) open_for_ms: u64,
    /// The index of its entry in `DOORS`.
    pub(super) entry: u32,
    /// The number of the user who asks.
    pub(super) user: u32,
}

impl FwknopScratch {
    /// Expects a packet of a length. Returns whether it may be one of fwknop.
    #[inline(always)]
    pub fn expect(&mut self, packet_length: usize) -> bool {
        self.length = packet_length as u32;
        (PACKET_MIN..=PACKET_MAX).contains(&packet_length)
    }

    /// Returns where the expected packet is to be copied to.
    ///
    /// The length is read from memory here and below, so that LLVM knows no bound of it and keeps the masks that the
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
            text,
            tag,
            length,
            spare,
            ..
        } = self;
        *length = length
            .wrapping_add(PREFIX.len() as u32)
            .wrapping_sub(TAG as u32);
        let length = *length as usize;
        let text = bytemuck::bytes_of_mut(text);
        // A copy that includes the prefix would have another HMAC, so it would not be recognized as a replay.
        let next = base64::digit(byte(text, PREFIX.len()));
        if next & PREFIX_BITS != PREFIX_BITS {
            return false;
        }
        for (place, character) in text.iter_mut().zip(PREFIX) {
            *place = character;
        }
        let is_base64 = decode_tag(text, length, tag, spare);
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

    /// Returns whether the packet may end with an HMAC-SHA256.
    #[inline(always)]
    pub const fn may_have_tag(&self) -> bool {
        self.spare == 0
    }

    /// Returns the first half of the HMAC, by which the packet is remembered.
    #[inline(always)]
    pub const fn tag(&self) -> [u32; 4] {
        let [a, b, c, d, ..] = self.tag;
        [a, b, c, d]
    }
}

/// Decodes the HMAC and the two bits that its last character has to spare. Returns whether it is base64.
#[inline(always)]
fn decode_tag(
    text: &[u8],
    from: usize,
    tag: &mut [u32; sha256::DIGEST_WORDS],
    spare: &mut u32,
) -> bool {
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
    *spare = bits as u32 & 3;
    digits < 64
}

/// Returns a byte of a text, whose index is kept within it by a mask.
#[inline(always)]
pub(super) fn byte(text: &[u8], at: usize) -> u8 {
    text.get(at & (TEXT - 1)).copied().unwrap_or(0)
}

/// Blocks of a text of a length, with its padding.
#[inline(always)]
pub(super) const fn sha_blocks(length: usize) -> usize {
    length.wrapping_add(9 + sha256::BLOCK_BYTES - 1) / sha256::BLOCK_BYTES
}
