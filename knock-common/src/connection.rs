//! The connection that a client requests, and the role of a packet in its handshake.

use bytemuck::{Pod, Zeroable};

use crate::{Address, Reason};

/// The addresses and ports of a connection that a client requests.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Pod, Zeroable)]
pub struct Connection {
    /// Source address.
    pub source: Address,
    /// Destination address.
    pub destination: Address,
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub port: u16,
}

/// The role of a packet in a handshake.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum HandshakeStep {
    /// A SYN, which gets a cookie.
    SynCookieSent = 0,
    /// An ACK with a valid cookie: the knock.
    Proved = 1,
    /// An ACK without a valid cookie.
    BadCookie = 2,
    /// The end of a connection.
    HandshakeClosed = 3,
    /// Any other packet.
    HandshakeRest = 4,
    /// A packet of a source that the port does not answer.
    NotAnswered = 5,
}

impl HandshakeStep {
    /// Returns the reason why a packet is not a knock; `None` if it is one.
    #[inline(always)]
    pub const fn no_knock(self) -> Option<Reason> {
        match self {
            Self::SynCookieSent => Some(Reason::SynCookieSent),
            Self::Proved => None,
            Self::BadCookie => Some(Reason::BadCookie),
            Self::HandshakeClosed => Some(Reason::HandshakeClosed),
            Self::HandshakeRest => Some(Reason::HandshakeRest),
            Self::NotAnswered => Some(Reason::SourceNotAllowed),
        }
    }

    /// Returns the step with this number.
    #[inline(always)]
    pub const fn from_number(number: u64) -> Self {
        match number {
            0 => Self::SynCookieSent,
            1 => Self::Proved,
            2 => Self::BadCookie,
            3 => Self::HandshakeClosed,
            5 => Self::NotAnswered,
            _ => Self::HandshakeRest,
        }
    }
}
