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
mod audience;
mod blocks;
mod events;
mod frames;
mod fwknop;
mod knocks;
mod lockouts;
mod martians;
mod spa;
mod table;

use std::{env, process::Command};

use knock_tests::entry::{ENTRY, Entry};

/// Runs the other tests of this program again, through the entry at TC.
#[test]
fn the_verdicts_at_tc_are_the_same() {
    if env::var_os(ENTRY).is_some() {
        return;
    }
    let output = Command::new(env::current_exe().unwrap())
        .env(ENTRY, Entry::Tc.name())
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{printed}");
}
