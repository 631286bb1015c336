//! The parts of which knocks and ports are written.

use crate::Protocol;

/// Returns the protocol with a name in lower case.
pub(crate) fn protocol(name: &str) -> Option<Protocol> {
    let both = [Protocol::Tcp, Protocol::Udp];
    both.into_iter().find(|protocol| protocol.name() == name)
}

/// Returns the port with a number from 1 to 65535, written in digits only.
pub(crate) fn port(number: &str) -> Option<u16> {
    // Integers would also parse with a sign.
    let is_number = number.bytes().all(|byte| byte.is_ascii_digit());
    number.parse().ok().filter(|&port| port > 0 && is_number)
}
