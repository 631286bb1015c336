//! TODO room

pub mod barrier;
pub mod bpffs;
pub mod instance;
pub mod leftovers;
pub mod maps;
pub mod persistence;
pub mod pins;
#[cfg(feature = "object")]
pub mod program;
pub mod registry;
