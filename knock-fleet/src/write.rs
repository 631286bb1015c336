//! Writes and claims: asked again until there is an answer, which is settled exactly.

use std::{rc::Rc, time::Duration};

use knock_wire::{Condition, Found, Put, Report, Write};
use tokio::time::{Instant, sleep};

use crate::{
    engine::{Engine, Member, Outcome, Read, Record, Trouble},
    leases::Leases,
    members::Members,
    pauses::Pauses,
};

/// After this time without an answer a write has failed: the time of an election and two questions.
const LIMIT: Duration = Duration::from_secs(6);

/// Of the writes to a key that followed a lost one, this many are looked at.
const STEPS: usize = 64;

/// Writes to any member.
pub(crate) struct Writer<E: Engine> {
    pub(crate) members: Rc<Members<E>>,
    pub(crate) leases: Leases,
    pub(crate) pauses: Pauses,
}

/// What became of a write whose answer was lost.
enum Settled {
    Written(u64),
    NotWritten,
    Unknown,
}

impl<E: Engine> Writer<E> {
    /// Writes; returns the answer.
    pub(crate) async fn put(&self, put: &Put) -> Report {
        let id = put.id;
        let deadline = Instant::now() + LIMIT;
        let mut tried = Vec::new();
        let mut may_be_written = false;
        let failed = |may_be_written, reason| Report::Failed {
            id,
            may_be_written,
            reason,
        };
        loop {
            let number = self.members.for_write(&tried);
            tried.push(number);
            let reason = match self.once(number, put, may_be_written).await {
                Ok(answer) => return answer,
                Err(Trouble::Refused(reason)) => return failed(may_be_written, reason),
                Err(Trouble::NoLease) => Trouble::NoLease.to_string(),
                Err(Trouble::Lost(reason)) => {
                    may_be_written = true;
                    self.members.forget(number);
                    reason
                }
                Err(other @ (Trouble::Unreached(_) | Trouble::Compacted | Trouble::Future)) => {
                    self.members.forget(number);
                    other.to_string()
                }
            };
            if Instant::now() >= deadline {
                return failed(may_be_written, reason);
            }
            let rounds = tried.len() / self.members.count().max(1);
            sleep(self.pauses.after(u32::try_from(rounds).unwrap_or(0), false)).await;
        }
    }

    /// Asks a member once.
    async fn once(&self, number: usize, put: &Put, is_repeated: bool) -> Result<Report, Trouble> {
        let id = put.id;
        let member = self.members.get(number).await?;
        let leases = self.leases.of(&member, put).await?;
        let outcome = member.write(put, &leases).await;
        if outcome
            .as_ref()
            .is_err_and(|trouble| *trouble == Trouble::NoLease)
        {
            self.leases.forget(&leases);
        }
        let (found, condition) = match (outcome?, &put.condition) {
            (Outcome::Written(revision), _) => return Ok(Report::Written { id, revision }),
            (Outcome::Refused(found), Some(condition)) => (found, condition),
            (Outcome::Refused(_), None) => {
                return Err(Trouble::Refused(
                    "the engine refuses a write without a condition".to_owned(),
                ));
            }
        };
        let refused = |found: Read| Report::Refused {
            id,
            revision: found.revision,
            found: found.record.map(|record| Found {
                value: record.value,
                revision: record.revision,
            }),
        };
        Ok(
            match settle(&member, put, condition, &found, is_repeated).await? {
                Settled::Written(revision) => Report::Written { id, revision },
                Settled::NotWritten => refused(found),
                Settled::Unknown => Report::Failed {
                    id,
                    may_be_written: true,
                    reason: format!(
                        "{}: an answer was lost, and {} was written by others since",
                        self.members.url(number),
                        condition.key
                    ),
                },
            },
        )
    }
}

/// Finds out whether a write that is refused now had been done by an attempt whose answer was lost: its value, which
/// never repeats, is or was under its key.
async fn settle(
    member: &impl Member,
    put: &Put,
    condition: &Condition,
    found: &Read,
    is_repeated: bool,
) -> Result<Settled, Trouble> {
    let mine = |record: &Record, write: &Write| record.value == write.value;
    let Some(write) = put.writes.iter().find(|write| write.key == condition.key) else {
        // The condition is about another key than those that are written: the first of these shows it.
        let Some(write) = put.writes.first().filter(|_| is_repeated) else {
            return Ok(Settled::NotWritten);
        };
        let now = member.read(&write.key, None).await?.record;
        return Ok(match now.filter(|record| mine(record, write)) {
            Some(record) => Settled::Written(record.revision),
            None => Settled::Unknown,
        });
    };
    let mut record = found.record.clone();
    for step in 0..STEPS {
        record = match record {
            Some(record) if mine(&record, write) => return Ok(Settled::Written(record.revision)),
            // No answer was lost, so the first look decides.
            Some(_) | None if !is_repeated => return Ok(Settled::NotWritten),
            Some(record) if record.revision > condition.revision => {
                match member.read(&write.key, Some(record.revision - 1)).await {
                    Ok(read) => read.record,
                    Err(Trouble::Compacted) => return Ok(Settled::Unknown),
                    Err(other) => return Err(other),
                }
            }
            Some(_) => return Ok(Settled::NotWritten),
            // The record that a later one followed had no other before it, and there was to be none.
            None if condition.revision == 0 && step > 0 => return Ok(Settled::NotWritten),
            None => return Ok(Settled::Unknown),
        };
    }
    Ok(Settled::Unknown)
}
