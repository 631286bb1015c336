//! The answer of a host to a right and fresh packet.
//!
//! 48 octets: the tag, 16 octets of HMAC-SHA256(mac key; "answer" ‖ tag of the packet ‖ body), then
//! the body, hidden with HMAC-SHA256(cipher key; "answer" ‖ tag of the answer):
//!
//! | at | octets | content |
//! |---|---|---|
//! | 0 | 1 | outcome: the code of a [`Reason`] |
//! | 1 | 1 | 0 |
//! | 2 | 2 | first TCP port that the door opens; 0 if there is none |
//! | 4 | 4 | seconds for which the door is open; 0 if it is not |
//! | 8 | 16 | the source's address as the host sees it |
//! | 24 | 8 | the host's time: ns since 1970 |
//!
//! What follows in the datagram does not count: an answer may be as long as its packet.

use std::net::{IpAddr, Ipv6Addr};

use knock_common::reason::Reason;

use super::{
    keyed::{first, hmac, is_equal, mask},
    packet::{Channel, PACKET_LENGTH},
};

/// The octets of an answer.
pub const ANSWER_LENGTH: usize = 48;

/// In front of what is authenticated and hidden.
const LABEL: &[u8] = b"answer";

/// The content of a host's answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Answer {
    /// The outcome of the packet; `None` is a reason that a newer host has.
    pub outcome: Option<Reason>,
    /// The first TCP port that the door opens.
    pub port: Option<u16>,
    /// For how many seconds the door is open; 0 if it is not.
    pub seconds: u32,
    /// The source as the host sees it.
    pub source: IpAddr,
    /// The host's clock: ns since 1970.
    pub host_time: u64,
}

/// Why a datagram is not an answer to a packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BadAnswer {
    /// It has fewer octets.
    #[error("the datagram is too short for an answer")]
    Short,
    /// It comes from somebody else, answers another packet, or was changed.
    #[error("the datagram is not from this host, or does not answer this packet")]
    Forged,
}

impl Channel {
    /// Opens the answer to a packet that was sealed here.
    ///
    /// # Errors
    /// The datagram is not an answer of the host to this packet.
    pub fn open_answer(
        &self,
        packet: &[u8; PACKET_LENGTH],
        datagram: &[u8],
    ) -> Result<Answer, BadAnswer> {
        let answer: &[u8; ANSWER_LENGTH] = datagram.first_chunk().ok_or(BadAnswer::Short)?;
        let (tag, hidden) = answer.split_at(16);
        let mut body = [0; 32];
        body.copy_from_slice(hidden);
        mask(&mut body, &hmac(&self.pair.cipher, &[LABEL, tag]));
        let expected: [u8; 16] = first(&hmac(&self.pair.mac, &[LABEL, &packet[..16], &body]));
        if tag.try_into().is_ok_and(|tag| is_equal(tag, &expected)) {
            Ok(read(&body))
        } else {
            Err(BadAnswer::Forged)
        }
    }
}

fn read(body: &[u8; 32]) -> Answer {
    let number = |from: usize, length: usize| {
        let octets = body.iter().skip(from).take(length).rev();
        octets.fold(0, |number, &octet| number << 8 | u64::from(octet))
    };
    let mut source = [0; 16];
    source.copy_from_slice(&body[8..24]);
    let port = number(2, 2) as u16;
    Answer {
        outcome: Reason::from_code(body[0]),
        port: (port > 0).then_some(port),
        seconds: number(4, 4) as u32,
        source: Ipv6Addr::from(source).to_canonical(),
        host_time: number(24, 8),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spa::{DoorAction, DoorId, PairKeys, PrivateKey, Request};

    /// Returns an answer as the host makes it.
    fn answer(pair: &PairKeys, packet: &[u8; PACKET_LENGTH], body: [u8; 32]) -> Vec<u8> {
        let mac = hmac(&pair.mac, &[LABEL, &packet[..16], &body]);
        let tag = &mac[..16];
        let mut hidden = body;
        mask(&mut hidden, &hmac(&pair.cipher, &[LABEL, tag]));
        [tag, &hidden].concat()
    }

    #[test]
    fn only_the_answer_of_this_host_to_this_packet_is_opened() {
        let [host, client] = [0x11, 0x22].map(|octet| PrivateKey::from_octets([octet; 32]));
        let channel = Channel::new(&client, host.public()).expect("keys");
        let pair = PairKeys::of_host(&host, client.public()).expect("keys");
        let packet = |stamp| {
            channel.seal(&Request {
                stamp,
                source: None,
                door: DoorId::FIRST,
                seconds: 0,
                action: DoorAction::Open,
                answer: true,
            })
        };
        let (this, other) = (packet(1), packet(2));
        let mut body = [0; 32];
        body[0] = Reason::Opened as u8;
        body[2..4].copy_from_slice(&22_u16.to_le_bytes());
        body[4..8].copy_from_slice(&30_u32.to_le_bytes());
        body[18..24].copy_from_slice(&[0xff, 0xff, 203, 0, 113, 7]);
        body[24..].copy_from_slice(&1_800_000_000_123_456_789_u64.to_le_bytes());
        let sent = answer(&pair, &this, body);
        let expected = Answer {
            outcome: Some(Reason::Opened),
            port: Some(22),
            seconds: 30,
            source: [203, 0, 113, 7].into(),
            host_time: 1_800_000_000_123_456_789,
        };
        assert_eq!(channel.open_answer(&this, &sent), Ok(expected));
        let long = [sent.clone(), vec![9; 30]].concat();
        assert_eq!(channel.open_answer(&this, &long), Ok(expected));

        // Two answers to one packet, as to one whose stamp is ahead: what hides them differs.
        let mut later = body;
        later[24] ^= 1;
        let again = answer(&pair, &this, later);
        let masks = [(&sent, &body), (&again, &later)].map(|(sent, body)| {
            let pairs = sent[16..].iter().zip(body);
            pairs
                .map(|(hidden, plain)| hidden ^ plain)
                .collect::<Vec<_>>()
        });
        assert_ne!(masks[0], masks[1], "the same octets hide two bodies");

        assert_eq!(channel.open_answer(&other, &sent), Err(BadAnswer::Forged));
        let short = channel.open_answer(&this, &sent[..ANSWER_LENGTH - 1]);
        assert_eq!(short, Err(BadAnswer::Short));
        for bit in 0..ANSWER_LENGTH * 8 {
            let mut changed = sent.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let opened = channel.open_answer(&this, &changed);
            assert_eq!(opened, Err(BadAnswer::Forged), "bit {bit}");
        }
        assert_eq!(
            channel.open_answer(&this, &this),
            Err(BadAnswer::Forged),
            "a packet that comes back is not an answer"
        );
    }
}
