//! Replies to the client: the port that a door opened, and the number of the next one-time line.

use etherparse::{LaxSlicedPacket, PacketBuilder, TransportSlice};
use knock_client::{
    next_line::{self, NextLineAddress},
    reply,
};
use knock_common::{
    answer::{Answer, Memory, rewrite_as_reply},
    port_digits::PortDigits,
};

/// Takes bytes for each kind of answer, and for an index on the command line.
pub fn check(bytes: &[u8]) {
    let number = number_in(bytes);
    let port = number.and_then(|number| u16::try_from(number).ok());
    assert_eq!(
        reply::port_in(bytes),
        port.filter(|port| *port > 0),
        "{bytes:?}"
    );
    let line = bytes.strip_suffix(b"\n").and_then(number_in);
    let line = line.and_then(|line| usize::try_from(line).ok());
    assert_eq!(
        next_line::line_in(bytes),
        line.filter(|line| *line > 0),
        "{bytes:?}"
    );
    if let Some(&[low, high]) = bytes.first_chunk() {
        check_sent(u16::from_le_bytes([low, high]));
    }
    if let Ok(word) = str::from_utf8(bytes) {
        check_index(word);
    }
}

/// Returns the number whose decimal digits are `bytes`.
fn number_in(bytes: &[u8]) -> Option<u128> {
    let mut number = (!bytes.is_empty()).then_some(0_u128)?;
    for byte in bytes {
        let digit = (*byte as char).to_digit(10)?;
        number = number.saturating_mul(10).saturating_add(digit.into());
    }
    Some(number)
}

/// Checks that the client reads the port that the host sends.
fn check_sent(port: u16) {
    let mut frame = Vec::new();
    let written = PacketBuilder::ethernet2([2; 6], [4; 6])
        .ipv4([203, 0, 113, 9], [192, 0, 2, 1], 64)
        .udp(40_000, 8000)
        .write(&mut frame, &[0; 5]);
    assert!(written.is_ok(), "{written:?}");
    let mut memory = Memory(&mut frame);
    assert!(rewrite_as_reply(&mut memory, Answer::port(PortDigits::of(port))).is_some());
    let packet = LaxSlicedPacket::from_ethernet(memory.0);
    let transport = packet.ok().and_then(|packet| packet.transport);
    let Some(TransportSlice::Udp(datagram)) = transport else {
        panic!("no datagram: {:02x?}", memory.0);
    };
    let understood = reply::port_in(datagram.payload());
    assert_eq!(understood, (port > 0).then_some(port));
}

/// Checks that an accepted text of a server has the port that was written.
fn check_index(word: &str) {
    match word.parse::<NextLineAddress>() {
        Ok(NextLineAddress { port, door, .. }) => {
            let place = word.split('/').next().unwrap_or_default();
            let digits = place.rsplit(':').next().unwrap_or_default();
            assert_eq!(number_in(digits.as_bytes()), Some(port.into()), "{word:?}");
            assert_eq!(door.is_some(), word.contains('/'), "{word:?}");
        }
        Err(reason) => assert!(!reason.is_empty(), "{word:?}"),
    }
}
