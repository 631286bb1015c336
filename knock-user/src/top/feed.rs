//! Threads that ask the daemon: for its state again and again, for its events, and what keys ask for.

use std::{
    io::{BufRead as _, BufReader},
    os::unix::net::UnixStream,
    sync::mpsc::{Receiver, Sender, channel},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow};
use serde::Deserialize as _;
use serde_json::{Map, Value};

use crate::{
    admin::{list, status},
    control::{Request, connection},
    host::os_error,
    kernel::instance::Instance,
};

/// The time between two looks at the state, if they are answered quickly.
const INTERVAL: Duration = Duration::from_secs(1);
/// The part of the time in which a daemon may be busy with answers: with very many grants, it is asked
/// less often.
const SHARE: u32 = 10;
/// The pause before a daemon that ended is asked again.
const RETRY: Duration = Duration::from_millis(500);

/// A message to the loop of the view.
#[derive(Debug)]
pub(super) enum FeedEvent {
    /// The state and the grants.
    State(Box<status::Answer>, list::Answer),
    /// An event, as an object.
    Event(Map<String, Value>),
    /// No process answers, and why.
    Gone(String),
    /// The answer to what a key asked for, or why there is none.
    Answer(Result<String, String>),
}

/// The receiving end.
#[derive(Debug)]
pub(super) struct Feed {
    news: Receiver<FeedEvent>,
    sender: Sender<FeedEvent>,
}

impl Feed {
    /// Asks for the state once, and then begins to follow it.
    ///
    /// # Errors
    /// No process runs, or it does not answer.
    pub(super) fn start(instance: &Instance) -> Result<Self> {
        let (sender, news) = channel();
        let first = state(instance)?;
        // The receiver exists.
        let _sent = sender.send(first);
        spawn(instance, &sender, follow_state);
        spawn(instance, &sender, follow_events);
        Ok(Self { news, sender })
    }

    /// Returns what has arrived.
    pub(super) fn news(&self) -> impl Iterator<Item = FeedEvent> {
        self.news.try_iter()
    }

    /// Sends a request; the answer arrives later.
    pub(super) fn ask(&self, instance: &Instance, request: Request) {
        let (sender, instance) = (self.sender.clone(), instance.clone());
        thread::spawn(move || {
            let answer = ask(&instance, &request).map(|done| {
                let time = crate::admin::text::LocalTime::now();
                crate::admin::render(&done, &time).unwrap_or_else(|| done.to_string())
            });
            let answer = answer.map_err(|error| os_error::describe(&error));
            let _ended = sender.send(FeedEvent::Answer(answer));
        });
    }
}

fn spawn(
    instance: &Instance,
    sender: &Sender<FeedEvent>,
    follow: fn(&Instance, &Sender<FeedEvent>) -> Option<()>,
) {
    let (instance, sender) = (instance.clone(), sender.clone());
    // It ends with the process, or when nothing receives its news.
    thread::spawn(move || follow(&instance, &sender));
}

fn follow_state(instance: &Instance, sender: &Sender<FeedEvent>) -> Option<()> {
    loop {
        let asked = Instant::now();
        let news =
            state(instance).unwrap_or_else(|error| FeedEvent::Gone(os_error::describe(&error)));
        let pause = INTERVAL.max(asked.elapsed().saturating_mul(SHARE));
        sender.send(news).ok()?;
        thread::sleep(pause);
    }
}

fn follow_events(instance: &Instance, sender: &Sender<FeedEvent>) -> Option<()> {
    loop {
        if let Ok(events) = events(instance) {
            for line in events.lines() {
                let Ok(line) = line else { break };
                if let Ok(Value::Object(event)) = serde_json::from_str(&line) {
                    sender.send(FeedEvent::Event(event)).ok()?;
                }
            }
        }
        // The daemon restarts, or lets nobody watch now.
        thread::sleep(RETRY);
    }
}

fn state(instance: &Instance) -> Result<FeedEvent> {
    let status = status::Answer::deserialize(&named(instance, "status")?)?;
    let list = list::Answer::deserialize(&named(instance, "list")?)?;
    Ok(FeedEvent::State(Box::new(status), list))
}

/// Returns the answer to a request that has no fields.
fn named(instance: &Instance, command: &str) -> Result<Value> {
    let mut done = ask(instance, &request(command, []))?;
    let answer = done.get_mut(command).map(Value::take);
    answer
        .ok_or_else(|| anyhow!("can't understand the answer: restart the process after an upgrade"))
}

fn ask(instance: &Instance, request: &Request) -> Result<Value> {
    connection::ask(request, connected(instance)?).map(|(done, _)| done)
}

fn events(instance: &Instance) -> Result<BufReader<UnixStream>> {
    let request = request("watch", [("json", true.into())]);
    let (_, rest) = connection::ask(&request, connected(instance)?)?;
    rest.get_ref().set_read_timeout(None)?;
    Ok(rest)
}

fn connected(instance: &Instance) -> Result<UnixStream> {
    connection::open(&instance.socket())?.ok_or_else(|| {
        anyhow!(
            "no process runs for {}: start knock-user, which takes over what is there",
            instance.name()
        )
    })
}

/// Returns a request with these fields.
pub(super) fn request<const N: usize>(command: &str, fields: [(&str, Value); N]) -> Request {
    let fields = fields.map(|(name, value)| (name.to_owned(), value));
    Request {
        command: command.to_owned(),
        fields: Map::from_iter(fields),
    }
}
