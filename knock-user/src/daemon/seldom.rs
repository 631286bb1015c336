//! Warnings that others can cause as often as they like: so many lines a second about each thing.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// How long further lines about the same thing wait.
const PAUSE: Duration = Duration::from_secs(1);
/// Things that are told apart; lines about further ones wait together.
const THINGS_MAX: usize = 64;

/// Warnings of one sort, by what they are about.
#[derive(Debug)]
pub(super) struct Seldom {
    /// What they are called where some are left out: `more commands`.
    more: &'static str,
    /// How many lines about a thing are written in a second.
    most: u32,
    things: BTreeMap<String, Thing>,
}

#[derive(Debug, Default)]
struct Thing {
    last: Option<String>,
    count: u64,
    /// The first line of this second.
    first_at: Option<Instant>,
    /// Lines that were written since then.
    written: u32,
}

impl Seldom {
    /// None so far; `most` is how many lines are written in a second about each thing, at least one,
    /// and `more` says what is left out: `more commands`.
    pub(super) const fn new(most: u32, more: &'static str) -> Self {
        Self {
            more,
            most,
            things: BTreeMap::new(),
        }
    }

    /// Notes a line about a thing; returns what is to be written now.
    pub(super) fn note(&mut self, about: &str, line: String, now: Instant) -> Option<String> {
        let is_known = self.things.contains_key(about) || self.things.len() < THINGS_MAX;
        let about = if is_known { about } else { "" };
        let thing = self.things.entry(about.to_owned()).or_default();
        thing.count = thing.count.saturating_add(1);
        thing.last = Some(line);
        thing.due(self.most, self.more, now)
    }

    /// The lines that waited for their turn: the last one about each thing, and how many came
    /// before it.
    pub(super) fn due(&mut self, now: Instant) -> Vec<String> {
        let (most, more) = (self.most, self.more);
        let things = self.things.values_mut();
        let lines = things.filter_map(|thing| thing.due(most, more, now));
        let lines = lines.collect();
        self.things
            .retain(|_, thing| thing.last.is_some() || thing.was_written_lately(now));
        lines
    }

    /// All lines that wait, at the end.
    pub(super) fn rest(&mut self) -> Vec<String> {
        self.due(Instant::now() + PAUSE)
    }
}

impl Thing {
    fn was_written_lately(&self, now: Instant) -> bool {
        self.first_at
            .is_some_and(|first_at| now.saturating_duration_since(first_at) < PAUSE)
    }

    fn due(&mut self, most: u32, more: &str, now: Instant) -> Option<String> {
        if self.was_written_lately(now) && self.written >= most {
            return None;
        }
        let last = self.last.take()?;
        if !self.was_written_lately(now) {
            self.first_at = Some(now);
            self.written = 0;
        }
        self.written += 1;
        Some(match std::mem::take(&mut self.count) {
            0 | 1 => last,
            count => format!("{last}, and {} {more} before it", count - 1),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_second() {
        let begun = Instant::now();
        let mut seldom = Seldom::new(1, "more commands");
        let mut lines = Vec::new();
        for millis in 0..2_500 {
            let now = begun + Duration::from_millis(millis);
            lines.extend(seldom.note("ssh", millis.to_string(), now));
            if millis == 500 {
                lines.extend(seldom.note("web", "another door".to_owned(), now));
            }
        }
        assert_eq!(
            lines,
            [
                "0",
                "another door",
                "1000, and 999 more commands before it",
                "2000, and 999 more commands before it",
            ]
        );
        // The rest is told when nothing more comes.
        let later = begun + Duration::from_secs(9);
        let rest = "2499, and 498 more commands before it";
        assert_eq!(seldom.due(later), [rest]);
        assert_eq!(seldom.due(later + PAUSE), [""; 0]);
        assert!(seldom.things.is_empty());
    }

    #[test]
    fn some_lines_a_second() {
        let now = Instant::now();
        let mut seldom = Seldom::new(3, "more commands");
        let lines = (0..10).filter_map(|line| seldom.note("ssh", line.to_string(), now));
        assert_eq!(lines.collect::<Vec<_>>(), ["0", "1", "2"]);
        assert_eq!(seldom.rest(), ["9, and 6 more commands before it"]);
    }

    #[test]
    fn things_without_end_take_no_more_memory() {
        let now = Instant::now();
        let mut seldom = Seldom::new(1, "more lines");
        let things = 0..1_000;
        let lines = things.filter_map(|thing| seldom.note(&thing.to_string(), String::new(), now));
        assert_eq!(lines.count(), THINGS_MAX + 1);
        assert_eq!(seldom.due(now + PAUSE).len(), 1);
    }
}
