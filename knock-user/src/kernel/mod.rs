//! All BPF objects and pins: the program with its maps, the files on bpffs that keep them without a
//! process, and the instance to which they belong.
//!
//! May use `model`, `host` and the tables of `compile`. Must not know drivers, commands of doors,
//! or control clients.

pub mod barrier;
pub mod blocks;
pub mod bpffs;
pub mod entry;
mod find_instance;
pub mod instance;
pub mod leftovers;
pub mod link_state;
pub mod lock;
pub mod maps;
pub mod persistence;
pub mod pins;
pub mod program;
pub mod registry;
pub mod snapshot;
pub mod tcx;

/// The name of the XDP program in the object.
pub const PROGRAM: &str = "knock";
