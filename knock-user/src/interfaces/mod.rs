//! TODO room

pub mod admission;
pub mod attach;
pub mod coverage;
pub mod driver;
pub mod guards;
pub mod watchdog;
