//! Converts values of fwknop: prefixes, ports, commands and names of doors.

use knock_sequence::{Ports, Protocol};

use crate::model::settings::Prefix;

/// Parses a prefix in fwknop's forms, with bits behind it cleared.
pub(super) fn prefix(text: &str) -> Option<Prefix> {
    let (address, bits) = match text.split_once('/') {
        Some((address, bits)) => (address, Some(bits)),
        None => (text, None),
    };
    let one = Prefix::of(address.trim().parse().ok()?);
    let bits = match bits.map(str::trim) {
        None => one.bits,
        Some(mask) if mask.contains('.') => {
            let mask: std::net::Ipv4Addr = mask.parse().ok()?;
            let ones = mask.to_bits().leading_ones();
            (mask.to_bits().count_ones() == ones).then(|| u8::try_from(ones).ok())??
        }
        Some(bits) => bits.parse().ok().filter(|bits| *bits <= one.bits)?,
    };
    Some(Prefix { bits, ..one }.cleared())
}

/// Returns ports without others, in the order that they have.
pub(super) fn without(ports: impl IntoIterator<Item = Ports>, others: &[Ports]) -> Vec<Ports> {
    let remove = |left: Vec<Ports>, other: &Ports| {
        let parts = left.iter().flat_map(|ports| parts_outside(*ports, other));
        parts.collect()
    };
    others.iter().fold(ports.into_iter().collect(), remove)
}

/// Returns what is left of a range below and above another one.
fn parts_outside(ports: Ports, other: &Ports) -> impl Iterator<Item = Ports> {
    let overlaps = ports.overlaps(*other);
    let below = Ports {
        last: if overlaps {
            other.first.saturating_sub(1)
        } else {
            ports.last
        },
        ..ports
    };
    let above = Ports {
        first: other.last.saturating_add(1),
        ..ports
    };
    let is_above = overlaps && other.last < ports.last;
    let parts = [
        (below.first <= below.last).then_some(below),
        is_above.then_some(above),
    ];
    parts.into_iter().flatten()
}

/// Splits a command into words with our placeholders; none if it needs a shell.
pub(super) fn words(command: &str) -> Option<Vec<String>> {
    let words = command.split_whitespace().map(|word| {
        let word = [
            ("$IP", "{source}"),
            ("$SRC", "{source}"),
            ("$PORT", "{port}"),
        ]
        .iter()
        .fold(word.to_owned(), |word, (from, to)| word.replace(from, to));
        (!word.contains(['$', '|', ';', '&', '>', '<', '`', '"', '\'', '\\'])).then_some(word)
    });
    words.collect()
}

/// Returns the name of a door for ports: `ssh`, `tcp-8080`.
pub(super) fn door_name(ports: Ports) -> String {
    const NAMES: [(u16, &str); 6] = [
        (22, "ssh"),
        (80, "http"),
        (443, "https"),
        (993, "imaps"),
        (1194, "openvpn"),
        (3389, "rdp"),
    ];
    let known = NAMES.iter().find(|(port, _)| {
        (ports.first, ports.last) == (*port, *port) && ports.protocol == Protocol::Tcp
    });
    match known {
        Some((_, name)) => (*name).to_owned(),
        None => ports.to_string().replace('/', "-"),
    }
}
