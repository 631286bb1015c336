//! Takes sequences from a one-time file; [`knock_sequence::one_time`] has the format.

mod disk;

use self::disk::{FileLock, replace};
use crate::refused;
use crate::sequence::bytes;
use knock_sequence::one_time::{FILE_MOST, Flaw, NextLine, OneTimeText};
use knock_sequence::{Knock, Sequence};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// A sequence that was taken from a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TakenLine {
    /// The knocks.
    pub knocks: Sequence,
    /// The line of the file, from 1.
    pub line: usize,
    /// How many sequences are left.
    pub left: usize,
}

/// Why no sequence could be taken.
#[derive(Debug, thiserror::Error)]
pub enum OneTimeError {
    /// The file can't be read.
    #[error("cannot read {}: {}", path.display(), refused::of_file(cause))]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's error.
        cause: io::Error,
    },
    /// The file can't be changed.
    #[error(
        "cannot mark the next line of {} as used: {}; nothing was sent, since a line must not \
         be used twice",
        path.display(), refused::of_file(cause)
    )]
    Unmarkable {
        /// The file.
        path: PathBuf,
        /// The system's error.
        cause: io::Error,
    },
    /// The next line is malformed.
    #[error("{}:{line}: {reason}; correct the line, or put a # in front of it", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// The reason.
        reason: String,
    },
    /// The wanted line has no sequence.
    #[error(
        "the host expects line {line} next, but {} has no sequence there: use the same file on \
         both sides",
        path.display()
    )]
    NoLine {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
    },
    /// All lines are used.
    #[error(
        "no sequence is left in {}: make a new file with `knock-user generate --one-time`, for \
         both sides",
        path.display()
    )]
    Exhausted {
        /// The file.
        path: PathBuf,
    },
}

/// Takes the next sequence of a file, and marks it as used.
///
/// When this returns, the mark is on the disk: the sequence is not taken again, whatever happens.
/// Several programs that take sequences at the same time get different ones.
///
/// # Errors
///
/// No sequence is left, or it can't be marked.
pub fn take(path: &Path) -> Result<TakenLine, OneTimeError> {
    take_with(path, next)
}

/// Returns the next sequence of a file, which stays unused.
///
/// # Errors
///
/// No sequence is left, or the file can't be read.
pub fn peek(path: &Path) -> Result<TakenLine, OneTimeError> {
    let text = bytes(path, FILE_MOST).map_err(|cause| OneTimeError::Unreadable {
        path: path.to_owned(),
        cause,
    })?;
    let found = next(&OneTimeText::new(text)).map_err(|problem| problem.of(path))?;
    Ok(found.0)
}

/// Takes the sequence of this line, from 1, used or not, and marks it and all before it.
///
/// # Errors
///
/// No sequence is left, or it can't be marked.
pub fn take_line(path: &Path, line: usize) -> Result<TakenLine, OneTimeError> {
    take_with(path, |one_time_text| at(one_time_text, line))
}

fn take_with(
    path: &Path,
    choose: impl FnOnce(&OneTimeText) -> Result<(TakenLine, Vec<u8>), Unusable>,
) -> Result<TakenLine, OneTimeError> {
    let unreadable = |cause| OneTimeError::Unreadable {
        path: path.to_owned(),
        cause,
    };
    // Replaces the file itself, not a link to it.
    let file = fs::canonicalize(path).map_err(unreadable)?;
    let lock = FileLock::wait(&file).map_err(|cause| OneTimeError::Unmarkable {
        path: path.to_owned(),
        cause,
    })?;
    let text = bytes(&file, FILE_MOST).map_err(unreadable)?;
    let (taken, marked) = choose(&OneTimeText::new(text)).map_err(|problem| problem.of(path))?;
    replace(&file, &marked).map_err(|cause| OneTimeError::Unmarkable {
        path: path.to_owned(),
        cause,
    })?;
    drop(lock);
    Ok(taken)
}

/// Why a file's text has no sequence to take.
enum Unusable {
    Line(usize, String),
    NoLine(usize),
    Exhausted,
}

impl From<Flaw<'_>> for Unusable {
    fn from(flaw: Flaw<'_>) -> Self {
        Self::Line(flaw.line as usize, flaw.reason.to_owned())
    }
}

impl Unusable {
    fn of(self, path: &Path) -> OneTimeError {
        let path = path.to_owned();
        match self {
            Self::Line(line, reason) => OneTimeError::Line { path, line, reason },
            Self::NoLine(line) => OneTimeError::NoLine { path, line },
            Self::Exhausted => OneTimeError::Exhausted { path },
        }
    }
}

/// Returns the next sequence of a file, and the text with its mark.
fn next(one_time_text: &OneTimeText) -> Result<(TakenLine, Vec<u8>), Unusable> {
    match one_time_text.next().ok_or(Unusable::Exhausted)? {
        NextLine::Sequence(line, knocks) => Ok(taken(one_time_text, line, knocks)),
        NextLine::Flawed(flaw) => Err(flaw.into()),
    }
}

/// Returns the sequence of a line, and the text with marks up to there.
fn at(one_time_text: &OneTimeText, number: usize) -> Result<(TakenLine, Vec<u8>), Unusable> {
    let line = u32::try_from(number).map_err(|_| Unusable::NoLine(number))?;
    // A line that was knocked without effect is marked here, but unused on the host.
    if !one_time_text.is_marked(line)
        && let Some(flaw) = one_time_text.flaw(line)
    {
        return Err(flaw.into());
    }
    let knocks = one_time_text
        .sequence(line)
        .ok_or(Unusable::NoLine(number))?;
    Ok(taken(one_time_text, line, knocks))
}

/// Returns the taken sequence, and the text with marks on it and all lines before it.
fn taken(one_time_text: &OneTimeText, line: u32, knocks: &[Knock]) -> (TakenLine, Vec<u8>) {
    let marked = one_time_text.marked(line);
    let text = marked.as_ref().unwrap_or(one_time_text).text().to_vec();
    let taken = TakenLine {
        knocks: knocks.to_vec(),
        line: line as usize,
        left: one_time_text
            .unused()
            .filter(|(later, _)| *later > line)
            .count(),
    };
    (taken, text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    fn words(knocks: &[Knock]) -> String {
        let words: Vec<String> = knocks.iter().map(ToString::to_string).collect();
        words.join(" ")
    }

    #[test]
    fn the_next_line_is_taken_and_marked() {
        let rows = [
            (
                "the first",
                " 7000,8000:udp\n 9000\n",
                "1: tcp/7000 udp/8000, 1 left",
                "#7000,8000:udp\n 9000\n",
            ),
            (
                "no blank in front",
                "7000\n9000\n",
                "1: tcp/7000, 1 left",
                "#7000\n9000\n",
            ),
            (
                "comments and used ones",
                "# mine\n#7000\n\n 9000\n",
                "4: tcp/9000, 0 left",
                "# mine\n#7000\n\n#9000\n",
            ),
            (
                "our own form",
                "\ttcp/7000 udp/8000\n",
                "1: tcp/7000 udp/8000, 0 left",
                "#tcp/7000 udp/8000\n",
            ),
            (
                "Windows line ends",
                " 7000\r\n 8000\r\n",
                "1: tcp/7000, 1 left",
                "#7000\r\n 8000\r\n",
            ),
            (
                "a comment further in",
                "  # mine\n 7000\n",
                "2: tcp/7000, 0 left",
                "  # mine\n#7000\n",
            ),
            (
                "something wrong later",
                " 7000\n ssh\n",
                "1: tcp/7000, 0 left",
                "#7000\n ssh\n",
            ),
        ];
        for (name, text, message, marked) in rows {
            let Ok((TakenLine { knocks, line, left }, found)) =
                next(&OneTimeText::new(text.into()))
            else {
                panic!("{name}: nothing");
            };
            assert_eq!(
                format!("{line}: {}, {left} left", words(&knocks)),
                message,
                "{name}"
            );
            assert_eq!(found, marked.as_bytes(), "{name}");
        }
    }

    #[test]
    fn a_malformed_line_is_not_skipped() {
        let long = format!(" {}7000\n", "7000,".repeat(128));
        let rows = [
            ("nothing", "", None),
            ("all used", "# mine\n#7000\n\n  \n", None),
            (
                "a word",
                "#7000\n ssh\n",
                Some((2, "\"ssh\" is not a knock")),
            ),
            (
                "a wrong port",
                " 7000,70000\n",
                Some((1, "\"70000\" names the port \"70000\"")),
            ),
            ("cut off", " 7000,80", Some((1, "the line has no end"))),
            (
                "an empty item",
                " 7000,,80\n",
                Some((1, "nothing stands where a knock belongs")),
            ),
            (
                "too long",
                &long,
                Some((1, "129 knocks: a sequence has at most 128")),
            ),
            (
                "the same as a used one",
                "#7000\n tcp/7000\n",
                Some((2, "the same as line 1, and a sequence works once")),
            ),
        ];
        for (name, text, wrong) in rows {
            match (next(&OneTimeText::new(text.into())), wrong) {
                (Err(Unusable::Exhausted), None) => {}
                (Err(Unusable::Line(line, reason)), Some((at, message))) => {
                    assert_eq!(line, at, "{name}");
                    assert!(reason.starts_with(message), "{name}: {reason}");
                }
                _ => panic!("{name}"),
            }
        }
    }

    #[test]
    fn the_line_that_the_host_names_is_taken() {
        let text = "# mine\n#7000\n 8000\n 9000:udp\n 1000\n#2000";
        let rows = [
            (
                "the next",
                3,
                Ok("tcp/8000, 2 left"),
                "# mine\n#7000\n#8000\n 9000:udp\n 1000\n#2000",
            ),
            (
                "further on",
                4,
                Ok("udp/9000, 1 left"),
                "# mine\n#7000\n#8000\n#9000:udp\n 1000\n#2000",
            ),
            ("knocked without effect", 2, Ok("tcp/7000, 3 left"), text),
            ("a comment", 1, Err(1), text),
            ("used, and cut off", 6, Err(6), text),
            ("beyond the end", 7, Err(7), text),
            ("no line", 0, Err(0), text),
        ];
        for (name, number, message, marked) in rows {
            match (at(&OneTimeText::new(text.into()), number), message) {
                (Ok((taken, found)), Ok(message)) => {
                    let words = format!("{}, {} left", words(&taken.knocks), taken.left);
                    assert_eq!(words, message, "{name}");
                    assert_eq!(taken.line, number, "{name}");
                    assert_eq!(found, marked.as_bytes(), "{name}");
                }
                (Err(Unusable::NoLine(line)), Err(message)) => assert_eq!(line, message, "{name}"),
                _ => panic!("{name}"),
            }
        }
        let wrong = at(&OneTimeText::new(b" 7000\n ssh\n".to_vec()), 2);
        assert!(matches!(wrong, Err(Unusable::Line(2, _))));
    }

    #[test]
    fn concurrent_programs_take_different_lines() {
        const COUNT: u16 = 64;
        const THREADS: usize = 8;
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("once");
        let lines: String = (1..=COUNT).map(|port| format!(" {port}\n")).collect();
        fs::write(&path, lines).expect("a file");
        let mut ports: Vec<u16> = thread::scope(|scope| {
            let take_all = || {
                let mut ports = Vec::new();
                while let Ok(taken) = take(&path) {
                    ports.push(taken.knocks[0].port);
                }
                ports
            };
            let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(take_all)).collect();
            let ports = threads
                .into_iter()
                .map(|thread| thread.join().expect("no panic"));
            ports.flatten().collect()
        });
        ports.sort_unstable();
        assert_eq!(ports, (1..=COUNT).collect::<Vec<u16>>());
        let error = take(&path).expect_err("all are used");
        assert!(matches!(error, OneTimeError::Exhausted { .. }), "{error}");
    }

    #[cfg(unix)]
    #[test]
    fn a_marked_file_keeps_its_mode_and_its_link() {
        use std::os::unix::fs::{PermissionsExt as _, symlink};
        let directory = tempfile::tempdir().expect("a directory");
        let (path, link) = (directory.path().join("once"), directory.path().join("link"));
        fs::write(&path, " 7000\n 8000\n").expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("a mode");
        symlink(&path, &link).expect("a link");
        assert_eq!(words(&take(&link).expect("a sequence").knocks), "tcp/7000");
        assert!(fs::symlink_metadata(&link).expect("the link").is_symlink());
        let mode = fs::metadata(&path).expect("the file").permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
        assert_eq!(
            fs::read_to_string(&path).expect("the file"),
            "#7000\n 8000\n"
        );
        let mut names: Vec<_> = fs::read_dir(directory.path())
            .expect("the directory")
            .map(|entry| entry.expect("an entry").file_name())
            .collect();
        names.sort();
        assert_eq!(names, ["link", "once", "once.lock"]);
    }
}
