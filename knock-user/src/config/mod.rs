//! Reads a configuration file into [`Settings`], and finds every error and warning.
//!
//! ```text
//! text ─▶ reader, door, section ─▶ Settings ─▶ rules (errors) ─▶ Checked ─▶ warnings
//! ```
//!
//! A file is read and checked as a whole: all errors are reported together.
//!
//! May use `model`, `compile` (for conflicts), `strength` and `sequences`. Must not know the running
//! program.

mod checked;
mod door;
mod fleet;
pub mod fleet_keys;
mod fleet_rules;
pub(crate) mod fwknop;
mod grant_prefix;
mod host_keys;
mod include;
mod limits;
pub mod named_files;
pub mod one_time_lines;
mod otp;
pub mod otp_rules;
mod places;
mod purpose;
pub mod reader;
mod rules;
mod scan_rules;
mod scans;
mod section;
pub(crate) mod shared_keys;
mod spa;
mod spa_rules;
mod statements;
mod user;
pub mod warnings;
mod whole_file;

use std::{
    hash::{DefaultHasher, Hasher as _},
    io,
    path::Path,
};

pub use self::checked::Checked;
use self::reader::ReadFile;
use self::whole_file::read_file;
pub(crate) use self::{
    door::SEQUENCE_TIMEOUT_MOST,
    scans::is_scan,
    whole_file::{read_bytes, read_text},
};
pub use crate::model::problem::{Problem, Problems};
use crate::{
    host::os_error,
    model::{
        problem::ProblemReport,
        sources::{self, Sources},
    },
};

/// Reads and checks a file.
///
/// # Errors
/// Returns every problem of the file.
pub fn read(path: &Path) -> Result<Checked, Problems> {
    understand(path, read_text(path))
}

/// Reads and checks a file a second time. A pipe is refused, since it can be read only once.
///
/// # Errors
/// Returns every problem of the file.
pub fn read_again(path: &Path) -> Result<Checked, Problems> {
    understand(path, read_file(path))
}

/// Checks the text that a file had when it was read before. `can_be_read_again` is false for a
/// pipe.
///
/// # Errors
/// Returns every problem of the file.
pub fn read_kept(path: &Path, text: &str, can_be_read_again: bool) -> Result<Checked, Problems> {
    let checked = parse_joined(text, path, Vec::new())?;
    Ok(Checked {
        digest: can_be_read_again.then(|| digest(text)),
        ..checked
    })
}

/// Returns the digest of the text that a file and those that it includes have now; see [`Checked::digest`].
///
/// # Errors
/// Returns an error if the file can't be read, or this process may not read one that it includes.
pub fn digest_of_file(path: &Path) -> io::Result<u64> {
    let joined = include::join(path, &read_file(path)?);
    match (joined.denied, joined.problems.as_slice()) {
        (Some(denied), _) => Err(denied),
        (None, []) => Ok(digest(&joined.text)),
        // A configuration that lacks a file is in force nowhere.
        (None, problems) => Ok(digest(&format!("{}{problems:?}", joined.text))),
    }
}

/// Returns the text of a configuration and those of the files that it includes, as far as they can be read.
pub(crate) fn with_included(path: &Path, text: &str) -> Vec<String> {
    let joined = include::join(path, text).text;
    let parts = sources::parts(&joined).into_iter();
    parts.map(|part| part.text.to_owned()).collect()
}

/// Hashes a text; only digests of the same build are comparable.
pub(crate) fn digest(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(text.as_bytes());
    hasher.finish()
}

fn understand(path: &Path, text: io::Result<String>) -> Result<Checked, Problems> {
    let text = text.map_err(|error| Problems {
        file: path.display().to_string().into(),
        list: vec![Problem {
            line: None,
            key: String::new(),
            reason: format!(
                "can't be read: {}",
                os_error::reason(&error, &path.display().to_string())
            ),
        }],
    })?;
    let joined = include::join(path, &text);
    let checked = parse_joined(&joined.text, path, joined.problems)?;
    Ok(Checked {
        digest: path.is_file().then(|| digest(&joined.text)),
        ..checked
    })
}

/// Reads and checks the text of a file, which is called `file` in errors. Files with keys are not
/// read, and the names of files are relative to the working directory.
///
/// # Errors
/// Returns every problem of the file.
pub fn parse(text: &str, file: &str) -> Result<Checked, Problems> {
    let mut report = ProblemReport::new(text, Path::new(""));
    report.sources = Sources::of(file, text);
    let read = read_checked(text, &mut report);
    finish(text, file, read, report.problems)
}

/// Reads and checks the text of a file with those that it includes, and the files with keys that it names. `problems`
/// are those of included files that are not in the text.
fn parse_joined(text: &str, path: &Path, problems: Vec<Problem>) -> Result<Checked, Problems> {
    let file = path.display().to_string();
    let mut report = ProblemReport::new(text, path.parent().unwrap_or(Path::new("")));
    report.sources = Sources::of(&file, text);
    if let Some(Problem { line, key, .. }) = problems.first() {
        report.broken.push((line.unwrap_or(1), key.clone()));
    }
    report.problems = problems;
    let mut read = read_checked(text, &mut report);
    let mut problems = report.problems;
    let keys = read
        .as_mut()
        .map(|read| host_keys::read(read, &mut problems))
        .unwrap_or_default();
    let keyring = read
        .as_ref()
        .and_then(|read| fleet_keys::read(read, &mut problems));
    let checked = finish(text, &file, read, problems)?.with_keys(keys)?;
    Ok(Checked { keyring, ..checked })
}

fn read_checked(text: &str, report: &mut ProblemReport) -> Option<ReadFile> {
    let read = reader::read(text, report)?;
    rules::check(&read, report);
    Some(read)
}

fn finish(
    text: &str,
    file: &str,
    read: Option<ReadFile>,
    mut list: Vec<Problem>,
) -> Result<Checked, Problems> {
    match read {
        Some(read) if list.is_empty() => Ok(Checked {
            settings: read.settings,
            file: Sources::of(file, text),
            digest: None,
            keyring: None,
            text: text.into(),
            places: read.places,
        }),
        _ => {
            list.sort();
            list.dedup();
            Err(Problems {
                file: Sources::of(file, text),
                list,
            })
        }
    }
}
