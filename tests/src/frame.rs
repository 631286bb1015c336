//! Frames, header by header: `eth().vlan(7).ip4("192.0.2.1", "192.0.2.2").tcp(40000, 22, SYN)`.
//!
//! Lengths and next-header fields are right as long as nobody asks for others; checksums are zero,
//! because nothing here reads them. Addresses are written as texts; a wrong one panics.

use std::net::{Ipv4Addr, Ipv6Addr};

pub use knock_common::packet::flag::{ACK, FIN, PSH, RST, SYN, URG};

/// A SYN's answer.
pub const SYN_ACK: u8 = SYN | ACK;

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const ICMP6: u8 = 58;
const DESTINATION: u8 = 60;
const SCTP: u8 = 132;

const IPV4: u16 = 0x0800;
const ARP: u16 = 0x0806;
const VLAN: u16 = 0x8100;
const IPV6: u16 = 0x86dd;
const QINQ: u16 = 0x88a8;

/// Where the header that comes next is announced.
#[derive(Clone, Copy, Debug)]
enum Next {
    /// Two octets with an ethertype.
    Ethertype(usize),
    /// One octet with an IP protocol.
    Protocol(usize),
}

/// A frame in the making.
#[derive(Clone, Debug)]
pub struct Frame {
    bytes: Vec<u8>,
    next: Next,
    /// Where the IPv4 header begins, if there is one.
    v4: Option<usize>,
    /// Where the IPv6 header begins, if there is one.
    v6: Option<usize>,
}

/// An Ethernet header to this host alone.
pub fn eth() -> Frame {
    Frame {
        bytes: vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0, 0],
        next: Next::Ethertype(12),
        v4: None,
        v6: None,
    }
}

impl Frame {
    /// Sends the frame to a group of hosts.
    #[must_use]
    pub fn group(self) -> Self {
        self.put(0, &[1])
    }

    /// An 802.1Q tag.
    #[must_use]
    pub fn vlan(self, id: u16) -> Self {
        self.tag(VLAN, id)
    }

    /// An 802.1ad tag.
    #[must_use]
    pub fn qinq(self, id: u16) -> Self {
        self.tag(QINQ, id)
    }

    fn tag(mut self, ethertype: u16, id: u16) -> Self {
        self.announce_ethertype(ethertype);
        self.bytes.extend(id.to_be_bytes());
        self.next = Next::Ethertype(self.bytes.len());
        self.bytes.extend([0, 0]);
        self
    }

    /// An ARP request.
    #[must_use]
    pub fn arp(mut self) -> Self {
        self.announce_ethertype(ARP);
        self.bytes.extend([0, 1, 8, 0, 6, 4, 0, 1]);
        self.bytes.extend([0; 20]);
        self
    }

    /// An IPv4 header without options.
    #[must_use]
    pub fn ip4(mut self, source: &str, destination: &str) -> Self {
        let octets = |text: &str| match text.parse::<Ipv4Addr>() {
            Ok(address) => address.octets(),
            Err(error) => panic!("{text}: {error}"),
        };
        self.announce_ethertype(IPV4);
        let at = self.bytes.len();
        self.v4 = Some(at);
        self.next = Next::Protocol(at + 9);
        self.bytes.extend([0x45, 0, 0, 20, 0, 0, 0, 0, 64, 0, 0, 0]);
        self.bytes.extend(octets(source));
        self.bytes.extend(octets(destination));
        self
    }

    /// Adds `words` 4-byte words of IPv4 options.
    #[must_use]
    pub fn options(mut self, words: u8) -> Self {
        // One octet each: "no operation".
        self.bytes.extend(vec![1; usize::from(words) * 4]);
        self.ip_byte(0, 0x45 + words)
    }

    /// Makes the IPv4 packet a fragment at this offset, in units of eight octets.
    #[must_use]
    pub fn fragment(self, offset: u16, more: bool) -> Self {
        let field = offset | u16::from(more) << 13;
        let [high, low] = field.to_be_bytes();
        self.ip_byte(6, high).ip_byte(7, low)
    }

    /// An IPv6 header.
    #[must_use]
    pub fn ip6(mut self, source: &str, destination: &str) -> Self {
        let octets = |text: &str| match text.parse::<Ipv6Addr>() {
            Ok(address) => address.octets(),
            Err(error) => panic!("{text}: {error}"),
        };
        self.announce_ethertype(IPV6);
        let at = self.bytes.len();
        self.v6 = Some(at);
        self.next = Next::Protocol(at + 6);
        self.bytes.extend([0x60, 0, 0, 0, 0, 0, 0, 64]);
        self.bytes.extend(octets(source));
        self.bytes.extend(octets(destination));
        self
    }

    /// Hop-by-hop options, eight octets.
    #[must_use]
    pub fn hop_by_hop(self) -> Self {
        self.extension(0, 0, 8)
    }

    /// Destination options, longer than the shortest by this many times eight octets.
    #[must_use]
    pub fn dest_opts(self, units: u8) -> Self {
        self.extension(DESTINATION, units, (usize::from(units) + 1) * 8)
    }

    /// A routing header, eight octets.
    #[must_use]
    pub fn routing(self) -> Self {
        self.extension(ROUTING, 0, 8)
    }

    /// A fragment header: where the piece begins, in eight octets, and whether more follow.
    #[must_use]
    pub fn fragment6(self, offset: u16, more: bool) -> Self {
        let at = self.bytes.len();
        let field = offset << 3 | u16::from(more);
        self.extension(FRAGMENT, 0, 8)
            .put(at + 2, &field.to_be_bytes())
    }

    /// An authentication header, longer than the shortest by this many words.
    #[must_use]
    pub fn ah(self, words: u8) -> Self {
        self.extension(AUTHENTICATION, words, (usize::from(words) + 2) * 4)
    }

    fn extension(mut self, kind: u8, length: u8, octets: usize) -> Self {
        self.announce_protocol(kind);
        let at = self.bytes.len();
        self.bytes.resize(at + octets, 0);
        self.next = Next::Protocol(at);
        self.put(at + 1, &[length])
    }

    /// A TCP header without options.
    #[must_use]
    pub fn tcp(mut self, source: u16, destination: u16, flags: u8) -> Self {
        self.announce_protocol(TCP);
        self.ports(source, destination);
        self.bytes.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags]);
        self.bytes.extend([0xff, 0xff, 0, 0, 0, 0]);
        self
    }

    /// A UDP header without payload.
    #[must_use]
    pub fn udp(mut self, source: u16, destination: u16) -> Self {
        self.announce_protocol(UDP);
        self.ports(source, destination);
        self.bytes.extend([0, 8, 0, 0]);
        self
    }

    /// An ICMP or ICMPv6 echo request, as the IP header has it.
    #[must_use]
    pub fn icmp(mut self) -> Self {
        let (protocol, kind) = if self.v6.is_some() {
            (ICMP6, 128)
        } else {
            (ICMP, 8)
        };
        self.announce_protocol(protocol);
        self.bytes.extend([kind, 0, 0, 0, 0, 1, 0, 1]);
        self
    }

    /// An SCTP header: it has ports where TCP has them.
    #[must_use]
    pub fn sctp(mut self, source: u16, destination: u16) -> Self {
        self.announce_protocol(SCTP);
        self.ports(source, destination);
        self.bytes.extend([0; 8]);
        self
    }

    fn ports(&mut self, source: u16, destination: u16) {
        self.bytes.extend(source.to_be_bytes());
        self.bytes.extend(destination.to_be_bytes());
    }

    /// Sets an octet of the IP header, right or wrong.
    #[must_use]
    pub fn ip_byte(self, offset: usize, value: u8) -> Self {
        let at = self.v4.or(self.v6).unwrap_or(14);
        self.put(at + offset, &[value])
    }

    /// Cuts octets off the end of the frame.
    #[must_use]
    pub fn truncate(mut self, octets: usize) -> Self {
        let length = self.bytes.len().saturating_sub(octets);
        self.bytes.truncate(length);
        self
    }

    /// The frame as it is sent.
    pub fn bytes(&self) -> Vec<u8> {
        let mut frame = self.clone();
        let length = |from: usize| u16::try_from(self.bytes.len().saturating_sub(from));
        if let Some((at, Ok(total))) = self.v4.map(|at| (at, length(at))) {
            frame = frame.put(at + 2, &total.to_be_bytes());
        }
        if let Some((at, Ok(payload))) = self.v6.map(|at| (at, length(at + 40))) {
            frame = frame.put(at + 4, &payload.to_be_bytes());
        }
        frame.bytes
    }

    fn announce_ethertype(&mut self, ethertype: u16) {
        if let Next::Ethertype(at) = self.next {
            self.write(at, &ethertype.to_be_bytes());
        }
    }

    fn announce_protocol(&mut self, protocol: u8) {
        if let Next::Protocol(at) = self.next {
            self.write(at, &[protocol]);
        }
    }

    fn put(mut self, at: usize, octets: &[u8]) -> Self {
        self.write(at, octets);
        self
    }

    /// Overwrites what is there; what a truncated frame has not is left out.
    fn write(&mut self, at: usize, octets: &[u8]) {
        let places = self.bytes.iter_mut().skip(at);
        for (place, octet) in places.zip(octets) {
            *place = *octet;
        }
    }
}
