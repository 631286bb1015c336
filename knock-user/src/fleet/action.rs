//! What the rules of a fleet request.

use super::record::{Place, Record};
use crate::model::prefix::Prefix;

/// An action of a group.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum FleetAction {
    /// Give a grant here, unless a longer one is there.
    Open {
        /// The name of the door, which this host may lack.
        door: String,
        /// The addresses to let in.
        source: Prefix,
        /// When it ends, in milliseconds since boot.
        until_ms: u64,
        /// Where it was given.
        by: Origin,
    },
    /// End the grants of a source for a door; an `Open` follows if one of them continues.
    Close {
        /// The name of the door.
        door: String,
        /// The addresses that were let in.
        source: Prefix,
        /// Where it was revoked.
        by: Origin,
        /// Whether the grant was given at this host, which did not know of the revocation.
        is_own: bool,
    },
    /// Write a record to the engine, and report the result by the number.
    Put {
        /// The number.
        id: u64,
        /// Where it belongs.
        place: Place,
        /// The record.
        record: Record,
        /// The revision of the record that it replaces, 0 for none: if the engine has another one
        /// there, nothing is written. None: it replaces any.
        replaces: Option<u64>,
        /// For how many milliseconds the engine keeps it.
        keep_ms: u64,
    },
}

/// Who changed something, and where.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Origin {
    /// The name of the host.
    pub host: String,
    /// The user id, if it was by hand.
    pub user: Option<u32>,
}
