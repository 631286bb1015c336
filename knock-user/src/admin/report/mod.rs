//! `knock-user report`: writes a file with the facts that a report about a fault needs.

use std::{io::Write, path::PathBuf};

use anyhow::{Result, anyhow};
use serde::{Deserialize, Serialize};

use super::{
    command::{self, Caller, Command, NoFields, SubcommandOutcome},
    instances::{self, At, Layouts},
    status,
    text::LocalTime,
};
use crate::{
    apply::texts,
    daemon::Daemon,
    host::{os_error, private_files},
    kernel::instance::Instance,
    model::terminal::harmless_lines,
};

mod host;
mod redact;

/// Collect versions, state, configuration and events for a bug report, without secrets
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    #[command(flatten)]
    at: At,
    /// Write to this new file
    #[arg(short, long, value_name = "FILE", default_value = "knock-report.txt")]
    out: PathBuf,
}

/// The answer: what a daemon knows.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Answer {
    /// The version of the daemon; none if none runs.
    pub version: Option<String>,
    /// The configuration in force, without comments and secrets.
    pub configuration: String,
    /// The last events, the latest last: objects without ports of knocks, and with names for
    /// addresses.
    pub events: Vec<String>,
}

impl Command for Args {
    const NAME: &'static str = "report";
    const ANSWER: &'static str = "report";
    type Request = NoFields;
    type Answer = Answer;

    fn at(&self) -> &At {
        &self.at
    }

    fn request(&self) -> NoFields {
        NoFields {}
    }

    fn render(answer: &Answer, _: &LocalTime) -> Vec<String> {
        let mut lines = Vec::new();
        let version = answer.version.as_deref().unwrap_or("none runs");
        section(&mut lines, "daemon", [version.to_owned()]);
        let configuration = answer.configuration.lines().map(str::to_owned);
        section(
            &mut lines,
            "configuration in force, without secrets",
            configuration,
        );
        section(&mut lines, "last events", answer.events.iter().cloned());
        lines
    }

    fn answer<W: Write>(_: NoFields, daemon: &mut Daemon<W>, caller: Caller<Answer>) {
        let mut addresses = redact::Addresses::default();
        let events = daemon.console.last_objects();
        let answer = Answer {
            version: Some(env!("CARGO_PKG_VERSION").to_owned()),
            configuration: redact::configuration(&daemon.plan.checked.text),
            events: events.filter_map(|event| addresses.event(event)).collect(),
        };
        caller.answer(Ok(answer));
    }

    fn offline(&self, instance: &Instance) -> Result<Answer> {
        let checked = texts::read(instance, &super::pinned::registry(instance)?)?;
        Ok(Answer {
            version: None,
            configuration: redact::configuration(&checked.text),
            events: Vec::new(),
        })
    }

    fn run(&self, out: &mut impl Write) -> Result<SubcommandOutcome> {
        if self.at.json {
            let answer = command::ask(self, &command::instance(&self.at)?)?;
            return command::write::<Self>(&answer, &self.at, out);
        }
        let shown = self.out.display();
        private_files::create(&self.out, self.text().as_bytes()).map_err(|error| {
            let reason = os_error::reason(&error, &shown.to_string());
            anyhow!("{shown} can't be written: {reason}; choose another file with --out")
        })?;
        let done = format!(
            "wrote {shown}: read it before you attach it to a report; it names interfaces, doors and \
             users\n"
        );
        command::written(&done, out)?;
        Ok(SubcommandOutcome::Done)
    }
}

impl Args {
    /// Returns the text. What can't be found out is part of it, because a report may be about that.
    fn text(&self) -> String {
        let mut lines = vec!["Report of knock-user".to_owned()];
        let own = format!("knock-user {}", env!("CARGO_PKG_VERSION"));
        section(&mut lines, "version", [own]);
        section(&mut lines, "system", host::system());
        section(&mut lines, "interfaces", host::interfaces());
        match instances::all(&self.at, Layouts::This) {
            Ok(all) if all.is_empty() => {
                section(&mut lines, "instances", ["nothing is protected".to_owned()]);
            }
            Ok(all) => all
                .iter()
                .for_each(|instance| self.instance(instance, &mut lines)),
            Err(error) => section(&mut lines, "instances", [os_error::describe(&error)]),
        }
        harmless_lines(&(lines.join("\n") + "\n"))
    }

    fn instance(&self, instance: &Instance, lines: &mut Vec<String>) {
        section(lines, "instance", [instance.name().to_owned()]);
        match status::of(&self.at, instance) {
            Ok(mut status) => {
                redact::status(&mut status);
                let status = status::Args::render(&status, &LocalTime::now());
                section(lines, "status", status);
            }
            Err(error) => section(lines, "status", [os_error::describe(&error)]),
        }
        match command::ask(self, instance) {
            Ok(answer) => lines.extend(Self::render(&answer, &LocalTime::now())),
            Err(error) => section(lines, "configuration", [os_error::describe(&error)]),
        }
    }
}

fn section(lines: &mut Vec<String>, name: &str, content: impl IntoIterator<Item = String>) {
    lines.extend([String::new(), format!("== {name}")]);
    lines.extend(content);
}
