//! Schedules another copy of the program for a driver after link events.

/// The shortest pause between two copies, in milliseconds.
const PAUSE_MS: u64 = 250;
/// The longest pause, which a flapping link reaches, in milliseconds.
const LONGEST_MS: u64 = 64_000;
/// Copies within this time of each other lengthen the pause, in milliseconds.
const RECENT_MS: u64 = 10_000;
/// A copy may cause an event itself: some drivers make new queues for it. After this many copies in
/// a row, events that closely follow a copy count as caused by it.
const IN_A_ROW: u32 = 3;
/// See [`IN_A_ROW`].
const OWN_MS: u64 = 5_000;

/// The link events of one interface. The first one counts at once; while events continue, each
/// pause is twice as long as the previous one.
#[derive(Clone, Debug)]
pub struct Rearm {
    due_ms: Option<u64>,
    last_ms: Option<u64>,
    pause_ms: u64,
    in_a_row: u32,
}

impl Default for Rearm {
    fn default() -> Self {
        Self {
            due_ms: None,
            last_ms: None,
            pause_ms: PAUSE_MS,
            in_a_row: 0,
        }
    }
}

impl Rearm {
    /// Notes a link event.
    pub fn event(&mut self, now_ms: u64) {
        let is_own = |last_ms: u64| now_ms < last_ms.saturating_add(OWN_MS);
        if self.in_a_row >= IN_A_ROW && self.last_ms.is_some_and(is_own) {
            return;
        }
        let earliest_ms = self
            .last_ms
            .map_or(now_ms, |last_ms| last_ms.saturating_add(self.pause_ms));
        self.due_ms.get_or_insert(earliest_ms.max(now_ms));
    }

    /// Returns when another copy is due, in milliseconds since boot.
    pub const fn due_ms(&self) -> Option<u64> {
        self.due_ms
    }

    /// Notes that another copy was handed over, or that this failed.
    pub fn done(&mut self, now_ms: u64) {
        let recent_ms = self.pause_ms.saturating_mul(2).max(RECENT_MS);
        let is_soon = |last_ms: u64| now_ms < last_ms.saturating_add(recent_ms);
        if self.last_ms.is_some_and(is_soon) {
            self.pause_ms = self.pause_ms.saturating_mul(2).min(LONGEST_MS);
            self.in_a_row = self.in_a_row.saturating_add(1);
        } else {
            self.pause_ms = PAUSE_MS;
            self.in_a_row = 0;
        }
        self.last_ms = Some(now_ms);
        self.due_ms = None;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Returns the times at which copies are handed over, if each causes an event `echo_ms` later.
    fn copies(
        events: impl IntoIterator<Item = u64>,
        echo_ms: Option<u64>,
        until_ms: u64,
    ) -> Vec<u64> {
        let mut rearm = Rearm::default();
        let mut events: BTreeSet<u64> = events.into_iter().collect();
        let mut copies = Vec::new();
        for now_ms in 0..until_ms {
            if events.remove(&now_ms) {
                rearm.event(now_ms);
            }
            if rearm.due_ms().is_some_and(|due_ms| due_ms <= now_ms) {
                rearm.done(now_ms);
                copies.push(now_ms);
                events.extend(echo_ms.map(|echo_ms| now_ms + echo_ms));
            }
        }
        copies
    }

    #[test]
    fn copies_follow_events() {
        for (name, events, echo_ms, expected) in [
            ("no event", vec![], None, vec![]),
            ("one", vec![7], None, vec![7]),
            ("three at once", vec![7, 7, 8], None, vec![7, 257]),
            (
                "each is answered",
                vec![10, 5_000, 9_000],
                None,
                vec![10, 5_000, 9_000],
            ),
            ("the last one counts", vec![10, 20, 30], None, vec![10, 260]),
            (
                "each copy is an event",
                vec![10],
                Some(3),
                vec![10, 260, 760, 1_760],
            ),
        ] {
            let found = copies(events, echo_ms, 9_500);
            assert_eq!(found, expected, "{name}");
        }
    }

    #[test]
    fn a_link_that_flaps_for_an_hour_costs_few_copies() {
        let flapping = copies((0..3_600_000).step_by(100), None, 3_600_000);
        assert!((40..80).contains(&flapping.len()), "{}", flapping.len());
    }

    #[test]
    fn a_driver_that_resets_for_each_copy_gets_few_copies() {
        let ever = copies([0], Some(1_000), 3_600_000);
        assert!(ever.len() <= 5, "{ever:?}");
    }
}
