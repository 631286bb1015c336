//! The records that wait to be written, and those that are being written.

use std::collections::{BTreeMap, BTreeSet};

use super::record::Place;

/// The most records that are being written at a time. More wait here, each place once, so a host
/// that comes back with thousands of grants fills no queue.
const IN_FLIGHT: usize = 256;

/// What is to be written. It has places only: what is written is read when its turn comes.
#[derive(Clone, Debug, Default)]
pub(super) struct Outbox {
    waiting: BTreeSet<Place>,
    in_flight: BTreeMap<u64, Place>,
    last_id: u64,
}

impl Outbox {
    /// Records that the record of a place has changed.
    pub(super) fn add(&mut self, place: Place) {
        self.waiting.insert(place);
    }

    /// Returns the next place to write, with the number of its write.
    ///
    /// A place of which an older record is being written has to wait, so that the newer one is last.
    pub(super) fn next(&mut self) -> Option<(u64, Place)> {
        if self.in_flight.len() >= IN_FLIGHT {
            return None;
        }
        let is_free = |place: &&Place| !self.in_flight.values().any(|other| other == *place);
        let place = self.waiting.iter().find(is_free)?.clone();
        self.waiting.remove(&place);
        self.last_id += 1;
        self.in_flight.insert(self.last_id, place.clone());
        Some((self.last_id, place))
    }

    /// Records that a write has ended; returns its place, unless it was forgotten.
    pub(super) fn ended(&mut self, id: u64) -> Option<Place> {
        self.in_flight.remove(&id)
    }

    /// Returns whether the record of a place waits or is being written.
    pub(super) fn has(&self, place: &Place) -> bool {
        self.waiting.contains(place) || self.in_flight.values().any(|other| other == place)
    }

    /// Records that no answers to earlier writes will come: they wait again.
    pub(super) fn restart(&mut self) {
        let unanswered = std::mem::take(&mut self.in_flight);
        self.waiting.extend(unanswered.into_values());
    }

    /// Returns how many records are not written yet.
    pub(super) fn len(&self) -> usize {
        self.waiting.len() + self.in_flight.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(name: usize) -> Place {
        Place::Revocation {
            door: Some(format!("{name:05}")),
            source: "203.0.113.7".parse().unwrap(),
        }
    }

    #[test]
    fn a_place_is_written_once_at_a_time() {
        let mut outbox = Outbox::default();
        outbox.add(place(1));
        outbox.add(place(1));
        let (first, _) = outbox.next().unwrap();
        assert_eq!(outbox.next(), None);
        outbox.add(place(1));
        assert_eq!(outbox.next(), None, "the older one is being written");
        assert_eq!(outbox.ended(first), Some(place(1)));
        let (second, _) = outbox.next().unwrap();
        assert!(second > first);
        assert_eq!(outbox.ended(first), None);
        assert_eq!(outbox.len(), 1);
    }

    #[test]
    fn few_are_written_at_a_time_and_none_is_lost_by_a_restart() {
        let mut outbox = Outbox::default();
        for name in 0..10_000 {
            outbox.add(place(name));
        }
        assert_eq!(
            std::iter::from_fn(|| outbox.next()).count(),
            IN_FLIGHT,
            "at a time"
        );
        outbox.restart();
        let mut written = BTreeSet::new();
        while let Some((id, place)) = outbox.next() {
            written.insert(place);
            outbox.ended(id);
        }
        assert_eq!(written.len(), 10_000);
        assert_eq!(outbox.len(), 0);
    }
}
