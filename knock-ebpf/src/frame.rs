//! Reading packets.

use aya_ebpf::programs::XdpContext;
use knock_common::Bytes;

/// No header that is read begins further in; the verifier needs a bound.
const OFFSET_MAX: usize = 0x3fff;

/// The frame under judgement.
pub(crate) struct Frame {
    start: *const u8,
    end: *const u8,
}

impl Frame {
    /// The frame of a context.
    #[inline(always)]
    pub(crate) fn of(context: &XdpContext) -> Self {
        Self {
            start: context.data() as *const u8,
            end: context.data_end() as *const u8,
        }
    }
}

impl Bytes for Frame {
    #[inline(always)]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        if offset > OFFSET_MAX {
            return None;
        }
        // Pointer arithmetic: with integers LLVM reorders the sum and the verifier loses the range.
        let from = self.start.wrapping_add(offset);
        if from.wrapping_add(N) > self.end {
            return None;
        }
        // SAFETY: `from..from + N` was just shown to lie in the frame; byte arrays have alignment 1.
        Some(unsafe { from.cast::<[u8; N]>().read() })
    }
}
