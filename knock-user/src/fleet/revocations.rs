//! The revocations that this host knows.

use std::{collections::BTreeMap, marker::PhantomData};

use super::record::{Grant, Place, Revocation, Rule};
use crate::model::prefix::Prefix;

/// The known revocations, the latest of each place.
#[derive(Clone, Debug)]
pub(super) struct Revocations<R> {
    known: BTreeMap<Place, Known>,
    rule: PhantomData<R>,
}

/// A known revocation.
#[derive(Clone, Debug)]
struct Known {
    latest: Revocation,
    /// The revision of the latest; none until the engine has written it.
    revision: Option<u64>,
    /// The revision of the record that the engine was last known to have in this place; 0 for none.
    found: u64,
    /// Since when this host knows an id, in milliseconds since boot: those of the latest, and of the
    /// ones before it.
    since_ms: BTreeMap<u64, u64>,
    /// Until when it may matter, in milliseconds since boot.
    until_ms: u64,
}

/// A revocation that the engine does not have.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unwritten<'a> {
    pub(super) latest: &'a Revocation,
    /// Until when it may matter, in milliseconds since boot.
    pub(super) until_ms: u64,
    /// The revision of the record that it replaces; 0 for none.
    pub(super) found: u64,
}

impl<R> Default for Revocations<R> {
    fn default() -> Self {
        Self {
            known: BTreeMap::new(),
            rule: PhantomData,
        }
    }
}

impl<R: Rule> Revocations<R> {
    /// Adds a revocation that was made here, in knowledge of all others.
    pub(super) fn make(&mut self, mut revocation: Revocation, now_ms: u64, until_ms: u64) {
        let place = revocation.place();
        let before = self.known.remove(&place);
        let found = before.as_ref().map_or(0, |old| old.found);
        let mut since_ms = before.map_or_else(BTreeMap::new, |old| old.since_ms);
        revocation.after.extend(since_ms.keys());
        for &id in revocation.ids.iter().chain(&revocation.after) {
            since_ms.entry(id).or_insert(now_ms);
        }
        let known = Known {
            latest: revocation,
            revision: None,
            found,
            since_ms,
            until_ms,
        };
        self.known.insert(place, known);
    }

    /// Adds a revocation that the engine has at this revision.
    pub(super) fn receive(
        &mut self,
        mut revocation: Revocation,
        revision: u64,
        now_ms: u64,
        until_ms: u64,
    ) {
        let place = revocation.place();
        let Some(known) = self.known.get_mut(&place) else {
            self.make(revocation, now_ms, until_ms);
            if let Some(known) = self.known.get_mut(&place) {
                known.revision = Some(revision);
                known.found = revision;
            }
            return;
        };
        known.found = known.found.max(revision);
        if known.latest.ids == revocation.ids {
            // A second write of the same one ends no grants that the first one did not.
            known.revision = Some(known.revision.map_or(revision, |own| own.min(revision)));
            return;
        }
        if known.latest.covers(&revocation) && !revocation.covers(&known.latest) {
            // As after a backup was restored, or if an old record was written again.
            known.revision = None;
            return;
        }
        known.until_ms = known.until_ms.max(until_ms);
        for &id in revocation.ids.iter().chain(&revocation.after) {
            known.since_ms.entry(id).or_insert(now_ms);
        }
        known.revision = Some(revision);
        if !revocation.covers(&known.latest) {
            revocation.merge(&known.latest);
            known.revision = None;
        }
        known.latest = revocation;
    }

    /// Records that the engine has another history, in which the revisions of these revocations
    /// mean nothing. They have to be written again unless its list has them.
    pub(super) fn other_history(&mut self) {
        for known in self.known.values_mut() {
            known.revision = None;
            known.found = 0;
        }
    }

    /// Returns the places of the revocations that the engine does not have.
    pub(super) fn all_unwritten(&self) -> Vec<Place> {
        let unwritten = self
            .known
            .iter()
            .filter(|(_, known)| known.revision.is_none());
        unwritten.map(|(place, _)| place.clone()).collect()
    }

    /// Records which revision the engine has in a place, 0 for none: it is none that can be read.
    pub(super) fn found(&mut self, place: &Place, revision: u64) {
        if let Some(known) = self.known.get_mut(place) {
            known.found = revision;
        }
    }

    /// Returns the revocation of a place, if there is one that the engine does not have.
    pub(super) fn unwritten(&self, place: &Place) -> Option<Unwritten<'_>> {
        let known = self.known.get(place)?;
        known.revision.is_none().then_some(Unwritten {
            latest: &known.latest,
            until_ms: known.until_ms,
            found: known.found,
        })
    }

    /// Returns the one that ends a grant; none if none does.
    pub(super) fn ending(&self, grant: &Grant, revision: Option<u64>) -> Option<&Revocation> {
        let about = self
            .known
            .values()
            .filter(|known| known.latest.is_about(&grant.door, grant.source));
        about
            .filter(|known| R::ends(&known.latest, known.revision, grant, revision))
            .map(|known| &known.latest)
            .next()
    }

    /// Returns the ids that this host knew about a grant before a moment of the boot clock.
    pub(super) fn known_at(&self, door: &str, source: Prefix, at_ms: u64) -> Vec<u64> {
        let about = self
            .known
            .values()
            .filter(|known| known.latest.is_about(door, source));
        let ids = about.flat_map(|known| &known.since_ms);
        ids.filter(|&(_, &since_ms)| since_ms < at_ms)
            .map(|(&id, _)| id)
            .collect()
    }

    /// Forgets those that no longer matter.
    pub(super) fn expire(&mut self, now_ms: u64) {
        self.known.retain(|_, known| now_ms < known.until_ms);
    }
}
