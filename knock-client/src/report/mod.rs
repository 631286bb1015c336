//! Reports what happens, as text or as JSON.

mod lines;

use self::lines::{Failed, Line, microseconds};
use crate::connect::Connected;
use crate::failure::Failure;
use crate::log::Log;
use crate::one_time::Taken;
use crate::send::SendError;
use crate::target::{Target, list};
use knock_sequence::Knock;
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
