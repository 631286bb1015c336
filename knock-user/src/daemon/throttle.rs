//! Limits how often warnings are written that other people can cause.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// How long further warnings about the same topic are held back.
const PAUSE: Duration = Duration::from_secs(1);
/// Most topics that are kept apart; all further ones share one entry.
const TOPICS_MAX: usize = 64;

/// The warnings of one kind, by topic.
#[derive(Debug)]
pub(super) struct Throttle {
    /// The name of omitted warnings, such as `more commands`.
    more: &'static str,
    /// The most lines per topic and second.
    most: u32,
    topics: BTreeMap<String, Topic>,
}

#[derive(Debug, Default)]
struct Topic {
    last: Option<String>,
    count: u64,
    /// When the first line of this second was written.
    first_at: Option<Instant>,
    /// The number of lines written since then.
    written: u32,
}

impl Throttle {
    /// Creates a throttle that lets `most` lines per topic and second through, at least one; `more`
    /// names the omitted ones, such as `more commands`.
    pub(super) const fn new(most: u32, more: &'static str) -> Self {
        Self {
            more,
            most,
            topics: BTreeMap::new(),
        }
    }

    /// Adds a warning about a topic; returns the line to write now, if any.
    pub(super) fn note(&mut self, about: &str, line: String, now: Instant) -> Option<String> {
        let is_known = self.topics.contains_key(about) || self.topics.len() < TOPICS_MAX;
        let about = if is_known { about } else { "" };
        let topic = self.topics.entry(about.to_owned()).or_default();
        topic.count = topic.count.saturating_add(1);
        topic.last = Some(line);
        topic.due(self.most, self.more, now)
    }

    /// Returns the held lines whose pause has passed: the last one of each topic, with the number of
    /// those before it.
    pub(super) fn due(&mut self, now: Instant) -> Vec<String> {
        let (most, more) = (self.most, self.more);
        let topics = self.topics.values_mut();
        let lines = topics.filter_map(|topic| topic.due(most, more, now));
        let lines = lines.collect();
        self.topics
            .retain(|_, topic| topic.last.is_some() || topic.was_written_lately(now));
        lines
    }

    /// Returns all held lines, when the daemon ends.
    pub(super) fn rest(&mut self) -> Vec<String> {
        self.due(Instant::now() + PAUSE)
    }
}

impl Topic {
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
    fn one_line_a_second_is_printed() {
        let begun = Instant::now();
        let mut throttle = Throttle::new(1, "more commands");
        let mut lines = Vec::new();
        for millis in 0..2_500 {
            let now = begun + Duration::from_millis(millis);
            lines.extend(throttle.note("ssh", millis.to_string(), now));
            if millis == 500 {
                lines.extend(throttle.note("web", "another door".to_owned(), now));
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
        // The rest is due when nothing more follows.
        let later = begun + Duration::from_secs(9);
        let rest = "2499, and 498 more commands before it";
        assert_eq!(throttle.due(later), [rest]);
        assert_eq!(throttle.due(later + PAUSE), [""; 0]);
        assert!(throttle.topics.is_empty());
    }

    #[test]
    fn lines_beyond_the_limit_of_a_second_are_counted() {
        let now = Instant::now();
        let mut throttle = Throttle::new(3, "more commands");
        let lines = (0..10).filter_map(|line| throttle.note("ssh", line.to_string(), now));
        assert_eq!(lines.collect::<Vec<_>>(), ["0", "1", "2"]);
        assert_eq!(throttle.rest(), ["9, and 6 more commands before it"]);
    }

    #[test]
    fn topics_without_end_take_no_more_memory() {
        let now = Instant::now();
        let mut throttle = Throttle::new(1, "more lines");
        let topics = 0..1_000;
        let lines =
            topics.filter_map(|topic| throttle.note(&topic.to_string(), String::new(), now));
        assert_eq!(lines.count(), TOPICS_MAX + 1);
        assert_eq!(throttle.due(now + PAUSE).len(), 1);
    }
}
