//! Frames of a script, and what is read of answers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::{
    IpHeaders, LaxSlicedPacket, PacketBuilder, PacketBuilderStep, TcpHeader, TransportSlice,
};
use knock_common::packet::{Protocol, flag};

use crate::input::FuzzInput;

const HOST_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const GROUP_MAC: [u8; 6] = [1, 0, 0x5e, 0, 0, 1];
const SOURCE_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// The sources of the scripts, of which the third is trusted in some worlds and the last can be no host.
const SOURCES: [IpAddr; 5] = [
    v4([203, 0, 113, 1]),
    v4([203, 0, 113, 2]),
    v4([10, 0, 0, 7]),
    v6(1),
    v4([127, 0, 0, 1]),
];
/// The first of each family is the target of doors.
const DESTINATIONS: [[IpAddr; 2]; 2] = [
    [v4([192, 0, 2, 1]), v4([192, 0, 2, 9])],
    [v6(0x101), v6(0x109)],
];
const FLAGS: [u8; 8] = [
    flag::SYN,
    flag::SYN,
    flag::ACK,
    flag::SYN | flag::ACK,
    flag::FIN | flag::ACK,
    flag::RST,
    flag::FIN,
    0,
];

const fn v4([a, b, c, d]: [u8; 4]) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(a, b, c, d))
}

const fn v6(last: u16) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last))
}

/// Returns the next frame of a script: to one of `ports`, or to any.
pub(super) fn drawn(input: &mut FuzzInput<'_>, ports: &[(Protocol, u16)], cookie: u32) -> Vec<u8> {
    let source = input.choice(&SOURCES);
    let choices = input.u8();
    let family = usize::from(source.is_ipv6());
    let destination = DESTINATIONS[family][usize::from(choices & 1)];
    let to_host = choices & 2 == 0 || choices & 4 == 0;
    let source_port = if choices & 8 == 0 {
        40_000
    } else {
        input.u16()
    };
    let (protocol, port) = match input.u8() {
        255 => (input.choice(&[Protocol::Tcp, Protocol::Udp]), input.u16()),
        index => ports[usize::from(index) % ports.len()],
    };
    let mac = if to_host { HOST_MAC } else { GROUP_MAC };
    let ethernet = PacketBuilder::ethernet2(SOURCE_MAC, mac);
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let ip = ethernet.ipv4(source.octets(), destination.octets(), 64);
            transport(ip, input, protocol, [source_port, port], cookie)
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let ip = ethernet.ipv6(source.octets(), destination.octets(), 64);
            transport(ip, input, protocol, [source_port, port], cookie)
        }
        _ => Vec::new(),
    }
}

fn transport(
    ip: PacketBuilderStep<IpHeaders>,
    input: &mut FuzzInput<'_>,
    protocol: Protocol,
    [source_port, port]: [u16; 2],
    cookie: u32,
) -> Vec<u8> {
    let mut frame = Vec::new();
    // Writing into memory does not fail; a frame that were not written would be judged as empty.
    match protocol {
        Protocol::Tcp => {
            let flags = match input.u8() {
                255 => input.u8(),
                index => FLAGS[usize::from(index) % FLAGS.len()],
            };
            let mut header = TcpHeader::new(source_port, port, 1000, 1024);
            if flags & flag::ACK != 0 {
                header.sequence_number = 1001;
                header.acknowledgment_number = cookie.wrapping_add(1);
            }
            header.fin = flags & flag::FIN != 0;
            header.syn = flags & flag::SYN != 0;
            header.rst = flags & flag::RST != 0;
            header.psh = flags & flag::PSH != 0;
            header.ack = flags & flag::ACK != 0;
            header.urg = flags & flag::URG != 0;
            let _infallible = ip.tcp_header(header).write(&mut frame, &[]);
        }
        Protocol::Udp => {
            let payload = [0; 8];
            let length = usize::from(input.u8() & 15).min(payload.len());
            let _infallible = ip
                .udp(source_port, port)
                .write(&mut frame, &payload[..length]);
        }
    }
    frame
}

/// Returns the sequence number of a TCP segment.
pub(super) fn sequence(frame: &[u8]) -> Option<u32> {
    let packet = LaxSlicedPacket::from_ethernet(frame).ok()?;
    let Some(TransportSlice::Tcp(tcp)) = packet.transport else {
        return None;
    };
    Some(tcp.sequence_number())
}
