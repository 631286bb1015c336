//! Names of records, and seals.
//!
//! The engine is storage that need not be trusted. It can't read a record, make one or move one to
//! another key; it can withhold and delete.

use anyhow::{Context as _, Result};
use chacha20poly1305::{
    XNonce,
    aead::{Aead as _, Payload},
};
use hmac::{Hmac, KeyInit as _, Mac as _};
use rand::{TryRng as _, rngs::SysRng};
use sha2::Sha256;

use super::{group_key::GroupKey, record::Record};

/// The octets of the nonce in front of a sealed record.
const NONCE: usize = 24;
/// The octets of a name: 128 bits of HMAC-SHA256.
const NAME: usize = 16;

/// The keys of a group.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Keyring {
    /// The first one seals, all open; at least one, and all name alike.
    keys: Vec<GroupKey>,
}

impl Keyring {
    /// Takes the keys, the one that seals first.
    ///
    /// # Errors
    /// There is none, or they belong to different groups: the number of the first other one, from 0.
    pub fn new(keys: Vec<GroupKey>) -> Result<Self, usize> {
        let Some(first) = keys.first() else {
            return Err(0);
        };
        let other = keys.iter().position(|key| key.names != first.names);
        other.map_or(Ok(Self { keys }), Err)
    }

    /// Returns the name of what the parts are, in 32 hexadecimal digits. It says nothing about them
    /// to whoever has no key.
    pub(super) fn name(&self, parts: &[&str]) -> String {
        let secret: &[u8] = self.keys.first().map_or(&[], |key| key.names.as_slice());
        // HMAC takes keys of any length.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret) else {
            return String::new();
        };
        for part in parts {
            // With its length, so that no two lists have the same octets.
            mac.update(&(part.len() as u64).to_le_bytes());
            mac.update(part.as_bytes());
        }
        let tag = mac.finalize().into_bytes();
        let octets = tag.iter().take(NAME);
        octets.map(|octet| format!("{octet:02x}")).collect()
    }

    /// Seals a record for a key of the engine, and for no other.
    ///
    /// # Errors
    /// The kernel gives no random numbers.
    pub(super) fn seal(&self, path: &str, record: &Record) -> Result<Vec<u8>> {
        let key = self.keys.first().context("the group has no key")?;
        let mut nonce = [0; NONCE];
        SysRng
            .try_fill_bytes(&mut nonce)
            .context("the kernel gives no random numbers")?;
        let text = serde_json::to_vec(record).context("writing a record")?;
        let sealed = key.cipher().encrypt(
            &XNonce::from(nonce),
            Payload {
                msg: &text,
                aad: path.as_bytes(),
            },
        );
        let sealed = sealed.ok().context("a record is too long to be sealed")?;
        Ok([nonce.as_slice(), &sealed].concat())
    }

    /// Opens the value of a key of the engine; none if no key of the group sealed it for that key.
    pub(super) fn open(&self, path: &str, value: &[u8]) -> Option<Record> {
        let (nonce, sealed) = value.split_first_chunk::<NONCE>()?;
        let text = self.keys.iter().find_map(|key| {
            let payload = Payload {
                msg: sealed,
                aad: path.as_bytes(),
            };
            key.cipher().decrypt(&XNonce::from(*nonce), payload).ok()
        })?;
        serde_json::from_slice(&text).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::record::{Grant, Revocation},
        *,
    };

    const PATH: &str = "/knock/1/web/h/web-17/g/0123";

    fn ring(keys: &[&GroupKey]) -> Keyring {
        Keyring::new(keys.iter().copied().cloned().collect()).unwrap()
    }

    fn record() -> Record {
        Record::Grant(Grant {
            door: "ssh".to_owned(),
            source: "203.0.113.7".parse().unwrap(),
            given_ms: 1,
            until_ms: 30_001,
            length_ms: 30_000,
            seen: u64::MAX,
            knows: vec![u64::MAX],
            by: None,
        })
    }

    #[test]
    fn a_sealed_record_opens_with_its_key_at_its_place_only() {
        let (old, other) = (GroupKey::generate().unwrap(), GroupKey::generate().unwrap());
        let new = old.renew().unwrap();
        let sealed = ring(&[&old]).seal(PATH, &record()).unwrap();
        let moved = PATH.replace("web-17", "web-18");
        let changed = |index: usize| {
            let mut value = sealed.clone();
            value[index] ^= 1;
            value
        };
        for (name, keys, path, value, opens) in [
            ("its own", vec![&old], PATH, sealed.clone(), true),
            (
                "after a change of keys",
                vec![&new, &old],
                PATH,
                sealed.clone(),
                true,
            ),
            (
                "without the old key",
                vec![&new],
                PATH,
                sealed.clone(),
                false,
            ),
            (
                "another group's key",
                vec![&other],
                PATH,
                sealed.clone(),
                false,
            ),
            (
                "moved to another place",
                vec![&old],
                moved.as_str(),
                sealed.clone(),
                false,
            ),
            ("another nonce", vec![&old], PATH, changed(0), false),
            ("another octet", vec![&old], PATH, changed(NONCE + 3), false),
            (
                "another tag",
                vec![&old],
                PATH,
                changed(sealed.len() - 1),
                false,
            ),
            (
                "cut",
                vec![&old],
                PATH,
                sealed[..sealed.len() - 1].to_vec(),
                false,
            ),
            (
                "a nonce alone",
                vec![&old],
                PATH,
                sealed[..NONCE].to_vec(),
                false,
            ),
            ("empty", vec![&old], PATH, Vec::new(), false),
            (
                "garbage",
                vec![&old],
                PATH,
                b"{\"kind\":\"grant\"}".to_vec(),
                false,
            ),
        ] {
            let opened = ring(&keys).open(path, &value);
            assert_eq!(opened, opens.then(record), "{name}");
        }
    }

    #[test]
    fn the_same_record_is_never_sealed_alike() {
        let ring = ring(&[&GroupKey::generate().unwrap()]);
        let sealed: Vec<_> = (0..2)
            .map(|_| ring.seal(PATH, &record()).unwrap())
            .collect();
        assert_ne!(sealed[0], sealed[1]);
    }

    #[test]
    fn a_record_of_a_newer_version_opens() {
        let key = GroupKey::generate().unwrap();
        let text = r#"{"kind":"revocation","door":null,"source":"10.0.0.0/8","ids":[1],"after":[],
                       "at_ms":5,"host":"a","by":0,"reason":"new"}"#;
        let payload = Payload {
            msg: text.as_bytes(),
            aad: PATH.as_bytes(),
        };
        let nonce = [7; NONCE];
        let sealed = key.cipher().encrypt(&XNonce::from(nonce), payload).unwrap();
        let opened = ring(&[&key]).open(PATH, &[nonce.as_slice(), &sealed].concat());
        let expected = Record::Revocation(Revocation {
            door: None,
            source: "10.0.0.0/8".parse().unwrap(),
            ids: vec![1],
            after: Vec::new(),
            at_ms: 5,
            host: "a".to_owned(),
            by: Some(0),
        });
        assert_eq!(opened, Some(expected));
    }

    #[test]
    fn names_differ_and_stay_when_keys_change() {
        let key = GroupKey::generate().unwrap();
        let names = ring(&[&key]);
        let name = names.name(&["ssh", "203.0.113.7"]);
        assert_eq!(name.len(), 2 * NAME);
        assert_eq!(
            ring(&[&key.renew().unwrap()]).name(&["ssh", "203.0.113.7"]),
            name
        );
        let other = GroupKey::generate().unwrap();
        assert_ne!(ring(&[&other]).name(&["ssh", "203.0.113.7"]), name);
        for parts in [
            &["ss", "h203.0.113.7"][..],
            &["ssh203.0.113.7"],
            &["ssh", "203.0.113.7", ""],
        ] {
            assert_ne!(names.name(parts), name, "{parts:?}");
        }
    }

    #[test]
    fn keys_of_two_groups_make_no_keyring() {
        let (key, other) = (GroupKey::generate().unwrap(), GroupKey::generate().unwrap());
        let new = key.renew().unwrap();
        for (name, keys, expected) in [
            ("none", vec![], Some(0)),
            ("one", vec![&key], None),
            ("a new one and the old one", vec![&new, &key], None),
            ("another group's", vec![&new, &key, &other], Some(2)),
        ] {
            let ring = Keyring::new(keys.into_iter().cloned().collect());
            assert_eq!(ring.err(), expected, "{name}");
        }
    }
}
