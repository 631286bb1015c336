//! The XDP program: calls `knock_common::judge` for each packet, and carries out its decision.
#![no_std]
#![no_main]
#![feature(core_intrinsics)]
#![expect(
    internal_features,
    reason = "the BPF target has no `AtomicU64::compare_exchange`"
)]

mod calls;
mod frame;
mod fwknop;
mod maps;
mod subprograms;

use aya_ebpf::{
    EbpfContext as _,
    bindings::{TC_ACT_SHOT, xdp_action},
    macros::{classifier, xdp},
    programs::{TcContext, XdpContext},
};
use knock_common::{Bytes as _, Env as _, decide, judge::FrameAction, layout::Features};

use crate::{frame::Frame, maps::Maps};

/// Judges one packet.
#[xdp(frags)]
#[inline(always)]
fn knock(context: XdpContext) -> u32 {
    let frame = Frame::of(&context);
    let maps = Maps::for_frame(frame.interface());
    let judgement = decide(&frame, &maps);
    let reason = judgement.reason;
    maps::count(reason as u32);
    if maps.features().has(Features::LOG) {
        subprograms::log_reason(reason as u32);
    }
    match judgement.action(maps.features()) {
        FrameAction::Pass => xdp_action::XDP_PASS,
        FrameAction::Drop => xdp_action::XDP_DROP,
        FrameAction::Answer => subprograms::answer(context.as_ptr().cast()),
    }
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
