//! The keyed functions of the format, from libraries.

use std::hash::Hasher as _;

use hkdf::Hkdf;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};
use siphasher::{sip::SipHasher24, sip128};
use zeroize::Zeroizing;

/// Returns SHA-256 of a label and a text, the first 8 octets.
pub(super) fn digest8(label: &[u8], text: &[u8]) -> [u8; 8] {
    let digest = Sha256::new().chain_update(label).chain_update(text);
    first(&digest.finalize().into())
}

/// Returns the HMAC-SHA256 of the parts, one after the other.
pub(super) fn hmac(key: &[u8; 32], parts: &[&[u8]]) -> [u8; 32] {
    // HMAC fills keys up with zeros to the length of a block.
    let mut block = Zeroizing::new([0; 64]);
    block[..32].copy_from_slice(key);
    let mut mac = Hmac::<Sha256>::new((&*block).into());
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

/// Returns `N` octets of HKDF-SHA256; at most 8160.
pub(super) fn hkdf<const N: usize>(salt: &[u8], ikm: &[u8], info: &[&[u8]]) -> Zeroizing<[u8; N]> {
    const { assert!(N <= 255 * 32, "HKDF-SHA256 gives at most 255 hashes") };
    let mut output = Zeroizing::new([0; N]);
    match Hkdf::<Sha256>::new(Some(salt), ikm).expand_multi_info(info, &mut *output) {
        Ok(()) => output,
        Err(hkdf::InvalidLength) => unreachable!("the length was checked when this was compiled"),
    }
}

/// Returns SipHash-2-4 with 64 bits, little-endian.
pub(super) fn siphash64(key: &[u8; 16], text: &[u8]) -> [u8; 8] {
    let mut hasher = SipHasher24::new_with_key(key);
    hasher.write(text);
    hasher.finish().to_le_bytes()
}

/// Returns SipHash-2-4 with 128 bits, little-endian.
pub(super) fn siphash128(key: &[u8; 16], text: &[u8]) -> [u8; 16] {
    sip128::SipHasher24::new_with_key(key).hash(text).as_bytes()
}

/// Returns the first `N` octets.
pub(super) fn first<const N: usize>(octets: &[u8; 32]) -> [u8; N] {
    const { assert!(N <= 32, "a hash has 32 octets") };
    let mut start = [0; N];
    start.copy_from_slice(&octets[..N]);
    start
}

/// Hides octets, or shows hidden ones.
pub(super) fn mask(octets: &mut [u8], with: &[u8]) {
    for (octet, mask) in octets.iter_mut().zip(with) {
        *octet ^= mask;
    }
}

/// Compares in a time that does not depend on where the octets differ.
pub(super) fn is_equal(one: &[u8; 16], other: &[u8; 16]) -> bool {
    u128::from_le_bytes(*one) ^ u128::from_le_bytes(*other) == 0
}
