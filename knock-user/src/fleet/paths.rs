//! Where records are in the engine.

use super::{
    record::{Place, Record},
    seal::Keyring,
};

/// The most octets of the name of a host or a group: those of a host name (RFC 1035).
const LONGEST_NAME: usize = 253;

/// Returns whether a text can be the name of a host or a group in a key: letters, digits, dots,
/// hyphens and underscores.
pub fn is_name(text: &str) -> bool {
    let is_letter = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
    !text.is_empty() && text.len() <= LONGEST_NAME && text.chars().all(is_letter)
}

/// The keys of a group in the engine.
#[derive(Clone, Debug)]
pub(super) struct Paths {
    prefix: String,
}

impl Paths {
    pub(super) fn new(group: &str) -> Self {
        Self {
            prefix: format!("/knock/1/{group}/"),
        }
    }

    /// Returns what all keys of the group begin with.
    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Returns the key of a place.
    pub(super) fn of(&self, place: &Place, keyring: &Keyring) -> String {
        let prefix = &self.prefix;
        match place {
            Place::Grant { host, door, source } => {
                let name = keyring.name(&["grant", door, &source.to_string()]);
                format!("{prefix}h/{host}/g/{name}")
            }
            Place::Revocation { door, source } => {
                let source = source.to_string();
                let name = match door {
                    Some(door) => keyring.name(&["revocation", door, &source]),
                    None => keyring.name(&["revocation of all", &source]),
                };
                format!("{prefix}r/{name}")
            }
            Place::Shared => format!("{prefix}c"),
            Place::Presence { host } => format!("{prefix}p/{host}"),
            Place::Lockout { source } => {
                format!(
                    "{prefix}l/{}",
                    keyring.name(&["lockout", &source.to_string()])
                )
            }
            Place::Line { of } => format!("{prefix}o/{}", keyring.name(&["line", of])),
            Place::Once {
                of,
                mark: [high, low],
            } => {
                let mark = format!("{high:016x}{low:016x}");
                format!("{prefix}s/{}", keyring.name(&["once", of, &mark]))
            }
        }
    }

    /// Returns the place of a record under a key; none if it does not belong there.
    pub(super) fn place(&self, path: &str, record: &Record, keyring: &Keyring) -> Option<Place> {
        let parts: Vec<_> = path.strip_prefix(&self.prefix)?.split('/').collect();
        let place = match (parts.as_slice(), record) {
            (["h", host, "g", _], Record::Grant(grant)) if is_name(host) => Place::Grant {
                host: (*host).to_owned(),
                door: grant.door.clone(),
                source: grant.source,
            },
            (["r", _], Record::Revocation(revocation)) => revocation.place(),
            (["o" | "s", _], Record::Use(record)) => Place::of_use(&record.used),
            (["p", host], Record::Presence(_)) if is_name(host) => Place::Presence {
                host: (*host).to_owned(),
            },
            (["l", _], Record::Lockout(lockout)) => Place::Lockout {
                source: lockout.source,
            },
            (["c"], Record::Shared(_)) => Place::Shared,
            (
                _,
                Record::Shared(_)
                | Record::Grant(_)
                | Record::Revocation(_)
                | Record::Use(_)
                | Record::Presence(_)
                | Record::Lockout(_),
            ) => return None,
        };
        (self.of(&place, keyring) == path).then_some(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_no_slash_and_no_space() {
        let long = "a".repeat(LONGEST_NAME + 1);
        for (name, expected) in [
            ("web-17.example_1", true),
            ("", false),
            ("a/b", false),
            ("a b", false),
            ("wéb", false),
            (long.as_str(), false),
        ] {
            assert_eq!(is_name(name), expected, "{name}");
        }
    }
}
