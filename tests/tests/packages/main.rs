//! Packages and archives in pristine systems: their files, what they print, and the state that they leave.
//!
//! `cargo xtask packages` builds them, and runs these tests; nothing else does.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "clippy.toml's exception does not reach helpers of tests"
)]

mod archives;
mod container;
mod deb;
mod files;
mod fleet;
mod manifest;
mod rpm;
mod system;

/// The version under test, and the one from which packages are upgraded.
const VERSION: &str = env!("CARGO_PKG_VERSION");
const EARLIER: &str = "0.0.9";
