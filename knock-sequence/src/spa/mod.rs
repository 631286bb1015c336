//! Single packet authorization (SPA): one UDP packet opens a door, under a key that only its client
//! and the host share.
//!
//! A packet has 72 octets, and any number of random ones may follow. Numbers are little-endian,
//! addresses in network order, IPv4 as `::ffff:a.b.c.d`:
//!
//! | at | octets | content | hidden with |
//! |---|---|---|---|
//! | 0 | 16 | tag = HMAC-SHA256(mac key; header ‖ hidden body), the first 16 octets | |
//! | 16 | 8 | [`KeyId`] of the client's key | SipHash-2-4-128(mask key; tag) |
//! | 24 | 8 | stamp: ns since 1970, for each key always greater than any before | the same |
//! | 32 | 16 | the address to open for; `::` for the packet's own source | HMAC-SHA256(cipher key; header) |
//! | 48 | 8 | [`DoorId`]; 0 for the first of the user's doors | the same |
//! | 56 | 4 | seconds wanted; 0 for the door's `open_for` | the same |
//! | 60 | 1 | 0 open, 1 close; 0x80 is added if an answer is wanted | the same |
//! | 61 | 3 | 0 | the same |
//! | 64 | 8 | gate = SipHash-2-4-64(check key; octets 0 to 63) | |
//!
//! The header, octets 16 to 31, is in the clear where it is the input of an HMAC. [`PairKeys`] and
//! [`GateKeys`] have the keys, [`Channel`] seals packets and opens answers, whose format is that of
//! [`Answer`].

mod answer;
mod derive;
mod key;
mod keyed;
mod packet;

pub use answer::{ANSWER_LENGTH, Answer, BadAnswer};
pub use derive::{GateKeys, PairKeys, WeakKey};
pub use key::{KeyError, KeyId, NoRandomness, PrivateKey, PublicKey, read_private_key};
pub use packet::{
    Channel, DoorAction, DoorId, NOISE_MOST, PACKET_LENGTH, Request, WANT_ANSWER, with_noise,
};

/// The UDP port of SPA packets unless it is configured; fwknop uses it, too.
pub const PORT: u16 = 62_201;

/// How far the stamp of a packet may be from the host's clock, both ways, unless it is configured.
pub const WINDOW: std::time::Duration = std::time::Duration::from_secs(30);
