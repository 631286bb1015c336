//! The verdicts of the program in the kernel: tables of packets, one source for each row.
//!
//! ```text
//! Row ── name ── Step, Step, …
//!                 │
//!                 ├ a packet, its reason, what is reported about it
//!                 ├ time: passed, or made to have passed in the maps
//!                 └ what the maps hold now
//! ```
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test stops at what it did not expect"
)]

mod access;
mod answers;
mod blocks;
mod events;
mod frames;
mod fwknop;
mod knocks;
mod lockouts;
mod martians;
mod spa;
mod table;
