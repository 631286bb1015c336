//! What the daemon asks `knock-fleet` for.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{octets::Octets, queue::Keyed};

/// The version of these lines. `knock-fleet` refuses any other, with [`Report::Lost`](crate::Report::Lost).
pub const PROTOCOL: u32 = 1;

/// A line from the daemon.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(tag = "verb", rename_all = "snake_case")]
pub enum Request {
    /// Connects to the engine; the first line, and only the first.
    Open(Open),
    /// Reports the records below a prefix, then their changes; one for each prefix.
    Watch(Watch),
    /// Writes keys, all or none; answered once, by `written`, `refused` or `failed`.
    Put(Put),
    /// Keeps a key of this host alive; a later one replaces it. Never answered.
    Beat(Beat),
}

impl Keyed for Request {
    type Key = String;

    /// Returns the key of a write that a later one may replace: it is alone, without a condition.
    fn key(&self) -> Option<String> {
        let Self::Put(put) = self else {
            return None;
        };
        match put.writes.as_slice() {
            [write] if put.condition.is_none() => Some(write.key.clone()),
            _ => None,
        }
    }
}

/// Where the engine is and how to connect to it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Open {
    /// The version of these lines: [`PROTOCOL`].
    pub protocol: u32,
    /// The members of the engine, as URLs; at least one.
    pub servers: Vec<String>,
    /// The PEM file with the certificate authority of the members; none without TLS.
    pub ca: Option<PathBuf>,
    /// The PEM file with the certificate of this host.
    pub cert: Option<PathBuf>,
    /// The PEM file with the private key of this host.
    pub key: Option<PathBuf>,
    /// How many members are watched at a time, at least 1.
    pub watches: u8,
}

/// A prefix whose records the daemon follows.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Watch {
    /// The first part of all the keys.
    pub prefix: String,
    /// From where the changes are wanted; none for a list.
    pub after: Option<Point>,
}

/// A point in the history of an engine: a record that was received, and when it was written.
///
/// A number alone does not name one: an engine that was restored from a backup counts from a lower
/// revision and passes the old one again, with the same cluster id. So `knock-fleet` reads the key
/// at the revision, after its watch was accepted and over the same connection. If the value is
/// another, the history is another one, and it lists. If the revision was compacted, it lists.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Point {
    /// The id of the cluster, from the report of a list.
    pub cluster: String,
    /// A key that was put at that revision: of the records that were received, the latest one.
    pub key: String,
    /// The value that was put; sealed values never repeat.
    pub value: Octets,
    /// The revision of that put: of a record, not of an answer, which may be a later one.
    pub revision: u64,
}

/// Writes in one transaction.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Put {
    /// The number of the answer; no two requests of one process have the same.
    pub id: u64,
    /// If this does not hold, nothing is written.
    pub condition: Option<Condition>,
    /// What is written, at least one key.
    pub writes: Vec<Write>,
}

/// A key and the revision that it must have.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Condition {
    /// The key.
    pub key: String,
    /// The revision at which it was last written; 0 if there must be no such key.
    pub revision: u64,
}

/// A key and its value.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Write {
    /// The key.
    pub key: String,
    /// The value.
    pub value: Octets,
    /// For how many seconds the engine keeps it, at least; none: until it is replaced.
    ///
    /// `knock-fleet` may add up to 60 s, so that keys that end in the same minute share a lease.
    pub keep_s: Option<u64>,
}

/// The sign of life of this host.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Beat {
    /// The key.
    pub key: String,
    /// The value, which is written when it changes and after the engine has lost it.
    pub value: Octets,
    /// For how many seconds the key outlives this process; it is kept alive each third of that.
    pub keep_s: u64,
}
