//! The XDP program: reads packets and maps, asks `knock_common::judge`, and does what it says.
#![no_std]
#![no_main]
#![feature(core_intrinsics)]
#![expect(
    internal_features,
    reason = "the BPF target has no `AtomicU64::compare_exchange`"
)]

mod frame;
mod maps;
mod subprograms;

use aya_ebpf::{
    EbpfContext as _,
    bindings::{TC_ACT_SHOT, xdp_action},
    macros::{classifier, xdp},
    programs::{TcContext, XdpContext},
};
use aya_log_common::Level;
use aya_log_ebpf::log;
use knock_common::{Bytes as _, Env as _, Verdict, decide, layout::Features, reason::Reporting};

use crate::{frame::Frame, maps::Maps};

/// Judges one packet.
#[xdp(frags)]
#[inline(always)]
fn knock(context: XdpContext) -> u32 {
    let maps = Maps::new();
    let frame = Frame::of(&context);
    maps::note(frame.interface());
    let judgement = decide(&frame, &maps);
    let reason = judgement.reason;
    maps::count(reason as u32);
    if maps.features().has(Features::LOG) {
        let level = match reason.reporting() {
            Reporting::Never => Level::Trace,
            Reporting::Drops | Reporting::Knocks | Reporting::Always => Level::Debug,
        };
        log!(&context, level, "{}", reason.name());
    }
    match judgement.verdict() {
        Verdict::Pass => xdp_action::XDP_PASS,
        _ if maps.features().has(Features::DRY_RUN) => xdp_action::XDP_PASS,
        // A sequence that is complete may have an answer too.
        _ if maps.features().has(Features::ANSWERS) => subprograms::answer(context.as_ptr().cast()),
        Verdict::Drop | Verdict::Answer => xdp_action::XDP_DROP,
    }
}

/// Drops whatever comes in behind XDP, for the moment in which no other program can be attached:
/// between native and generic.
#[classifier]
fn knock_barrier(_context: TcContext) -> i32 {
    TC_ACT_SHOT
}

/// Never reached: a panic path that survives is rejected by the verifier.
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// Helpers such as `bpf_ktime_get_boot_ns` ask for a licence compatible with the GPL.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
