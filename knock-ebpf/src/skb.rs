//! Reads packets at TC ingress, where the network stack has them in socket buffers.
//!
//! Nothing here writes through a pointer into a packet. A program that does so anywhere makes the kernel copy the head
//! of each cloned packet before the program starts, also where it only reads (`bpf_unclone_prologue`).

use core::hint;

use aya_ebpf::{
    bindings::{__sk_buff, bpf_hdr_start_off::BPF_HDR_START_NET},
    helpers::{bpf_skb_load_bytes, bpf_skb_load_bytes_relative, bpf_skb_pull_data},
    programs::TcContext,
};
use knock_common::{
    Bytes, Env as _,
    bare::{Bare, ETHERTYPE_IPV4, ETHERTYPE_IPV6},
    layout::Features,
    packet::Protocol,
};

use crate::{
    current::{Current, LOOPBACK_IFINDEX, OFFSET_MAX},
    maps::Maps,
};

/// The offset of the EtherType in a frame.
const ETHERTYPE: usize = 12;
const ETHERNET_HEADER: usize = 14;
const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
/// What is read behind the IP header of a TCP segment: its header.
const SEGMENT: usize = 20;
/// What is read behind the IP header of a datagram: its header, and a packet of single packet authorization.
const DATAGRAM: usize = 8 + 72;
/// The part of a packet with other headers that is made contiguous; usual chains of headers take less.
const PULLED_MOST: u32 = 2048;
/// The greatest length of a link header, a mask; no device has as long a header.
const LINK_MOST: u32 = 0xff;
/// Lengths of link headers: none, Ethernet, and GRE in IPv4 without and with a key.
const LINKS: [u32; 4] = [0, 14, 24, 28];
/// `PACKET_BROADCAST` and `PACKET_MULTICAST` (`linux/if_packet.h`).
const GROUPS: [u32; 2] = [1, 2];

/// A packet in a socket buffer: an Ethernet frame, or a packet that begins with its IP header if it is `BARE`.
pub(crate) struct Packet<const BARE: bool> {
    start: *const u8,
    end: *const u8,
    context: *mut __sk_buff,
}

impl<const BARE: bool> Current for Packet<BARE> {
    type Context = __sk_buff;

    #[inline(always)]
    fn of(context: *mut __sk_buff) -> Self {
        Self::behind(link_length::<BARE>(context).unwrap_or(0), context)
    }

    #[inline(always)]
    fn context(&self) -> *mut __sk_buff {
        self.context
    }

    #[inline(always)]
    fn copy(context: *mut __sk_buff, offset: u32, to: &mut [u8]) -> bool {
        let link = link_length::<BARE>(context).unwrap_or(0);
        let (to, length) = (to.as_mut_ptr().cast(), to.len() as u32);
        // SAFETY: the kernel passed this context to this run of the program, and `to` has room for `length` bytes.
        let failed =
            unsafe { bpf_skb_load_bytes(context.cast(), offset.wrapping_add(link), to, length) };
        failed == 0
    }
}

/// Returns the length of what precedes the packet; `None` if it is unknown, and then the packet must be dropped.
///
/// Most devices without Ethernet put nothing there. Those of IPsec leave the header of the frame that carried the
/// packet (`xfrm_interface`), and a GRE device without a remote address leaves the outer headers
/// (`ipgre_header_ops`).
#[inline(always)]
pub(crate) fn link_length<const BARE: bool>(context: *mut __sk_buff) -> Option<u32> {
    if !BARE {
        return Some(0);
    }
    // SAFETY: the kernel passed this context to this run of the program.
    let skb = unsafe { &*context };
    // The kernel counts the length without the link header before it calls the program (`sch_handle_ingress`). For a
    // packet that GRO has merged, newer kernels count more.
    let link = match skb.gso_size {
        0 => skb.len.wrapping_sub(skb.wire_len),
        _ => find_link(context) as u32,
    };
    (link <= LINK_MOST).then_some(link)
}

/// Finds the length of the link header by comparing the first octets with those of the IP header; more than
/// [`LINK_MOST`] if it is unknown.
///
/// It is a subprogram because each other one that reads such a packet needs it, and hardly a packet does.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn find_link(context: *mut __sk_buff) -> u64 {
    let mut header = [0_u64; 2];
    let size = size_of_val(&header) as u32;
    let to = header.as_mut_ptr().cast();
    // SAFETY: as in `link_length`; `to` has room for `size` bytes.
    let failed =
        unsafe { bpf_skb_load_bytes_relative(context.cast(), 0, to, size, BPF_HDR_START_NET) };
    if failed != 0 {
        return u64::MAX;
    }
    for link in LINKS {
        let mut here = [0_u64; 2];
        let to = here.as_mut_ptr().cast();
        // SAFETY: likewise.
        let failed = unsafe { bpf_skb_load_bytes(context.cast(), link, to, size) };
        let pairs = here.iter().zip(&header);
        let differing = pairs.fold(0, |bits, (here, there)| bits | here ^ there);
        if failed == 0 && differing == 0 {
            return link.into();
        }
    }
    u64::MAX
}

impl<const BARE: bool> Packet<BARE> {
    /// Returns the packet of a context with its headers in one piece: drivers and GRO leave the rest of a packet in
    /// pages, which pointers can't reach. `None` if it is unknown where the packet begins: an XDP program behind the
    /// driver may have left the packet without the length of its link header (`skb_pp_cow_data`).
    #[inline(always)]
    pub(crate) fn contiguous(context: *mut __sk_buff) -> Option<Self> {
        let packet = Self::behind(link_length::<BARE>(context)?, context);
        let here = (packet.end as usize).wrapping_sub(packet.start as usize) as u32;
        // SAFETY: as in `link_length`.
        let length = unsafe { (*context).len };
        if here < length && !packet.has_headers() {
            // SAFETY: likewise. Pointers into the packet are invalid afterwards, and not used.
            unsafe { bpf_skb_pull_data(context, length.min(PULLED_MOST)) };
            return Some(Self::of(context)).filter(Self::is_whole);
        }
        Some(packet).filter(Self::is_whole)
    }

    /// Returns whether the packet begins where the kernel says that it does.
    #[inline(always)]
    fn is_whole(&self) -> bool {
        // SAFETY: as in `link_length`.
        let protocol = u16::from_be(unsafe { (*self.context).protocol } as u16);
        let is_ip = protocol == ETHERTYPE_IPV4 || protocol == ETHERTYPE_IPV6;
        BARE || !is_ip || self.be16(ETHERTYPE) == Some(protocol)
    }

    /// Returns the packet behind a link header of this length, at most [`LINK_MOST`].
    #[inline(always)]
    fn behind(link: u32, context: *mut __sk_buff) -> Self {
        let skb = TcContext::new(context);
        let mut start = skb.data() as *const u8;
        if BARE {
            // LLVM knows the range already and would leave the mask out, by which the verifier knows it.
            start = start.wrapping_add((hint::black_box(link) & LINK_MOST) as usize);
        }
        Self {
            start,
            end: skb.data_end() as *const u8,
            context,
        }
    }

    /// Returns whether the packet has the usual headers, and pointers reach all of them.
    #[inline(always)]
    fn has_headers(&self) -> bool {
        let (link, ethertype) = match self.bare() {
            Some(bare) => (0, bare.ethertype),
            None => (ETHERNET_HEADER, self.be16(ETHERTYPE).unwrap_or_default()),
        };
        let (length, protocol) = match (ethertype, self.u8(link)) {
            (ETHERTYPE_IPV4, Some(0x45)) => (IPV4_HEADER, self.u8(link.wrapping_add(9))),
            (ETHERTYPE_IPV6, Some(_)) => (IPV6_HEADER, self.u8(link.wrapping_add(6))),
            _ => return false,
        };
        let more = match protocol.and_then(Protocol::from_number) {
            Some(Protocol::Tcp) => SEGMENT,
            Some(Protocol::Udp) if Maps::new().features().has(Features::SPA) => DATAGRAM,
            Some(Protocol::Udp) => 8,
            None => return false,
        };
        self.at(link.wrapping_add(length), more).is_some()
    }

    /// Returns the address of `length` bytes at `offset`; `None` if what pointers reach ends before.
    #[inline(always)]
    fn at(&self, offset: usize, length: usize) -> Option<*const u8> {
        if offset > OFFSET_MAX {
            return None;
        }
        let from = self.start.wrapping_add(offset);
        (from.wrapping_add(length) <= self.end).then_some(from)
    }
}

impl<const BARE: bool> Bytes for Packet<BARE> {
    #[inline(always)]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        let from = self.at(offset, N)?;
        // SAFETY: `from..from + N` lies in the packet; byte arrays have alignment 1.
        Some(unsafe { from.cast::<[u8; N]>().read() })
    }

    #[inline(always)]
    fn words<const N: usize>(&self, offset: usize) -> Option<[u16; N]> {
        let from = self.at(offset, size_of::<[u16; N]>())?;
        // SAFETY: `from..from + 2 * N` lies in the packet; BPF's loads need no alignment.
        Some(unsafe { from.cast::<[u16; N]>().read_unaligned() })
    }

    /// Reads from the socket buffer what the device states.
    #[inline(always)]
    fn bare(&self) -> Option<Bare> {
        if !BARE {
            return None;
        }
        // SAFETY: as in `link_length`.
        let skb = unsafe { &*self.context };
        Some(Bare {
            ethertype: u16::from_be(skb.protocol as u16),
            unicast: !GROUPS.contains(&skb.pkt_type),
        })
    }

    #[inline(always)]
    fn interface(&self) -> u32 {
        // SAFETY: as in `link_length`.
        unsafe { (*self.context).ifindex }
    }

    #[inline(always)]
    fn is_looped(&self) -> bool {
        self.interface() == LOOPBACK_IFINDEX
    }
}
