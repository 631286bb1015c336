//! Packets, as a client seals them.

use std::net::{IpAddr, Ipv6Addr};

use rand::{Rng as _, RngExt as _};

use super::{
    derive::{GateKeys, PairKeys, WeakKey},
    key::{KeyId, PrivateKey, PublicKey},
    keyed::{digest8, first, hmac, mask, siphash64, siphash128},
};

/// The octets of a packet without the random ones behind it.
pub const PACKET_LENGTH: usize = 72;
/// The most random octets that a client appends, so that the length of a packet is not a mark.
pub const NOISE_MOST: usize = 200;
/// Added to the action if an answer is wanted.
pub const WANT_ANSWER: u8 = 0x80;

/// The request in a packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Request {
    /// Nanoseconds since 1970, by the client's clock: greater than in each earlier packet of the
    /// key.
    pub stamp: u64,
    /// The address to open for; `None` for the one that the packet comes from.
    pub source: Option<IpAddr>,
    /// The door.
    pub door: DoorId,
    /// For how many seconds to open; 0 for the door's `open_for`. A host may give less.
    pub seconds: u32,
    /// The action for the door.
    pub action: DoorAction,
    /// Whether the host is asked for an answer.
    pub answer: bool,
}

/// The action for a door.
#[repr(u8)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum DoorAction {
    /// Open it.
    #[default]
    Open = 0,
    /// Close it: end the source's grant.
    Close = 1,
}

/// The number of a door: SHA-256("knock spa v1 door" ‖ name), the first 8 octets.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct DoorId([u8; 8]);

impl DoorId {
    /// The first of the user's doors.
    pub const FIRST: Self = Self([0; 8]);

    /// Returns the number of the door with a name.
    #[must_use]
    pub fn of_name(name: &str) -> Self {
        Self(digest8(b"knock spa v1 door", name.as_bytes()))
    }

    /// Returns its octets, as in the packet.
    #[must_use]
    pub const fn octets(&self) -> [u8; 8] {
        self.0
    }

    /// Returns the number that the octets are, little-endian.
    #[must_use]
    pub const fn number(&self) -> u64 {
        u64::from_le_bytes(self.0)
    }
}

/// The keys of a client and a host, and those derived from them.
#[derive(Clone, Debug)]
pub struct Channel {
    id: KeyId,
    gate: GateKeys,
    pub(super) pair: PairKeys,
}

impl Channel {
    /// Makes the channel from a client to a host.
    ///
    /// # Errors
    /// The host's key is weak.
    pub fn new(client: &PrivateKey, host: &PublicKey) -> Result<Self, WeakKey> {
        Ok(Self {
            id: client.public().id(),
            gate: GateKeys::of_host(host),
            pair: PairKeys::of_client(client, host)?,
        })
    }

    /// Returns the packet of a request.
    #[must_use]
    pub fn seal(&self, request: &Request) -> [u8; PACKET_LENGTH] {
        let mut header = [0; 16];
        header[..8].copy_from_slice(&self.id.octets());
        header[8..].copy_from_slice(&request.stamp.to_le_bytes());

        let mut body = [0; 32];
        body[..16].copy_from_slice(&octets_of(request.source));
        body[16..24].copy_from_slice(&request.door.octets());
        body[24..28].copy_from_slice(&request.seconds.to_le_bytes());
        body[28] = request.action as u8 | if request.answer { WANT_ANSWER } else { 0 };
        mask(&mut body, &hmac(&self.pair.cipher, &[&header]));

        let tag: [u8; 16] = first(&hmac(&self.pair.mac, &[&header, &body]));
        mask(&mut header, &siphash128(&self.gate.mask, &tag));

        let mut packet = [0; PACKET_LENGTH];
        packet[..16].copy_from_slice(&tag);
        packet[16..32].copy_from_slice(&header);
        packet[32..64].copy_from_slice(&body);
        let gate = siphash64(&self.gate.check, &packet[..64]);
        packet[64..].copy_from_slice(&gate);
        packet
    }
}

/// Returns the address in 16 octets; `::` for none.
fn octets_of(source: Option<IpAddr>) -> [u8; 16] {
    match source {
        None => Ipv6Addr::UNSPECIFIED,
        Some(IpAddr::V4(address)) => address.to_ipv6_mapped(),
        Some(IpAddr::V6(address)) => address,
    }
    .octets()
}

/// Returns a packet with 0 to [`NOISE_MOST`] random octets behind it.
#[must_use]
pub fn with_noise(packet: &[u8; PACKET_LENGTH]) -> Vec<u8> {
    let mut rng = rand::rng();
    let mut datagram = vec![0; PACKET_LENGTH + rng.random_range(0..=NOISE_MOST)];
    let (start, noise) = datagram.split_at_mut(PACKET_LENGTH);
    start.copy_from_slice(packet);
    rng.fill_bytes(noise);
    datagram
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_follows_a_packet_in_every_length() {
        let packet = [7; PACKET_LENGTH];
        let datagrams: Vec<_> = (0..20_000).map(|_| with_noise(&packet)).collect();
        assert!(
            datagrams
                .iter()
                .all(|datagram| datagram.starts_with(&packet))
        );
        let mut lengths: Vec<_> = datagrams.iter().map(Vec::len).collect();
        lengths.sort_unstable();
        lengths.dedup();
        // That one of 201 lengths is missing has a probability below 10⁻⁴⁰.
        assert_eq!(lengths, (72..=272).collect::<Vec<_>>());
    }
}
