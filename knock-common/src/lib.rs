//! Decides about frames without I/O: what a frame is, how it changes its source's progress, and whether it
//! passes.
//!
//! ```text
//! Bytes ─▶ packet::parse ─▶ Segment ─▶ judge ─▶ Reason ─▶ Verdict
//!                                      │   ▲
//!                                      ▼   │
//!                                      Env (maps, clock, events)
//! ```
//!
//! The same functions run in the XDP program, where [`Env`] reads BPF maps, and natively,
//! where [`sim::Sim`] keeps the maps in memory. [`Subprograms`] are the functions that the kernel side calls
//! as BPF subprograms. Nothing here panics, allocates, reads a clock or
//! does I/O; time and packets come in through [`Env`] and [`Bytes`].
//!
//! Read in this order: [`packet`], [`mod@judge`], [`knock`], [`automaton`].
#![cfg_attr(not(any(test, feature = "sim")), no_std)]
#![cfg_attr(
    not(test),
    warn(
        clippy::arithmetic_side_effects,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::unwrap_used
    )
)]
#![forbid(unsafe_code)]

pub mod access;
pub mod address;
pub mod answer;
pub mod arrival;
pub mod automaton;
pub mod bare;
pub mod bare_packet;
pub mod block;
pub mod blocked;
pub mod bytes;
pub mod claim;
pub mod connection;
pub mod cookie;
pub mod decision;
pub mod door;
pub mod emit;
pub mod env;
pub mod event;
mod features;
pub mod first;
pub mod from;
pub mod fwknop;
pub mod grant;
pub mod grant_prefix;
pub mod handshake;
pub mod hmac;
pub mod hmac_sha256;
pub mod judge;
pub mod knock;
pub mod layout;
pub mod lockout;
pub mod native;
pub mod otp;
pub mod packet;
pub mod packet_info;
pub mod port_digits;
mod port_rule;
pub mod presence;
pub mod reason;
pub mod repliable;
pub mod secret;
pub mod seen;
pub mod sha1;
pub mod sha256;
#[cfg(any(test, feature = "sim"))]
pub mod sim;
pub mod siphash;
pub mod source_knocks;
pub mod spa;
pub mod subprograms;
pub mod time;

pub use address::Address;
pub use bytes::Bytes;
pub use env::Env;
pub use grant_prefix::GrantPrefix;
pub use judge::{Judgement, decide, judge};
pub use reason::{Reason, Stat, Verdict};
pub use subprograms::{FrameSubprograms, Subprograms};
