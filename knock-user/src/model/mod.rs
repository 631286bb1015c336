//! The types of a configuration: settings, ports, values and problems, and their text form. All of
//! them are plain data.
//!
//! May use knock-common and libraries. Must not know files, sockets, the kernel or any other room.

pub mod attach_mode;
pub mod fair_shares;
pub mod fleet;
pub mod log_format;
pub mod octets;
pub mod otp;
pub mod prefix;
pub mod problem;
pub mod settings;
pub mod sources;
pub mod spa;
pub mod table_sizes;
pub mod text;
pub mod value;

pub use knock_sequence::terminal;
