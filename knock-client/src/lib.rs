//! The client: sends a sequence of TCP and UDP knocks to a host, and can then
//! connect to the port that they open.
//!
//! ```text
//! words ─▶ cli ─▶ plan ─▶ Sequence ─▶ send ─▶ reply ─▶ connect ─▶ proxy
//!        profile ──┘ │
//!   sequence, one_time, otp      spa: one packet instead of knocks
//! ```
//!
//! Sending needs a [`Sequence`] only: [`plan`] decides whether its knocks come from the command
//! line, a file or a prompt.
//!
//! ```no_run
//! use knock_client::{Destination, Knock, connect, send};
//! use std::time::Duration;
//!
//! let destination = Destination::resolve("192.0.2.1", None)?.first;
//! let knocks: Vec<Knock> = vec!["tcp/7000".parse()?, "udp/8000".parse()?];
//! let last = send(&destination, &knocks, Duration::ZERO, |_number, _knock| {})?;
//! let (_stream, opened) = connect(&destination, 22, last, Duration::from_secs(10))?;
//! println!("open after {:?}", opened.after);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![forbid(unsafe_code)]

pub mod cli;
pub mod completions;
mod connect;
mod destination;
mod exposure;
mod failure;
pub mod fwknop;
mod home;
pub mod keep;
pub mod keygen;
mod log;
pub mod next_line;
pub mod one_time;
pub mod otp;
pub mod plan;
pub mod preview;
pub mod profile;
pub mod profiles;
pub mod proxy;
mod refused;
mod remedy;
pub mod reply;
mod report;
mod send;
pub mod sequence;
pub mod share;
pub mod spa;
pub mod ssh_config;
mod waiting;

pub use crate::connect::{
    Attempted, ConnectError, Connected, FailedConnect, Knocked, connect, connect_any,
};
pub use crate::destination::{Destination, Family, ResolveError, Resolved};
pub use crate::failure::Failure;
pub use crate::log::{Log, LogError};
pub use crate::report::{ReportStyle, Reporter, Sends};
pub use crate::send::{SendError, SendOptions, Sent, send, send_with};
pub use crate::waiting::Waiting;
pub use knock_sequence::{Invalid, Knock, KnockSpec, Protocol, Sequence};

use crate::destination::Families;
use crate::plan::{KnockPlan, KnockSource, Method, Rounds};
use crate::reply::{ConnectTo, ReplyListener, wait_for_reply};
use knock_sequence::duration::spell;
use std::io::Write;
use std::net::TcpStream;

/// Resolves the host, knocks or sends a packet, and connects if the plan names a port; tries again if that
/// fails and retries are left.
///
/// Writes nothing between two knocks without a delay, nor between the last knock and the
/// connection, because a slow terminal must not delay them.
///
/// # Errors
///
/// The first step that failed; later steps are not tried.
pub fn run(
    plan: &KnockPlan,
    report: &mut Reporter<impl Write>,
) -> Result<Option<TcpStream>, Failure> {
    if let Some(path) = &plan.log {
        report.log_to(Log::open(path, &plan.host)?);
    }
    for warning in &plan.warnings {
        report.warning(warning);
    }
    let destinations = resolve(plan, report)?;
    let source = match &plan.method {
        Method::Knocks(source) => source,
        Method::Packet(spa) => return spa::run(spa, plan, &destinations, report),
    };
    let mut retry = 0;
    let mut rounds = Rounds::default();
    loop {
        let (mut knocked, listeners, last) =
            knock(plan, source, &destinations, &mut rounds, report)?;
        let Some(goal) = plan.then_connect else {
            return Ok(None);
        };
        let error = match connect_to(goal, &mut knocked, listeners, last, plan, report) {
            Ok(stream) => return Ok(stream),
            Err(error) => error,
        };
        if retry >= plan.retries || !error.is_worth_a_retry() {
            return Err(error);
        }
        retry += 1;
        report.retry(retry, plan.retries, &error);
        report.flush();
    }
}

/// Connects to the given port, or to the one in the host's reply.
fn connect_to(
    goal: ConnectTo,
    knocked: &mut Vec<Knocked>,
    listeners: Vec<ReplyListener>,
    last: Option<Knock>,
    plan: &KnockPlan,
    report: &mut Reporter<impl Write>,
) -> Result<Option<TcpStream>, Failure> {
    let port = match (goal, last) {
        (ConnectTo::Port(port), _) => port,
        (ConnectTo::Reply, None) => return Ok(None),
        (ConnectTo::Reply, Some(last)) => {
            report
                .waits_for(|| format!("the reply of {}, up to {}", plan.host, spell(plan.timeout)));
            let reply = wait_for_reply(knocked, listeners, last, plan.timeout);
            report.has_waited();
            match reply {
                Some(reply) => {
                    let reply = reply?;
                    *knocked = knocked.drain(..).skip(reply.place).take(1).collect();
                    report.replied(reply.port, reply.after);
                    reply.port
                }
                None => return Ok(None),
            }
        }
    };
    if let Some(first) = knocked.first() {
        report.waits_for_port(port, first.destination, plan.timeout);
    }
    let connected = connect_any(knocked, port, plan.timeout);
    report.has_waited();
    let Some(connected) = connected else {
        return Ok(None);
    };
    let (destination, stream, connected) =
        connected.map_err(|error| error.after(plan.method.sent()))?;
    report.connected(&destination, port, &connected);
    Ok(Some(stream))
}

/// Returns the addresses to knock on, and those that are left out.
fn find_destinations(
    plan: &KnockPlan,
) -> Result<(Vec<Destination>, Vec<Destination>), ResolveError> {
    if plan.families == Families::DualStack {
        return Ok((Destination::resolve_both(&plan.host)?, Vec::new()));
    }
    let Resolved { first, others } = Destination::resolve(&plan.host, plan.families.only())?;
    Ok((vec![first], others))
}

fn resolve(
    plan: &KnockPlan,
    report: &mut Reporter<impl Write>,
) -> Result<Vec<Destination>, Failure> {
    let host = &plan.host;
    report.waits_for(|| format!("the address of {host}"));
    let found = find_destinations(plan);
    report.has_waited();
    let (destinations, others) = found?;
    let sends = plan.method.sends();
    report.resolved(sends, host, &destinations, &others);
    Ok(destinations)
}

/// The hosts that were knocked on, the listeners for their replies, and the last knock.
type KnocksDone = (Vec<Knocked>, Vec<ReplyListener>, Option<Knock>);

/// Knocks on each address, and succeeds if one works. `rounds` selects the sequences.
fn knock(
    plan: &KnockPlan,
    source: &KnockSource,
    destinations: &[Destination],
    rounds: &mut Rounds,
    report: &mut Reporter<impl Write>,
) -> Result<KnocksDone, Failure> {
    let mut knocked = Vec::new();
    let mut listeners = Vec::new();
    let mut last = None;
    let mut failed = None;
    let send_options = plan.send_options();
    for &destination in destinations {
        if plan.next_line.is_some() {
            report.waits_for(|| {
                format!("the number of the next line, up to {}", spell(plan.timeout))
            });
        }
        let line = plan.next_line(&destination)?;
        report.has_waited();
        let (knocks, taken) = source.next(line, &destination, rounds)?;
        if let Some(taken) = taken {
            report.taken(&taken);
        }
        let of = knocks.len();
        if plan.handshake {
            report.waits_for(|| {
                format!(
                    "the handshakes of {destination}, up to {} each",
                    spell(plan.timeout)
                )
            });
        }
        let sent = send_with(&destination, &knocks, send_options, |number, knock| {
            last = Some(knock);
            report.knock(number, of, knock, &destination);
            if !plan.delay.is_zero() && number < of {
                report.flush();
            }
        });
        report.has_waited();
        match sent {
            Ok(Sent {
                last: last_knock,
                listener,
            }) => {
                knocked.push(Knocked {
                    destination,
                    last_knock,
                });
                listeners.extend(listener);
            }
            Err(error) if destinations.len() > 1 => {
                report.skipped(&error.destination, &error);
                failed = Some(error);
            }
            Err(error) => return Err(error.into()),
        }
    }
    match failed {
        Some(error) if knocked.is_empty() => Err(error.into()),
        _ => Ok((knocked, listeners, last)),
    }
}
