//! The host's answer, and what it means.

use super::packet::SentPacket;
use super::settings::CheckedSpa;
use super::words::PacketPort;
use crate::destination::Destination;
use knock_common::reason::Reason;
use knock_sequence::duration::spell;
use knock_sequence::spa::{Answer, Channel};
use std::fmt;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// The most octets of a datagram that are read; answers are shorter.
const LONGEST: usize = 512;

/// A difference of clocks that is worth a warning: a third of the usual window.
const NOTABLE: Duration = Duration::from_secs(10);

/// An answer to a packet.
#[derive(Clone, Copy, Debug)]
pub struct PacketAnswer {
    /// The host.
    pub destination: Destination,
    /// The outcome that it reports.
    pub answer: Answer,
    /// The time since the packet was sent.
    pub after: Duration,
    /// How far this machine's clock is ahead of the host's, in milliseconds.
    pub ahead_ms: i64,
    /// The address that the packet asked to open for; `None` for the packet's source.
    pub asked: Option<IpAddr>,
}

/// No answer arrived.
#[derive(Clone, Copy, Debug)]
pub struct Unanswered {
    /// The host.
    pub destination: Destination,
    /// The port of the packet.
    pub port: PacketPort,
    /// The time that was allowed.
    pub limit: Duration,
    /// Whether the network reports that nothing receives at the port.
    pub is_closed: bool,
    /// The TCP port that did not open either.
    pub not_connected: Option<u16>,
}

impl fmt::Display for Unanswered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            destination,
            port,
            limit,
            is_closed,
            not_connected,
        } = self;
        if let Some(tcp) = not_connected {
            write!(f, "cannot connect to tcp/{tcp} on {destination}, and ")?;
        }
        match is_closed {
            true => write!(
                f,
                "{port} on {destination} is closed: knock-user does not run there, or receives packets at another \
                 port, or runs with --dry-run, which answers nothing; or its key is another one: compare \
                 --spa with what `knock-user check` prints on the host"
            ),
            false => write!(
                f,
                "no answer from {port} on {destination} within {}: check that the host knows this key, \
                 that --spa is the host's key, the port, and both clocks; --retries 2 sends the packet \
                 again if it was lost",
                spell(*limit)
            ),
        }
    }
}

impl std::error::Error for Unanswered {}

/// An answer that reports a refusal.
#[derive(Clone, Debug)]
pub struct HostRefusal {
    text: String,
    is_passing: bool,
    can_pass: bool,
}

impl HostRefusal {
    /// Returns whether another packet can help.
    #[must_use]
    pub fn is_worth_a_retry(&self) -> bool {
        self.is_passing
    }

    /// Returns whether the host may comply later, without a change of its configuration: this machine can move, and
    /// a clock can be set.
    #[must_use]
    pub fn can_pass(&self) -> bool {
        self.can_pass
    }
}

impl fmt::Display for HostRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for HostRefusal {}

/// The outcome that an answer reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AnswerMeaning {
    Open,
    Closed,
    NotAllowed,
    Elsewhere,
    Expired,
    Stale,
    Replayed,
    /// The host could not comply at this moment.
    Busy,
    /// The host is cut off from the hosts that open the door together.
    CutOff,
    Other(&'static str),
}

impl AnswerMeaning {
    fn of(outcome: Option<Reason>) -> Self {
        match outcome {
            Some(Reason::Opened | Reason::Refreshed) => Self::Open,
            Some(Reason::Closed) => Self::Closed,
            Some(Reason::SpaNotAllowed) => Self::NotAllowed,
            Some(Reason::SpaElsewhere) => Self::Elsewhere,
            Some(Reason::SpaExpired) => Self::Expired,
            Some(Reason::SpaStale) => Self::Stale,
            Some(Reason::SpaReplayed) => Self::Replayed,
            Some(Reason::GrantsFull | Reason::Contended | Reason::SpaFull) => Self::Busy,
            Some(Reason::CutOff) => Self::CutOff,
            Some(other) => Self::Other(other.name()),
            None => Self::Other("a reason that this version of knock-client does not know"),
        }
    }
}

impl PacketAnswer {
    /// Returns whether the door is open.
    #[must_use]
    pub fn is_open(&self) -> bool {
        AnswerMeaning::of(self.answer.outcome) == AnswerMeaning::Open
    }

    /// Returns whether the host complied.
    pub(crate) fn is_done(&self) -> bool {
        let meaning = AnswerMeaning::of(self.answer.outcome);
        matches!(meaning, AnswerMeaning::Open | AnswerMeaning::Closed)
    }

    /// Returns the name of the outcome: that of the reason in the host's events.
    #[must_use]
    pub fn outcome(&self) -> &'static str {
        self.answer.outcome.map_or("unknown", Reason::name)
    }

    /// Returns the refusal, if the host did not comply.
    pub(super) fn refusal(&self, spa: &CheckedSpa, asked: Option<IpAddr>) -> Option<HostRefusal> {
        let door = spa.door_text();
        let Answer { source, .. } = self.answer;
        let (text, is_passing) = match AnswerMeaning::of(self.answer.outcome) {
            AnswerMeaning::Open | AnswerMeaning::Closed => return None,
            AnswerMeaning::NotAllowed => (
                format!(
                    "{} does not open {door} for this key: name another door with --door, or have its \
                     administrator add the door to this key's user",
                    self.destination
                ),
                false,
            ),
            AnswerMeaning::Elsewhere => (
                match asked {
                    Some(asked) => format!(
                        "{} opens {door} only for the address that the packet comes from, which is {source} \
                         there and not {asked}: send it again with --source {source}",
                        self.destination
                    ),
                    None => format!(
                        "{} opens {door} only for an address that the packet names: send it again with \
                         --source {source}, which this machine's address is there",
                        self.destination
                    ),
                },
                false,
            ),
            AnswerMeaning::Expired => (
                format!(
                    "this key or its user has expired on {}: ask its administrator for a later date",
                    self.destination
                ),
                false,
            ),
            AnswerMeaning::Stale => (
                format!(
                    "this machine's clock is {} than that of {}: set the clock, then try again",
                    self.clock(),
                    self.destination
                ),
                false,
            ),
            AnswerMeaning::Replayed => (
                format!(
                    "{} has received a packet of this key with the same or a later time: try again; \
                     if this machine's clock was set back, wait until the old time has passed, and use \
                     each key on one machine only",
                    self.destination
                ),
                true,
            ),
            AnswerMeaning::Busy => (
                format!(
                    "{} has no room for another grant: try again later",
                    self.destination
                ),
                true,
            ),
            AnswerMeaning::CutOff => (
                format!(
                    "{} has lost the other hosts that open {door} together, and opens it again when it has found \
                     them: try another of these hosts, or try again later",
                    self.destination
                ),
                true,
            ),
            AnswerMeaning::Other(reason) => (
                format!(
                    "{} does not open {door}: it answers {reason}; see its log",
                    self.destination
                ),
                false,
            ),
        };
        let can_pass = is_passing
            || matches!(
                AnswerMeaning::of(self.answer.outcome),
                AnswerMeaning::Elsewhere | AnswerMeaning::Stale
            );
        Some(HostRefusal {
            text,
            is_passing,
            can_pass,
        })
    }

    /// Returns what the host did, in words.
    pub(crate) fn text(&self, spa: &CheckedSpa) -> String {
        let Answer { seconds, port, .. } = self.answer;
        // The answer has the packet's source, and the host complies for the address that the packet asks for.
        let source = self.asked.unwrap_or(self.answer.source);
        let door = spa.door_text();
        match AnswerMeaning::of(self.answer.outcome) {
            AnswerMeaning::Open => {
                let time = spell(Duration::from_secs(seconds.into()));
                let port = port.map_or(String::new(), |port| format!(" (tcp/{port})"));
                format!(
                    "{door} on {} is open for {time} for {source}{port}",
                    self.destination
                )
            }
            AnswerMeaning::Closed => {
                format!("{door} on {} is closed for {source}", self.destination)
            }
            AnswerMeaning::NotAllowed
            | AnswerMeaning::Elsewhere
            | AnswerMeaning::Expired
            | AnswerMeaning::Stale
            | AnswerMeaning::Replayed
            | AnswerMeaning::Busy
            | AnswerMeaning::CutOff
            | AnswerMeaning::Other(_) => {
                format!("the answer of {} is {}", self.destination, self.outcome())
            }
        }
    }

    /// Returns a warning if the door is open for a shorter time than was asked for.
    pub(crate) fn time_warning(&self, spa: &CheckedSpa) -> Option<String> {
        let given = self.answer.seconds;
        let asked = spa
            .seconds()
            .filter(|&asked| self.is_open() && given < asked)?;
        let [given, asked] =
            [given, asked].map(|seconds| spell(Duration::from_secs(seconds.into())));
        Some(format!(
            "{} opens {} for {given}, and not for {asked} as --for asks: its open_for_max, or the end of this \
             key, allows no more",
            self.destination,
            spa.door_text()
        ))
    }

    /// Returns a warning about this machine's clock, if it is far from the host's.
    pub(crate) fn clock_warning(&self) -> Option<String> {
        let is_notable = self.ahead_ms.unsigned_abs() >= NOTABLE.as_millis() as u64;
        let is_said = AnswerMeaning::of(self.answer.outcome) == AnswerMeaning::Stale;
        (is_notable && !is_said).then(|| {
            format!(
                "this machine's clock is {} than that of {}: set it, since packets are refused if \
                 clocks differ by more than 30s, or what the host has as its window",
                self.clock(),
                self.destination
            )
        })
    }

    /// Returns the difference of the clocks: `20s later`.
    fn clock(&self) -> String {
        let seconds = Duration::from_secs((self.ahead_ms.unsigned_abs() + 500) / 1_000);
        let word = if self.ahead_ms < 0 {
            "earlier"
        } else {
            "later"
        };
        format!("{} {word}", spell(seconds))
    }
}

/// The result of waiting for an answer until the limit.
#[derive(Clone, Copy, Debug)]
pub(super) enum ReceivedAnswer {
    Answer(PacketAnswer),
    /// Nothing; the network may have reported that the port is closed.
    Nothing {
        is_closed: bool,
    },
}

impl SentPacket {
    /// Waits for the answer until `limit` has passed since the packet was sent.
    pub(super) fn receive(&self, channel: &Channel, limit: Duration) -> ReceivedAnswer {
        let mut buffer = [0; LONGEST];
        let mut is_closed = false;
        loop {
            let left = limit.saturating_sub(self.at.elapsed());
            if left.is_zero() || self.socket.set_read_timeout(Some(left)).is_err() {
                return ReceivedAnswer::Nothing { is_closed };
            }
            match self.socket.recv(&mut buffer) {
                Ok(length) => {
                    let datagram = buffer.get(..length).unwrap_or_default();
                    if let Ok(answer) = channel.open_answer(&self.packet, datagram) {
                        return ReceivedAnswer::Answer(self.answered(answer));
                    }
                }
                // Anybody can send such a report, so the wait continues.
                Err(error) if is_unreachable(error.kind()) => is_closed = true,
                Err(error) if is_passing(error.kind()) => {}
                Err(_) => return ReceivedAnswer::Nothing { is_closed },
            }
        }
    }

    fn answered(&self, answer: Answer) -> PacketAnswer {
        let after = Instant::now().saturating_duration_since(self.at);
        // The host read its clock halfway through the exchange, if both directions take equally long.
        let here = i128::from(self.stamp) + (after.as_nanos() / 2) as i128;
        let ahead = (here - i128::from(answer.host_time)) / 1_000_000;
        let limit = i128::from(i64::MAX);
        PacketAnswer {
            destination: self.destination,
            answer,
            after,
            ahead_ms: ahead.clamp(-limit, limit) as i64,
            asked: self.source,
        }
    }
}

/// Returns whether the error reports that nothing receives at the port; Windows has the second one for it.
fn is_unreachable(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset
    )
}

fn is_passing(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::Interrupted
            | ErrorKind::WouldBlock
            | ErrorKind::TimedOut
            | ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable
    )
}
