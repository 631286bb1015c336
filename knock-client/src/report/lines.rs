//! The lines of JSON, and the words for failures.

use crate::connect::{ConnectError, FailedConnect};
use crate::failure::Failure;
use crate::spa::{CheckedSpa, PacketAnswer, SentPacket};
use serde::Serialize;
use std::time::Duration;

/// A line of JSON. The names of its fields and the words of [`Failed::reason`] are stable: programs
/// parse them.
#[derive(Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(super) enum ReportLine {
    Taken {
        line: usize,
        left: usize,
    },
    Knock {
        number: usize,
        of: usize,
        protocol: &'static str,
        port: u16,
        address: String,
    },
    Packet {
        protocol: &'static str,
        port: u16,
        address: String,
        action: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        door: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        seconds: Option<u32>,
        #[serde(skip_serializing_if = "Option::is_none")]
        source: Option<String>,
    },
    Answered {
        outcome: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        port: Option<u16>,
        seconds: u32,
        source: String,
        address: String,
        clock_ahead_ms: i64,
        after_us: u64,
    },
    Skipped {
        address: String,
        message: String,
    },
    Warning {
        message: String,
    },
    Retry {
        number: u32,
        of: u32,
        message: String,
    },
    Replied {
        port: u16,
        after_us: u64,
    },
    Connected {
        port: u16,
        attempt: u32,
        after_us: u64,
    },
    Kept {
        seconds: u64,
        next_ms: u64,
    },
    Moved {
        address: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        previous: Option<String>,
    },
    NotRenewed {
        #[serde(skip_serializing_if = "Option::is_none")]
        next_ms: Option<u64>,
        message: String,
    },
    Ended {
        seconds: u64,
    },
    Failed(Failed),
}

#[derive(Serialize)]
pub(super) struct Failed {
    reason: FailureReason,
    /// Of the knock that was not sent, or of the connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attempts: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    after_us: Option<u64>,
    message: String,
}

/// Why a run failed, in a word. docs/client-json.md lists the words; `ValueEnum` enumerates them.
#[derive(Clone, Copy, Debug, Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(super) enum FailureReason {
    NoKnocks,
    Profile,
    Sequence,
    OneTime,
    Otp,
    Spa,
    Keep,
    NextLine,
    Broken,
    Log,
    Unresolved,
    Unsent,
    NoReply,
    Unanswered,
    NotOpened,
    NoAnswer,
    Refused,
    Unreachable,
    Unable,
    Output,
}

/// Returns the line of a packet that was sent.
pub(super) fn of_packet(spa: &CheckedSpa, sent: &SentPacket) -> ReportLine {
    ReportLine::Packet {
        protocol: "udp",
        port: spa.port().number(),
        address: sent.destination.to_string(),
        action: spa.action_text(),
        door: spa.door().map(ToString::to_string),
        seconds: spa.seconds(),
        source: sent.source.map(|source| source.to_string()),
    }
}

/// Returns the line of an answer.
pub(super) fn of_answer(answered: &PacketAnswer) -> ReportLine {
    let answer = &answered.answer;
    ReportLine::Answered {
        outcome: answered.outcome(),
        port: answer.port,
        seconds: answer.seconds,
        source: answer.source.to_string(),
        address: answered.destination.to_string(),
        clock_ahead_ms: answered.ahead_ms,
        after_us: microseconds(answered.after),
    }
}

impl From<&Failure> for Failed {
    fn from(failure: &Failure) -> Self {
        let message = failure.to_string();
        let plain = |reason, port| Self {
            reason,
            port,
            attempts: None,
            after_us: None,
            message: String::new(),
        };
        let failed = match failure {
            Failure::NoKnocks { .. } => plain(FailureReason::NoKnocks, None),
            Failure::Profile(_) | Failure::SshConfig(_) | Failure::Share(_) => {
                plain(FailureReason::Profile, None)
            }
            Failure::Sequence(_) => plain(FailureReason::Sequence, None),
            Failure::OneTime(_) => plain(FailureReason::OneTime, None),
            Failure::Otp(_) => plain(FailureReason::Otp, None),
            Failure::Spa(_) | Failure::KeyFile(_) | Failure::Import(_) => {
                plain(FailureReason::Spa, None)
            }
            Failure::Keep(_) => plain(FailureReason::Keep, None),
            Failure::NotSent(error) => plain(FailureReason::Unsent, Some(error.port.number())),
            Failure::Unanswered(error) => plain(FailureReason::Unanswered, error.not_connected),
            Failure::Refused(_) => plain(FailureReason::NotOpened, None),
            Failure::NoPort { .. } => plain(FailureReason::NoReply, None),
            Failure::OpenButSilent { port, .. } => plain(FailureReason::NoAnswer, Some(*port)),
            Failure::NextLine(_) | Failure::NextLineOfNothing => {
                plain(FailureReason::NextLine, None)
            }
            Failure::Broken(_) => plain(FailureReason::Broken, None),
            Failure::Log(_) => plain(FailureReason::Log, None),
            Failure::Resolve(_) => plain(FailureReason::Unresolved, None),
            Failure::Send(error) => plain(FailureReason::Unsent, Some(error.knock.port)),
            Failure::Reply(error) => plain(FailureReason::NoReply, Some(error.knock.port)),
            Failure::Connect(ConnectError {
                port,
                attempts,
                after,
                closed,
                ..
            }) => Self {
                attempts: Some(*attempts),
                after_us: Some(microseconds(*after)),
                ..plain(reason(closed), Some(*port))
            },
            Failure::Output(_) => plain(FailureReason::Output, None),
        };
        Self { message, ..failed }
    }
}

fn reason(closed: &FailedConnect) -> FailureReason {
    match closed {
        FailedConnect::NoAnswer => FailureReason::NoAnswer,
        FailedConnect::Refused => FailureReason::Refused,
        FailedConnect::Unreachable(_) => FailureReason::Unreachable,
        FailedConnect::Unable(_) => FailureReason::Unable,
    }
}

pub(super) fn microseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum as _;
    use std::collections::BTreeMap;

    const PAGE: &str = include_str!("../../../docs/client-json.md");

    /// Returns the words in backquotes of each cell but the last, in the table whose first column has this name.
    fn table(column: &str) -> Vec<Vec<Vec<&'static str>>> {
        let (_, table) = PAGE.split_once(&format!("| `{column}` |")).unwrap();
        let rows = table
            .lines()
            .skip(2)
            .map_while(|row| row.strip_prefix("| "));
        let words = |cell: &'static str| cell.split('`').skip(1).step_by(2).collect();
        rows.map(|row| row.split(" | ").map(words).collect())
            .collect()
    }

    fn every_line() -> Vec<ReportLine> {
        let line = ReportLine::Taken { line: 1, left: 1 };
        // A new kind of line does not compile here until it is in the list below.
        match line {
            ReportLine::Taken { .. }
            | ReportLine::Knock { .. }
            | ReportLine::Packet { .. }
            | ReportLine::Answered { .. }
            | ReportLine::Skipped { .. }
            | ReportLine::Warning { .. }
            | ReportLine::Retry { .. }
            | ReportLine::Replied { .. }
            | ReportLine::Connected { .. }
            | ReportLine::Kept { .. }
            | ReportLine::Moved { .. }
            | ReportLine::NotRenewed { .. }
            | ReportLine::Ended { .. }
            | ReportLine::Failed(_) => {}
        }
        vec![
            line,
            ReportLine::Knock {
                number: 1,
                of: 1,
                protocol: "tcp",
                port: 1,
                address: String::new(),
            },
            ReportLine::Packet {
                protocol: "udp",
                port: 1,
                address: String::new(),
                action: "open",
                door: Some(String::new()),
                seconds: Some(1),
                source: Some(String::new()),
            },
            ReportLine::Answered {
                outcome: "opened",
                port: Some(1),
                seconds: 1,
                source: String::new(),
                address: String::new(),
                clock_ahead_ms: 1,
                after_us: 1,
            },
            ReportLine::Skipped {
                address: String::new(),
                message: String::new(),
            },
            ReportLine::Warning {
                message: String::new(),
            },
            ReportLine::Retry {
                number: 1,
                of: 1,
                message: String::new(),
            },
            ReportLine::Replied {
                port: 1,
                after_us: 1,
            },
            ReportLine::Connected {
                port: 1,
                attempt: 1,
                after_us: 1,
            },
            ReportLine::Kept {
                seconds: 1,
                next_ms: 1,
            },
            ReportLine::Moved {
                address: String::new(),
                previous: Some(String::new()),
            },
            ReportLine::NotRenewed {
                next_ms: Some(1),
                message: String::new(),
            },
            ReportLine::Ended { seconds: 1 },
            ReportLine::Failed(Failed {
                reason: FailureReason::Otp,
                port: Some(1),
                attempts: Some(1),
                after_us: Some(1),
                message: String::new(),
            }),
        ]
    }

    #[test]
    fn every_event_and_field_is_on_the_page() {
        let found = table("event").into_iter();
        let found: BTreeMap<_, _> = found
            .map(|cells| {
                let mut fields = cells[1].clone();
                fields.sort_unstable();
                (cells[0][0].to_owned(), fields.join(" "))
            })
            .collect();
        let expected: BTreeMap<_, _> = every_line()
            .iter()
            .map(|line| {
                let value = serde_json::to_value(line).unwrap();
                let object = value.as_object().unwrap();
                let mut fields: Vec<_> = object.keys().map(String::as_str).collect();
                fields.retain(|field| *field != "event");
                fields.sort_unstable();
                let event = value["event"].as_str().unwrap();
                (event.to_owned(), fields.join(" "))
            })
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn every_reason_is_on_the_page() {
        let mut found: Vec<_> = table("reason")
            .iter()
            .map(|cells| cells[0][0].to_owned())
            .collect();
        let mut expected: Vec<_> = FailureReason::value_variants()
            .iter()
            .map(|reason| {
                serde_json::to_value(reason)
                    .unwrap()
                    .as_str()
                    .unwrap()
                    .to_owned()
            })
            .collect();
        found.sort();
        expected.sort();
        assert_eq!(found, expected);
    }
}
