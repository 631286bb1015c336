//! The rules of a fleet: what a host of a group does when one of them opens or closes a door.
//!
//! A [`Group`] gets what happens here (grants, revocations), what the engine reports (records, lists)
//! and the time; it returns [`FleetAction`]s: doors to open and to close, records to write. It keeps
//! nothing on a disk: after a restart, the allow map and the engine have what counts.
//!
//! Does no I/O, so that thousands of hosts can be simulated. May use `model`. Must not know the
//! ledger, the configuration, and how records are sealed, sent and stored.

mod action;
mod entry;
mod group;
mod history;
mod joining;
mod outbox;
mod phase;
mod record;
mod revocations;
mod times;

pub use self::{
    action::{FleetAction, Origin},
    group::{Group, Member},
    record::{ByKnowledge, Grant, Place, Record, Revocation, Rule},
    times::Now,
};
