//! Puts configurations in force. Start, restart, upgrade and reload are the same operation.
//!
//! Each configuration gets a program with maps of its own, and shares the pinned maps with all other
//! configurations of the instance. Each interface's link is switched to the new program in one step,
//! so either the old program with the old maps judges a packet, or the new program with the new
//! maps.
//!
//! May use `kernel`, `interfaces`, `sequences`, `config` and the rooms below them. Must not know the
//! console, the ledger or the control socket.

mod access;
mod attach_interfaces;
pub mod carry_grants;
mod change;
mod coverage;
mod deployed;
mod discard;
pub mod dynamic;
mod ending;
mod find_interfaces;
mod follow;
mod frames;
mod interim;
mod key_stamps;
mod mode_reasons;
pub mod options;
pub mod own_session;
pub mod plan;
mod preparation;
mod protection;
mod stamps;
pub mod texts;
mod tracked_flows;
mod transition;
pub mod unconfirmed;

pub(crate) use self::discard::discard;
pub use self::{
    deployed::Deployed,
    ending::EndedGrants,
    follow::Followed,
    frames::Noticed,
    preparation::{Preparation, PreparedConfiguration},
    protection::Protection,
};
