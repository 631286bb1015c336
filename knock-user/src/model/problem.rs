//! What is wrong with a file, and where.

use std::{fmt, ops::Range};

use crate::model::terminal::harmless;

/// One thing that is wrong, or unwise.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd, serde::Serialize)]
pub struct Problem {
    /// The line, counted from 1, if it is about one.
    pub line: Option<usize>,
    /// The key that it is about; empty if it is about the whole.
    pub key: String,
    /// What is wrong and what to write instead.
    pub reason: String,
}

/// Everything that is wrong with a file, in the order of its lines.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub struct Problems {
    /// The file as the user named it.
    pub file: String,
    /// At least one.
    pub list: Vec<Problem>,
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.list.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            f.write_str(&problem.told("", &self.file))?;
        }
        Ok(())
    }
}

impl Problem {
    /// The line that tells it, as compilers do: `seq.toml:7: open: ...`, where `word` comes before
    /// the key if it is not empty. Nothing in it does anything to a terminal, whatever the file holds.
    pub fn told(&self, word: &str, file: &str) -> String {
        let mut text = file.to_owned();
        if let Some(line) = self.line {
            text += &format!(":{line}");
        }
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
pub(crate) struct Report {
    /// Where lines begin, from the second on.
    starts: Vec<usize>,
    pub(crate) problems: Vec<Problem>,
    /// Keys whose statements can't be read, with the line of the table that they are in.
    pub(crate) broken: Vec<(usize, String)>,
}

impl Report {
    pub(crate) fn new(text: &str) -> Self {
        let ends = text.bytes().enumerate().filter(|&(_, byte)| byte == b'\n');
        Self {
            starts: ends.map(|(index, _)| index + 1).collect(),
            problems: Vec::new(),
            broken: Vec::new(),
        }
    }

    /// The line that a span begins in.
    pub(crate) fn line(&self, span: &Range<usize>) -> usize {
        self.starts.partition_point(|&start| start <= span.start) + 1
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
            problem.told("", "se\u{7}q.toml"),
            "se\\u{7}q.toml:7: na\\u{1b}[2Jme: unknown key\\nseq.toml:1: \\u{9b}31m"
        );
    }
}

/// Who asked is at fault: bad usage, or a bad configuration.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{0}")]
pub struct Misuse(pub String);
