//! Reports what happens, as text or as JSON.

use crate::connect::{Closed, ConnectError, Connected};
use crate::failure::Failure;
use crate::log::Log;
use crate::one_time::Taken;
use crate::send::SendError;
use crate::target::{Target, list};
use knock_sequence::Knock;
use serde::Serialize;
use std::io::{self, BufWriter, Write};
use std::time::Duration;

/// Room for more lines than a sequence has knocks, so that none is written before [`Reporter::flush`].
const BUFFER_BYTES: usize = 64 * 1024;

/// How much is reported, and in which form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// The connection, and what prevented it.
    Quiet,
    /// Each knock, too.
    Verbose,
    /// Each knock and each failure, one JSON object per line.
    Json,
}

/// A line of JSON. The names of its fields and the words of [`Failed::reason`] are stable: programs
/// parse them.
#[derive(Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Line {
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
    Skipped {
        address: String,
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
    Failed(Failed),
}

#[derive(Serialize)]
struct Failed {
    reason: Reason,
    /// Of the knock that was not sent, or of the connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attempts: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    after_us: Option<u64>,
    message: String,
}

/// Why a run failed, in a word. docs/client.md lists the words; `ValueEnum` enumerates them.
#[derive(Clone, Copy, Debug, Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
enum Reason {
    NoKnocks,
    Profile,
    Sequence,
    OneTime,
    Otp,
    NextLine,
    Broken,
    Log,
    Unresolved,
    Unsent,
    NoReply,
    NoAnswer,
    Refused,
    Unreachable,
    Unable,
    Output,
}

/// Writes lines to an output and a log. Lines and errors of writing are kept until
/// [`flush`](Self::flush) or [`finish`](Self::finish), because knocks must not wait for a reader.
pub struct Reporter<W: Write> {
    style: Style,
    out: BufWriter<W>,
    log: Option<Log>,
    /// Whether several addresses are knocked on, so that lines must name theirs.
    has_several: bool,
    error: Option<Failure>,
}

impl<W: Write> Reporter<W> {
    /// Reports to `out`.
    pub fn new(style: Style, out: W) -> Self {
        Self {
            style,
            out: BufWriter::with_capacity(BUFFER_BYTES, out),
            log: None,
            has_several: false,
            error: None,
        }
    }

    /// Writes every later line to `log`, too.
    pub fn log_to(&mut self, log: Log) {
        self.log = Some(log);
    }

    /// Reports which addresses of the host are knocked on.
    pub fn resolved(&mut self, host: &str, targets: &[Target], others: &[Target]) {
        self.has_several = targets.len() > 1;
        let names = list(targets);
        let text = if names == host {
            format!("knocking on {names}")
        } else if others.is_empty() {
            format!("knocking on {names} ({host})")
        } else {
            let others = list(others);
            format!("knocking on {names} (first address of {host}, not {others})")
        };
        self.line(&[Style::Verbose], &text, None);
    }

    /// Reports that a one-time sequence was taken.
    pub fn taken(&mut self, taken: &Taken) {
        let &Taken { line, left, .. } = taken;
        let text = format!("took line {line}, {left} left");
        self.line(&[Style::Verbose], &text, Some(Line::Taken { line, left }));
    }

    /// Reports that a knock was sent.
    pub fn knock(&mut self, number: usize, of: usize, knock: Knock, target: &Target) {
        let Knock { protocol, port } = knock;
        let address = target.to_string();
        let on = if self.has_several {
            format!(" on {address}")
        } else {
            String::new()
        };
        let text = format!("knock {number} of {of}{on}: {knock}");
        let line = Line::Knock {
            number,
            of,
            protocol: protocol.name(),
            port,
            address,
        };
        self.line(&[Style::Verbose], &text, Some(line));
    }

    /// Reports that one of several addresses could not be knocked on.
    pub fn skipped(&mut self, error: &SendError) {
        let (address, message) = (error.target.to_string(), error.to_string());
        let text = message.clone();
        let line = Line::Skipped { address, message };
        self.line(&[Style::Quiet, Style::Verbose], &text, Some(line));
    }

    /// Reports a retry.
    pub fn retry(&mut self, number: u32, of: u32, error: &Failure) {
        let message = error.to_string();
        let text = format!("knocking again, {number} of {of}: {message}");
        let line = Line::Retry {
            number,
            of,
            message,
        };
        self.line(&[Style::Quiet, Style::Verbose], &text, Some(line));
    }

    /// Reports the port in the host's reply.
    pub fn replied(&mut self, port: u16, after: Duration) {
        let after_us = microseconds(after);
        let (ms, us) = (after_us / 1000, after_us % 1000);
        let text = format!("the reply is tcp/{port}, {ms}.{us:03} ms after the last knock");
        let line = Line::Replied { port, after_us };
        self.line(&[Style::Verbose], &text, Some(line));
    }

    /// Reports that the port is open.
    pub fn connected(&mut self, target: &Target, port: u16, connected: &Connected) {
        let &Connected { attempt, after } = connected;
        let after_us = microseconds(after);
        let (ms, us) = (after_us / 1000, after_us % 1000);
        let text = format!(
            "connected to tcp/{port} on {target} {ms}.{us:03} ms after the last knock \
             (attempt {attempt})"
        );
        let line = Line::Connected {
            port,
            attempt,
            after_us,
        };
        self.line(&[Style::Quiet, Style::Verbose], &text, Some(line));
    }

    /// Reports a failure in JSON and in the log only: a person reads it on standard error.
    pub fn failed(&mut self, failure: &Failure) {
        let line = Line::Failed(Failed::from(failure));
        self.line(&[], &failure.to_string(), Some(line));
    }

    /// Writes the lines so far.
    pub fn flush(&mut self) {
        if let Err(error) = self.out.flush() {
            self.unwritten(error);
        }
        if let Some(Err(error)) = self.log.as_mut().map(Log::flush) {
            self.keep(error.into());
        }
    }

    /// Writes the rest.
    ///
    /// # Errors
    ///
    /// The first error of writing.
    pub fn finish(mut self) -> Result<(), Failure> {
        self.flush();
        self.error.map_or(Ok(()), Err)
    }

    /// Adds a line as text, in these styles, or as JSON.
    fn line(&mut self, styles: &[Style], text: &str, json: Option<Line>) {
        if let Some(log) = &mut self.log {
            log.line(text);
        }
        let written = match (self.style, json) {
            (Style::Json, Some(line)) => serde_json::to_writer(&mut self.out, &line)
                .map_err(io::Error::from)
                .and_then(|()| writeln!(self.out)),
            (Style::Json, None) => Ok(()),
            (style, _) if styles.contains(&style) => writeln!(self.out, "{text}"),
            (Style::Quiet | Style::Verbose, _) => Ok(()),
        };
        if let Err(error) = written {
            self.unwritten(error);
        }
    }

    /// Keeps an error of standard output, unless its reader ended early, as `head` does.
    fn unwritten(&mut self, error: io::Error) {
        if error.kind() != io::ErrorKind::BrokenPipe {
            self.keep(Failure::Output(error));
        }
    }

    fn keep(&mut self, error: Failure) {
        self.error.get_or_insert(error);
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
            Failure::NoKnocks { .. } => plain(Reason::NoKnocks, None),
            Failure::Profile(_) => plain(Reason::Profile, None),
            Failure::Sequence(_) => plain(Reason::Sequence, None),
            Failure::OneTime(_) => plain(Reason::OneTime, None),
            Failure::Otp(_) => plain(Reason::Otp, None),
            Failure::NextLine(_) | Failure::NextLineOfNothing => plain(Reason::NextLine, None),
            Failure::Broken(_) => plain(Reason::Broken, None),
            Failure::Log(_) => plain(Reason::Log, None),
            Failure::Resolve(_) => plain(Reason::Unresolved, None),
            Failure::Send(error) => plain(Reason::Unsent, Some(error.knock.port)),
            Failure::Reply(error) => plain(Reason::NoReply, Some(error.knock.port)),
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
            Failure::Output(_) => plain(Reason::Output, None),
        };
        Self { message, ..failed }
    }
}

fn reason(closed: &Closed) -> Reason {
    match closed {
        Closed::NoAnswer => Reason::NoAnswer,
        Closed::Refused => Reason::Refused,
        Closed::Unreachable(_) => Reason::Unreachable,
        Closed::Unable(_) => Reason::Unable,
    }
}

fn microseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum as _;
    use std::collections::BTreeMap;

    const PAGE: &str = include_str!("../../docs/client.md");

    /// The words in backquotes of each cell but the last, in the table whose first column has this name.
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

    fn every_line() -> Vec<Line> {
        let line = Line::Taken { line: 1, left: 1 };
        // A new kind of line does not compile here until it is in the list below.
        match line {
            Line::Taken { .. }
            | Line::Knock { .. }
            | Line::Skipped { .. }
            | Line::Retry { .. }
            | Line::Replied { .. }
            | Line::Connected { .. }
            | Line::Failed(_) => {}
        }
        vec![
            line,
            Line::Knock {
                number: 1,
                of: 1,
                protocol: "tcp",
                port: 1,
                address: String::new(),
            },
            Line::Skipped {
                address: String::new(),
                message: String::new(),
            },
            Line::Retry {
                number: 1,
                of: 1,
                message: String::new(),
            },
            Line::Replied {
                port: 1,
                after_us: 1,
            },
            Line::Connected {
                port: 1,
                attempt: 1,
                after_us: 1,
            },
            Line::Failed(Failed {
                reason: Reason::Otp,
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
        let mut expected: Vec<_> = Reason::value_variants()
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
