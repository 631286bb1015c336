//! The programs: each calls `knock_common::judge` for each packet, and carries out its decision. Which one an interface
//! gets depends on where it hands over packets, and whether they begin with an Ethernet header.
#![no_std]
#![no_main]
#![feature(core_intrinsics)]
#![expect(
    internal_features,
    reason = "the BPF target has no `AtomicU64::compare_exchange`"
)]

mod calls;
mod current;
mod frame;
mod fwknop;
mod maps;
mod packet_subprograms;
mod skb;
mod skb_answer;
mod subprograms;

use aya_ebpf::{
    bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC, xdp_action},
    macros::{classifier, xdp},
    programs::{TcContext, XdpContext},
};
use knock_common::{
    Env as _, FrameSubprograms, Reason, decide,
    judge::{FrameAction, Judgement},
    layout::Features,
};

use crate::{current::Current as _, frame::Frame, maps::Maps, skb::Packet};

/// Judges one frame of an interface with Ethernet.
#[xdp(frags)]
#[inline(always)]
fn knock(context: XdpContext) -> u32 {
    match judge(&Frame::<false>::of(context.ctx)) {
        FrameAction::Pass => xdp_action::XDP_PASS,
        FrameAction::Drop => xdp_action::XDP_DROP,
        FrameAction::Answer => subprograms::answer(context.ctx),
    }
}

/// Judges one packet of an interface without Ethernet, where the kernel has no TCX links. It sends no answers: behind a
/// generic program the kernel takes other octets at the place of an EtherType for another type
/// (`bpf_prog_run_generic_xdp`).
#[xdp(frags)]
#[inline(always)]
fn knock_bare(context: XdpContext) -> u32 {
    match judge(&Frame::<true>::of(context.ctx)) {
        FrameAction::Pass => xdp_action::XDP_PASS,
        FrameAction::Drop => xdp_action::XDP_DROP,
        FrameAction::Answer => {
            // The next packet on this CPU may have another entry, which would send it.
            let _unsent = maps::take_answer();
            xdp_action::XDP_DROP
        }
    }
}

/// Judges one packet of an interface with Ethernet at TC ingress.
#[classifier]
#[inline(always)]
fn knock_tc(context: TcContext) -> i32 {
    ingress::<false>(context)
}

/// Judges one packet of an interface without Ethernet at TC ingress.
#[classifier]
#[inline(always)]
fn knock_ip(context: TcContext) -> i32 {
    ingress::<true>(context)
}

#[inline(always)]
fn ingress<const BARE: bool>(context: TcContext) -> i32
where
    Packet<BARE>: FrameSubprograms,
{
    let action = match Packet::<BARE>::contiguous(context.skb.skb) {
        Some(packet) => judge(&packet),
        None => conclude(&Maps::new(), Reason::BadHeader.into()),
    };
    match action {
        // Not `TC_ACT_OK`, behind which the kernel runs no other program.
        FrameAction::Pass => TC_ACT_UNSPEC,
        FrameAction::Drop => TC_ACT_SHOT,
        FrameAction::Answer if BARE => skb_answer::answer_ip(context.skb.skb) as i32,
        FrameAction::Answer => skb_answer::answer_tc(context.skb.skb) as i32,
    }
}

/// Judges the current packet.
#[inline(always)]
fn judge<P: FrameSubprograms>(packet: &P) -> FrameAction {
    let maps = Maps::for_frame(packet.interface());
    conclude(&maps, decide(packet, &maps))
}

/// Counts and logs a judgement, and returns what happens to the packet.
#[inline(always)]
fn conclude(maps: &Maps, judgement: Judgement) -> FrameAction {
    let reason = judgement.reason;
    maps::count(reason as u32);
    if maps.features().has(Features::LOG) {
        subprograms::log_reason(reason as u32);
    }
    judgement.action(maps.features())
}

/// Drops each packet behind XDP. It is attached during a change between native and generic mode, when no XDP
/// program can be.
#[classifier]
fn knock_barrier(_context: TcContext) -> i32 {
    TC_ACT_SHOT
}

/// Loops, and is never called: the build refuses objects with a panic path.
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// Helpers such as `bpf_ktime_get_boot_ns` require a licence compatible with the GPL.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
