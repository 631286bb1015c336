//! The packet parser, compared with etherparse and with a reference parser written from the RFCs.

pub(crate) mod reference;

use etherparse::{EtherType, IpNumber, LinkExtSlice, NetSlice, SlicedPacket, TransportSlice};
use knock_common::{
    Reason, Verdict,
    packet::{self, Protocol, Segment},
};

use self::reference::FrameFields;

/// Checks that the three parsers agree on a frame, and that bytes behind the headers change nothing.
pub fn check(frame: &[u8]) {
    let segment = packet::parse(frame);
    agrees_with_reference(frame, segment, reference::read(frame));
    agrees_with_etherparse(frame, segment);
    let longer = [frame, &[0xa5; 48]].concat();
    match segment {
        Ok(_) => assert_eq!(packet::parse(&longer[..]), segment, "behind {frame:02x?}"),
        // With more octets another field can be read.
        Err(Reason::Truncated | Reason::TinyFragment) => {}
        Err(_) => assert_eq!(packet::parse(&longer[..]), segment, "behind {frame:02x?}"),
    }
    if segment.is_ok() {
        assert!(packet::network(frame).is_some(), "{frame:02x?}");
    }
}

fn agrees_with_reference(
    frame: &[u8],
    segment: Result<Segment, Reason>,
    expected: Result<FrameFields, Reason>,
) {
    let found = segment.map(|segment| FrameFields {
        protocol: segment.protocol,
        flags: segment.flags,
        source_port: segment.source_port,
        destination_port: segment.destination_port,
        unicast: segment.unicast,
        source: segment.source(frame),
        destination: segment.destination(frame),
    });
    assert_eq!(found, expected, "{frame:02x?}");
}

/// Checks that where etherparse sees a TCP or UDP header, the parser sees the same ports, or refuses the frame: what
/// passes unread must not be what a protected port's connection is made of. What the parser sees,
/// etherparse sees too, unless it finds the frame malformed.
fn agrees_with_etherparse(frame: &[u8], segment: Result<Segment, Reason>) {
    let Ok(sliced) = SlicedPacket::from_ethernet(frame) else {
        return;
    };
    if !is_known_to_linux(frame, &sliced) {
        return;
    }
    let theirs = match &sliced.transport {
        Some(TransportSlice::Tcp(tcp)) => {
            Some((Protocol::Tcp, tcp.source_port(), tcp.destination_port()))
        }
        Some(TransportSlice::Udp(udp)) => {
            Some((Protocol::Udp, udp.source_port(), udp.destination_port()))
        }
        Some(TransportSlice::Icmpv4(_) | TransportSlice::Icmpv6(_) | TransportSlice::Igmp(_))
        | None => None,
    };
    let ours = segment.map(|segment| {
        (
            segment.protocol,
            segment.source_port,
            segment.destination_port,
        )
    });
    match (ours, theirs) {
        (Ok(ours), Some(theirs)) => assert_eq!(ours, theirs, "{frame:02x?}"),
        (Err(reason), Some(theirs)) => assert_eq!(
            reason.verdict(),
            Verdict::Drop,
            "{theirs:?} passes as {reason:?}: {frame:02x?}"
        ),
        // It looks into no fragment.
        (Ok(ours), None) => assert!(is_fragment(&sliced), "{ours:?} in {frame:02x?}"),
        (Err(_), None) => {}
    }
}

/// An EtherType that etherparse takes for a VLAN tag.
const OLD_QINQ: EtherType = EtherType(0x9100);

/// Returns whether Linux would look as far into a frame as etherparse does. It removes only tags of 802.1Q and
/// 802.1ad before it looks for IP, and does not look behind an authentication header in IPv4.
fn is_known_to_linux(frame: &[u8], sliced: &SlicedPacket<'_>) -> bool {
    let tags_are_known = sliced.link_exts.iter().all(|ext| match ext {
        LinkExtSlice::Vlan(tag) => tag.ether_type() != OLD_QINQ,
        LinkExtSlice::Macsec(_) => false,
    });
    let is_old = frame.get(12..14) == Some(&OLD_QINQ.0.to_be_bytes());
    let is_authenticated_v4 = match &sliced.net {
        Some(NetSlice::Ipv4(v4)) => v4.header().protocol() == IpNumber::AUTHENTICATION_HEADER,
        Some(NetSlice::Ipv6(_) | NetSlice::Arp(_)) | None => false,
    };
    tags_are_known && !is_old && !is_authenticated_v4
}

fn is_fragment(sliced: &SlicedPacket<'_>) -> bool {
    match &sliced.net {
        Some(NetSlice::Ipv4(v4)) => v4.header().more_fragments(),
        Some(NetSlice::Ipv6(v6)) => v6.is_payload_fragmented(),
        Some(NetSlice::Arp(_)) | None => false,
    }
}
