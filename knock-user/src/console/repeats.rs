//! Folds repeated lines, such as those of a client that tries a closed port each half second: the
//! first one is written at once, and the others are counted and summed up.
//!
//! Only lines of text are folded. Objects (`--json`) are for programs, which count for themselves.

use std::{collections::HashMap, time::Duration};

use knock_common::{Address, Reason, event::Event};

/// A repetition is summed up after this time without a further line.
const QUIET: Duration = Duration::from_secs(10);
/// A repetition that continues is summed up this often.
const SUM_UP: Duration = Duration::from_secs(60);
/// How many different lines are remembered; further ones are not folded. This bounds the memory
/// during a flood of forged sources.
const KEYS_MAX: usize = 1_024;

/// The identity of a line: equal keys are repetitions.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) struct RepeatKey {
    source: Address,
    destination: Address,
    interface: u32,
    port: u16,
    protocol: u8,
    reason: u8,
    door: u16,
    /// The number of the user whose packet it was.
    user: u16,
    /// The address that the packet asked for.
    other: Address,
    /// The index of the port that it asked for, if it was refused because of that.
    refused: u64,
}

impl From<&Event> for RepeatKey {
    fn from(event: &Event) -> Self {
        Self {
            source: event.source,
            destination: event.destination,
            interface: event.interface,
            port: event.port,
            protocol: event.protocol,
            reason: event.reason,
            door: event.door,
            user: event.user,
            other: event.other,
            refused: match event.reason() {
                Some(Reason::SpaNotAllowed) => event.until_ms,
                _ => 0,
            },
        }
    }
}

/// Lines that were written once and may repeat.
#[derive(Debug)]
pub(super) struct Repeats<L> {
    seen: HashMap<RepeatKey, LineState<L>>,
}

impl<L> Default for Repeats<L> {
    fn default() -> Self {
        Self {
            seen: HashMap::new(),
        }
    }
}

#[derive(Debug)]
struct LineState<L> {
    line: L,
    /// When it was last written or summed up.
    written_ns: u64,
    /// When it last occurred.
    last_ns: u64,
    /// How often it has occurred since it was written.
    times: u64,
}

/// A repeated line.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Repeated<L> {
    pub(super) line: L,
    /// How often since it was written; at least once.
    pub(super) times: u64,
    /// From the line that was written to the last repetition.
    pub(super) within: Duration,
    /// When it last occurred.
    pub(super) last_ns: u64,
}

impl<L: Clone> Repeats<L> {
    /// Returns whether a line is new and should be written; otherwise it is counted.
    pub(super) fn is_new(&mut self, key: RepeatKey, line: &L, at_ns: u64) -> bool {
        if let Some(seen) = self.seen.get_mut(&key) {
            seen.times = seen.times.saturating_add(1);
            seen.last_ns = seen.last_ns.max(at_ns);
            return false;
        }
        if self.seen.len() < KEYS_MAX {
            let seen = LineState {
                line: line.clone(),
                written_ns: at_ns,
                last_ns: at_ns,
                times: 0,
            };
            self.seen.insert(key, seen);
        }
        true
    }

    /// Takes the repetitions that are due for a summary, the earliest first. `at_end` takes all.
    pub(super) fn due(&mut self, now_ns: u64, at_end: bool) -> Vec<Repeated<L>> {
        let elapsed = |since_ns| Duration::from_nanos(now_ns.saturating_sub(since_ns));
        let mut due = Vec::new();
        self.seen.retain(|_, seen| {
            let is_over = at_end || elapsed(seen.last_ns) >= QUIET;
            if seen.times > 0 && (is_over || elapsed(seen.written_ns) >= SUM_UP) {
                due.push(Repeated {
                    line: seen.line.clone(),
                    times: std::mem::take(&mut seen.times),
                    within: Duration::from_nanos(seen.last_ns.saturating_sub(seen.written_ns)),
                    last_ns: seen.last_ns,
                });
                seen.written_ns = seen.last_ns;
            }
            !is_over
        });
        due.sort_by_key(|repeated| repeated.last_ns);
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(port: u16) -> RepeatKey {
        RepeatKey::from(&Event {
            port,
            ..Event::default()
        })
    }

    const fn seconds(count: u64) -> u64 {
        count * 1_000_000_000
    }

    #[test]
    fn repetitions_are_summed_up() {
        // The seconds of the lines, and of the check; then the expected count and time span.
        for (name, lines, look, expected) in [
            ("a single line is not repeated", &[0][..], 100, None),
            ("the client still tries", &[0, 1, 2], 5, None),
            ("the client gave up", &[0, 1, 2], 12, Some((2, 2))),
            (
                "the client tries for a minute",
                &[0, 9, 18, 27, 36, 45, 54, 59],
                60,
                Some((7, 59)),
            ),
        ] {
            let mut repeats = Repeats::default();
            for (place, &at) in lines.iter().enumerate() {
                let is_new = repeats.is_new(key(22), &"denied", seconds(at));
                assert_eq!(is_new, place == 0, "{name}: line at {at} s");
            }
            let due = repeats.due(seconds(look), false);
            let summed: Vec<_> = due
                .iter()
                .map(|repeated| (repeated.times, repeated.within.as_secs()))
                .collect();
            assert_eq!(summed, Vec::from_iter(expected), "{name}");
            assert_eq!(repeats.due(seconds(look), false), [], "{name}: once");
        }
    }

    #[test]
    fn lines_that_differ_are_not_repetitions() {
        let first = Event {
            reason: Reason::SpaNotAllowed as u8,
            until_ms: 22,
            ..Event::default()
        };
        for (name, event) in [
            ("another door", Event { door: 1, ..first }),
            ("another user", Event { user: 1, ..first }),
            (
                "another address that is asked for",
                Event {
                    other: Address::from_v4([192, 0, 2, 1]),
                    ..first
                },
            ),
            (
                "another port that is asked for",
                Event {
                    until_ms: 23,
                    ..first
                },
            ),
            ("another reason", Event { reason: 1, ..first }),
        ] {
            let mut repeats = Repeats::default();
            assert!(repeats.is_new((&first).into(), &"denied", 0), "{name}");
            assert!(repeats.is_new((&event).into(), &"denied", 1), "{name}");
            assert!(!repeats.is_new((&event).into(), &"denied", 2), "{name}");
        }
    }

    #[test]
    fn a_line_after_its_summary_is_written_again() {
        let mut repeats = Repeats::default();
        assert!(repeats.is_new(key(22), &"denied", 0));
        assert!(repeats.is_new(key(23), &"denied", 0), "another port");
        assert!(!repeats.is_new(key(22), &"denied", seconds(1)));
        assert_eq!(repeats.due(seconds(11), false).len(), 1);
        assert!(repeats.is_new(key(22), &"denied", seconds(12)));
    }

    #[test]
    fn every_repetition_is_summed_up_at_the_end() {
        let mut repeats = Repeats::default();
        repeats.is_new(key(22), &"denied", 0);
        repeats.is_new(key(22), &"denied", 1);
        assert_eq!(repeats.due(2, true).len(), 1);
    }

    #[test]
    fn a_flood_of_lines_takes_bounded_memory() {
        let mut repeats = Repeats::default();
        for port in 0..u16::MAX {
            assert!(repeats.is_new(key(port), &(), 0), "{port}");
        }
        assert_eq!(repeats.seen.len(), KEYS_MAX);
        assert!(repeats.is_new(key(u16::MAX - 1), &(), 1), "not remembered");
        repeats.due(seconds(11), false);
        assert!(repeats.seen.is_empty());
    }
}
