//! The loader: turns a configuration into maps, attaches the program, tells what happened.
//!
//! ```text
//! seq.toml ─▶ config (what it means) ─▶ compile (what the kernel reads) ─▶ firewall (maps, links)
//! EVENTS ─▶ daemon ─▶ ledger (what is open) ─▶ console, commands
//! ```
pub mod admission;
pub mod attach;
pub mod bpffs;
pub mod carry;
pub mod check;
pub mod cli;
pub mod commands;
pub mod compile;
pub mod config;
pub mod console;
pub mod control;
pub mod coverage;
#[cfg(feature = "object")]
pub mod daemon;
pub mod driver;
pub mod explain;
#[cfg(feature = "object")]
pub mod firewall;
pub mod gate;
pub mod generate;
pub mod guards;
pub mod host;
pub mod import;
pub mod instance;
pub mod ledger;
pub mod leftovers;
pub mod log_files;
pub mod maps;
pub mod model;
#[cfg(feature = "object")]
pub mod moving;
pub mod output;
pub mod persistence;
pub mod pins;
#[cfg(feature = "object")]
pub mod protection;
pub mod registry;
pub mod sequences;
pub mod session;
#[cfg(feature = "object")]
pub mod start;
pub mod strength;
pub mod texts;
mod toml_text;
#[cfg(feature = "object")]
pub mod unconfirmed;
pub mod watchdog;
