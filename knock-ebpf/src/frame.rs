//! Reads packets, and rewrites a packet as its answer.

use aya_ebpf::{
    EbpfContext as _,
    bindings::xdp_md,
    helpers::{bpf_xdp_adjust_tail, bpf_xdp_get_buff_len},
    programs::XdpContext,
};
use knock_common::{Bytes, answer::Reflect};

/// No header begins at a greater offset; the verifier needs a bound.
const OFFSET_MAX: usize = 0x3fff;

/// The index of the loopback interface in each network namespace (`include/net/flow.h`).
const LOOPBACK_IFINDEX: u32 = 1;

/// The current frame.
pub(crate) struct Frame {
    start: *const u8,
    end: *const u8,
    pub(crate) context: *mut xdp_md,
}

impl Frame {
    /// Returns the frame of a context.
    #[inline(always)]
    pub(crate) fn of(context: &XdpContext) -> Self {
        Self {
            start: context.data() as *const u8,
            end: context.data_end() as *const u8,
            context: context.as_ptr().cast(),
        }
    }

    /// Returns the address of `length` bytes at `offset`; `None` if the frame ends before.
    #[inline(always)]
    fn at(&self, offset: usize, length: usize) -> Option<*const u8> {
        if offset > OFFSET_MAX {
            return None;
        }
        // Pointers, since LLVM reorders a sum of integers and the verifier then loses the range.
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
        // SAFETY: `from..from + 2 * N` lies in the frame. Frames begin at even addresses and
        // headers at even offsets; BPF's loads need no alignment anyway.
        Some(unsafe { from.cast::<[u16; N]>().read() })
    }

    #[inline(always)]
    fn interface(&self) -> u32 {
        // SAFETY: the kernel passed this context to this run of the program.
        unsafe { (*self.context).ingress_ifindex }
    }

    #[inline(always)]
    fn is_looped(&self) -> bool {
        self.interface() == LOOPBACK_IFINDEX
    }
}

impl Reflect for Frame {
    #[inline(always)]
    fn length(&self) -> Option<usize> {
        // SAFETY: the kernel passed this context to this run of the program.
        let whole = unsafe { bpf_xdp_get_buff_len(self.context) };
        let here = (self.end as usize).wrapping_sub(self.start as usize);
        (whole == here as u64).then_some(here)
    }

    #[inline(always)]
    fn write<const N: usize>(&mut self, offset: usize, bytes: [u8; N]) -> Option<()> {
        let to = self.at(offset, N)?;
        // SAFETY: `to..to + N` lies in the frame, which only this program reads and writes;
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
        // SAFETY: as in `length`. The kernel refuses impossible lengths. The call invalidates pointers into the
        // frame, so this frame is made empty.
        let refused = unsafe { bpf_xdp_adjust_tail(self.context, more) };
        self.end = self.start;
        (refused == 0).then_some(())
    }
}
