//! What of a prefix was reported, so that each change is reported once, whoever delivers it first.

use knock_wire::{Cause, Point};

use crate::engine::{Change, Read, Record};

/// The place in the history of an engine up to which a prefix was reported.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Position {
    /// The id of the cluster.
    pub(crate) cluster: String,
    /// All changes up to this revision were reported.
    pub(crate) reported: u64,
    /// The last record that was reported. Its value shows which history this is.
    pub(crate) last: Record,
}

/// The reports of a prefix.
#[derive(Debug)]
pub(crate) struct Feed {
    place: Result<Position, Cause>,
    /// It changes when watches that began before no longer fit.
    generation: u64,
}

/// Where a watch began.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Begin {
    /// The feed's generation.
    pub(crate) generation: u64,
    pub(crate) at: Position,
}

/// A list is needed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct NeedsList(pub(crate) Cause);

impl Feed {
    /// Begins after a point that the daemon knows, or with a list.
    pub(crate) fn new(after: Option<Point>) -> Self {
        let place = after.map(|point| Position {
            cluster: point.cluster,
            reported: point.revision,
            last: Record {
                key: point.key,
                value: point.value,
                revision: point.revision,
                lease: 0,
            },
        });
        Self {
            place: place.ok_or(Cause::Asked),
            generation: 0,
        }
    }

    /// Returns where a watch may begin, at the record that was reported last.
    ///
    /// # Errors
    /// A list is needed before.
    pub(crate) fn begin(&self) -> Result<Begin, NeedsList> {
        match &self.place {
            Ok(at) => Ok(Begin {
                generation: self.generation,
                at: at.clone(),
            }),
            Err(cause) => Err(NeedsList(*cause)),
        }
    }

    /// Returns whether a watch that began there still fits.
    pub(crate) fn fits(&self, begin: &Begin) -> bool {
        self.place.is_ok() && self.generation == begin.generation
    }

    /// Returns the revision up to which everything was reported, if a list is not needed.
    pub(crate) fn reported(&self) -> Option<u64> {
        self.place.as_ref().ok().map(|place| place.reported)
    }

    /// Handles the end of a list; `last` is its record with the greatest revision.
    pub(crate) fn listed(&mut self, cluster: String, revision: u64, last: Option<Record>) -> Begin {
        self.generation += 1;
        let last = last.unwrap_or(Record {
            key: String::new(),
            value: knock_wire::Octets::default(),
            revision,
            lease: 0,
        });
        let at = Position {
            cluster,
            reported: revision,
            last,
        };
        self.place = Ok(at.clone());
        Begin {
            generation: self.generation,
            at,
        }
    }

    /// Makes a list necessary, if the watch that demands it still fits.
    pub(crate) fn list_again(&mut self, begin: &Begin, cause: Cause) {
        if self.fits(begin) {
            self.place = Err(cause);
            self.generation += 1;
        }
    }

    /// Returns the changes of a message that were not reported yet, and considers them reported.
    ///
    /// # Errors
    /// A put that should have been reported was not: the history is another one.
    pub(crate) fn new_of(
        &mut self,
        begin: &Begin,
        changes: Vec<Change>,
    ) -> Result<Vec<Change>, NeedsList> {
        let Ok(place) = &mut self.place else {
            return Ok(Vec::new());
        };
        let is_missed = |change: &Change| match change {
            Change::Put(record) => {
                record.revision > begin.at.last.revision && record.revision <= begin.at.reported
            }
            Change::Deleted { .. } => false,
        };
        if begin.at.has_record() && changes.iter().any(is_missed) {
            return Err(NeedsList(Cause::History));
        }
        let before = place.reported;
        let new: Vec<_> = changes
            .into_iter()
            .filter(|change| change.revision() > before)
            .collect();
        for change in &new {
            place.reported = place.reported.max(change.revision());
            if let Change::Put(record) = change {
                place.last = record.clone();
            }
        }
        Ok(new)
    }
}

impl Position {
    /// Returns whether there is a record that identifies the history. Without one, only a watch that never ended knows
    /// that it is the same.
    pub(crate) fn has_record(&self) -> bool {
        !self.last.key.is_empty()
    }

    /// Returns the revision from which a watch has to begin.
    pub(crate) fn from(&self) -> u64 {
        self.last.revision + 1
    }

    /// Returns whether what a member has at the revision of the last record is of this history.
    pub(crate) fn is_in_history_of(&self, read: &Read) -> bool {
        let is_same = read.record.as_ref().is_some_and(|record| {
            (record.revision, &record.value) == (self.last.revision, &self.last.value)
        });
        self.may_be_in_history_of(&read.cluster, read.revision) && is_same
    }

    /// Returns whether a member with this cluster and revision may have this history.
    pub(crate) fn may_be_in_history_of(&self, cluster: &str, revision: u64) -> bool {
        cluster == self.cluster && revision >= self.reported
    }
}

#[cfg(test)]
mod tests {
    use knock_wire::Octets;

    use super::*;

    fn record(key: &str, revision: u64) -> Record {
        Record {
            key: key.to_owned(),
            value: Octets(format!("{key} {revision}").into_bytes()),
            revision,
            lease: 0,
        }
    }

    fn put(key: &str, revision: u64) -> Change {
        Change::Put(record(key, revision))
    }

    fn deleted(key: &str, revision: u64) -> Change {
        Change::Deleted {
            key: key.to_owned(),
            revision,
        }
    }

    fn point(record: &Record) -> Point {
        Point {
            cluster: "c".to_owned(),
            key: record.key.clone(),
            value: record.value.clone(),
            revision: record.revision,
        }
    }

    #[test]
    fn each_change_is_reported_once_whichever_watch_delivers_it() {
        let mut feed = Feed::new(Some(point(&record("a", 10))));
        let begin = feed.begin().unwrap();
        assert_eq!(begin.at.from(), 11);
        for (name, changes, expected) in [
            (
                "the first watch",
                vec![put("a", 11), put("b", 11)],
                vec![11, 11],
            ),
            ("the second one", vec![put("a", 11), put("b", 11)], vec![]),
            (
                "a later message",
                vec![put("a", 12), deleted("b", 14)],
                vec![12, 14],
            ),
            (
                "some of it again",
                vec![put("a", 12), deleted("b", 14), put("c", 15)],
                vec![15],
            ),
            ("nothing", vec![], vec![]),
        ] {
            let new = feed.new_of(&begin, changes).unwrap();
            let new: Vec<_> = new.iter().map(Change::revision).collect();
            assert_eq!(new, expected, "{name}");
        }
        assert_eq!(feed.reported(), Some(15));
    }

    #[test]
    fn a_watch_that_begins_again_begins_at_the_last_record() {
        let mut feed = Feed::new(Some(point(&record("a", 10))));
        let first = feed.begin().unwrap();
        feed.new_of(&first, vec![put("b", 12), deleted("a", 20)])
            .unwrap();
        let again = feed.begin().unwrap();
        assert_eq!((again.at.from(), again.at.reported), (13, 20));
        for (name, changes, expected) in [
            ("the deletion is repeated", vec![deleted("a", 20)], Ok(0)),
            (
                "a put that was never reported",
                vec![put("c", 15)],
                Err(NeedsList(Cause::History)),
            ),
            ("the next put", vec![put("c", 21)], Ok(1)),
        ] {
            let new = feed.new_of(&again, changes).map(|new| new.len());
            assert_eq!(new, expected, "{name}");
        }
    }

    #[test]
    fn a_member_of_another_history_is_noticed() {
        let last = record("a", 10);
        let at = Position {
            cluster: "c".to_owned(),
            reported: 12,
            last: last.clone(),
        };
        let other_value = Record {
            value: Octets(b"other".to_vec()),
            ..last.clone()
        };
        for (name, cluster, revision, found, expected) in [
            ("the same", "c", 12, Some(last.clone()), true),
            ("later", "c", 99, Some(last.clone()), true),
            ("another cluster", "d", 12, Some(last.clone()), false),
            ("a lower revision", "c", 11, Some(last), false),
            ("no such record", "c", 99, None, false),
            (
                "an older record under the key",
                "c",
                99,
                Some(record("a", 9)),
                false,
            ),
            (
                "another value at the revision",
                "c",
                99,
                Some(other_value),
                false,
            ),
        ] {
            let read = Read {
                cluster: cluster.to_owned(),
                revision,
                record: found,
            };
            assert_eq!(at.is_in_history_of(&read), expected, "{name}");
        }
    }

    #[test]
    fn a_list_ends_watches_that_began_before() {
        let mut feed = Feed::new(None);
        assert_eq!(feed.begin(), Err(NeedsList(Cause::Asked)));
        let first = feed.listed("c".to_owned(), 10, Some(record("a", 7)));
        assert!(feed.fits(&first));
        assert_eq!(first.at.from(), 8);
        feed.list_again(&first, Cause::Overflow);
        assert_eq!(feed.begin(), Err(NeedsList(Cause::Overflow)));
        let second = feed.listed("c".to_owned(), 20, None);
        assert_eq!((feed.fits(&first), feed.fits(&second)), (false, true));
        assert_eq!((second.at.has_record(), second.at.from()), (false, 21));
        // The first one is late.
        feed.list_again(&first, Cause::History);
        assert!(feed.fits(&second));
    }
}
