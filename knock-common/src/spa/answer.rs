//! The answer to a packet that asks for one: the reason, how long the door is open, which port it opens, and what the
//! client can't know itself, its address as the host sees it and the host's time. Only a holder of a key gets one.
//!
//! An answer has 48 octets, fewer than the packet: its tag, 16 octets of HMAC-SHA256(mac key; "answer" ‖ the tag of the
//! packet ‖ body), and the body, hidden with HMAC-SHA256(cipher key; "answer" ‖ the tag of the answer). The body: the
//! number of the reason (1 octet), 0 (1), the first TCP port (2), the seconds given (4), the source as seen here (16),
//! the host's time in ns since 1970 (8).
//!
//! A packet whose stamp is too far ahead is answered as often as it arrives. The tag depends on the body, as in SIV
//! (RFC 5297), so two different bodies are never hidden with the same octets.

use crate::{
    Address, Reason, Subprograms,
    answer::Answer,
    door::may_reply,
    env::Table as _,
    hmac_sha256::text_bits,
    sha256::{BLOCK_WORDS, END, Sha256Work},
    spa::{
        judge::wall_ns,
        layout::{ANSWER_WORDS, OpenScratch, SpaScratch},
        open,
        request::Request,
        stamp,
    },
};

/// Returns whether a packet with this reason may have asked for an answer.
///
/// This costs less than a search for an answer at each dropped packet.
#[inline(always)]
pub const fn is_for_clients(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::Opened
            | Reason::Refreshed
            | Reason::Closed
            | Reason::GrantsFull
            | Reason::CutOff
            | Reason::SpaStale
            | Reason::SpaExpired
            | Reason::SpaNotAllowed
            | Reason::SpaElsewhere
            | Reason::SpaUnreadable
    )
}

/// "answ", and "er" in front of the tag.
const LABEL: [u32; 2] = [0x616e_7377, 0x6572];
const TAG_WORDS: usize = 4;
/// Octets of the label and the tag.
const SHORT: u32 = 22;
/// Octets of the label, the tag and the body.
const LONG: u32 = 54;

/// Writes the answer to an authentic packet with this reason, in the clear. Returns `false` if the packet asks for
/// none.
///
/// `compress` is [`crate::sha256::compress`], which the kernel side calls as a subprogram.
#[inline(always)]
pub fn write<E: Subprograms>(
    env: &E,
    scratch: &mut SpaScratch,
    reason: Reason,
    compress: impl Fn(&mut Sha256Work) + Copy,
) -> bool {
    let name = scratch.header.key;
    let Some(key) = env.spa_key(&name) else {
        return false;
    };
    if reason == Reason::SpaStale {
        open::reveal(&mut scratch.open, key, compress);
    }
    if !Request::read(&scratch.open).wants_answer || !may_reply(env, &scratch.info) {
        return false;
    }
    let wall_ns = wall_ns(env, scratch);
    // A packet with a stamp of the past is answered once, since its stamp is recorded. One with a stamp of the future
    // is answered as often as it is reported: a record of it would refuse the client until that time.
    if reason == Reason::SpaStale && scratch.header.stamp < wall_ns {
        let last = env.spa_last().find(&name.id);
        if last.is_none_or(|last| stamp::record(&last, scratch.header.stamp).is_some()) {
            return false;
        }
    }
    write_body(scratch, reason, wall_ns);
    true
}

/// Writes the packet's tag and the body of the answer in the clear, as big-endian words.
#[inline(always)]
fn write_body(scratch: &mut SpaScratch, reason: Reason, wall_ns: u64) {
    let Address {
        words: [a, b, c, d],
    } = scratch.seen;
    let [low, high, ..] = scratch.packet;
    let ([t0, t1], [t2, t3]) = (open::halves(low), open::halves(high));
    let port = u32::from((scratch.port as u16).swap_bytes());
    let [e, f] = [wall_ns as u32, (wall_ns >> 32) as u32].map(u32::swap_bytes);
    let [a, b, c, d] = [a, b, c, d].map(u32::from_be);
    let head = (reason as u32) << 24 | port;
    let seconds = scratch.seconds.swap_bytes();
    scratch.open.message = [t0, t1, t2, t3, head, seconds, a, b, c, d, e, f];
}

/// Computes the answer's tag, hides the body, and hands the answer over to be sent.
///
/// `compress` is [`crate::sha256::compress`], which the kernel side calls as a subprogram.
#[inline(always)]
pub fn seal<E: Subprograms>(
    env: &E,
    scratch: &mut SpaScratch,
    compress: impl Fn(&mut Sha256Work) + Copy,
) {
    let name = scratch.header.key;
    let Some(key) = env.spa_key(&name) else {
        return;
    };
    let SpaScratch { open, answer, .. } = scratch;
    let OpenScratch { message, work } = open;
    key.mac.begin(work);
    fill(&mut work.block, message, ANSWER_WORDS, LONG);
    compress(work);
    key.mac.finish(work, compress);
    // The answer's own tag takes the place of the packet's.
    for (word, mac) in message.iter_mut().zip(work.state.iter().take(TAG_WORDS)) {
        *word = *mac;
    }
    key.cipher.begin(work);
    fill(&mut work.block, message, TAG_WORDS, SHORT);
    compress(work);
    key.cipher.finish(work, compress);
    for (word, mask) in message.iter_mut().skip(TAG_WORDS).zip(work.state) {
        *word ^= mask;
    }
    let mut sum = 0_u64;
    for (place, word) in answer.iter_mut().zip(message) {
        *place = word.to_be();
        sum = sum.wrapping_add((*place).into());
    }
    env.answer(Answer::spa(sum));
}

/// Fills a block with the label and the first words of a message, which begin in the middle of a word.
#[inline(always)]
fn fill(block: &mut [u32; BLOCK_WORDS], message: &[u32; ANSWER_WORDS], words: usize, octets: u32) {
    *block = [0; BLOCK_WORDS];
    let [label, mut carry] = LABEL;
    let [first, rest @ .., bits] = block;
    *first = label;
    for (place, word) in rest.iter_mut().zip(message.iter().take(words)) {
        *place = carry << 16 | word >> 16;
        carry = word & 0xffff;
    }
    if let Some(last) = rest.get_mut(words) {
        *last = carry << 16 | END >> 16;
    }
    *bits = text_bits(octets);
}
