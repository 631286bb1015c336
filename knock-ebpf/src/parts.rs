//! Parts of the decision that the verifier walks once each, not once at every place they are
//! called from (BPF global functions). The fast path calls none of them.

use knock_common::{
    Reason,
    access::{self, Completed},
    event::{self, What},
    first, hint, knock,
    otp::{self, Bound, Place},
    sha1::{self, Work},
    visit::Visit,
};

use crate::maps::{self, Maps};

/// What a part returns without its argument. The verifier takes a pointer argument for possibly
/// null; our callers never pass null.
const NO_ARGUMENT: u64 = Reason::NotBegun as u64;

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn recall_first(bucket: u32, tag: u64) -> u64 {
    first::recall_cell(&Maps, bucket, tag)
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn forget_first(bucket: u32, tag: u64) -> u64 {
    first::forget_cell(&Maps, bucket, tag);
    0
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn remember_first(bucket: u32, cell: u64, horizon_ticks: u32) -> u64 {
    first::remember_cell(&Maps, bucket, cell, horizon_ticks)
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn raise_hint(slot: u32, floor: u64) -> u64 {
    hint::raise_slot(&Maps, slot, floor);
    0
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn tell(visit: *const Visit, what: u64, until_ms: u64) -> u64 {
    // SAFETY: the caller's visit, alive during the call, or null.
    if let Some(visit) = unsafe { visit.as_ref() } {
        event::tell(&Maps, visit, What::from_word(what), until_ms);
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
        access::use_door(&Maps, visit, completed) as u64
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
pub(crate) extern "C" fn bound(visit: *const Visit, place: u64) -> u64 {
    let none = Bound::NONE.to_word();
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
    otp::bound(&Maps, visit, place, scratch, compress).to_word()
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn advance(visit: *const Visit, first: u32, bound: u64) -> u64 {
    // SAFETY: the caller's visit, alive during the call, or null.
    let visit = unsafe { visit.as_ref() };
    visit.map_or(NO_ARGUMENT, |visit| {
        knock::advance(&Maps, visit, first, Bound::from_word(bound)).to_word()
    })
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn reset(visit: *const Visit, cause: u64) -> u64 {
    // SAFETY: the caller's visit, alive during the call, or null.
    let visit = unsafe { visit.as_ref() };
    visit.map_or(NO_ARGUMENT, |visit| {
        knock::reset(&Maps, visit, reason(cause)) as u64
    })
}

/// The reason with a number that came through a register.
#[inline(always)]
pub(crate) fn reason(code: u64) -> Reason {
    Reason::from_code(code as u8).unwrap_or(Reason::NotBegun)
}
