//! A group on the lines of `knock-fleet`: records are opened and sealed here.

use std::collections::BTreeMap;

use knock_wire::{
    Beat, Cause, Condition, Octets, Point, Put, Report, Request, Watch, Write, printable,
};

use super::{
    action::{FleetAction, NewRecord},
    group::{Group, Member},
    paths::Paths,
    presence::Presence,
    record::{Place, Record},
    seal::Keyring,
    times::Now,
};

/// The numbers of the writes of a group begin with the number of the group, above this many bits.
const NUMBER_BITS: u32 = 48;

/// What the daemon does for a group.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Step {
    /// Open or close a door here.
    Act(FleetAction),
    /// Send a line to `knock-fleet`.
    Send(Request),
}

/// The state of the link.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum LinkState {
    /// `knock-fleet` has not reported anything yet.
    Starting,
    /// A member of the engine is watched.
    Linked {
        /// Its URL.
        member: String,
        /// The version of the engine.
        version: String,
    },
    /// No member is watched.
    Lost {
        /// Why, and what to do.
        reason: String,
    },
}

/// Why a host is cut off from the engine.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CutOff {
    /// When the engine was reached last, in milliseconds since boot; none if it never was.
    pub since_ms: Option<u64>,
    /// Why, and what to do.
    pub reason: String,
}

/// A group, with its keys and its place in the engine.
#[derive(Clone, Debug)]
pub struct Exchange {
    group: Group,
    keyring: Keyring,
    name: String,
    paths: Paths,
    /// The number of the group at this host.
    number: u16,
    cluster: String,
    /// The newest record that was received, maybe as part of a list that is not complete.
    received: Option<Point>,
    /// The newest record of which all older ones were received, too.
    point: Option<Point>,
    /// The keys of writes with a condition that are under way, by their numbers.
    conditions: BTreeMap<u64, String>,
    state: LinkState,
    unreadable: u64,
}

impl Exchange {
    /// Begins without a link; `number` differs for each group of this host.
    pub fn new(name: &str, number: u16, member: Member, keyring: Keyring) -> Self {
        Self {
            group: Group::new(member),
            keyring,
            name: name.to_owned(),
            paths: Paths::new(name),
            number,
            cluster: String::new(),
            received: None,
            point: None,
            conditions: BTreeMap::new(),
            state: LinkState::Starting,
            unreadable: 0,
        }
    }

    /// Returns the group, to ask what it knows.
    pub const fn group(&self) -> &Group {
        &self.group
    }

    /// Returns the state of the link.
    pub const fn state(&self) -> &LinkState {
        &self.state
    }

    /// Returns since when this host is cut off and why; none while it is not.
    pub fn cut_off(&self, now: Now) -> Option<CutOff> {
        if now.boot_ms < self.group.good_until_ms() {
            return None;
        }
        let reason = match &self.state {
            LinkState::Starting => {
                "knock-fleet has not reached a member of the engine yet".to_owned()
            }
            LinkState::Linked { member, .. } => format!(
                "{member} answers, but no majority of the members confirms it: look at the other \
                 members, and at the disk and clock of this one"
            ),
            LinkState::Lost { reason } => reason.clone(),
        };
        Some(CutOff {
            since_ms: self.group.in_sync_ms,
            reason,
        })
    }

    /// Returns how many records could not be read: no key of the group sealed them for their place.
    pub const fn unreadable(&self) -> u64 {
        self.unreadable
    }

    /// Begins to follow the engine through a process that was started, the first one or another;
    /// returns the line to send after its settings.
    pub fn begin(&mut self) -> Request {
        self.group.restarted();
        self.conditions.clear();
        self.received.clone_from(&self.point);
        self.state = LinkState::Starting;
        Request::Watch(Watch {
            prefix: self.paths.prefix().to_owned(),
            after: self.point.clone(),
        })
    }

    /// Takes over what a daemon of this boot kept, before anything else.
    ///
    /// # Errors
    /// The text is damaged: returns how. Nothing was taken over.
    pub fn restore(&mut self, text: &str, boot: &str) -> Result<(), &'static str> {
        self.group.restore(text, boot, &self.name)
    }

    /// Returns what has to be kept over a restart, if it has changed since the last call.
    pub fn unsaved(&mut self, boot: &str) -> Option<String> {
        self.group.unsaved(boot, &self.name)
    }

    /// Lets the group act; returns what the daemon does for it.
    pub fn act(&mut self, act: impl FnOnce(&mut Group) -> Vec<FleetAction>) -> Vec<Step> {
        let actions = act(&mut self.group);
        self.steps(actions)
    }

    /// Takes a report; one about another group changes nothing.
    pub fn take(&mut self, report: Report, now: Now) -> Vec<Step> {
        let is_own = |prefix: &str| prefix == self.paths.prefix();
        let actions = match report {
            Report::Linked { member, version } => {
                self.state = LinkState::Linked {
                    member: printable(&member),
                    version: printable(&version),
                };
                Vec::new()
            }
            Report::Lost { reason } => {
                let reason = printable(&reason);
                self.state = LinkState::Lost { reason };
                self.group.lost();
                Vec::new()
            }
            Report::List {
                prefix,
                cause,
                cluster,
            } if is_own(&prefix) => {
                let is_other = match cause {
                    Cause::History => true,
                    Cause::Asked | Cause::Compacted | Cause::Overflow => false,
                };
                self.received = None;
                self.point = None;
                self.group.list(&cluster, is_other);
                self.cluster = cluster;
                Vec::new()
            }
            Report::Listed { prefix, .. } if is_own(&prefix) => {
                self.point.clone_from(&self.received);
                self.group.listed(now)
            }
            Report::Record {
                key,
                value,
                revision,
            } if key.starts_with(self.paths.prefix()) => {
                let record = self.open(&key, &value);
                self.unreadable += u64::from(record.is_none());
                let actions = self.group.record(&key, record, revision, now);
                self.note_received(key, value, revision);
                actions
            }
            Report::Deleted { key, .. } if key.starts_with(self.paths.prefix()) => {
                self.group.deleted(&key, now)
            }
            Report::Current { prefix, at_ms, .. } if is_own(&prefix) => {
                self.point.clone_from(&self.received);
                self.group.current(at_ms, now)
            }
            Report::Written { id, revision } => match self.own_number(id) {
                Some(own) => {
                    self.conditions.remove(&id);
                    self.group.written(own, revision, now)
                }
                None => Vec::new(),
            },
            Report::Refused { id, found, .. } => match (self.own_number(id), found) {
                (Some(own), found) => {
                    let path = self.conditions.remove(&id).unwrap_or_default();
                    let revision = found.as_ref().map_or(0, |found| found.revision);
                    let found = found.and_then(|found| self.open(&path, &found.value));
                    let record = found.map(|(_, record)| record);
                    self.group.refused(own, record, revision, now)
                }
                (None, _) => Vec::new(),
            },
            // A write that was done nevertheless is repeated, which changes nothing.
            Report::Failed { id, .. } => match self.own_number(id) {
                Some(own) => {
                    self.conditions.remove(&id);
                    self.group.failed(own);
                    Vec::new()
                }
                None => Vec::new(),
            },
            Report::List { .. }
            | Report::Listed { .. }
            | Report::Record { .. }
            | Report::Deleted { .. }
            | Report::Current { .. } => Vec::new(),
        };
        self.steps(actions)
    }

    /// Opens the value of a key; none if it is no record of the group for that key.
    fn open(&self, path: &str, value: &Octets) -> Option<(Place, Record)> {
        let record = self.keyring.open(path, &value.0)?;
        let place = self.paths.place(path, &record, &self.keyring)?;
        Some((place, record))
    }

    fn note_received(&mut self, key: String, value: Octets, revision: u64) {
        if self
            .received
            .as_ref()
            .is_none_or(|newest| newest.revision < revision)
        {
            self.received = Some(Point {
                cluster: self.cluster.clone(),
                key,
                value,
                revision,
            });
        }
    }

    /// Returns the group's number of a write, if it is one of this group.
    fn own_number(&self, id: u64) -> Option<u64> {
        let is_own = id >> NUMBER_BITS == u64::from(self.number);
        is_own.then_some(id & ((1 << NUMBER_BITS) - 1))
    }

    fn steps(&mut self, actions: Vec<FleetAction>) -> Vec<Step> {
        let mut steps = Vec::new();
        for action in actions {
            match action {
                FleetAction::Put {
                    id,
                    records,
                    replaces,
                } => match self.put(id, &records, replaces) {
                    Some(put) => steps.push(Step::Send(Request::Put(put))),
                    // Without random numbers it can't be sealed now. It is repeated later.
                    None => self.group.failed(id),
                },
                action @ (FleetAction::Open { .. }
                | FleetAction::Close { .. }
                | FleetAction::Claimed { .. }
                | FleetAction::Denied { .. }
                | FleetAction::UsedTwice { .. }
                | FleetAction::Spend { .. }
                | FleetAction::Mismatch { .. }
                | FleetAction::LockOut { .. }
                | FleetAction::Adopt { .. }
                | FleetAction::Confirm { .. }
                | FleetAction::Undo { .. }
                | FleetAction::Refused { .. }) => steps.push(Step::Act(action)),
                FleetAction::Beat { presence, keep_ms } => {
                    // Without random numbers it is written when it changes.
                    steps.extend(self.beat(presence, keep_ms).map(Step::Send));
                }
            }
        }
        steps
    }

    fn beat(&self, presence: Presence, keep_ms: u64) -> Option<Request> {
        let host = self.group.member.host.clone();
        let key = self.paths.of(&Place::Presence { host }, &self.keyring);
        let value = self.keyring.seal(&key, &Record::Presence(presence)).ok()?;
        Some(Request::Beat(Beat {
            key,
            value: Octets(value),
            keep_s: keep_ms.div_ceil(1_000),
        }))
    }

    fn put(&mut self, id: u64, records: &[NewRecord], replaces: Option<u64>) -> Option<Put> {
        let writes = records.iter().map(|new| {
            let key = self.paths.of(&new.place, &self.keyring);
            let value = self.keyring.seal(&key, &new.record).ok()?;
            Some(Write {
                key,
                value: Octets(value),
                keep_s: new.keep_ms.map(|keep_ms| keep_ms.div_ceil(1_000)),
            })
        });
        let writes: Vec<_> = writes.collect::<Option<_>>()?;
        let key = writes.first()?.key.clone();
        let id = id | u64::from(self.number) << NUMBER_BITS;
        let condition = replaces.map(|revision| Condition {
            key: key.clone(),
            revision,
        });
        if condition.is_some() {
            self.conditions.insert(id, key);
        }
        Some(Put {
            id,
            condition,
            writes,
        })
    }
}
