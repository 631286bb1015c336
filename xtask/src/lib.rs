//! What a developer needs around the crates: the toolchain for the kernel object, building and
//! checking that object, and running all tests.
//!
//! A library, because `knock-user`'s build script builds the object with the same function as
//! `cargo xtask build-ebpf`: see [`ebpf`].

pub mod dist;
pub mod ebpf;
pub mod fresh;
pub mod lanes;
pub mod launch;
pub mod linker;
pub mod network;
pub mod object;
pub mod package;
pub mod progress;
pub mod report;
pub mod setup;
pub mod shell;
pub mod suite;
pub mod test;
pub mod toolchain;
pub mod tools;
pub mod vm;
