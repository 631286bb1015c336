//! `knock-user watch`.

use std::io::{self, BufRead as _, IsTerminal as _, Write};

use anyhow::{Context as _, Result, anyhow, bail};
use serde::{Deserialize, Serialize};

use super::{
    command::{self, Caller, Command, SubcommandOutcome},
    instances::At,
    text::LocalTime,
};
use crate::{
    console::{
        color::{self, ColorChoice},
        watch::{Form, Watchers},
    },
    control::connection,
    daemon::Daemon,
};

/// Stream events
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    #[command(flatten)]
    at: At,
    /// Choose when lines have colors; auto means on a terminal, unless NO_COLOR is set
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    color: ColorChoice,
}

/// The fields of a request.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// Lines are JSON objects.
    #[serde(default)]
    json: bool,
    /// Text has dates, not only the time of day.
    #[serde(default)]
    dated: bool,
}

impl Request {
    /// Returns the request for lines that are JSON objects.
    pub(super) const fn of_objects() -> Self {
        Self {
            json: true,
            dated: true,
        }
    }
}

/// The answer, which lines of the console follow.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Answer {}

impl Command for Args {
    const NAME: &'static str = "watch";
    const ANSWER: &'static str = "watching";
    type Request = Request;
    type Answer = Answer;

    fn at(&self) -> &At {
        &self.at
    }

    fn request(&self) -> Request {
        Request {
            json: self.at.json,
            dated: !io::stdout().is_terminal(),
        }
    }

    fn render(_: &Answer, _: &LocalTime) -> Vec<String> {
        Vec::new()
    }

    fn answer<W: Write>(request: Request, daemon: &mut Daemon<W>, caller: Caller<Answer>) {
        stream(&request, &daemon.console.watchers(), caller);
    }

    fn run(&self, out: &mut impl Write) -> Result<SubcommandOutcome> {
        let instance = command::instance(&self.at)?;
        let Some(stream) = connection::open(&instance.socket())? else {
            return Err(command::no_process(&instance));
        };
        let (Answer {}, mut rest) = command::exchange::<Self>(&self.request(), stream)?;
        rest.get_ref().set_read_timeout(None)?;
        let has_colors = !self.at.json && self.color.is_on();
        let mut line = Vec::new();
        while rest.read_until(b'\n', &mut line).context("watching")? > 0 {
            if has_colors && let Ok(text) = str::from_utf8(&line) {
                line = color::colored(text).into_owned().into_bytes();
            }
            if let Err(error) = out.write_all(&line).and_then(|()| out.flush()) {
                return command::ended_by_reader(error).map(|()| SubcommandOutcome::Done);
            }
            line.clear();
        }
        bail!("the process has ended")
    }
}

/// Sends the lines of a console to a caller, unless too many others watch.
pub fn stream(request: &Request, watchers: &Watchers, caller: Caller<Answer>) {
    let form = match (request.json, request.dated) {
        (true, _) => Form::Json,
        (false, true) => Form::Dated,
        (false, false) => Form::Text,
    };
    match watchers.watch(form) {
        Some(lines) => caller.answer_and_stream(&Answer {}, lines),
        None => caller.answer(Err(anyhow!("too many watchers: end one of them"))),
    }
}
