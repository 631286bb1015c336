//! Which history of the engine this host has followed, and up to where.
//!
//! A number is not enough: an engine that was restored from a backup counts from a lower revision,
//! with the same cluster id, and passes the old one again.

use std::collections::HashMap;

use super::times::Applied;

/// The history that was applied.
#[derive(Clone, Debug, Default)]
pub(super) struct History {
    /// The id of the cluster; none before the first list.
    cluster: Option<String>,
    /// The revisions of all the records that the engine has, by their keys.
    known: HashMap<String, u64>,
    /// The revision of the newest record that was received.
    ///
    /// The engine may have reached a later one by records of others, or by deletions. A point is
    /// found again by its record, so what is later does not count as followed.
    newest: u64,
    /// Which revision was applied when.
    pub(super) applied: Applied,
}

impl History {
    /// Records that the engine has a record.
    pub(super) fn note(&mut self, key: &str, revision: u64) {
        self.known.insert(key.to_owned(), revision);
        self.newest = self.newest.max(revision);
    }

    /// Records that everything that was received is applied from a moment of the boot clock on.
    pub(super) fn apply(&mut self, boot_ms: u64) {
        self.applied.note(boot_ms, self.newest);
    }

    /// Records that the engine no longer has a record.
    pub(super) fn forget(&mut self, key: &str) {
        self.known.remove(key);
    }

    /// Takes a complete list over; returns whether it belongs to another history than before.
    ///
    /// It does if it has a record of the time that was followed, and this host never received it.
    pub(super) fn take_list(
        &mut self,
        cluster: &str,
        is_other: bool,
        list: HashMap<String, u64>,
    ) -> bool {
        let followed = self.applied.latest();
        let is_unknown = |(key, revision): (&String, &u64)| {
            *revision <= followed && self.known.get(key) != Some(revision)
        };
        let is_other = is_other
            || self.cluster.as_deref().is_some_and(|own| own != cluster)
            || list.iter().any(is_unknown);
        self.cluster = Some(cluster.to_owned());
        if is_other {
            self.applied.clear();
            self.newest = 0;
        }
        self.newest = self.newest.max(list.values().copied().max().unwrap_or(0));
        self.known = list;
        is_other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_with_an_unknown_record_of_the_past_is_another_history() {
        for (name, cluster, is_other, list, expected) in [
            ("the same", "c", false, vec![("a", 3), ("b", 5)], false),
            ("deleted meanwhile", "c", false, vec![("b", 5)], false),
            (
                "newer ones",
                "c",
                false,
                vec![("a", 8), ("b", 5), ("d", 9)],
                false,
            ),
            (
                "an unknown one, as after a backup was restored",
                "c",
                false,
                vec![("a", 3), ("b", 5), ("d", 6)],
                true,
            ),
            ("an older value", "c", false, vec![("a", 2)], true),
            ("another cluster", "other", false, vec![("a", 3)], true),
            ("reported so", "c", true, vec![("a", 3), ("b", 5)], true),
        ] {
            let mut history = History::default();
            assert!(!history.take_list("c", false, HashMap::new()), "{name}");
            for (key, revision) in [("a", 1), ("a", 3), ("b", 5), ("e", 4)] {
                history.note(key, revision);
            }
            history.forget("e");
            history.note("f", 6);
            history.apply(10);
            let list = list
                .into_iter()
                .map(|(key, revision)| (key.to_owned(), revision));
            let is_other = history.take_list(cluster, is_other, list.collect());
            assert_eq!(is_other, expected, "{name}");
            let followed = if expected { 0 } else { 6 };
            assert_eq!(history.applied.latest(), followed, "{name}");
        }
    }
}
