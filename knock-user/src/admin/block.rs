//! `knock-user block`.

use std::{io::Write, ops::RangeInclusive, time::Duration};

use anyhow::Result;
use knock_common::blocked::Blocked;
use knock_sequence::duration::{self, millis};
use serde::{Deserialize, Serialize};

use super::{
    command::{self, Caller, Command, SubcommandOutcome},
    instances::At,
    text::{LocalTime, short},
};
use crate::{
    apply::own_session,
    daemon::Daemon,
    host::clock::{self, Clock},
    model::{problem::Misuse, settings::Prefix},
};

/// How long a block may last; without `--for` it has no end.
const LASTS: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(3_650 * 86_400);

/// Drop all packets of a source, before anything else is judged
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Block this source address or prefix
    #[arg(value_name = "SOURCE")]
    source: Prefix,
    /// End the block after TIME, such as 1h [default: when it is unblocked]
    #[arg(long = "for", value_name = "TIME", value_parser = duration::parse)]
    lasts: Option<Duration>,
    /// Block the source of your own SSH session too
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    at: At,
}

/// The fields of a request.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    source: Prefix,
    /// In milliseconds; without end if it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    for_ms: Option<u64>,
}

/// The answer.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Answer {
    /// The prefix that is blocked.
    pub source: Prefix,
    /// When the block ends, if it does: later than requested, if a longer one existed. RFC 3339.
    pub until: Option<String>,
    /// In how many seconds it ends.
    pub seconds: Option<f64>,
    /// Notes that change nothing of what is protected.
    pub notes: Vec<String>,
}

impl Command for Args {
    const NAME: &'static str = "block";
    const ANSWER: &'static str = "blocked";
    type Request = Request;
    type Answer = Answer;

    fn at(&self) -> &At {
        &self.at
    }

    fn request(&self) -> Request {
        Request {
            source: self.source,
            for_ms: self.lasts.map(millis),
        }
    }

    fn render(answer: &Answer, _: &LocalTime) -> Vec<String> {
        let Answer {
            source,
            until: _,
            seconds,
            notes,
        } = answer;
        let lasts = match seconds {
            Some(seconds) => format!("for {}", short(*seconds)),
            None => "until `knock-user unblock` is run".to_owned(),
        };
        let mut lines = vec![format!("{source} is blocked {lasts}")];
        lines.extend(notes.iter().map(|note| format!("note: {note}")));
        lines
    }

    fn answer<W: Write>(request: Request, daemon: &mut Daemon<W>, caller: Caller<Answer>) {
        let blocked = block(&request, daemon, caller.peer().uid);
        caller.answer(blocked);
    }

    fn run(&self, out: &mut impl Write) -> Result<SubcommandOutcome> {
        if !self.force {
            spare_own_session(self.source)?;
        }
        let answer = command::ask(self, &command::instance(&self.at)?)?;
        command::write::<Self>(&answer, &self.at, out)
    }
}

/// Refuses a prefix that has the source of the SSH session in which this process runs.
///
/// # Errors
/// The prefix has it.
pub(crate) fn spare_own_session(prefix: Prefix) -> Result<(), Misuse> {
    match own_session::own() {
        Some(session) if prefix.has(session.peer.ip()) => Err(Misuse(format!(
            "your SSH session comes from {}, which {prefix} would block: nothing was changed; to \
             block it nevertheless, add --force",
            session.peer.ip()
        ))),
        Some(_) | None => Ok(()),
    }
}

fn block<W: Write>(request: &Request, daemon: &mut Daemon<W>, uid: u32) -> Result<Answer> {
    let source = request.source;
    let lasts = request.for_ms.map(Duration::from_millis);
    let lasts = lasts.map(|lasts| duration::within(lasts, LASTS));
    let lasts = lasts
        .transpose()
        .map_err(|error| Misuse(format!("--for: {error}")))?;
    let until_ms = lasts.map_or(Blocked::NEVER, clock::boot_ms_after);
    let block = daemon.block(source, until_ms, uid)?;
    let end_ms = (block.own_until_ms != Blocked::NEVER).then_some(block.own_until_ms);
    let clock = Clock::now();
    Ok(Answer {
        source,
        until: end_ms.map(|end_ms| clock.wall(end_ms)),
        seconds: end_ms.map(|end_ms| clock.seconds_until(end_ms)),
        notes: notes(source, daemon),
    })
}

/// Returns what a user may not expect of a block.
fn notes<W: Write>(source: Prefix, daemon: &Daemon<W>) -> Vec<String> {
    let trust = &daemon.settings().trust;
    let trusted = trust.iter().find(|trusted| trusted.contains(source));
    let excepted = trust.iter().find(|trusted| source.contains(**trusted));
    let trusted = match (trusted, excepted) {
        (Some(trusted), _) => Some(format!(
            "{trusted} is in trust, which wins: the block has no effect"
        )),
        (None, Some(excepted)) => Some(format!("{excepted} in it is in trust, and stays let in")),
        (None, None) => None,
    };
    let gateway = daemon.plan.gateway_in(source).map(|gateway| {
        format!(
            "{gateway} in it is a gateway of this host, which may become unreachable if IPv6 needs \
             its packets"
        )
    });
    let dry_run = daemon.run.dry_run;
    let dry_run = dry_run.then(|| "this is a dry run: nothing is dropped".to_owned());
    [trusted, gateway, dry_run].into_iter().flatten().collect()
}
