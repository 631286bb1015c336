//! The subcommands that send requests to a running daemon, or read the pins where none runs.
//!
//! May use every room from `model` to `control`.

pub mod command;
pub mod facts;
pub mod health;
mod instances;
pub mod offline;
mod status;
pub mod text;
