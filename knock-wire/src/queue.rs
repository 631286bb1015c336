//! What waits to be sent: bounded, and only the latest of what replaces each other.

use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
};

/// The most entries that wait. A list may be longer: it is sent as it is read, and not queued.
pub const LONGEST_QUEUE: usize = 4_096;

/// An entry that may replace others.
pub trait Keyed {
    /// What entries that replace each other share.
    type Key: Clone + Eq + Hash;

    /// Returns what it replaces; none if it has to be sent in any case.
    fn key(&self) -> Option<Self::Key>;
}

/// The queue is full; its entries are unchanged, and the new one was not added.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{LONGEST_QUEUE} lines wait to be sent")]
pub struct Full;

/// Entries in the order in which they were added.
///
/// An entry replaces one with the same key that waits, and goes to the end: what it was added after
/// is sent before it.
#[derive(Debug)]
pub struct Queue<T: Keyed> {
    entries: BTreeMap<u64, T>,
    places: HashMap<T::Key, u64>,
    next: u64,
}

impl<T: Keyed> Default for Queue<T> {
    fn default() -> Self {
        Self {
            entries: BTreeMap::new(),
            places: HashMap::new(),
            next: 0,
        }
    }
}

impl<T: Keyed> Queue<T> {
    /// Adds an entry at the end; returns the one that it replaced.
    ///
    /// # Errors
    /// The queue has [`LONGEST_QUEUE`] entries, and none of them is replaced.
    pub fn push(&mut self, entry: T) -> Result<Option<T>, Full> {
        let key = entry.key();
        let old = key.as_ref().and_then(|key| self.places.remove(key));
        let replaced = old.and_then(|place| self.entries.remove(&place));
        if self.entries.len() >= LONGEST_QUEUE {
            return Err(Full);
        }
        if let Some(key) = key {
            self.places.insert(key, self.next);
        }
        self.entries.insert(self.next, entry);
        self.next += 1;
        Ok(replaced)
    }

    /// Removes and returns the first entry.
    pub fn pop(&mut self) -> Option<T> {
        let (place, entry) = self.entries.pop_first()?;
        if let Some(key) = entry.key()
            && self.places.get(&key) == Some(&place)
        {
            self.places.remove(&key);
        }
        Some(entry)
    }

    /// Removes all entries.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.places.clear();
    }

    /// Returns how many entries wait.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns whether none waits.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Eq, PartialEq)]
    struct Entry(Option<&'static str>, u32);

    impl Keyed for Entry {
        type Key = &'static str;

        fn key(&self) -> Option<Self::Key> {
            self.0
        }
    }

    fn drained(queue: &mut Queue<Entry>) -> Vec<u32> {
        std::iter::from_fn(|| queue.pop().map(|entry| entry.1)).collect()
    }

    #[test]
    fn an_entry_replaces_one_with_its_key_and_goes_to_the_end() {
        for (name, entries, expected) in [
            ("none", vec![], vec![]),
            (
                "other keys",
                vec![(Some("a"), 1), (Some("b"), 2)],
                vec![1, 2],
            ),
            (
                "the same key",
                vec![(Some("a"), 1), (Some("b"), 2), (Some("a"), 3)],
                vec![2, 3],
            ),
            (
                "the same key three times",
                vec![(Some("a"), 1), (Some("a"), 2), (Some("a"), 3)],
                vec![3],
            ),
            ("no key", vec![(None, 1), (None, 2)], vec![1, 2]),
        ] {
            let mut queue = Queue::default();
            for (key, number) in entries {
                queue.push(Entry(key, number)).unwrap();
            }
            assert_eq!(drained(&mut queue), expected, "{name}");
            assert!(queue.is_empty(), "{name}");
        }
    }

    #[test]
    fn a_key_that_was_sent_replaces_none() {
        let mut queue = Queue::default();
        queue.push(Entry(Some("a"), 1)).unwrap();
        assert_eq!(queue.pop(), Some(Entry(Some("a"), 1)));
        assert_eq!(queue.push(Entry(Some("a"), 2)), Ok(None));
        assert_eq!(drained(&mut queue), [2]);
    }

    #[test]
    fn a_full_queue_refuses_new_entries_and_takes_newer_values() {
        let mut queue = Queue::default();
        queue.push(Entry(Some("a"), 0)).unwrap();
        for number in 1..LONGEST_QUEUE as u32 {
            queue.push(Entry(None, number)).unwrap();
        }
        assert_eq!(queue.len(), LONGEST_QUEUE);
        assert_eq!(queue.push(Entry(None, 9_999)), Err(Full));
        assert_eq!(queue.push(Entry(Some("b"), 9_999)), Err(Full));
        assert_eq!(
            queue.push(Entry(Some("a"), 9_999)),
            Ok(Some(Entry(Some("a"), 0)))
        );
        let all = drained(&mut queue);
        assert_eq!(all.len(), LONGEST_QUEUE);
        assert_eq!(all.last(), Some(&9_999));
    }
}
