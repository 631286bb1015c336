//! Moments of other hosts as moments of this one.

use std::collections::VecDeque;

/// The present, by both clocks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Now {
    /// Milliseconds of `CLOCK_BOOTTIME`, by which the kernel side ends grants.
    pub boot_ms: u64,
    /// Milliseconds of the wall clock.
    pub wall_ms: u64,
}

impl Now {
    /// Returns when a grant of another host ends here, in milliseconds since boot.
    ///
    /// It has an end by the wall clock of its host and a length. Late delivery does not lengthen it.
    /// If this clock is behind, it is longer by no more than the delivery took; if this clock is
    /// ahead, it is shorter. It never lasts longer than `longest_ms` from now.
    pub fn end_of(self, until_wall_ms: u64, length_ms: u64, longest_ms: u64) -> u64 {
        let left_ms = until_wall_ms.saturating_sub(self.wall_ms);
        let length_ms = length_ms.min(left_ms).min(longest_ms);
        self.boot_ms.saturating_add(length_ms)
    }

    /// Returns a moment of the boot clock by the wall clock.
    pub fn wall_of(self, boot_ms: u64) -> u64 {
        match boot_ms.checked_sub(self.boot_ms) {
            Some(later_ms) => self.wall_ms.saturating_add(later_ms),
            None => self.wall_ms.saturating_sub(self.boot_ms - boot_ms),
        }
    }
}

/// Moments closer together than this share an entry of [`Applied`], in milliseconds.
const RESOLUTION_MS: u64 = 5;
/// The most entries, which reach back at least 5 s.
const ENTRIES: usize = 1_024;

/// Which revision of the engine was applied at a moment of the last seconds.
///
/// The event of a packet is handled some time after the packet. What counts is what this host knew
/// when the packet came, and never more than that: where the memory is too coarse, it is less.
#[derive(Clone, Debug, Default)]
pub(super) struct Applied {
    /// Moments since boot, in milliseconds, and what was applied from there on; both ascend.
    entries: VecDeque<(u64, u64)>,
}

impl Applied {
    /// Records that everything up to a revision is applied from this moment on.
    pub(super) fn note(&mut self, boot_ms: u64, revision: u64) {
        if self.latest() >= revision {
            return;
        }
        let boot_ms = boot_ms.max(self.entries.back().map_or(0, |&(at_ms, _)| at_ms));
        let before = self.entries.len().checked_sub(2);
        let is_dense = before
            .and_then(|index| self.entries.get(index))
            .is_some_and(|&(at_ms, _)| boot_ms - at_ms < RESOLUTION_MS);
        if is_dense {
            self.entries.pop_back();
        } else if self.entries.len() == ENTRIES {
            self.entries.pop_front();
        }
        self.entries.push_back((boot_ms, revision));
    }

    /// Returns what was applied before a moment; 0 if that is unknown. Of the same millisecond, either
    /// may have come first.
    pub(super) fn at(&self, boot_ms: u64) -> u64 {
        let after = self.entries.partition_point(|&(at_ms, _)| at_ms < boot_ms);
        let entry = after
            .checked_sub(1)
            .and_then(|index| self.entries.get(index));
        entry.map_or(0, |&(_, revision)| revision)
    }

    /// Returns what is applied now; 0 if nothing is.
    pub(super) fn latest(&self) -> u64 {
        self.entries.back().map_or(0, |&(_, revision)| revision)
    }

    /// Forgets everything: the revisions are those of another history.
    pub(super) fn clear(&mut self) {
        self.entries.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_of_another_host_never_lasts_longer_here() {
        const BOOT: u64 = 5_000;
        const WALL: u64 = 1_000_000;
        const LONGEST: u64 = 86_400_000;
        let now = Now {
            boot_ms: BOOT,
            wall_ms: WALL,
        };
        for (name, until_wall_ms, length_ms, longest_ms, expected) in [
            ("in step", WALL + 30_000, 30_000, LONGEST, 30_000),
            ("delivered late", WALL + 10_000, 30_000, LONGEST, 10_000),
            (
                "this clock is behind",
                WALL + 90_000,
                30_000,
                LONGEST,
                30_000,
            ),
            ("this clock is ahead", WALL + 5_000, 30_000, LONGEST, 5_000),
            ("expired", WALL - 1, 30_000, LONGEST, 0),
            ("the longest", u64::MAX, u64::MAX, 60_000, 60_000),
            ("no length", WALL + 10_000, 0, LONGEST, 0),
        ] {
            let end_ms = now.end_of(until_wall_ms, length_ms, longest_ms);
            assert_eq!(end_ms, BOOT + expected, "{name}");
        }
    }

    #[test]
    fn a_moment_has_a_wall_time_before_and_after_now() {
        let now = Now {
            boot_ms: 5_000,
            wall_ms: 1_000_000,
        };
        for (boot_ms, wall_ms) in [(5_000, 1_000_000), (4_000, 999_000), (7_000, 1_002_000)] {
            assert_eq!(now.wall_of(boot_ms), wall_ms, "{boot_ms}");
        }
    }

    #[test]
    fn an_event_has_seen_what_was_applied_when_its_packet_came() {
        let mut applied = Applied::default();
        assert_eq!(applied.at(100), 0, "nothing yet");
        applied.note(100, 7);
        applied.note(200, 9);
        applied.note(300, 8);
        for (at_ms, revision) in [(100, 0), (101, 7), (200, 7), (201, 9), (10_000, 9)] {
            assert_eq!(applied.at(at_ms), revision, "{at_ms}");
        }
        applied.clear();
        assert_eq!(applied.latest(), 0);
    }

    #[test]
    fn a_burst_makes_events_know_less_and_never_more() {
        let mut applied = Applied::default();
        let mut truth = Vec::new();
        for step in 0..100_000_u64 {
            let at_ms = 1_000 + step / 20;
            applied.note(at_ms, step + 1);
            truth.push((at_ms, step + 1));
        }
        assert!(applied.entries.len() <= ENTRIES);
        for at_ms in 900..6_100 {
            let known = applied.at(at_ms);
            let after = truth.partition_point(|&(noted_ms, _)| noted_ms < at_ms);
            let most = after.checked_sub(1).map_or(0, |index| truth[index].1);
            assert!(known <= most, "{at_ms}: {known} > {most}");
            let late = (at_ms > 2_000).then_some(at_ms - 2 * RESOLUTION_MS);
            let least = late.map_or(0, |late| {
                let after = truth.partition_point(|&(noted_ms, _)| noted_ms < late);
                truth[after - 1].1
            });
            assert!(known >= least, "{at_ms}: {known} < {least}");
        }
    }
}
