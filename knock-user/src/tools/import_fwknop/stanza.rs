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

/// A stanza of access.conf: its SOURCE line and those that follow.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct AccessStanza {
    pub(super) lines: Vec<AccessLine>,
}

/// Keys whose values are secret.
const SECRET: [&str; 6] = [
    "KEY",
    "KEY_BASE64",
    "HMAC_KEY",
    "HMAC_KEY_BASE64",
    "GPG_DECRYPT_PW",
    "GPG_SIGNING_PW",
];

impl AccessLine {
    /// Returns whether nobody else may see the value.
    pub(super) fn is_secret(&self) -> bool {
        SECRET.contains(&self.key.as_str())
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
            true => write!(f, "{} (not shown)", self.key),
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

    /// Returns whether packets have to name the address that they ask for.
    pub(super) fn requires_source(&self) -> bool {
        let names = ["REQUIRE_SOURCE_ADDRESS", "REQUIRE_SOURCE"];
        let mut lines = self.lines.iter().rev();
        lines
            .find(|line| names.contains(&line.key.as_str()))
            .is_some_and(AccessLine::is_on)
    }

    pub(super) fn number(&self) -> usize {
        self.lines.first().map_or(1, |line| line.number)
    }
}

/// Reads lines; comments and blank ones are left out.
pub(super) fn lines(text: &str) -> Vec<AccessLine> {
    let numbered = (1..).zip(text.lines().map(str::trim));
    numbered
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .map(|(number, line)| {
            let (key, value) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
            let value = value.split(';').next().unwrap_or_default();
            // Only keys may contain the character that begins a comment.
            let value = match SECRET.contains(&key.trim_end_matches(':')) {
                true => value,
                false => value.split(" #").next().unwrap_or_default(),
            };
            AccessLine {
                number,
                key: key.trim_end_matches(':').to_owned(),
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
