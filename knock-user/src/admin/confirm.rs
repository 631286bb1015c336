//! `knock-user confirm`.

use std::io::Write;

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

use super::{
    command::{Caller, Command, NoFields},
    instances::{self, At},
    text::LocalTime,
};
use crate::{
    daemon::Daemon,
    host::clock::Clock,
    kernel::{instance::Instance, registry::Registry},
};

/// Keep what was started or reloaded with --confirm
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    #[command(flatten)]
    at: At,
}

/// The answer.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Answer {
    /// Whether there was something to confirm.
    pub was_on_trial: bool,
}

impl Command for Args {
    const NAME: &'static str = "confirm";
    const ANSWER: &'static str = "confirmed";
    type Request = NoFields;
    type Answer = Answer;

    fn at(&self) -> &At {
        &self.at
    }

    fn request(&self) -> NoFields {
        NoFields {}
    }

    fn render(answer: &Answer, _: &LocalTime) -> Vec<String> {
        let line = match answer.was_on_trial {
            true => "confirmed: the configuration stays in force",
            false => "there is nothing to confirm",
        };
        vec![line.to_owned()]
    }

    fn answer<W: Write>(_: NoFields, daemon: &mut Daemon<W>, caller: Caller<Answer>) {
        let confirmed = daemon.confirm();
        caller.answer(confirmed.map(|()| Answer { was_on_trial: true }));
    }

    fn offline(&self, instance: &Instance) -> Result<Answer> {
        bail!("{}", unconfirmable(instance))
    }
}

/// Returns why nothing can be confirmed where no process runs.
fn unconfirmable(instance: &Instance) -> String {
    let registry = Registry::read(&instance.registry()).ok().flatten();
    let fallback = registry
        .as_ref()
        .and_then(|registry| registry.fallback.as_ref());
    let next = match fallback {
        Some(_) => "rolls back to the previous configuration",
        None => "puts the configuration in force again",
    };
    let until_ms = registry
        .as_ref()
        .and_then(|registry| registry.confirm_by_ms);
    let clock = Clock::now();
    let of = instances::interfaces(instance);
    match until_ms {
        None => format!(
            "there is nothing to confirm: no process runs for {of}, and nothing is on trial"
        ),
        Some(until_ms) if until_ms <= clock.now_ms => format!(
            "too late: no confirmation came until {}, and no process runs for {of} any more; \
             `knock-user status` shows what is in force, and starting knock-user {next}",
            clock.wall(until_ms)
        ),
        Some(_) => format!(
            "the process that was to be asked for {of} has ended: start knock-user, which \
             continues the trial, and confirm it then"
        ),
    }
}
