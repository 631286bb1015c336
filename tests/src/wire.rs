//! Packets with correct checksums, put on the client's link octet by octet: whole, or in fragments of any
//! shape. A packet that the server's stack would refuse by itself proves nothing about the program.

use std::{
    io,
    net::IpAddr,
    os::fd::{AsRawFd as _, OwnedFd},
};

use nix::{
    errno::Errno,
    ifaddrs::getifaddrs,
    sys::socket::{
        AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, recv, sendto, socket,
    },
};

use crate::{
    namespace::Namespace,
    net::{CLIENT_LINK, macs},
    path::Path,
    wait,
};

const TCP: u8 = 6;
const UDP: u8 = 17;
/// The IPv6 fragment header's number.
const FRAGMENT: u8 = 44;
const SYN: u8 = 0x02;

/// The payload of an IP packet: its protocol and its octets.
#[derive(Clone, Debug)]
pub struct Payload {
    /// The protocol's number.
    pub protocol: u8,
    /// Header and data.
    pub bytes: Vec<u8>,
}

/// A fragment of an IPv4 packet.
#[derive(Clone, Copy, Debug)]
pub struct Piece<'b> {
    /// Its offset, in units of eight octets.
    pub offset: u16,
    /// Whether others follow.
    pub more: bool,
    /// Its octets.
    pub bytes: &'b [u8],
}

/// Returns a SYN, whole.
pub fn syn(path: Path, source_port: u16, port: u16) -> Payload {
    segment(path, source_port, port, SYN)
}

/// Returns a TCP segment without data, with these flags.
pub fn segment(path: Path, source_port: u16, port: u16, flags: u8) -> Payload {
    numbered(path, source_port, port, flags, [1, 0])
}

/// Returns a TCP segment without data, with these flags, and its sequence number and acknowledgement.
pub fn numbered(path: Path, source_port: u16, port: u16, flags: u8, numbers: [u32; 2]) -> Payload {
    let mut bytes = Vec::new();
    bytes.extend(source_port.to_be_bytes());
    bytes.extend(port.to_be_bytes());
    bytes.extend(numbers.map(u32::to_be_bytes).as_flattened());
    bytes.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    with_checksum(path, TCP, bytes, 16)
}

/// Returns a datagram, whole.
pub fn datagram(path: Path, source_port: u16, port: u16, data: &[u8]) -> Payload {
    let mut bytes = Vec::new();
    bytes.extend(source_port.to_be_bytes());
    bytes.extend(port.to_be_bytes());
    bytes.extend(length(8 + data.len()));
    bytes.extend([0, 0]);
    bytes.extend(data);
    with_checksum(path, UDP, bytes, 6)
}

/// Returns an Ethernet frame around an IPv4 packet; `options` are whole words.
pub fn v4(path: Path, protocol: u8, options: &[u8], id: u16, piece: Piece<'_>) -> Vec<u8> {
    let Piece {
        offset,
        more,
        bytes,
    } = piece;
    let header = 20 + options.len();
    // The header's length is in words and fits: options have at most 40 octets.
    let mut ip = vec![0x40 | (header / 4) as u8, 0];
    ip.extend(length(header + bytes.len()));
    ip.extend(id.to_be_bytes());
    ip.extend((offset | u16::from(more) << 13).to_be_bytes());
    ip.extend([64, protocol, 0, 0]);
    ip.extend(octets(path.from));
    ip.extend(octets(path.to));
    ip.extend(options);
    let sum = checksum(&[&ip]).to_be_bytes();
    ip[10..12].copy_from_slice(&sum);
    ip.extend(bytes);
    ethernet(0x0800, &ip)
}

/// Returns an Ethernet frame around a whole packet without options.
pub fn whole(path: Path, payload: &Payload) -> Vec<u8> {
    let Payload { protocol, bytes } = payload;
    let piece = Piece {
        offset: 0,
        more: false,
        bytes,
    };
    match path.from {
        IpAddr::V4(_) => v4(path, *protocol, &[], 1, piece),
        IpAddr::V6(_) => v6(path, &[], *protocol, bytes),
    }
}

/// Returns an Ethernet frame around an IPv6 packet. Each extension header is its number and its octets, of
/// which the first names the next header.
pub fn v6(path: Path, extensions: &[(u8, Vec<u8>)], protocol: u8, bytes: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    for (index, (_, extension)) in extensions.iter().enumerate() {
        let next = extensions
            .get(index + 1)
            .map_or(protocol, |(next, _)| *next);
        body.push(next);
        body.extend(&extension[1..]);
    }
    body.extend(bytes);
    let first = extensions.first().map_or(protocol, |(first, _)| *first);
    let mut ip = vec![0x60, 0, 0, 0];
    ip.extend(length(body.len()));
    ip.extend([first, 64]);
    ip.extend(octets(path.from));
    ip.extend(octets(path.to));
    ip.extend(body);
    ethernet(0x86dd, &ip)
}

/// Returns an IPv6 fragment header for [`v6`].
pub fn fragment(id: u16, offset: u16, more: bool) -> (u8, Vec<u8>) {
    let [high, low] = (offset << 3 | u16::from(more)).to_be_bytes();
    let [id_high, id_low] = id.to_be_bytes();
    (FRAGMENT, vec![0, 0, high, low, 0, 0, id_high, id_low])
}

/// Returns an IPv6 extension header of eight octets without a meaning: padding.
pub fn padding(number: u8) -> (u8, Vec<u8>) {
    // PadN of four octets; in a routing header: type 1, no segments left... which is ignored.
    (number, vec![0, 0, 1, 4, 0, 0, 0, 0])
}

/// Puts VLAN tags into a frame; each is its ethertype and its number.
pub fn tagged(frame: &[u8], tags: &[(u16, u16)]) -> Vec<u8> {
    let (addresses, rest) = frame.split_at(12);
    let mut tagged = addresses.to_vec();
    for (ethertype, id) in tags {
        tagged.extend(ethertype.to_be_bytes());
        tagged.extend(id.to_be_bytes());
    }
    tagged.extend(rest);
    tagged
}

/// A socket on the client's link that sends frames unchanged and receives all frames.
#[derive(Debug)]
pub struct Wire {
    socket: OwnedFd,
    link: LinkAddr,
}

impl Wire {
    /// Opens the client's link.
    ///
    /// # Panics
    /// The kernel refuses.
    #[track_caller]
    pub fn open(namespace: &Namespace) -> Self {
        let opened = namespace.enter(|| -> io::Result<Self> {
            let socket = socket(
                AddressFamily::Packet,
                SockType::Raw,
                SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
                SockProtocol::EthAll,
            )?;
            let link = getifaddrs()?
                .filter(|entry| entry.interface_name == CLIENT_LINK)
                .find_map(|entry| entry.address?.as_link_addr().copied())
                .ok_or_else(|| io::Error::other("no link-layer address"))?;
            Ok(Self { socket, link })
        });
        match opened {
            Ok(wire) => wire,
            Err(error) => panic!("opening {CLIENT_LINK} for frames: {error}"),
        }
    }

    /// Sends a frame, as soon as the link has room for it: a receiver that waits for its CPU lets
    /// 256 of them pile up.
    ///
    /// # Panics
    /// The kernel refuses it, or there is no room in time.
    #[track_caller]
    pub fn send(&self, frame: &[u8]) {
        wait::until("the link has room for a frame", || self.try_send(frame));
    }

    /// Sends a frame, and returns whether the link had room for it.
    ///
    /// # Panics
    /// The kernel refuses it for another reason.
    #[track_caller]
    pub fn try_send(&self, frame: &[u8]) -> bool {
        match self.put(frame) {
            Ok(()) => true,
            Err(Errno::ENOBUFS | Errno::EAGAIN) => false,
            Err(error) => panic!("sending a frame of {} octets: {error}", frame.len()),
        }
    }

    fn put(&self, frame: &[u8]) -> nix::Result<()> {
        let socket = self.socket.as_raw_fd();
        sendto(socket, frame, &self.link, MsgFlags::empty()).map(drop)
    }

    /// Returns the frames that were received or sent so far.
    pub fn seen(&self) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        let mut buffer = [0; 2048];
        while let Ok(length) = recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            frames.push(buffer[..length].to_vec());
        }
        frames
    }
}

fn ethernet(ethertype: u16, packet: &[u8]) -> Vec<u8> {
    let (client, server) = macs();
    let mut frame = [server, client].concat();
    frame.extend(ethertype.to_be_bytes());
    frame.extend(packet);
    frame
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// Returns the length as a header has it; test packets are far from 65 536 octets.
fn length(octets: usize) -> [u8; 2] {
    (octets as u16).to_be_bytes()
}

fn with_checksum(path: Path, protocol: u8, mut bytes: Vec<u8>, at: usize) -> Payload {
    let mut pseudo = octets(path.from);
    pseudo.extend(octets(path.to));
    pseudo.extend([0, protocol]);
    pseudo.extend(length(bytes.len()));
    let sum = checksum(&[&pseudo, &bytes]).to_be_bytes();
    bytes[at..at + 2].copy_from_slice(&sum);
    Payload { protocol, bytes }
}

/// Returns the Internet checksum (RFC 1071) of parts that have even lengths, but for the last.
pub fn checksum(parts: &[&[u8]]) -> u16 {
    let words = parts.iter().flat_map(|part| part.chunks(2));
    let mut sum: u32 = words
        .map(|word| u32::from(word[0]) << 8 | u32::from(word.get(1).copied().unwrap_or(0)))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
