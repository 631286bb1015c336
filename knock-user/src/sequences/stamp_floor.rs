//! The stamp up to which none is accepted after others were lost.

use knock_common::{spa::layout::SpaKeyId, time::NANOS_PER_MILLI};

use super::{
    stamp_file::{FWKNOP_FRESH_MS, StampFile},
    state_directory::boot,
};
use crate::host::clock;

/// A stamp that is not accepted, and all before it, because packets with them may have been used.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct StampFloor {
    /// By the wall clock, in nanoseconds since 1970.
    pub unix_ns: u64,
    /// By the boot clock, in milliseconds: the wall clock may have been wrong then.
    pub boot_ms: Option<u64>,
    /// How far the stamp of a packet may have been ahead, in milliseconds.
    pub window_ms: u64,
}

impl StampFloor {
    /// Returns the greatest stamp that is not accepted, by a wall clock at `wall_ns` nanoseconds
    /// more than the boot clock.
    pub fn at(self, wall_ns: u64) -> u64 {
        let since_boot = |ms: u64| ms.saturating_add(self.window_ms) * NANOS_PER_MILLI;
        self.boot_ms
            .map_or(0, |ms| wall_ns.saturating_add(since_boot(ms)))
            .max(self.unix_ns)
    }

    /// Returns until when no packet of fwknop is accepted, in milliseconds since boot.
    pub fn fwknop_from_ms(self) -> u64 {
        self.boot_ms
            .map_or(0, |ms| ms.saturating_add(FWKNOP_FRESH_MS))
    }

    /// Returns for how many milliseconds no packet of a client with a right clock is accepted.
    pub fn wait_ms(self, boot_ms: u64) -> u64 {
        let end = |ms: u64| ms.saturating_add(self.window_ms);
        self.boot_ms.map_or(0, |ms| end(ms).saturating_sub(boot_ms))
    }
}

impl StampFile {
    /// Returns the floor of a process that begins in this boot.
    pub(super) fn floor(&self, boot: &str) -> StampFloor {
        let lost = self.lost.as_ref().filter(|lost| lost.boot == boot);
        StampFloor {
            unix_ns: self.floor_ns,
            boot_ms: lost.map(|lost| lost.boot_ms),
            window_ms: self.window_ms,
        }
    }

    /// Returns the greatest word that the map can have without a packet, in this boot.
    pub(super) fn highest_floor(&self, boot: &str) -> u64 {
        let floor = self.floor(boot);
        // It moves a little with the wall clock.
        let drift_ns = if floor.boot_ms.is_some() {
            100 * NANOS_PER_MILLI
        } else {
            0
        };
        floor.at(clock::wall_ns()).saturating_add(drift_ns)
    }

    /// Returns the words of the map that are stamps of packets, and not the floor.
    pub(super) fn beyond_floor<'a>(
        &self,
        words: &'a [(SpaKeyId, u64)],
    ) -> impl Iterator<Item = (SpaKeyId, u64)> + use<'a> {
        let boot = boot().unwrap_or_default();
        let floor_ns = self.highest_floor(&boot);
        words
            .iter()
            .copied()
            .filter(move |(_, word)| *word > floor_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_floor_follows_the_clock_that_was_set() {
        let floor = StampFloor {
            unix_ns: 5_000_000,
            boot_ms: Some(10),
            window_ms: 20,
        };
        for (name, wall_ns, expected) in [
            ("before the clock is set", 0, 30_000_000),
            ("after", 1_000_000_000, 1_030_000_000),
        ] {
            assert_eq!(floor.at(wall_ns), expected, "{name}");
        }
        let known = StampFloor {
            boot_ms: None,
            ..floor
        };
        assert_eq!(known.at(1_000_000_000), 5_000_000);
        for (now_ms, expected) in [(0, 30), (25, 5), (30, 0), (100, 0)] {
            assert_eq!(floor.wait_ms(now_ms), expected, "{now_ms}");
            assert_eq!(known.wait_ms(now_ms), 0, "{now_ms}");
        }
    }
}
