//! This host in its group: follows the engine through `knock-fleet`, opens and closes doors here on behalf of other
//! hosts, and passes on to them what opened and closed here.
//!
//! A packet never waits for any of this: the kernel side opens a door by itself, and what follows happens later. Where
//! a host that is cut off is to stay closed, the kernel side has a time until which it may open doors of the group
//! (`fleet_until_ms` in `CONFIG`), which only a report of the engine moves on.

mod apply;
mod child;
mod follow;
mod hosts;
mod link;
mod shared;
mod tell;
mod written;

pub(super) use link::told;
pub(crate) use link::{FleetLink, Outcome};
