//! Packets of fwknop, made with other implementations of the ciphers than those of the program.
#![expect(
    clippy::unwrap_used,
    reason = "lengths are right, and HMAC takes keys of any length"
)]

use std::array;

use aes::{
    Aes256,
    cipher::{BlockModeEncrypt as _, KeyInit as _, KeyIvInit as _, block_padding::Pkcs7},
};
use hmac::{Hmac, Mac as _};
use knock_common::fwknop::{PREFIX, base64::character};
use md5::{Digest as _, Md5};
use sha2::Sha256;

/// Encodes without padding.
pub fn base64(bytes: &[u8]) -> String {
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let [a, b, c] = array::from_fn(|at| group.get(at).copied().unwrap_or(0));
        let bits = u32::from_be_bytes([0, a, b, c]);
        for shift in [18, 12, 6, 0].into_iter().take(group.len() + 1) {
            text.push(character(bits >> shift).into());
        }
    }
    text
}

fn md5(parts: &[&[u8]]) -> [u8; 16] {
    let mut md5 = Md5::new();
    parts.iter().for_each(|part| md5.update(part));
    md5.finalize().into()
}

/// Returns the HMAC of a whole base64, as the packet has it.
pub fn tag(hmac_key: &[u8], whole: &str) -> String {
    let mut hmac = Hmac::<Sha256>::new_from_slice(hmac_key).unwrap();
    hmac.update(whole.as_bytes());
    base64(&hmac.finalize().into_bytes())
}

/// Returns the base64 of an encrypted text, with its prefix.
pub fn encrypt(passphrase: &[u8], salt: [u8; 8], text: &[u8]) -> String {
    let first = md5(&[passphrase, &salt]);
    let second = md5(&[&first, passphrase, &salt]);
    let iv = md5(&[&second, passphrase, &salt]);
    let key: [u8; 32] = [first, second].concat().try_into().unwrap();
    let encrypted =
        cbc::Encryptor::<Aes256>::new(&key.into(), &iv.into()).encrypt_padded_vec::<Pkcs7>(text);
    base64(&[b"Salted__", &salt[..], &encrypted].concat())
}

/// Returns a packet as the client sends it.
pub fn seal(passphrase: &[u8], hmac_key: &[u8], salt: [u8; 8], text: &[u8]) -> String {
    let whole = encrypt(passphrase, salt, text);
    whole[PREFIX.len()..].to_owned() + &tag(hmac_key, &whole)
}

/// Returns a text with the digest behind it that the client appends.
pub fn with_digest(text: &str) -> String {
    format!("{text}:{}", base64(&Sha256::digest(text)))
}

/// Returns a text that asks for access, as of the time of the test vectors.
pub fn access(user: &str, message: &str) -> String {
    access_at(user, 1_700_000_000, message)
}

/// Returns a text that asks for access, made at a time in seconds since 1970.
pub fn access_at(user: &str, timestamp: u64, message: &str) -> String {
    let (user, message) = (base64(user.as_bytes()), base64(message.as_bytes()));
    with_digest(&format!(
        "1234567890123456:{user}:{timestamp}:3.0.0:1:{message}"
    ))
}
