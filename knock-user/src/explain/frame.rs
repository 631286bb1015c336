//! Builds the packet to judge.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use knock_common::packet::{Protocol, flag};

use super::query::Query;

const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];

/// Addresses that no host has and no door as a target: reserved ones of RFC 1112, and the discard prefix of RFC 6666.
const NOWHERE_V4: Ipv4Addr = Ipv4Addr::new(240, 0, 0, 1);
const NOWHERE_V6: Ipv6Addr = Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, 1);

/// Returns a SYN or a datagram in an Ethernet frame; `None` if the addresses are of two families.
///
/// Its source port is 0, which no existing connection has.
pub(super) fn opening(query: &Query) -> Option<Vec<u8>> {
    let Query {
        source,
        port,
        destination: to,
    } = *query;
    let destination = to.unwrap_or(match source {
        IpAddr::V4(_) => NOWHERE_V4.into(),
        IpAddr::V6(_) => NOWHERE_V6.into(),
    });
    let (number, transport): (u8, &[u8]) = match port.protocol {
        Protocol::Tcp => (
            6,
            &[0, 0, 0, 0, 0, 0, 0, 0, 0x50, flag::SYN, 0, 0, 0, 0, 0, 0],
        ),
        Protocol::Udp => (17, &[0, 8, 0, 0]),
    };
    let length = u8::try_from(transport.len()).ok()?.checked_add(4)?;
    // Unicast: knocks to a multicast address do not count.
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            frame.extend(ETHERTYPE_IPV4);
            let total = length.checked_add(20)?;
            frame.extend([0x45, 0, 0, total, 0, 0, 0, 0, 64, number, 0, 0]);
            frame.extend(source.octets());
            frame.extend(destination.octets());
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            frame.extend(ETHERTYPE_IPV6);
            frame.extend([0x60, 0, 0, 0, 0, length, number, 64]);
            frame.extend(source.octets());
            frame.extend(destination.octets());
        }
        _ => return None,
    }
    frame.extend([0, 0]);
    frame.extend(port.port.to_be_bytes());
    frame.extend(transport);
    Some(frame)
}
