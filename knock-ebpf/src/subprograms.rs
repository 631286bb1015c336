//! BPF global functions: the verifier walks each of them once and on its own, not at each call. The fast path calls
//! none of them.

use core::ptr;

use aya_ebpf::{
    bindings::{xdp_action, xdp_md},
    programs::XdpContext,
};
use aya_log_common::Level;
use aya_log_ebpf::log;
use knock_common::{
    GrantPrefix, Reason, access, answer, claim,
    connection::Connection,
    cookie, door, emit,
    event::EventHead,
    first, from,
    grant::{Completed, Grant, GrantChange},
    knock, lockout, otp,
    packet_info::PacketInfo,
    presence,
    reason::Reporting,
    sha1::{self, Sha1Work},
    sha256,
    source_knocks::{OtpPosition, SourceKnocks},
    spa::{self, gate, layout::SpaScratch, step::SpaStep},
};

use crate::{
    current::Current as _,
    frame::Frame,
    maps::{self, Maps},
};

/// The result of a subprogram whose argument is null. The verifier assumes that pointer arguments may be null;
/// callers here never pass null.
const NO_ARGUMENT: u64 = Reason::OutOfSequence as u64;

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn claim(slot: u32) -> u64 {
    claim::take(&Maps::new(), slot)
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn forget_first(bucket: u32, tag: u64) -> u64 {
    first::forget_cell(&Maps::new(), bucket, tag);
    0
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn remember_first(bucket: u32, cell: u64, attempt_max_ticks: u32) -> u64 {
    first::remember_cell(&Maps::new(), bucket, cell, attempt_max_ticks)
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn is_locked_out(info: *const PacketInfo) -> u64 {
    // SAFETY: the caller's `PacketInfo`, which lives during the call, or null.
    let info = unsafe { info.as_ref() };
    info.is_some_and(|info| lockout::is_locked_out(&Maps::new(), info))
        .into()
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn place_failures(info: *const PacketInfo) -> u64 {
    // SAFETY: the caller's `PacketInfo`, which lives during the call, or null.
    let info = unsafe { info.as_ref() };
    info.map_or(u64::MAX, |info| lockout::place_word(&Maps::new(), info))
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn count_failure(bucket: u32, tag: u32, now_ms: u64) -> u64 {
    lockout::count_once(&Maps::new(), bucket, tag, now_ms).into()
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn rank_failures(cell: u64, tag: u32, now_ms: u64) -> u64 {
    lockout::rank(&Maps::new(), cell, tag, now_ms)
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn raise_presence(slot: u32, floor: u64) -> u64 {
    presence::raise_slot(&Maps::new(), slot, floor);
    0
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn hand_over(info: *const PacketInfo, head: u64, until_ms: u64) -> u64 {
    // SAFETY: the caller's `PacketInfo`, which lives during the call, or null.
    if let Some(info) = unsafe { info.as_ref() } {
        emit::hand_over(&Maps::new(), info, EventHead::from_word(head), until_ms);
    }
    0
}

/// Returns the word of the grant; 0 if there is none. `grant_prefix` is a `GrantPrefix` as a word.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn find_prefix_grant(
    info: *const PacketInfo,
    port_group: u16,
    grant_prefix: u32,
) -> u64 {
    // SAFETY: the caller's `PacketInfo`, which lives during the call, or null.
    let info = unsafe { info.as_ref() };
    let grant_prefix = GrantPrefix::from_word(grant_prefix);
    let grant = info
        .and_then(|info| access::find_prefix_grant(&Maps::new(), info, port_group, grant_prefix));
    grant.map_or(0, Grant::to_word)
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn change_grants(info: *const PacketInfo, entry: u16, change: u64) -> u64 {
    let change = GrantChange::from_word(change);
    // SAFETY: the caller's `PacketInfo`, which lives during the call, or null.
    let info = unsafe { info.as_ref() };
    info.map_or(NO_ARGUMENT, |info| {
        door::change_grants(&Maps::new(), info, entry, change) as u64
    })
}

/// Calls [`from::admits`]; `is_spa` is 0 or 1.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn admits_source(info: *const PacketInfo, door: u16, is_spa: u32) -> u64 {
    // SAFETY: the caller's `PacketInfo`, which lives during the call, or null.
    let info = unsafe { info.as_ref() };
    info.is_some_and(|info| from::admits(&Maps::new(), info, door, is_spa != 0))
        .into()
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn use_door(
    info: *const PacketInfo,
    entry: u16,
    stage: u8,
    elapsed: u32,
) -> u64 {
    let completed = Completed {
        entry,
        stage,
        elapsed,
    };
    // SAFETY: the caller's `PacketInfo`, which lives during the call, or null.
    let info = unsafe { info.as_ref() };
    info.map_or(NO_ARGUMENT, |info| {
        door::use_door(&Maps::new(), info, completed) as u64
    })
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn compress(work: *mut Sha1Work) -> u64 {
    // SAFETY: the caller's `Sha1Work`, which only this function uses during the call, or null.
    if let Some(work) = unsafe { work.as_mut() } {
        sha1::compress(work);
    }
    0
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn compress_sha256(work: *mut sha256::Sha256Work) -> u64 {
    // SAFETY: the caller's `Sha1Work`, which only this function uses during the call, or null.
    if let Some(work) = unsafe { work.as_mut() } {
        sha256::compress(work);
    }
    0
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn source_knocks(info: *const PacketInfo, position: u64) -> u64 {
    let none = SourceKnocks::NONE.to_word();
    // SAFETY: the caller's `PacketInfo`, which lives during the call, or null.
    let Some(info) = (unsafe { info.as_ref() }) else {
        return none;
    };
    let Some(scratch) = maps::scratch() else {
        return none;
    };
    let compress = |work: &mut Sha1Work| {
        compress(work);
    };
    let position = OtpPosition::from_word(position);
    otp::source_knocks(&Maps::new(), info, position, scratch, compress).to_word()
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn advance(info: *const PacketInfo, first: u32, source_knocks: u64) -> u64 {
    // SAFETY: the caller's `PacketInfo`, which lives during the call, or null.
    let info = unsafe { info.as_ref() };
    info.map_or(NO_ARGUMENT, |info| {
        knock::advance(
            &Maps::new(),
            info,
            first,
            SourceKnocks::from_word(source_knocks),
        )
        .to_word()
    })
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn reset(info: *const PacketInfo, cause: u64) -> u64 {
    // SAFETY: the caller's `PacketInfo`, which lives during the call, or null.
    let info = unsafe { info.as_ref() };
    info.map_or(NO_ARGUMENT, |info| {
        knock::reset(&Maps::new(), info, reason(cause)) as u64
    })
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn cookie(connection: *const Connection, epoch: u32) -> u64 {
    // SAFETY: the caller's `Connection`, which lives during the call, or null.
    let connection = unsafe { connection.as_ref() };
    connection.map_or(0, |connection| {
        cookie::in_epoch(&Maps::new(), connection, epoch).into()
    })
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn pass(scratch: *mut SpaScratch, gate: u32) -> u64 {
    // SAFETY: the caller's `SpaScratch`, which only this function uses during the call, or null.
    let scratch = unsafe { scratch.as_mut() };
    let has_passed = scratch.is_some_and(|scratch| gate::pass(&Maps::new(), scratch, gate));
    has_passed.into()
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn open_spa(scratch: *mut SpaScratch) -> u64 {
    // SAFETY: as in `pass`.
    let Some(scratch) = (unsafe { scratch.as_mut() }) else {
        return SpaStep::NotSpa.to_word();
    };
    let compress = |work: &mut sha256::Sha256Work| {
        compress_sha256(work);
    };
    spa::judge::open(&Maps::new(), scratch, compress).to_word()
}

/// The result of a subprogram that refuses nothing: above all numbers of reasons.
const NOT_REFUSED: u64 = 1 << 8;

/// Reads the reason to refuse a packet from a register.
#[inline(always)]
pub(crate) fn refused(code: u64) -> Option<Reason> {
    (code != NOT_REFUSED).then(|| reason(code))
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn refuse_early(scratch: *mut SpaScratch) -> u64 {
    // SAFETY: as in `pass`.
    let Some(scratch) = (unsafe { scratch.as_mut() }) else {
        return NO_ARGUMENT;
    };
    let refused = spa::judge::refuse_early(&Maps::new(), scratch);
    refused.map_or(NOT_REFUSED, |reason| reason as u64)
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn record_stamp(scratch: *mut SpaScratch) -> u64 {
    // SAFETY: as in `pass`.
    let Some(scratch) = (unsafe { scratch.as_mut() }) else {
        return NO_ARGUMENT;
    };
    let refused = spa::judge::record_stamp(&Maps::new(), scratch);
    refused.map_or(NOT_REFUSED, |reason| reason as u64)
}

/// Writes the answer to a SPA packet; `code` is the number of a `Reason`.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn write_spa_answer(scratch: *mut SpaScratch, code: u32) -> u64 {
    // SAFETY: as in `pass`.
    let Some(scratch) = (unsafe { scratch.as_mut() }) else {
        return 0;
    };
    let compress = |work: &mut sha256::Sha256Work| {
        compress_sha256(work);
    };
    let reason = reason(code.into());
    spa::answer::write(&Maps::new(), scratch, reason, compress).into()
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn seal_spa_answer(scratch: *mut SpaScratch) -> u64 {
    let compress = |work: &mut sha256::Sha256Work| {
        compress_sha256(work);
    };
    // SAFETY: as in `pass`.
    if let Some(scratch) = unsafe { scratch.as_mut() } {
        spa::answer::seal(&Maps::new(), scratch, compress);
    }
    0
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn allow_spa(scratch: *mut SpaScratch) -> u64 {
    // SAFETY: as in `pass`.
    let Some(scratch) = (unsafe { scratch.as_mut() }) else {
        return SpaStep::NotSpa.to_word();
    };
    spa::judge::allow(&Maps::new(), scratch).to_word()
}

/// Turns the packet into the answer that was left for it, and sends it; drops a packet without an answer.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn answer(context: *mut xdp_md) -> u32 {
    let sent = maps::take_answer().and_then(|answer| {
        let words = maps::spa_answer()?;
        answer::rewrite_with(&mut Frame::<false>::of(context), answer, words)
    });
    match sent {
        Some(()) => xdp_action::XDP_TX,
        None => xdp_action::XDP_DROP,
    }
}

/// Numbers of reasons, rounded up to a power of two, so that a mask keeps an index below it.
const REASONS: usize = 64;
/// The most characters of a reason's name, rounded up likewise.
const NAME: usize = 32;

/// The text of a reason for the log.
#[derive(Clone, Copy)]
struct LogText {
    name: [u8; NAME],
    length: usize,
    is_reported: bool,
}

/// The texts by number of the reason. With `Reason::name` the verifier would walk the log once for each reason, since
/// each name has another place and length.
static LOG_TEXTS: [LogText; REASONS] = {
    let mut texts = [LogText {
        name: [0; NAME],
        length: 0,
        is_reported: false,
    }; REASONS];
    let mut code = 0;
    while code < REASONS {
        if let Some(reason) = Reason::from_code(code as u8) {
            let name = reason.name().as_bytes();
            let mut at = 0;
            while at < name.len() {
                texts[code].name[at] = name[at];
                at += 1;
            }
            texts[code].length = name.len();
            texts[code].is_reported = !matches!(reason.reporting(), Reporting::Never);
        }
        code += 1;
    }
    texts
};

/// Logs a reason, for `-v`. `code` is the number of a `Reason`.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn log_reason(code: u32) -> u64 {
    let Some(text) = LOG_TEXTS.get(code as usize & (REASONS - 1)) else {
        return 0;
    };
    let name = text
        .name
        .get(..text.length & (NAME - 1))
        .unwrap_or_default();
    // SAFETY: these are the octets of a name, which is ASCII.
    let name = unsafe { str::from_utf8_unchecked(name) };
    let level = match text.is_reported {
        true => Level::Debug,
        false => Level::Trace,
    };
    // The log takes a context and does not use it, so the caller would pass none that the verifier accepts.
    let context = XdpContext::new(ptr::null_mut());
    log!(&context, level, "{}", name);
    0
}

/// Reads the number of a reason from a register.
#[inline(always)]
pub(crate) fn reason(code: u64) -> Reason {
    Reason::from_code(code as u8).unwrap_or(Reason::OutOfSequence)
}
