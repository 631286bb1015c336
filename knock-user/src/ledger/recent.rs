//! Remembers recent events for some seconds.

use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
};

use knock_common::layout::ALLOW_MAX;

/// How long a note lasts: longer than events wait to be read.
const MEMORY_MS: u64 = 10_000;

/// Bounded notes with their times.
#[derive(Debug)]
pub(super) struct Recent<K, V> {
    notes: HashMap<K, (u64, V)>,
    order: VecDeque<(u64, K)>,
}

impl<K: Copy + Eq + Hash, V: Copy> Recent<K, V> {
    pub(super) fn new() -> Self {
        Self {
            notes: HashMap::new(),
            order: VecDeque::new(),
        }
    }

    pub(super) fn note(&mut self, key: K, value: V, now_ms: u64) {
        self.forget_old(now_ms);
        self.notes.insert(key, (now_ms, value));
        self.order.push_back((now_ms, key));
    }

    pub(super) fn find(&self, key: &K, now_ms: u64) -> Option<V> {
        let (noted_ms, value) = *self.notes.get(key)?;
        (now_ms <= noted_ms.saturating_add(MEMORY_MS)).then_some(value)
    }

    pub(super) fn forget(&mut self, key: &K) {
        self.notes.remove(key);
    }

    fn forget_old(&mut self, now_ms: u64) {
        while let Some(&(noted_ms, key)) = self.order.front() {
            let is_old = noted_ms.saturating_add(MEMORY_MS) < now_ms;
            if !is_old && self.order.len() < ALLOW_MAX as usize {
                return;
            }
            self.order.pop_front();
            // A later note of the same key remains.
            if self.notes.get(&key).is_some_and(|note| note.0 == noted_ms) {
                self.notes.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_last_ten_seconds_and_are_bounded() {
        let mut recent = Recent::new();
        recent.note(1, 'a', 0);
        recent.note(1, 'b', 5_000);
        recent.note(2, 'c', 12_000);
        assert_eq!(recent.find(&1, 15_000), Some('b'), "the later note");
        assert_eq!(recent.find(&1, 15_001), None, "too old");
        assert_eq!(recent.find(&2, 12_000), Some('c'), "new");
        recent.forget(&2);
        assert_eq!(recent.find(&2, 12_000), None, "forgotten");

        let many = u64::from(ALLOW_MAX);
        for key in 0..2 * many {
            recent.note(key, 'd', 20_000);
        }
        assert_eq!(recent.find(&(2 * many - 1), 20_000), Some('d'), "the last");
        assert_eq!(recent.find(&0, 20_000), None, "the first gave way");
        assert!(recent.order.len() <= many as usize);
        assert!(recent.notes.len() <= many as usize);
    }
}
