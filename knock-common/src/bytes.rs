//! Where packet bytes come from.

use crate::{
    World,
    handshake::{self, Shake},
};

/// A packet that can be read at any offset.
///
/// A slice is not a packet for the kernel's verifier: it accepts only pointers that were compared
/// with `data_end`. Copying `N` bytes out at an offset is what both sides can do.
pub trait Bytes {
    /// The `N` bytes at `offset`, or `None` where the packet ends before them.
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]>;

    /// The byte at `offset`.
    #[inline(always)]
    fn u8(&self, offset: usize) -> Option<u8> {
        self.read::<1>(offset).map(|[byte]| byte)
    }

    /// See [`handshake::shake`]: the kernel side overrides it with a function of its own.
    fn shake<W: World>(&self, world: &W) -> Shake {
        handshake::shake(self, world)
    }

    /// The big-endian 16-bit number at `offset`.
    #[inline(always)]
    fn be16(&self, offset: usize) -> Option<u16> {
        self.read(offset).map(u16::from_be_bytes)
    }
}

impl Bytes for [u8] {
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.get(offset..)?.first_chunk().copied()
    }
}
