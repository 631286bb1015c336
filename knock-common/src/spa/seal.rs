//! Seals packets as a client does, for tests.

use crate::{
    Address,
    hmac_sha256::{self, text_bits},
    sha256::{self, BLOCK_BYTES, Sha256Work, to_block},
    siphash::{SipKey, siphash, siphash_128},
    spa::layout::{Gate, SpaDoorId, SpaKeyId},
};

/// Octets of a packet.
pub const PACKET_BYTES: usize = 72;

/// A client's side of a pair of client and host.
#[derive(Clone, Copy, Debug)]
pub struct Sealer {
    /// The host's gate.
    pub gate: Gate,
    /// The keys of the pair.
    pub mac: hmac_sha256::HmacKey,
    /// Hides the body.
    pub cipher: hmac_sha256::HmacKey,
    /// The client's key.
    pub id: SpaKeyId,
}

/// The content of a packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Content {
    /// Nanoseconds since 1970.
    pub stamp: u64,
    /// The address to open for.
    pub source: Address,
    /// The door.
    pub door: SpaDoorId,
    /// For how many seconds.
    pub seconds: u32,
    /// The octet for the action.
    pub action: u8,
    /// The octets that must be 0.
    pub reserved: [u8; 3],
}

impl Sealer {
    /// Seals a packet.
    pub fn seal(&self, content: &Content) -> [u8; PACKET_BYTES] {
        let mut body = [0; 32];
        let text = [
            &content.source.octets()[..],
            &content.door.0.to_le_bytes(),
            &content.seconds.to_le_bytes(),
            &[content.action],
            &content.reserved,
        ]
        .concat();
        body.copy_from_slice(&text);
        self.seal_body(content.stamp, body)
    }

    /// Seals a packet with any body.
    pub fn seal_body(&self, stamp: u64, body: [u8; 32]) -> [u8; PACKET_BYTES] {
        let SpaKeyId(id) = self.id;
        let header = [id.to_le_bytes(), stamp.to_le_bytes()].concat();
        let mut hidden = body;
        for (octet, mask) in hidden.iter_mut().zip(hmac(&self.cipher, &header)) {
            *octet ^= mask;
        }
        let mac = hmac(&self.mac, &[&header[..], &hidden].concat());
        let mut packet = [0; PACKET_BYTES];
        let (tag, _) = mac.split_at(16);
        let masked = mask(self.gate.mask, tag, [id, stamp]);
        for (place, octet) in packet
            .iter_mut()
            .zip(tag.iter().chain(&masked).chain(&hidden))
        {
            *place = *octet;
        }
        self.close_gate(&mut packet);
        packet
    }

    /// Opens the answer to a packet; `None` if it is not the host's answer to this packet.
    pub fn open_answer(&self, packet: &[u8; PACKET_BYTES], answer: &[u8]) -> Option<[u8; 32]> {
        let (tag, hidden) = answer.split_at_checked(16)?;
        let mut body: [u8; 32] = hidden.try_into().ok()?;
        let (of_packet, _) = packet.split_at(16);
        let label = &b"answer"[..];
        let masks = hmac(&self.cipher, &[label, tag].concat());
        for (octet, mask) in body.iter_mut().zip(masks) {
            *octet ^= mask;
        }
        let mac = hmac(&self.mac, &[label, of_packet, &body].concat());
        mac.starts_with(tag).then_some(body)
    }

    /// Recomputes the gate of a packet.
    pub fn close_gate(&self, packet: &mut [u8; PACKET_BYTES]) {
        let (words, _) = packet.as_chunks::<8>();
        let [a, b, c, d, e, f, g, h, _] = *words else {
            return;
        };
        let words = [a, b, c, d, e, f, g, h].map(u64::from_le_bytes);
        let gate = siphash(self.gate.check, words).to_le_bytes();
        for (place, octet) in packet.iter_mut().skip(64).zip(gate) {
            *place = octet;
        }
    }
}

/// Returns the masked header of a packet.
fn mask(key: SipKey, tag: &[u8], header: [u64; 2]) -> [u8; 16] {
    let (words, _) = tag.as_chunks::<8>();
    let [low, high] = *words else {
        return [0; 16];
    };
    let [mask_id, mask_stamp] = siphash_128(key, [low, high].map(u64::from_le_bytes));
    let [id, stamp] = header;
    let masked = u128::from(stamp ^ mask_stamp) << 64 | u128::from(id ^ mask_id);
    masked.to_le_bytes()
}

/// Returns the HMAC of a text that takes one block.
pub fn hmac(key: &hmac_sha256::HmacKey, text: &[u8]) -> [u8; 32] {
    let mut block = [0; BLOCK_BYTES];
    for (place, octet) in block.iter_mut().zip(text.iter().chain(&[0x80])) {
        *place = *octet;
    }
    let mut work = Sha256Work::default();
    key.begin(&mut work);
    work.block = to_block(&block);
    let [.., bits] = &mut work.block;
    *bits = text_bits(text.len() as u32);
    sha256::compress(&mut work);
    key.finish(&mut work, sha256::compress);
    sha256::to_bytes(work.state)
}
