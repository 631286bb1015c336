//! Connecting to the port that the knocks open.

use crate::destination::Destination;
use crate::refused;
use crate::remedy::remedy;
use std::fmt;
use std::io::{self, ErrorKind};
use std::net::TcpStream;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// How long the first attempt waits for an answer. The system retransmits a lost SYN only after a
/// second; a new attempt is sooner.
const FIRST_ATTEMPT: Duration = Duration::from_millis(200);

/// How long an attempt waits at most.
const LONGEST_ATTEMPT: Duration = Duration::from_secs(1);

/// The pause after a refusal, which can arrive at once.
const PAUSE_AFTER_ANSWER: Duration = Duration::from_millis(50);

/// The time for the first attempt even if the limit has passed.
const LEAST_ATTEMPT: Duration = Duration::from_millis(1);

/// A connection that was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connected {
    /// The number of the attempt, from 1.
    pub attempt: u32,
    /// The time since the last knock.
    pub after: Duration,
}

/// How a failed attempt ended.
#[derive(Debug)]
pub enum FailedConnect {
    /// No answer arrived.
    NoAnswer,
    /// The host refused the connection.
    Refused,
    /// The network has no route to the host.
    Unreachable(io::Error),
    /// This machine could not try; another attempt would fail, too.
    Unable(io::Error),
}

impl FailedConnect {
    fn from_error(error: io::Error) -> Self {
        use ErrorKind::{
            ConnectionRefused, ConnectionReset, HostUnreachable, NetworkUnreachable, TimedOut,
        };
        let kind = error.kind();
        if kind == TimedOut {
            Self::NoAnswer
        } else if matches!(kind, ConnectionRefused | ConnectionReset) {
            Self::Refused
        } else if matches!(kind, HostUnreachable | NetworkUnreachable) {
            Self::Unreachable(error)
        } else {
            Self::Unable(error)
        }
    }

    /// Returns the result after this attempt: silence of an attempt that was cut short leaves the
    /// previous result.
    fn after(self, before: Self, cut_short: bool) -> Self {
        match self {
            Self::NoAnswer if cut_short => before,
            Self::NoAnswer | Self::Refused | Self::Unreachable(_) | Self::Unable(_) => self,
        }
    }
}

/// The packets sent before a connection, which decide what to check if the port stays closed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Attempted {
    /// Knocks that are always the same.
    #[default]
    Knocks,
    /// A one-time sequence.
    OneTime,
    /// A time-based sequence.
    TimeBased,
    /// A packet of single packet authorization that asks for no answer.
    Packet,
}

impl Attempted {
    const fn advice(self) -> &'static str {
        match self {
            Self::Knocks => {
                "check the knocks, and try --delay 50ms in case they overtake each other"
            }
            Self::OneTime => {
                "check that the host has the same file and the same next line, as with --next-line, and try \
                 --delay 50ms in case knocks overtake each other"
            }
            Self::TimeBased => {
                "check the clocks of both machines, and that secret, period, port base and protocols are those \
                 of the door; behind a NAT, name the public address with --source"
            }
            Self::Packet => {
                "check that the host knows this key, that --spa is the host's key, --port, and both clocks; \
                 without --no-answer, the host reports what is wrong"
            }
        }
    }
}

/// A connection that was not made within the limit.
#[derive(Debug)]
pub struct ConnectError {
    /// The host.
    pub destination: Destination,
    /// The port.
    pub port: u16,
    /// The number of attempts.
    pub attempts: u32,
    /// The time since the last knock.
    pub after: Duration,
    /// The time that was allowed.
    pub limit: Duration,
    /// How the last attempt ended.
    pub closed: FailedConnect,
    /// The packets sent before.
    pub sent: Attempted,
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            destination,
            port,
            limit,
            closed,
            sent,
            ..
        } = self;
        write!(f, "cannot connect to tcp/{port} on {destination}")?;
        match closed {
            FailedConnect::NoAnswer => write!(
                f,
                " within {limit:?}: no answer: the port is still closed; {}",
                sent.advice()
            ),
            FailedConnect::Refused => write!(
                f,
                " within {limit:?}: refused: the port is open but nothing listens; \
                 start the service, or check its port"
            ),
            FailedConnect::Unreachable(cause) => {
                write!(
                    f,
                    " within {limit:?}: {}; {}",
                    refused::plain(cause),
                    remedy(cause)
                )
            }
            FailedConnect::Unable(cause) => {
                write!(f, ": {}; {}", refused::plain(cause), remedy(cause))
            }
        }
    }
}

impl std::error::Error for ConnectError {}

impl ConnectError {
    /// Returns the same error after something else than plain knocks.
    #[must_use]
    pub fn after(self, sent: Attempted) -> Self {
        Self { sent, ..self }
    }

    /// Returns whether knocking again can help.
    #[must_use]
    pub fn is_worth_a_retry(&self) -> bool {
        match self.closed {
            FailedConnect::NoAnswer | FailedConnect::Refused | FailedConnect::Unreachable(_) => {
                true
            }
            FailedConnect::Unable(_) => false,
        }
    }
}

/// A host to which a whole sequence was sent.
#[derive(Clone, Copy, Debug)]
pub struct Knocked {
    /// The host.
    pub destination: Destination,
    /// When the last knock was sent.
    pub last_knock: Instant,
}

/// Connects to the host that opens first, and does not wait for the others.
///
/// # Errors
///
/// No host opened the port in time; the error is that of the first host.
pub fn connect_any(
    knocked: &[Knocked],
    port: u16,
    limit: Duration,
) -> Option<Result<(Destination, TcpStream, Connected), ConnectError>> {
    let (ended, all) = mpsc::channel();
    for (
        index,
        &Knocked {
            destination,
            last_knock,
        },
    ) in knocked.iter().enumerate()
    {
        let ended = ended.clone();
        thread::spawn(move || {
            let connected = connect(&destination, port, last_knock, limit);
            let connected = connected.map(|(stream, connected)| (destination, stream, connected));
            // The receiver is gone after the first success.
            let _late = ended.send((index, connected));
        });
    }
    drop(ended);
    let mut errors = Vec::new();
    for (index, connected) in all {
        match connected {
            Ok(connected) => return Some(Ok(connected)),
            Err(error) => errors.push((index, error)),
        }
    }
    let (_, first) = errors.into_iter().min_by_key(|(index, _)| *index)?;
    Some(Err(first))
}

/// Connects at once, and again until the port is open or `limit` has passed since `last_knock`.
///
/// # Errors
///
/// The port did not open in time, or this machine cannot connect at all.
pub fn connect(
    destination: &Destination,
    port: u16,
    last_knock: Instant,
    limit: Duration,
) -> Result<(TcpStream, Connected), ConnectError> {
    let address = destination.at(port);
    let left = || limit.saturating_sub(last_knock.elapsed());
    let mut attempt = 1;
    let mut patience = FIRST_ATTEMPT;
    let mut closed = FailedConnect::NoAnswer;
    loop {
        let wait = patience.min(left()).max(LEAST_ATTEMPT);
        closed = match TcpStream::connect_timeout(&address, wait).map_err(FailedConnect::from_error)
        {
            Ok(stream) => {
                let after = last_knock.elapsed();
                return Ok((stream, Connected { attempt, after }));
            }
            Err(ended) => ended.after(closed, wait < patience),
        };
        if left().is_zero() || matches!(closed, FailedConnect::Unable(_)) {
            let (destination, attempts, after) = (*destination, attempt, last_knock.elapsed());
            return Err(ConnectError {
                destination,
                port,
                attempts,
                after,
                limit,
                closed,
                sent: Attempted::default(),
            });
        }
        if !matches!(closed, FailedConnect::NoAnswer) {
            thread::sleep(PAUSE_AFTER_ANSWER.min(left()));
        }
        attempt += 1;
        patience = (patience * 3 / 2).min(LONGEST_ATTEMPT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_that_was_cut_short_keeps_the_previous_result() {
        let unreachable = || FailedConnect::from_error(ErrorKind::HostUnreachable.into());
        let rows = [
            (
                "silence",
                FailedConnect::NoAnswer,
                FailedConnect::NoAnswer,
                false,
                "NoAnswer",
            ),
            (
                "silence after a refusal",
                FailedConnect::Refused,
                FailedConnect::NoAnswer,
                false,
                "NoAnswer",
            ),
            (
                "cut short after a refusal",
                FailedConnect::Refused,
                FailedConnect::NoAnswer,
                true,
                "Refused",
            ),
            (
                "cut short after silence",
                FailedConnect::NoAnswer,
                FailedConnect::NoAnswer,
                true,
                "NoAnswer",
            ),
            (
                "refused though cut short",
                unreachable(),
                FailedConnect::Refused,
                true,
                "Refused",
            ),
            (
                "refused",
                FailedConnect::NoAnswer,
                FailedConnect::Refused,
                false,
                "Refused",
            ),
            (
                "cut short, unreachable",
                unreachable(),
                FailedConnect::NoAnswer,
                true,
                "Unreachable",
            ),
        ];
        for (name, before, ended, cut_short, known) in rows {
            let after = format!("{:?}", ended.after(before, cut_short));
            assert!(after.starts_with(known), "{name}: {after} is not {known}");
        }
    }

    #[test]
    fn each_system_error_has_its_meaning() {
        let rows = [
            (ErrorKind::TimedOut, "NoAnswer"),
            (ErrorKind::ConnectionRefused, "Refused"),
            (ErrorKind::ConnectionReset, "Refused"),
            (ErrorKind::HostUnreachable, "Unreachable"),
            (ErrorKind::NetworkUnreachable, "Unreachable"),
            (ErrorKind::PermissionDenied, "Unable"),
            (ErrorKind::AddrNotAvailable, "Unable"),
        ];
        for (kind, meaning) in rows {
            let closed = format!("{:?}", FailedConnect::from_error(kind.into()));
            assert!(
                closed.starts_with(meaning),
                "{kind:?}: {closed} is not {meaning}"
            );
        }
    }
}
