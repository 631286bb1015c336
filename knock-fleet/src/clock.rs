//! The clock of this host that also counts while it is suspended.

use nix::time::{ClockId, clock_gettime};

/// Returns the milliseconds of `CLOCK_BOOTTIME`.
pub(crate) fn now_ms() -> u64 {
    // Every kernel has this clock, so there is no error.
    let time = clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(0, |time| {
        time.tv_sec()
            .saturating_mul(1_000)
            .saturating_add(time.tv_nsec() / 1_000_000)
    });
    u64::try_from(time).unwrap_or_default()
}
