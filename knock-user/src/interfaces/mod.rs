//! From an interface's name to a program that judges its packets, and whether it really does.
//!
//! [`admission`] decides whether an interface may be taken, [`attach`] puts the program there,
//! [`watchdog`] compares what arrives with what the program saw, and [`coverage`] answers what is in
//! force.
//!
//! May use `kernel` and the rooms below it. Must not know configurations as a whole.

pub mod admission;
pub mod attach;
pub mod coverage;
pub mod driver;
pub mod guards;
pub mod watchdog;
