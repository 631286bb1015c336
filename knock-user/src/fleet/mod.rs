//! The rules of a fleet: what a host of a group does when one of them opens or closes a door.
//!
//! A [`Group`] gets what happens here (grants, revocations), what the engine reports (records, lists)
//! and the time; it returns [`FleetAction`]s: doors to open and to close, records to write. After
//! a restart of the daemon, the allow map, the engine and a small file ([`state_file`]) have what counts.
//!
//! What opens a door once is used once in the group: a [`Claim`] is written with a condition, and the first
//! one counts. The door stays shut until then, or is shut again ([`Group::claim`], [`Group::used`]).
//!
//! A [`SharedConfig`] for all hosts is signed by an administrator. Some hosts begin, each confirms it or undoes
//! it, and the others follow unless one of them complained.
//!
//! An [`Exchange`] puts a group on the lines of `knock-fleet`, with keys that are names and records that are
//! sealed.
//!
//! Does no I/O except in `state_file`, so that thousands of hosts can be simulated. May use `model`, `host`
//! for its file, and the lines of `knock-wire`. Must not know the ledger, the configuration, and how lines are sent.

mod action;
mod claiming;
mod claims;
mod entry;
mod exchange;
mod giving;
mod group;
mod group_key;
mod history;
mod joining;
mod listing;
mod lockouts;
mod outbox;
mod paths;
mod phase;
mod presence;
mod record;
mod revocations;
mod rollout;
mod saved;
mod saving;
mod seal;
mod sharing;
mod signed;
pub mod state_file;
mod times;
mod uses;
mod writing;

pub use self::{
    action::{FleetAction, NewRecord},
    exchange::{CutOff, Exchange, LinkState, Step},
    group::{Group, Member},
    group_key::GroupKey,
    listing::GroupGrant,
    lockouts::Lockout,
    paths::is_name,
    presence::{Confirmed, Facts, HostState, Presence, SharedState, Stage},
    record::{ByKnowledge, Grant, Origin, Place, Record, Revocation, Rule},
    seal::Keyring,
    signed::{AdminKey, AdminPublic, LONGEST_SHARED, SharedConfig, Stages},
    times::Now,
    uses::{Claim, Denial, Mark, Use, UseRecord, UsedBy},
};
