//! Reports what happens, as text or as JSON.

mod keep;
mod lines;

use self::lines::{Failed, ReportLine, microseconds};
use crate::connect::Connected;
use crate::destination::{Destination, list};
use crate::failure::Failure;
use crate::log::Log;
use crate::one_time::TakenLine;
use crate::spa::{CheckedSpa, PacketAnswer, SentPacket};
use crate::waiting::Waiting;
use knock_sequence::Knock;
use knock_sequence::duration::spell;
use knock_sequence::terminal::harmless;
use std::fmt::Display;
use std::io::{self, BufWriter, Write};
use std::time::Duration;

/// Room for more lines than a sequence has knocks, so that none is written before [`Reporter::flush`].
const BUFFER_BYTES: usize = 64 * 1024;

/// How much is reported, and in which form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReportStyle {
    /// The connection, and what prevented it.
    Quiet,
    /// Each knock, too.
    Verbose,
    /// Each knock and each failure, one JSON object per line.
    Json,
}

/// The packets for the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sends {
    /// Knocks.
    Knocks,
    /// Packets of single packet authorization.
    Packets,
}

/// Writes lines to an output and a log. Lines and errors of writing are kept until
/// [`flush`](Self::flush) or [`finish`](Self::finish), because knocks must not wait for a reader.
pub struct Reporter<W: Write> {
    style: ReportStyle,
    out: BufWriter<W>,
    log: Option<Log>,
    /// Whether knocks go to several addresses, so that each line must name its address.
    has_several: bool,
    sends: Sends,
    error: Option<Failure>,
    waiting: Option<Waiting>,
}

impl<W: Write> Reporter<W> {
    /// Reports to `out`.
    pub fn new(style: ReportStyle, out: W) -> Self {
        Self {
            style,
            out: BufWriter::with_capacity(BUFFER_BYTES, out),
            log: None,
            has_several: false,
            sends: Sends::Knocks,
            error: None,
            waiting: None,
        }
    }

    /// Has `waiting` print what the run waits for.
    #[must_use]
    pub fn with_waiting(self, waiting: Waiting) -> Self {
        Self {
            waiting: Some(waiting),
            ..self
        }
    }

    /// Names what the run waits for from now on.
    pub(crate) fn waits_for(&self, text: impl FnOnce() -> String) {
        if let Some(waiting) = &self.waiting {
            waiting.set(Some(format!("waiting for {}", text())));
        }
    }

    /// Waits for a TCP port to open.
    pub(crate) fn waits_for_port(&self, port: u16, destination: Destination, limit: Duration) {
        self.waits_for(|| {
            format!(
                "tcp/{port} on {destination} to open, up to {}",
                spell(limit)
            )
        });
    }

    /// Reports that the wait has ended.
    pub(crate) fn has_waited(&self) {
        if let Some(waiting) = &self.waiting {
            waiting.set(None);
        }
    }

    /// Prints no further waits.
    pub(crate) fn end_waiting(&mut self) {
        self.waiting = None;
    }

    /// Writes every later line to `log`, too.
    pub fn log_to(&mut self, log: Log) {
        self.log = Some(log);
    }

    /// Reports which addresses of the host are knocked on, or sent a packet.
    pub fn resolved(
        &mut self,
        sends: Sends,
        host: &str,
        destinations: &[Destination],
        others: &[Destination],
    ) {
        self.has_several = destinations.len() > 1;
        self.sends = sends;
        let verb = match sends {
            Sends::Knocks => "knocking on",
            Sends::Packets => "sending a packet to",
        };
        let names = list(destinations);
        let text = if names == host {
            format!("{verb} {names}")
        } else if others.is_empty() {
            format!("{verb} {names} ({host})")
        } else {
            let others = list(others);
            format!("{verb} {names} (first address of {host}, not {others})")
        };
        self.line(&[ReportStyle::Verbose], &text, None);
    }

    /// Reports that a one-time sequence was taken.
    pub fn taken(&mut self, taken: &TakenLine) {
        let &TakenLine { line, left, .. } = taken;
        let text = format!("took line {line}, {left} left");
        self.line(
            &[ReportStyle::Verbose],
            &text,
            Some(ReportLine::Taken { line, left }),
        );
    }

    /// Reports that a knock was sent.
    pub fn knock(&mut self, number: usize, of: usize, knock: Knock, destination: &Destination) {
        let Knock { protocol, port } = knock;
        let address = destination.to_string();
        let on = if self.has_several {
            format!(" on {address}")
        } else {
            String::new()
        };
        let text = format!("knock {number} of {of}{on}: {knock}");
        let line = ReportLine::Knock {
            number,
            of,
            protocol: protocol.name(),
            port,
            address,
        };
        self.line(&[ReportStyle::Verbose], &text, Some(line));
    }

    /// Reports that nothing could be sent to one of several addresses.
    pub fn skipped(&mut self, destination: &Destination, error: &impl Display) {
        let (address, message) = (destination.to_string(), error.to_string());
        let text = message.clone();
        let line = ReportLine::Skipped { address, message };
        self.line(
            &[ReportStyle::Quiet, ReportStyle::Verbose],
            &text,
            Some(line),
        );
    }

    /// Reports that a packet of single packet authorization was sent.
    pub fn packet(&mut self, spa: &CheckedSpa, sent: &SentPacket) {
        let text = spa.packet_text(sent);
        let line = lines::of_packet(spa, sent);
        self.line(&[ReportStyle::Verbose], &text, Some(line));
    }

    /// Reports the answer to a packet. Without `-v` only a success that is the result of the run is printed: a
    /// refusal fails the run or another address works, and where a connection follows, that is the result.
    pub fn answered(&mut self, spa: &CheckedSpa, answered: &PacketAnswer, is_result: bool) {
        let styles: &[ReportStyle] = match answered.is_done() && is_result {
            true => &[ReportStyle::Quiet, ReportStyle::Verbose],
            false => &[ReportStyle::Verbose],
        };
        let line = lines::of_answer(answered);
        self.line(styles, &answered.text(spa), Some(line));
        let warnings = [answered.time_warning(spa), answered.clock_warning()];
        for warning in warnings.into_iter().flatten() {
            self.line(&[ReportStyle::Quiet, ReportStyle::Verbose], &warning, None);
        }
    }

    /// Reports a warning about this machine.
    pub fn warning(&mut self, message: &str) {
        let line = ReportLine::Warning {
            message: message.to_owned(),
        };
        let text = format!("warning: {message}");
        self.line(
            &[ReportStyle::Quiet, ReportStyle::Verbose],
            &text,
            Some(line),
        );
    }

    /// Reports a retry.
    pub fn retry(&mut self, number: u32, of: u32, error: &Failure) {
        let message = error.to_string();
        let again = match self.sends {
            Sends::Knocks => "knocking again",
            Sends::Packets => "sending another packet",
        };
        let text = format!("{again}, {number} of {of}: {message}");
        let line = ReportLine::Retry {
            number,
            of,
            message,
        };
        self.line(
            &[ReportStyle::Quiet, ReportStyle::Verbose],
            &text,
            Some(line),
        );
    }

    /// Reports the port in the host's reply.
    pub fn replied(&mut self, port: u16, after: Duration) {
        let after_us = microseconds(after);
        let (ms, us) = (after_us / 1000, after_us % 1000);
        let text = format!("the reply is tcp/{port}, {ms}.{us:03} ms after the last knock");
        let line = ReportLine::Replied { port, after_us };
        self.line(&[ReportStyle::Verbose], &text, Some(line));
    }

    /// Reports that the port is open.
    pub fn connected(&mut self, destination: &Destination, port: u16, connected: &Connected) {
        let &Connected { attempt, after } = connected;
        let after_us = microseconds(after);
        let (ms, us) = (after_us / 1000, after_us % 1000);
        let last = match self.sends {
            Sends::Knocks => "the last knock",
            Sends::Packets => "the packet",
        };
        let text = format!(
            "connected to tcp/{port} on {destination} {ms}.{us:03} ms after {last} (attempt {attempt})"
        );
        let line = ReportLine::Connected {
            port,
            attempt,
            after_us,
        };
        self.line(
            &[ReportStyle::Quiet, ReportStyle::Verbose],
            &text,
            Some(line),
        );
    }

    /// Reports a failure in JSON and in the log only: a person reads it on standard error.
    pub fn failed(&mut self, failure: &Failure) {
        let line = ReportLine::Failed(Failed::from(failure));
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
    fn line(&mut self, styles: &[ReportStyle], text: &str, json: Option<ReportLine>) {
        let text = harmless(text);
        if let Some(log) = &mut self.log {
            log.line(&text);
        }
        let written = match (self.style, json) {
            (ReportStyle::Json, Some(line)) => serde_json::to_writer(&mut self.out, &line)
                .map_err(io::Error::from)
                .and_then(|()| writeln!(self.out)),
            (ReportStyle::Json, None) => Ok(()),
            (style, _) if styles.contains(&style) => writeln!(self.out, "{text}"),
            (ReportStyle::Quiet | ReportStyle::Verbose, _) => Ok(()),
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
