//! Answers: their content, and that they are never longer than the packets that they answer.
#![expect(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

use std::net::IpAddr;

use knock_common::{
    Bytes as _,
    answer::{self, Answer, Memory},
    packet::{
        self, Protocol,
        flag::{ACK, FIN, PSH, RST, SYN},
    },
    port_digits::PortDigits,
    repliable::Repliable,
};
use knock_frame::{Frame, eth};
use proptest::{prelude::*, sample::Index};

const CLIENT: &str = "198.51.100.7";
const SERVER: &str = "192.0.2.2";
const CLIENT6: &str = "2001:db8::7";
const SERVER6: &str = "2001:db8::2";
const COOKIE: u32 = 0xc00c_1e55;

#[test]
fn each_packet_of_a_handshake_has_its_answer() {
    const SEQUENCE: u32 = 0xffff_ffff;
    const ACKED: u32 = 0x1234_5678;
    type Make = fn(&Repliable) -> Answer;
    let answers: [(_, Make, _, _); 3] = [
        (
            "syn",
            |question| Answer::syn_ack(question, COOKIE),
            SYN,
            (SYN | ACK, COOKIE, 0),
        ),
        ("ack", Answer::fin_ack, ACK, (FIN | ACK, ACKED, SEQUENCE)),
        ("fin", Answer::reset, FIN | ACK, (RST, ACKED, 0)),
    ];
    for (way, frame, network) in headers() {
        for (kind, answer, flags, (answered, sequence, acknowledged)) in answers {
            for more in [0, 4, 20, 1000] {
                let name = format!("{way}, {kind}, {more} more octets");
                let question = question(&frame, flags, SEQUENCE, ACKED, more);
                let mut turned = question.clone();
                let answer = answer(&Repliable::find(&question[..]).unwrap());
                rewrite_as_reply(&mut turned, answer).unwrap();
                assert!(turned.len() <= question.len(), "{name}");
                assert_eq!(turned[..6], question[6..12], "{name}");
                assert_eq!(turned[6..12], question[..6], "{name}");
                assert_eq!(turned[12..network], question[12..network], "{name}");
                let there = packet::parse(&question[..]).unwrap();
                let read = read(&turned, network);
                assert_eq!(
                    read.from,
                    IpAddr::from(there.destination(&question[..]).unwrap())
                );
                assert_eq!(read.to, IpAddr::from(there.source(&question[..]).unwrap()));
                assert_eq!((read.from_port, read.to_port), (7000, 40_000), "{name}");
                let header = &read.transport;
                assert_eq!((header.len(), header[12], header[13]), (20, 0x50, answered));
                assert_eq!(be32(header, 4), sequence, "{name}");
                assert_eq!(be32(header, 8), acknowledged, "{name}");
                let least = if question.len() < 60 { 0 } else { 60 };
                let end = turned.len() - read.padding.len();
                assert_eq!(turned.len(), end.max(least), "{name}");
                assert!(read.padding.iter().all(|octet| *octet == 0), "{name}");
            }
        }
    }
}

#[test]
fn a_port_is_named_where_the_datagram_has_room() {
    for (way, frame, network) in headers() {
        for port in [1, 22, 443, 8080, 65_535, 10_000, 9_999] {
            let text = port.to_string();
            for (payload, padding) in [(1, 0), (2, 0), (4, 0), (5, 0), (8, 0), (1, 17), (0, 18)] {
                let name = format!("{way}, {port}, {payload} octets and {padding} of padding");
                let question = datagram(&frame, payload, padding);
                let mut turned = question.clone();
                let sent = rewrite_as_reply(&mut turned, Answer::port(PortDigits::of(port)));
                let header = if frame.bytes()[network] >> 4 == 4 {
                    20
                } else {
                    40
                };
                let fits = network + header + 8 + text.len() <= question.len();
                assert_eq!(sent.is_some(), fits, "{name}");
                if !fits {
                    continue;
                }
                assert!(turned.len() <= question.len(), "{name}");
                let read = read(&turned, network);
                assert_eq!((read.from_port, read.to_port), (8000, 40_000), "{name}");
                assert_eq!(read.transport[8..], *text.as_bytes(), "{name}");
                assert!(read.padding.iter().all(|octet| *octet == 0), "{name}");
            }
        }
        // A TCP knock always has room.
        let question = question(&frame, SYN, 1, 0, 0);
        let mut turned = question.clone();
        rewrite_as_reply(&mut turned, Answer::port(PortDigits::of(65_535))).unwrap();
        let read = read(&turned, network);
        assert_eq!((read.from_port, read.to_port), (7000, 40_000), "{way}");
        assert_eq!(read.transport[8..], *b"65535", "{way}");
    }
}

#[test]
fn groups_fragments_and_other_protocols_are_not_answered() {
    let v4 = |from, to| eth().ip4(from, to).tcp(40_000, 7000, SYN);
    let v6 = |from, to| eth().ip6(from, to).tcp(40_000, 7000, SYN);
    let group_source = v4(CLIENT, SERVER).bytes();
    let group_source = [&group_source[..6], &[3], &group_source[7..]].concat();
    for (name, frame) in [
        (
            "group of hosts",
            eth().group().ip4(CLIENT, SERVER).tcp(1, 2, SYN).bytes(),
        ),
        ("from a group of hosts", group_source),
        ("to multicast", v4(CLIENT, "224.0.0.1").bytes()),
        ("to broadcast", v4(CLIENT, "255.255.255.255").bytes()),
        ("from multicast", v4("239.1.1.1", SERVER).bytes()),
        ("from broadcast", v4("255.255.255.255", SERVER).bytes()),
        ("from 0.0.0.0", v4("0.0.0.0", SERVER).bytes()),
        ("to multicast, IPv6", v6(CLIENT6, "ff02::1").bytes()),
        ("from multicast, IPv6", v6("ff02::1", SERVER6).bytes()),
        ("from ::", v6("::", SERVER6).bytes()),
        (
            "first fragment",
            eth()
                .ip4(CLIENT, SERVER)
                .fragment(0, true)
                .tcp(1, 2, SYN)
                .bytes(),
        ),
        (
            "later fragment",
            eth()
                .ip4(CLIENT, SERVER)
                .fragment(3, false)
                .tcp(1, 2, SYN)
                .bytes(),
        ),
        (
            "fragment, IPv6",
            eth()
                .ip6(CLIENT6, SERVER6)
                .fragment6(0, true)
                .tcp(1, 2, SYN)
                .bytes(),
        ),
        (
            "extension header",
            eth()
                .ip6(CLIENT6, SERVER6)
                .hop_by_hop()
                .tcp(1, 2, SYN)
                .bytes(),
        ),
        (
            "neither TCP nor UDP",
            eth().ip4(CLIENT, SERVER).icmp().bytes(),
        ),
        ("ARP", eth().arp().bytes()),
    ] {
        assert_eq!(Repliable::find(&frame[..]), None, "{name}");
        assert_eq!(
            rewrite_as_reply(&mut frame.clone(), Answer::port(PortDigits::of(1))),
            None,
            "{name}"
        );
    }
}

#[test]
fn a_port_is_written_in_decimal() {
    for port in 0..=u16::MAX {
        let text = PortDigits::of(port);
        assert_eq!(text.is_empty(), port == 0, "{port}");
        let answer = Answer::port(text);
        assert_ne!(answer.to_words()[0], 0);
        assert_eq!(Answer::from_words(answer.to_words()), answer);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    /// No frame causes a panic or a longer answer, and each answer is correct.
    #[test]
    fn an_answer_is_correct_and_never_longer(
        way in 0..7_usize,
        tcp: bool,
        flags: u8,
        numbers: [u32; 2],
        more in 0..80_usize,
        changes in prop::collection::vec((any::<Index>(), any::<u8>()), 0..4),
        length: Option<Index>,
        (answer, is_segment) in answer(),
    ) {
        let (_, frame, _) = headers().swap_remove(way);
        let mut asked = if tcp {
            let [sequence, acknowledged] = numbers;
            question(&frame, flags & !PSH, sequence, acknowledged, more)
        } else {
            datagram(&frame, more, 0)
        };
        for (place, octet) in changes {
            let place = place.index(asked.len());
            asked[place] = octet;
        }
        if let Some(length) = length {
            asked.truncate(length.index(asked.len()));
        }
        prop_assert_eq!(Answer::from_words(answer.to_words()), answer);
        let mut turned = asked.clone();
        if rewrite_as_reply(&mut turned, answer).is_some() {
            prop_assert!(turned.len() <= asked.len());
            let (network, _) = packet::network(&asked[..]).unwrap();
            let there = Repliable::find(&asked[..]).unwrap().connection;
            let read = read(&turned, network);
            prop_assert_eq!((read.from_port, read.to_port), (there.port, there.source_port));
            prop_assert_eq!(read.from, IpAddr::from(there.destination));
            prop_assert_eq!(read.to, IpAddr::from(there.source));
            let back = packet::parse(&turned[..]).unwrap();
            let protocol = if is_segment { Protocol::Tcp } else { Protocol::Udp };
            prop_assert_eq!(back.protocol, protocol);
        }
    }
}

/// Headers up to the IP header, and the offset of the IP header.
fn headers() -> Vec<(&'static str, Frame, usize)> {
    vec![
        ("IPv4", eth().ip4(CLIENT, SERVER), 14),
        ("IPv6", eth().ip6(CLIENT6, SERVER6), 14),
        ("IPv4, tagged", eth().vlan(7).ip4(CLIENT, SERVER), 18),
        ("IPv6, tagged", eth().vlan(7).ip6(CLIENT6, SERVER6), 18),
        (
            "IPv4, two tags",
            eth().qinq(7).vlan(8).ip4(CLIENT, SERVER),
            22,
        ),
        (
            "IPv6, two tags",
            eth().qinq(7).vlan(8).ip6(CLIENT6, SERVER6),
            22,
        ),
        ("IPv4, options", eth().ip4(CLIENT, SERVER).options(10), 14),
    ]
}

/// Rewrites a frame in memory.
fn rewrite_as_reply(frame: &mut Vec<u8>, answer: Answer) -> Option<()> {
    let mut memory = Memory(frame);
    answer::rewrite_as_reply(&mut memory, answer)?;
    let length = memory.0.len();
    frame.truncate(length);
    Some(())
}

/// Returns the frame with a sequence number, an acknowledgement number, and this many octets behind the header.
fn question(frame: &Frame, flags: u8, sequence: u32, acknowledged: u32, more: usize) -> Vec<u8> {
    let mut bytes = frame.clone().tcp(40_000, 7000, flags).bytes();
    let at = bytes.len() - 16;
    bytes[at..at + 4].copy_from_slice(&sequence.to_be_bytes());
    bytes[at + 4..at + 8].copy_from_slice(&acknowledged.to_be_bytes());
    // What is behind must not come back.
    bytes.extend(vec![0xee; more]);
    bytes
}

fn datagram(frame: &Frame, payload: usize, padding: usize) -> Vec<u8> {
    let mut bytes = frame.clone().udp(40_000, 8000).bytes();
    bytes.extend(vec![0xee; payload + padding]);
    bytes
}

/// Returns the internet checksum of octets (RFC 1071), by the book: 0 if the one that is in them is right.
fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0_u32;
    for part in parts {
        for pair in part.chunks(2) {
            sum += u32::from(pair[0]) * 256 + u32::from(*pair.get(1).unwrap_or(&0));
        }
    }
    while sum >> 16 > 0 {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    !(sum as u16)
}

/// An answer, read by the book.
#[derive(Debug)]
struct Read {
    from: IpAddr,
    to: IpAddr,
    from_port: u16,
    to_port: u16,
    /// From the ports on.
    transport: Vec<u8>,
    padding: Vec<u8>,
}

/// Reads a frame whose IP header is at an offset, and checks all its checksums.
fn read(frame: &[u8], network: usize) -> Read {
    let ip = &frame[network..];
    let (from, to, protocol, transport, rest): (IpAddr, IpAddr, _, _, _) = if ip[0] >> 4 == 4 {
        assert_eq!(ip[0], 0x45);
        assert_eq!(checksum(&[&ip[..20]]), 0, "IPv4 header");
        let total = usize::from(u16::from_be_bytes([ip[2], ip[3]]));
        let address = |at: usize| <[u8; 4]>::try_from(&ip[at..at + 4]).unwrap().into();
        (
            address(12),
            address(16),
            ip[9],
            &ip[20..total],
            &ip[total..],
        )
    } else {
        let end = 40 + usize::from(u16::from_be_bytes([ip[4], ip[5]]));
        let address = |at: usize| <[u8; 16]>::try_from(&ip[at..at + 16]).unwrap().into();
        (address(8), address(24), ip[6], &ip[40..end], &ip[end..])
    };
    let octets = |address: IpAddr| match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    let [high, low] = (transport.len() as u16).to_be_bytes();
    let pseudo = [&octets(from)[..], &octets(to), &[0, protocol, high, low]].concat();
    assert_eq!(checksum(&[&pseudo, transport]), 0, "{protocol}");
    Read {
        from,
        to,
        from_port: u16::from_be_bytes([transport[0], transport[1]]),
        to_port: u16::from_be_bytes([transport[2], transport[3]]),
        transport: transport.to_vec(),
        padding: rest.to_vec(),
    }
}

fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes.read(at).unwrap())
}

/// Returns any answer, and whether it is a segment.
fn answer() -> impl Strategy<Value = (Answer, bool)> {
    (0..4, any::<u32>(), any::<u16>()).prop_map(|(kind, cookie, port)| {
        let frame = question(&eth().ip4(CLIENT, SERVER), SYN, cookie, !cookie, 0);
        let question = Repliable::find(&frame[..]).unwrap();
        match kind {
            0 => (Answer::syn_ack(&question, cookie), true),
            1 => (Answer::fin_ack(&question), true),
            2 => (Answer::reset(&question), true),
            _ => (Answer::port(PortDigits::of(port)), false),
        }
    })
}
