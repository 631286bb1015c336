//! The text inside a packet, read a character at a time:
//!
//! ```text
//! random:user:timestamp:version:type:message[:timeout]:digest
//! ```
//!
//! User and message are base64; the message is `ADDRESS,PROTOCOL/PORT[,PROTOCOL/PORT…]`. The state is in memory, and
//! each character is a call of a subprogram, so that the verifier follows one path instead of one per text.

use bytemuck::{Pod, Zeroable};

use super::base64::{self, NO_DIGIT};
use crate::{layout::port_index, packet::Protocol};

/// Ports that a packet may ask for.
pub const PORTS_MAX: usize = 8;

/// In place of a port's index: a protocol without ports that a door could open, such as `icmp`.
pub const NO_PORT: u32 = u32::MAX;

/// Digits of the longest number: a time or a duration.
const DIGITS_MAX: u32 = 12;

/// The types of packets that are accepted: access, and access with a timeout.
const ACCESS: u32 = 1;
const TIMED_ACCESS: u32 = 3;
/// The type of a packet with a command.
const COMMAND: u32 = 0;
/// The greatest type; the others ask for NAT.
const TYPE_MAX: u32 = 6;

/// Names of protocols, as numbers.
const TCP: u32 = u32::from_be_bytes(*b"\0tcp");
const UDP: u32 = u32::from_be_bytes(*b"\0udp");

/// Parameters of FNV-1a. The hash needs no secret, because only a holder of the user's keys can choose the name.
const HASH_START: u64 = 0xcbf2_9ce4_8422_2325;
const HASH_FACTOR: u64 = 0x0000_0100_0000_01b3;

/// The kind of packet that a text is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum MessageKind {
    /// It asks for ports.
    Access,
    /// It asks to run a command.
    Command,
    /// It asks for a translation of addresses.
    Nat,
    /// It is malformed.
    Unreadable,
}

/// The request in a text, and the state of its reader.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Request {
    /// When it was made, in seconds since 1970.
    pub timestamp: u64,
    /// For how long it asks, in seconds; 0 if it names no time.
    pub timeout: u64,
    /// See [`username_hash`].
    pub username: u64,
    /// For which IPv4 address it asks, in host order; 0 is its source.
    pub address: u32,
    /// How many of `ports` are used.
    pub port_count: u32,
    /// The ports that it asks for: see [`port_index`]; or [`NO_PORT`].
    pub ports: [u32; PORTS_MAX],
    /// The number of the current field, from 0, and how many of its characters have been read.
    field: u32,
    length: u32,
    /// The number of the type.
    kind: u32,
    /// Bits of base64 that do not make up a byte yet, and their number.
    bits: u32,
    bit_count: u32,
    /// Which part of the message is read; see [`place`].
    place: u32,
    /// The number in the message, and how many digits it has.
    number: u32,
    digits: u32,
    /// Dots of the address.
    dots: u32,
    /// The name of the protocol, as a number.
    protocol: u32,
    /// 1 once the text has turned out to be malformed.
    is_malformed: u32,
    /// Explicit padding.
    padding: u32,
}

/// Numbers of the fields.
mod field {
    pub(super) const USER: u32 = 1;
    pub(super) const TIMESTAMP: u32 = 2;
    pub(super) const TYPE: u32 = 4;
    pub(super) const MESSAGE: u32 = 5;
    pub(super) const TIMEOUT: u32 = 6;
}

/// Parts of the message.
mod place {
    pub(super) const ADDRESS: u32 = 0;
    pub(super) const PROTOCOL: u32 = 1;
    pub(super) const PORT: u32 = 2;
}

impl Request {
    /// Prepares for a text.
    #[inline(always)]
    pub fn clear(&mut self) {
        *self = Self::zeroed();
        self.username = HASH_START;
    }

    /// Reads a character of the text.
    #[inline(always)]
    pub fn read(&mut self, character: u8) {
        let byte = match character {
            b':' => self.end_field(),
            _ => self.read_in_field(character),
        };
        if let Some(byte) = byte {
            self.read_message(byte);
        }
    }

    /// Returns what kind of packet the text is, of which the last character has been read.
    #[inline(always)]
    pub const fn kind(&self) -> MessageKind {
        if self.is_malformed != 0 || self.field <= field::MESSAGE {
            return MessageKind::Unreadable;
        }
        let digest = match self.kind {
            ACCESS => field::TIMEOUT,
            TIMED_ACCESS => field::TIMEOUT + 1,
            COMMAND => return MessageKind::Command,
            2..=TYPE_MAX => return MessageKind::Nat,
            _ => return MessageKind::Unreadable,
        };
        // The digest is not compared: the HMAC authenticates the whole text.
        match self.field == digest && self.length > 0 && self.port_count > 0 {
            true => MessageKind::Access,
            false => MessageKind::Unreadable,
        }
    }

    #[inline(always)]
    const fn is_access(&self) -> bool {
        self.kind == ACCESS || self.kind == TIMED_ACCESS
    }

    #[inline(always)]
    const fn refuse(&mut self) {
        self.is_malformed = 1;
    }

    /// Ends a field, which must not be empty. Returns the character that ends the message.
    #[inline(always)]
    fn end_field(&mut self) -> Option<u8> {
        if self.length == 0 {
            self.refuse();
        }
        let ends_message = self.field == field::MESSAGE && self.is_access();
        self.field = self.field.wrapping_add(1);
        self.length = 0;
        ends_message.then_some(b',')
    }

    /// Reads a character within a field. Returns a character of the message, if it completes one.
    #[inline(always)]
    fn read_in_field(&mut self, character: u8) -> Option<u8> {
        let mut byte = None;
        match self.field {
            field::USER => {
                self.username = (self.username ^ u64::from(character)).wrapping_mul(HASH_FACTOR);
            }
            field::TIMESTAMP => self.timestamp = self.with_digit(self.timestamp, character),
            field::TYPE => self.kind = self.with_digit(self.kind.into(), character) as u32,
            field::MESSAGE if self.is_access() => byte = self.read_base64(character),
            field::TIMEOUT if self.kind == TIMED_ACCESS => {
                self.timeout = self.with_digit(self.timeout, character);
            }
            _ => {}
        }
        self.length = self.length.wrapping_add(1);
        byte
    }

    /// Returns a number with another digit behind it.
    #[inline(always)]
    fn with_digit(&mut self, number: u64, character: u8) -> u64 {
        let digit = character.wrapping_sub(b'0');
        if digit > 9 || self.length >= DIGITS_MAX {
            self.refuse();
        }
        number.wrapping_mul(10).wrapping_add(digit.into())
    }

    #[inline(always)]
    fn read_base64(&mut self, character: u8) -> Option<u8> {
        let digit = base64::digit(character);
        if digit == NO_DIGIT {
            self.refuse();
            return None;
        }
        self.bits = self.bits << base64::BITS | digit;
        let bit_count = self.bit_count.wrapping_add(base64::BITS);
        if bit_count < 8 {
            self.bit_count = bit_count;
            return None;
        }
        self.bit_count = bit_count & 7;
        Some((self.bits >> self.bit_count) as u8)
    }

    /// Reads a character of the message. A comma ends it, too.
    #[inline(always)]
    fn read_message(&mut self, character: u8) {
        match (self.place, character) {
            (place::ADDRESS, b'.') => {
                self.end_octet();
                self.dots = self.dots.wrapping_add(1);
            }
            (place::ADDRESS, b',') => {
                self.end_octet();
                if self.dots != 3 {
                    self.refuse();
                }
                self.begin_protocol();
            }
            (place::ADDRESS | place::PORT, b'0'..=b'9') => {
                let digit = character.wrapping_sub(b'0');
                self.number = self.number.wrapping_mul(10).wrapping_add(digit.into());
                self.digits = self.digits.wrapping_add(1);
                if self.digits > 5 {
                    self.refuse();
                }
            }
            (place::PROTOCOL, b'a'..=b'z') => {
                if self.protocol >> 24 != 0 {
                    self.refuse();
                }
                self.protocol = self.protocol << 8 | u32::from(character);
            }
            (place::PROTOCOL, b'/') => {
                self.place = place::PORT;
                self.begin_number();
            }
            (place::PORT, b',') => {
                self.end_port();
                self.begin_protocol();
            }
            _ => self.refuse(),
        }
    }

    #[inline(always)]
    const fn begin_number(&mut self) {
        (self.number, self.digits) = (0, 0);
    }

    #[inline(always)]
    const fn begin_protocol(&mut self) {
        (self.place, self.protocol) = (place::PROTOCOL, 0);
    }

    #[inline(always)]
    fn end_octet(&mut self) {
        if self.number > 255 || self.digits == 0 {
            self.refuse();
        }
        self.address = self.address << 8 | self.number & 0xff;
        self.begin_number();
    }

    #[inline(always)]
    fn end_port(&mut self) {
        let index = match self.protocol {
            TCP => port_index(Protocol::Tcp, self.number as u16),
            UDP => port_index(Protocol::Udp, self.number as u16),
            _ => NO_PORT,
        };
        let is_port = index == NO_PORT || matches!(self.number, 1..=0xffff);
        let count = self.port_count as usize;
        if !is_port || self.digits == 0 || count >= PORTS_MAX {
            self.refuse();
            return;
        }
        if let Some(place) = self.ports.get_mut(count & (PORTS_MAX - 1)) {
            *place = index;
        }
        self.port_count = self.port_count.wrapping_add(1);
    }
}

/// Returns the hash of a user name, as [`Request::username`] has it.
pub fn username_hash(name: &str) -> u64 {
    let mut request = Request::zeroed();
    request.clear();
    request.field = field::USER;
    for group in name.as_bytes().chunks(3) {
        let [first, second, third] = [0, 1, 2].map(|at| group.get(at).copied().unwrap_or(0));
        let bits = u32::from_be_bytes([0, first, second, third]);
        // A byte takes two characters, two bytes three, three bytes four.
        for shift in [18, 12, 6, 0].into_iter().take(group.len().wrapping_add(1)) {
            request.read(base64::character(bits >> shift));
        }
    }
    request.username
}
