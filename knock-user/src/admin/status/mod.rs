//! `knock-user status`: the state of each instance of this network namespace, whether or not its
//! process answers, and one exit code for all of them.

use std::io::Write;

use anyhow::Result;

use super::{
    command::{Caller, Command, NoFields, SubcommandOutcome},
    instances::{self, At, Layouts},
    text::LocalTime,
};
use crate::{
    daemon::Daemon,
    host::clock,
    kernel::{instance::Instance, leftovers},
};

mod answer;
mod client;
pub mod facts;
pub mod health;
mod offline;
mod served;
mod text;

pub use answer::{
    Answer, Counter, InterfaceAnswer, OneTimeStatus, Shortfall, Statuses, TablesAnswer,
};

/// Show what is protected and how, and the counters
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    #[command(flatten)]
    at: At,
}

impl Command for Args {
    const NAME: &'static str = "status";
    const ANSWER: &'static str = "status";
    type Request = NoFields;
    type Answer = Answer;

    fn at(&self) -> &At {
        &self.at
    }

    fn request(&self) -> NoFields {
        NoFields {}
    }

    fn render(answer: &Answer, time: &LocalTime) -> Vec<String> {
        text::render(answer, time)
    }

    fn answer<W: Write>(_: NoFields, daemon: &mut Daemon<W>, caller: Caller<Answer>) {
        caller.answer(served::status(daemon));
    }

    fn run(&self, out: &mut impl Write) -> Result<SubcommandOutcome> {
        leftovers::sweep();
        let all = instances::all(&self.at, Layouts::This);
        match all.and_then(|all| client::run(self, &all, out)) {
            Ok(true) => Ok(SubcommandOutcome::Done),
            Ok(false) => Ok(SubcommandOutcome::NotInForce),
            Err(error) => {
                // Programs that read objects get one.
                if self.at.json {
                    client::unknown(&error, out)?;
                }
                Err(error)
            }
        }
    }
}

/// Returns the status of a running instance without counters and connections, which are read from
/// tables; grants are counted as the ledger has them.
///
/// # Errors
/// The interfaces can't be listed.
pub(super) fn without_tables<W: Write>(daemon: &mut Daemon<W>) -> Result<Answer> {
    let grants = daemon.ledger.openings().count();
    let found = facts::MapContent {
        grants,
        blocked: daemon.blocks.valid(clock::boot_ms()),
        tables: served::tables(daemon),
        ..facts::MapContent::default()
    };
    served::judged(daemon, &found, grants)
}

/// Returns the status of an instance that no process runs for.
///
/// # Errors
/// As for [`Args::run`].
pub(super) fn offline(instance: &Instance) -> Result<Answer> {
    offline::status(instance, None)
}

/// Returns the status of an instance, whether or not its process answers.
///
/// # Errors
/// Neither the process nor the pins can be asked.
pub(super) fn of(at: &At, instance: &Instance) -> Result<Answer> {
    client::status(&Args { at: at.clone() }, instance)
}
