//! A packet without an Ethernet header in memory.

use crate::{Bytes, bare::Bare};

/// A packet in memory that begins with its IP header.
#[derive(Clone, Copy, Debug)]
pub struct BarePacket<'b> {
    /// The packet.
    pub bytes: &'b [u8],
    /// What is known about it.
    pub bare: Bare,
}

impl<'b> BarePacket<'b> {
    /// Derives from the version of IP what is not in the packet.
    pub fn new(bytes: &'b [u8]) -> Self {
        let first = bytes.first().copied().unwrap_or_default();
        Self {
            bytes,
            bare: Bare::from_version(first),
        }
    }
}

impl Bytes for BarePacket<'_> {
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.bytes.read(offset)
    }

    fn words<const N: usize>(&self, offset: usize) -> Option<[u16; N]> {
        self.bytes.words(offset)
    }

    fn bare(&self) -> Option<Bare> {
        Some(self.bare)
    }
}
