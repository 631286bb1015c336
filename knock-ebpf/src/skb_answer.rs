//! Rewrites packets at TC ingress as their answers, and sends them back.

use aya_ebpf::{
    bindings::{__sk_buff, BPF_F_RECOMPUTE_CSUM, TC_ACT_SHOT},
    helpers::{
        bpf_l4_csum_replace, bpf_redirect, bpf_skb_change_tail, bpf_skb_load_bytes,
        bpf_skb_store_bytes,
    },
};
use knock_common::{
    Bytes,
    answer::{self, Reflect},
    bare::Bare,
    packet,
    repliable::Repliable,
};

use crate::{
    current::{Current as _, OFFSET_MAX},
    maps,
    skb::{Packet, link_length},
};

/// No link header is as long that contains no IP header.
const IPV4_HEADER: u32 = 20;

/// Sends the answer to a frame; see [`send`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn answer_tc(context: *mut __sk_buff) -> u32 {
    send::<false>(context)
}

/// Sends the answer to a packet without an Ethernet header; see [`send`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn answer_ip(context: *mut __sk_buff) -> u32 {
    send::<true>(context)
}

/// Turns the packet into the answer that was left for it, and sends it through the device that received it; drops a
/// packet without an answer. Returns the action of the classifier.
#[inline(always)]
fn send<const BARE: bool>(context: *mut __sk_buff) -> u32 {
    let sent = maps::take_answer().and_then(|answer| {
        let words = maps::spa_answer()?;
        // A GRE device without a remote address would take the answer for the header that it expects (`ipgre_xmit`).
        let link = link_length::<BARE>(context).filter(|link| *link < IPV4_HEADER)?;
        let mut copied = Copied::<BARE> { link, context };
        let (network, v6) = if BARE {
            packet::network(&copied)?
        } else {
            from_word(find_network(context))?
        };
        let repliable = Repliable::read(&copied, network, v6)?;
        answer::rewrite_found(&mut copied, &repliable, answer, words)
    });
    if sent.is_none() {
        return TC_ACT_SHOT as u32;
    }
    // SAFETY: the kernel passed this context to this run of the program.
    let device = unsafe { (*context).ifindex };
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_redirect(device, 0) as u32 }
}

/// Finds the IP header of a frame: returns twice its offset, or one more for IPv6; `u64::MAX` if there is none.
///
/// It is a subprogram because the verifier would walk the rewriting for each number of VLAN tags.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn find_network(context: *mut __sk_buff) -> u64 {
    match packet::network(&Packet::<false>::of(context)) {
        Some((network, v6)) => (network as u64) << 1 | u64::from(v6),
        None => u64::MAX,
    }
}

/// Reads what [`find_network`] returns.
#[inline(always)]
const fn from_word(word: u64) -> Option<(usize, bool)> {
    let network = (word >> 1) as usize;
    if network > OFFSET_MAX {
        return None;
    }
    Some((network, word & 1 != 0))
}

/// A packet that is read and written by helpers, so that no packet that is only judged has to be writable.
struct Copied<const BARE: bool> {
    /// The length of what precedes it.
    link: u32,
    context: *mut __sk_buff,
}

impl<const BARE: bool> Copied<BARE> {
    #[inline(always)]
    fn place(&self, offset: usize) -> u32 {
        self.link.wrapping_add(offset as u32)
    }

    #[inline(always)]
    fn store<const N: usize>(&mut self, offset: usize, bytes: [u8; N], flags: u64) -> Option<()> {
        let from = bytes.as_ptr().cast();
        // SAFETY: the kernel passed this context to this run of the program; `from` has `N` bytes.
        let failed =
            unsafe { bpf_skb_store_bytes(self.context, self.place(offset), from, N as u32, flags) };
        (failed == 0).then_some(())
    }
}

impl<const BARE: bool> Bytes for Copied<BARE> {
    #[inline(always)]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        let (to, length) = (bytes.as_mut_ptr().cast(), N as u32);
        // SAFETY: the kernel passed this context to this run of the program; `to` has room for `length` bytes.
        let failed =
            unsafe { bpf_skb_load_bytes(self.context.cast(), self.place(offset), to, length) };
        (failed == 0).then_some(bytes)
    }

    #[inline(always)]
    fn words<const N: usize>(&self, offset: usize) -> Option<[u16; N]> {
        let mut words = [0_u16; N];
        let (to, length) = (words.as_mut_ptr().cast(), size_of::<[u16; N]>() as u32);
        // SAFETY: as in `read`.
        let failed =
            unsafe { bpf_skb_load_bytes(self.context.cast(), self.place(offset), to, length) };
        (failed == 0).then_some(words)
    }

    #[inline(always)]
    fn bare(&self) -> Option<Bare> {
        Packet::<BARE>::of(self.context).bare()
    }
}

impl<const BARE: bool> Reflect for Copied<BARE> {
    #[inline(always)]
    fn length(&self) -> Option<usize> {
        // SAFETY: as in `read`.
        let length = unsafe { (*self.context).len };
        Some(length.wrapping_sub(self.link) as usize)
    }

    #[inline(always)]
    fn write<const N: usize>(&mut self, offset: usize, bytes: [u8; N]) -> Option<()> {
        self.store(offset, bytes, u64::from(BPF_F_RECOMPUTE_CSUM))
    }

    /// Finds out by a change of the checksum. The helper leaves it alone if the checksum is pending
    /// (`inet_proto_csum_replace_by_diff`), which no program can see: so it is in packets of senders on this machine.
    #[inline(always)]
    fn is_checksum_pending(&mut self, offset: usize) -> Option<bool> {
        let whole: [u8; 2] = self.read(offset)?;
        // SAFETY: as in `read`.
        let failed = unsafe { bpf_l4_csum_replace(self.context, self.place(offset), 0, 1, 0) };
        if failed != 0 {
            return None;
        }
        if self.read::<2>(offset)? == whole {
            return Some(true);
        }
        // The helper has not changed the sum that a device may have computed over the frame.
        self.store(offset, whole, 0)?;
        Some(false)
    }

    #[inline(always)]
    fn cut(&mut self, length: usize) -> Option<()> {
        // SAFETY: as in `read`. The kernel refuses impossible lengths, and one that ends before the transport header of
        // a sender on this machine: such a packet with long options has no answer.
        let refused = unsafe { bpf_skb_change_tail(self.context, self.place(length), 0) };
        (refused == 0).then_some(())
    }
}
