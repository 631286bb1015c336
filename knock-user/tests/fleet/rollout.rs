//! A shared configuration reaches the hosts in stages, in random histories: good and bad ones, forged and old ones,
//! cuts, restarts.

use std::collections::{BTreeMap, BTreeSet};

use knock_user::fleet::{
    AdminKey, Facts, FleetAction, Group, Member, NewRecord, Now, Place, Presence, Record,
    SharedConfig, Stages,
};
use rand::{RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};

use super::{engine::Engine, first_seed, histories, in_parallel};

const WAIT_MS: u64 = 120_000;
const CONFIRM_MS: u64 = 60_000;
/// The engine removes the presence of a host that it has not seen for this long, in milliseconds.
const LEASE_MS: u64 = 30_000;

/// A host: the configuration in force, the one on the disk, and its link.
struct Node {
    group: Group,
    name: String,
    in_force: u64,
    confirmed: u64,
    /// All that were in force at any time.
    tried: BTreeSet<u64>,
    is_up: bool,
    cursor: Option<u64>,
    seen_ms: u64,
    beat: Option<Presence>,
    puts: Vec<(u64, Vec<NewRecord>, Option<u64>)>,
    file: String,
    /// In how many seconds the link is made again; 0 if it is not.
    link_again_s: u32,
}

struct World {
    random: StdRng,
    now_ms: u64,
    engine: Engine,
    nodes: Vec<Node>,
    admin: AdminKey,
    /// The configurations that cut hosts off, each with the hosts.
    broken: BTreeMap<u64, BTreeSet<String>>,
}

impl Node {
    fn new(index: usize) -> Self {
        let name = format!("host-{index:02}");
        Self {
            group: Self::group(&name),
            name,
            in_force: 0,
            confirmed: 0,
            tried: BTreeSet::new(),
            is_up: true,
            cursor: None,
            seen_ms: 0,
            beat: None,
            puts: Vec::new(),
            file: String::new(),
            link_again_s: 0,
        }
    }

    fn group(name: &str) -> Group {
        Group::new(Member {
            host: name.to_owned(),
            longest_ms: 86_400_000,
            grace_ms: 15_000,
        })
    }

    fn start(&mut self, admin: &AdminKey, at_ms: u64) {
        self.group = Self::group(&self.name);
        self.in_force = self.confirmed;
        if !self.file.is_empty() {
            self.group.restore(&self.file, "boot", "web").unwrap();
        }
        self.group.trust(admin.public(), "web", self.confirmed);
        self.cursor = None;
        self.beat = None;
        self.puts.clear();
        let actions = self.group.describe(Facts::default(), now(at_ms));
        self.act(actions, at_ms);
    }

    fn link_again(&mut self) {
        self.cursor = None;
        self.beat = None;
        self.puts.clear();
        self.group.restarted();
    }

    fn act(&mut self, actions: Vec<FleetAction>, at_ms: u64) {
        for action in actions {
            match action {
                FleetAction::Beat { presence, .. } => self.beat = Some(presence),
                FleetAction::Put {
                    id,
                    records,
                    replaces,
                } => self.puts.push((id, records, replaces)),
                FleetAction::Adopt { number, .. } => {
                    self.in_force = number;
                    self.tried.insert(number);
                    self.link_again_s = 3;
                    let actions = self.group.adopted(number, Ok(()), now(at_ms));
                    self.act(actions, at_ms);
                }
                FleetAction::Confirm { number } => {
                    assert_eq!(number, self.in_force);
                    assert!(number > self.confirmed, "numbers only grow");
                    self.confirmed = number;
                }
                FleetAction::Undo { .. } => {
                    self.in_force = self.confirmed;
                    self.link_again();
                }
                FleetAction::Refused { .. } => {}
                FleetAction::Open { .. }
                | FleetAction::Close { .. }
                | FleetAction::Claimed { .. }
                | FleetAction::Denied { .. }
                | FleetAction::UsedTwice { .. }
                | FleetAction::Spend { .. }
                | FleetAction::Mismatch { .. }
                | FleetAction::LockOut { .. } => panic!("{action:?}"),
            }
        }
        if let Some(text) = self.group.unsaved("boot", "web") {
            self.file = text;
        }
    }

    fn exchange(&mut self, engine: &mut Engine, at_ms: u64) {
        self.seen_ms = at_ms;
        let place = Place::Presence {
            host: self.name.clone(),
        };
        let is_there = engine.store.contains_key(&place);
        if let Some(presence) = self.beat.clone() {
            let record = Record::Presence(presence);
            let written = engine.store.get(&place);
            let is_same = written.is_some_and(|change| change.record.as_ref() == Some(&record));
            if !is_there || !is_same {
                engine.put(vec![NewRecord {
                    place,
                    record,
                    keep_ms: None,
                }]);
            }
        }
        let cursor = match self.cursor {
            Some(cursor) => cursor,
            None => {
                self.group.list("cluster", false);
                let changes: Vec<_> = engine.store.values().cloned().collect();
                for change in changes {
                    let key = format!("{:?}", change.place);
                    let record = change.record.map(|record| (change.place, record));
                    let actions = self.group.record(&key, record, change.revision, now(at_ms));
                    self.act(actions, at_ms);
                }
                let actions = self.group.listed(now(at_ms));
                self.cursor = Some(engine.revision);
                self.act(actions, at_ms);
                engine.revision
            }
        };
        for change in engine.changes(cursor, usize::MAX) {
            self.cursor = self.cursor.map(|cursor| cursor.max(change.revision));
            let key = format!("{:?}", change.place);
            let actions = match change.record {
                Some(record) => {
                    let record = Some((change.place, record));
                    self.group.record(&key, record, change.revision, now(at_ms))
                }
                None => self.group.deleted(&key, now(at_ms)),
            };
            self.act(actions, at_ms);
        }
        let actions = self.group.current(at_ms, now(at_ms));
        self.act(actions, at_ms);
        for (id, records, replaces) in std::mem::take(&mut self.puts) {
            let found = engine.store.get(&records[0].place).cloned();
            let found_at = found.as_ref().map_or(0, |change| change.revision);
            let actions = match replaces.is_none_or(|replaces| replaces == found_at) {
                true => {
                    let revision = engine.put(records);
                    self.group.written(id, revision, now(at_ms))
                }
                false => {
                    let record = found.and_then(|change| change.record);
                    self.group.refused(id, record, found_at, now(at_ms))
                }
            };
            self.act(actions, at_ms);
        }
    }
}

fn now(boot_ms: u64) -> Now {
    Now {
        boot_ms,
        wall_ms: super::WALL_MS + boot_ms,
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let count = random.random_range(3..=20);
        let admin = AdminKey::generate().unwrap();
        let mut world = Self {
            random,
            now_ms: 1_000,
            engine: Engine::default(),
            nodes: (0..count).map(Node::new).collect(),
            admin,
            broken: BTreeMap::new(),
        };
        for node in &mut world.nodes {
            node.start(&world.admin, world.now_ms);
        }
        world.run(5, false);
        world
    }

    /// Lets seconds pass.
    fn run(&mut self, seconds: u64, has_faults: bool) {
        for _ in 0..seconds {
            self.now_ms += 1_000;
            let now_ms = self.now_ms;
            if has_faults && self.random.random_bool(0.03) {
                let index = self.random.random_range(0..self.nodes.len());
                let node = &mut self.nodes[index];
                match self.random.random_bool(0.7) {
                    true => {
                        node.is_up = !node.is_up;
                        node.cursor = None;
                        node.group.lost();
                    }
                    false => node.start(&self.admin, now_ms),
                }
            }
            for node in &mut self.nodes {
                let actions = node.group.expire(now(now_ms));
                node.act(actions, now_ms);
                let broken = self.broken.get(&node.in_force);
                let is_cut = broken.is_some_and(|hosts| hosts.contains(&node.name));
                // Connections that exist continue.
                node.link_again_s = node.link_again_s.saturating_sub(1);
                if node.link_again_s == 1 {
                    node.link_again();
                }
                if node.is_up && (!is_cut || node.cursor.is_some()) {
                    node.exchange(&mut self.engine, now_ms);
                } else if node.seen_ms + LEASE_MS < now_ms {
                    let place = Place::Presence {
                        host: node.name.clone(),
                    };
                    if self.engine.store.contains_key(&place) {
                        self.engine.delete(&place);
                    }
                }
            }
        }
    }

    /// Lets a host push a configuration that was signed by a key.
    fn push(&mut self, key: &AdminKey, number: u64, first_percent: u8) {
        let stages = Stages {
            first_percent,
            wait_ms: WAIT_MS,
            confirm_ms: CONFIRM_MS,
        };
        let config = key.sign("web", number, format!("configuration {number}"), stages);
        self.put(config);
    }

    fn put(&mut self, config: SharedConfig) {
        let now_ms = self.now_ms;
        let node = &mut self.nodes[0];
        let actions = node.group.push(config, now(now_ms));
        node.act(actions, now_ms);
    }

    /// Lets configurations cut off these hosts.
    fn breaks(&mut self, number: u64, is_all: bool) {
        let names = self.nodes.iter().map(|node| node.name.clone());
        let mut names: Vec<_> = names.collect();
        if !is_all {
            let count = self.random.random_range(1..=names.len());
            names = names.sample(&mut self.random, count).cloned().collect();
        }
        self.broken.insert(number, names.into_iter().collect());
    }

    fn in_force(&self) -> BTreeSet<u64> {
        self.nodes.iter().map(|node| node.in_force).collect()
    }

    fn tried(&self, number: u64) -> usize {
        let tried = self.nodes.iter();
        tried.filter(|node| node.tried.contains(&number)).count()
    }

    fn quota(&self, percent: u8) -> usize {
        (self.nodes.len() * usize::from(percent))
            .div_ceil(100)
            .max(1)
    }
}

/// The seconds in which a configuration reaches all hosts: both stages, and the wait between them.
const ALL_S: u64 = 300;

#[test]
fn a_configuration_reaches_some_hosts_then_all() {
    in_parallel(first_seed(), histories() / 100, |seed| {
        let mut world = World::new(seed);
        let percent = world.random.random_range(1..=100);
        let key = AdminKey::parse(&world.admin.text()).unwrap();
        world.push(&key, 1, percent);
        world.run(WAIT_MS / 1_000 - 5, false);
        let quota = world.quota(percent);
        assert_eq!(world.tried(1), quota, "seed {seed}: the first ones");
        world.run(ALL_S, false);
        assert_eq!(world.in_force(), BTreeSet::from([1]), "seed {seed}: all");
        assert!(
            world.nodes.iter().all(|node| node.confirmed == 1),
            "seed {seed}"
        );
        world.push(&key, 3, 100);
        world.run(ALL_S, false);
        world.push(&key, 2, 100);
        world.run(ALL_S, false);
        assert_eq!(
            world.in_force(),
            BTreeSet::from([3]),
            "seed {seed}: the newest"
        );
    });
}

#[test]
fn a_bad_configuration_stops_with_those_that_tried_it_first() {
    in_parallel(first_seed(), histories() / 100, |seed| {
        let mut world = World::new(seed);
        let percent = world.random.random_range(1..=40);
        world.breaks(1, true);
        let key = AdminKey::parse(&world.admin.text()).unwrap();
        world.push(&key, 1, percent);
        world.run(2 * ALL_S, false);
        let quota = world.quota(percent);
        assert_eq!(world.tried(1), quota, "seed {seed}");
        assert_eq!(world.in_force(), BTreeSet::from([0]), "seed {seed}");
        // The next one is not held back by that.
        world.push(&key, 2, percent);
        world.run(ALL_S, false);
        assert_eq!(
            world.in_force(),
            BTreeSet::from([2]),
            "seed {seed}: the next one"
        );
    });
}

#[test]
fn no_host_keeps_a_bad_configuration_whatever_fails() {
    in_parallel(first_seed(), histories() / 100, |seed| {
        let mut world = World::new(seed);
        let percent = world.random.random_range(1..=100);
        let key = AdminKey::parse(&world.admin.text()).unwrap();
        let foreign = AdminKey::generate().unwrap();
        for number in 1..=3 {
            if world.random.random_bool(0.5) {
                let is_all = world.random.random_bool(0.5);
                world.breaks(number, is_all);
            }
            world.push(&key, number, percent);
            let seconds = world.random.random_range(50..400);
            world.run(seconds, true);
            world.push(&foreign, 90 + number, 100);
            world.run(5, true);
        }
        for node in &mut world.nodes {
            node.is_up = true;
        }
        world.run(2 * ALL_S, false);
        for node in &world.nodes {
            let broken = world.broken.get(&node.in_force);
            let is_cut = broken.is_some_and(|hosts| hosts.contains(&node.name));
            assert!(!is_cut, "seed {seed}: {} has {}", node.name, node.in_force);
            assert_eq!(node.in_force, node.confirmed, "seed {seed}: {}", node.name);
            assert!(node.tried.iter().all(|number| *number < 90), "seed {seed}");
        }
    });
}
