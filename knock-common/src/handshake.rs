//! Knocks that count once their source has proved its address by a TCP handshake. It needs no socket and no
//! state: a SYN is answered with a SYN cookie, and the ACK that returns the cookie is the knock.
//!
//! ```text
//! client  SYN ─▶          syn-cookie-sent   answered with SYN and ACK; no knock yet
//!         ACK ─▶          the knock         answered with FIN and ACK, so `connect` has succeeded
//!         ACK, of our FIN handshake-rest    nothing
//!         FIN ─▶          handshake-closed  answered with RST
//! ```

use crate::{
    Bytes, Subprograms, answer::Answer, connection::HandshakeStep, cookie, from, packet::flag,
    repliable::Repliable,
};

const KIND: u8 = flag::SYN | flag::ACK | flag::FIN | flag::RST;
const ENDS: u8 = flag::FIN | flag::ACK;

/// Determines the role of a packet in a handshake, and leaves its answer; none to a source that the port does not
/// answer.
#[inline(always)]
pub fn classify<B: Bytes + ?Sized, E: Subprograms>(bytes: &B, env: &E) -> HandshakeStep {
    let Some(repliable) = Repliable::find(bytes) else {
        return HandshakeStep::HandshakeRest;
    };
    let Repliable {
        connection,
        flags,
        acknowledged,
        ..
    } = repliable;
    if !from::is_answered(env, &connection) {
        return HandshakeStep::NotAnswered;
    }
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
                // The ACK of our FIN, whose number is greater by one.
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
