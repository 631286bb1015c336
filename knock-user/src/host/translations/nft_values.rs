//! Parses values in rules of `nft -j`: keys, ranges, protocols and addresses.

use std::net::IpAddr;

use serde_json::Value;

use super::{space::Space, walk::RuleAction};

/// A part of a key, by what it reveals about ports.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Part {
    /// The destination port, of these protocols.
    Port(Option<u16>),
    /// The number of the protocol.
    Protocol,
    /// A part that does not concern ports.
    Other,
    /// A part that may depend on ports in an unknown way.
    Hidden,
}

pub(super) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Returns the ports that a value of a key matches; none if they are unknown.
pub(super) fn space(key: &[Part], value: &Value) -> Option<Space> {
    // The element may have a comment, timeout or counter.
    let value = value.get("elem").map_or(value, |elem| &elem["val"]);
    let values = match (key, value["concat"].as_array()) {
        ([_], None) => std::slice::from_ref(value),
        (_, Some(values)) => values.as_slice(),
        // It matches everything, as in `* : accept`.
        (_, None) => return (value.as_str() == Some("*")).then(Space::all),
    };
    if values.len() != key.len() {
        return None;
    }
    let mut space = Space::all();
    for (part, value) in key.iter().zip(values) {
        let narrowed = match part {
            Part::Other => continue,
            Part::Hidden => return None,
            _ if value.as_str() == Some("*") => continue,
            Part::Port(protocol) => {
                let ports = Space::of_ports(vec![range(value)?]);
                match protocol {
                    Some(number) => ports.and(&Space::of_protocols(&[(*number, *number)])),
                    None => ports,
                }
            }
            Part::Protocol => Space::of_protocols(&[protocols(value)?]),
        };
        space = space.and(&narrowed);
    }
    Some(space)
}

/// Returns the protocols that a key implies, whatever its value is.
pub(super) fn protocol_of(key: &[Part]) -> Space {
    match key {
        [Part::Port(Some(number))] => Space::of_protocols(&[(*number, *number)]),
        _ => Space::all(),
    }
}

/// Parses `tcp dport >= 1024`.
pub(super) fn compared(key: &[Part], operator: &Value, right: &[Value]) -> Option<Space> {
    let ([Part::Port(_)], [right]) = (key, right) else {
        return None;
    };
    let port = u16::try_from(right.as_u64()?).ok()?;
    let range = match text(operator) {
        "<" => (0, port.checked_sub(1)?),
        "<=" => (0, port),
        ">" => (port.checked_add(1)?, u16::MAX),
        ">=" => (port, u16::MAX),
        _ => return None,
    };
    Some(protocol_of(key).and(&Space::of_ports(vec![range])))
}

/// Parses `80`, `{"range": [80, 90]}` or `{"prefix": {"addr": 1024, "len": 6}}`.
pub(super) fn range(value: &Value) -> Option<(u16, u16)> {
    let port = |value: &Value| {
        let number = value
            .as_u64()
            .or_else(|| value.as_str().and_then(|text| text.parse().ok()));
        number.and_then(|number| u16::try_from(number).ok())
    };
    if let Some([first, last]) = value["range"].as_array().map(Vec::as_slice) {
        return Some((port(first)?, port(last)?));
    }
    if let Some(prefix) = value.get("prefix") {
        let first = port(&prefix["addr"])?;
        let bits = u32::try_from(prefix["len"].as_u64()?).ok()?;
        let rest = u16::MAX.checked_shr(bits).unwrap_or(0);
        return Some((first & !rest, first | rest));
    }
    Some((port(value)?, port(value)?))
}

fn protocols(value: &Value) -> Option<(u16, u16)> {
    match value.as_str() {
        Some("tcp") => Some((6, 6)),
        Some("udp") => Some((17, 17)),
        // Other protocols have no ports that matter here.
        Some(name) if name.parse::<u16>().is_err() => Some((0, 0)),
        Some(_) | None => range(value),
    }
}

pub(super) fn act(to: &Value, port: &Value) -> RuleAction {
    let Some(to) = first_address(to) else {
        return RuleAction::Unread;
    };
    match (port, range(port)) {
        (Value::Null, _) => RuleAction::Translate {
            to: Some(to),
            port: None,
        },
        (_, Some(port)) => RuleAction::Translate {
            to: Some(to),
            port: Some(port),
        },
        (_, None) => RuleAction::Unread,
    }
}

/// Returns the address, or the first one of a range or prefix.
pub(super) fn first_address(value: &Value) -> Option<IpAddr> {
    if let Some([first, _]) = value["range"].as_array().map(Vec::as_slice) {
        return first_address(first);
    }
    if let Some(prefix) = value.get("prefix") {
        return first_address(&prefix["addr"]);
    }
    value.as_str()?.parse().ok()
}
