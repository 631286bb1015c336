//! A host that takes packets of single packet authorization, in this process.

use hmac::{Hmac, KeyInit as _, Mac as _};
use knock_sequence::spa::{GateKeys, PairKeys, PrivateKey, PublicKey};
use sha2::Sha256;
use siphasher::{sip::SipHasher24, sip128};
use std::hash::Hasher as _;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

/// A host with a key of its own; each packet must be one of its client.
pub(crate) struct SpaHost {
    socket: UdpSocket,
    private: PrivateKey,
    pair: PairKeys,
    gate: GateKeys,
    id: [u8; 8],
}

/// A packet that has been opened, and where it comes from.
#[derive(Clone, Debug)]
pub(crate) struct OpenedPacket {
    pub(crate) from: SocketAddr,
    pub(crate) datagram: Vec<u8>,
    pub(crate) stamp: u64,
    pub(crate) source: Ipv6Addr,
    pub(crate) door: [u8; 8],
    pub(crate) seconds: u32,
    pub(crate) action: u8,
}

/// The content of an answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AnswerContent {
    pub(crate) outcome: u8,
    pub(crate) port: u16,
    pub(crate) seconds: u32,
    pub(crate) source: IpAddr,
    pub(crate) time: u64,
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key of any length");
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().to_vec()
}

fn xor(octets: &[u8], mask: &[u8]) -> Vec<u8> {
    octets
        .iter()
        .zip(mask)
        .map(|(octet, mask)| octet ^ mask)
        .collect()
}

impl SpaHost {
    pub(crate) fn new(ip: IpAddr, client: &PublicKey) -> Self {
        let private = PrivateKey::from_octets([0x11; 32]);
        let socket = UdpSocket::bind((ip, 0)).expect("loopback");
        let limit = Some(Duration::from_secs(10));
        socket.set_read_timeout(limit).expect("a timeout");
        Self {
            socket,
            pair: PairKeys::of_host(&private, client).expect("keys"),
            gate: GateKeys::of_host(private.public()),
            id: client.id().octets(),
            private,
        }
    }

    /// Returns the public key, as it is written.
    pub(crate) fn key(&self) -> String {
        self.private.public().to_string()
    }

    pub(crate) fn port(&self) -> u16 {
        self.socket.local_addr().expect("bound").port()
    }

    /// Receives a packet and opens it.
    pub(crate) fn receive(&self) -> OpenedPacket {
        let mut buffer = [0; 600];
        let (length, from) = super::uninterrupted(|| self.socket.recv_from(&mut buffer))
            .expect("a packet within the time");
        let datagram = buffer[..length].to_vec();
        assert!((72..=272).contains(&length), "{length} octets");

        let mut gate = SipHasher24::new_with_key(&self.gate.check);
        gate.write(&datagram[..64]);
        assert_eq!(gate.finish().to_le_bytes(), datagram[64..72], "the gate");
        let (tag, rest) = datagram[..64].split_at(16);
        let mask = sip128::SipHasher24::new_with_key(&self.gate.mask).hash(tag);
        let header = xor(&rest[..16], &mask.as_bytes());
        assert_eq!(header[..8], self.id, "the id of the key");
        let expected = hmac(&*self.pair.mac, &[&header, &rest[16..]]);
        assert_eq!(expected[..16], *tag, "the tag");
        let body = xor(&rest[16..], &hmac(&*self.pair.cipher, &[&header]));
        assert_eq!(body[29..], [0; 3], "reserved octets");
        OpenedPacket {
            from,
            stamp: u64::from_le_bytes(header[8..].try_into().expect("8 octets")),
            source: Ipv6Addr::from(<[u8; 16]>::try_from(&body[..16]).expect("16 octets")),
            door: body[16..24].try_into().expect("8 octets"),
            seconds: u32::from_le_bytes(body[24..28].try_into().expect("4 octets")),
            action: body[28],
            datagram,
        }
    }

    /// Returns whether no packet has arrived.
    pub(crate) fn is_silent(&self) -> bool {
        self.socket.set_nonblocking(true).expect("non-blocking");
        let received = self.socket.recv(&mut [0; 600]);
        self.socket.set_nonblocking(false).expect("blocking");
        matches!(received, Err(error) if error.kind() == ErrorKind::WouldBlock)
    }

    /// Answers a packet.
    pub(crate) fn answer(&self, to: &OpenedPacket, content: AnswerContent) {
        self.send(to, &self.sealed(to, content));
    }

    /// Sends any octets back.
    pub(crate) fn send(&self, to: &OpenedPacket, datagram: &[u8]) {
        self.socket.send_to(datagram, to.from).expect("sent");
    }

    /// Returns an answer, as a host makes it.
    pub(crate) fn sealed(&self, to: &OpenedPacket, content: AnswerContent) -> Vec<u8> {
        let tag = &to.datagram[..16];
        let source = match content.source {
            IpAddr::V4(source) => source.to_ipv6_mapped(),
            IpAddr::V6(source) => source,
        };
        let body = [
            &[content.outcome, 0][..],
            &content.port.to_le_bytes(),
            &content.seconds.to_le_bytes(),
            &source.octets(),
            &content.time.to_le_bytes(),
        ]
        .concat();
        let mac = hmac(&*self.pair.mac, &[b"answer", tag, &body]);
        let tag = &mac[..16];
        let hidden = xor(&body, &hmac(&*self.pair.cipher, &[b"answer", tag]));
        [tag, &hidden].concat()
    }
}
