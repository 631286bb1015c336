//! An engine in memory: revisions, compaction, deletions, backups.

use std::collections::BTreeMap;

use knock_user::fleet::{NewRecord, Place, Record};

/// A change; a deletion has no record.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub(crate) revision: u64,
    pub(crate) place: Place,
    pub(crate) record: Option<Record>,
    /// Differs for each write, also across histories, as a sealed value does.
    pub(crate) mark: u64,
}

/// The last write that a host received.
#[derive(Clone, Debug)]
pub(crate) struct Point {
    pub(crate) revision: u64,
    pub(crate) mark: u64,
}

/// What a host gets when it connects.
#[derive(Debug)]
pub(crate) enum Answer {
    /// The changes since its point follow.
    Resumed,
    /// All the records, and whether the history is known to be another one.
    List(Vec<Change>, bool),
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Engine {
    pub(crate) revision: u64,
    pub(crate) store: BTreeMap<Place, Change>,
    log: Vec<Change>,
    compacted: u64,
    backup: Option<Box<Engine>>,
    marks: u64,
    /// How many lines were written over a later one, or the same.
    pub(crate) backwards: u32,
}

impl Engine {
    /// Writes records in one transaction; returns its revision.
    pub(crate) fn put(&mut self, records: Vec<NewRecord>) -> u64 {
        self.revision += 1;
        for new in records {
            if let Some(Record::Use(before)) = self.at(&new.place)
                && let Record::Use(now) = &new.record
                && matches!(new.place, Place::Line { .. })
            {
                self.backwards += u32::from(before.used.voids(&now.used));
            }
            let change = self.change(new.place.clone(), Some(new.record));
            self.store.insert(new.place, change);
        }
        self.revision
    }

    fn at(&self, place: &Place) -> Option<&Record> {
        self.store.get(place)?.record.as_ref()
    }

    pub(crate) fn delete(&mut self, place: &Place) {
        self.revision += 1;
        self.change(place.clone(), None);
        self.store.remove(place);
    }

    fn change(&mut self, place: Place, record: Option<Record>) -> Change {
        self.marks += 1;
        let change = Change {
            revision: self.revision,
            place,
            record,
            mark: self.marks,
        };
        self.log.push(change.clone());
        change
    }

    pub(crate) fn connect(&self, point: Option<&Point>) -> Answer {
        let list = |is_other| Answer::List(self.store.values().cloned().collect(), is_other);
        let Some(point) = point else {
            return list(false);
        };
        if point.revision <= self.compacted {
            return list(false);
        }
        let is_point =
            |change: &Change| (change.revision, change.mark) == (point.revision, point.mark);
        match self.log.iter().any(is_point) {
            true => Answer::Resumed,
            false => list(true),
        }
    }

    /// Returns the changes after a revision, about `most` of them and all of each revision; of several of
    /// one place only the last, as in a queue.
    pub(crate) fn changes(&self, after: u64, most: usize) -> Vec<Change> {
        let first = self.log.partition_point(|change| change.revision <= after);
        let end = first.saturating_add(most).min(self.log.len());
        let last = self.log[first..end].last();
        let reached = last.map_or(after, |change| change.revision);
        let end = self
            .log
            .partition_point(|change| change.revision <= reached);
        let changes = &self.log[first..end];
        let is_last = |(index, change): &(usize, &Change)| {
            let later = &changes[index + 1..];
            later.iter().all(|other| other.place != change.place)
        };
        let last = changes.iter().enumerate().filter(is_last);
        last.map(|(_, change)| change.clone()).collect()
    }

    /// Returns whether the changes after a revision are still there.
    pub(crate) fn has_after(&self, revision: u64) -> bool {
        self.compacted <= revision
    }

    pub(crate) fn compact(&mut self) {
        self.compacted = self.revision;
        self.log.clear();
    }

    pub(crate) fn back_up(&mut self) {
        self.backup = None;
        self.backup = Some(Box::new(self.clone()));
    }

    /// Returns to the backup, if there is one.
    pub(crate) fn restore(&mut self) -> bool {
        let Some(backup) = self.backup.take() else {
            return false;
        };
        let marks = self.marks;
        *self = *backup;
        self.marks = marks;
        true
    }
}
