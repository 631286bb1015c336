//! Key files of a group.

use std::fmt;

use anyhow::{Context as _, Result};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use chacha20poly1305::{KeyInit as _, XChaCha20Poly1305};
use rand::{TryRng as _, rngs::SysRng};
use zeroize::Zeroizing;

/// The octets of a secret.
const SECRET: usize = 32;
/// The beginnings of the lines of a key file.
const NAMES_LINE: &str = "knock-names1:";
const SEAL_LINE: &str = "knock-seal1:";

type Secret = Zeroizing<[u8; SECRET]>;

/// What a key file has.
#[derive(Clone, Eq, PartialEq)]
pub struct GroupKey {
    /// Makes names of doors and sources. It never changes, so that records stay where they are.
    pub(super) names: Secret,
    /// Seals records.
    seal: Secret,
}

impl GroupKey {
    /// Draws a key.
    ///
    /// # Errors
    /// The kernel gives no random numbers.
    pub fn generate() -> Result<Self> {
        Ok(Self {
            names: draw()?,
            seal: draw()?,
        })
    }

    /// Draws a key that seals otherwise, and names as this one does: to replace it.
    ///
    /// # Errors
    /// The kernel gives no random numbers.
    pub fn renew(&self) -> Result<Self> {
        Ok(Self {
            names: self.names.clone(),
            seal: draw()?,
        })
    }

    /// Reads the text of a key file.
    ///
    /// # Errors
    /// Returns what is wrong with it. No part of the text is in the error, because it may be secret.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let mut names = None;
        let mut seal = None;
        let lines = text.lines().map(str::trim);
        for line in lines.filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let (found, secret) = if let Some(secret) = line.strip_prefix(NAMES_LINE) {
                (&mut names, secret)
            } else if let Some(secret) = line.strip_prefix(SEAL_LINE) {
                (&mut seal, secret)
            } else {
                return Err(
                    "it is no key of a fleet, which has a line knock-names1: and a line \
                            knock-seal1:; copy the file of another host of the group",
                );
            };
            if found.replace(decode(secret)?).is_some() {
                return Err("it has two keys: keep one in a file, and name both files");
            }
        }
        match (names, seal) {
            (Some(names), Some(seal)) => Ok(Self { names, seal }),
            (Some(_), None) => Err("the line knock-seal1: is missing; copy the whole file"),
            (None, Some(_)) => Err("the line knock-names1: is missing; copy the whole file"),
            (None, None) => Err("it is empty; copy the file of another host of the group"),
        }
    }

    /// Returns the text of its key file.
    pub fn text(&self) -> Zeroizing<String> {
        let line = |start, secret: &Secret| {
            let secret = Zeroizing::new(URL_SAFE_NO_PAD.encode(**secret));
            format!("{start}{}\n", *secret)
        };
        let comment = "# The key of a group of hosts: whoever has it opens doors at all of them.\n";
        let names = Zeroizing::new(line(NAMES_LINE, &self.names));
        let seal = Zeroizing::new(line(SEAL_LINE, &self.seal));
        Zeroizing::new([comment, &names, &seal].concat())
    }
}

impl fmt::Debug for GroupKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("GroupKey")
    }
}

impl GroupKey {
    pub(super) fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new((&*self.seal).into())
    }
}

fn draw() -> Result<Secret> {
    let mut secret = Secret::default();
    SysRng.try_fill_bytes(&mut *secret).context(
        "cannot draw a key: the kernel gives no random numbers; allow getrandom(2) where the service or \
         container filters system calls",
    )?;
    Ok(secret)
}

fn decode(text: &str) -> Result<Secret, &'static str> {
    let octets = Zeroizing::new(URL_SAFE_NO_PAD.decode(text).unwrap_or_default());
    let mut secret = Secret::default();
    if octets.len() != SECRET {
        return Err("a key in it is damaged: it has 43 characters; copy the file again");
    }
    secret.copy_from_slice(&octets);
    Ok(secret)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_written_key_file_is_read_again() {
        let key = GroupKey::generate().unwrap();
        let text = key.text();
        let read = GroupKey::parse(&text).unwrap();
        assert_eq!(read.text(), text);
        let lines: Vec<_> = text.lines().collect();
        for (name, text, expected) in [
            ("empty", String::new(), "it is empty"),
            ("a comment", lines[0].to_owned(), "it is empty"),
            ("no seal", lines[..2].join("\n"), "knock-seal1: is missing"),
            ("no names", lines[2].to_owned(), "knock-names1: is missing"),
            ("two", [text.as_str(), &text].concat(), "two keys"),
            ("cut", text[..text.len() - 2].to_owned(), "damaged"),
            ("longer", format!("{}A", text.trim_end()), "damaged"),
            (
                "no base64",
                text.replace(SEAL_LINE, "knock-seal1:?"),
                "damaged",
            ),
            (
                "a private key of SPA",
                "knock1-secret:AAAA".to_owned(),
                "no key of a fleet",
            ),
        ] {
            let error = GroupKey::parse(&text).unwrap_err();
            assert!(error.contains(expected), "{name}: {error}");
            assert!(!error.contains(&lines[2][SEAL_LINE.len()..]), "{name}");
        }
        assert_eq!(format!("{key:?}"), "GroupKey");
    }
}
