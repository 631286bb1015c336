//! Builds frames for tests, header by header: `eth().vlan(7).ip4("192.0.2.1", "192.0.2.2").udp(40_000, 7000)`.
//!
//! Lengths and next-header fields are correct unless a method changes them. Checksums are zero, because
//! the program reads none. A text that is not an address panics.

use std::{
    fmt::Display,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

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

/// The field that names the next header, by its offset.
#[derive(Clone, Copy, Debug)]
enum NextHeader {
    /// Two octets for an ethertype.
    Ethertype(usize),
    /// One octet for an IP protocol.
    Protocol(usize),
}

/// A frame under construction.
#[derive(Clone, Debug)]
pub struct Frame {
    bytes: Vec<u8>,
    next: NextHeader,
    /// The offset of the IPv4 header, if there is one.
    v4: Option<usize>,
    /// The offset of the IPv6 header, if there is one.
    v6: Option<usize>,
}

/// Begins a frame with an Ethernet header to a unicast address.
pub fn eth() -> Frame {
    Frame {
        bytes: vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0, 0],
        next: NextHeader::Ethertype(12),
        v4: None,
        v6: None,
    }
}

impl Frame {
    /// Makes the destination a multicast address.
    #[must_use]
    pub fn group(self) -> Self {
        self.put(0, &[1])
    }

    /// Adds an 802.1Q tag.
    #[must_use]
    pub fn vlan(self, id: u16) -> Self {
        self.tag(VLAN, id)
    }

    /// Adds an 802.1ad tag.
    #[must_use]
    pub fn qinq(self, id: u16) -> Self {
        self.tag(QINQ, id)
    }

    fn tag(mut self, ethertype: u16, id: u16) -> Self {
        self.announce_ethertype(ethertype);
        self.bytes.extend(id.to_be_bytes());
        self.next = NextHeader::Ethertype(self.bytes.len());
        self.bytes.extend([0, 0]);
        self
    }

    /// Adds an ARP request.
    #[must_use]
    pub fn arp(mut self) -> Self {
        self.announce_ethertype(ARP);
        self.bytes.extend([0, 1, 8, 0, 6, 4, 0, 1]);
        self.bytes.extend([0; 20]);
        self
    }

    /// Adds an IP header of the family of both addresses.
    ///
    /// # Panics
    /// The addresses are of different families.
    #[must_use]
    pub fn ip(self, source: IpAddr, destination: IpAddr) -> Self {
        match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => self.ipv4(source, destination),
            (IpAddr::V6(source), IpAddr::V6(destination)) => self.ipv6(source, destination),
            mixed => panic!("addresses of two families: {mixed:?}"),
        }
    }

    /// Adds an IPv4 header without options.
    ///
    /// # Panics
    /// A text is not an IPv4 address.
    #[must_use]
    pub fn ip4(self, source: &str, destination: &str) -> Self {
        self.ipv4(address(source), address(destination))
    }

    /// Adds an IPv6 header.
    ///
    /// # Panics
    /// A text is not an IPv6 address.
    #[must_use]
    pub fn ip6(self, source: &str, destination: &str) -> Self {
        self.ipv6(address(source), address(destination))
    }

    fn ipv4(mut self, source: Ipv4Addr, destination: Ipv4Addr) -> Self {
        self.announce_ethertype(IPV4);
        let at = self.bytes.len();
        self.v4 = Some(at);
        self.next = NextHeader::Protocol(at + 9);
        self.bytes.extend([0x45, 0, 0, 20, 0, 0, 0, 0, 64, 0, 0, 0]);
        self.bytes.extend(source.octets());
        self.bytes.extend(destination.octets());
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

    fn ipv6(mut self, source: Ipv6Addr, destination: Ipv6Addr) -> Self {
        self.announce_ethertype(IPV6);
        let at = self.bytes.len();
        self.v6 = Some(at);
        self.next = NextHeader::Protocol(at + 6);
        self.bytes.extend([0x60, 0, 0, 0, 0, 0, 0, 64]);
        self.bytes.extend(source.octets());
        self.bytes.extend(destination.octets());
        self
    }

    /// Adds hop-by-hop options of eight octets.
    #[must_use]
    pub fn hop_by_hop(self) -> Self {
        self.extension(0, 0, 8)
    }

    /// Adds destination options, `units` times eight octets longer than the shortest ones.
    #[must_use]
    pub fn dest_opts(self, units: u8) -> Self {
        self.extension(DESTINATION, units, (usize::from(units) + 1) * 8)
    }

    /// Adds a routing header of eight octets.
    #[must_use]
    pub fn routing(self) -> Self {
        self.extension(ROUTING, 0, 8)
    }

    /// Adds an IPv6 fragment header; the offset is in units of eight octets.
    #[must_use]
    pub fn fragment6(self, offset: u16, more: bool) -> Self {
        let at = self.bytes.len();
        let field = offset << 3 | u16::from(more);
        self.extension(FRAGMENT, 0, 8)
            .put(at + 2, &field.to_be_bytes())
    }

    /// Adds an authentication header, `words` 4-byte words longer than the shortest one.
    #[must_use]
    pub fn ah(self, words: u8) -> Self {
        self.extension(AUTHENTICATION, words, (usize::from(words) + 2) * 4)
    }

    fn extension(mut self, kind: u8, length: u8, octets: usize) -> Self {
        self.announce_protocol(kind);
        let at = self.bytes.len();
        self.bytes.resize(at + octets, 0);
        self.next = NextHeader::Protocol(at);
        self.put(at + 1, &[length])
    }

    /// Adds a TCP header without options.
    #[must_use]
    pub fn tcp(mut self, source: u16, destination: u16, flags: u8) -> Self {
        self.announce_protocol(TCP);
        self.ports(source, destination);
        self.bytes.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags]);
        self.bytes.extend([0xff, 0xff, 0, 0, 0, 0]);
        self
    }

    /// Adds a UDP header without payload.
    #[must_use]
    pub fn udp(self, source: u16, destination: u16) -> Self {
        self.datagram(source, destination, &[])
    }

    /// Adds a UDP header and its payload of at most 65527 octets.
    #[must_use]
    pub fn datagram(mut self, source: u16, destination: u16, payload: &[u8]) -> Self {
        self.announce_protocol(UDP);
        self.ports(source, destination);
        let length = u16::try_from(8 + payload.len()).unwrap_or(u16::MAX);
        self.bytes.extend(length.to_be_bytes());
        self.bytes.extend([0, 0]);
        self.bytes.extend(payload);
        self
    }

    /// Adds an echo request of ICMP or ICMPv6, depending on the IP header.
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

    /// Adds an SCTP header, whose ports are where TCP has them.
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

    /// Overwrites an octet of the IP header.
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

    /// Returns the frame with the lengths of the IP header.
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
        if let NextHeader::Ethertype(at) = self.next {
            self.write(at, &ethertype.to_be_bytes());
        }
    }

    fn announce_protocol(&mut self, protocol: u8) {
        if let NextHeader::Protocol(at) = self.next {
            self.write(at, &[protocol]);
        }
    }

    fn put(mut self, at: usize, octets: &[u8]) -> Self {
        self.write(at, octets);
        self
    }

    /// Overwrites octets; those beyond the end of the frame are ignored.
    fn write(&mut self, at: usize, octets: &[u8]) {
        let places = self.bytes.iter_mut().skip(at);
        for (place, octet) in places.zip(octets) {
            *place = *octet;
        }
    }
}

fn address<T: FromStr<Err: Display>>(text: &str) -> T {
    match text.parse() {
        Ok(address) => address,
        Err(error) => panic!("{text}: {error}"),
    }
}
