//! A simulated host: its kernel, its daemon and its link to the engine.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
};

use knock_user::{
    fleet::{Claim, Denial, FleetAction, Group, Member, NewRecord, Now, Record, Rule, Use},
    model::prefix::Prefix,
};

use super::{
    engine::{Answer, Change, Engine, Point},
    used::Used,
};

/// No grant lasts longer, in milliseconds.
pub(crate) const LONGEST_MS: u64 = 1_000_000;

/// A knock whose event the daemon has not read.
#[derive(Clone, Debug)]
struct Event {
    source: Prefix,
    at_ms: u64,
    until_ms: u64,
    truth: usize,
    /// What it used, and whether the door stays shut until that is claimed.
    used: Option<(Use, bool)>,
}

/// What a daemon reported about a claim.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Outcome {
    Claimed,
    Denied(Denial),
    UsedTwice,
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
    puts: Vec<(u64, Vec<NewRecord>, Option<u64>)>,
    /// The ids of the revocations that it applied, by the simulator's count.
    pub(crate) knows: BTreeSet<u64>,
    /// Received since it was last up to date.
    collected: Vec<u64>,
    is_following: bool,
    used: Used,
    /// What the daemon keeps over a restart.
    file: String,
    /// The sources that were let in at any time.
    pub(crate) let_in: BTreeSet<Prefix>,
    /// What the daemon reported about claims, by their ids.
    pub(crate) outcomes: Vec<(u64, Outcome)>,
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
            used: Used::default(),
            file: String::new(),
            let_in: BTreeSet::new(),
            outcomes: Vec::new(),
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
            used: None,
        });
    }

    /// Uses something that opens the door once: at once, or when it is claimed. `id` is that of the claim.
    /// Returns whether it is the first use at this host.
    pub(crate) fn use_once(
        &mut self,
        used: &Use,
        is_shut: bool,
        source: Prefix,
        at_ms: u64,
        until_ms: u64,
        id: u64,
    ) -> bool {
        if !self.used.insert(used) {
            return false;
        }
        if !is_shut {
            self.let_in(source, until_ms);
        }
        self.events.push(Event {
            source,
            at_ms,
            until_ms,
            truth: id as usize,
            used: Some((used.clone(), is_shut)),
        });
        true
    }

    fn let_in(&mut self, source: Prefix, until_ms: u64) {
        self.let_in.insert(source);
        let end = self.allow.entry(source).or_default();
        *end = until_ms.max(*end);
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
            let Event {
                source, until_ms, ..
            } = event;
            let group = &mut self.group;
            let actions = match event.used {
                None => group.given(DOOR, source, event.at_ms, until_ms, None, now),
                Some((used, is_shut)) => {
                    let claim = Claim {
                        id: event.truth as u64,
                        used,
                        door: DOOR.to_owned(),
                        source,
                        at_ms: event.at_ms,
                        until_ms,
                    };
                    match is_shut {
                        true => group.claim(claim, now),
                        false => group.used(claim, now),
                    }
                }
            };
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
    pub(crate) fn cut(&mut self) {
        self.cursor = None;
        self.is_following = false;
        self.group.lost();
        for (id, ..) in mem::take(&mut self.puts) {
            self.group.failed(id);
        }
    }

    /// Starts the daemon again: it has what the kernel and the engine have, and its file unless that is
    /// damaged. Returns the numbers of the grants whose events it read.
    pub(crate) fn restart(&mut self, is_damaged: bool, at_ms: u64) -> Vec<usize> {
        self.group = Self::group(&self.name);
        if is_damaged {
            self.file.truncate(self.file.len() / 2);
            assert!(self.group.restore(&self.file, "boot", "web").is_err());
            self.file.clear();
            self.knows.clear();
        } else if !self.file.is_empty() {
            self.group.restore(&self.file, "boot", "web").unwrap();
        }
        self.cursor = None;
        self.point = None;
        self.puts.clear();
        self.collected.clear();
        self.is_following = false;
        let given = self.read_events(at_ms);
        let now = self.now(at_ms);
        for (&source, &until_ms) in &self.allow {
            if until_ms > at_ms {
                self.group.adopt(DOOR, source, until_ms, now);
            }
        }
        given
    }

    /// Lets the daemon look for what has ended.
    pub(crate) fn expire(&mut self, at_ms: u64) {
        let actions = self.group.expire(self.now(at_ms));
        self.act(actions, at_ms);
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
            self.cut();
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
        for (id, records, replaces) in mem::take(&mut self.puts) {
            let found = engine.store.get(&records[0].place).cloned();
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
            let revision = engine.put(records);
            if loses {
                self.group.failed(id);
                continue;
            }
            let actions = self.group.written(id, revision, self.now(at_ms));
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
            let actions = self.group.deleted(&key, self.now(at_ms));
            self.act(actions, at_ms);
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
                } => self.let_in(source, until_ms),
                FleetAction::Close { source, .. } => {
                    self.allow.remove(&source);
                    self.closed_ms.insert(source, at_ms);
                }
                FleetAction::Put {
                    id,
                    records,
                    replaces,
                } => self.puts.push((id, records, replaces)),
                FleetAction::Claimed { claim } => {
                    self.let_in(claim.source, claim.until_ms);
                    self.outcomes.push((claim.id, Outcome::Claimed));
                }
                FleetAction::Denied { claim, because } => {
                    self.outcomes.push((claim.id, Outcome::Denied(because)));
                }
                FleetAction::UsedTwice { claim, .. } => {
                    self.outcomes.push((claim.id, Outcome::UsedTwice));
                }
                FleetAction::Spend { used, .. } => drop(self.used.insert(&used)),
                FleetAction::Beat { .. } => {}
                FleetAction::Mismatch { .. }
                | FleetAction::LockOut { .. }
                | FleetAction::Adopt { .. }
                | FleetAction::Confirm { .. }
                | FleetAction::Undo { .. }
                | FleetAction::Refused { .. } => {
                    panic!("{action:?}")
                }
            }
        }
        // A daemon writes its file before it does anything else.
        if let Some(text) = self.group.unsaved("boot", "web") {
            self.file = text;
        }
    }

    pub(crate) fn is_open(&self, source: Prefix, at_ms: u64) -> bool {
        self.allow.get(&source).is_some_and(|&end| at_ms < end)
    }
}
