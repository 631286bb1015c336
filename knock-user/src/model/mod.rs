//! The vocabulary of a configuration: settings, ports, values, problems, and how they are written for
//! people. Everything here is plain data.
//!
//! May use knock-common and libraries. Must not know files, sockets, the kernel or any other room.

pub mod fair_shares;
pub mod otp;
pub mod problem;
pub mod settings;
pub mod terminal;
pub mod text;
pub mod value;
