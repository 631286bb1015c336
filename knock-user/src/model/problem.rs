//! Errors and warnings about a file, with their lines.

use std::{
    fmt,
    ops::Range,
    path::{Path, PathBuf},
};

use crate::model::{sources::Sources, terminal::harmless};

/// An error or a warning about a file.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd, serde::Serialize)]
pub struct Problem {
    /// The line, counted from 1, if it concerns one.
    pub line: Option<usize>,
    /// The key that it concerns; empty if it concerns the whole file.
    pub key: String,
    /// The reason and the cure.
    pub reason: String,
}

/// All errors of a file, sorted by line.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub struct Problems {
    /// The files, as the user named the first one.
    pub file: Sources,
    /// At least one.
    pub list: Vec<Problem>,
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.list.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            f.write_str(&problem.render_in("", &self.file))?;
        }
        Ok(())
    }
}

impl Problem {
    /// Formats the problem as compilers do, `seq.toml:7: open: …`, with `word` before the key if it
    /// is not empty. Control characters are escaped, so the content of the file can't affect a
    /// terminal.
    pub fn render(&self, word: &str, file: &str) -> String {
        self.render_in(word, &file.into())
    }

    /// Formats it likewise, with the file that has its line.
    pub fn render_in(&self, word: &str, sources: &Sources) -> String {
        let mut text = match self.line.map(|line| sources.find(line)) {
            Some((file, line)) => format!("{file}:{line}"),
            None => sources.main().to_owned(),
        };
        text += ": ";
        if !word.is_empty() {
            text += &format!("{word}: ");
        }
        if !self.key.is_empty() {
            text += &format!("{}: ", self.key);
        }
        text += &self.reason;
        harmless(&text).into_owned()
    }
}

/// Collects problems while a text is read.
pub(crate) struct ProblemReport {
    /// The offsets of line starts, from the second line on.
    starts: Vec<usize>,
    /// The offset of the part that is being read: spans begin there.
    pub(crate) part: usize,
    /// The files of the text.
    pub(crate) sources: Sources,
    /// The directory to which the names of other files in the text are relative.
    directory: PathBuf,
    pub(crate) problems: Vec<Problem>,
    /// Keys whose values can't be parsed, with the line of their table.
    pub(crate) broken: Vec<(usize, String)>,
}

impl ProblemReport {
    pub(crate) fn new(text: &str, directory: &Path) -> Self {
        let ends = text.bytes().enumerate().filter(|&(_, byte)| byte == b'\n');
        Self {
            starts: ends.map(|(index, _)| index + 1).collect(),
            part: 0,
            sources: Sources::of("", text),
            directory: directory.to_owned(),
            problems: Vec::new(),
            broken: Vec::new(),
        }
    }

    /// Returns the path of a file that the text names.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Returns the line in which a span begins.
    pub(crate) fn line(&self, span: &Range<usize>) -> usize {
        let at = self.part.saturating_add(span.start);
        self.starts.partition_point(|&start| start <= at) + 1
    }

    pub(crate) fn add(&mut self, line: usize, key: &str, reason: impl Into<String>) {
        self.problems.push(Problem {
            line: Some(line),
            key: key.to_owned(),
            reason: reason.into(),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_one_line_that_moves_no_cursor() {
        let problem = Problem {
            line: Some(7),
            key: "na\u{1b}[2Jme".to_owned(),
            reason: "unknown key\nseq.toml:1: \u{9b}31m".to_owned(),
        };
        assert_eq!(
            problem.render("", "se\u{7}q.toml"),
            "se\\u{7}q.toml:7: na\\u{1b}[2Jme: unknown key\\nseq.toml:1: \\u{9b}31m"
        );
    }
}

/// A usage or configuration error of the user.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{0}")]
pub struct Misuse(pub String);
