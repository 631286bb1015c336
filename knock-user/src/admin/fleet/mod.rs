//! `knock-user fleet`: the group of hosts that open together.

mod key;
mod status;
mod watch;

use std::io::Write;

use anyhow::Result;
use clap::Subcommand;

use super::{
    command::{self, Caller, Command, NoFields, SubcommandOutcome},
    instances::At,
    text::LocalTime,
};
use crate::daemon::Daemon;

pub use status::{Answer, MemberHost};

/// Show the group of hosts that open together, and make its key
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

/// What to do about the group.
#[derive(Clone, Debug, Subcommand)]
enum What {
    /// Show whether this host follows the group, and through which member of the engine
    Status {
        #[command(flatten)]
        at: At,
    },
    /// Stream what opens and closes at all hosts of the group
    Watch {
        #[command(flatten)]
        at: At,
    },
    /// Print a key for a new group, or one that replaces the key of a group
    Key {
        #[command(flatten)]
        options: key::KeyOptions,
    },
}

impl Command for Args {
    const NAME: &'static str = "fleet";
    const ANSWER: &'static str = "fleet";
    type Request = NoFields;
    type Answer = Answer;

    fn at(&self) -> &At {
        match &self.what {
            What::Status { at } | What::Watch { at } => at,
            What::Key { options } => options.at(),
        }
    }

    fn request(&self) -> NoFields {
        NoFields {}
    }

    fn render(answer: &Answer, time: &LocalTime) -> Vec<String> {
        status::lines(answer, time)
    }

    fn answer<W: Write>(_: NoFields, daemon: &mut Daemon<W>, caller: Caller<Answer>) {
        let status = status::of(daemon);
        caller.answer(status);
    }

    fn run(&self, out: &mut impl Write) -> Result<SubcommandOutcome> {
        match &self.what {
            What::Status { at } => {
                let answer = command::ask(self, &command::instance(at)?)?;
                command::write::<Self>(&answer, at, out)
            }
            What::Watch { at } => {
                let instance = command::instance(at)?;
                let group = command::ask(self, &instance)?;
                watch::run(&instance, &group, at, out)
            }
            What::Key { options } => key::run(options, out),
        }
    }
}
