//! The state of the second loaded copy of the program.

use anyhow::Result;
use aya::programs::Xdp;

/// The state of the second copy.
#[derive(Debug, Default)]
pub(super) enum Copy {
    /// Loading was not started.
    #[default]
    Absent,
    /// Another thread is loading it.
    Loading,
    /// It is loaded.
    Loaded(Box<Xdp>),
    /// Loading failed: what it is loaded from, and when it is tried again.
    Failed(Box<Xdp>, u64),
}

/// The outcome of loading the second copy: the copy, or why it is not loaded.
#[derive(Debug)]
pub struct LoadedCopy {
    pub(super) copy: Box<Xdp>,
    pub(super) done: Result<()>,
}
