//! Authenticates a packet and reveals what it asks for.

use crate::{
    hmac_sha256::{is_equal, text_bits},
    sha256::{BLOCK_WORDS, END, Sha256Work},
    spa::layout::{Header, MESSAGE_WORDS, OpenScratch, PacketWords, SpaKey, SpaKeyId},
};

/// Words of the header, and of header and body.
const HEADER_WORDS: usize = 4;
/// Words of the tag.
const TAG_WORDS: usize = 4;

/// Returns whether a packet has the right tag.
#[inline(always)]
pub fn is_authentic(
    scratch: &mut OpenScratch,
    packet: &PacketWords,
    header: &Header,
    key: &SpaKey,
    compress: impl Fn(&mut Sha256Work),
) -> bool {
    let OpenScratch { message, work } = scratch;
    let [tag_low, tag_high, _, _, body @ .., _] = packet;
    let SpaKeyId(id) = header.key.id;
    let clear = [id, header.stamp].map(u64::to_le);
    for (pair, word) in message.chunks_exact_mut(2).zip(clear.iter().chain(body)) {
        if let [first, second] = pair {
            [*first, *second] = halves(*word);
        }
    }
    key.mac.begin(work);
    fill(&mut work.block, message, MESSAGE_WORDS);
    compress(work);
    key.mac.finish(work, compress);
    let [a, b] = halves(*tag_low);
    let [c, d] = halves(*tag_high);
    let [w, x, y, z, ..] = work.state;
    is_equal::<TAG_WORDS>(&[a, b, c, d], &[w, x, y, z])
}

/// Reveals the body of a packet that is authentic.
#[inline(always)]
pub fn reveal(scratch: &mut OpenScratch, key: &SpaKey, compress: impl Fn(&mut Sha256Work)) {
    let OpenScratch { message, work } = scratch;
    key.cipher.begin(work);
    fill(&mut work.block, message, HEADER_WORDS);
    compress(work);
    key.cipher.finish(work, compress);
    for (word, mask) in message.iter_mut().skip(HEADER_WORDS).zip(work.state) {
        *word ^= mask;
    }
}

/// Returns two big-endian words of eight octets.
#[inline(always)]
pub(super) const fn halves(word: u64) -> [u32; 2] {
    let word = word.to_be();
    [(word >> 32) as u32, word as u32]
}

/// Fills the last block of a text that has this many words.
#[inline(always)]
fn fill(block: &mut [u32; BLOCK_WORDS], text: &[u32; MESSAGE_WORDS], words: usize) {
    *block = [0; BLOCK_WORDS];
    for (to, from) in block.iter_mut().zip(text.iter().take(words)) {
        *to = *from;
    }
    if let Some(end) = block.get_mut(words) {
        *end = END;
    }
    let [.., bits] = block;
    *bits = text_bits(4_u32.wrapping_mul(words as u32));
}

impl OpenScratch {
    /// Returns the words of the revealed body.
    #[inline(always)]
    pub(super) const fn body(&self) -> [u32; MESSAGE_WORDS - HEADER_WORDS] {
        let [_, _, _, _, body @ ..] = self.message;
        body
    }
}
