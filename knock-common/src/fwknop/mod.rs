//! Packets of fwknop, encrypted with AES-256-CBC and authenticated with HMAC-SHA256.
//!
//! ```text
//! whole  = base64("Salted__" ‖ salt ‖ AES-256-CBC(text))    key and IV: MD5 of passphrase and salt, as OpenSSL does
//! packet = whole without its first ten characters ‖ base64(HMAC-SHA256(whole))
//! ```
//!
//! Base64 is without padding. `judge` runs the steps, cheapest first.

pub mod aes;
pub mod base64;
pub mod judge;
pub mod md5;
pub mod native;
pub mod open;
pub mod passphrase;
pub mod scratch;
pub mod steps;
pub mod text;

pub use self::{
    native::FwknopNative,
    open::open,
    passphrase::{PASSPHRASE_MAX, Passphrase},
    scratch::{FwknopScratch, PACKET_MAX, PACKET_MIN, PREFIX},
    steps::Steps,
};
