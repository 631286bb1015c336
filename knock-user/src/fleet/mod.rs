//! The rules of a fleet: what a host of a group does when one of them opens or closes a door.
//!
//! A [`Group`] gets what happens here (grants, revocations), what the engine reports (records, lists)
//! and the time; it returns [`FleetAction`]s: doors to open and to close, records to write. It keeps
//! nothing on a disk: after a restart, the allow map and the engine have what counts.
//!
//! An [`Exchange`] puts a group on the lines of `knock-fleet`, with keys that are names and records that are
//! sealed.
//!
//! Does no I/O, so that thousands of hosts can be simulated. May use `model` and the lines of
//! `knock-wire`. Must not know the ledger, the configuration, and how lines are sent.

mod action;
mod entry;
mod exchange;
mod group;
mod history;
mod joining;
mod outbox;
mod paths;
mod phase;
mod record;
mod revocations;
mod seal;
mod times;

pub use self::{
    action::{FleetAction, Origin},
    exchange::{Exchange, LinkState, Step},
    group::{Group, Member},
    paths::is_name,
    record::{ByKnowledge, Grant, Place, Record, Revocation, Rule},
    seal::{GroupKey, Keyring},
    times::Now,
};
