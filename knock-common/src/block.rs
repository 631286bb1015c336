//! Blocked sources: all their packets are dropped, of any protocol, before anything else is judged.

use crate::{
    Address, Bytes, Env, Reason, Subprograms, emit, event::EventHead, layout::Features, packet,
    packet_info::PacketInfo,
};

/// Returns whether the source of a frame is blocked. Trust wins over a block.
#[inline(always)]
pub fn is_blocked<B: Bytes + ?Sized, E: Env>(bytes: &B, env: &E) -> bool {
    let Some((network, is_v6)) = packet::network(bytes) else {
        return false;
    };
    let source = packet::source(bytes, network, is_v6);
    if source == Address::ANY {
        return false;
    }
    let block = env.blocked(source);
    let is_blocked = block.is_some_and(|block| block.is_valid(env.now()))
        || env.features().has(Features::BLOCK) && env.is_in_block_list(source);
    is_blocked && !(env.features().has(Features::TRUST) && env.is_trusted(source))
}

/// Reports a frame of a blocked source. A frame without ports is counted only: an event is about a port.
///
/// This is a step of its own because the kernel side has no room on its stack for both.
#[inline(always)]
pub fn report<B: Bytes + ?Sized, E: Subprograms>(bytes: &B, env: &E) {
    let now = env.now();
    if !emit::admits(env, Reason::Blocked.reporting(), now) {
        return;
    }
    let Some((network, is_v6)) = packet::network(bytes) else {
        return;
    };
    let Some(ports) = packet::ports(bytes, network, is_v6) else {
        return;
    };
    let info = PacketInfo {
        source: packet::source(bytes, network, is_v6),
        destination: packet::destination(bytes, network, is_v6),
        now_ns: now.nanos(),
        target_id: 0,
        source_port: ports.source,
        port: ports.destination,
        protocol: ports.protocol as u8,
        padding: 0,
        interface: bytes.interface(),
        padding2: 0,
    };
    env.hand_over(&info, EventHead::new(Reason::Blocked), 0);
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;
    use crate::{
        blocked::Blocked,
        judge::judge,
        layout::{FlagClass, PortRule},
        packet::flag,
        sim::Sim,
    };

    const NOW_MS: u64 = 10_000;

    fn syn(source: &str, port: u16) -> Vec<u8> {
        let frame = match source.contains(':') {
            true => knock_frame::eth().ip6(source, "2001:db8::1"),
            false => knock_frame::eth().ip4(source, "192.0.2.1"),
        };
        frame.tcp(40_000, port, flag::SYN).bytes()
    }

    fn prefix(octets: [u8; 4], bits: u32) -> (Address, u32) {
        (Address::from_v4(octets), 96 + bits)
    }

    fn until(until_ms: u64) -> Blocked {
        Blocked {
            until_ms,
            own_until_ms: until_ms,
            ..Blocked::default()
        }
    }

    #[test]
    fn a_blocked_source_reaches_no_port() {
        let list = prefix([203, 0, 113, 0], 24);
        let command = prefix([198, 51, 100, 7], 32);
        let v6: std::net::Ipv6Addr = "2001:db8:7::".parse().unwrap();
        let v6 = (Address::from_v6(v6.octets()), 48);
        let (later, earlier) = (until(NOW_MS + 1), until(NOW_MS));
        let (blocked, ordinary) = (Reason::Blocked, Reason::Ordinary);
        for (name, listed, by_command, trusted, source, expected) in [
            (
                "in the list",
                Some(list),
                None,
                None,
                "203.0.113.9",
                blocked,
            ),
            (
                "outside the list",
                Some(list),
                None,
                None,
                "203.0.112.9",
                ordinary,
            ),
            (
                "listed and trusted",
                Some(list),
                None,
                Some(list),
                "203.0.113.9",
                ordinary,
            ),
            (
                "by command",
                None,
                Some((command, later)),
                None,
                "198.51.100.7",
                blocked,
            ),
            (
                "expired",
                None,
                Some((command, earlier)),
                None,
                "198.51.100.7",
                ordinary,
            ),
            (
                "without end",
                None,
                Some((command, until(Blocked::NEVER))),
                None,
                "198.51.100.7",
                blocked,
            ),
            (
                "by command and trusted",
                None,
                Some((command, later)),
                Some(command),
                "198.51.100.7",
                ordinary,
            ),
            (
                "expired, but in the list",
                Some(list),
                Some((list, earlier)),
                None,
                "203.0.113.9",
                blocked,
            ),
            ("IPv6", Some(v6), None, None, "2001:db8:7::1", blocked),
            (
                "another IPv6 prefix",
                Some(v6),
                None,
                None,
                "2001:db8:8::1",
                ordinary,
            ),
        ] {
            let mut features = Features::default();
            if listed.is_some() {
                features = features.with(Features::BLOCK);
            }
            if trusted.is_some() {
                features = features.with(Features::TRUST);
            }
            let sim = Sim {
                features,
                block_list: listed.into_iter().collect(),
                blocked: by_command.into_iter().collect(),
                trust: trusted.into_iter().collect(),
                ..Sim::default()
            };
            sim.now.set(NOW_MS * 1_000_000);
            assert_eq!(judge(&syn(source, 80)[..], &sim), expected, "{name}");
            let events = sim.events.borrow();
            let ports: Vec<_> = events
                .iter()
                .map(|event| (event.port, event.reason))
                .collect();
            let reported = if expected == Reason::Blocked {
                std::vec![(80, Reason::Blocked as u8)]
            } else {
                Vec::new()
            };
            assert_eq!(ports, reported, "{name}");
        }
    }

    #[test]
    fn a_block_comes_before_every_other_decision() {
        let ports = [
            (22, PortRule::protected(0)),
            (80, PortRule::EXEMPT),
            (7000, PortRule::knock(0, 0)),
            (7001, PortRule::DECOY),
        ];
        let sim = Sim {
            features: Features::BLOCK,
            block_list: std::vec![prefix([203, 0, 113, 7], 32)],
            ports: ports.into(),
            config: crate::layout::Config {
                flag_classes: [FlagClass::SYN; 16],
                ..crate::layout::Config::default()
            },
            ..Sim::default()
        };
        let from = |source: &str| knock_frame::eth().ip4(source, "192.0.2.1");
        let cut = |source: &str| {
            let mut bytes = syn(source, 22);
            bytes.truncate(36);
            bytes
        };
        for port in [22, 80, 7000, 7001, 9999] {
            let reason = judge(&syn("203.0.113.7", port)[..], &sim);
            assert_eq!(reason, Reason::Blocked, "tcp/{port}");
            let reason = judge(&syn("203.0.113.8", port)[..], &sim);
            assert_ne!(reason, Reason::Blocked, "tcp/{port} of another source");
        }
        for (name, bytes) in [
            ("a datagram", from("203.0.113.7").udp(40_000, 53).bytes()),
            (
                "a frame that ends inside the header of TCP",
                cut("203.0.113.7"),
            ),
        ] {
            assert_eq!(judge(&bytes[..], &sim), Reason::Blocked, "{name}");
        }
    }
}
