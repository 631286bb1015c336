//! Telling user space.

use aya_ebpf::{btf_maps::RingBuf, macros::btf_map};
use knock_common::{event::Event, layout::EVENTS_BYTES};

#[btf_map]
static EVENTS: RingBuf<Event, { EVENTS_BYTES as usize }> = RingBuf::new();

/// Puts an event into the ring buffer; `false` if it is full.
#[inline(always)]
pub(crate) fn emit(event: &Event) -> bool {
    let Some(mut entry) = EVENTS.reserve(0) else {
        return false;
    };
    entry.write(*event);
    entry.submit(0);
    true
}

/// Helpers such as `bpf_ktime_get_boot_ns` ask for a licence compatible with the GPL.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
