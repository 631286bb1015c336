//! `knock-user metrics`.

use std::{io::Write, path::PathBuf};

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::{
    command::{self, Caller, Command, SubcommandOutcome},
    instances::At,
    text::LocalTime,
};
use crate::{daemon::Daemon, kernel::instance::Instance, metrics::Format};

mod facts;
mod families;
mod offline;
mod replaced_file;
mod served;

/// Print metrics for Prometheus
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    #[command(flatten)]
    at: At,
    /// Choose the format
    #[arg(long, value_enum, default_value_t = Format::Classic)]
    format: Format,
    /// Replace this file in one step, as node_exporter's textfile collector needs it
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// The fields of a request.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    #[serde(default)]
    format: Format,
}

/// The answer.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Answer {
    /// The format of the text.
    pub format: Format,
    /// The metrics.
    pub text: String,
}

impl Command for Args {
    const NAME: &'static str = "metrics";
    const ANSWER: &'static str = "metrics";
    type Request = Request;
    type Answer = Answer;

    fn at(&self) -> &At {
        &self.at
    }

    fn request(&self) -> Request {
        Request {
            format: self.format,
        }
    }

    fn render(answer: &Answer, _: &LocalTime) -> Vec<String> {
        answer.text.lines().map(str::to_owned).collect()
    }

    fn answer<W: Write>(
        Request { format }: Request,
        daemon: &mut Daemon<W>,
        caller: Caller<Answer>,
    ) {
        match served::facts(daemon) {
            // Reading the tables takes longer the fuller they are; the loop does not wait for that.
            Ok(facts) => {
                tokio::task::spawn_blocking(move || {
                    let facts = facts.complete();
                    caller.answer(facts.map(|facts| answer(format, &facts)));
                });
            }
            Err(error) => caller.answer(Err(error)),
        }
    }

    fn offline(&self, instance: &Instance) -> Result<Answer> {
        Ok(answer(self.format, &offline::facts(instance)?))
    }

    fn run(&self, out: &mut impl Write) -> Result<SubcommandOutcome> {
        let answer = command::ask(self, &command::instance(&self.at)?)?;
        let Some(file) = &self.out else {
            return command::write::<Self>(&answer, &self.at, out);
        };
        let text = match self.at.json {
            true => serde_json::to_string(&answer)? + "\n",
            false => answer.text,
        };
        replaced_file::write(file, &text)?;
        Ok(SubcommandOutcome::Done)
    }
}

fn answer(format: Format, facts: &facts::MetricFacts) -> Answer {
    Answer {
        format,
        text: format.write(&families::families(facts)),
    }
}
