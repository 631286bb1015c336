//! A simulated host: its kernel, its daemon and its link to the engine.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
};

use knock_user::{
    fleet::{FleetAction, Group, Member, Now, Place, Record, Rule},
    model::prefix::Prefix,
};

use super::engine::{Answer, Change, Engine, Point};

/// No grant lasts longer, in milliseconds.
pub(crate) const LONGEST_MS: u64 = 1_000_000;

/// A knock whose event the daemon has not read.
#[derive(Clone, Debug)]
struct Event {
    source: Prefix,
    at_ms: u64,
    until_ms: u64,
    truth: usize,
}

#[derive(Debug)]
pub(crate) struct Host<R> {
    group: Group<R>,
    pub(crate) name: String,
    /// The wall clock minus the boot clock, in milliseconds.
    offset_ms: u64,
    /// The allow map.
    pub(crate) allow: BTreeMap<Prefix, u64>,
    closed_ms: BTreeMap<Prefix, u64>,
    events: Vec<Event>,
    pub(crate) is_up: bool,
    /// Up to where changes were delivered; none without a connection.
    cursor: Option<u64>,
    point: Option<Point>,
    puts: Vec<(u64, Place, Record, Option<u64>)>,
    /// The ids of the revocations that it applied, by the simulator's count.
    pub(crate) knows: BTreeSet<u64>,
    /// Received since it was last up to date.
    collected: Vec<u64>,
    is_following: bool,
}

/// The door of all grants.
pub(crate) const DOOR: &str = "ssh";

impl<R: Rule> Host<R> {
    pub(crate) fn new(index: usize, offset_ms: u64) -> Self {
        let name = format!("host-{index:02}");
        Self {
            group: Self::group(&name),
            name,
            offset_ms,
            allow: BTreeMap::new(),
            closed_ms: BTreeMap::new(),
            events: Vec::new(),
            is_up: true,
            cursor: None,
            point: None,
            puts: Vec::new(),
            knows: BTreeSet::new(),
            collected: Vec::new(),
            is_following: false,
        }
    }

    fn group(name: &str) -> Group<R> {
        Group::new(Member {
            host: name.to_owned(),
            longest_ms: LONGEST_MS,
            grace_ms: 15_000,
        })
    }

    fn now(&self, at_ms: u64) -> Now {
        Now {
            boot_ms: at_ms,
            wall_ms: at_ms + self.offset_ms,
        }
    }

    /// Lets a source in that has knocked; the daemon reads the event later.
    pub(crate) fn knock(&mut self, source: Prefix, at_ms: u64, until_ms: u64, truth: usize) {
        let end = self.allow.entry(source).or_default();
        *end = until_ms.max(*end);
        self.events.push(Event {
            source,
            at_ms,
            until_ms: *end,
            truth,
        });
    }

    /// Lets the daemon read its events; returns the numbers of the grants, which are given now.
    pub(crate) fn read_events(&mut self, at_ms: u64) -> Vec<usize> {
        let mut given = Vec::new();
        for event in mem::take(&mut self.events) {
            // The ledger does not report what has been closed since.
            if self.closed_ms.get(&event.source) >= Some(&event.at_ms) {
                continue;
            }
            let now = self.now(at_ms);
            let actions =
                self.group
                    .given(DOOR, event.source, event.at_ms, event.until_ms, None, now);
            given.push(event.truth);
            self.act(actions, at_ms);
        }
        given
    }

    pub(crate) fn revoke(&mut self, source: Prefix, id: u64, at_ms: u64) {
        let now = self.now(at_ms);
        let actions = self.group.revoke(Some(DOOR), source, id, None, now);
        self.knows.insert(id);
        self.act(actions, at_ms);
    }

    /// Ends the link; writes without an answer may have been done.
    pub(crate) fn cut(&mut self, at_ms: u64) {
        self.cursor = None;
        self.is_following = false;
        self.group.lost();
        for (id, ..) in mem::take(&mut self.puts) {
            let actions = self.group.written(id, None, self.now(at_ms));
            self.act(actions, at_ms);
        }
    }

    /// Starts the daemon again: it has what the kernel and the engine have.
    pub(crate) fn restart(&mut self, at_ms: u64) {
        self.group = Self::group(&self.name);
        self.cursor = None;
        self.point = None;
        self.puts.clear();
        self.knows.clear();
        self.collected.clear();
        self.is_following = false;
        self.read_events(at_ms);
        let now = self.now(at_ms);
        for (&source, &until_ms) in &self.allow {
            if until_ms > at_ms {
                self.group.adopt(DOOR, source, until_ms, now);
            }
        }
    }

    /// Returns whether the engine lacks something that this host made.
    pub(crate) fn has_unwritten(&self) -> bool {
        self.group.unwritten() > 0
    }

    /// Exchanges at most `most` changes and all writes with the engine; `loses` an answer.
    pub(crate) fn exchange(&mut self, engine: &mut Engine, most: usize, loses: bool, at_ms: u64) {
        if !self.is_up {
            return;
        }
        if self.cursor.is_some_and(|cursor| !engine.has_after(cursor)) {
            self.cut(at_ms);
        }
        if self.cursor.is_none() {
            match engine.connect(self.point.as_ref()) {
                Answer::Resumed => {
                    self.cursor = self.point.as_ref().map(|point| point.revision);
                }
                Answer::List(records, is_other) => {
                    self.group.list("cluster", is_other);
                    self.collected.clear();
                    self.point = None;
                    for change in records {
                        self.deliver(change, at_ms);
                    }
                    self.caught_up();
                    self.cursor = Some(engine.revision);
                    let actions = self.group.listed(self.now(at_ms));
                    self.act(actions, at_ms);
                }
            }
        }
        let Some(cursor) = self.cursor else {
            return;
        };
        let changes = engine.changes(cursor, most);
        let reached = changes.last().map_or(cursor, |change| change.revision);
        self.cursor = Some(reached);
        for change in changes {
            self.deliver(change, at_ms);
        }
        self.caught_up();
        let actions = self.group.current(at_ms, self.now(at_ms));
        self.act(actions, at_ms);
        for (id, place, record, replaces) in mem::take(&mut self.puts) {
            let found = engine.store.get(&place).cloned();
            let found_at = found.as_ref().map_or(0, |change| change.revision);
            if replaces.is_some_and(|replaces| replaces != found_at) {
                let found = found.and_then(|change| change.record);
                if let Some(Record::Revocation(revocation)) = &found {
                    self.knows.extend(&revocation.ids);
                }
                let actions = self.group.refused(id, found, found_at, self.now(at_ms));
                self.act(actions, at_ms);
                continue;
            }
            let revision = engine.put(place, record);
            let answer = (!loses).then_some(revision);
            let actions = self.group.written(id, answer, self.now(at_ms));
            self.act(actions, at_ms);
        }
    }

    fn caught_up(&mut self) {
        self.is_following = true;
        self.knows.extend(mem::take(&mut self.collected));
    }

    fn deliver(&mut self, change: Change, at_ms: u64) {
        let key = format!("{:?}", change.place);
        let Some(record) = change.record else {
            self.group.deleted(&key);
            return;
        };
        if self
            .point
            .as_ref()
            .is_none_or(|point| point.revision < change.revision)
        {
            self.point = Some(Point {
                revision: change.revision,
                mark: change.mark,
            });
        }
        if let Record::Revocation(revocation) = &record {
            match self.is_following {
                true => self.knows.extend(&revocation.ids),
                false => self.collected.extend(&revocation.ids),
            }
        }
        let record = Some((change.place, record));
        let now = self.now(at_ms);
        let actions = self.group.record(&key, record, change.revision, now);
        self.act(actions, at_ms);
    }

    fn act(&mut self, actions: Vec<FleetAction>, at_ms: u64) {
        for action in actions {
            match action {
                FleetAction::Open {
                    source, until_ms, ..
                } => {
                    let end = self.allow.entry(source).or_default();
                    *end = until_ms.max(*end);
                }
                FleetAction::Close { source, .. } => {
                    self.allow.remove(&source);
                    self.closed_ms.insert(source, at_ms);
                }
                FleetAction::Put {
                    id,
                    place,
                    record,
                    replaces,
                    ..
                } => self.puts.push((id, place, record, replaces)),
            }
        }
    }

    pub(crate) fn is_open(&self, source: Prefix, at_ms: u64) -> bool {
        self.allow.get(&source).is_some_and(|&end| at_ms < end)
    }
}
