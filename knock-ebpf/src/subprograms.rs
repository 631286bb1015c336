//! Parts of the decision that the verifier walks once each, not once at every place they are
//! called from (BPF global functions). The fast path calls none of them.

use aya_ebpf::{
    bindings::{xdp_action, xdp_md},
    programs::XdpContext,
};
use knock_common::{
    Bytes as _, Reason,
    access::{self, Completed},
    answer, claim,
    cookie::{self, Connection},
    event::{self, What},
    first, handshake, knock, lockout,
    otp::{self, Place, SourceKnocks},
    presence, seen,
    sha1::{self, Work},
    visit::Visit,
};

use crate::{
    frame::Frame,
    maps::{self, Maps},
};

/// What a part returns without its argument. The verifier takes a pointer argument for possibly
/// null; our callers never pass null.
const NO_ARGUMENT: u64 = Reason::OutOfSequence as u64;

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn claim(slot: u32) -> u64 {
    claim::take(&Maps::new(), slot)
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn give_back(slot: u32) -> u64 {
    claim::give_back(&Maps::new(), slot)
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn clear_claim(slot: u32) -> u64 {
    claim::clear(&Maps::new(), slot);
    0
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn recall_first(bucket: u32, tag: u64) -> u64 {
    first::recall_cell(&Maps::new(), bucket, tag)
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
pub(crate) extern "C" fn is_locked_out(visit: *const Visit) -> u64 {
    // SAFETY: the caller's visit, alive during the call, or null.
    let visit = unsafe { visit.as_ref() };
    visit
        .is_some_and(|visit| lockout::is_locked_out(&Maps::new(), visit))
        .into()
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn place_failures(visit: *const Visit) -> u64 {
    // SAFETY: the caller's visit, alive during the call, or null.
    let visit = unsafe { visit.as_ref() };
    visit.map_or(u64::MAX, |visit| lockout::place_word(&Maps::new(), visit))
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
pub(crate) extern "C" fn fail(visit: *const Visit) -> u64 {
    // SAFETY: the caller's visit, alive during the call, or null.
    if let Some(visit) = unsafe { visit.as_ref() } {
        lockout::fail(&Maps::new(), visit);
    }
    0
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn raise_presence(slot: u32, floor: u64) -> u64 {
    presence::raise_slot(&Maps::new(), slot, floor);
    0
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn hand_over(visit: *const Visit, what: u64, until_ms: u64) -> u64 {
    // SAFETY: the caller's visit, alive during the call, or null.
    if let Some(visit) = unsafe { visit.as_ref() } {
        event::hand_over(&Maps::new(), visit, What::from_word(what), until_ms);
    }
    0
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn use_door(visit: *const Visit, entry: u16, stage: u8, elapsed: u32) -> u64 {
    let completed = Completed {
        entry,
        stage,
        elapsed,
    };
    // SAFETY: the caller's visit, alive during the call, or null.
    let visit = unsafe { visit.as_ref() };
    visit.map_or(NO_ARGUMENT, |visit| {
        access::use_door(&Maps::new(), visit, completed) as u64
    })
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn compress(work: *mut Work) -> u64 {
    // SAFETY: the caller's work, which nobody else has during the call, or null.
    if let Some(work) = unsafe { work.as_mut() } {
        sha1::compress(work);
    }
    0
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn source_knocks(visit: *const Visit, place: u64) -> u64 {
    let none = SourceKnocks::NONE.to_word();
    // SAFETY: the caller's visit, alive during the call, or null.
    let Some(visit) = (unsafe { visit.as_ref() }) else {
        return none;
    };
    let Some(scratch) = maps::scratch() else {
        return none;
    };
    let compress = |work: &mut Work| {
        compress(work);
    };
    let place = Place::from_word(place);
    otp::source_knocks(&Maps::new(), visit, place, scratch, compress).to_word()
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn advance(visit: *const Visit, first: u32, source_knocks: u64) -> u64 {
    // SAFETY: the caller's visit, alive during the call, or null.
    let visit = unsafe { visit.as_ref() };
    visit.map_or(NO_ARGUMENT, |visit| {
        knock::advance(
            &Maps::new(),
            visit,
            first,
            SourceKnocks::from_word(source_knocks),
        )
        .to_word()
    })
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn reset(visit: *const Visit, cause: u64) -> u64 {
    // SAFETY: the caller's visit, alive during the call, or null.
    let visit = unsafe { visit.as_ref() };
    visit.map_or(NO_ARGUMENT, |visit| {
        knock::reset(&Maps::new(), visit, reason(cause)) as u64
    })
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn cookie(connection: *const Connection, epoch: u32) -> u64 {
    // SAFETY: the caller's connection, alive during the call, or null.
    let connection = unsafe { connection.as_ref() };
    connection.map_or(0, |connection| {
        cookie::in_epoch(&Maps::new(), connection, epoch).into()
    })
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn shake(context: *mut xdp_md) -> u64 {
    handshake::shake(&Frame::of(&XdpContext::new(context)), &Maps::new()) as u64
}

/// Sends the answer that was left for this packet, in its place; what there is none for is dropped.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn answer(context: *mut xdp_md) -> u32 {
    let context = XdpContext::new(context);
    let sent =
        maps::take_answer().and_then(|answer| answer::turn(&mut Frame::of(&context), answer));
    match sent {
        Some(()) => xdp_action::XDP_TX,
        None => xdp_action::XDP_DROP,
    }
}

/// Takes note of a frame that is neither IPv4 nor IPv6.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn note_other(context: *mut xdp_md) -> u64 {
    let frame = Frame::of(&XdpContext::new(context));
    if let Some(ethertype) = seen::foreign_type(&frame) {
        maps::note_foreign(frame.interface(), ethertype);
    }
    0
}

/// The reason with a number that came through a register.
#[inline(always)]
pub(crate) fn reason(code: u64) -> Reason {
    Reason::from_code(code as u8).unwrap_or(Reason::OutOfSequence)
}
