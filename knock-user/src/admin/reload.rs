//! `knock-user reload`.

use std::{io::Write, time::Duration};

use anyhow::Result;
use knock_sequence::duration::{self, millis};
use serde::{Deserialize, Serialize};
use tracing::Level;

use super::{
    command::{self, Caller, Command, SubcommandOutcome},
    instances::At,
    text::LocalTime,
};
use crate::{daemon::Daemon, host::service_manager::Stderr};

/// Read the configuration again; an invalid one changes nothing
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Roll back to the previous configuration after TIME (such as 60s) unless `knock-user confirm`
    /// is run
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    confirm: Option<Duration>,
    #[command(flatten)]
    at: At,
}

/// The fields of a request.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The length of the trial, in milliseconds; no trial if it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    confirm_ms: Option<u64>,
}

/// The answer.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Answer {
    /// The configuration.
    pub config: String,
    /// The changes, a line each; none if nothing has changed.
    pub changes: Vec<String>,
    /// Warnings, a line each.
    pub warnings: Vec<String>,
}

impl Command for Args {
    const NAME: &'static str = "reload";
    const ANSWER: &'static str = "reloaded";
    type Request = Request;
    type Answer = Answer;

    fn at(&self) -> &At {
        &self.at
    }

    fn request(&self) -> Request {
        Request {
            confirm_ms: self.confirm.map(millis),
        }
    }

    fn render(answer: &Answer, _: &LocalTime) -> Vec<String> {
        let mut lines = vec![format!("reloaded {}", answer.config)];
        lines.extend(answer.changes.iter().map(|change| format!("  {change}")));
        if answer.changes.is_empty() {
            lines.push("  no changes".to_owned());
        }
        lines
    }

    /// Answers the caller when the configuration is in force, or can't be.
    fn answer<W: Write>(request: Request, daemon: &mut Daemon<W>, caller: Caller<Answer>) {
        let confirm = request.confirm_ms.map(Duration::from_millis);
        daemon.begin_to_reload(
            confirm,
            Some(Box::new(|reloaded| {
                caller.answer(reloaded.map(|changes| Answer {
                    config: changes.config,
                    changes: changes.words,
                    warnings: changes.warnings,
                }));
            })),
        );
    }

    fn run(&self, out: &mut impl Write) -> Result<SubcommandOutcome> {
        let answer = command::ask(self, &command::instance(&self.at)?)?;
        if !self.at.json {
            for warning in &answer.warnings {
                Stderr::find().print(Level::WARN, warning);
            }
        }
        command::write::<Self>(&answer, &self.at, out)
    }
}
