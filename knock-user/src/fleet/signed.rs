//! A configuration for all hosts of a group, signed by its administrator.
//!
//! The key of the group does not suffice to make one, so no host configures the others.

use std::fmt;

use anyhow::{Context as _, Result};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use rand::{TryRng as _, rngs::SysRng};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// What is signed begins with this.
const LABEL: &[u8] = b"knock fleet configuration 1";
/// The beginning of the line with the key that signs.
const SECRET_LINE: &str = "knock-admin1-secret:";
/// The beginning of the key that checks.
const PUBLIC_LINE: &str = "knock-admin1:";
/// The most octets of the text of a configuration: a record has to fit into a request of etcd, 1.5 MB.
pub const LONGEST_SHARED: usize = 256 << 10;

/// A configuration as it is written for all hosts.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct SharedConfig {
    /// Its number, which only grows.
    pub number: u64,
    /// Its text: TOML with doors and sections that hosts may share.
    pub text: String,
    /// How it reaches the hosts.
    pub stages: Stages,
    /// The signature of all of this and of the name of the group, in base64.
    pub signature: String,
}

/// How a configuration reaches the hosts.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Stages {
    /// How many hosts begin, in percent of all: 1 to 100, and at least one host.
    pub first_percent: u8,
    /// For how long the others wait after these have confirmed it, in milliseconds.
    pub wait_ms: u64,
    /// In which time a host has to be in sync with it, or returns to what it had, in milliseconds.
    pub confirm_ms: u64,
}

/// The key that signs configurations.
pub struct AdminKey(SigningKey);

/// The key that checks signatures.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct AdminPublic(VerifyingKey);

impl AdminKey {
    /// Draws a key.
    ///
    /// # Errors
    /// The kernel gives no random numbers.
    pub fn generate() -> Result<Self> {
        let mut secret = Zeroizing::new([0; 32]);
        SysRng.try_fill_bytes(&mut *secret).context(
            "cannot draw a key: the kernel gives no random numbers; allow getrandom(2) where the service \
             or container filters system calls",
        )?;
        Ok(Self(SigningKey::from_bytes(&secret)))
    }

    /// Reads the text of a key file: a line with the key; empty lines and those with # do not count.
    ///
    /// # Errors
    /// Returns what is wrong with it, without any part of the text, which may be secret.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let lines = text.lines().map(str::trim);
        let mut lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
        let line = lines.next().ok_or("it is empty; copy the file again")?;
        if lines.next().is_some() {
            return Err("it has several lines: keep one key in a file");
        }
        let secret = line
            .strip_prefix(SECRET_LINE)
            .ok_or("it has no line knock-admin1-secret:, so it signs nothing")?;
        let octets = Zeroizing::new(URL_SAFE_NO_PAD.decode(secret).unwrap_or_default());
        let secret = <&[u8; 32]>::try_from(octets.as_slice())
            .map_err(|_| "its key is damaged: it has 43 characters; copy the file again")?;
        Ok(Self(SigningKey::from_bytes(secret)))
    }

    /// Returns the text of its file.
    pub fn text(&self) -> Zeroizing<String> {
        let secret = Zeroizing::new(URL_SAFE_NO_PAD.encode(self.0.as_bytes()));
        Zeroizing::new(format!(
            "# Whoever has this key configures all hosts of the group.\n{SECRET_LINE}{}\n",
            *secret
        ))
    }

    /// Returns the key that checks its signatures.
    pub fn public(&self) -> AdminPublic {
        AdminPublic(self.0.verifying_key())
    }

    /// Signs a configuration for a group.
    pub fn sign(&self, group: &str, number: u64, text: String, stages: Stages) -> SharedConfig {
        let signature = self.0.sign(&message(group, number, &text, stages));
        SharedConfig {
            number,
            text,
            stages,
            signature: URL_SAFE_NO_PAD.encode(signature.to_bytes()),
        }
    }
}

impl fmt::Debug for AdminKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("AdminKey")
    }
}

impl AdminPublic {
    /// Reads a key, as [`fmt::Display`] writes it.
    ///
    /// # Errors
    /// Returns what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let text = text
            .strip_prefix(PUBLIC_LINE)
            .ok_or("it does not begin with knock-admin1:")?;
        let octets = URL_SAFE_NO_PAD.decode(text).unwrap_or_default();
        let octets = <&[u8; 32]>::try_from(octets.as_slice())
            .map_err(|_| "it is damaged: 43 characters follow knock-admin1:; copy it again")?;
        match VerifyingKey::from_bytes(octets) {
            Ok(key) if !key.is_weak() => Ok(Self(key)),
            Ok(_) | Err(_) => Err("it is no key; copy it again"),
        }
    }

    /// Checks whether a configuration is for a group and was signed by this key.
    ///
    /// # Errors
    /// Returns why not.
    pub fn check(&self, group: &str, config: &SharedConfig) -> Result<(), &'static str> {
        if config.text.len() > LONGEST_SHARED {
            return Err("it has more than 256 KiB");
        }
        let octets = URL_SAFE_NO_PAD.decode(&config.signature);
        let octets = octets.map_err(|_| "its signature is damaged")?;
        let signature = Signature::from_slice(&octets).map_err(|_| "its signature is damaged")?;
        let message = message(group, config.number, &config.text, config.stages);
        self.0
            .verify_strict(&message, &signature)
            .map_err(|_| "it was not signed by the key of `admin` for this group")
    }
}

impl fmt::Display for AdminPublic {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = URL_SAFE_NO_PAD.encode(self.0.as_bytes());
        write!(formatter, "{PUBLIC_LINE}{key}")
    }
}

/// Returns what is signed: each part with its length, so that no two configurations have the same octets.
fn message(group: &str, number: u64, text: &str, stages: Stages) -> Vec<u8> {
    let numbers = [
        number,
        stages.first_percent.into(),
        stages.wait_ms,
        stages.confirm_ms,
    ];
    let numbers = numbers.map(u64::to_le_bytes);
    let parts = [
        LABEL,
        group.as_bytes(),
        numbers.as_flattened(),
        text.as_bytes(),
    ];
    let mut message = Vec::new();
    for part in parts {
        message.extend((part.len() as u64).to_le_bytes());
        message.extend(part);
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAGES: Stages = Stages {
        first_percent: 5,
        wait_ms: 120_000,
        confirm_ms: 60_000,
    };

    #[test]
    fn a_signature_is_for_one_configuration_of_one_group() {
        let key = AdminKey::generate().unwrap();
        let signed = key.sign("web", 7, "text".to_owned(), STAGES);
        let other = AdminKey::generate().unwrap();
        let long = key.sign("web", 7, "a".repeat(LONGEST_SHARED + 1), STAGES);
        let change = |change: fn(&mut SharedConfig)| {
            let mut changed = signed.clone();
            change(&mut changed);
            changed
        };
        for (name, key, group, config, is_right) in [
            ("its own", &key, "web", signed.clone(), true),
            ("another group", &key, "db", signed.clone(), false),
            ("another key", &other, "web", signed.clone(), false),
            (
                "another number",
                &key,
                "web",
                change(|config| config.number = 8),
                false,
            ),
            (
                "another text",
                &key,
                "web",
                change(|config| config.text.push(' ')),
                false,
            ),
            (
                "more hosts at once",
                &key,
                "web",
                change(|config| config.stages.first_percent = 100),
                false,
            ),
            (
                "no wait",
                &key,
                "web",
                change(|config| config.stages.wait_ms = 0),
                false,
            ),
            (
                "another time to confirm",
                &key,
                "web",
                change(|config| config.stages.confirm_ms = 0),
                false,
            ),
            (
                "no signature",
                &key,
                "web",
                change(|config| config.signature.clear()),
                false,
            ),
            ("too long", &key, "web", long.clone(), false),
        ] {
            assert_eq!(
                key.public().check(group, &config).is_ok(),
                is_right,
                "{name}"
            );
        }
    }

    #[test]
    fn keys_are_read_as_they_are_written() {
        let key = AdminKey::generate().unwrap();
        let read = AdminKey::parse(&key.text()).unwrap();
        assert_eq!(read.public(), key.public());
        let public = key.public().to_string();
        assert_eq!(AdminPublic::parse(&public), Ok(key.public()));
        let secret = key.text().lines().last().unwrap().to_owned();
        for (name, text) in [
            ("empty", String::new()),
            ("the public key", public.clone()),
            ("cut", secret[..secret.len() - 1].to_owned()),
            ("two", [secret.as_str(), "\n", &secret].concat()),
        ] {
            let error = AdminKey::parse(&text).unwrap_err();
            assert!(!error.contains(&secret[SECRET_LINE.len()..]), "{name}");
        }
        for (name, text) in [
            ("empty", ""),
            ("cut", &public[..public.len() - 1]),
            ("the private key", &secret),
            (
                "zeros",
                "knock-admin1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
            ),
        ] {
            assert!(AdminPublic::parse(text).is_err(), "{name}");
        }
        assert_eq!(format!("{key:?}"), "AdminKey");
    }
}
