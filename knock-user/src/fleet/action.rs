//! What the rules of a fleet request.

use super::{
    presence::Presence,
    record::{Origin, Place, Record},
    uses::{Claim, Denial, Use, UsedBy},
};
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
        /// Where it was given. That is this host if it claimed a use whose answer was lost.
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
        /// Whether its connections end, too.
        cuts: bool,
    },
    /// Give the grant of a claim: nobody used it before, and the other hosts open as well.
    Claimed {
        /// The claim.
        claim: Claim,
    },
    /// Report a claim that opens nothing. A door that is open already stays open: then nobody is known to have
    /// used it before, and the engine has something else in its place.
    Denied {
        /// The claim.
        claim: Claim,
        /// The reason.
        because: Denial,
    },
    /// Report that what opened a door here was used elsewhere, too. A `Close` follows while its grant is open.
    UsedTwice {
        /// The use at this host.
        claim: Claim,
        /// The other one, which counts.
        by: UsedBy,
    },
    /// Record here that something was used, so that it opens nothing even if the engine loses that.
    Spend {
        /// What was used. A line voids those before it.
        used: Use,
        /// By whom.
        by: UsedBy,
    },
    /// Report a grant of another host that opens nothing here: it does not cover what grants of this door
    /// cover, because `grant_prefix` differs.
    Mismatch {
        /// The name of the door.
        door: String,
        /// The addresses.
        source: Prefix,
        /// The name of the host that gave it.
        host: String,
    },
    /// Lock a source out, unless it is locked out for longer.
    LockOut {
        /// The addresses.
        source: Prefix,
        /// When it ends, in milliseconds since boot.
        until_ms: u64,
        /// The name of the host at which attempts failed.
        host: String,
    },
    /// Put a shared configuration in force on trial, start `knock-fleet` again, and report the result by
    /// `Group::adopted`. `Confirm` or `Undo` follows.
    Adopt {
        /// Its number.
        number: u64,
        /// Its text.
        text: String,
    },
    /// Keep the shared configuration that is on trial: store its number, then end the trial.
    Confirm {
        /// Its number.
        number: u64,
    },
    /// End the trial and return to what was in force before, then start `knock-fleet` again.
    Undo {
        /// The number of the one on trial.
        number: u64,
        /// Why. The other hosts get it, too.
        reason: String,
    },
    /// Report a shared configuration that this host does not take.
    Refused {
        /// Its number.
        number: u64,
        /// Why.
        reason: &'static str,
    },
    /// Write the presence of this host, and keep it while the host is connected.
    Beat {
        /// The presence.
        presence: Presence,
        /// For how many milliseconds it outlives the connection.
        keep_ms: u64,
    },
    /// Write records to the engine, all or none, and report the result by the number.
    Put {
        /// The number.
        id: u64,
        /// The records, at least one.
        records: Vec<NewRecord>,
        /// The revision of the record that the first one replaces, 0 for none: if the engine has another
        /// one there, nothing is written. None: it replaces any.
        replaces: Option<u64>,
    },
}

/// A record to be written.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NewRecord {
    /// Where it belongs.
    pub place: Place,
    /// The record.
    pub record: Record,
    /// For how many milliseconds the engine keeps it; none: until it is replaced.
    pub keep_ms: Option<u64>,
}
