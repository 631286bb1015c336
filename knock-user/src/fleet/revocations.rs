//! The revocations that this host knows.

use std::{
    collections::{BTreeMap, BTreeSet},
    marker::PhantomData,
};

use super::{
    record::{Grant, Place, Revocation, Rule},
    saved::SavedRevocation,
};
use crate::model::prefix::Prefix;

/// The most ids of a place that are remembered, the latest ones.
const IDS: usize = 64;

/// The known revocations, the latest of each place.
#[derive(Clone, Debug)]
pub(super) struct Revocations<R> {
    /// By their sources and doors, so that those about a source are found at once.
    known: BTreeMap<Prefix, BTreeMap<Option<String>, Known>>,
    /// The lengths of the sources, with whether they are of IPv4.
    lengths: BTreeSet<(bool, u8)>,
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
            lengths: BTreeSet::new(),
            rule: PhantomData,
        }
    }
}

impl<R: Rule> Revocations<R> {
    /// Adds a revocation that was made here, in knowledge of all others.
    pub(super) fn make(&mut self, mut revocation: Revocation, now_ms: u64, until_ms: u64) {
        let before = self.remove(&revocation);
        let found = before.as_ref().map_or(0, |old| old.found);
        let mut since_ms = before.map_or_else(BTreeMap::new, |old| old.since_ms);
        revocation.after.extend(since_ms.keys());
        for &id in revocation.ids.iter().chain(&revocation.after) {
            since_ms.entry(id).or_insert(now_ms);
        }
        self.insert(Known {
            latest: revocation,
            revision: None,
            found,
            since_ms,
            until_ms,
        });
    }

    fn insert(&mut self, mut known: Known) {
        known.forget_oldest();
        let source = known.latest.source;
        self.lengths.insert((source.address.is_ipv4(), source.bits));
        let doors = self.known.entry(source).or_default();
        doors.insert(known.latest.door.clone(), known);
    }

    fn remove(&mut self, revocation: &Revocation) -> Option<Known> {
        let doors = self.known.get_mut(&revocation.source)?;
        doors.remove(&revocation.door)
    }

    fn get(&self, place: &Place) -> Option<&Known> {
        let Place::Revocation { door, source } = place else {
            return None;
        };
        self.known.get(source)?.get(door)
    }

    fn get_mut(&mut self, place: &Place) -> Option<&mut Known> {
        let Place::Revocation { door, source } = place else {
            return None;
        };
        self.known.get_mut(source)?.get_mut(door)
    }

    fn all(&self) -> impl Iterator<Item = &Known> {
        self.known.values().flat_map(BTreeMap::values)
    }

    /// Returns those about a door and a source: of prefixes that contain it, then of those that it contains.
    fn about(&self, door: &str, source: Prefix) -> impl Iterator<Item = &Known> {
        let is_v4 = source.address.is_ipv4();
        let lengths = self.lengths.range((is_v4, 0)..(is_v4, source.bits));
        let wider = lengths.filter_map(move |&(_, bits)| {
            let wider = Prefix { bits, ..source }.cleared();
            self.known.get(&wider)
        });
        let narrower = self.known.range(Prefix { bits: 0, ..source }..);
        let narrower = narrower
            .take_while(move |(other, _)| source.has(other.address))
            .filter(move |(other, _)| source.contains(**other))
            .map(|(_, doors)| doors);
        let about = wider.chain(narrower).flat_map(BTreeMap::values);
        about.filter(move |known| known.latest.is_about(door, source))
    }

    /// Returns all of them, to be kept over a restart.
    pub(super) fn saved(&self) -> Vec<SavedRevocation> {
        let saved = self.all().map(|known| SavedRevocation {
            latest: known.latest.clone(),
            since_ms: known.since_ms.clone(),
            until_ms: known.until_ms,
        });
        saved.collect()
    }

    /// Takes over one that was kept over a restart. Whether the engine has it is not known.
    pub(super) fn restore(&mut self, saved: SavedRevocation) {
        self.insert(Known {
            latest: saved.latest,
            revision: None,
            found: 0,
            since_ms: saved.since_ms,
            until_ms: saved.until_ms,
        });
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
        let Some(known) = self.get_mut(&place) else {
            self.make(revocation, now_ms, until_ms);
            if let Some(known) = self.get_mut(&place) {
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
        known.forget_oldest();
    }

    /// Records that the engine has another history, in which the revisions of these revocations
    /// mean nothing. They have to be written again unless its list has them.
    pub(super) fn other_history(&mut self) {
        for known in self.known.values_mut().flat_map(BTreeMap::values_mut) {
            known.revision = None;
            known.found = 0;
        }
    }

    /// Returns the places of the revocations that the engine does not have.
    pub(super) fn all_unwritten(&self) -> Vec<Place> {
        let unwritten = self.all().filter(|known| known.revision.is_none());
        unwritten.map(|known| known.latest.place()).collect()
    }

    /// Records which revision the engine has in a place, 0 for none: it is none that can be read.
    pub(super) fn found(&mut self, place: &Place, revision: u64) {
        if let Some(known) = self.get_mut(place) {
            known.found = revision;
        }
    }

    /// Returns the revocation of a place, if there is one that the engine does not have.
    pub(super) fn unwritten(&self, place: &Place) -> Option<Unwritten<'_>> {
        let known = self.get(place)?;
        known.revision.is_none().then_some(Unwritten {
            latest: &known.latest,
            until_ms: known.until_ms,
            found: known.found,
        })
    }

    /// Returns the one that ends a grant; none if none does.
    pub(super) fn ending(&self, grant: &Grant, revision: Option<u64>) -> Option<&Revocation> {
        let mut about = self.about(&grant.door, grant.source);
        about
            .find(|known| R::ends(&known.latest, known.revision, grant, revision))
            .map(|known| &known.latest)
    }

    /// Returns the ids that this host knew about a grant before a moment of the boot clock.
    pub(super) fn known_at(&self, door: &str, source: Prefix, at_ms: u64) -> Vec<u64> {
        let ids = self.about(door, source).flat_map(|known| &known.since_ms);
        ids.filter(|&(_, &since_ms)| since_ms < at_ms)
            .map(|(&id, _)| id)
            .collect()
    }

    /// Forgets those that no longer matter.
    pub(super) fn expire(&mut self, now_ms: u64) {
        for doors in self.known.values_mut() {
            doors.retain(|_, known| now_ms < known.until_ms);
        }
        self.known.retain(|_, doors| !doors.is_empty());
        let lengths = self.known.keys();
        self.lengths = lengths
            .map(|source| (source.address.is_ipv4(), source.bits))
            .collect();
    }
}

impl Known {
    /// Forgets the ids that were known first, if there are too many.
    fn forget_oldest(&mut self) {
        while self.since_ms.len() > IDS {
            let others = self.since_ms.iter();
            let others = others.filter(|(id, _)| !self.latest.ids.contains(id));
            let Some((&oldest, _)) = others.min_by_key(|&(_, &since_ms)| since_ms) else {
                return;
            };
            self.since_ms.remove(&oldest);
            self.latest.after.retain(|id| *id != oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::record::ByKnowledge, *};

    fn revocation(id: u64, door: Option<&str>, source: &str) -> Revocation {
        Revocation {
            door: door.map(str::to_owned),
            source: source.parse().unwrap(),
            ids: vec![id],
            after: Vec::new(),
            at_ms: id,
            host: "web-1".to_owned(),
            by: None,
        }
    }

    #[test]
    fn those_about_a_source_are_found_among_all() {
        let sources = [
            "0.0.0.0/0",
            "10.0.0.0/8",
            "10.1.0.0/16",
            "10.1.2.0/24",
            "10.1.2.3",
            "10.1.3.3",
            "11.0.0.0/8",
            "::/0",
            "fd00::/8",
            "fd00::1",
            "fd00::2",
        ];
        let mut revocations = Revocations::<ByKnowledge>::default();
        let mut all = Vec::new();
        for (id, source) in sources.iter().enumerate() {
            for (door, id) in [(None, id as u64), (Some("ssh"), 100 + id as u64)] {
                let revocation = revocation(id, door, source);
                all.push(revocation.clone());
                revocations.make(revocation, 1, 1_000);
            }
        }
        for door in ["ssh", "wiki"] {
            for source in sources {
                let source: Prefix = source.parse().unwrap();
                let about = all.iter().filter(|other| other.is_about(door, source));
                let mut expected: Vec<_> = about.map(|other| other.ids[0]).collect();
                let mut found = revocations.known_at(door, source, 2);
                expected.sort_unstable();
                found.sort_unstable();
                assert_eq!(found, expected, "{door} {source}");
            }
        }
        revocations.expire(1_000);
        let source = "10.1.2.3".parse().unwrap();
        assert!(revocations.known_at("ssh", source, 2).is_empty());
    }

    #[test]
    fn a_source_that_is_revoked_often_has_a_bounded_record() {
        let mut revocations = Revocations::<ByKnowledge>::default();
        let one = |id| revocation(id, None, "10.1.2.3");
        for id in 0..1_000 {
            revocations.make(one(id), id, 10_000);
        }
        let known = revocations.unwritten(&one(0).place()).unwrap();
        assert_eq!(known.latest.ids, [999]);
        assert_eq!(known.latest.after.len(), IDS - 1);
        assert_eq!(known.latest.after.iter().min(), Some(&(1_000 - IDS as u64)));
    }
}
