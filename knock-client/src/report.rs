//! Telling what happens, to a person or as JSON.

use crate::connect::{Closed, ConnectError, Connected};
use crate::failure::Failure;
use crate::knock::{Knock, Protocol};
use crate::target::{Resolved, Target, list};
use serde::Serialize;
use std::io::{self, BufWriter, Write};
use std::time::Duration;

/// Room for more lines than a sequence has knocks, so that none is written before [`Report::flush`].
const BUFFER_BYTES: usize = 64 * 1024;

/// How much is told, and in which language.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Only the connection.
    Quiet,
    /// Every knock too.
    Verbose,
    /// Every knock and every failure, one JSON object per line.
    Json,
}

/// A line of JSON. The names of its fields, and the words that are a [`Failed::reason`], are a
/// promise to those who parse them.
#[derive(Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Line {
    Knock {
        number: usize,
        of: usize,
        protocol: Protocol,
        port: u16,
        address: String,
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
    /// `unresolved`, `unsent`, `no_answer`, `refused`, `unreachable` or `unable`.
    reason: &'static str,
    /// Of the knock that was not sent, or of the connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attempts: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    after_us: Option<u64>,
    message: String,
}

/// Where the lines go. They are kept until [`flush`](Self::flush) or [`finish`](Self::finish),
/// because the knocks must not wait for whoever reads them; for the same reason an error of
/// writing is kept until then.
pub struct Report<W: Write> {
    style: Style,
    out: BufWriter<W>,
    error: Option<io::Error>,
}

impl<W: Write> Report<W> {
    /// A report to `out`.
    pub fn new(style: Style, out: W) -> Self {
        Self {
            style,
            out: BufWriter::with_capacity(BUFFER_BYTES, out),
            error: None,
        }
    }

    /// Tells which address of the host is knocked on.
    pub fn resolved(&mut self, host: &str, resolved: &Resolved) {
        let Resolved { first, others } = resolved;
        match self.style {
            Style::Quiet | Style::Json => {}
            Style::Verbose if first.to_string() == host => {
                self.text(&format!("knocking on {first}"));
            }
            Style::Verbose if others.is_empty() => {
                self.text(&format!("knocking on {first} ({host})"));
            }
            Style::Verbose => {
                let others = list(others);
                self.text(&format!(
                    "knocking on {first} (first address of {host}, not {others})"
                ));
            }
        }
    }

    /// Tells that a knock was sent.
    pub fn knock(&mut self, number: usize, of: usize, knock: Knock, target: &Target) {
        let Knock { protocol, port } = knock;
        match self.style {
            Style::Quiet => {}
            Style::Verbose => self.text(&format!("knock {number} of {of}: {knock}")),
            Style::Json => {
                let address = target.to_string();
                self.json(&Line::Knock {
                    number,
                    of,
                    protocol,
                    port,
                    address,
                });
            }
        }
    }

    /// Tells that the port is open.
    pub fn connected(&mut self, target: &Target, port: u16, connected: &Connected) {
        let &Connected { attempt, after } = connected;
        let after_us = microseconds(after);
        match self.style {
            Style::Quiet | Style::Verbose => {
                let (ms, us) = (after_us / 1000, after_us % 1000);
                self.text(&format!(
                    "connected to tcp/{port} on {target} {ms}.{us:03} ms after the last knock \
                     (attempt {attempt})"
                ));
            }
            Style::Json => self.json(&Line::Connected {
                port,
                attempt,
                after_us,
            }),
        }
    }

    /// Tells a failure, in JSON only: a person reads it on standard error.
    pub fn failed(&mut self, failure: &Failure) {
        match self.style {
            Style::Quiet | Style::Verbose => {}
            Style::Json => self.json(&Line::Failed(Failed::from(failure))),
        }
    }

    /// Writes out what was told so far.
    pub fn flush(&mut self) {
        let flushed = self.out.flush();
        self.keep(flushed);
    }

    /// Writes out the rest.
    ///
    /// # Errors
    ///
    /// The first error that writing met.
    pub fn finish(mut self) -> io::Result<()> {
        self.flush();
        self.error.map_or(Ok(()), Err)
    }

    fn text(&mut self, line: &str) {
        let written = writeln!(self.out, "{line}");
        self.keep(written);
    }

    fn json(&mut self, line: &Line) {
        let written = serde_json::to_writer(&mut self.out, line)
            .map_err(io::Error::from)
            .and_then(|()| writeln!(self.out));
        self.keep(written);
    }

    fn keep(&mut self, written: io::Result<()>) {
        if let Err(error) = written {
            self.error.get_or_insert(error);
        }
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
            Failure::Resolve(_) => plain("unresolved", None),
            Failure::Send(error) => plain("unsent", Some(error.knock.port)),
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
            Failure::Output(_) => plain("output", None),
        };
        Self { message, ..failed }
    }
}

fn reason(closed: &Closed) -> &'static str {
    match closed {
        Closed::NoAnswer => "no_answer",
        Closed::Refused => "refused",
        Closed::Unreachable(_) => "unreachable",
        Closed::Unable(_) => "unable",
    }
}

fn microseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
