//! The keys that a host and a client derive from each other's public key.

use std::fmt;

use zeroize::Zeroizing;

use super::{
    key::{PrivateKey, PublicKey},
    keyed::hkdf,
};

/// The keys that only one client and one host have, overwritten when they are dropped.
///
/// HKDF-SHA256 with the salt "knock spa v1", the shared secret of X25519, and the info host public ‖
/// client public. The first 32 octets are the mac key.
#[derive(Clone)]
pub struct PairKeys {
    /// The key of the tag.
    pub mac: Zeroizing<[u8; 32]>,
    /// The key that hides the body.
    pub cipher: Zeroizing<[u8; 32]>,
}

impl PairKeys {
    /// Derives the keys on the client's side.
    ///
    /// # Errors
    /// The host's key is weak.
    pub fn of_client(client: &PrivateKey, host: &PublicKey) -> Result<Self, WeakKey> {
        Self::new(client, host, [host, client.public()])
    }

    /// Derives the keys on the host's side, which takes some 40 µs.
    ///
    /// # Errors
    /// The client's key is weak.
    pub fn of_host(host: &PrivateKey, client: &PublicKey) -> Result<Self, WeakKey> {
        Self::new(host, client, [host.public(), client])
    }

    fn new(own: &PrivateKey, other: &PublicKey, both: [&PublicKey; 2]) -> Result<Self, WeakKey> {
        let other = x25519_dalek::PublicKey::from(*other.octets());
        let shared = own.secret().diffie_hellman(&other);
        if !shared.was_contributory() {
            return Err(WeakKey);
        }
        let info = both.map(|key| key.octets().as_slice());
        let keys = hkdf::<64>(b"knock spa v1", shared.as_bytes(), &info);
        let mut pair = Self {
            mac: Zeroizing::default(),
            cipher: Zeroizing::default(),
        };
        pair.mac.copy_from_slice(&keys[..32]);
        pair.cipher.copy_from_slice(&keys[32..]);
        Ok(pair)
    }
}

impl fmt::Debug for PairKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PairKeys(…)")
    }
}

/// The keys that make packets noise for anyone who does not know the host's public key.
///
/// HKDF-SHA256 with the salt "knock spa v1 gate", the host's public key and an empty info. The first
/// 16 octets are the check key.
#[derive(Clone)]
pub struct GateKeys {
    /// The key of the gate.
    pub check: Zeroizing<[u8; 16]>,
    /// The key that hides the header.
    pub mask: Zeroizing<[u8; 16]>,
}

impl GateKeys {
    /// Derives the keys of a host.
    #[must_use]
    pub fn of_host(host: &PublicKey) -> Self {
        let keys = hkdf::<32>(b"knock spa v1 gate", host.octets(), &[]);
        let mut gate = Self {
            check: Zeroizing::default(),
            mask: Zeroizing::default(),
        };
        gate.check.copy_from_slice(&keys[..16]);
        gate.mask.copy_from_slice(&keys[16..]);
        gate
    }
}

impl fmt::Debug for GateKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GateKeys(…)")
    }
}

/// A public key with which the shared secret would be known to everybody.
///
/// No program makes such a key; all have a point of low order.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the public key is weak, so everybody knows the secret shared with it: make another key")]
pub struct WeakKey;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_derive_the_same_keys() {
        let [host, client] = [0x11, 0x22].map(|octet| PrivateKey::from_octets([octet; 32]));
        let of_client = PairKeys::of_client(&client, host.public()).expect("keys");
        let of_host = PairKeys::of_host(&host, client.public()).expect("keys");
        assert_eq!(*of_client.mac, *of_host.mac);
        assert_eq!(of_client.cipher, of_host.cipher);
        assert_ne!(of_client.mac, of_client.cipher);

        let swapped = PairKeys::of_client(&host, client.public()).expect("keys");
        assert_ne!(
            swapped.mac, of_host.mac,
            "a host is not a client of its client"
        );
    }

    #[test]
    fn weak_keys_are_refused() {
        let own = PrivateKey::from_octets([0x11; 32]);
        let mut one = [0; 32];
        one[0] = 1;
        for (name, octets) in [("zero", [0; 32]), ("one", one)] {
            let weak = PublicKey::from_octets(octets);
            assert_eq!(
                PairKeys::of_client(&own, &weak).err(),
                Some(WeakKey),
                "{name}"
            );
            assert_eq!(
                PairKeys::of_host(&own, &weak).err(),
                Some(WeakKey),
                "{name}"
            );
        }
    }

    #[test]
    fn debug_shows_no_key() {
        let own = PrivateKey::from_octets([0x11; 32]);
        let pair = PairKeys::of_host(&own, own.public()).expect("keys");
        assert_eq!(format!("{pair:?}"), "PairKeys(…)");
        assert_eq!(
            format!("{:?}", GateKeys::of_host(own.public())),
            "GateKeys(…)"
        );
    }
}
