//! What opens a door once is used once in the group, in random histories: several claimants, lost answers,
//! cuts, restarts, deletions.

use std::collections::{BTreeMap, BTreeSet};

use knock_user::{
    fleet::{ByKnowledge, Grant, Mark, Place, Revocation, Rule, Use, UseRecord},
    model::prefix::Prefix,
};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::{
    engine::Engine,
    first_seed, histories,
    host::{Host, Outcome},
    in_parallel,
};

/// How long grants last, in milliseconds: to the end of a history.
const OPEN_FOR_MS: u64 = 900_000;

/// A use that the kernel side of a host accepted.
struct Attempt {
    used: Use,
    host: usize,
    source: Prefix,
    is_shut: bool,
    /// Whether the daemon was started again before it had an outcome.
    is_forgotten: bool,
}

/// What is wrong at the end of a history.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Faults {
    /// Uses that opened the door for several sources, although each was to be claimed.
    twice: u32,
    /// Uses that opened doors at several hosts, of which not all but one were reported.
    unreported: u32,
    /// Doors that are open although the use was another one's.
    not_closed: u32,
    /// Claims that opened a door at some hosts only.
    differ: u32,
    /// Claims without an outcome.
    undecided: u32,
    /// Uses that opened nothing although nothing failed.
    lost: u32,
    /// Lines that were used after a later one.
    backwards: u32,
}

struct World<R> {
    random: StdRng,
    now_ms: u64,
    engine: Engine,
    hosts: Vec<Host<R>>,
    attempts: BTreeMap<u64, Attempt>,
    /// Whether anything fails in this history.
    is_healthy: bool,
    line: u32,
    mark: u64,
}

impl<R: Rule> World<R> {
    fn new(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let count = random.random_range(3..=10);
        let is_healthy = random.random_bool(0.2);
        let hosts = (0..count).map(|index| Host::new(index, super::WALL_MS));
        Self {
            random,
            now_ms: 1_000,
            engine: Engine::default(),
            hosts: hosts.collect(),
            attempts: BTreeMap::new(),
            is_healthy,
            line: 1,
            mark: 1,
        }
    }

    fn step(&mut self) {
        self.now_ms += self.random.random_range(1..2_000);
        let now_ms = self.now_ms;
        let index = self.random.random_range(0..self.hosts.len());
        match self.random.random_range(0..100) {
            0..60 => self.use_something(),
            60..72 if !self.is_healthy => {
                let host = &mut self.hosts[index];
                host.is_up = !host.is_up;
                host.cut();
            }
            72..80 if !self.is_healthy => self.restart(index),
            80..84 => self.engine.compact(),
            84..92 if !self.is_healthy => self.delete(),
            _ => {}
        }
        for index in 0..self.hosts.len() {
            let host = &mut self.hosts[index];
            if self.is_healthy || self.random.random_bool(0.7) {
                host.read_events(now_ms);
            }
            host.expire(now_ms);
            if self.is_healthy || self.random.random_bool(0.7) {
                let most = self.random.random_range(0..20);
                let loses = !self.is_healthy && self.random.random_bool(0.2);
                host.exchange(&mut self.engine, most, loses, now_ms);
            }
        }
    }

    /// Lets some hosts get the same knocks or packet at about the same time.
    fn use_something(&mut self) {
        let is_shut = self.random.random_bool(0.6);
        let of = if is_shut { "shut" } else { "open" };
        let mark = match self.random.random_bool(0.5) {
            true => {
                self.line += self.random.random_range(0..3);
                Mark::Line {
                    line: self.line,
                    check: 7,
                }
            }
            false => {
                self.mark += u64::from(self.random.random_bool(0.7));
                Mark::Once {
                    mark: [0, self.mark],
                    keep_ms: 1_000_000,
                }
            }
        };
        let used = Use {
            of: of.to_owned(),
            mark,
        };
        for _ in 0..self.random.random_range(1..4) {
            let index = self.random.random_range(0..self.hosts.len());
            let id = self.attempts.len() as u64 + 1;
            let source: Prefix = format!("10.0.{}.{}", id / 256, id % 256).parse().unwrap();
            let until_ms = self.now_ms + OPEN_FOR_MS;
            let host = &mut self.hosts[index];
            if host.use_once(&used, is_shut, source, self.now_ms, until_ms, id) {
                let attempt = Attempt {
                    used: used.clone(),
                    host: index,
                    source,
                    is_shut,
                    is_forgotten: false,
                };
                self.attempts.insert(id, attempt);
            }
        }
    }

    fn restart(&mut self, index: usize) {
        let is_damaged = self.random.random_bool(0.3);
        self.hosts[index].restart(is_damaged, self.now_ms);
        for (id, attempt) in &mut self.attempts {
            let outcomes = &self.hosts[index].outcomes;
            let has_outcome = outcomes.iter().any(|(other, _)| other == id);
            attempt.is_forgotten |=
                attempt.host == index && !has_outcome && (is_damaged || attempt.is_shut);
        }
    }

    /// Deletes the record of a use that all hosts have.
    fn delete(&mut self) {
        if !self.hosts.iter().all(|host| host.is_up) {
            return;
        }
        self.exchange_all();
        let uses = self.engine.store.keys();
        let uses: Vec<_> = uses
            .filter(|place| matches!(place, Place::Line { .. } | Place::Once { .. }))
            .cloned()
            .collect();
        if !uses.is_empty() {
            let place = &uses[self.random.random_range(0..uses.len())];
            self.engine.delete(place);
        }
    }

    fn exchange_all(&mut self) {
        for _ in 0..2 {
            for host in &mut self.hosts {
                host.exchange(&mut self.engine, usize::MAX, false, self.now_ms);
            }
        }
    }

    /// Lets all hosts come back and exchange everything.
    fn settle(&mut self) {
        for _ in 0..6 {
            self.now_ms += 1;
            for host in &mut self.hosts {
                host.is_up = true;
                host.read_events(self.now_ms);
                host.exchange(&mut self.engine, usize::MAX, false, self.now_ms);
                host.expire(self.now_ms);
            }
        }
    }

    fn outcome(&self, id: u64) -> Option<&Outcome> {
        let host = &self.hosts[self.attempts[&id].host];
        let mut outcomes = host.outcomes.iter();
        outcomes
            .find(|(other, _)| *other == id)
            .map(|(_, outcome)| outcome)
    }

    fn faults(&self) -> Faults {
        let mut faults = Faults {
            backwards: self.engine.backwards,
            ..Faults::default()
        };
        let uses: BTreeSet<_> = self
            .attempts
            .values()
            .map(|attempt| &attempt.used)
            .collect();
        let open_at = |source| {
            let open = self.hosts.iter();
            open.filter(|host| host.is_open(source, self.now_ms))
                .count()
        };
        for used in uses {
            let attempts = self.attempts.iter();
            let attempts = attempts.filter(|(_, attempt)| attempt.used == *used);
            let was_let_in = |attempt: &Attempt| {
                let mut hosts = self.hosts.iter();
                hosts.any(|host| host.let_in.contains(&attempt.source))
            };
            let mut opened = 0;
            let mut unreported = 0;
            let mut is_shut = false;
            for (&id, attempt) in attempts {
                is_shut = attempt.is_shut;
                let outcome = self.outcome(id);
                let open = open_at(attempt.source);
                opened += u32::from(was_let_in(attempt));
                match outcome {
                    None if attempt.is_shut => {
                        faults.undecided += u32::from(!attempt.is_forgotten);
                    }
                    Some(Outcome::UsedTwice) => faults.not_closed += u32::from(open > 0),
                    None => unreported += u32::from(!attempt.is_forgotten),
                    Some(Outcome::Claimed | Outcome::Denied(_)) => {}
                }
                let is_certain = !attempt.is_forgotten;
                faults.differ += u32::from(is_certain && open > 0 && open < self.hosts.len());
            }
            faults.twice += u32::from(is_shut && opened > 1);
            faults.unreported += u32::from(!is_shut && unreported > 1);
            let is_void = matches!(used.mark, Mark::Line { .. });
            faults.lost += u32::from(self.is_healthy && !is_void && opened == 0);
        }
        faults
    }
}

/// Runs a history; returns what is wrong at its end.
fn run<R: Rule>(seed: u64) -> Faults {
    let mut world = World::<R>::new(seed);
    // All are up to date before the first use.
    world.exchange_all();
    for _ in 0..world.random.random_range(5..50) {
        world.step();
    }
    world.settle();
    world.faults()
}

#[test]
fn nothing_is_used_twice_in_a_group() {
    in_parallel(first_seed(), histories(), |seed| {
        assert_eq!(run::<ByKnowledge>(seed), Faults::default(), "seed {seed}");
    });
}

/// A claim is written whatever the engine has.
struct Unconditional;

impl Rule for Unconditional {
    fn ends(revocation: &Revocation, revoked: Option<u64>, grant: &Grant, at: Option<u64>) -> bool {
        ByKnowledge::ends(revocation, revoked, grant, at)
    }

    fn replaces(_: u64) -> Option<u64> {
        None
    }
}

/// A claim that the engine has is the one of this host, whose answer was lost.
struct Trusting;

impl Rule for Trusting {
    fn ends(revocation: &Revocation, revoked: Option<u64>, grant: &Grant, at: Option<u64>) -> bool {
        ByKnowledge::ends(revocation, revoked, grant, at)
    }

    fn is_own(_: &UseRecord, _: u64) -> bool {
        true
    }
}

#[test]
fn other_rules_let_something_be_used_twice() {
    for (name, run) in [
        ("unconditional", run::<Unconditional> as fn(u64) -> Faults),
        ("trusting", run::<Trusting>),
    ] {
        let twice: u32 = (0..500).map(|seed| run(seed).twice).sum();
        assert!(twice > 0, "{name}");
    }
}
