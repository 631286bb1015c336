//! The parser: each shape of frame, and any bytes.

#[path = "../../tests/src/shapes.rs"]
#[expect(
    unreachable_pub,
    reason = "shared with the tests on the program in the kernel"
)]
mod shapes;

use knock_common::{
    Address, Reason,
    packet::{
        self,
        flag::{ACK, FIN, PSH, RST, SYN, URG},
    },
};
use knock_frame::eth;
use proptest::{prelude::*, sample::Index};

#[test]
fn each_shape_is_read_as_expected() {
    for shape in shapes::all() {
        let bytes = shape.frame.bytes();
        let segment = packet::parse(&bytes[..]);
        let read = segment.map(|segment| {
            assert_eq!(segment.source_port, 40_000, "{}", shape.name);
            assert_eq!(segment.destination_port, 22, "{}", shape.name);
            assert!(segment.unicast, "{}", shape.name);
            (segment.protocol, segment.flags)
        });
        assert_eq!(read, shape.read, "{}: {bytes:02x?}", shape.name);
    }
}

#[test]
fn addresses_are_read_from_each_shape() {
    let v4 = eth().vlan(7).ip4("192.0.2.1", "192.0.2.2").options(3);
    let v6 = eth().ip6("2001:db8::1", "2001:db8::2").hop_by_hop();
    let mapped = eth().ip6("::ffff:192.0.2.1", "::ffff:192.0.2.2");
    let zero = eth().ip6("::", "::ffff:0:0:0");
    for (name, frame, source, destination) in [
        ("IPv4", v4, Ok("192.0.2.1"), Ok("192.0.2.2")),
        ("IPv6", v6, Ok("2001:db8::1"), Ok("2001:db8::2")),
        (
            "mapped",
            mapped,
            Err(Reason::BadHeader),
            Err(Reason::BadHeader),
        ),
        ("nearly mapped", zero, Ok("::"), Ok("::ffff:0:0:0")),
    ] {
        let bytes = frame.udp(1, 2).bytes();
        let bytes = &bytes[..];
        let segment = packet::parse(bytes).unwrap();
        let address = |text: &str| Address::from(text.parse::<std::net::IpAddr>().unwrap());
        assert_eq!(segment.source(bytes), source.map(address), "{name}");
        assert_eq!(
            segment.destination(bytes),
            destination.map(address),
            "{name}"
        );
    }
}

#[test]
fn the_payload_of_a_datagram_begins_behind_all_headers() {
    let v4 = || eth().ip4("192.0.2.1", "192.0.2.2");
    let v6 = || eth().ip6("2001:db8::1", "2001:db8::2");
    for (name, frame) in [
        ("IPv4", v4()),
        ("options", v4().options(10)),
        (
            "two tags",
            eth().qinq(8).vlan(7).ip4("192.0.2.1", "192.0.2.2"),
        ),
        ("IPv6", v6()),
        ("extension headers", v6().hop_by_hop().dest_opts(3).ah(2)),
        ("a first fragment", v6().fragment6(0, true)),
    ] {
        for payload in [&b""[..], b"x", &[7; 1_400]] {
            let bytes = frame.clone().datagram(1, 2, payload).bytes();
            let segment = packet::parse(&bytes[..]).unwrap();
            let (offset, length) = segment.payload(&bytes[..]).unwrap();
            assert_eq!(&bytes[offset..], payload, "{name}");
            assert_eq!(length, payload.len(), "{name}");
            // A BPF subprogram gets the segment in words.
            let (word, port) = segment.to_words();
            assert_eq!(packet::Segment::from_words(word, port), segment, "{name}");
        }
    }
    // The length counts the header.
    let mut bytes = v4().datagram(1, 2, b"more").bytes();
    for (length, payload) in [(7_u8, None), (8, Some((42, 0))), (12, Some((42, 4)))] {
        bytes[39] = length;
        let segment = packet::parse(&bytes[..]).unwrap();
        assert_eq!(segment.payload(&bytes[..]), payload, "length {length}");
    }
}

#[test]
fn syn_opens_and_fin_or_rst_ends_a_connection() {
    for (name, flags, opens, ends) in [
        ("SYN", SYN, true, false),
        ("SYN with more", SYN | PSH | URG | FIN, true, true),
        ("SYN, ACK", SYN | ACK, false, false),
        ("ACK", ACK, false, false),
        ("FIN, ACK", FIN | ACK, false, true),
        ("RST", RST, false, true),
        ("nothing", 0, false, false),
        ("reserved bits", 0xc0, false, false),
    ] {
        let frame = eth().group().ip4("192.0.2.1", "192.0.2.2");
        let segment = packet::parse(&frame.tcp(1, 2, flags).bytes()[..]).unwrap();
        assert_eq!(segment.opens(), opens, "{name}");
        assert_eq!(segment.ends(), ends, "{name}");
        assert!(!segment.unicast, "{name}");
    }
}

#[test]
fn a_truncated_frame_does_not_pass_as_another_kind() {
    for shape in shapes::all() {
        let bytes = shape.frame.bytes();
        let whole = packet::parse(&bytes[..]);
        for end in 0..bytes.len() {
            let cut = packet::parse(&bytes[..end]);
            let unreadable = matches!(cut, Err(Reason::Truncated | Reason::TinyFragment));
            assert!(
                cut == whole || unreadable,
                "{} cut off at {end}: {cut:?}",
                shape.name
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    /// Octets behind the headers do not change what is read.
    #[test]
    fn any_bytes_are_judged_by_their_headers(bytes in bytes(), more: [u8; 32]) {
        let first = packet::parse(&bytes[..]);
        let longer = [&bytes[..], &more[..]].concat();
        match first {
            Ok(segment) => {
                prop_assert_eq!(packet::parse(&longer[..]), Ok(segment));
                let source = segment.source(&bytes[..]);
                prop_assert!(matches!(source, Ok(_) | Err(Reason::BadHeader)));
                prop_assert_eq!(segment.source(&longer[..]), source);
            }
            Err(Reason::Truncated | Reason::TinyFragment) => {}
            Err(reason) => prop_assert_eq!(packet::parse(&longer[..]), Err(reason)),
        }
    }
}

/// Returns a frame of the table with some octets changed, or any bytes.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let shapes: Vec<Vec<u8>> = shapes::all().iter().map(|s| s.frame.bytes()).collect();
    let changed = (
        proptest::sample::select(shapes),
        proptest::collection::vec((any::<Index>(), any::<u8>()), 0..4),
        any::<Index>(),
    )
        .prop_map(|(mut bytes, changes, end)| {
            for (place, octet) in &changes {
                let place = place.index(bytes.len().max(1));
                bytes
                    .iter_mut()
                    .skip(place)
                    .take(1)
                    .for_each(|byte| *byte = *octet);
            }
            bytes.truncate(end.index(bytes.len() + 1));
            bytes
        });
    prop_oneof![changed, proptest::collection::vec(any::<u8>(), 0..200)]
}
