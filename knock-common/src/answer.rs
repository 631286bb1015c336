//! Answers: the program rewrites the frame that it answers in place, and never makes it longer.

use core::mem;

use crate::{
    Bytes,
    packet::{Protocol, flag},
    port_digits::{DIGITS, PortDigits},
    repliable::Repliable,
    spa::layout::AnswerWords,
};

/// A frame that can be rewritten in place.
pub trait Reflect: Bytes {
    /// Returns its length in bytes; `None` if it lies in several buffers.
    fn length(&self) -> Option<usize>;

    /// Overwrites the `N` bytes at `offset`; `None` if the frame ends before, which is unchanged then.
    fn write<const N: usize>(&mut self, offset: usize, bytes: [u8; N]) -> Option<()>;

    /// Returns whether the kernel or the device completes the frame's checksum when it sends the frame, and then does
    /// so where the checksum was when the frame arrived. `offset` is that of the checksum of the answer, which is lost
    /// if so. `None` if the frame ends before.
    #[inline(always)]
    fn is_checksum_pending(&mut self, _offset: usize) -> Option<bool> {
        Some(false)
    }

    /// Truncates it to `length` bytes.
    fn cut(&mut self, length: usize) -> Option<()>;
}

/// A frame in memory.
#[derive(Debug)]
pub struct Memory<'b>(pub &'b mut [u8]);

impl Bytes for Memory<'_> {
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.0.read(offset)
    }

    fn words<const N: usize>(&self, offset: usize) -> Option<[u16; N]> {
        self.0.words(offset)
    }
}

impl Reflect for Memory<'_> {
    fn length(&self) -> Option<usize> {
        Some(self.0.len())
    }

    fn write<const N: usize>(&mut self, offset: usize, bytes: [u8; N]) -> Option<()> {
        *self.0.get_mut(offset..)?.first_chunk_mut()? = bytes;
        Some(())
    }

    fn cut(&mut self, length: usize) -> Option<()> {
        self.0 = mem::take(&mut self.0).get_mut(..length)?;
        Some(())
    }
}

/// The content of an answer: a TCP segment, a datagram that names a port, or the answer to a packet of single packet
/// authorization.
///
/// It is not an enum: the kernel side would write only the bytes of one variant, and the verifier refuses to read the
/// others.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Answer {
    /// The kind, and below it the flags of the segment or the number of digits.
    kind: u64,
    /// Sequence number and acknowledgement number, or the digits, or the sum of the words of a SPA answer.
    body: u64,
}

impl Answer {
    const SEGMENT: u64 = 1 << 8;
    const PORT: u64 = 2 << 8;
    const SPA: u64 = 4 << 8;

    #[inline(always)]
    const fn segment(flags: u8, sequence: u32, acknowledges: u32) -> Self {
        Self {
            kind: Self::SEGMENT | flags as u64,
            body: (sequence as u64) << 32 | acknowledges as u64,
        }
    }

    /// Answers a SYN with SYN and ACK.
    #[inline(always)]
    pub const fn syn_ack(repliable: &Repliable, cookie: u32) -> Self {
        let next = repliable.sequence.wrapping_add(1);
        Self::segment(flag::SYN | flag::ACK, cookie, next)
    }

    /// Answers an ACK with FIN and ACK. A reset could arrive before the client's `connect` has returned, and make it
    /// fail.
    #[inline(always)]
    pub const fn fin_ack(repliable: &Repliable) -> Self {
        let Repliable {
            sequence,
            acknowledged,
            ..
        } = *repliable;
        Self::segment(flag::FIN | flag::ACK, acknowledged, sequence)
    }

    /// Answers a FIN with a reset, which needs no further answer.
    #[inline(always)]
    pub const fn reset(repliable: &Repliable) -> Self {
        Self::segment(flag::RST, repliable.acknowledged, 0)
    }

    /// Answers a knock with a datagram that names the opened port.
    #[inline(always)]
    pub const fn port(text: PortDigits) -> Self {
        let [a, b, c, d, e] = text.digits;
        Self {
            kind: Self::PORT | text.length as u64,
            body: u64::from_ne_bytes([a, b, c, d, e, 0, 0, 0]),
        }
    }

    /// Answers a packet of single packet authorization with [`AnswerWords`] whose sum this is.
    #[inline(always)]
    pub const fn spa(sum: u64) -> Self {
        Self {
            kind: Self::SPA,
            body: sum,
        }
    }

    /// Returns the answer in words; the first is never 0.
    #[inline(always)]
    pub const fn to_words(self) -> [u64; 2] {
        [self.kind, self.body]
    }

    /// Reads the words.
    #[inline(always)]
    pub const fn from_words([kind, body]: [u64; 2]) -> Self {
        Self { kind, body }
    }

    #[inline(always)]
    const fn is_segment(self) -> bool {
        self.kind & Self::SEGMENT != 0
    }

    #[inline(always)]
    const fn is_spa(self) -> bool {
        self.kind & Self::SPA != 0
    }

    /// Octets after the IP header.
    #[inline(always)]
    fn length(self) -> usize {
        if self.is_segment() {
            TCP_HEADER
        } else if self.is_spa() {
            UDP_HEADER.wrapping_add(size_of::<AnswerWords>())
        } else {
            UDP_HEADER.wrapping_add(self.digits())
        }
    }

    #[inline(always)]
    fn digits(self) -> usize {
        ((self.kind & 7) as usize).min(DIGITS)
    }
}

const MACS: usize = 12;
/// The least length of an Ethernet frame; shorter content is padded.
const PADDED: usize = 60;
/// The least offset of a transport header.
const TRANSPORT_LEAST: usize = 34;
const TTL: u8 = 64;
const DONT_FRAGMENT: u8 = 0x40;
const WINDOW: [u8; 2] = 0xfaf0_u16.to_be_bytes();

const V4_HEADER: usize = 20;
const V6_HEADER: usize = 40;
const TCP_HEADER: usize = 20;
const UDP_HEADER: usize = 8;
/// Offsets of the checksums in these headers.
const TCP_CHECKSUM: usize = 16;
const UDP_CHECKSUM: usize = 6;

/// Rewrites a frame as its answer; `None` if it can't be answered, and then it may be half rewritten.
#[inline(always)]
pub fn rewrite_as_reply<F: Reflect>(frame: &mut F, answer: Answer) -> Option<()> {
    rewrite_with(frame, answer, &AnswerWords::default())
}

/// Does the same; `words` is the payload of an [`Answer::spa`].
#[inline(always)]
pub fn rewrite_with<F: Reflect>(frame: &mut F, answer: Answer, words: &AnswerWords) -> Option<()> {
    let repliable = Repliable::find(frame)?;
    rewrite_found(frame, &repliable, answer, words)
}

/// Does the same for a frame with these fields.
#[inline(always)]
pub fn rewrite_found<F: Reflect>(
    frame: &mut F,
    repliable: &Repliable,
    answer: Answer,
    words: &AnswerWords,
) -> Option<()> {
    let length = frame.length()?;
    let header = if repliable.v6 { V6_HEADER } else { V4_HEADER };
    let transport = repliable.network.wrapping_add(header);
    let end = transport.wrapping_add(answer.length());
    if end > length {
        return None;
    }
    let mut least = 0;
    if frame.bare().is_none() {
        if length >= PADDED {
            least = PADDED;
            frame.write(TRANSPORT_LEAST, [0; PADDED - TRANSPORT_LEAST])?;
        }
        let [a, b, c, d, e, f, g, h, i, j, k, l]: [u8; MACS] = frame.read(0)?;
        frame.write(0, [g, h, i, j, k, l, a, b, c, d, e, f])?;
    }
    internet(frame, repliable, answer)?;
    if answer.is_segment() {
        frame.write(transport, tcp(repliable, answer))?;
        leave_pending(frame, repliable, answer, transport)?;
    } else {
        frame.write(transport, udp(repliable, answer))?;
        leave_pending(frame, repliable, answer, transport)?;
        let mut behind = transport.wrapping_add(UDP_HEADER);
        if answer.is_spa() {
            for word in words {
                frame.write(behind, word.to_ne_bytes())?;
                behind = behind.wrapping_add(size_of::<u32>());
            }
            return frame.cut(end.max(least));
        }
        for (place, digit) in (0..answer.digits()).zip(answer.body.to_ne_bytes()) {
            frame.write(behind.wrapping_add(place), [digit])?;
        }
    }
    frame.cut(end.max(least))
}

/// Replaces the checksum by the sum of the pseudo header if it is completed when the frame is sent; `None` if that
/// would happen at another place.
#[inline(always)]
fn leave_pending<F: Reflect>(
    frame: &mut F,
    repliable: &Repliable,
    answer: Answer,
    transport: usize,
) -> Option<()> {
    let (protocol, field) = match answer.is_segment() {
        true => (Protocol::Tcp, TCP_CHECKSUM),
        false => (Protocol::Udp, UDP_CHECKSUM),
    };
    let checksum = transport.wrapping_add(field);
    if !frame.is_checksum_pending(checksum)? {
        return Some(());
    }
    if repliable.protocol != protocol || repliable.transport != transport {
        return None;
    }
    let [a, b] = sum(pseudo(repliable, answer));
    frame.write(checksum, [!a, !b])
}

/// Returns the protocol and length of the answer, for an IP header.
#[inline(always)]
fn payload(answer: Answer) -> (u8, u16) {
    let protocol = if answer.is_segment() {
        Protocol::Tcp
    } else {
        Protocol::Udp
    };
    (protocol.number(), answer.length() as u16)
}

/// Writes the IP header.
#[inline(always)]
fn internet<F: Reflect>(frame: &mut F, repliable: &Repliable, answer: Answer) -> Option<()> {
    let from = repliable.connection.destination;
    let to = repliable.connection.source;
    let (number, length) = payload(answer);
    if repliable.v6 {
        let [high, low] = length.to_be_bytes();
        frame.write(repliable.network, [0x60, 0, 0, 0, high, low, number, TTL])?;
        let at = |offset: usize| repliable.network.wrapping_add(offset);
        frame.write(at(8), bytemuck::cast::<_, [u8; 16]>(from.words))?;
        frame.write(at(24), bytemuck::cast::<_, [u8; 16]>(to.words))?;
    } else {
        let [_, _, _, from] = from.words;
        let [_, _, _, to] = to.words;
        let [high, low] = length.wrapping_add(V4_HEADER as u16).to_be_bytes();
        let first = u32::from_ne_bytes([0x45, 0, high, low]);
        let second = u32::from_ne_bytes([0, 0, DONT_FRAGMENT, 0]);
        let [a, b] = sum([first, second, third(number, [0, 0]), from, to]);
        let header = [first, second, third(number, [a, b]), from, to];
        frame.write(
            repliable.network,
            bytemuck::cast::<_, [u8; V4_HEADER]>(header),
        )?;
    }
    Some(())
}

/// Returns the third word of an IPv4 header.
#[inline(always)]
const fn third(protocol: u8, [a, b]: [u8; 2]) -> u32 {
    u32::from_ne_bytes([TTL, protocol, a, b])
}

#[inline(always)]
fn tcp(repliable: &Repliable, answer: Answer) -> [u8; TCP_HEADER] {
    let (sequence, acknowledges) = ((answer.body >> 32) as u32, answer.body as u32);
    let [a, b] = repliable.connection.port.to_be_bytes();
    let [c, d] = repliable.connection.source_port.to_be_bytes();
    let [w, x] = WINDOW;
    let words = |[y, z]: [u8; 2]| {
        [
            u32::from_ne_bytes([a, b, c, d]),
            sequence.to_be(),
            acknowledges.to_be(),
            u32::from_ne_bytes([0x50, answer.kind as u8, w, x]),
            u32::from_ne_bytes([y, z, 0, 0]),
        ]
    };
    let [e, f, g, h, i] = words([0, 0]);
    let [j, k, l, m, n, o, p, q, r] = pseudo(repliable, answer);
    bytemuck::cast(words(sum([e, f, g, h, i, j, k, l, m, n, o, p, q, r])))
}

#[inline(always)]
fn udp(repliable: &Repliable, answer: Answer) -> [u8; UDP_HEADER] {
    let [a, b] = repliable.connection.port.to_be_bytes();
    let [c, d] = repliable.connection.source_port.to_be_bytes();
    let [high, low] = payload(answer).1.to_be_bytes();
    let ports = u32::from_ne_bytes([a, b, c, d]);
    let rest = |[y, z]: [u8; 2]| u32::from_ne_bytes([high, low, y, z]);
    let [j, k, l, m, n, o, p, q, r] = pseudo(repliable, answer);
    // Unused digits are zero, which adds nothing.
    let (e, f) = (answer.body as u32, (answer.body >> 32) as u32);
    let sum = match sum([ports, rest([0, 0]), e, f, j, k, l, m, n, o, p, q, r]) {
        // Zero would mean that there is no checksum (RFC 768).
        [0, 0] => [0xff, 0xff],
        sum => sum,
    };
    bytemuck::cast([ports, rest(sum)])
}

/// Returns the pseudo header, which the checksums of TCP and UDP cover besides the segment.
#[inline(always)]
fn pseudo(repliable: &Repliable, answer: Answer) -> [u32; 9] {
    let [a, b, c, d] = repliable.connection.source.words;
    let [e, f, g, h] = repliable.connection.destination.words;
    let (protocol, length) = payload(answer);
    let [high, low] = length.to_be_bytes();
    let rest = u32::from_ne_bytes([0, protocol, high, low]);
    if repliable.v6 {
        [a, b, c, d, e, f, g, h, rest]
    } else {
        [d, h, rest, 0, 0, 0, 0, 0, 0]
    }
}

/// Returns the internet checksum of words in memory order: it does not depend on the order of octets (RFC 1071).
#[inline(always)]
fn sum<const N: usize>(words: [u32; N]) -> [u8; 2] {
    let mut sum = 0_u64;
    for word in words {
        sum = sum.wrapping_add(word.into());
    }
    let fold = |sum: u64| (sum & 0xffff).wrapping_add(sum >> 16);
    let sum = fold(fold(fold(fold(sum))));
    (!sum as u16).to_ne_bytes()
}
