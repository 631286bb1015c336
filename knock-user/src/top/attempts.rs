//! The attempts in progress, as events show them.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// An attempt without a knock for this time is not shown: most doors allow 25 s for all knocks.
const LASTS: Duration = Duration::from_secs(30);
/// The most attempts that are kept; a flood of first knocks replaces the oldest.
const MOST: usize = 256;

/// Attempts by source and door.
#[derive(Debug, Default)]
pub(super) struct Attempts(BTreeMap<(String, String), AttemptRow>);

/// An attempt.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct AttemptRow {
    /// How many knocks were correct, and how many there are, if that is constant.
    pub(super) stage: u64,
    pub(super) stages: Option<u64>,
    /// When the last of them came.
    pub(super) at: Instant,
}

impl Attempts {
    /// Takes a correct knock.
    pub(super) fn knock(&mut self, source: &str, door: &str, attempt: AttemptRow) {
        let key = (source.to_owned(), door.to_owned());
        if self.0.len() >= MOST && !self.0.contains_key(&key) {
            let oldest = self.0.iter().min_by_key(|(_, attempt)| attempt.at);
            if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
                self.0.remove(&oldest);
            }
        }
        self.0.insert(key, attempt);
    }

    /// Ends the attempts of a source.
    pub(super) fn end(&mut self, source: &str) {
        self.0.retain(|(of, _), _| of != source);
    }

    /// Removes attempts without a recent knock.
    pub(super) fn expire(&mut self, now: Instant) {
        self.0
            .retain(|_, attempt| now.saturating_duration_since(attempt.at) < LASTS);
    }

    /// Returns source, door and attempt, the latest first.
    pub(super) fn latest(&self) -> Vec<(&str, &str, AttemptRow)> {
        let all = self.0.iter();
        let mut all: Vec<_> = all
            .map(|((source, door), attempt)| (source.as_str(), door.as_str(), *attempt))
            .collect();
        all.sort_by_key(|(source, door, attempt)| (std::cmp::Reverse(attempt.at), *source, *door));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_end_expire_and_are_bounded() {
        let mut attempts = Attempts::default();
        let begin = Instant::now();
        let knock = |attempts: &mut Attempts, source: &str, stage, at_s| {
            let at = begin + Duration::from_secs(at_s);
            let stages = Some(3);
            attempts.knock(source, "ssh", AttemptRow { stage, stages, at });
        };
        let shown = |attempts: &Attempts| -> Vec<(String, u64)> {
            let latest = attempts.latest().into_iter();
            latest
                .map(|(source, _, attempt)| (source.to_owned(), attempt.stage))
                .collect()
        };
        knock(&mut attempts, "a", 1, 0);
        knock(&mut attempts, "b", 1, 1);
        knock(&mut attempts, "a", 2, 2);
        assert_eq!(shown(&attempts), [("a".to_owned(), 2), ("b".to_owned(), 1)]);
        attempts.end("a");
        assert_eq!(shown(&attempts), [("b".to_owned(), 1)]);
        attempts.expire(begin + Duration::from_secs(30));
        assert_eq!(shown(&attempts).len(), 1);
        attempts.expire(begin + Duration::from_secs(31));
        assert_eq!(shown(&attempts), []);
        for number in 0..2 * MOST as u64 {
            knock(&mut attempts, &number.to_string(), 1, number);
        }
        assert_eq!(attempts.0.len(), MOST);
        assert_eq!(shown(&attempts)[0].0, (2 * MOST - 1).to_string());
    }
}
