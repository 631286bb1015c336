//! What was used in the group, and the claims of this host that are not decided.

use std::collections::{BTreeMap, HashMap};

use super::{
    record::{Grant, Place, Rule},
    uses::{Claim, UseRecord, UsedBy},
};

/// The uses that this host knows of, and its claims.
#[derive(Clone, Debug, Default)]
pub(super) struct Claims {
    known: BTreeMap<Place, Known>,
    pending: BTreeMap<u64, Pending>,
    /// The places of the records that the engine has, by their keys.
    places: HashMap<String, Place>,
}

/// A use that this host knows of: of a file, the highest line.
#[derive(Clone, Debug)]
struct Known {
    record: UseRecord,
    /// The revision of the record that the engine was last known to have in this place; 0 for none.
    found: u64,
    /// The ids of that record's claim and of those before it.
    ids: Vec<u64>,
    /// Whether the engine has this one, and no lower line.
    is_written: bool,
    /// Until when it could be repeated, in milliseconds since boot; none: without end.
    until_ms: Option<u64>,
}

/// A claim that is not decided.
#[derive(Clone, Debug)]
pub(super) struct Pending {
    pub(super) claim: Claim,
    pub(super) way: Way,
    /// The grant at the moment at which the packet came.
    pub(super) grant: Grant,
    /// The number of the write that is under way.
    pub(super) in_flight: Option<u64>,
    /// When nobody waits for the answer any more, in milliseconds since boot.
    pub(super) gives_up_ms: u64,
}

/// What happens before a claim is decided.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Way {
    /// The door stays shut.
    Shut,
    /// The door is open.
    Open,
}

/// How far a claim has got.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Standing {
    /// As far as this host knows, it was not used.
    Free,
    /// The engine has it as this host's, at a revision.
    Won(u64),
    /// It was used by others.
    Lost(UsedBy),
}

impl Claims {
    /// Begins a claim.
    pub(super) fn add(&mut self, pending: Pending) {
        self.pending.insert(pending.claim.id, pending);
    }

    /// Returns the ids of the claims that are not decided.
    pub(super) fn ids(&self) -> Vec<u64> {
        self.pending.keys().copied().collect()
    }

    pub(super) fn get(&self, id: u64) -> Option<&Pending> {
        self.pending.get(&id)
    }

    pub(super) fn remove(&mut self, id: u64) -> Option<Pending> {
        self.pending.remove(&id)
    }

    /// Returns the claims of doors that are open already, to be kept over a restart.
    pub(super) fn open(&self) -> impl Iterator<Item = &Pending> {
        let pending = self.pending.values();
        pending.filter(|pending| pending.way == Way::Open)
    }

    /// Returns how far a claim has got.
    pub(super) fn standing<R: Rule>(&self, claim: &Claim) -> Standing {
        match self.known.get(&Place::of_use(&claim.used)) {
            Some(known) if R::is_own(&known.record, claim.id) => Standing::Won(known.found),
            Some(known) if known.record.used.voids(&claim.used) => {
                Standing::Lost(known.record.by.clone())
            }
            Some(_) | None => Standing::Free,
        }
    }

    /// Records a use that the engine has at a revision; returns whether this host did not know of it.
    pub(super) fn learn(&mut self, record: UseRecord, revision: u64, now_ms: u64) -> bool {
        let place = Place::of_use(&record.used);
        let until_ms = record
            .used
            .keep_ms()
            .map(|keep_ms| now_ms.saturating_add(keep_ms));
        let ids = record.ids();
        let Some(known) = self.known.get_mut(&place) else {
            let known = Known {
                record,
                found: revision,
                ids,
                is_written: true,
                until_ms,
            };
            self.known.insert(place, known);
            return true;
        };
        if revision < known.found {
            return false;
        }
        known.found = revision;
        known.ids = ids;
        known.is_written = record.used.voids(&known.record.used);
        if !known.is_written || record.id == known.record.id {
            return false;
        }
        known.record = record;
        true
    }

    /// Records a use that a file of this host had when the daemon started.
    pub(super) fn spent(&mut self, record: UseRecord) {
        let place = Place::of_use(&record.used);
        match self.known.get_mut(&place) {
            Some(known) if known.record.used.voids(&record.used) => {}
            Some(known) => {
                known.record = record;
                known.is_written = false;
            }
            None => {
                let known = Known {
                    record,
                    found: 0,
                    ids: Vec::new(),
                    is_written: false,
                    until_ms: None,
                };
                self.known.insert(place, known);
            }
        }
    }

    /// Records that the engine has this revision in a place, 0 for none: it is no use that can be read.
    pub(super) fn found(&mut self, place: &Place, revision: u64) {
        if let Some(known) = self.known.get_mut(place) {
            known.found = revision;
            known.ids.clear();
            // What can't be read is not replaced.
            known.is_written = revision != 0;
        }
    }

    /// Returns the revision of the record that a write to a place replaces, 0 for none, and the ids of its
    /// claim and those before it.
    pub(super) fn replaced(&self, place: &Place) -> (u64, Vec<u64>) {
        let known = self.known.get(place);
        known.map_or((0, Vec::new()), |known| (known.found, known.ids.clone()))
    }

    /// Returns the claim of a place that is written next: of several lines the first one, because a later
    /// line voids it.
    pub(super) fn next<R: Rule>(&mut self, place: &Place) -> Option<&mut Pending> {
        let waiting = self.pending.values().filter(|pending| {
            pending.in_flight.is_none()
                && Place::of_use(&pending.claim.used) == *place
                && self.standing::<R>(&pending.claim) == Standing::Free
        });
        let id = waiting
            .min_by_key(|pending| pending.claim.used.line())?
            .claim
            .id;
        self.pending.get_mut(&id)
    }

    /// Returns the use of a place that this host has to write, because it was the one that used it.
    pub(super) fn unwritten(&self, place: &Place, host: &str, now_ms: u64) -> Option<&UseRecord> {
        let known = self.known.get(place)?;
        known.is_missing(host, now_ms).then_some(&known.record)
    }

    /// Returns the places of all uses that this host has to write.
    pub(super) fn all_unwritten(&self, host: &str, now_ms: u64) -> Vec<Place> {
        let known = self.known.iter();
        let missing = known.filter(|(_, known)| known.is_missing(host, now_ms));
        let pending = self.pending.values();
        let waiting = pending.filter(|pending| pending.in_flight.is_none());
        missing
            .map(|(place, _)| place.clone())
            .chain(waiting.map(|pending| Place::of_use(&pending.claim.used)))
            .collect()
    }

    /// Returns whether claims of a place wait to be written.
    pub(super) fn waits(&self, place: &Place) -> bool {
        let mut pending = self.pending.values();
        pending.any(|pending| {
            pending.in_flight.is_none() && Place::of_use(&pending.claim.used) == *place
        })
    }

    /// Records that a write has ended; returns the claim that it was.
    pub(super) fn ended(&mut self, write: u64) -> Option<u64> {
        let mut pending = self.pending.values_mut();
        let ended = pending.find(|pending| pending.in_flight == Some(write))?;
        ended.in_flight = None;
        Some(ended.claim.id)
    }

    /// Records that no answers to earlier writes will come.
    pub(super) fn restart(&mut self) {
        for pending in self.pending.values_mut() {
            pending.in_flight = None;
        }
    }

    /// Records under which key the engine has a use.
    pub(super) fn note(&mut self, key: &str, place: &Place) {
        self.places.insert(key.to_owned(), place.clone());
    }

    /// Records that the engine no longer has a key; returns its place.
    pub(super) fn deleted(&mut self, key: &str) -> Option<Place> {
        let place = self.places.remove(key)?;
        if let Some(known) = self.known.get_mut(&place) {
            known.found = 0;
            known.ids.clear();
            known.is_written = false;
        }
        Some(place)
    }

    /// Begins a list: the engine has nothing but what is in it.
    pub(super) fn list(&mut self) {
        for known in self.known.values_mut() {
            known.found = 0;
            known.ids.clear();
            known.is_written = false;
        }
    }

    /// Forgets uses that can't be repeated any more.
    pub(super) fn expire(&mut self, now_ms: u64) {
        self.known
            .retain(|_, known| known.until_ms.is_none_or(|until_ms| now_ms < until_ms));
        self.places
            .retain(|_, place| self.known.contains_key(place));
    }
}

impl Known {
    fn is_missing(&self, host: &str, now_ms: u64) -> bool {
        let may_be_repeated = self.until_ms.is_none_or(|until_ms| now_ms < until_ms);
        !self.is_written && may_be_repeated && self.record.by.host == host
    }
}
