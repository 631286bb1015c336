//! An engine in memory, whose members fail as a test demands.

use std::{cell::RefCell, collections::VecDeque, rc::Rc};

use knock_wire::Put;
use tokio::sync::Notify;

use super::{Change, Changes, Engine, Member, Message, Outcome, Page, Read, Record, Trouble};

/// What happens to a write.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// It is done, and its answer is lost; then others write these keys and values.
    AnswerLost(Vec<(&'static str, &'static str)>),
    /// It is lost before it is done; then others write these.
    Lost(Vec<(&'static str, &'static str)>),
    /// Its lease has ended.
    NoLease,
}

/// The records of all members, and how they fail.
#[derive(Debug, Default)]
pub(crate) struct World {
    pub(crate) history: Vec<Change>,
    pub(crate) compacted: u64,
    /// What happens to the next writes.
    pub(crate) faults: VecDeque<Fault>,
    /// Members that answer questions and deliver no changes.
    pub(crate) silent: Vec<usize>,
    /// Leases that were made, with their seconds.
    pub(crate) leases: Vec<u64>,
    /// How many pages were read.
    pub(crate) pages: usize,
    changed: Rc<Notify>,
}

impl World {
    fn revision(&self) -> u64 {
        self.history.last().map_or(1, Change::revision)
    }

    /// Puts records in one transaction.
    pub(crate) fn put(&mut self, records: &[(&str, &[u8], i64)]) -> u64 {
        let revision = self.revision() + 1;
        for (key, value, lease) in records {
            let record = Record::new(key.as_bytes(), value, revision, *lease);
            self.history.push(Change::Put(record));
        }
        self.changed.notify_waiters();
        revision
    }

    fn at(&self, key: &str, revision: u64) -> Option<Record> {
        let changes = self.history.iter().rev();
        let mut changes = changes.skip_while(|change| change.revision() > revision);
        changes.find_map(|change| match change {
            Change::Put(record) => (record.key == key).then(|| record.clone()),
            Change::Deleted { .. } => None,
        })
    }

    fn read(&self, key: &str, revision: Option<u64>) -> Result<Read, Trouble> {
        match revision {
            Some(revision) if revision < self.compacted => Err(Trouble::Compacted),
            Some(revision) if revision > self.revision() => Err(Trouble::Future),
            Some(_) | None => Ok(Read {
                cluster: "memory".to_owned(),
                revision: self.revision(),
                record: self.at(key, revision.unwrap_or(u64::MAX)),
            }),
        }
    }

    fn write(&mut self, put: &Put, leases: &[Option<i64>]) -> Result<Outcome, Trouble> {
        if let Some(condition) = &put.condition {
            let found = self.read(&condition.key, None)?;
            let revision = found.record.as_ref().map_or(0, |record| record.revision);
            if revision != condition.revision {
                return Ok(Outcome::Refused(found));
            }
        }
        let writes = put.writes.iter().zip(leases);
        let writes: Vec<_> = writes
            .map(|(write, lease)| {
                (
                    write.key.as_str(),
                    write.value.0.as_slice(),
                    lease.unwrap_or(0),
                )
            })
            .collect();
        Ok(Outcome::Written(self.put(&writes)))
    }
}

/// The engine.
#[derive(Clone, Debug)]
pub(crate) struct Memory {
    urls: Vec<String>,
    pub(crate) world: Rc<RefCell<World>>,
}

impl Memory {
    /// Returns an engine with this many members.
    pub(crate) fn new(members: usize) -> Self {
        Self {
            urls: (0..members)
                .map(|number| format!("memory:{number}"))
                .collect(),
            world: Rc::default(),
        }
    }
}

impl Engine for Memory {
    type Member = MemoryMember;

    fn urls(&self) -> &[String] {
        &self.urls
    }

    async fn connect(&self, number: usize) -> Result<MemoryMember, Trouble> {
        Ok(MemoryMember {
            number,
            world: Rc::clone(&self.world),
        })
    }
}

/// A connection.
#[derive(Clone, Debug)]
pub(crate) struct MemoryMember {
    number: usize,
    world: Rc<RefCell<World>>,
}

impl Member for MemoryMember {
    type Changes = MemoryChanges;

    fn version(&self) -> &str {
        "1"
    }

    async fn page(
        &self,
        prefix: &str,
        _after: Option<&[u8]>,
        _revision: Option<u64>,
    ) -> Result<Page, Trouble> {
        let mut world = self.world.borrow_mut();
        world.pages += 1;
        let mut keys: Vec<_> = world
            .history
            .iter()
            .filter_map(|change| match change {
                Change::Put(record) => record.key.starts_with(prefix).then(|| record.key.clone()),
                Change::Deleted { .. } => None,
            })
            .collect();
        keys.sort();
        keys.dedup();
        Ok(Page {
            cluster: "memory".to_owned(),
            revision: world.revision(),
            records: keys
                .iter()
                .filter_map(|key| world.at(key, u64::MAX))
                .collect(),
            rest: None,
        })
    }

    async fn read(&self, key: &str, revision: Option<u64>) -> Result<Read, Trouble> {
        self.world.borrow().read(key, revision)
    }

    async fn newest(&self, _prefix: &str) -> Result<Read, Trouble> {
        let world = self.world.borrow();
        let record = world.history.last().and_then(|change| match change {
            Change::Put(record) => Some(record.clone()),
            Change::Deleted { .. } => None,
        });
        Ok(Read {
            cluster: "memory".to_owned(),
            revision: world.revision(),
            record,
        })
    }

    async fn watch(&self, _prefix: &str, from: u64) -> Result<MemoryChanges, Trouble> {
        Ok(MemoryChanges {
            member: self.clone(),
            from,
            questions: 0,
        })
    }

    async fn write(&self, put: &Put, leases: &[Option<i64>]) -> Result<Outcome, Trouble> {
        let mut world = self.world.borrow_mut();
        let lost = || Trouble::Lost("the answer is lost".to_owned());
        match world.faults.pop_front() {
            None => world.write(put, leases),
            Some(Fault::NoLease) => Err(Trouble::NoLease),
            Some(Fault::AnswerLost(others)) => {
                world.write(put, leases)?;
                for (key, value) in others {
                    world.put(&[(key, value.as_bytes(), 0)]);
                }
                Err(lost())
            }
            Some(Fault::Lost(others)) => {
                for (key, value) in others {
                    world.put(&[(key, value.as_bytes(), 0)]);
                }
                Err(lost())
            }
        }
    }

    async fn lease(&self, seconds: u64) -> Result<i64, Trouble> {
        let mut world = self.world.borrow_mut();
        world.leases.push(seconds);
        Ok(i64::try_from(world.leases.len()).unwrap())
    }

    async fn keep_alive(&self, _lease: i64) -> Result<(), Trouble> {
        Ok(())
    }
}

/// The changes that one watch delivers.
#[derive(Debug)]
pub(crate) struct MemoryChanges {
    member: MemoryMember,
    from: u64,
    questions: usize,
}

impl Changes for MemoryChanges {
    async fn next(&mut self) -> Result<Message, Trouble> {
        loop {
            let changed = Rc::clone(&self.member.world.borrow().changed);
            let changed = changed.notified();
            {
                let world = self.member.world.borrow();
                let is_silent = world.silent.contains(&self.member.number);
                let mut new: Vec<_> = world
                    .history
                    .iter()
                    .filter(|change| change.revision() >= self.from)
                    .cloned()
                    .collect();
                if !is_silent && !new.is_empty() {
                    // A message has whole revisions, and not all that wait.
                    let last = new.get(99).or(new.last()).map_or(0, Change::revision);
                    new.retain(|change| change.revision() <= last);
                    self.from = last + 1;
                    return Ok(Message::Changes(new));
                }
                if self.questions > 0 {
                    self.questions -= 1;
                    return Ok(Message::Progress);
                }
            }
            changed.await;
        }
    }

    async fn ask(&mut self) -> Result<(), Trouble> {
        self.questions += 1;
        Ok(())
    }
}
