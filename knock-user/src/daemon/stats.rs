//! Finds the counters whose increase is reported to people.

use knock_common::{Reason, Stat};

/// How long the same lack of room is not reported again, in milliseconds.
const AGAIN_MS: u64 = 10_000;

/// The counters as last reported.
pub(super) struct Stats {
    suppressed: u64,
    lost: u64,
    shortages: [Shortage; 4],
}

/// A counter of a full table.
struct Shortage {
    number: usize,
    text: &'static str,
    reported: u64,
    reported_ms: Option<u64>,
}

/// The increases to report.
#[derive(Debug, Default, Eq, PartialEq)]
pub(super) struct Delta {
    /// Events that the kernel side left out.
    pub(super) suppressed: u64,
    /// Events that were not read in time.
    pub(super) lost: u64,
    /// Descriptions of full tables, each with the number of times.
    pub(super) shortages: Vec<(&'static str, u64)>,
}

impl Stats {
    /// Starts from these counters, by number; their present values are not reported.
    pub(super) fn new(counters: &[u64]) -> Self {
        let shortage = |number: usize, text| Shortage {
            number,
            text,
            reported: count(counters, number),
            reported_ms: None,
        };
        Self {
            suppressed: count(counters, Stat::EventsSuppressed as usize),
            lost: count(counters, Stat::EventsLost as usize),
            shortages: [
                shortage(
                    Stat::FirstKnocksEvicted as usize,
                    "first knocks pushed out by those of others",
                ),
                shortage(
                    Stat::FlowsRefused as usize,
                    "no room for a connection: it lasts no longer than its grant",
                ),
                shortage(
                    Stat::ProgressRefused as usize,
                    "no room for progress: knocks were ignored",
                ),
                shortage(
                    Reason::GrantsFull as usize,
                    "no room for another grant: the client was not let in",
                ),
            ],
        }
    }

    /// Compares with the current counters. A full table is reported at once, and then at most every ten
    /// seconds.
    pub(super) fn delta(&mut self, counters: &[u64], now_ms: u64) -> Delta {
        let more = |before: &mut u64, number| {
            let now = count(counters, number);
            now.saturating_sub(std::mem::replace(before, now))
        };
        let mut delta = Delta {
            suppressed: more(&mut self.suppressed, Stat::EventsSuppressed as usize),
            lost: more(&mut self.lost, Stat::EventsLost as usize),
            shortages: Vec::new(),
        };
        for shortage in &mut self.shortages {
            let is_early = |reported_ms: u64| now_ms < reported_ms.saturating_add(AGAIN_MS);
            if shortage.reported_ms.is_some_and(is_early) {
                continue;
            }
            let times = more(&mut shortage.reported, shortage.number);
            if times > 0 {
                shortage.reported_ms = Some(now_ms);
                delta.shortages.push((shortage.text, times));
            }
        }
        delta
    }
}

fn count(counters: &[u64], number: usize) -> u64 {
    counters.get(number).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use knock_common::reason::COUNTERS_MAX;

    use super::*;

    #[test]
    fn a_lack_of_room_is_reported_at_once_and_then_every_ten_seconds() {
        let mut counters = vec![5; COUNTERS_MAX as usize];
        let mut stats = Stats::new(&counters);
        for (name, at_ms, evicted, lost, shortages, lost_reported) in [
            ("nothing moved", 0, 5, 5, vec![], 0),
            ("the first one", 1_000, 6, 5, vec![1], 0),
            ("too early", 2_000, 9, 7, vec![], 2),
            ("not yet", 10_999, 12, 7, vec![], 0),
            ("all since then", 11_000, 12, 7, vec![6], 0),
            ("nothing more", 30_000, 12, 7, vec![], 0),
        ] {
            counters[Stat::FirstKnocksEvicted as usize] = evicted;
            counters[Stat::EventsLost as usize] = lost;
            let delta = stats.delta(&counters, at_ms);
            let times: Vec<_> = delta.shortages.iter().map(|(_, times)| *times).collect();
            assert_eq!(times, shortages, "{name}");
            assert_eq!(delta.lost, lost_reported, "{name}");
        }
    }
}
