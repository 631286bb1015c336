//! Attaches the program to interfaces, and checks that it judges their packets.
//!
//! [`admission`] decides whether an interface can be attached to, [`attach`] attaches the program,
//! [`watchdog`] compares received frames with those that the program saw, [`preceding`] describes what
//! runs before it, and [`coverage`] reports which interfaces are protected.
//!
//! May use `kernel` and the rooms below it. Must not know configurations as a whole.

pub mod admission;
pub mod attach;
pub mod coverage;
pub mod driver;
pub mod guards;
pub mod preceding;
pub mod watchdog;
