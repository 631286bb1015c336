//! The formats that a host and its clients share: knocks, protocols, sets of ports, durations, files of
//! one-time sequences, the parameters of time-based ones, and the keys and packets of single packet
//! authorization, each with one reader and one writer; and how foreign text is shown.
//!
//! The crate is used by knock-client, knock-user and the tests, so no format is read in two ways.
//! It may use std, [`knock_common`] and libraries of cryptography; it builds for every operating
//! system. It must not know configuration files, command lines, sockets, the kernel or the clock,
//! and opens no files: callers pass texts, octets, opened files and times in, and decide what to do
//! with an error.
#![forbid(unsafe_code)]

pub mod duration;
mod invalid;
mod knock;
pub mod one_time;
pub mod otp;
mod port_set;
pub mod ports;
#[cfg(feature = "spa")]
pub mod spa;
mod spelling;
pub mod terminal;

pub use crate::{
    invalid::Invalid,
    knock::{Knock, KnockSpec, Sequence},
    port_set::PortSet,
    ports::Ports,
};
pub use knock_common::packet::Protocol;
