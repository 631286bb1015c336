//! A door of `seq.toml` while it is made.

use knock_sequence::Ports;

use crate::model::problem::Problem;

/// The door to write.
#[derive(Debug)]
pub(super) struct DraftDoor {
    /// The line of its section.
    pub(super) line: usize,
    pub(super) keys: Vec<TomlKey>,
    pub(super) notes: Vec<Problem>,
    /// Its name in the result.
    pub(super) name: String,
    /// The ports that it opens.
    pub(super) opens: Vec<Ports>,
    /// The ports that it closes.
    pub(super) closes: Vec<Ports>,
    /// The problem that keeps it out of the result.
    pub(super) refused: Vec<Problem>,
}

/// A line of a door.
#[derive(Debug)]
pub(super) struct TomlKey {
    pub(super) name: &'static str,
    pub(super) value: String,
    /// Its line in knockd's file.
    pub(super) source: usize,
}

impl DraftDoor {
    /// Returns whether it has a key.
    pub(super) fn has(&self, name: &str) -> bool {
        self.value(name).is_some()
    }

    /// Returns the TOML value of a key.
    pub(super) fn value(&self, name: &str) -> Option<&str> {
        let key = self.keys.iter().find(|key| key.name == name)?;
        Some(&key.value)
    }

    pub(super) fn key(&mut self, name: &'static str, value: String, source: usize) {
        self.keys.push(TomlKey {
            name,
            value,
            source,
        });
    }

    pub(super) fn note(&mut self, line: usize, key: &str, reason: impl Into<String>) {
        self.notes.push(Problem {
            line: Some(line),
            key: key.to_owned(),
            reason: reason.into(),
        });
    }
}

/// Writes ports in a sentence.
pub(super) fn shown<T: ToString>(ports: &[T]) -> String {
    const SHOWN: usize = 4;
    let words: Vec<String> = ports.iter().take(SHOWN).map(T::to_string).collect();
    let more = match ports.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    words.join(", ") + &more
}
