//! One request or report per line.

use serde::{Serialize, de::DeserializeOwned};

/// The most octets of a line, its end included. A record has less than 4 kB.
pub const LONGEST_LINE: usize = 1 << 20;

/// The reason why a line could not be read.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// The line is no request and no report of this version; the next one may be.
    #[error("a line of {octets} octets can't be read: {reason}")]
    Line {
        /// Its length.
        octets: usize,
        /// What is wrong with it. It may quote the line, and has no control characters.
        reason: String,
    },
    /// The line is too long, so that the next one can't be found.
    #[error("a line has more than {LONGEST_LINE} octets")]
    Long,
}

/// Returns the line of a request or report, with its end.
///
/// # Errors
/// It is longer than [`LONGEST_LINE`].
pub fn to_line(value: &impl Serialize) -> Result<String, Unreadable> {
    let mut line = serde_json::to_string(value).map_err(|error| unreadable(0, &error))?;
    line.push('\n');
    if line.len() > LONGEST_LINE {
        return Err(Unreadable::Long);
    }
    Ok(line)
}

/// Reads the text of a line, with or without its end.
///
/// # Errors
/// It is no `T`.
pub fn read_line<T: DeserializeOwned>(line: &str) -> Result<T, Unreadable> {
    serde_json::from_str(line).map_err(|error| unreadable(line.len(), &error))
}

/// Returns a text of the other side, such as a reason that an engine gave, with its control
/// characters escaped: it may be shown in a terminal.
pub fn printable(text: &str) -> String {
    let escaped = text.chars().map(|letter| match letter.is_control() {
        true => letter.escape_default().to_string(),
        false => letter.to_string(),
    });
    escaped.collect()
}

fn unreadable(octets: usize, error: &serde_json::Error) -> Unreadable {
    Unreadable::Line {
        octets,
        reason: printable(&error.to_string()),
    }
}
