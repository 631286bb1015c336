//! Reads frames: a TCP segment or UDP datagram, or the reason why there is none.

use core::hint;

use crate::{
    Address, Bytes, Reason,
    bare::{Bare, ETHERTYPE_IPV4, ETHERTYPE_IPV6},
};

const ETHERNET_HEADER: usize = 14;
const VLAN_TAG: usize = 4;
/// 802.1ad outside, 802.1Q inside; Linux itself knows no other tag (`eth_type_vlan`).
const VLAN_TAGS_MAX: usize = 2;
const IPV6_HEADER: usize = 40;
const UDP_HEADER: usize = 8;
/// The offset of the length in the UDP header.
const UDP_LENGTH: usize = 4;
/// RFC 8200 names four kinds that may precede TCP or UDP, one of them twice; one to spare.
const EXTENSIONS_MAX: usize = 6;

const ETHERTYPE_VLAN: u16 = 0x8100;
const ETHERTYPE_QINQ: u16 = 0x88a8;

const HOP_BY_HOP: u8 = 0;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION: u8 = 60;

/// The transport protocols that have ports.
#[repr(u8)]
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Protocol {
    /// TCP (RFC 9293).
    Tcp = 0,
    /// UDP (RFC 768).
    Udp = 1,
}

impl Protocol {
    /// Returns the name in configuration and output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }

    /// Returns the number in IP headers.
    #[inline(always)]
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => TCP,
            Self::Udp => UDP,
        }
    }

    /// Returns the protocol with a number in IP headers.
    #[inline(always)]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            TCP => Some(Self::Tcp),
            UDP => Some(Self::Udp),
            _ => None,
        }
    }
}

/// The bits of the TCP flags octet.
pub mod flag {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Synchronises sequence numbers: opens a connection.
    pub const SYN: u8 = 0x02;
    /// Resets the connection.
    pub const RST: u8 = 0x04;
    /// Push.
    pub const PSH: u8 = 0x08;
    /// The acknowledgement field counts.
    pub const ACK: u8 = 0x10;
    /// The urgent pointer counts.
    pub const URG: u8 = 0x20;
}

/// The fields of a TCP segment or UDP datagram that the judge needs.
///
/// Addresses are read later, since ordinary traffic does not need them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Segment {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The TCP flags octet; zero for UDP.
    pub flags: u8,
    /// Source port in host order.
    pub source_port: u16,
    /// Destination port in host order.
    pub destination_port: u16,
    /// Whether the frame was sent to one host, not to a group.
    pub unicast: bool,
    v6: bool,
    network: usize,
    transport: usize,
}

impl Segment {
    /// Returns a datagram to one host as a word and its destination port: a BPF subprogram takes numbers.
    #[inline(always)]
    pub const fn to_words(&self) -> (u64, u16) {
        let word = self.source_port as u64
            | (self.network as u64 & 0xffff) << 16
            | (self.transport as u64 & 0xffff) << 32
            | (self.v6 as u64) << 48;
        (word, self.destination_port)
    }

    /// Reads a datagram from [`Self::to_words`].
    #[inline(always)]
    pub const fn from_words(word: u64, destination_port: u16) -> Self {
        Self {
            protocol: Protocol::Udp,
            flags: 0,
            source_port: word as u16,
            destination_port,
            unicast: true,
            v6: word >> 48 & 1 != 0,
            network: (word >> 16 & 0xffff) as usize,
            transport: (word >> 32 & 0xffff) as usize,
        }
    }

    /// Returns offset and length of a datagram's payload; `None` if the length in its header is impossible. The frame
    /// may end before the payload does.
    #[inline(always)]
    pub fn payload<B: Bytes + ?Sized>(&self, bytes: &B) -> Option<(usize, usize)> {
        let length = usize::from(bytes.be16(self.transport.wrapping_add(UDP_LENGTH))?);
        Some((
            self.transport.wrapping_add(UDP_HEADER),
            length.checked_sub(UDP_HEADER)?,
        ))
    }

    /// Returns whether the packet asks for a new connection: a SYN without ACK, or any UDP datagram.
    #[inline(always)]
    pub fn opens(&self) -> bool {
        match self.protocol {
            Protocol::Tcp => self.flags & (flag::SYN | flag::ACK) == flag::SYN,
            Protocol::Udp => true,
        }
    }

    /// Returns whether the packet ends a connection.
    #[inline(always)]
    pub fn ends(&self) -> bool {
        self.flags & (flag::FIN | flag::RST) != 0
    }

    /// Returns the source address.
    ///
    /// # Errors
    /// [`Reason::BadHeader`] for an IPv4-mapped address on the wire, which would count as the IPv4 source that it
    /// names; Linux drops these, too (6af1799aaf3f).
    #[inline(always)]
    pub fn source<B: Bytes + ?Sized>(&self, bytes: &B) -> Result<Address, Reason> {
        self.address(bytes, 12, 8)
    }

    /// Returns the destination address; errors as for [`Segment::source`].
    #[inline(always)]
    pub fn destination<B: Bytes + ?Sized>(&self, bytes: &B) -> Result<Address, Reason> {
        self.address(bytes, 16, 24)
    }

    #[inline(always)]
    fn address<B: Bytes + ?Sized>(
        &self,
        bytes: &B,
        v4: usize,
        v6: usize,
    ) -> Result<Address, Reason> {
        if !self.v6 {
            let words: [u16; 2] = bytes
                .words(self.network.wrapping_add(v4))
                .ok_or(Reason::Truncated)?;
            return Ok(Address::from_v4(bytemuck::cast(words)));
        }
        let words: [u16; 8] = bytes
            .words(self.network.wrapping_add(v6))
            .ok_or(Reason::Truncated)?;
        let address = Address::from_v6(bytemuck::cast(words));
        if address.is_v4() {
            Err(Reason::BadHeader)
        } else {
            Ok(address)
        }
    }
}

/// The offset of the transport header, and the headers in front of it.
struct Transport {
    unicast: bool,
    v6: bool,
    network: usize,
    offset: usize,
    fragment: bool,
}

/// Reads a packet as far as the ports.
///
/// # Errors
/// The reason why the ports can't be read. Other protocols pass; a frame that may be for a protected port is dropped.
#[inline(always)]
pub fn parse<B: Bytes + ?Sized>(bytes: &B) -> Result<Segment, Reason> {
    if let Some(Bare { ethertype, unicast }) = bytes.bare() {
        return match ethertype {
            ETHERTYPE_IPV4 => ipv4(bytes, 0, unicast),
            // Hidden from LLVM, which would take more of the stack than there is if all offsets were constant.
            ETHERTYPE_IPV6 => ipv6(bytes, hint::black_box(0), unicast),
            _ => Err(Reason::NotIp),
        };
    }
    let ethernet = Ethernet::read(bytes)?;
    // As below, for most frames: without a tag, headers have constant offsets, which cost less.
    if ethernet.ethertype == ETHERTYPE_IPV4 {
        return ipv4(bytes, ETHERNET_HEADER, ethernet.unicast);
    }
    let LinkHeader { ethertype, network } = ethernet.link(bytes)?;
    match ethertype {
        ETHERTYPE_IPV4 => ipv4(bytes, network, ethernet.unicast),
        ETHERTYPE_IPV6 => ipv6(bytes, network, ethernet.unicast),
        ETHERTYPE_VLAN | ETHERTYPE_QINQ => Err(Reason::VlanTooDeep),
        _ => Err(Reason::NotIp),
    }
}

/// Returns the offset of a frame's IP header, and whether it is IPv6; `None` if there is none.
#[inline(always)]
pub fn network<B: Bytes + ?Sized>(bytes: &B) -> Option<(usize, bool)> {
    let LinkHeader { ethertype, network } = LinkHeader::read(bytes).ok()?;
    match ethertype {
        ETHERTYPE_IPV4 => Some((network, false)),
        ETHERTYPE_IPV6 => Some((network, true)),
        _ => None,
    }
}

/// Returns the source in the IP header at an offset; [`Address::ANY`] if the frame ends before, or if it is an
/// IPv4-mapped address on the wire. Unlike an `Option`, this is written as a whole, as the verifier wants it.
#[inline(always)]
pub fn source<B: Bytes + ?Sized>(bytes: &B, network: usize, is_v6: bool) -> Address {
    match is_v6 {
        false => v4_address(bytes, network.wrapping_add(12)),
        true => v6_address(bytes, network.wrapping_add(8)),
    }
}

/// Returns the destination in the IP header at an offset, as [`source`].
#[inline(always)]
pub fn destination<B: Bytes + ?Sized>(bytes: &B, network: usize, is_v6: bool) -> Address {
    match is_v6 {
        false => v4_address(bytes, network.wrapping_add(16)),
        true => v6_address(bytes, network.wrapping_add(24)),
    }
}

#[inline(always)]
fn v4_address<B: Bytes + ?Sized>(bytes: &B, at: usize) -> Address {
    match bytes.words::<2>(at) {
        Some(words) => Address::from_v4(bytemuck::cast(words)),
        None => Address::ANY,
    }
}

#[inline(always)]
fn v6_address<B: Bytes + ?Sized>(bytes: &B, at: usize) -> Address {
    match bytes
        .words::<8>(at)
        .map(|words| Address::from_v6(bytemuck::cast(words)))
    {
        Some(address) if !address.is_v4() => address,
        Some(_) | None => Address::ANY,
    }
}

/// Protocol and ports of a packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PacketPorts {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Source port in host order.
    pub source: u16,
    /// Destination port in host order.
    pub destination: u16,
}

/// Returns the ports behind the IP header at an offset; `None` if there are none, or if another header precedes them.
/// [`parse`] reads past those headers, too, and costs more.
#[inline(always)]
pub fn ports<B: Bytes + ?Sized>(bytes: &B, network: usize, is_v6: bool) -> Option<PacketPorts> {
    let (number, length) = if is_v6 {
        (bytes.u8(network.wrapping_add(6))?, IPV6_HEADER)
    } else {
        let header: [u16; 5] = bytes.words(network)?;
        let [first, _, _, fragment, ttl_and_protocol] = header;
        if fragment & 0x1fff_u16.to_be() != 0 {
            return None;
        }
        let [version_and_words, _] = first.to_ne_bytes();
        let [_, number] = ttl_and_protocol.to_ne_bytes();
        (
            number,
            usize::from(version_and_words & 0x0f).wrapping_mul(4),
        )
    };
    let protocol = Protocol::from_number(number)?;
    let ports: [u16; 2] = bytes.words(network.wrapping_add(length))?;
    let [source, destination] = ports.map(u16::from_be);
    Some(PacketPorts {
        protocol,
        source,
        destination,
    })
}

/// Returns the EtherType behind the VLAN tags, or a length if it is below 1536; `None` if the frame ends before
/// it.
#[inline(always)]
pub fn ethertype<B: Bytes + ?Sized>(bytes: &B) -> Option<u16> {
    LinkHeader::read(bytes).ok().map(|link| link.ethertype)
}

/// The fields of an Ethernet header.
struct Ethernet {
    unicast: bool,
    ethertype: u16,
}

/// The EtherType behind the last VLAN tag, and the offset of the next header.
struct LinkHeader {
    ethertype: u16,
    network: usize,
}

impl LinkHeader {
    #[inline(always)]
    fn read<B: Bytes + ?Sized>(bytes: &B) -> Result<Self, Reason> {
        match bytes.bare() {
            Some(Bare { ethertype, .. }) => Ok(Self {
                ethertype,
                network: 0,
            }),
            None => Ethernet::read(bytes).and_then(|it| it.link(bytes)),
        }
    }
}

impl Ethernet {
    #[inline(always)]
    fn read<B: Bytes + ?Sized>(bytes: &B) -> Result<Self, Reason> {
        let header: [u16; 7] = bytes.words(0).ok_or(Reason::Truncated)?;
        let [group, .., ethertype] = header;
        let [group, _] = group.to_ne_bytes();
        Ok(Self {
            unicast: group & 1 == 0,
            ethertype: u16::from_be(ethertype),
        })
    }

    /// Reads past the VLAN tags.
    #[inline(always)]
    fn link<B: Bytes + ?Sized>(&self, bytes: &B) -> Result<LinkHeader, Reason> {
        let mut ethertype = self.ethertype;
        let mut network = ETHERNET_HEADER;
        for _ in 0..VLAN_TAGS_MAX {
            if ethertype != ETHERTYPE_VLAN && ethertype != ETHERTYPE_QINQ {
                break;
            }
            ethertype = bytes
                .be16(network.wrapping_add(2))
                .ok_or(Reason::Truncated)?;
            network = network.wrapping_add(VLAN_TAG);
        }
        Ok(LinkHeader { ethertype, network })
    }
}

#[inline(always)]
fn ipv4<B: Bytes + ?Sized>(bytes: &B, network: usize, unicast: bool) -> Result<Segment, Reason> {
    let header: [u16; 5] = bytes.words(network).ok_or(Reason::Truncated)?;
    let [first, _, _, fragment, ttl_and_protocol] = header;
    let [version_and_words, _] = first.to_ne_bytes();
    // Version 4, and a header of at least five words.
    if !(0x45..=0x4f).contains(&version_and_words) {
        return Err(Reason::BadHeader);
    }
    let words = usize::from(version_and_words & 0x0f);
    if fragment & 0x1fff_u16.to_be() != 0 {
        return Err(Reason::LaterFragment);
    }
    let [_, protocol] = ttl_and_protocol.to_ne_bytes();
    let offset = network.wrapping_add(words.wrapping_mul(4));
    let at = Transport {
        unicast,
        v6: false,
        network,
        offset,
        fragment: fragment & 0x2000_u16.to_be() != 0,
    };
    transport(bytes, protocol, &at)
}

#[inline(always)]
fn ipv6<B: Bytes + ?Sized>(bytes: &B, network: usize, unicast: bool) -> Result<Segment, Reason> {
    // The whole header, since LLVM would pack eight octets into one word and unpack them again.
    let header: [u16; 20] = bytes.words(network).ok_or(Reason::Truncated)?;
    let [first, _, _, next_and_hops, ..] = header;
    let [version, _] = first.to_ne_bytes();
    if version >> 4 != 6 {
        return Err(Reason::BadHeader);
    }
    let [mut next, _] = next_and_hops.to_ne_bytes();
    let mut offset = network.wrapping_add(IPV6_HEADER);
    let mut fragment = false;
    for _ in 0..EXTENSIONS_MAX {
        let truncated = if fragment {
            Reason::TinyFragment
        } else {
            Reason::Truncated
        };
        if !matches!(
            next,
            HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION
        ) {
            break;
        }
        // Both octets at once, since LLVM would check the second and read it through another pointer.
        let [following, units] = bytes
            .words(offset)
            .map(|[word]: [u16; 1]| word.to_ne_bytes())
            .ok_or(truncated)?;
        let units = usize::from(units);
        let length = match next {
            FRAGMENT => {
                let place = bytes.be16(offset.wrapping_add(2)).ok_or(truncated)?;
                if place & 0xfff8 != 0 {
                    return Err(Reason::LaterFragment);
                }
                fragment = place & 1 != 0;
                8
            }
            AUTHENTICATION => units.wrapping_add(2).wrapping_mul(4),
            _ => units.wrapping_add(1).wrapping_mul(8),
        };
        next = following;
        offset = offset.wrapping_add(length);
    }
    let at = Transport {
        unicast,
        v6: true,
        network,
        offset,
        fragment,
    };
    transport(bytes, next, &at)
}

#[inline(always)]
fn transport<B: Bytes + ?Sized>(
    bytes: &B,
    protocol: u8,
    at: &Transport,
) -> Result<Segment, Reason> {
    let truncated = || match at.fragment {
        true => Reason::TinyFragment,
        false => Reason::Truncated,
    };
    // The whole header: the network stack needs it, too, and a fragment that splits it is an evasion (RFC 3128).
    let (protocol, flags, source, destination) = match protocol {
        TCP => {
            let header: [u16; 10] = bytes.words(at.offset).ok_or_else(truncated)?;
            let [source, destination, _, _, _, _, flags, _, _, _] = header;
            (
                Protocol::Tcp,
                u16::from_be(flags) as u8,
                source,
                destination,
            )
        }
        UDP => {
            let header: [u16; 4] = bytes.words(at.offset).ok_or_else(truncated)?;
            let [source, destination, _, _] = header;
            (Protocol::Udp, 0, source, destination)
        }
        HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION if at.v6 => {
            return Err(Reason::ExtensionsTooLong);
        }
        _ => return Err(Reason::OtherProtocol),
    };
    Ok(Segment {
        protocol,
        flags,
        source_port: u16::from_be(source),
        destination_port: u16::from_be(destination),
        unicast: at.unicast,
        v6: at.v6,
        network: at.network,
        transport: at.offset,
    })
}
