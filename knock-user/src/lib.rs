//! The loader: turns a configuration into maps, attaches the program, tells what happened.
//!
//! ```text
//! seq.toml ─▶ config (what it means) ─▶ compile (what the kernel reads) ─▶ firewall (maps, links)
//! EVENTS ─▶ daemon ─▶ ledger (what is open) ─▶ console, commands
//! ```
pub mod carry;
pub mod check;
pub mod cli;
pub mod commands;
pub mod compile;
pub mod config;
pub mod console;
pub mod control;
#[cfg(feature = "object")]
pub mod daemon;
pub mod explain;
pub mod generate;
pub mod host;
pub mod import;
pub mod interfaces;
pub mod kernel;
pub mod ledger;
pub mod model;
#[cfg(feature = "object")]
pub mod moving;
#[cfg(feature = "object")]
pub mod protection;
pub mod sequences;
pub mod session;
#[cfg(feature = "object")]
pub mod start;
pub mod strength;
pub mod texts;
mod toml_text;
#[cfg(feature = "object")]
pub mod unconfirmed;
