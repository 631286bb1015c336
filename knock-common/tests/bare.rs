//! Packets that begin with their IP header are read and answered like the same packets in Ethernet frames.

#[path = "../../tests/src/shapes.rs"]
#[expect(
    unreachable_pub,
    reason = "shared with the tests on the program in the kernel"
)]
mod shapes;

use knock_common::{
    Address, Bytes, Reason,
    answer::{self, Answer, Memory, Reflect},
    bare::{Bare, ETHERTYPE_IPV4, ETHERTYPE_IPV6},
    bare_packet::BarePacket,
    packet::{self, Protocol, Segment},
    port_digits::PortDigits,
    repliable::Repliable,
};
use knock_frame::eth;
use proptest::{prelude::*, sample::Index};

/// The least length of a frame with an Ethernet header.
const PADDED: usize = 60;

#[test]
fn each_shape_is_read_as_in_a_frame() {
    let mut compared = 0;
    for shape in shapes::all() {
        let frame = shape.frame.bytes();
        let Some((packet, bare)) = without_link(&frame) else {
            continue;
        };
        compared += 1;
        let packet = BarePacket {
            bytes: packet,
            bare,
        };
        let found = read(&packet);
        assert_eq!(found, read(&frame[..]), "{}: {frame:02x?}", shape.name);
        let found = found.map(|(protocol, flags, ..)| (protocol, flags));
        assert_eq!(found, shape.read, "{}: {frame:02x?}", shape.name);
    }
    assert!(compared > 60, "{compared} shapes have an IP header");
}

#[test]
fn the_version_decides_where_only_the_octets_are_known() {
    let v4 = eth().ip4("192.0.2.1", "192.0.2.2").udp(40_000, 22).bytes();
    let v6 = eth()
        .ip6("2001:db8::1", "2001:db8::2")
        .udp(40_000, 22)
        .bytes();
    for (name, bytes, expected) in [
        ("IPv4", &v4[14..], Ok(Protocol::Udp)),
        ("IPv6", &v6[14..], Ok(Protocol::Udp)),
        ("an Ethernet header", &v4[..], Err(Reason::BadHeader)),
        ("version 5", &[0x55; 60], Err(Reason::BadHeader)),
        ("version 15", &[0xf5; 60], Err(Reason::BadHeader)),
        ("version 0", &[0; 60], Err(Reason::BadHeader)),
        ("an empty packet", &[], Err(Reason::Truncated)),
        ("one octet", &[0x45], Err(Reason::Truncated)),
        ("half a header", &v6[14..34], Err(Reason::Truncated)),
    ] {
        let segment = packet::parse(&BarePacket::new(bytes));
        let protocol = segment.map(|segment| segment.protocol);
        assert_eq!(protocol, expected, "{name}");
    }
}

#[test]
fn the_device_decides_where_it_knows_the_type() {
    let frame = eth().ip4("192.0.2.1", "192.0.2.2").tcp(40_000, 22, 0);
    let bytes = &frame.bytes()[14..];
    for (name, ethertype, expected) in [
        ("IPv4", ETHERTYPE_IPV4, None),
        ("IPv6", ETHERTYPE_IPV6, Some(Reason::BadHeader)),
        ("MPLS", 0x8847, Some(Reason::NotIp)),
        ("a VLAN tag", 0x8100, Some(Reason::NotIp)),
        ("no type", 0, Some(Reason::NotIp)),
    ] {
        let bare = Bare {
            ethertype,
            unicast: true,
        };
        let packet = BarePacket { bytes, bare };
        assert_eq!(packet::parse(&packet).err(), expected, "{name}");
        assert_eq!(packet::ethertype(&packet), Some(ethertype), "{name}");
        let has_network = matches!(ethertype, ETHERTYPE_IPV4 | ETHERTYPE_IPV6);
        assert_eq!(packet::network(&packet).is_some(), has_network, "{name}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    /// Whatever a packet has, it is read, found answerable, and answered as in a frame.
    #[test]
    fn any_packet_is_read_and_answered_as_in_a_frame(
        frame in frame(),
        is_group: bool,
        kind in 0..3_u8,
        port: u16,
    ) {
        let mut frame = frame;
        if let Some(first) = frame.first_mut() {
            *first = *first & !1 | u8::from(is_group);
        }
        if let Some(source) = frame.get_mut(6) {
            *source &= !1;
        }
        let Some((packet, bare)) = without_link(&frame) else {
            return Ok(());
        };
        let mut packet = packet.to_vec();
        let link = frame.len() - packet.len();
        let here = BarePacket { bytes: &packet, bare };
        prop_assert_eq!(read(&here), read(&frame[..]));
        let found = Repliable::find(&frame[..]);
        let found_here = Repliable::find(&here);
        let moved = found.map(|it| Repliable {
            network: 0,
            transport: it.transport - it.network,
            ..it
        });
        prop_assert_eq!(moved, found_here);
        let Some(repliable) = found else {
            return Ok(());
        };
        let answer = match kind {
            0 => Answer::syn_ack(&repliable, 0xc00c_1e55),
            1 => Answer::reset(&repliable),
            _ => Answer::port(PortDigits::of(port)),
        };
        let sent = rewrite(&mut frame, answer);
        let mut memory = BareMemory { memory: Memory(&mut packet), bare };
        let sent_here = answer::rewrite_as_reply(&mut memory, answer);
        let answered = memory.memory.0;
        prop_assert_eq!(sent_here.is_some(), sent.is_some());
        if sent.is_some() {
            let (whole, padding) = frame[link..].split_at(answered.len());
            prop_assert_eq!(&answered[..], whole);
            prop_assert!(padding.is_empty() || frame.len() == PADDED);
        }
    }
}

/// What a packet is, apart from the offsets of its headers.
type Read = (
    Protocol,
    u8,
    u16,
    u16,
    bool,
    Result<Address, Reason>,
    Result<Address, Reason>,
);

fn read<B: Bytes + ?Sized>(bytes: &B) -> Result<Read, Reason> {
    let segment: Segment = packet::parse(bytes)?;
    Ok((
        segment.protocol,
        segment.flags,
        segment.source_port,
        segment.destination_port,
        segment.unicast,
        segment.source(bytes),
        segment.destination(bytes),
    ))
}

/// Returns the packet of a frame and what its Ethernet header states; `None` if it is no IP packet.
fn without_link(frame: &[u8]) -> Option<(&[u8], Bare)> {
    let (network, is_v6) = packet::network(frame)?;
    let bare = Bare {
        ethertype: if is_v6 {
            ETHERTYPE_IPV6
        } else {
            ETHERTYPE_IPV4
        },
        unicast: frame[0] & 1 == 0,
    };
    Some((&frame[network..], bare))
}

fn rewrite(frame: &mut Vec<u8>, answer: Answer) -> Option<()> {
    let mut memory = Memory(frame);
    answer::rewrite_as_reply(&mut memory, answer)?;
    let length = memory.0.len();
    frame.truncate(length);
    Some(())
}

/// A packet in memory that can be rewritten in place.
struct BareMemory<'b> {
    memory: Memory<'b>,
    bare: Bare,
}

impl Bytes for BareMemory<'_> {
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.memory.read(offset)
    }

    fn words<const N: usize>(&self, offset: usize) -> Option<[u16; N]> {
        self.memory.words(offset)
    }

    fn bare(&self) -> Option<Bare> {
        Some(self.bare)
    }
}

impl Reflect for BareMemory<'_> {
    fn length(&self) -> Option<usize> {
        self.memory.length()
    }

    fn write<const N: usize>(&mut self, offset: usize, bytes: [u8; N]) -> Option<()> {
        self.memory.write(offset, bytes)
    }

    fn cut(&mut self, length: usize) -> Option<()> {
        self.memory.cut(length)
    }
}

/// Generates frames of the table with some octets changed, with more octets or fewer.
fn frame() -> impl Strategy<Value = Vec<u8>> {
    let shapes: Vec<Vec<u8>> = shapes::all().iter().map(|s| s.frame.bytes()).collect();
    (
        proptest::sample::select(shapes),
        proptest::collection::vec((any::<Index>(), any::<u8>()), 0..4),
        prop_oneof![4 => Just(None), 1 => any::<Index>().prop_map(Some)],
        0..60_usize,
    )
        .prop_map(|(mut bytes, changes, end, more)| {
            for (place, octet) in changes {
                let place = place.index(bytes.len().max(1));
                if let Some(byte) = bytes.get_mut(place) {
                    *byte = octet;
                }
            }
            match end {
                Some(end) => bytes.truncate(end.index(bytes.len() + 1)),
                None => bytes.extend(vec![0xee; more]),
            }
            bytes
        })
}
