//! The clock of the kernel side, and what the wall clock says to it.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use nix::time::{ClockId, clock_gettime};

/// Nanoseconds of `CLOCK_BOOTTIME`.
pub fn boot_ns() -> u64 {
    // The only errors of clock_gettime(2) are an unknown clock and a bad pointer.
    let Ok(time) = clock_gettime(ClockId::CLOCK_BOOTTIME) else {
        return 0;
    };
    let seconds = u64::try_from(time.tv_sec()).unwrap_or(0);
    seconds * 1_000_000_000 + u64::try_from(time.tv_nsec()).unwrap_or(0)
}

/// Milliseconds of `CLOCK_BOOTTIME`: the unit in which grants and flows end.
pub fn boot_ms() -> u64 {
    boot_ns() / 1_000_000
}

/// Milliseconds of `CLOCK_BOOTTIME` when this time will have passed.
pub fn boot_ms_after(time: Duration) -> u64 {
    let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    boot_ms().saturating_add(millis)
}

/// Milliseconds since 1970, as the wall clock has it.
pub fn unix_ms() -> u64 {
    u64::try_from(Timestamp::now().as_millisecond()).unwrap_or(0)
}

/// The wall time at which `CLOCK_BOOTTIME` was 0.
pub fn booted_at() -> Timestamp {
    let since = i64::try_from(boot_ns()).unwrap_or(i64::MAX);
    Timestamp::now()
        .checked_sub(SignedDuration::from_nanos(since))
        .unwrap_or(Timestamp::UNIX_EPOCH)
}
