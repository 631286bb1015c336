//! The loader: turns a configuration into maps, attaches the program, and reports what happens.
//!
//! ```text
//! seq.toml ─▶ config (settings) ─▶ compile (tables) ─▶ kernel (maps, program, links)
//! EVENTS ─▶ daemon ─▶ ledger (open doors) ─▶ console, commands
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
pub mod fleet;
pub mod host;
pub mod interfaces;
pub mod kernel;
pub mod ledger;
pub mod metrics;
pub mod model;
pub mod sequences;
pub mod strength;
pub mod tools;
pub mod top;
