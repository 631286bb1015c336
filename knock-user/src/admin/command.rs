//! The commands of an administrator.

use std::{
    io::{self, BufRead as _, IsTerminal as _, Write},
    net::IpAddr,
    os::unix::net::UnixStream,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};
use serde::Serialize;
use tracing::Level;

use knock_sequence::{
    Knock,
    duration::{self, millis},
};

use super::{instances as find, offline, status as statuses, text::Told};
use crate::{
    control::{
        answers::Detached,
        connection,
        protocol::{Answer, Incoming, Request},
    },
    host::{clock::Clock, service_manager::Stderr},
    kernel::{instance::Instance, leftovers, registry::Registry},
    model::value,
};

/// What a running knock-user is asked for, or its pinned maps.
#[derive(Clone, Debug, Subcommand)]
pub enum Ask {
    /// Show what is protected and how, and the counters
    Status(At),
    /// List grants and how long they last
    List(At),
    /// Stream events
    Watch(At),
    /// Admit a source without knocks
    Grant {
        /// Admit this source address
        #[arg(value_name = "SOURCE", value_parser = value::address)]
        source: IpAddr,
        /// Open the ports of this door
        #[arg(long, value_name = "NAME")]
        door: String,
        /// End the grant after TIME, such as 10m [default: the door's open_for]
        #[arg(long = "for", value_name = "TIME", value_parser = duration::parse)]
        lasts: Option<Duration>,
        /// Where.
        #[command(flatten)]
        at: At,
    },
    /// End a source's grants
    Revoke {
        /// End the grants of this source address
        #[arg(value_name = "SOURCE", value_parser = value::address)]
        source: IpAddr,
        /// End only grants given by this door
        #[arg(long, value_name = "NAME")]
        door: Option<String>,
        /// Where.
        #[command(flatten)]
        at: At,
    },
    /// Explain what would happen to a new connection, and why
    Explain {
        /// Judge a connection from this source address
        #[arg(value_name = "SOURCE", value_parser = value::address)]
        source: IpAddr,
        /// Judge a connection to this port, such as tcp/22
        #[arg(value_name = "PORT")]
        port: Knock,
        /// Judge a connection to this address of the host; needed where doors have a target
        #[arg(long, value_name = "ADDRESS", value_parser = value::address)]
        to: Option<IpAddr>,
        /// Where.
        #[command(flatten)]
        at: At,
    },
    /// Read the configuration again; an invalid one changes nothing
    Reload {
        /// Roll back to the previous configuration after TIME (such as 60s) unless `knock-user
        /// confirm` is run
        #[arg(long, value_name = "TIME", value_parser = duration::parse)]
        confirm: Option<Duration>,
        /// Where.
        #[command(flatten)]
        at: At,
    },
    /// Keep what was started or reloaded with --confirm
    Confirm(At),
    /// End the protection: open the ports to everybody
    Detach(At),
}

/// Which instance, and how the answer is told.
#[derive(Args, Clone, Debug)]
pub struct At {
    /// Choose the instance by one of its interfaces; needed if several run
    #[arg(short = 'i', long = "iface", value_name = "IF")]
    pub interface: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Ask this process and no other, as a service manager does
    #[arg(long, value_name = "PID")]
    pub pid: Option<u32>,
}

/// What a command came to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// It is done.
    Done,
    /// `status` was told, and has a shortfall.
    NotInForce,
}

impl Ask {
    /// The process that is meant, if one is named.
    pub(super) fn process(&self) -> Option<u32> {
        self.at().pid
    }

    fn at(&self) -> &At {
        match self {
            Self::Status(at)
            | Self::List(at)
            | Self::Watch(at)
            | Self::Confirm(at)
            | Self::Detach(at)
            | Self::Grant { at, .. }
            | Self::Revoke { at, .. }
            | Self::Explain { at, .. }
            | Self::Reload { at, .. } => at,
        }
    }

    /// What is sent.
    pub fn incoming(&self) -> Incoming {
        Incoming::Request(match self {
            Self::Watch(At { json, .. }) => {
                return Incoming::Watch {
                    json: *json,
                    dated: !io::stdout().is_terminal(),
                };
            }
            Self::Status(_) => Request::Status {},
            Self::List(_) => Request::List {},
            Self::Reload { confirm, .. } => Request::Reload {
                confirm_ms: confirm.map(millis),
            },
            Self::Confirm(_) => Request::Confirm {},
            Self::Detach(_) => Request::Detach {},
            Self::Grant {
                source,
                door,
                lasts,
                ..
            } => Request::Grant {
                source: *source,
                door: door.clone(),
                for_ms: lasts.map(millis),
            },
            Self::Revoke { source, door, .. } => Request::Revoke {
                source: *source,
                door: door.clone(),
            },
            Self::Explain {
                source, port, to, ..
            } => Request::Explain {
                source: *source,
                port: port.to_string(),
                destination: *to,
            },
        })
    }

    /// Asks, and writes the answer.
    ///
    /// # Errors
    /// Nobody can be asked, or it could not be done: a [`crate::model::problem::Misuse`] if who asked is at fault.
    pub fn run(&self, out: &mut impl Write) -> Result<Outcome> {
        let at = self.at();
        if matches!(self, Self::Status(_) | Self::Detach(_)) {
            leftovers::sweep();
        }
        if matches!(self, Self::Status(_)) {
            let all = find::all(self, at.interface.as_deref());
            let told = all.and_then(|all| statuses::run(at, &all, out));
            return Ok(match told {
                Ok(true) => Outcome::Done,
                Ok(false) => Outcome::NotInForce,
                Err(error) => {
                    // Who reads objects gets one.
                    if at.json {
                        statuses::unknown(&error, out)?;
                    }
                    return Err(error);
                }
            });
        }
        self.ask(at, out).map(|()| Outcome::Done)
    }

    fn ask(&self, at: &At, out: &mut impl Write) -> Result<()> {
        let Some(instance) = find::find(self, at.interface.as_deref())? else {
            let answer = Answer::Detached(Detached::default());
            return write(&answer, at.json, out);
        };
        match connection::open(&instance.socket())? {
            Some(stream) => converse(&self.incoming(), stream, at.json, out),
            None => write(&self.offline(&instance)?, at.json, out),
        }
    }

    /// The answer if no process runs.
    fn offline(&self, instance: &Instance) -> Result<Answer> {
        match self {
            Self::List(_) => offline::list(instance).map(Answer::List),
            Self::Detach(_) => offline::detach(instance).map(Answer::Detached),
            Self::Confirm(_) => bail!("{}", unconfirmable(instance)),
            Self::Status(_)
            | Self::Watch(_)
            | Self::Grant { .. }
            | Self::Revoke { .. }
            | Self::Explain { .. }
            | Self::Reload { .. } => bail!(
                "no process runs for {}, so nobody can be asked: start knock-user, which takes \
                 over what is there",
                find::interfaces(instance)
            ),
        }
    }
}

/// Why nothing can be confirmed where no process runs.
fn unconfirmable(instance: &Instance) -> String {
    let registry = Registry::read(&instance.registry()).ok().flatten();
    let fallback = registry
        .as_ref()
        .and_then(|registry| registry.fallback.as_ref());
    let next = match fallback {
        Some(_) => "goes back to the configuration before",
        None => "puts the configuration in force again",
    };
    let until_ms = registry
        .as_ref()
        .and_then(|registry| registry.confirm_by_ms);
    let clock = Clock::now();
    let of = find::interfaces(instance);
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
            "the process that was to be asked for {of} has ended: start knock-user, which goes on \
             with the trial, and confirm it then"
        ),
    }
}

fn converse(
    incoming: &Incoming,
    stream: UnixStream,
    json: bool,
    out: &mut impl Write,
) -> Result<()> {
    let (answer, mut rest) = connection::ask(incoming, stream)?;
    if answer != (Answer::Watching {}) {
        return write(&answer, json, out);
    }
    rest.get_ref().set_read_timeout(None)?;
    let mut line = Vec::new();
    while rest.read_until(b'\n', &mut line).context("watching")? > 0 {
        if let Err(error) = out.write_all(&line).and_then(|()| out.flush()) {
            return ended_by_reader(error);
        }
        line.clear();
    }
    bail!("the process has ended")
}

/// That nobody reads any more, as with `| head`, is no error.
fn ended_by_reader(error: io::Error) -> Result<()> {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return Ok(());
    }
    Err(error).context("writing")
}

fn write(answer: &Answer, json: bool, out: &mut impl Write) -> Result<()> {
    let text = if json {
        self::json(answer)?
    } else {
        if let Answer::Reloaded(reloaded) = answer {
            for warning in &reloaded.warnings {
                Stderr::find().say(Level::WARN, warning);
            }
        }
        Told::here().text(answer)
    };
    written(&text, out)
}

pub(super) fn written(text: &str, out: &mut impl Write) -> Result<()> {
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(()),
        Err(error) => ended_by_reader(error),
    }
}

/// An answer as one line of JSON.
///
/// # Errors
/// It can't be said in JSON.
pub fn json(answer: &Answer) -> Result<String> {
    fn line(value: &impl Serialize) -> Result<String> {
        Ok(serde_json::to_string(value)? + "\n")
    }
    match answer {
        Answer::Status(status) => line(status),
        Answer::List(grants) => line(grants),
        Answer::Watching {} => Ok(String::new()),
        Answer::Granted(granted) => line(granted),
        Answer::Revoked(revoked) => line(revoked),
        Answer::Explained(explanation) => line(explanation),
        Answer::Reloaded(reloaded) => line(reloaded),
        Answer::Confirmed(confirmed) => line(confirmed),
        Answer::Detached(detached) => line(detached),
    }
}
