//! Keeps track of which doors are open for which sources, for reports and commands.
//!
//! The kernel side admits packets and expires grants by its own clock, with or without this ledger.
//! The ledger derives openings from events and from the allow map: it reports each opening and each
//! closing once, and finds ended entries to remove. It does no I/O: events and the time come in,
//! [`LedgerAction`]s go out. All times are of `CLOCK_BOOTTIME`.
//!
//! Two rules make it exact, both because the kernel side writes the map before it emits the event:
//! entries that were read are passed to the ledger at once, with no event read in between; and the
//! actions of one call are carried out before the next one.
//!
//! May use `compile` for the doors of a configuration. Must not know the kernel, the console or the
//! clock.

mod action;
mod blocks;
mod ending;
mod events;
mod manual;
mod openings;
mod recent;
mod takeover;

pub use self::{
    action::{By, Ending, HostId, LedgerAction},
    blocks::{BlockChange, Blocks},
    manual::{Open, Revocation},
    openings::{Giver, Ledger, Lookup},
    takeover::Adopted,
};
