//! Files of sequences that work once each.
//!
//! A line is a sequence, in knockd's form or in ours. Lines that begin with `#` are comments, or
//! have been used: what marks a line is a `#` in place of the blank that it begins with.

use crate::knock::{Protocol, Sequence, Word};
use crate::sequence::{KNOCKS_MAX, items, text};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// A hundred thousand sequences of a dozen knocks each.
const FILE_MAX: u64 = 16 << 20;

/// A sequence that was taken from a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// The knocks.
    pub knocks: Sequence,
    /// The line that it stood in, counted from 1.
    pub line: usize,
    /// How many are left.
    pub left: usize,
}

/// Why there is no sequence.
#[derive(Debug, thiserror::Error)]
pub enum OneTimeError {
    /// The file can't be read.
    #[error("cannot read {}: {cause}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// The file can't be changed.
    #[error(
        "cannot mark the next line of {} as used: {cause}; nothing was sent, since a line must not \
         be used twice",
        path.display()
    )]
    Unmarkable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// The next line is no sequence.
    #[error("{}:{line}: {reason}; mend the line, or put a # in front of it", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
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
/// There is none, or it can't be marked.
pub fn take(path: &Path) -> Result<Taken, OneTimeError> {
    let unreadable = |cause| OneTimeError::Unreadable {
        path: path.to_owned(),
        cause,
    };
    // The file itself and not a link to it is what is replaced.
    let file = fs::canonicalize(path).map_err(unreadable)?;
    let turn = Turn::wait(&file).map_err(|cause| OneTimeError::Unmarkable {
        path: path.to_owned(),
        cause,
    })?;
    let text = text(&file, FILE_MAX).map_err(unreadable)?;
    let (taken, marked) = next(&text).map_err(|problem| problem.of(path))?;
    replace(&file, &marked).map_err(|cause| OneTimeError::Unmarkable {
        path: path.to_owned(),
        cause,
    })?;
    drop(turn);
    Ok(taken)
}

/// What is wrong with a text.
enum Problem {
    Line(usize, String),
    Exhausted,
}

impl Problem {
    fn of(self, path: &Path) -> OneTimeError {
        let path = path.to_owned();
        match self {
            Self::Line(line, reason) => OneTimeError::Line { path, line, reason },
            Self::Exhausted => OneTimeError::Exhausted { path },
        }
    }
}

/// The next sequence of a text, and the text with its mark.
fn next(text: &str) -> Result<(Taken, String), Problem> {
    let is_unused = |line: &&str| !line.starts_with('#') && !line.trim().is_empty();
    let mut before = String::new();
    let mut lines = text.split_inclusive('\n');
    let mut number = 0;
    let line = loop {
        let line = lines.next().ok_or(Problem::Exhausted)?;
        number += 1;
        if is_unused(&line) {
            break line;
        }
        before += line;
    };
    // A file that was cut off would give a wrong port.
    if !line.ends_with('\n') {
        let reason = "the line has no end, so the file may have been cut off".to_owned();
        return Err(Problem::Line(number, reason));
    }
    let knocks: Result<Sequence, _> = items(line)
        .map(|item| item.parse::<Word>().map(|word| word.knock(Protocol::Tcp)))
        .collect();
    let knocks = knocks.map_err(|error| Problem::Line(number, error.to_string()))?;
    if knocks.len() > KNOCKS_MAX {
        let reason = format!(
            "{} knocks: a sequence has at most {KNOCKS_MAX}",
            knocks.len()
        );
        return Err(Problem::Line(number, reason));
    }
    let rest: String = lines.collect();
    let taken = Taken {
        knocks,
        line: number,
        left: rest.split_inclusive('\n').filter(is_unused).count(),
    };
    let marked = line.strip_prefix([' ', '\t']).unwrap_or(line);
    Ok((taken, format!("{before}#{marked}{rest}")))
}

/// The right to change a file, which only one program has at a time.
struct Turn(#[expect(dead_code, reason = "it is held")] File);

impl Turn {
    /// The file itself is replaced, so what is locked is another one beside it, which stays.
    fn wait(file: &Path) -> io::Result<Self> {
        let mut name = file.as_os_str().to_owned();
        name.push(".lock");
        let mut options = File::options();
        let lock = options
            .write(true)
            .create(true)
            .truncate(false)
            .open(name)?;
        lock.lock()?;
        Ok(Self(lock))
    }
}

/// Puts another text in the place of a file, at once or not at all, and on the disk.
fn replace(file: &Path, text: &str) -> io::Result<()> {
    let directory = file.parent().unwrap_or(Path::new("."));
    let mut new = NamedTempFile::new_in(directory)?;
    new.write_all(text.as_bytes())?;
    let old = fs::metadata(file)?;
    fs::set_permissions(new.path(), old.permissions())?;
    keep_owner(&old, new.path())?;
    new.as_file().sync_all()?;
    new.persist(file).map_err(|error| error.error)?;
    sync_directory(directory)
}

/// Otherwise a file that root uses once would be root's.
#[cfg(unix)]
fn keep_owner(old: &fs::Metadata, new: &Path) -> io::Result<()> {
    use std::os::unix::fs::{MetadataExt as _, chown};
    let made = fs::metadata(new)?;
    if (made.uid(), made.gid()) == (old.uid(), old.gid()) {
        return Ok(());
    }
    chown(new, Some(old.uid()), Some(old.gid()))
}

#[cfg(not(unix))]
fn keep_owner(_old: &fs::Metadata, _new: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(unix)]
fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Elsewhere directories can't be opened.
#[cfg(not(unix))]
fn sync_directory(_directory: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    fn words(knocks: &[crate::Knock]) -> String {
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
                "something wrong later",
                " 7000\n ssh\n",
                "1: tcp/7000, 1 left",
                "#7000\n ssh\n",
            ),
        ];
        for (name, text, told, marked) in rows {
            let Ok((Taken { knocks, line, left }, found)) = next(text) else {
                panic!("{name}: nothing");
            };
            assert_eq!(
                format!("{line}: {}, {left} left", words(&knocks)),
                told,
                "{name}"
            );
            assert_eq!(found, marked, "{name}");
        }
    }

    #[test]
    fn what_is_no_sequence_is_not_skipped() {
        let long = format!(" {}\n", "7000,".repeat(129));
        let rows = [
            ("nothing", "", None),
            ("all used", "# mine\n#7000\n\n  \n", None),
            ("a word", "#7000\n ssh\n", Some((2, "'ssh' is not a knock"))),
            (
                "a wrong port",
                " 7000,70000\n",
                Some((1, "'70000' names the port '70000'")),
            ),
            ("cut off", " 7000,80", Some((1, "the line has no end"))),
            (
                "too long",
                &long,
                Some((1, "129 knocks: a sequence has at most 128")),
            ),
        ];
        for (name, text, wrong) in rows {
            match (next(text), wrong) {
                (Err(Problem::Exhausted), None) => {}
                (Err(Problem::Line(line, reason)), Some((at, told))) => {
                    assert_eq!(line, at, "{name}");
                    assert!(reason.starts_with(told), "{name}: {reason}");
                }
                _ => panic!("{name}"),
            }
        }
    }

    #[test]
    fn programs_that_take_at_the_same_time_get_different_ones() {
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
    fn the_file_stays_what_it_was() {
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
