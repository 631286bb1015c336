//! Which doors are open for whom, as far as people and their commands are concerned.
//!
//! The kernel side lets packets in and ends that by its own clock, whether or not anybody keeps this
//! ledger. The ledger makes openings of events and of what is in the allow map: it says once that a
//! door opened and once that it closed, and which ended entries can be removed. It does no I/O:
//! events and the time come in, [`Action`]s go out. All times are of `CLOCK_BOOTTIME`.
//!
//! Two rules make it exact, both because the kernel side writes the map before it emits the event:
//! what was looked up is told at once, with no event read in between; and the actions of one call
//! are carried out before the next one.

use std::collections::{BTreeMap, BTreeSet};

use knock_common::{
    Address, Reason,
    access::Grant,
    event::Event,
    layout::{ALLOW_MAX, Door, GrantKey},
};

mod action;
mod ending;
mod recent;

pub use action::{Action, Ending};
use recent::Recent;

const NANOS_PER_MILLI: u64 = 1_000_000;

/// A source and the index of a door.
type Holder = (Address, u16);
/// A [`GrantKey`] in an order: source, service, class.
type Entry = (Address, u16, u16);

/// What is in the allow map under a key.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Look {
    /// This grant, ended or not.
    Found(Grant),
    /// Nothing.
    Absent,
    /// It could not be read.
    Failed,
}

/// The openings that are known.
#[derive(Debug)]
pub struct Ledger {
    doors: Vec<Door>,
    openings: BTreeMap<Holder, Opening>,
    deadlines: BTreeSet<(u64, Holder)>,
    /// Entries that no opening will look at when they end, and when to do so.
    suspects: BTreeSet<(u64, Entry)>,
    /// Entries that were removed, with the ends they had, in nanoseconds.
    removed: Recent<GrantKey, u64>,
    /// Entries that were written again, with when they were given, in nanoseconds.
    restored: Recent<GrantKey, u64>,
    ended: Recent<Holder, End>,
    untracked: u64,
}

/// A door that is open for a source.
#[derive(Debug)]
struct Opening {
    until_ms: u64,
    /// When to look: the end, or later if that was not possible.
    deadline_ms: u64,
    /// The latest knock that gave it, in nanoseconds.
    given_ns: u64,
    /// The entries that have not ended before the opening.
    keys: Vec<GrantKey>,
}

/// How an opening ended.
#[derive(Clone, Copy, Debug)]
struct End {
    at_ns: u64,
    /// Before its time.
    early: bool,
}

impl Ledger {
    /// An empty ledger for the doors of a configuration, in the order of their indexes.
    pub fn new(doors: Vec<Door>) -> Self {
        Self {
            doors,
            openings: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            suspects: BTreeSet::new(),
            removed: Recent::new(),
            restored: Recent::new(),
            ended: Recent::new(),
            untracked: 0,
        }
    }

    /// Takes in what the kernel side said; events that are not about grants change nothing.
    pub fn hear(&mut self, event: &Event, now_ms: u64) -> Vec<Action> {
        let reason = event.reason();
        if matches!(reason, Some(Reason::Opened | Reason::Refreshed)) {
            self.hear_given(event, now_ms)
        } else if reason == Some(Reason::Closed) {
            let keys = self.keys_of(event.source, event.door);
            let by = Some(event.door);
            let mut actions = self.cut(&keys, event.at_ns, Ending::Sequence { by }, now_ms);
            for key in keys {
                let restored = self.restored.find(&key, now_ms);
                if restored.is_some_and(|given_ns| given_ns <= event.at_ns) {
                    // It may have been missing when the kernel side wanted to end it. If it was
                    // given anew since, the event that says so brings it back.
                    actions.push(self.remove(key, event.at_ns, now_ms));
                } else {
                    self.suspect(key, event.at_ns / NANOS_PER_MILLI);
                }
            }
            actions
        } else {
            Vec::new()
        }
    }

    /// Takes in an entry of the allow map that was there when the program started.
    ///
    /// `on_open` was the business of whoever ran before: nothing opens, but it closes in time, also
    /// what ended while nobody was there.
    pub fn inherit(&mut self, key: GrantKey, grant: Grant, now_ms: u64) {
        if self.knows(grant.door) {
            let _already_told = self.adopt(key, grant, now_ms);
        } else {
            self.suspect(key, grant.until_ms);
        }
    }

    /// Takes in an entry of the allow map that was just looked up.
    ///
    /// This finds what events would have told, had they not been lost: grants, and grants that
    /// ended before their time.
    pub fn observe(&mut self, key: GrantKey, grant: Grant, now_ms: u64) -> Vec<Action> {
        if now_ms < grant.until_ms && self.knows(grant.door) {
            return self.adopt(key, grant, now_ms).into_iter().collect();
        }
        self.suspect(key, grant.until_ms);
        if !is_over(grant.until_ms, now_ms) {
            return Vec::new();
        }
        // Only a closing sequence writes an end that is earlier than what was told.
        self.cut(
            &[key],
            last_nano(grant.until_ms),
            Ending::Sequence { by: None },
            now_ms,
        )
    }

    /// Takes in what a removed entry held, if the removal can tell: `BPF_MAP_LOOKUP_AND_DELETE_ELEM`.
    ///
    /// With this, a grant that was given between the look and the removal comes back even if its
    /// event was lost.
    pub fn removed(&mut self, key: GrantKey, grant: Grant, now_ms: u64) -> Vec<Action> {
        if grant.until_ms <= now_ms {
            return Vec::new();
        }
        let given_ns = self.given_ns(grant, now_ms);
        let mut actions = vec![self.restore(key, grant, given_ns, now_ms)];
        actions.extend(self.adopt(key, grant, now_ms));
        actions
    }

    /// Ends what is open for `source` by `door`, or by any door.
    ///
    /// Like a closing sequence this ends the access: another door's opening of the same ports, too.
    pub fn revoke(&mut self, source: Address, door: Option<u16>, now_ms: u64) -> Vec<Action> {
        let mut actions = Vec::new();
        for holder in self.holders(source, door) {
            let Some(opening) = self.openings.get(&holder) else {
                continue;
            };
            let keys = opening.keys.clone();
            for &key in &keys {
                actions.push(self.remove(key, last_nano(now_ms), now_ms));
            }
            actions.extend(self.cut(&keys, last_nano(now_ms), Ending::Revoked, now_ms));
            // A door that opens no port has no entry that could end.
            actions.extend(self.close(holder, last_nano(now_ms), Ending::Revoked, now_ms));
        }
        actions
    }

    /// Goes over to another configuration; `renumbered` says what has become of a door's index.
    ///
    /// Doors that are gone are closed, under their old indexes. Events of the old configuration
    /// must have been heard, or they are taken for the new one's.
    pub fn renumber(
        &mut self,
        doors: Vec<Door>,
        renumbered: impl Fn(u16) -> Option<u16>,
    ) -> Vec<Action> {
        self.doors = doors;
        self.deadlines.clear();
        self.suspects.clear();
        self.removed = Recent::new();
        self.restored = Recent::new();
        self.ended = Recent::new();
        let mut actions = Vec::new();
        for ((source, old), opening) in std::mem::take(&mut self.openings) {
            match renumbered(old).filter(|&door| self.knows(door)) {
                Some(door) => {
                    let grant = Grant {
                        until_ms: opening.until_ms,
                        door,
                    };
                    let _already_told = self.extend(source, grant, opening.given_ns, None);
                }
                None => actions.push(Action::Closed {
                    source,
                    door: old,
                    ending: Ending::DoorGone,
                }),
            }
        }
        actions
    }

    /// The openings: source, index of the door, end in milliseconds since boot.
    pub fn openings(&self) -> impl Iterator<Item = (Address, u16, u64)> {
        self.openings
            .iter()
            .map(|(&(source, door), opening)| (source, door, opening.until_ms))
    }

    /// How many openings there was no room for; they were not told and their commands not run.
    pub fn untracked(&self) -> u64 {
        self.untracked
    }

    fn hear_given(&mut self, event: &Event, now_ms: u64) -> Vec<Action> {
        let &Event {
            source,
            door,
            until_ms,
            at_ns,
            ..
        } = event;
        let grant = Grant { until_ms, door };
        if !self.knows(door) || self.is_stale((source, door), event, now_ms) {
            return Vec::new();
        }
        let mut actions = Vec::new();
        for key in self.keys_of(source, door) {
            let removed = self.removed.find(&key, now_ms);
            // A grant from before the removed one's end was part of it.
            let is_newer = removed.is_some_and(|end_ns| end_ns < at_ns);
            if is_newer && now_ms < until_ms {
                actions.push(self.restore(key, grant, at_ns, now_ms));
            }
        }
        actions.extend(self.extend(source, grant, at_ns, None));
        actions
    }

    fn restore(&mut self, key: GrantKey, grant: Grant, given_ns: u64, now_ms: u64) -> Action {
        self.restored.note(key, given_ns, now_ms);
        Action::Restore { key, grant }
    }

    /// Whether an event comes so late that its opening was found in the map and has ended.
    fn is_stale(&self, holder: Holder, event: &Event, now_ms: u64) -> bool {
        !self.openings.contains_key(&holder)
            && self.ended.find(&holder, now_ms).is_some_and(|end| {
                event.at_ns <= end.at_ns && (end.early || is_over(event.until_ms, now_ms))
            })
    }

    /// Enters a grant that was found in the map.
    fn adopt(&mut self, key: GrantKey, grant: Grant, now_ms: u64) -> Option<Action> {
        if !self.knows(grant.door) {
            return None;
        }
        let given_ns = self.given_ns(grant, now_ms);
        self.extend(key.source, grant, given_ns, Some(key))
    }

    /// When a grant that was found in the map was given, as far as its end tells.
    fn given_ns(&self, grant: Grant, now_ms: u64) -> u64 {
        let door = self.doors.get(usize::from(grant.door));
        let open_for_ms = door.map_or(0, |door| door.open_for_ms);
        let given_ms = grant.until_ms.saturating_sub(open_for_ms).min(now_ms);
        given_ms.saturating_mul(NANOS_PER_MILLI)
    }

    /// Opens a door, or keeps it open for longer.
    fn extend(
        &mut self,
        source: Address,
        grant: Grant,
        given_ns: u64,
        found: Option<GrantKey>,
    ) -> Option<Action> {
        let Grant { until_ms, door } = grant;
        let holder = (source, door);
        let mut keys = self.keys_of(source, door);
        // Under another configuration the door may have opened other ports.
        keys.extend(found.filter(|key| !keys.contains(key)));
        let Some(opening) = self.openings.get_mut(&holder) else {
            if self.openings.len() >= ALLOW_MAX as usize {
                self.untracked = self.untracked.saturating_add(1);
                return None;
            }
            self.deadlines.insert((until_ms, holder));
            let opening = Opening {
                until_ms,
                deadline_ms: until_ms,
                given_ns,
                keys,
            };
            self.openings.insert(holder, opening);
            return Some(Action::Opened {
                source,
                door,
                until_ms,
            });
        };
        opening.given_ns = opening.given_ns.max(given_ns);
        if until_ms <= opening.until_ms {
            return None;
        }
        opening.keys = keys;
        opening.until_ms = until_ms;
        let old_ms = std::mem::replace(&mut opening.deadline_ms, until_ms);
        self.deadlines.remove(&(old_ms, holder));
        self.deadlines.insert((until_ms, holder));
        Some(Action::Refreshed {
            source,
            door,
            until_ms,
        })
    }

    fn knows(&self, door: u16) -> bool {
        usize::from(door) < self.doors.len()
    }

    fn keys_of(&self, source: Address, door: u16) -> Vec<GrantKey> {
        let Some(door) = self.doors.get(usize::from(door)) else {
            return Vec::new();
        };
        let count = door.service_count as usize;
        let key = |&service| GrantKey {
            source,
            service,
            class: door.class,
        };
        door.services.iter().take(count).map(key).collect()
    }

    /// What is open for a source, by one door or by any.
    fn holders(&self, source: Address, door: Option<u16>) -> Vec<Holder> {
        let (first, last) = door.map_or((0, u16::MAX), |door| (door, door));
        let range = self.openings.range((source, first)..=(source, last));
        range.map(|(&holder, _)| holder).collect()
    }
}

/// Whether an end has passed.
///
/// That is a millisecond later than the kernel side says so: whatever it gives after a look at an
/// entry that is over carries a later time than that end, which tells it from what has ended.
const fn is_over(until_ms: u64, now_ms: u64) -> bool {
    until_ms < now_ms
}

const fn last_nano(millis: u64) -> u64 {
    millis
        .saturating_mul(NANOS_PER_MILLI)
        .saturating_add(NANOS_PER_MILLI - 1)
}
