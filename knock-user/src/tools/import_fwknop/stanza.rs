//! Reads the lines of access.conf and fwknopd.conf, as `fwknopd` 2.6.10 does (server/access.c).

use std::fmt;

/// A line with a key and a value.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct AccessLine {
    /// Counted from 1.
    pub(super) number: usize,
    pub(super) key: String,
    pub(super) value: String,
}

/// More octets than the name of a key has.
const KEY_MOST: usize = 32;

/// A stanza of access.conf: its SOURCE line and those that follow.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct AccessStanza {
    pub(super) lines: Vec<AccessLine>,
}

/// The keys for the passphrase, for the HMAC key, and for the last day.
pub(super) const KEY: [&str; 2] = ["KEY", "KEY_BASE64"];
pub(super) const HMAC_KEY: [&str; 2] = ["HMAC_KEY", "HMAC_KEY_BASE64"];
pub(super) const EXPIRE: [&str; 2] = ["ACCESS_EXPIRE", "ACCESS_EXPIRE_EPOCH"];
const REQUIRE_SOURCE: [&str; 2] = ["REQUIRE_SOURCE_ADDRESS", "REQUIRE_SOURCE"];

/// Keys that set the same thing.
const SYNONYMS: [[&str; 2]; 4] = [KEY, HMAC_KEY, EXPIRE, REQUIRE_SOURCE];

/// Keys whose values are secret.
const SECRET: [&str; 6] = [
    "KEY",
    "KEY_BASE64",
    "HMAC_KEY",
    "HMAC_KEY_BASE64",
    "GPG_DECRYPT_PW",
    "GPG_SIGNING_PW",
];

/// Parts of the names of keys with secrets, also of misspelt ones and of those of other versions.
const SECRET_PARTS: [&str; 4] = ["KEY", "PW", "PASS", "SECRET"];

impl AccessLine {
    /// Returns whether nobody else may see the value.
    fn is_secret(&self) -> bool {
        let key = self.key.to_ascii_uppercase();
        SECRET_PARTS.iter().any(|part| key.contains(part)) || self.shown_key() != self.key
    }

    /// Returns the key, or what is shown in place of a word that is no key: it may be a part of a secret, as in a line
    /// that was broken in two.
    pub(super) fn shown_key(&self) -> &str {
        let is_fine = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
        let name = self.key.trim_start_matches('%');
        match name.len() <= KEY_MOST
            && (name.chars().all(is_fine) || self.key.starts_with("%include"))
        {
            true => &self.key,
            false => "a word that is not shown",
        }
    }

    /// Returns whether the value is yes: `fwknopd` looks at its first letter.
    pub(super) fn is_on(&self) -> bool {
        self.value.starts_with(['y', 'Y'])
    }

    /// Returns the items of a list with commas.
    pub(super) fn items(&self) -> impl Iterator<Item = &str> {
        let items = self.value.split(',').map(str::trim);
        items.filter(|item| !item.is_empty())
    }
}

/// The line, without a secret.
impl fmt::Display for AccessLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.is_secret() {
            true => write!(f, "{} (not shown)", self.shown_key()),
            false => write!(f, "{} {}", self.key, self.value),
        }
    }
}

impl AccessStanza {
    /// Returns the last line with a key, which is the one that counts.
    pub(super) fn get(&self, key: &str) -> Option<&AccessLine> {
        self.lines.iter().rev().find(|line| line.key == key)
    }

    /// Returns whether a switch is on.
    pub(super) fn has(&self, key: &str) -> bool {
        self.get(key).is_some_and(AccessLine::is_on)
    }

    /// Returns the last line with one of these keys, which is the one that counts.
    pub(super) fn get_any(&self, keys: [&str; 2]) -> Option<&AccessLine> {
        let mut lines = self.lines.iter().rev();
        lines.find(|line| keys.contains(&line.key.as_str()))
    }

    /// Returns whether packets have to name the address that they ask for.
    pub(super) fn requires_source(&self) -> bool {
        self.get_any(REQUIRE_SOURCE).is_some_and(AccessLine::is_on)
    }

    /// Returns the line that takes the place of another one, which is in front of it.
    pub(super) fn later(&self, line: &AccessLine) -> Option<&AccessLine> {
        let names = SYNONYMS
            .iter()
            .find(|names| names.contains(&line.key.as_str()));
        let found = match names {
            Some(names) => self.get_any(*names),
            None => self.get(&line.key),
        };
        found.filter(|found| found.number > line.number)
    }

    pub(super) fn number(&self) -> usize {
        self.lines.first().map_or(1, |line| line.number)
    }
}

/// Reads lines; comments and blank ones are left out.
pub(super) fn lines(text: &str) -> Vec<AccessLine> {
    // Editors of other systems begin a file with this mark.
    let text = text.trim_start_matches('\u{feff}');
    let numbered = (1..).zip(text.lines().map(str::trim));
    numbered
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .map(|(number, line)| {
            let (key, value) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
            let key = key.trim_end_matches([':', ';']);
            let value = value.split(';').next().unwrap_or_default();
            // Only keys may contain the character that begins a comment.
            let value = match SECRET.contains(&key) {
                true => value,
                false => value.split(" #").next().unwrap_or_default(),
            };
            AccessLine {
                number,
                key: key.to_owned(),
                value: value.trim().to_owned(),
            }
        })
        .collect()
}

/// Divides lines into stanzas; returns those before the first one apart.
pub(super) fn stanzas(all: Vec<AccessLine>) -> (Vec<AccessLine>, Vec<AccessStanza>) {
    let mut before = Vec::new();
    let mut stanzas: Vec<AccessStanza> = Vec::new();
    for line in all {
        if line.key == "SOURCE" {
            stanzas.push(AccessStanza::default());
        }
        match stanzas.last_mut() {
            Some(stanza) => stanza.lines.push(line),
            None => before.push(line),
        }
    }
    (before, stanzas)
}
