//! `knock-user unblock`.

use std::io::Write;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::{
    command::{Caller, Command},
    instances::At,
    text::LocalTime,
};
use crate::{daemon::Daemon, host::clock, model::settings::Prefix};

/// End a block by a command; succeed also if there is none
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// End the block of exactly this source address or prefix
    #[arg(value_name = "SOURCE")]
    source: Prefix,
    #[command(flatten)]
    at: At,
}

/// The fields of a request.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    source: Prefix,
}

/// The answer.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Answer {
    /// The prefix that was named.
    pub source: Prefix,
    /// Whether a command had blocked it.
    pub was_blocked: bool,
    /// Why it is blocked nevertheless, if it is.
    pub still: Option<String>,
}

impl Command for Args {
    const NAME: &'static str = "unblock";
    const ANSWER: &'static str = "unblocked";
    type Request = Request;
    type Answer = Answer;

    fn at(&self) -> &At {
        &self.at
    }

    fn request(&self) -> Request {
        Request {
            source: self.source,
        }
    }

    fn render(answer: &Answer, _: &LocalTime) -> Vec<String> {
        let Answer {
            source,
            was_blocked,
            still,
        } = answer;
        vec![match (was_blocked, still) {
            (true, None) => format!("{source} is no longer blocked"),
            (false, None) => format!("{source} was not blocked"),
            (true, Some(still)) => format!("the block of {source} has ended, but {still}"),
            (false, Some(still)) => format!("no command has blocked {source}, but {still}"),
        }]
    }

    fn answer<W: Write>(request: Request, daemon: &mut Daemon<W>, caller: Caller<Answer>) {
        let unblocked = unblock(&request, daemon, caller.peer().uid);
        caller.answer(unblocked);
    }
}

fn unblock<W: Write>(request: &Request, daemon: &mut Daemon<W>, uid: u32) -> Result<Answer> {
    let source = request.source;
    let was_blocked = daemon.unblock(source, uid)?;
    let wider = daemon.blocks.wider(source, clock::boot_ms());
    let listed = daemon.settings().block.iter();
    let listed = listed.copied().find(|listed| listed.contains(source));
    let still = match (wider, listed) {
        (Some((wider, _)), _) => Some(format!(
            "{wider} is blocked: `knock-user unblock {wider}` ends that"
        )),
        (None, Some(listed)) => Some(format!(
            "[block] of the configuration has {listed}: remove it there and reload"
        )),
        (None, None) => None,
    };
    Ok(Answer {
        source,
        was_blocked,
        still,
    })
}
