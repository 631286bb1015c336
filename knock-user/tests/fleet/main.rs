//! The rules of a fleet hold in random histories of many hosts: knocks, revocations, cuts, restarts,
//! compaction, deletions, clocks that differ, lost answers, restored backups.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails with the test")]

mod claims;
mod engine;
mod host;
mod lines;
mod members;
mod once;
mod rollout;
mod store;
mod used;

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

use engine::Engine;
use host::{DOOR, Host};
use knock_user::{
    fleet::{ByKnowledge, Grant, Place, Record, Revocation, Rule},
    model::prefix::Prefix,
};
use rand::{RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};

/// A grant as it happened.
struct Given {
    source: Prefix,
    until_ms: u64,
    /// The ids of the revocations that its host had applied.
    knows: BTreeSet<u64>,
    host: usize,
    /// Whether the daemon of its host knows of it and of what it knows.
    is_read: bool,
}

/// A revocation as it happened.
struct Revoked {
    source: Prefix,
    /// Those that its host had applied: it ends what they end.
    knows: BTreeSet<u64>,
    /// Whether a host or the engine still had it after each restart and each restored backup.
    exists: bool,
}

/// What is wrong at the end of a history.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Faults {
    /// Sources for which some hosts are open and some closed.
    differ: u32,
    /// Sources for which a host is open although every grant was revoked.
    revoked_is_open: u32,
    /// Sources for which a host is closed although a grant counts.
    lost: u32,
    /// Sources for which a host is open for longer than any grant.
    too_long: u32,
}

struct World<R> {
    random: StdRng,
    now_ms: u64,
    engine: Engine,
    hosts: Vec<Host<R>>,
    sources: Vec<Prefix>,
    grants: Vec<Given>,
    revocations: BTreeMap<u64, Revoked>,
    /// How far clocks differ, in milliseconds.
    skew_ms: u64,
    /// Whether records are deleted before their time. A daemon that starts again knows of a grant only
    /// what the engine has.
    has_enemy: bool,
    /// Sources with a grant whose host forgot what it knew of it.
    uncertain: BTreeSet<Prefix>,
}

/// The most that clocks differ in either direction, in milliseconds.
const SKEW_MS: u64 = 3_000;
const WALL_MS: u64 = 1_700_000_000_000;

impl<R: Rule> World<R> {
    fn new(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let count = match random.random_range(0..10) {
            0 => random.random_range(5..=50),
            _ => random.random_range(5..=10),
        };
        let offsets: Vec<u64> = (0..count)
            .map(|_| match random.random_bool(0.5) {
                true => WALL_MS,
                false => WALL_MS - SKEW_MS + random.random_range(0..=2 * SKEW_MS),
            })
            .collect();
        let has_enemy = random.random_bool(0.3);
        let skew_ms = offsets.iter().max().unwrap() - offsets.iter().min().unwrap();
        let hosts = offsets.into_iter().enumerate();
        Self {
            random,
            now_ms: 1_000,
            engine: Engine::default(),
            hosts: hosts
                .map(|(index, offset)| Host::new(index, offset))
                .collect(),
            sources: ["203.0.113.7", "203.0.113.8", "2001:db8::/64"]
                .map(|text| text.parse().unwrap())
                .to_vec(),
            grants: Vec::new(),
            revocations: BTreeMap::new(),
            skew_ms,
            has_enemy,
            uncertain: BTreeSet::new(),
        }
    }

    fn step(&mut self) {
        self.now_ms += self.random.random_range(1..4_000);
        let now_ms = self.now_ms;
        let index = self.random.random_range(0..self.hosts.len());
        let source = *self.sources.choose(&mut self.random).unwrap();
        match self.random.random_range(0..100) {
            0..40 => self.knock(index, source),
            40..52 => self.revoke(index, source),
            52..68 => {
                let host = &mut self.hosts[index];
                host.is_up = !host.is_up;
                host.cut();
            }
            68..76 if !self.has_enemy => self.restart(index),
            76..80 => self.engine.compact(),
            80..84 => self.delete(),
            84..88 => self.engine.back_up(),
            88..90 if self.engine.restore() => {
                for host in &mut self.hosts {
                    host.cut();
                }
                self.look_for_revocations();
            }
            _ => {}
        }
        for index in 0..self.hosts.len() {
            if self.random.random_bool(0.6) {
                self.read(index);
            }
            if self.random.random_bool(0.6) {
                let most = self.random.random_range(0..20);
                let loses = self.random.random_bool(0.1);
                self.hosts[index].exchange(&mut self.engine, most, loses, now_ms);
            }
        }
    }

    fn knock(&mut self, index: usize, source: Prefix) {
        let length_ms = *[20_000, 60_000, 200_000].choose(&mut self.random).unwrap();
        let host = &mut self.hosts[index];
        let until_ms = self.now_ms + length_ms;
        self.grants.push(Given {
            source,
            until_ms,
            knows: host.knows.clone(),
            host: index,
            is_read: false,
        });
        host.knock(source, self.now_ms, until_ms, self.grants.len() - 1);
    }

    fn read(&mut self, index: usize) {
        for grant in self.hosts[index].read_events(self.now_ms) {
            self.grants[grant].is_read = true;
        }
    }

    fn revoke(&mut self, index: usize, source: Prefix) {
        self.read(index);
        let id = self.revocations.len() as u64 + 1;
        let host = &mut self.hosts[index];
        self.revocations.insert(
            id,
            Revoked {
                source,
                knows: host.knows.clone(),
                exists: true,
            },
        );
        host.revoke(source, id, self.now_ms);
    }

    /// Starts a daemon again. If its file is damaged, it forgets what only it knew.
    fn restart(&mut self, index: usize) {
        let is_damaged = self.random.random_bool(0.3);
        if !is_damaged {
            for grant in self.hosts[index].restart(false, self.now_ms) {
                self.grants[grant].is_read = true;
            }
            return;
        }
        // What the engine lacks is not remembered.
        for grant in self.grants.iter_mut().filter(|grant| grant.host == index) {
            let place = Place::Grant {
                host: self.hosts[index].name.clone(),
                door: DOOR.to_owned(),
                source: grant.source,
            };
            let written = self.engine.store.get(&place);
            let is_written = written.is_some_and(|change| match &change.record {
                Some(Record::Grant(written)) => {
                    written.until_ms + 2 * SKEW_MS >= WALL_MS + grant.until_ms
                }
                Some(_) | None => false,
            });
            if self.hosts[index].has_unwritten() || !is_written {
                grant.is_read = false;
                self.uncertain.insert(grant.source);
            }
        }
        self.hosts[index].restart(true, self.now_ms);
        self.look_for_revocations();
    }

    /// Deletes the record of a grant: one that has ended, or any one that all hosts have.
    fn delete(&mut self) {
        let places: Vec<_> = self.engine.store.keys().cloned().collect();
        let Some(place @ Place::Grant { .. }) = places.choose(&mut self.random) else {
            return;
        };
        for host in &mut self.hosts {
            host.exchange(&mut self.engine, usize::MAX, false, self.now_ms);
        }
        let Some(Record::Grant(grant)) = &self.engine.store[place].record else {
            return;
        };
        let has_ended = grant.until_ms + SKEW_MS < WALL_MS + self.now_ms;
        if has_ended || self.has_enemy && self.hosts.iter().all(|host| host.is_up) {
            self.engine.delete(place);
        }
    }

    fn look_for_revocations(&mut self) {
        let written: BTreeSet<u64> = self
            .engine
            .store
            .values()
            .filter_map(|change| match &change.record {
                Some(Record::Revocation(revocation)) => Some(revocation.ids.clone()),
                Some(_) | None => None,
            })
            .flatten()
            .collect();
        for (id, revoked) in &mut self.revocations {
            let is_known = self.hosts.iter().any(|host| host.knows.contains(id));
            revoked.exists &= is_known || written.contains(id);
        }
    }

    /// Lets all hosts come back and exchange everything.
    fn settle(&mut self) {
        for round in 0..6 {
            for index in 0..self.hosts.len() {
                self.hosts[index].is_up = true;
                self.read(index);
                let host = &mut self.hosts[index];
                host.exchange(&mut self.engine, usize::MAX, false, self.now_ms + round);
            }
        }
        self.now_ms += 6;
    }

    /// Returns whether a grant knows a revocation, or one that was made in its knowledge.
    fn knows(&self, known: &BTreeSet<u64>, id: u64) -> bool {
        let through = |known: &u64| self.knows(&self.revocations[known].knows, id);
        known.contains(&id) || known.iter().any(through)
    }

    fn faults(&self) -> Faults {
        let mut faults = Faults::default();
        let later_ms = self.now_ms + self.skew_ms + 1_000;
        for &source in &self.sources {
            let about: Vec<_> = self
                .revocations
                .iter()
                .filter(|(_, revoked)| revoked.source == source)
                .collect();
            let grants = self.grants.iter().filter(|grant| grant.source == source);
            let mut may_be_open = false;
            let mut must_be_open = false;
            let mut last_ms = 0;
            for grant in grants {
                last_ms = last_ms.max(grant.until_ms);
                let known = |id: u64| self.knows(&grant.knows, id);
                let is_revoked = about
                    .iter()
                    .any(|(id, revoked)| revoked.exists && !known(**id));
                may_be_open |= !is_revoked && self.now_ms < grant.until_ms + self.skew_ms;
                let counts = grant.is_read && about.iter().all(|(id, _)| grant.knows.contains(id));
                must_be_open |= counts && later_ms < grant.until_ms;
            }
            let open = |at_ms| {
                let open = self.hosts.iter().filter(|host| host.is_open(source, at_ms));
                open.count()
            };
            let is_open_somewhere = open(later_ms) > 0;
            let is_closed_somewhere = open(self.now_ms) < self.hosts.len();
            let is_certain = !self.uncertain.contains(&source);
            faults.differ += u32::from(is_certain && is_open_somewhere && is_closed_somewhere);
            faults.revoked_is_open += u32::from(open(self.now_ms) > 0 && !may_be_open);
            faults.lost += u32::from(is_certain && must_be_open && is_closed_somewhere);
            faults.too_long += u32::from(open(self.now_ms.max(last_ms + self.skew_ms)) > 0);
        }
        faults
    }
}

/// Runs a history; returns what is wrong at its end.
fn run<R: Rule>(seed: u64) -> Faults {
    let mut world = World::<R>::new(seed);
    for _ in 0..world.random.random_range(10..70) {
        world.step();
    }
    world.settle();
    world.faults()
}

/// Returns the number of histories; `KNOCK_HISTORIES` is another one.
fn histories() -> u64 {
    let text = env::var("KNOCK_HISTORIES").ok();
    text.map_or(10_000, |text| text.parse().unwrap())
}

/// Returns the first seed; `KNOCK_SEED` is another one.
fn first_seed() -> u64 {
    env::var("KNOCK_SEED").map_or(0, |text| text.parse().unwrap())
}

#[test]
fn hosts_agree_and_nothing_is_lost_or_brought_back() {
    in_parallel(first_seed(), histories(), |seed| {
        assert_eq!(run::<ByKnowledge>(seed), Faults::default(), "seed {seed}");
    });
}

/// Runs histories on all processors.
fn in_parallel(first: u64, count: u64, history: impl Fn(u64) + Sync) {
    let next = AtomicU64::new(first);
    let one_after_the_other = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= first + count {
                break;
            }
            history(seed);
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().unwrap().get() {
            scope.spawn(one_after_the_other);
        }
    });
}

/// A revocation ends what has a lower revision in the engine.
struct ByRevision;

impl Rule for ByRevision {
    fn ends(_: &Revocation, revoked: Option<u64>, _: &Grant, given: Option<u64>) -> bool {
        // What is not written yet will have the higher one.
        given.is_some_and(|given| revoked.is_none_or(|revoked| given < revoked))
    }
}

/// A revocation ends what was given earlier by the clocks of both hosts.
struct ByClock;

impl Rule for ByClock {
    fn ends(revocation: &Revocation, _: Option<u64>, grant: &Grant, _: Option<u64>) -> bool {
        grant.given_ms <= revocation.at_ms
    }
}

#[test]
fn other_rules_bring_back_what_was_revoked() {
    for (name, run) in [
        ("by revision", run::<ByRevision> as fn(u64) -> Faults),
        ("by clock", run::<ByClock>),
    ] {
        let brought_back: u32 = (0..500).map(|seed| run(seed).revoked_is_open).sum();
        assert!(brought_back > 0, "{name}");
    }
}
