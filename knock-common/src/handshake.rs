//! Knocks that count when their source has proved its address by a TCP handshake. No socket and no
//! state takes part: a SYN is answered with a cookie, and the ACK that returns it is the knock.
//!
//! ```text
//! client  SYN ─▶          syn-cookie-sent   answered with SYN and ACK; nothing else happens
//!         ACK ─▶          the knock         answered with FIN and ACK, so `connect` has succeeded
//!         ACK, of our FIN handshake-rest    nothing
//!         FIN ─▶          handshake-closed  answered with RST
//! ```

use crate::{Bytes, Env, Reason, answer::Answer, cookie, packet::flag, repliable::Repliable};

const KIND: u8 = flag::SYN | flag::ACK | flag::FIN | flag::RST;
const ENDS: u8 = flag::FIN | flag::ACK;

/// What a packet is in a handshake.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum HandshakeStep {
    /// It asks for a connection.
    SynCookieSent = 0,
    /// It brings a cookie back.
    Proved = 1,
    /// It brings a number that is no cookie.
    BadCookie = 2,
    /// It ends a connection.
    HandshakeClosed = 3,
    /// It is anything else.
    HandshakeRest = 4,
}

impl HandshakeStep {
    /// The reason why a packet is no knock; `None` if it is one.
    #[inline(always)]
    pub const fn no_knock(self) -> Option<Reason> {
        match self {
            Self::SynCookieSent => Some(Reason::SynCookieSent),
            Self::Proved => None,
            Self::BadCookie => Some(Reason::BadCookie),
            Self::HandshakeClosed => Some(Reason::HandshakeClosed),
            Self::HandshakeRest => Some(Reason::HandshakeRest),
        }
    }

    /// The one with this number.
    #[inline(always)]
    pub const fn from_number(number: u64) -> Self {
        match number {
            0 => Self::SynCookieSent,
            1 => Self::Proved,
            2 => Self::BadCookie,
            3 => Self::HandshakeClosed,
            _ => Self::HandshakeRest,
        }
    }
}

/// Tells what a packet is in a handshake, and has it answered.
#[inline(always)]
pub fn classify<B: Bytes + ?Sized, W: Env>(bytes: &B, env: &W) -> HandshakeStep {
    let Some(repliable) = Repliable::find(bytes) else {
        return HandshakeStep::HandshakeRest;
    };
    let Repliable {
        connection,
        flags,
        acknowledged,
        ..
    } = repliable;
    let now = env.now();
    match flags & KIND {
        flag::SYN => {
            let cookie = cookie::make(env, &connection, now);
            env.answer(Answer::syn_ack(&repliable, cookie));
            HandshakeStep::SynCookieSent
        }
        flag::ACK if flags & flag::PSH == 0 => {
            let number = acknowledged.wrapping_sub(1);
            match cookie::distance(env, &connection, number, now) {
                0 => {
                    env.answer(Answer::fin_ack(&repliable));
                    HandshakeStep::Proved
                }
                // Our FIN was one more.
                1 => HandshakeStep::HandshakeRest,
                _ => HandshakeStep::BadCookie,
            }
        }
        ENDS => {
            env.answer(Answer::reset(&repliable));
            HandshakeStep::HandshakeClosed
        }
        _ => HandshakeStep::HandshakeRest,
    }
}
