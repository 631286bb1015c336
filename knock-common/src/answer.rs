//! Answers, each made of the frame that it answers: turned round in place, and never longer.

use core::mem;

use crate::{
    Bytes,
    packet::{Protocol, flag},
    question::Question,
};

/// A frame that can be changed where it is.
pub trait Turn: Bytes {
    /// Its length; `None` if it is in several pieces.
    fn length(&self) -> Option<usize>;

    /// Overwrites the `N` bytes at `offset`, or nothing where the frame ends before them.
    fn write<const N: usize>(&mut self, offset: usize, bytes: [u8; N]) -> Option<()>;

    /// Cuts it off after `length` bytes.
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

impl Turn for Memory<'_> {
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

/// What is answered.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Answer {
    /// To a SYN: a SYN with ACK and this sequence number.
    SynAck(u32),
    /// To an ACK: that there is nothing more to come. A reset would make the other end's `connect`
    /// fail if it came before that has returned.
    FinAck,
    /// To a FIN: a reset, which needs no further answer.
    Reset,
    /// To a knock: a datagram from the knocked port that names a port.
    Port(u16),
}

impl Answer {
    /// The answer in a word; never 0.
    #[inline(always)]
    pub const fn to_word(self) -> u64 {
        match self {
            Self::SynAck(cookie) => 1 << 32 | cookie as u64,
            Self::FinAck => 2 << 32,
            Self::Reset => 3 << 32,
            Self::Port(port) => 4 << 32 | port as u64,
        }
    }

    /// The answer that a word means.
    #[inline(always)]
    pub const fn from_word(word: u64) -> Option<Self> {
        match word >> 32 {
            1 => Some(Self::SynAck(word as u32)),
            2 => Some(Self::FinAck),
            3 => Some(Self::Reset),
            4 => Some(Self::Port(word as u16)),
            _ => None,
        }
    }
}

const MACS: usize = 12;
/// Ethernet frames are at least so long, and what is shorter inside is padded.
const PADDED: usize = 60;
/// No transport header begins before.
const TRANSPORT_LEAST: usize = 34;
const TTL: u8 = 64;
const DONT_FRAGMENT: u8 = 0x40;
const WINDOW: [u8; 2] = 0xfaf0_u16.to_be_bytes();

const V4_HEADER: usize = 20;
const V6_HEADER: usize = 40;
const TCP_HEADER: usize = 20;
const UDP_HEADER: usize = 8;
/// Digits of a port number.
const DIGITS: usize = 5;

/// Makes the answer of a frame; `None` if it has none, and then the frame may be spoiled.
#[inline(always)]
pub fn turn<F: Turn>(frame: &mut F, answer: Answer) -> Option<()> {
    let question = Question::find(frame)?;
    let length = frame.length()?;
    let payload = match answer {
        Answer::SynAck(_) | Answer::FinAck | Answer::Reset => TCP_HEADER,
        Answer::Port(port) => UDP_HEADER.wrapping_add(digits(port).1),
    };
    let header = if question.v6 { V6_HEADER } else { V4_HEADER };
    let transport = question.network.wrapping_add(header);
    let end = transport.wrapping_add(payload);
    if end > length {
        return None;
    }
    let end = if length < PADDED {
        end
    } else {
        end.max(PADDED)
    };
    if length >= PADDED {
        frame.write(TRANSPORT_LEAST, [0; PADDED - TRANSPORT_LEAST])?;
    }
    let [a, b, c, d, e, f, g, h, i, j, k, l]: [u8; MACS] = frame.read(0)?;
    frame.write(0, [g, h, i, j, k, l, a, b, c, d, e, f])?;
    match answer {
        Answer::SynAck(_) | Answer::FinAck | Answer::Reset => {
            internet(frame, &question, Protocol::Tcp, payload)?;
            frame.write(transport, tcp(&question, answer))?;
        }
        Answer::Port(port) => {
            internet(frame, &question, Protocol::Udp, payload)?;
            let (text, count) = digits(port);
            frame.write(transport, udp(&question, text, payload))?;
            for (place, digit) in (0..count).zip(text) {
                frame.write(
                    transport.wrapping_add(UDP_HEADER).wrapping_add(place),
                    [digit],
                )?;
            }
        }
    }
    frame.cut(end)
}

/// Writes the IP header.
#[inline(always)]
fn internet<F: Turn>(
    frame: &mut F,
    question: &Question,
    protocol: Protocol,
    payload: usize,
) -> Option<()> {
    let from = question.connection.destination;
    let to = question.connection.source;
    let number = protocol.number();
    if question.v6 {
        let [high, low] = (payload as u16).to_be_bytes();
        frame.write(question.network, [0x60, 0, 0, 0, high, low, number, TTL])?;
        let at = |offset: usize| question.network.wrapping_add(offset);
        frame.write(at(8), bytemuck::cast::<_, [u8; 16]>(from.words))?;
        frame.write(at(24), bytemuck::cast::<_, [u8; 16]>(to.words))?;
    } else {
        let [_, _, _, from] = from.words;
        let [_, _, _, to] = to.words;
        let [high, low] = (payload.wrapping_add(V4_HEADER) as u16).to_be_bytes();
        let first = u32::from_ne_bytes([0x45, 0, high, low]);
        let second = u32::from_ne_bytes([0, 0, DONT_FRAGMENT, 0]);
        let [a, b] = sum([first, second, third(number, [0, 0]), from, to]);
        let header = [first, second, third(number, [a, b]), from, to];
        frame.write(
            question.network,
            bytemuck::cast::<_, [u8; V4_HEADER]>(header),
        )?;
    }
    Some(())
}

/// The third word of an IPv4 header.
#[inline(always)]
const fn third(protocol: u8, [a, b]: [u8; 2]) -> u32 {
    u32::from_ne_bytes([TTL, protocol, a, b])
}

#[inline(always)]
fn tcp(question: &Question, answer: Answer) -> [u8; TCP_HEADER] {
    let Question {
        connection,
        sequence: asked,
        acknowledged,
        ..
    } = *question;
    let (flags, sequence, acknowledges, [w, x]) = match answer {
        Answer::SynAck(cookie) => {
            let next = asked.wrapping_add(1);
            (flag::SYN | flag::ACK, cookie, next, WINDOW)
        }
        Answer::FinAck => (flag::FIN | flag::ACK, acknowledged, asked, WINDOW),
        Answer::Reset | Answer::Port(_) => (flag::RST, acknowledged, 0, [0, 0]),
    };
    let [a, b] = connection.port.to_be_bytes();
    let [c, d] = connection.source_port.to_be_bytes();
    let last = |[y, z]: [u8; 2]| u32::from_ne_bytes([y, z, 0, 0]);
    let words = |sum| {
        [
            u32::from_ne_bytes([a, b, c, d]),
            sequence.to_be(),
            acknowledges.to_be(),
            u32::from_ne_bytes([0x50, flags, w, x]),
            last(sum),
        ]
    };
    let [e, f, g, h, i] = words([0, 0]);
    let pseudo = pseudo(question, Protocol::Tcp, TCP_HEADER);
    let [j, k, l, m, n, o, p, q, r] = pseudo;
    bytemuck::cast(words(sum([e, f, g, h, i, j, k, l, m, n, o, p, q, r])))
}

#[inline(always)]
fn udp(question: &Question, text: [u8; DIGITS], payload: usize) -> [u8; UDP_HEADER] {
    let [a, b] = question.connection.port.to_be_bytes();
    let [c, d] = question.connection.source_port.to_be_bytes();
    let [high, low] = (payload as u16).to_be_bytes();
    let ports = u32::from_ne_bytes([a, b, c, d]);
    let rest = |[y, z]: [u8; 2]| u32::from_ne_bytes([high, low, y, z]);
    let [t, u, v, w, x] = text;
    let pseudo = pseudo(question, Protocol::Udp, payload);
    let [j, k, l, m, n, o, p, q, r] = pseudo;
    // Digits that are not there are zero, which adds nothing.
    let [e, f] = [
        u32::from_ne_bytes([t, u, v, w]),
        u32::from_ne_bytes([x, 0, 0, 0]),
    ];
    let sum = match sum([ports, rest([0, 0]), e, f, j, k, l, m, n, o, p, q, r]) {
        // Zero would mean that there is none (RFC 768).
        [0, 0] => [0xff, 0xff],
        sum => sum,
    };
    bytemuck::cast([ports, rest(sum)])
}

/// What the checksums of TCP and UDP are about besides the segment.
#[inline(always)]
fn pseudo(question: &Question, protocol: Protocol, payload: usize) -> [u32; 9] {
    let [a, b, c, d] = question.connection.source.words;
    let [e, f, g, h] = question.connection.destination.words;
    let [high, low] = (payload as u16).to_be_bytes();
    let rest = u32::from_ne_bytes([0, protocol.number(), high, low]);
    if question.v6 {
        [a, b, c, d, e, f, g, h, rest]
    } else {
        [d, h, rest, 0, 0, 0, 0, 0, 0]
    }
}

/// The internet checksum of words as they lie in memory: the sum does not depend on the order of
/// octets (RFC 1071).
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

/// A port number as text, and how many digits it has; the others are zero octets behind them.
#[inline(always)]
fn digits(port: u16) -> ([u8; DIGITS], usize) {
    let digit = |unit: u16| u64::from(b'0').wrapping_add(u64::from(port / unit % 10));
    let text =
        digit(10_000) << 32 | digit(1_000) << 24 | digit(100) << 16 | digit(10) << 8 | digit(1);
    let count = match port {
        0..=9 => 1,
        10..=99 => 2,
        100..=999 => 3,
        1_000..=9_999 => 4,
        10_000.. => DIGITS,
    };
    let missing = DIGITS.wrapping_sub(count) as u32;
    let [_, _, _, text @ ..] = (text << missing.wrapping_mul(8)).to_be_bytes();
    (text, count)
}
