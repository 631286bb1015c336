//! The developer's tools: finds the toolchain of the kernel object, builds and checks that object, and
//! runs all tests.
//!
//! A library, because `knock-user`'s build script builds the object with the same function as
//! `cargo xtask build-ebpf`: see [`ebpf`]. The modules of the command line are behind the
//! feature `cli`, so that a change there does not make `knock-user` build again.

#[cfg(feature = "cli")]
pub mod audit;
#[cfg(feature = "cli")]
pub mod containers;
#[cfg(feature = "cli")]
pub mod crates;
#[cfg(feature = "cli")]
mod debian;
#[cfg(feature = "cli")]
mod disk_space;
#[cfg(feature = "cli")]
pub mod dist;
pub mod ebpf;
#[cfg(feature = "cli")]
pub mod elsewhere;
#[cfg(feature = "cli")]
pub mod fleet;
#[cfg(feature = "cli")]
pub mod fresh;
#[cfg(feature = "cli")]
pub mod fuzz;
#[cfg(feature = "cli")]
pub mod lanes;
#[cfg(feature = "cli")]
pub mod launch;
pub mod linker;
#[cfg(feature = "cli")]
pub mod machine;
pub mod network;
pub mod object;
pub mod package;
#[cfg(feature = "cli")]
pub mod packages;
#[cfg(feature = "cli")]
mod prepared;
pub mod progress;
#[cfg(feature = "cli")]
pub mod report;
pub mod setup;
pub mod shell;
#[cfg(feature = "cli")]
mod stages;
#[cfg(feature = "cli")]
pub mod suite;
#[cfg(feature = "cli")]
pub mod test;
pub mod toolchain;
#[cfg(feature = "cli")]
pub mod tools;
#[cfg(feature = "cli")]
pub mod twice;
#[cfg(feature = "cli")]
pub mod vm;
