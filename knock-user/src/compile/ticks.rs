//! Converts time limits.

use std::time::Duration;

use knock_common::time::ticks_in;

/// Converts a time limit to the kernel side's ticks.
pub(super) fn ticks(duration: Duration) -> u32 {
    let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    u32::try_from(ticks_in(nanos)).unwrap_or(u32::MAX)
}
