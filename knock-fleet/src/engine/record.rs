//! Records of an engine in the form in which they are reported.

use knock_wire::{LONGEST_LINE, Octets};

/// A longer value is reported as an empty one: no record of the daemon is that long, and a line has to have room
/// for it.
const LONGEST_VALUE: usize = LONGEST_LINE / 2;

/// Of a key, this many octets are reported.
const LONGEST_KEY: usize = 4_096;

/// A key and its value.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Record {
    pub(crate) key: String,
    pub(crate) value: Octets,
    /// The revision at which it was put.
    pub(crate) revision: u64,
    /// The lease that it ends with, or 0.
    pub(crate) lease: i64,
}

impl Record {
    /// Returns what is reported of any octets that a client of the engine may have written.
    pub(crate) fn new(key: &[u8], value: &[u8], revision: u64, lease: i64) -> Self {
        let value = if value.len() > LONGEST_VALUE {
            &[]
        } else {
            value
        };
        Self {
            key: readable(key),
            value: Octets(value.to_vec()),
            revision,
            lease,
        }
    }
}

/// Returns a key as text. One that is no text becomes one that this project does not write.
pub(crate) fn readable(key: &[u8]) -> String {
    String::from_utf8_lossy(key.get(..LONGEST_KEY).unwrap_or(key)).into_owned()
}

/// A change of a record.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Change {
    Put(Record),
    Deleted { key: String, revision: u64 },
}

impl Change {
    /// Returns the revision at which it happened.
    pub(crate) fn revision(&self) -> u64 {
        match self {
            Self::Put(record) => record.revision,
            Self::Deleted { revision, .. } => *revision,
        }
    }
}

#[cfg(test)]
mod tests {
    use knock_wire::{Report, to_line};

    use super::*;

    #[test]
    fn a_record_of_any_octets_fits_into_a_line() {
        let long = vec![0xff; 1 << 21];
        for (name, key, value, kept) in [
            ("a record", &b"/knock/1/web/c"[..], &b"sealed"[..], 6),
            ("a key that is no text", &[0xff, 0, b'/'], b"x", 1),
            ("a long key", &long, b"x", 1),
            ("a long value", b"/knock/1/web/c", &long, 0),
            (
                "the longest value",
                b"k",
                &long[..LONGEST_VALUE],
                LONGEST_VALUE,
            ),
            ("both are long", &long, &long, 0),
        ] {
            let record = Record::new(key, value, 7, 0);
            assert_eq!(record.value.0.len(), kept, "{name}");
            let report = Report::Record {
                key: record.key,
                value: record.value,
                revision: record.revision,
            };
            let line = to_line(&report);
            assert!(line.is_ok(), "{name}: {:?}", line.err());
        }
    }
}
