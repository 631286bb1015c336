//! Joins a file and the files that it includes to one text, in which each part begins with a line that names its file.
//!
//! Everything behind this reads, compares and keeps that text: a reload, a trial that is rolled back, the health check.

use std::{
    borrow::Cow,
    ffi::OsString,
    fmt::Write as _,
    fs, io,
    path::{Component, Path, PathBuf},
};

use glob::{MatchOptions, Pattern};
use toml::de::{DeTable, DeValue};

use super::{
    statements,
    whole_file::{FILE_MAX, read_file},
};
use crate::{
    host::os_error,
    model::{
        problem::{Problem, ProblemReport},
        sources::{self, MARK},
    },
};

const KEY: &str = "include";

/// How file names match patterns: hidden files do not, as in a shell.
const OPTIONS: MatchOptions = MatchOptions {
    case_sensitive: true,
    require_literal_separator: true,
    require_literal_leading_dot: true,
};

/// A file with those that it includes.
pub(super) struct Joined {
    /// The text of all files that could be read.
    pub(super) text: String,
    /// The reasons why others could not be.
    pub(super) problems: Vec<Problem>,
    /// The first error that concerns this process alone: it may not read a file.
    pub(super) denied: Option<io::Error>,
}

/// Joins the text of a file with those of the files that it includes.
pub(super) fn join(path: &Path, text: &str) -> Joined {
    let directory = path.parent().unwrap_or(Path::new(""));
    let mut joining = Joining {
        path,
        directory,
        text: text.to_owned(),
        seen: vec![path.to_owned()],
        report: ProblemReport::new(text, directory),
        denied: None,
    };
    if let Some(line) = marked(text) {
        joining.report.add(
            line,
            "",
            "not TOML: the line begins with a control character; remove it",
        );
        // Behind that line, the text would count as that of another file.
        joining.text.clear();
    } else {
        for (line, pattern) in patterns(text, &joining.report) {
            joining.include(line, &pattern);
        }
    }
    Joined {
        text: joining.text,
        problems: joining.report.problems,
        denied: joining.denied,
    }
}

/// Returns those of the patterns that no file of a text matches. Names of single files are none of them, because such a
/// file has to exist.
pub(super) fn unmatched<'p>(patterns: &'p [String], text: &str) -> Vec<&'p str> {
    let parts = sources::parts(text);
    let names: Vec<_> = parts.iter().filter_map(|part| part.name).collect();
    let is_matched = |pattern: &str| {
        let components: Vec<_> = Path::new(pattern).components().collect();
        names.iter().any(|name| {
            let found: Vec<_> = Path::new(name).components().collect();
            found.len() == components.len()
                && (found.iter().zip(&components)).all(|(name, pattern)| {
                    let name = name.as_os_str().to_string_lossy();
                    Pattern::new(&pattern.as_os_str().to_string_lossy())
                        .is_ok_and(|pattern| pattern.matches_with(&name, OPTIONS))
                })
        })
    };
    patterns_among(patterns)
        .filter(|pattern| !is_matched(pattern))
        .collect()
}

/// Returns those values of `include` that are no names of single files.
pub(super) fn patterns_among(values: &[String]) -> impl Iterator<Item = &str> {
    let values = values.iter().map(String::as_str);
    values.filter(|value| is_pattern(value))
}

fn is_pattern(name: &str) -> bool {
    name.contains(['*', '?', '['])
}

/// Returns the first line that would count as the name of a file.
fn marked(text: &str) -> Option<usize> {
    let place = text.split('\n').position(|line| line.starts_with(MARK))?;
    Some(place.saturating_add(1))
}

/// Returns the values of `include` with their lines; what is wrong with others is reported when the text is read.
fn patterns(text: &str, report: &ProblemReport) -> Vec<(usize, String)> {
    let rest = match DeTable::parse(text) {
        Ok(_) => Cow::Borrowed(text),
        // Errors of the file are reported when it is read.
        Err(error) => {
            let mut report = ProblemReport::new(text, Path::new(""));
            statements::readable(text, &error, &mut report).into()
        }
    };
    let Ok(root) = DeTable::parse(&rest) else {
        return Vec::new();
    };
    let Some(value) = root.get_ref().get(KEY) else {
        return Vec::new();
    };
    let DeValue::Array(items) = value.get_ref() else {
        return Vec::new();
    };
    let items = items.iter().filter_map(|item| {
        let pattern = item.get_ref().as_str().filter(|text| !text.is_empty())?;
        Some((report.line(&item.span()), pattern.to_owned()))
    });
    items.collect()
}

/// A text that is being joined.
struct Joining<'p> {
    /// The main file.
    path: &'p Path,
    directory: &'p Path,
    text: String,
    seen: Vec<PathBuf>,
    report: ProblemReport,
    denied: Option<io::Error>,
}

impl Joining<'_> {
    /// Adds the files of a pattern on a line, in the order of their names.
    fn include(&mut self, line: usize, pattern: &str) {
        let by_name = !is_pattern(pattern);
        let files = match by_name {
            true => vec![PathBuf::from(pattern)],
            false => self.matches(line, pattern),
        };
        for name in files {
            let file = self.directory.join(&name);
            if self.seen.contains(&file) {
                if by_name && file == self.path {
                    let reason = format!("{pattern:?} includes this file itself: remove it");
                    self.report.add(line, KEY, reason);
                }
                continue;
            }
            self.seen.push(file.clone());
            // A pattern may match the main file, also by another name of it.
            if !by_name && is_same(&file, self.path) {
                continue;
            }
            match read_file(&file) {
                Ok(more) => self.append(line, &name, &file, &more),
                // It was removed after its name was read.
                Err(error)
                    if !by_name
                        && error.kind() == io::ErrorKind::NotFound
                        && fs::symlink_metadata(&file).is_err() => {}
                Err(error) => self.unreadable(line, &file, &error),
            }
        }
    }

    fn append(&mut self, line: usize, name: &Path, file: &Path, text: &str) {
        if let Some(wrong) = marked(text) {
            let reason = format!(
                "{}:{wrong} is not TOML: the line begins with a control character; remove it",
                file.display()
            );
            self.report.add(line, KEY, reason);
        } else if (self.text.len() as u64).saturating_add(text.len() as u64) > FILE_MAX {
            let reason = format!(
                "with {}, all files together are longer than {} MiB: remove some",
                file.display(),
                FILE_MAX >> 20
            );
            self.report.add(line, KEY, reason);
        } else {
            if !self.text.ends_with('\n') {
                self.text.push('\n');
            }
            // A line break in a name would end the line of the name.
            let name = name.display().to_string().replace(char::is_control, "?");
            let _infallible = writeln!(self.text, "{MARK}{name}");
            self.text.push_str(text);
        }
    }

    /// Returns the files that match a pattern, as the pattern names them.
    ///
    /// A directory that can't be read is an error and not an empty one: it may have files that close ports.
    fn matches(&mut self, line: usize, pattern: &str) -> Vec<PathBuf> {
        let mut found = vec![PathBuf::new()];
        for component in Path::new(pattern).components() {
            let text = component.as_os_str().to_string_lossy();
            if !matches!(component, Component::Normal(_)) || !is_pattern(&text) {
                for path in &mut found {
                    path.push(component);
                }
                continue;
            }
            let parsed = match Pattern::new(&text) {
                Ok(parsed) if text != "**" => parsed,
                Ok(_) => {
                    let reason = format!(
                        "{pattern:?} has **, which is not supported: name each directory, as in \
                         \"*/*.toml\""
                    );
                    self.report.add(line, KEY, reason);
                    return Vec::new();
                }
                Err(error) => {
                    let reason = format!(
                        "{pattern:?} is not a pattern of files: {error}; write one like \
                         \"seq.d/*.toml\""
                    );
                    self.report.add(line, KEY, reason);
                    return Vec::new();
                }
            };
            let mut next = Vec::new();
            for path in &found {
                for name in self.names(line, path) {
                    if parsed.matches_with(&name.to_string_lossy(), OPTIONS) {
                        next.push(path.join(name));
                    }
                }
            }
            found = next;
        }
        found.retain(|name| self.is_file(line, name));
        found.sort();
        found
    }

    /// Returns the names in a directory. None if it does not exist or is none.
    fn names(&mut self, line: usize, directory: &Path) -> Vec<OsString> {
        let path = match self.directory.join(directory) {
            path if path.as_os_str().is_empty() => PathBuf::from("."),
            path => path,
        };
        let names = fs::read_dir(&path).and_then(|entries| {
            let names = entries.map(|entry| entry.map(|entry| entry.file_name()));
            names.collect::<io::Result<Vec<_>>>()
        });
        match names {
            Ok(names) => names,
            Err(error)
                if [io::ErrorKind::NotFound, io::ErrorKind::NotADirectory]
                    .contains(&error.kind()) =>
            {
                Vec::new()
            }
            Err(error) => {
                self.unreadable(line, &path, &error);
                Vec::new()
            }
        }
    }

    /// Returns whether a name is that of something which has to be a file.
    fn is_file(&mut self, line: usize, name: &Path) -> bool {
        let file = self.directory.join(name);
        match fs::metadata(&file) {
            Ok(found) => !found.is_dir(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::symlink_metadata(&file).is_ok()
            }
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => false,
            Err(error) => {
                self.unreadable(line, &file, &error);
                false
            }
        }
    }

    fn unreadable(&mut self, line: usize, file: &Path, error: &io::Error) {
        let shown = file.display().to_string();
        let is_link = || fs::symlink_metadata(file).is_ok_and(|found| found.is_symlink());
        let reason = match error.kind() == io::ErrorKind::NotFound {
            true if is_link() => format!(
                "{shown} is a symbolic link to a file that does not exist: create that, or remove \
                 the link"
            ),
            true => format!(
                "there is no file {shown}: create it, or remove it from include; only a pattern, \
                 such as \"*.toml\", may match none"
            ),
            false => format!("{shown} can't be read: {}", os_error::reason(error, &shown)),
        };
        self.report.add(line, KEY, reason);
        if error.kind() == io::ErrorKind::PermissionDenied {
            let reason = format!("{shown}: {}", os_error::plain(error));
            self.denied
                .get_or_insert_with(|| io::Error::new(error.kind(), reason));
        }
    }
}

/// Returns whether two paths are those of one file.
fn is_same(one: &Path, other: &Path) -> bool {
    match (one.canonicalize(), other.canonicalize()) {
        (Ok(one), Ok(other)) => one == other,
        _ => false,
    }
}
