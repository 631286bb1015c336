//! The loader: turns a configuration into maps, attaches the program, tells what happened.
//!
//! ```text
//! seq.toml ─▶ config (what it means) ─▶ compile (what the kernel reads) ─▶ firewall (maps, links)
//! EVENTS ─▶ daemon ─▶ ledger (what is open) ─▶ console, commands
//! ```
pub mod admin;
pub mod apply;
pub mod cli;
pub mod commands;
pub mod compile;
pub mod config;
pub mod console;
pub mod control;
pub mod daemon;
pub mod explain;
pub mod host;
pub mod interfaces;
pub mod kernel;
pub mod ledger;
pub mod model;
pub mod sequences;
pub mod strength;
pub mod tools;
