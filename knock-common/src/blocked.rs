//! The block of a prefix, as a map has it.

use bytemuck::{Pod, Zeroable};

use crate::time::Moment;

/// A prefix that was blocked by a command.
///
/// Only the longest prefix of a source is found. So that a block which has expired hides no wider one, user space
/// extends each block to the end of those that contain it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Pod, Zeroable)]
pub struct Blocked {
    /// Until when packets are dropped, in milliseconds since boot: at least [`Self::own_until_ms`].
    pub until_ms: u64,
    /// The end of this block itself, in milliseconds since boot; [`Self::NEVER`] if it has none.
    pub own_until_ms: u64,
    /// The user who blocked it.
    pub by: u32,
    /// Explicit padding.
    pub padding: u32,
}

impl Blocked {
    /// The end of a block that lasts until it is removed.
    pub const NEVER: u64 = u64::MAX;

    /// Returns whether packets are dropped.
    #[inline(always)]
    pub const fn is_valid(&self, now: Moment) -> bool {
        now.millis() < self.until_ms
    }
}
