//! Single packet authorization (SPA): one datagram asks to open a door, for some time and for an address.
//!
//! It is authenticated with a key that only its client and this host share, and has a stamp against replays. The grant
//! is written before the verdict, so the client's next packet gets in.
//!
//! The format `knock`, version 1, has 72 octets, and any number of random ones behind them. Numbers are little-endian;
//! addresses are in network order, those of IPv4 as `::ffff:a.b.c.d`.
//!
//! | at | octets | content | hidden with |
//! |---|---|---|---|
//! | 0 | 16 | tag: the first 16 octets of HMAC-SHA256(mac key; header ‖ hidden body) | |
//! | 16 | 8 | header: the [`layout::SpaKeyId`] | SipHash-2-4-128(mask key; tag) |
//! | 24 | 8 | stamp: ns since 1970, greater than in each earlier packet of the key | the same |
//! | 32 | 16 | body: the address to open for; `::` for the packet's source | HMAC-SHA256(cipher key; header) |
//! | 48 | 8 | the [`layout::SpaDoorId`] | the same |
//! | 56 | 4 | seconds wanted; 0 for the door's `open_for` | the same |
//! | 60 | 1 | 0 open, 1 close; 0x80 is added if an answer is wanted | the same |
//! | 61 | 3 | 0 | the same |
//! | 64 | 8 | gate: SipHash-2-4-64(check key; octets 0 to 63) | |
//!
//! The input of an HMAC is the header in the clear.
//!
//! The cheapest checks come first: [`gate`], time window, known key, replay, [`open`], and then what the user may do.
//! Everybody who knows the host's public key can forge a packet that passes those before the HMAC, so they change
//! nothing: only an authenticated packet moves the key's [`stamp`].

pub mod answer;
pub mod dispatch;
pub mod gate;
pub mod judge;
pub mod layout;
pub mod open;
pub mod port;
pub mod request;
#[cfg(any(test, feature = "sim"))]
pub mod seal;
pub mod stamp;
pub mod step;
#[cfg(test)]
mod tests;
