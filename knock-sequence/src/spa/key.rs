//! Keys of clients and hosts, as text and in files.
//!
//! Keys are X25519 keys of 32 octets. Their text is a prefix and base64url without padding: 43
//! characters. No error and no `Debug` shows any part of a private key.

use std::{
    fmt,
    io::{self, Read},
    str::FromStr,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use rand::{TryRng as _, rngs::SysRng};
use x25519_dalek::StaticSecret;
use zeroize::Zeroizing;

use super::keyed::digest8;
use crate::Invalid;

/// In front of a public key.
const PUBLIC: &str = "knock1:";
/// In front of a private key.
const PRIVATE: &str = "knock1-private:";
/// The most bytes of a file with a key: a longer one is not a key with comments beside it.
const KEY_FILE_MOST: u64 = 4096;
/// The octets of 43 characters, and some room for a wrong text.
type Decoded = Zeroizing<Vec<u8>>;

/// A public key: of a host, which clients have, or of a client, which hosts have.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// Makes the key of its octets, whatever they are; a weak key is refused by
    /// [`PairKeys`](super::PairKeys).
    #[must_use]
    pub const fn from_octets(octets: [u8; 32]) -> Self {
        Self(octets)
    }

    /// Returns its octets.
    #[must_use]
    pub const fn octets(&self) -> &[u8; 32] {
        &self.0
    }

    /// Returns its id.
    #[must_use]
    pub fn id(&self) -> KeyId {
        KeyId(digest8(b"knock spa v1 id", &self.0))
    }
}

/// Its text: `knock1:` and 43 characters.
impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PUBLIC}{}", URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

impl FromStr for PublicKey {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        // Whatever is not a public key may be a private one, so no error quotes the text.
        if text.starts_with(PRIVATE) {
            return Err(Invalid::new(
                "this is a private key, which must stay where it was made: write the public key, \
                 which begins with \"knock1:\"",
            ));
        }
        let Some(rest) = text.strip_prefix(PUBLIC) else {
            return Err(Invalid::new(
                "not a public key: write \"knock1:\" and 43 characters, as keygen prints them",
            ));
        };
        let octets =
            decode(rest).map_err(|reason| Invalid::new(format!("not a public key: {reason}")))?;
        // X25519 takes these octets for another key's, but no client has their id.
        if !is_canonical(&octets) {
            return Err(Invalid::new(
                "not a public key: keygen prints no such number, so copy it again",
            ));
        }
        Ok(Self(*octets))
    }
}

/// The number by which a host finds a client's key: SHA-256("knock spa v1 id" ‖ public key), the
/// first 8 octets.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct KeyId([u8; 8]);

impl KeyId {
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

/// Its octets in hexadecimal digits.
impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}

/// A private key with its public one. Its octets are overwritten when it is dropped.
#[derive(Clone)]
pub struct PrivateKey {
    secret: StaticSecret,
    public: PublicKey,
}

impl PrivateKey {
    /// Draws a key from the operating system's random number generator.
    ///
    /// # Errors
    /// The system gives no random numbers.
    pub fn generate() -> Result<Self, NoRandomness> {
        let mut octets = Zeroizing::new([0; 32]);
        SysRng
            .try_fill_bytes(&mut *octets)
            .map_err(|_error| NoRandomness)?;
        Ok(Self::from_octets(*octets))
    }

    /// Makes the key of 32 octets; all are keys.
    #[must_use]
    pub fn from_octets(octets: [u8; 32]) -> Self {
        let secret = StaticSecret::from(octets);
        let public = PublicKey(x25519_dalek::PublicKey::from(&secret).to_bytes());
        Self { secret, public }
    }

    /// Returns its public key.
    #[must_use]
    pub const fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Returns the line of its file, with a line end: `knock1-private:` and 43 characters.
    #[must_use]
    pub fn line(&self) -> Zeroizing<String> {
        // With this capacity no part of the key is left behind by a growing text.
        let mut line = Zeroizing::new(String::with_capacity(PRIVATE.len() + 48));
        line.push_str(PRIVATE);
        URL_SAFE_NO_PAD.encode_string(self.secret.as_bytes(), &mut line);
        line.push('\n');
        line
    }

    pub(super) const fn secret(&self) -> &StaticSecret {
        &self.secret
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey(of {})", self.public)
    }
}

impl FromStr for PrivateKey {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        if text.starts_with(PUBLIC) {
            return Err(Invalid::new(
                "this is a public key: write the private key, whose line begins with \
                 \"knock1-private:\"",
            ));
        }
        let Some(rest) = text.strip_prefix(PRIVATE) else {
            return Err(Invalid::new(
                "not a private key: it is \"knock1-private:\" and 43 characters; make one with \
                 keygen",
            ));
        };
        decode(rest)
            .map(|octets| Self::from_octets(*octets))
            .map_err(|reason| Invalid::new(format!("not a private key: {reason}")))
    }
}

/// Reads the private key in an opened file: its only line. Blank lines and lines that begin with
/// `#` do not count.
///
/// # Errors
/// The file can't be read, or has no private key, or several. No error shows any of the text.
pub fn read_private_key(file: impl Read) -> Result<PrivateKey, KeyError> {
    let mut text = Zeroizing::new(Vec::with_capacity(KEY_FILE_MOST as usize + 1));
    let length = file.take(KEY_FILE_MOST + 1).read_to_end(&mut text)?;
    if length as u64 > KEY_FILE_MOST {
        return Err(Invalid::new("the file is too long for a private key").into());
    }
    let text = std::str::from_utf8(&text)
        .map_err(|_error| Invalid::new("the file is not text, but a private key is"))?;
    let lines = text.lines().map(str::trim);
    let mut keys = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    match (keys.next(), keys.next()) {
        (Some(key), None) => Ok(key.parse()?),
        (Some(_), Some(_)) => Err(Invalid::new(
            "the file has more than one line: keep one private key in a file",
        )
        .into()),
        (None, _) => Err(Invalid::new("the file has no key: make one with keygen").into()),
    }
}

/// Why there is no private key in a file.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file can't be read; callers name the file and the cure.
    #[error(transparent)]
    Unreadable(#[from] io::Error),
    /// Its text is not a private key.
    #[error(transparent)]
    Bad(#[from] Invalid),
}

/// The operating system gives no random numbers.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "cannot draw a key: the system gives no random numbers; allow getrandom(2) where a container \
     or service filters system calls"
)]
pub struct NoRandomness;

/// Returns whether octets are the little-endian number of a public key: it is below 2^255 - 19, the prime of X25519.
fn is_canonical(octets: &[u8; 32]) -> bool {
    let mut prime = [0xff; 32];
    let [first, .., last] = &mut prime;
    (*first, *last) = (0xed, 0x7f);
    octets.iter().rev().lt(prime.iter().rev())
}

/// Reads 43 characters of base64url.
fn decode(text: &str) -> Result<Zeroizing<[u8; 32]>, String> {
    if text.len() != 43 {
        return Err(format!(
            "{} characters follow the colon, but a key has 43",
            text.chars().count()
        ));
    }
    let octets = URL_SAFE_NO_PAD
        .decode(text)
        .map(Decoded::new)
        .map_err(|_error| {
            "a character is wrong; a key has letters, digits, - and _, so copy it again".to_owned()
        })?;
    let mut key = Zeroizing::new([0; 32]);
    match octets.len() == key.len() {
        true => key.copy_from_slice(&octets),
        false => return Err(format!("it has {} octets instead of 32", octets.len())),
    }
    Ok(key)
}

#[cfg(test)]
mod tests;
