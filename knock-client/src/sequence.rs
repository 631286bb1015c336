//! Reads sequences from files and from a prompt.

use crate::refused;
use knock_common::layout::KNOCKS_MAX;
use knock_sequence::terminal::harmless;
use knock_sequence::{KnockSpec, Protocol, Sequence};
use std::fs::File;
use std::io::{self, BufRead, Read as _, Write};
use std::path::{Path, PathBuf};

/// The longest file that is read; sequences are shorter, and `/dev/zero` is longer.
const FILE_MAX: u64 = 64 * 1024;

/// Why a file is not a sequence.
#[derive(Debug, thiserror::Error)]
pub enum SequenceError {
    /// It can't be read.
    #[error("cannot read {}: {}", path.display(), refused::of_file(cause))]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's error.
        cause: io::Error,
    },
    /// A line is wrong.
    #[error("{}:{line}: {reason}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// The reason.
        reason: String,
    },
    /// The file has no knocks, or too many.
    #[error("{} has {count} knocks: a sequence has 1 to {KNOCKS_MAX}{hint}", path.display())]
    Count {
        /// The file.
        path: PathBuf,
        /// How many it has.
        count: usize,
        /// Advice, or nothing.
        hint: &'static str,
    },
}

/// Reads a file with one sequence: knocks with blanks, commas or line ends between them.
///
/// Files of bare ports come from UDP clients, so their ports are UDP. If some knocks have a
/// protocol, all must: programs differ in the default of the others.
///
/// # Errors
///
/// The file can't be read, or is not a sequence.
pub fn read(path: &Path) -> Result<Sequence, SequenceError> {
    let bytes = bytes(path, FILE_MAX).map_err(|cause| SequenceError::Unreadable {
        path: path.to_owned(),
        cause,
    })?;
    // Comments may be in any encoding; a knock that is not ASCII is none.
    let text = String::from_utf8_lossy(&bytes);
    let wrong = |line: usize, reason: String| SequenceError::Line {
        path: path.to_owned(),
        line,
        reason,
    };
    let mut found: Vec<(usize, &str, KnockSpec)> = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        for item in items(line) {
            let word = item
                .parse()
                .map_err(|error| wrong(number, format!("{error}")))?;
            found.push((number, item, word));
        }
    }
    if let Some((number, item, _)) = found.iter().find(|(_, _, word)| word.protocol.is_none())
        && found.iter().any(|(_, _, word)| word.protocol.is_some())
    {
        let reason = format!(
            "'{item}' has no protocol, but others have: write tcp/ or udp/ before the port"
        );
        return Err(wrong(*number, reason));
    }
    if found.is_empty() || found.len() > KNOCKS_MAX {
        return Err(SequenceError::Count {
            path: path.to_owned(),
            count: found.len(),
            hint: if found.is_empty() {
                ""
            } else {
                "; a file of many sequences is read with --one-time"
            },
        });
    }
    let knocks = found
        .into_iter()
        .map(|(_, _, word)| word.knock(Protocol::Udp));
    Ok(knocks.collect())
}

/// Returns the words of a line, none for a comment.
pub(crate) fn items(line: &str) -> impl Iterator<Item = &str> {
    let line = if line.trim_start().starts_with('#') {
        ""
    } else {
        line
    };
    line.split(|c: char| c == ',' || c.is_whitespace())
        .filter(|item| !item.is_empty())
}

/// Reads a whole file of at most `most` bytes.
pub(crate) fn text(path: &Path, most: u64) -> io::Result<String> {
    String::from_utf8(bytes(path, most)?)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.utf8_error()))
}

/// Reads a whole file of at most `most` bytes, in any encoding.
pub(crate) fn bytes(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let length = File::open(path)?.take(most + 1).read_to_end(&mut bytes)?;
    if length as u64 > most {
        let problem = format!("it is longer than {most} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, problem));
    }
    Ok(bytes)
}

/// Asks a person for a sequence until there is one; `None` at the end of the input.
///
/// # Errors
///
/// The prompt can't be written, or the answer can't be read.
pub fn ask(
    host: &str,
    bare: Protocol,
    input: &mut impl BufRead,
    prompt: &mut impl Write,
) -> io::Result<Option<Sequence>> {
    loop {
        let host = harmless(host);
        write!(prompt, "Knocks for {host}, such as tcp/7000 udp/8000: ")?;
        prompt.flush()?;
        let mut line = String::new();
        if input.read_line(&mut line)? == 0 {
            writeln!(prompt)?;
            return Ok(None);
        }
        let knocks: Result<Sequence, _> = items(&line)
            .map(|item| item.parse::<KnockSpec>().map(|word| word.knock(bare)))
            .collect();
        match knocks {
            Ok(knocks) if knocks.is_empty() => {}
            Ok(knocks) => return Ok(Some(knocks)),
            Err(error) => writeln!(prompt, "{}", harmless(&error.to_string()))?,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> Result<String, String> {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("port_sequence.txt");
        std::fs::write(&path, text).expect("a file");
        let words = |knocks: Sequence| {
            let words: Vec<String> = knocks.iter().map(ToString::to_string).collect();
            words.join(" ")
        };
        let place = format!("{}", path.display());
        read(&path)
            .map(words)
            .map_err(|error| error.to_string().replace(&place, "FILE"))
    }

    #[test]
    fn files_with_sequences_are_read() {
        let rows = [
            (
                "ports, one a line",
                "1025\n1500\n1100\n",
                "udp/1025 udp/1500 udp/1100",
            ),
            ("without an end", "1025\n1500", "udp/1025 udp/1500"),
            (
                "on one line",
                "1025 1500,1100",
                "udp/1025 udp/1500 udp/1100",
            ),
            ("Windows line ends", "1025\r\n1500\r\n", "udp/1025 udp/1500"),
            (
                "with protocols",
                "tcp/7000\nudp/8000\n",
                "tcp/7000 udp/8000",
            ),
            ("knockd's form", "7000:tcp, 8000:udp\n", "tcp/7000 udp/8000"),
            ("comments", "# mine\n\n  # too\ntcp/7000\n", "tcp/7000"),
        ];
        for (name, text, knocks) in rows {
            assert_eq!(read_text(text), Ok(knocks.to_owned()), "{name}");
        }
    }

    #[test]
    fn files_without_a_sequence_are_refused() {
        const COUNT: &str = "knocks: a sequence has 1 to 128";
        let rows = [
            ("empty", String::new(), format!("FILE has 0 {COUNT}")),
            (
                "only comments",
                "# 1025\n".to_owned(),
                format!("FILE has 0 {COUNT}"),
            ),
            (
                "no knock",
                "1025\nssh\n".to_owned(),
                "FILE:2: \"ssh\" is not a knock: write tcp/PORT or udp/PORT, such as tcp/7000"
                    .to_owned(),
            ),
            (
                "cut off",
                "tcp/7000\nudp/".to_owned(),
                "FILE:2: \"udp/\" is not a knock: write tcp/PORT or udp/PORT, such as tcp/7000"
                    .to_owned(),
            ),
            (
                "some have a protocol",
                "7000,8000:udp\n9000\n".to_owned(),
                "FILE:1: '7000' has no protocol, but others have: write tcp/ or udp/ before the port".to_owned(),
            ),
            (
                "many",
                "tcp/7000,udp/8000\n".repeat(65),
                format!("FILE has 130 {COUNT}; a file of many sequences is read with --one-time"),
            ),
        ];
        for (name, text, error) in rows {
            assert_eq!(read_text(&text), Err(error), "{name}");
        }
    }

    #[test]
    fn unreadable_files_are_refused() {
        for (path, message) in [
            ("/nonexistent", "cannot read /nonexistent: "),
            ("/", "cannot read /: "),
            #[cfg(unix)]
            (
                "/dev/zero",
                "cannot read /dev/zero: it is longer than 65536 bytes",
            ),
        ] {
            let error = read(Path::new(path)).expect_err(path).to_string();
            assert!(error.starts_with(message), "{error}");
        }
    }

    #[test]
    fn the_prompt_repeats_until_knocks_are_given() {
        let mut input = &b"\nssh\n7000, udp/8000\n"[..];
        let mut message = Vec::new();
        let knocks = ask("home", Protocol::Tcp, &mut input, &mut message).expect("answers");
        let knocks: Vec<String> = knocks.iter().flatten().map(ToString::to_string).collect();
        assert_eq!(knocks, ["tcp/7000", "udp/8000"]);
        let question = "Knocks for home, such as tcp/7000 udp/8000: ";
        let message = String::from_utf8(message).expect("text");
        assert_eq!(message.matches(question).count(), 3, "{message}");
        assert!(message.contains("\"ssh\" is not a knock"), "{message}");

        let knocks = ask("home", Protocol::Tcp, &mut io::empty(), &mut Vec::new());
        assert_eq!(knocks.expect("no error"), None);
    }
}
