//! Access to the bytes of a packet.

use crate::bare::Bare;

/// A packet that can be read at any offset.
///
/// The kernel's verifier accepts no slices, only pointers that were compared with `data_end`. Both sides can copy `N`
/// bytes at an offset.
pub trait Bytes {
    /// Returns the `N` bytes at `offset`, or `None` where the packet ends before them.
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]>;

    /// Returns the `N` 16-bit words at `offset`, each as it lies in memory, or `None` where the packet ends
    /// before them. Headers consist of such words: they are fewer loads than bytes.
    fn words<const N: usize>(&self, offset: usize) -> Option<[u16; N]>;

    /// Returns what is known about the packet in place of an Ethernet header; `None` if it begins with one.
    #[inline(always)]
    fn bare(&self) -> Option<Bare> {
        None
    }

    /// Returns the byte at `offset`.
    #[inline(always)]
    fn u8(&self, offset: usize) -> Option<u8> {
        self.read::<1>(offset).map(|[byte]| byte)
    }

    /// Returns the index of the interface that received the packet; 0 where there is none, as for a slice.
    #[inline(always)]
    fn interface(&self) -> u32 {
        0
    }

    /// Returns whether the packet was received from the loopback interface.
    #[inline(always)]
    fn is_looped(&self) -> bool {
        false
    }

    /// Returns the big-endian 16-bit number at `offset`.
    #[inline(always)]
    fn be16(&self, offset: usize) -> Option<u16> {
        self.words::<1>(offset).map(|[word]| u16::from_be(word))
    }
}

impl Bytes for [u8] {
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.get(offset..)?.first_chunk().copied()
    }

    fn words<const N: usize>(&self, offset: usize) -> Option<[u16; N]> {
        let octets = self.get(offset..)?.get(..size_of::<[u16; N]>())?;
        let (pairs, _) = octets.as_chunks();
        pairs
            .try_into()
            .ok()
            .map(|pairs: &[[u8; 2]; N]| pairs.map(u16::from_ne_bytes))
    }
}
