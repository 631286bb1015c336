//! Reads packets at XDP, and rewrites a packet as its answer.

use aya_ebpf::{
    bindings::xdp_md,
    helpers::{bpf_xdp_adjust_tail, bpf_xdp_get_buff_len, bpf_xdp_load_bytes},
    programs::XdpContext,
};
use knock_common::{Bytes, answer::Reflect, bare::Bare};

use crate::current::{Current, LOOPBACK_IFINDEX, OFFSET_MAX};

/// The current frame; if it is `BARE`, a packet that begins with its IP header.
pub(crate) struct Frame<const BARE: bool> {
    start: *const u8,
    end: *const u8,
    context: *mut xdp_md,
}

impl<const BARE: bool> Current for Frame<BARE> {
    type Context = xdp_md;

    #[inline(always)]
    fn of(context: *mut xdp_md) -> Self {
        let xdp = XdpContext::new(context);
        Self {
            start: xdp.data() as *const u8,
            end: xdp.data_end() as *const u8,
            context,
        }
    }

    #[inline(always)]
    fn context(&self) -> *mut xdp_md {
        self.context
    }

    #[inline(always)]
    fn copy(context: *mut xdp_md, offset: u32, to: &mut [u8]) -> bool {
        let (to, length) = (to.as_mut_ptr().cast(), to.len() as u32);
        // SAFETY: the kernel passed this context to this run of the program, and `to` has room for `length` bytes.
        let failed = unsafe { bpf_xdp_load_bytes(context, offset, to, length) };
        failed == 0
    }
}

impl<const BARE: bool> Frame<BARE> {
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

impl<const BARE: bool> Bytes for Frame<BARE> {
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

    /// Derives it from the version of IP, since no program at XDP can see what the device states. The network stack
    /// drops a packet whose version the device contradicts.
    #[inline(always)]
    fn bare(&self) -> Option<Bare> {
        BARE.then(|| Bare::from_version(self.u8(0).unwrap_or_default()))
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

impl Reflect for Frame<false> {
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
