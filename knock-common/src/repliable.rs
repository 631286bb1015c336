//! Packets that can be answered: unfragmented, and from one host to another.

use crate::{
    Address, Bytes,
    connection::Connection,
    packet::{self, Protocol},
};

/// The bits of a fragment: more fragments, or an offset.
const FRAGMENT: u16 = 0x3fff;

/// The fields of a packet that its answer needs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Repliable {
    /// Addresses and ports.
    pub connection: Connection,
    /// The TCP flags octet; zero for UDP.
    pub flags: u8,
    /// The TCP sequence number; zero for UDP.
    pub sequence: u32,
    /// The TCP acknowledgement number; zero for UDP.
    pub acknowledged: u32,
    /// Whether it is an IPv6 packet.
    pub v6: bool,
    /// Offset of the IP header.
    pub network: usize,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Offset of the TCP or UDP header.
    pub transport: usize,
}

impl Repliable {
    /// Reads a frame; `None` if it can't be answered.
    #[inline(always)]
    pub fn find<B: Bytes + ?Sized>(bytes: &B) -> Option<Self> {
        let (network, v6) = packet::network(bytes)?;
        Self::read(bytes, network, v6)
    }

    /// Reads a frame whose IP header is at the offset `network`.
    ///
    /// Refuses fragments, and IPv6 extension headers, which no client needs.
    #[inline(always)]
    pub fn read<B: Bytes + ?Sized>(bytes: &B, network: usize, v6: bool) -> Option<Self> {
        let at = |offset: usize| network.wrapping_add(offset);
        let between_hosts = match bytes.bare() {
            Some(bare) => bare.unicast,
            None => (bytes.u8(0)? | bytes.u8(6)?) & 1 == 0,
        };
        let (protocol, transport, source, destination) = if v6 {
            let [next] = bytes.read(at(6))?;
            let source = Address::from_v6(bytes.read(at(8))?);
            let destination = Address::from_v6(bytes.read(at(24))?);
            (next, at(40), source, destination)
        } else {
            let words = usize::from(bytes.u8(network)? & 0x0f);
            if bytes.be16(at(6))? & FRAGMENT != 0 {
                return None;
            }
            let [protocol] = bytes.read(at(9))?;
            let source = Address::from_v4(bytes.read(at(12))?);
            let destination = Address::from_v4(bytes.read(at(16))?);
            (protocol, at(words.wrapping_mul(4)), source, destination)
        };
        let is_one = |address: Address| address.is_host() || address.is_loopback();
        if !between_hosts || !is_one(source) || !is_one(destination) {
            return None;
        }
        let protocol = Protocol::from_number(protocol)?;
        let (ports, sequence, acknowledged, flags) = match protocol {
            Protocol::Tcp => {
                let [a, b, c, d, e, f, g, h, i, j, k, l, _, flags]: [u8; 14] =
                    bytes.read(transport)?;
                ([a, b, c, d], [e, f, g, h], [i, j, k, l], flags)
            }
            Protocol::Udp => (bytes.read(transport)?, [0; 4], [0; 4], 0),
        };
        let [a, b, c, d] = ports;
        Some(Self {
            connection: Connection {
                source,
                destination,
                source_port: u16::from_be_bytes([a, b]),
                port: u16::from_be_bytes([c, d]),
            },
            flags,
            sequence: u32::from_be_bytes(sequence),
            acknowledged: u32::from_be_bytes(acknowledged),
            v6,
            network,
            protocol,
            transport,
        })
    }
}
