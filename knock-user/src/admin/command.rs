//! The form of a subcommand: its client's end and its daemon's end.

use std::{
    io::{self, BufReader, Write},
    marker::PhantomData,
    os::unix::net::UnixStream,
};

use anyhow::{Context as _, Error, Result, anyhow};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use super::{
    instances::{self, At, Layouts},
    text::{self, LocalTime},
};
use crate::{
    console::watch::Watcher,
    control::{Call, Peer, Reply, Request, connection},
    daemon::Daemon,
    kernel::instance::Instance,
};

/// A subcommand. The type that implements it has the arguments, and its doc comment is the help.
pub trait Command: clap::Args {
    /// The name, on the command line and in requests.
    const NAME: &'static str;
    /// The name of the answer in a reply.
    const ANSWER: &'static str;
    /// The fields of a request; unknown ones must be refused.
    type Request: DeserializeOwned + Serialize;
    /// The answer: the fields of `--json`.
    type Answer: DeserializeOwned + Serialize;

    /// Returns which instance is meant, and how the answer is printed.
    fn at(&self) -> &At;

    /// Returns the request with these arguments.
    fn request(&self) -> Self::Request;

    /// Returns the lines for people.
    fn render(answer: &Self::Answer, time: &LocalTime) -> Vec<String>;

    /// Executes a request in the daemon. The caller is answered now, or kept and answered later.
    fn answer<W: Write>(
        request: Self::Request,
        daemon: &mut Daemon<W>,
        caller: Caller<Self::Answer>,
    );

    /// Returns the answer where no process runs.
    ///
    /// # Errors
    /// There is none without a process, or the pins can't be read or removed.
    fn offline(&self, instance: &Instance) -> Result<Self::Answer> {
        Err(no_process(instance))
    }

    /// Runs the subcommand and writes the answer.
    ///
    /// # Errors
    /// No instance can be asked, or it reports a failure: a [`crate::model::problem::Misuse`] if the
    /// user is at fault.
    fn run(&self, out: &mut impl Write) -> Result<SubcommandOutcome> {
        let answer = ask(self, &instance(self.at())?)?;
        write::<Self>(&answer, self.at(), out)
    }
}

/// A request without fields.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct NoFields {}

/// The result of a subcommand that did not fail.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SubcommandOutcome {
    /// It is done.
    Done,
    /// `status` has printed a shortfall.
    NotInForce,
}

/// A client that waits for an answer of this type.
#[derive(Debug)]
pub struct Caller<A> {
    call: Call,
    name: &'static str,
    answer: PhantomData<fn(A)>,
}

impl<A: Serialize> Caller<A> {
    /// Returns the process at the other end.
    pub fn peer(&self) -> Peer {
        self.call.peer
    }

    /// Sends an answer, or why there is none.
    pub fn answer(self, done: Result<A>) {
        let done = done.and_then(|answer| named(self.name, &answer));
        self.call.answer(Reply::of(done));
    }

    /// Sends an answer, and then lines.
    pub fn answer_and_stream(self, answer: &A, lines: Watcher) {
        let reply = Reply::of(named(self.name, answer));
        self.call.answer_and_stream(reply, lines);
    }
}

fn named(name: &str, answer: &impl Serialize) -> Result<Value> {
    let answer = serde_json::to_value(answer)?;
    Ok(Map::from_iter([(name.to_owned(), answer)]).into())
}

/// Answers a call of a command in a daemon.
pub(super) fn handle<C: Command, W: Write>(daemon: &mut Daemon<W>, call: Call) {
    if let Some((request, caller)) = received::<C>(call) {
        C::answer(request, daemon, caller);
    }
}

/// Returns the request and the caller of a command; refuses other fields.
pub fn received<C: Command>(call: Call) -> Option<(C::Request, Caller<C::Answer>)> {
    match understand::<C>(&call.request) {
        Ok(request) => {
            let caller = Caller {
                call,
                name: C::ANSWER,
                answer: PhantomData,
            };
            Some((request, caller))
        }
        Err(reason) => {
            call.answer(Reply::bad(reason));
            None
        }
    }
}

/// Returns the fields of a request of a command.
///
/// # Errors
/// One is missing, unknown or of another type.
pub(super) fn understand<C: Command>(request: &Request) -> Result<C::Request, String> {
    serde_json::from_value(request.fields.clone().into())
        .map_err(|error| format!("can't understand {}: {error}", C::NAME))
}

/// Returns what a client sends for a request of a command.
///
/// # Errors
/// JSON can't represent it.
pub fn sent<C: Command>(request: &C::Request) -> Result<Request> {
    Ok(Request {
        command: C::NAME.to_owned(),
        fields: serde_json::from_value(serde_json::to_value(request)?)?,
    })
}

/// Returns the answer in the `done` of a reply, if it is one of this command.
pub(super) fn answer_in<C: Command>(done: &Value) -> Option<serde_json::Result<C::Answer>> {
    done.get(C::ANSWER)
        .map(|answer| serde_json::from_value(answer.clone()))
}

/// Returns the one instance that is meant.
///
/// # Errors
/// There is none, or there are several.
pub(super) fn instance(at: &At) -> Result<Instance> {
    instances::find(at, Layouts::This)?
        .ok_or_else(|| anyhow!("{}", instances::nothing(at.interface.as_deref())))
}

/// Asks the process of an instance, or reads or removes its pins if there is none.
///
/// # Errors
/// Neither is possible, or the process reports a failure.
pub(super) fn ask<C: Command>(command: &C, instance: &Instance) -> Result<C::Answer> {
    match connection::open(&instance.socket())? {
        Some(stream) => exchange::<C>(&command.request(), stream).map(|(answer, _)| answer),
        None => command.offline(instance),
    }
}

/// Sends a request to a daemon; returns the answer, and what follows it.
///
/// # Errors
/// The daemon does not answer, or reports a failure.
pub(super) fn exchange<C: Command>(
    request: &C::Request,
    stream: UnixStream,
) -> Result<(C::Answer, BufReader<UnixStream>)> {
    let (done, rest) = connection::ask(&sent::<C>(request)?, stream)?;
    let answer = answer_in::<C>(&done)
        .context("the answer is for another command: restart the process after an upgrade")?
        .context("can't understand the answer: restart the process after an upgrade")?;
    Ok((answer, rest))
}

/// Returns why a command that needs a process fails without one.
pub(super) fn no_process(instance: &Instance) -> Error {
    anyhow!(
        "no process runs for {}, so nobody can be asked: start knock-user, which takes over what is \
         there",
        instances::interfaces(instance)
    )
}

/// Writes an answer, as a line of JSON or for people.
///
/// # Errors
/// It can't be written.
pub(super) fn write<C: Command>(
    answer: &C::Answer,
    at: &At,
    out: &mut impl Write,
) -> Result<SubcommandOutcome> {
    let text = match at.json {
        true => serde_json::to_string(answer)? + "\n",
        false => text::lines(C::render(answer, &LocalTime::now())),
    };
    written(&text, out)?;
    Ok(SubcommandOutcome::Done)
}

pub(super) fn written(text: &str, out: &mut impl Write) -> Result<()> {
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(()),
        Err(error) => ended_by_reader(error),
    }
}

/// Accepts the error of a reader that stops reading, as with `| head`.
pub(super) fn ended_by_reader(error: io::Error) -> Result<()> {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return Ok(());
    }
    Err(error).context("writing")
}
