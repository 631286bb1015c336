//! Reading packets, and changing one that is answered.

use aya_ebpf::{
    EbpfContext as _,
    bindings::xdp_md,
    helpers::{bpf_xdp_adjust_tail, bpf_xdp_get_buff_len},
    programs::XdpContext,
};
use knock_common::{Bytes, Env, answer::Reflect, handshake::HandshakeStep};

use crate::subprograms;

/// No header that is read begins further in; the verifier needs a bound.
const OFFSET_MAX: usize = 0x3fff;

/// The index of the loopback interface in each network namespace (`include/net/flow.h`).
const LOOPBACK_IFINDEX: u32 = 1;

/// The frame under judgement.
pub(crate) struct Frame {
    start: *const u8,
    end: *const u8,
    context: *mut xdp_md,
}

impl Frame {
    /// The frame of a context.
    #[inline(always)]
    pub(crate) fn of(context: &XdpContext) -> Self {
        Self {
            start: context.data() as *const u8,
            end: context.data_end() as *const u8,
            context: context.as_ptr().cast(),
        }
    }

    /// Where `length` bytes at `offset` are, if the frame has them.
    #[inline(always)]
    fn at(&self, offset: usize, length: usize) -> Option<*const u8> {
        if offset > OFFSET_MAX {
            return None;
        }
        // Pointer arithmetic: with integers LLVM reorders the sum and the verifier loses the range.
        let from = self.start.wrapping_add(offset);
        (from.wrapping_add(length) <= self.end).then_some(from)
    }
}

impl Bytes for Frame {
    #[inline(always)]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        let from = self.at(offset, N)?;
        // SAFETY: `from..from + N` lies in the frame; byte arrays have alignment 1.
        Some(unsafe { from.cast::<[u8; N]>().read() })
    }

    #[inline(always)]
    fn words<const N: usize>(&self, offset: usize) -> Option<[u16; N]> {
        let from = self.at(offset, size_of::<[u16; N]>())?;
        // SAFETY: `from..from + 2 * N` lies in the frame. Drivers begin frames at even addresses, and
        // every header at an even offset; were one not, BPF's loads don't ask for alignment.
        Some(unsafe { from.cast::<[u16; N]>().read() })
    }

    #[inline(always)]
    fn interface(&self) -> u32 {
        // SAFETY: the context is the one that the kernel gave this run of the program.
        unsafe { (*self.context).ingress_ifindex }
    }

    #[inline(always)]
    fn is_looped(&self) -> bool {
        self.interface() == LOOPBACK_IFINDEX
    }

    #[inline(always)]
    fn note_other(&self) {
        subprograms::note_other(self.context);
    }

    #[inline(always)]
    fn classify<W: Env>(&self, _world: &W) -> HandshakeStep {
        HandshakeStep::from_number(subprograms::classify(self.context))
    }
}

impl Reflect for Frame {
    #[inline(always)]
    fn length(&self) -> Option<usize> {
        // SAFETY: the context is the one that the kernel gave this run of the program.
        let whole = unsafe { bpf_xdp_get_buff_len(self.context) };
        let here = (self.end as usize).wrapping_sub(self.start as usize);
        (whole == here as u64).then_some(here)
    }

    #[inline(always)]
    fn write<const N: usize>(&mut self, offset: usize, bytes: [u8; N]) -> Option<()> {
        let to = self.at(offset, N)?;
        // SAFETY: `to..to + N` lies in the frame, which is this program's alone to read and write;
        // byte arrays have alignment 1.
        unsafe { to.cast_mut().cast::<[u8; N]>().write(bytes) };
        Some(())
    }

    #[inline(always)]
    fn cut(&mut self, length: usize) -> Option<()> {
        let more = (length as i32).wrapping_sub(self.length()? as i32);
        if more == 0 {
            return Some(());
        }
        // SAFETY: as in `length`. The kernel refuses lengths that can't be. Pointers into the frame
        // are no longer good, and this one is made empty.
        let refused = unsafe { bpf_xdp_adjust_tail(self.context, more) };
        self.end = self.start;
        (refused == 0).then_some(())
    }
}
