//! XDP programs with which `knock` is compared, and programs that generate packets.
//!
//! None of them is part of the object that is installed.
#![no_std]
#![no_main]
#![feature(core_intrinsics)]
#![expect(
    internal_features,
    reason = "the BPF target has no `AtomicU64::compare_exchange`"
)]

#[expect(dead_code, reason = "the subprograms of knock use the rest")]
#[path = "../../../knock-ebpf/src/current.rs"]
mod current;
mod floor;
#[path = "../../../knock-ebpf/src/frame.rs"]
mod frame;
#[expect(unreachable_pub, reason = "the user side of the bench uses the rest")]
#[path = "../../src/plan.rs"]
mod plan;

use aya_ebpf::{
    bindings::{TC_ACT_UNSPEC, xdp_action},
    btf_maps::{Array, PerCpuArray, ProgramArray},
    helpers::{bpf_ktime_get_ns, bpf_redirect, bpf_xdp_store_bytes},
    macros::{btf_map, classifier, xdp},
    programs::{TcContext, XdpContext},
};
use knock_common::Bytes as _;

use crate::{
    current::Current as _,
    frame::Frame,
    plan::{CHOICES_MAX, PAYLOAD_MAX, PAYLOADS, Plan},
};

/// No field that a plan changes is further in; the verifier needs a bound.
const OFFSET_MAX: usize = 0xff;
/// A generator that was delayed for longer skips what it missed.
const BEHIND_MOST_NS: u64 = 1_000_000;
/// The port that the program protects where it is compared with [`deny`].
const DENIED: u16 = 22;

#[btf_map]
static PLAN: Array<Plan, 1> = Array::new();
#[btf_map]
static CHOICES: Array<u32, { CHOICES_MAX as usize }> = Array::new();
/// Payloads for [`deal`].
#[btf_map]
static DEALT: Array<[u8; PAYLOAD_MAX], { PAYLOADS as usize }> = Array::new();
/// The program that gets the packets of [`jump`], [`vary`] and [`deal`].
#[btf_map]
static SUBJECT: ProgramArray<1> = ProgramArray::new();
/// Frames that [`flood`] sent, by CPU.
#[btf_map]
static SENT: PerCpuArray<u64, 1> = PerCpuArray::new();

/// Returns at once.
#[xdp(frags)]
fn pass(_context: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}

/// Returns at once, at traffic control.
#[classifier]
fn pass_tc(_context: TcContext) -> i32 {
    TC_ACT_UNSPEC
}

/// Returns at once.
#[xdp(frags)]
fn drop(_context: XdpContext) -> u32 {
    xdp_action::XDP_DROP
}

/// Returns at once; for [`jump`], since a program that takes frames of several pages leads only to
/// others of that kind.
#[xdp]
fn plain(_context: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}

/// Returns the least that a packet filter reads: headers up to the ports, to compare one of them. No maps,
/// no state, no extension headers.
#[xdp(frags)]
#[inline(always)]
fn deny(context: XdpContext) -> u32 {
    match port(&Frame::of(context.ctx)) {
        Some(DENIED) => xdp_action::XDP_DROP,
        Some(_) | None => xdp_action::XDP_PASS,
    }
}

/// Returns the destination port, behind as many as two VLAN tags.
#[inline(always)]
fn port(frame: &Frame<false>) -> Option<u16> {
    let mut at = 12;
    let mut ethertype = frame.be16(at)?;
    for _ in 0..2 {
        if !matches!(ethertype, 0x8100 | 0x88a8) {
            break;
        }
        at += 4;
        ethertype = frame.be16(at)?;
    }
    at += 2;
    let (protocol, header) = match ethertype {
        0x0800 => {
            let words = usize::from(frame.u8(at)? & 0x0f);
            (frame.u8(at + 9)?, words * 4)
        }
        0x86dd => (frame.u8(at + 6)?, 40),
        _ => return None,
    };
    match protocol {
        6 | 17 => frame.be16(at + header + 2),
        _ => None,
    }
}

/// Passes the unchanged packet to `xdp-filter`.
#[xdp]
fn jump(context: XdpContext) -> u32 {
    // SAFETY: nothing here has a destructor.
    unsafe { SUBJECT.tail_call(&context, 0) };
    xdp_action::XDP_ABORTED
}

/// Changes the packet by the plan, and passes it on.
#[xdp(frags)]
fn vary(context: XdpContext) -> u32 {
    if change(&context).is_some() {
        // SAFETY: nothing here has a destructor.
        unsafe { SUBJECT.tail_call(&context, 0) };
    }
    xdp_action::XDP_ABORTED
}

/// Gives the packet the next payload, and passes it on.
#[xdp(frags)]
fn deal(context: XdpContext) -> u32 {
    if replace_payload(&context).is_some() {
        // SAFETY: nothing here has a destructor.
        unsafe { SUBJECT.tail_call(&context, 0) };
    }
    xdp_action::XDP_ABORTED
}

#[inline(always)]
fn replace_payload(context: &XdpContext) -> Option<()> {
    let plan = PLAN.get_ptr_mut(0)?;
    // SAFETY: as in `change`.
    let plan = unsafe { &mut *plan };
    let number = plan.next as u32;
    plan.next = plan.next.wrapping_add(1);
    let payload = DEALT.get(number & (PAYLOADS - 1))?;
    // The verifier follows a mask.
    let length = plan.payload_length & (PAYLOAD_MAX as u32 - 1);
    if length == 0 {
        return None;
    }
    // SAFETY: the payload has at least `length` octets; the helper tests the frame.
    let stored = unsafe {
        bpf_xdp_store_bytes(
            context.ctx,
            plan.payload_at,
            payload.as_ptr().cast_mut().cast(),
            length,
        )
    };
    (stored == 0).then_some(())
}

/// Sends what the plan makes of the frame, if it is time.
#[xdp(frags)]
fn flood(context: XdpContext) -> u32 {
    if is_early() {
        return xdp_action::XDP_DROP;
    }
    let Some(link) = change(&context) else {
        return xdp_action::XDP_ABORTED;
    };
    if let Some(sent) = SENT.get_ptr_mut(0) {
        // SAFETY: the pointer is an aligned map value of this CPU alone, and there is no other now.
        let sent = unsafe { &mut *sent };
        *sent = sent.wrapping_add(1);
    }
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_redirect(link, 0) as u32 }
}

/// Returns whether the plan's next frame is not due.
#[inline(always)]
fn is_early() -> bool {
    let Some(plan) = PLAN.get_ptr_mut(0) else {
        return true;
    };
    // SAFETY: as in `change`.
    let plan = unsafe { &mut *plan };
    if plan.gap_ns == 0 {
        return false;
    }
    if plan.left != 0 {
        plan.left = plan.left.wrapping_sub(1);
        return false;
    }
    // SAFETY: the helper has no preconditions.
    let now = unsafe { bpf_ktime_get_ns() };
    if now < plan.due_ns {
        return true;
    }
    // What was missed is not made up for: no generator offers a pause and then everything at once.
    let behind = now.wrapping_sub(plan.due_ns) > BEHIND_MOST_NS;
    let from = if behind { now } else { plan.due_ns };
    plan.due_ns = from.wrapping_add(plan.gap_ns);
    plan.left = plan.burst.wrapping_sub(1);
    false
}

/// Makes the packet the next one of the plan, and returns the interface through which it leaves.
#[inline(always)]
fn change(context: &XdpContext) -> Option<u32> {
    let plan = PLAN.get_ptr_mut(0)?;
    // SAFETY: the pointer is an aligned map value, and only the one thread that runs the test
    // runs these programs.
    let plan = unsafe { &mut *plan };
    let number = plan.next;
    plan.next = number.wrapping_add(1);
    if plan.source_at != 0 {
        let turn = (number >> (plan.turn & 63)) as u32;
        let drawn = match plan.shuffled {
            0 => turn,
            // An odd factor: another number for each number.
            _ => turn.wrapping_mul(0x9e37_79b1),
        };
        let source = plan.first | drawn & plan.sources;
        put(context, plan, plan.source_at, source.to_be_bytes())?;
    }
    if plan.port_at != 0 {
        let choice = *CHOICES.get(number as u32 & plan.ports)?;
        put(context, plan, plan.port_at, (choice as u16).to_be_bytes())?;
    }
    Some(plan.link)
}

/// Overwrites a field and keeps the checksums right.
#[inline(always)]
fn put<const N: usize>(context: &XdpContext, plan: &Plan, at: u32, new: [u8; N]) -> Option<()> {
    let place = pointer::<N>(context, at)?;
    // SAFETY: `pointer` has shown that it lies in the frame; byte arrays have alignment 1.
    let old = unsafe { place.read() };
    // SAFETY: as above.
    unsafe { place.write(new) };
    let change = sum(new).wrapping_add(0xffff * 2).wrapping_sub(sum(old));
    for sum_at in [plan.header_sum_at, plan.payload_sum_at] {
        // A port is not part of the IP header.
        if sum_at == 0 || N == 2 && sum_at == plan.header_sum_at {
            continue;
        }
        let place = pointer::<2>(context, sum_at)?;
        // SAFETY: as above.
        let old = u16::from_be_bytes(unsafe { place.read() });
        // RFC 1624: the checksum is the complement of a sum that `change` is added to.
        let sum = folded(u32::from(!old).wrapping_add(change));
        // SAFETY: as above.
        unsafe { place.write((!sum).to_be_bytes()) };
    }
    Some(())
}

#[inline(always)]
fn pointer<const N: usize>(context: &XdpContext, at: u32) -> Option<*mut [u8; N]> {
    let at = at as usize;
    if at > OFFSET_MAX {
        return None;
    }
    let place = (context.data() as *mut u8).wrapping_add(at);
    if place.wrapping_add(N) > context.data_end() as *mut u8 {
        return None;
    }
    Some(place.cast())
}

/// Returns the sum of the 16-bit words.
#[inline(always)]
fn sum<const N: usize>(octets: [u8; N]) -> u32 {
    let mut sum = 0_u32;
    let mut pairs = octets.chunks_exact(2);
    for pair in &mut pairs {
        if let [high, low] = *pair {
            sum = sum.wrapping_add(u32::from(high) << 8 | u32::from(low));
        }
    }
    sum
}

#[inline(always)]
fn folded(sum: u32) -> u16 {
    let sum = (sum & 0xffff).wrapping_add(sum >> 16);
    (sum & 0xffff).wrapping_add(sum >> 16) as u16
}

/// Loops, and is never reached: the verifier rejects a panic path that survives.
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// The same as that of the measured program: some of the helpers ask for it.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
