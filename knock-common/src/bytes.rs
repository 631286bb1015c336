//! Access to the bytes of a packet.

use crate::{
    Subprograms, fwknop,
    handshake::{self, HandshakeStep},
    packet::Segment,
    spa::{
        self, SpaStep,
        layout::{SpaPort, SpaScratch},
    },
};

/// A packet that can be read at any offset.
///
/// The kernel's verifier accepts no slices, only pointers that were compared with `data_end`. Both sides can copy `N`
/// bytes at an offset.
pub trait Bytes {
    /// The `N` bytes at `offset`, or `None` where the packet ends before them.
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]>;

    /// The `N` 16-bit words at `offset`, each as it lies in memory, or `None` where the packet ends
    /// before them. Headers consist of such words: they are fewer loads than bytes.
    fn words<const N: usize>(&self, offset: usize) -> Option<[u16; N]>;

    /// The byte at `offset`.
    #[inline(always)]
    fn u8(&self, offset: usize) -> Option<u8> {
        self.read::<1>(offset).map(|[byte]| byte)
    }

    /// Index of the interface that received the packet; 0 where there is none, as for a slice.
    #[inline(always)]
    fn interface(&self) -> u32 {
        0
    }

    /// Whether the packet was received from the loopback interface.
    #[inline(always)]
    fn is_looped(&self) -> bool {
        false
    }

    /// Records for user space that the packet is neither IPv4 nor IPv6; see [`crate::seen`]. Only the kernel side
    /// does.
    #[inline(always)]
    fn note_other(&self) {}

    /// See [`handshake::classify`]: the kernel side overrides it with a subprogram.
    fn classify<E: Subprograms>(&self, env: &E) -> HandshakeStep {
        handshake::classify(self, env)
    }

    /// See [`spa::judge::pass_gate`]: the kernel side overrides it with a subprogram.
    fn pass_gate<E: Subprograms>(
        &self,
        segment: &Segment,
        env: &E,
        port: SpaPort,
        scratch: &mut SpaScratch,
    ) -> SpaStep {
        spa::judge::pass_gate(self, segment, env, port, scratch)
    }

    /// See [`fwknop::judge::copy`]: the kernel side overrides it with a subprogram.
    fn copy_fwknop<E: Subprograms>(
        &self,
        segment: &Segment,
        env: &E,
        port: SpaPort,
        scratch: &mut fwknop::Scratch,
    ) -> SpaStep {
        fwknop::judge::copy(self, segment, env, port, scratch)
    }

    /// Copies the bytes at `offset` to [`fwknop::Scratch::room`]. Returns whether the packet has as many.
    fn load(&self, offset: usize, scratch: &mut fwknop::Scratch) -> bool {
        let mut places = scratch.room().iter_mut().zip(offset..);
        places.all(|(place, at)| self.u8(at).map(|byte| *place = byte).is_some())
    }

    /// The big-endian 16-bit number at `offset`.
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
