//! The lines of the daemon.

use knock_wire::{LONGEST_LINE, Request, read_line};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, BufReader};

/// Reads requests.
#[derive(Debug)]
pub(crate) struct Input<R> {
    from: BufReader<R>,
    line: Vec<u8>,
    number: u64,
}

impl<R: AsyncRead + Unpin> Input<R> {
    /// Begins with the next line.
    pub(crate) fn new(from: R) -> Self {
        Self {
            from: BufReader::new(from),
            line: Vec::new(),
            number: 0,
        }
    }

    /// Returns the next request; `None` when the daemon closed its end.
    ///
    /// # Errors
    /// A line is no request; the text has its number.
    pub(crate) async fn next(&mut self) -> Result<Option<Request>, String> {
        self.line.clear();
        self.number += 1;
        let mut limited = (&mut self.from).take(LONGEST_LINE as u64);
        if limited.read_until(b'\n', &mut self.line).await.is_err() {
            return Ok(None);
        }
        // The end of the daemon in the middle of a line is its end.
        if self.line.last() != Some(&b'\n') {
            if self.line.len() < LONGEST_LINE {
                return Ok(None);
            }
            return Err(self.problem("it has no end"));
        }
        let text = str::from_utf8(&self.line).map_err(|_| self.problem("it is not UTF-8"))?;
        match read_line(text) {
            Ok(request) => Ok(Some(request)),
            Err(error) => Err(self.problem(&error.to_string())),
        }
    }

    /// Describes what is wrong with the current line.
    pub(crate) fn problem(&self, what: &str) -> String {
        format!(
            "standard input, line {}: {what}; knock-user and knock-fleet have to be of the same version",
            self.number
        )
    }
}
