//! knock-user
pub mod config;
