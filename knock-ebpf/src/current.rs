//! The packet that is judged, as subprograms find it.

use knock_common::Bytes;

/// No header begins at a greater offset; the verifier needs a bound.
pub(crate) const OFFSET_MAX: usize = 0x3fff;

/// The index of the loopback interface in each network namespace (`include/net/flow.h`).
pub(crate) const LOOPBACK_IFINDEX: u32 = 1;

/// The packet that is judged. A subprogram is passed its context, since pointers into a packet can't be arguments.
pub(crate) trait Current: Bytes + Sized {
    /// What the kernel passes to the program.
    type Context;

    /// Returns the packet of a context.
    fn of(context: *mut Self::Context) -> Self;

    /// Returns the context.
    fn context(&self) -> *mut Self::Context;

    /// Copies the bytes at an offset, wherever they lie. Returns whether the packet has as many.
    fn copy(context: *mut Self::Context, offset: u32, to: &mut [u8]) -> bool;
}
