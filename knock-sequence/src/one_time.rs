//! The format of one-time files, apart from reading and writing them.
//!
//! A line is a sequence in knockd's form (`7000:tcp,8000:udp`) or in ours (`tcp/7000 udp/8000`).
//! Lines that begin with `#` are comments, or sequences that have been used: what marks a line is a
//! `#` in place of the blank that it begins with.

use std::collections::HashMap;

use knock_common::layout::KNOCKS_MAX;

use crate::{Invalid, Knock, KnockSpec, Protocol};

/// The most lines of a file that are used; those beyond are ignored.
pub const SEQUENCES_MOST: usize = (1 << 20) - 1;
/// The most octets of a file: a hundred thousand sequences of a dozen knocks each.
pub const FILE_MOST: u64 = 16 << 20;

/// The lines of a file.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct OneTimeText {
    text: Vec<u8>,
    lines: Vec<FileLine>,
}

/// Why a line is not used.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Flaw<'a> {
    /// The line, counted from 1.
    pub line: u32,
    /// The reason why it is wrong.
    pub reason: &'a str,
}

/// The line that a client takes next.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum NextLine<'a> {
    /// A line, counted from 1, and its sequence.
    Sequence(u32, &'a [Knock]),
    /// A line that can't be used.
    Flawed(Flaw<'a>),
}

#[derive(Clone, Debug, Eq, PartialEq)]
struct FileLine {
    /// The offset of its first byte.
    start: usize,
    is_marked: bool,
    /// Empty if it is none.
    knocks: Vec<Knock>,
    /// Why it is not used, though it looks like one that is to be.
    flaw: Option<String>,
}

impl FileLine {
    fn is_unused(&self) -> bool {
        !self.is_marked && !self.knocks.is_empty() && self.flaw.is_none()
    }
}

impl OneTimeText {
    /// Reads any bytes.
    pub fn new(text: Vec<u8>) -> Self {
        let mut start = 0;
        let mut lines: Vec<FileLine> = Vec::new();
        for line in text
            .split_inclusive(|&byte| byte == b'\n')
            .take(SEQUENCES_MOST)
        {
            lines.push(read(line, start));
            start += line.len();
        }
        let mut first: HashMap<Vec<Knock>, usize> = HashMap::new();
        for (number, line) in (1..).zip(&mut lines) {
            if line.knocks.is_empty() {
                continue;
            }
            let before = *first.entry(line.knocks.clone()).or_insert(number);
            if before != number && !line.is_marked {
                line.flaw = Some(format!(
                    "the same as line {before}, and a sequence works once"
                ));
            }
        }
        Self { text, lines }
    }

    /// Returns the file.
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// Leaves out what can't be used for reasons of its door.
    pub fn refuse(&mut self, mut refuses: impl FnMut(&[Knock]) -> Option<String>) {
        for line in self.lines.iter_mut().filter(|line| line.is_unused()) {
            line.flaw = refuses(&line.knocks);
        }
    }

    /// Uses only what an earlier reading of the file used: nobody has looked at the rest.
    pub fn restrict_to(&mut self, earlier: &Self) {
        for (index, line) in self.lines.iter_mut().enumerate() {
            let known = earlier.lines.get(index);
            let known = known.filter(|known| known.knocks == line.knocks);
            if line.is_unused() {
                line.flaw = match known {
                    Some(known) => known.flaw.clone(),
                    None => Some("new since the file was read: reload".to_owned()),
                };
            }
        }
    }

    /// Returns the sequences that can still be used, each with its line, counted from 1.
    pub fn unused(&self) -> impl Iterator<Item = (u32, &[Knock])> {
        let lines = (1..).zip(&self.lines);
        lines
            .filter(|(_, line)| line.is_unused())
            .map(|(number, line)| (number, line.knocks.as_slice()))
    }

    /// Returns the sequence of a line, marked or not.
    pub fn sequence(&self, line: u32) -> Option<&[Knock]> {
        let line = self.lines.get(index(line)?)?;
        (!line.knocks.is_empty()).then_some(line.knocks.as_slice())
    }

    /// Returns the first line that is neither blank, nor a comment, nor marked, whether it can be used or
    /// not; a client does not skip what its writer meant to be a sequence.
    pub fn next(&self) -> Option<NextLine<'_>> {
        let lines = (1..).zip(&self.lines);
        let mut meant =
            lines.filter(|(_, line)| !line.is_marked && (line.flaw.is_some() || line.is_unused()));
        meant.next().map(|(number, line)| match &line.flaw {
            Some(reason) => NextLine::Flawed(Flaw {
                line: number,
                reason,
            }),
            None => NextLine::Sequence(number, &line.knocks),
        })
    }

    /// Returns the flaw of a line, if it has one.
    pub fn flaw(&self, line: u32) -> Option<Flaw<'_>> {
        let reason = self.lines.get(index(line)?)?.flaw.as_deref()?;
        Some(Flaw { line, reason })
    }

    /// Returns whether a line has its mark.
    pub fn is_marked(&self, line: u32) -> bool {
        let line = index(line).and_then(|index| self.lines.get(index));
        line.is_some_and(|line| line.is_marked)
    }

    /// Returns the flaws of its lines.
    pub fn flaws(&self) -> impl Iterator<Item = Flaw<'_>> {
        let lines = (1..).zip(&self.lines);
        lines.filter_map(|(line, read)| {
            Some(Flaw {
                line,
                reason: read.flaw.as_ref()?,
            })
        })
    }

    /// Returns the text with marks in front of a line and of all sequences before it; `None` if they are
    /// there.
    ///
    /// What marks a line is a `#` in place of the blank that it begins with; if there is none, in
    /// front of it. All other bytes stay as they are.
    pub fn marked(&self, line: u32) -> Option<Self> {
        let mut text = Vec::with_capacity(self.text.len().saturating_add(16));
        let mut lines = self.lines.clone();
        let mut any = false;
        let count = index(line)?.saturating_add(1);
        let ends = self.lines.iter().skip(1).map(|line| line.start);
        let ends = ends.chain([self.text.len()]);
        for ((index, line), end) in lines.iter_mut().enumerate().zip(ends) {
            let mut bytes = self.text.get(line.start..end).unwrap_or_default();
            line.start = text.len();
            // A malformed line may have been meant as a sequence.
            if index < count && !line.is_marked && !line.knocks.is_empty() {
                any = true;
                line.is_marked = true;
                line.flaw = None;
                bytes = bytes
                    .strip_prefix(b" ")
                    .or(bytes.strip_prefix(b"\t"))
                    .unwrap_or(bytes);
                text.push(b'#');
            }
            text.extend_from_slice(bytes);
        }
        any.then_some(Self { text, lines })
    }
}

fn index(line: u32) -> Option<usize> {
    usize::try_from(line).ok()?.checked_sub(1)
}

fn read(bytes: &[u8], start: usize) -> FileLine {
    let mut line = FileLine {
        start,
        is_marked: false,
        knocks: Vec::new(),
        flaw: None,
    };
    let Ok(text) = str::from_utf8(bytes) else {
        line.is_marked = bytes.trim_ascii_start().starts_with(b"#");
        line.flaw = (!line.is_marked).then(|| "not a text in UTF-8".to_owned());
        return line;
    };
    let written = text.trim();
    if written.is_empty() {
        return line;
    }
    if let Some(used) = written.strip_prefix('#') {
        line.is_marked = true;
        // A line that is not a sequence is a comment, and so is one whose last port may have been cut off.
        if text.ends_with('\n') {
            line.knocks = knocks(used).unwrap_or_default();
        }
        return line;
    }
    // A file that was cut off would give a wrong port.
    if !text.ends_with('\n') {
        line.flaw = Some("the line has no end, so the file may have been cut off".to_owned());
        return line;
    }
    match knocks(written) {
        Ok(knocks) => line.knocks = knocks,
        Err(reason) => line.flaw = Some(reason),
    }
    line
}

/// Knocks with commas or blanks between them.
fn knocks(text: &str) -> Result<Vec<Knock>, String> {
    let mut knocks = Vec::new();
    for part in text.split(',') {
        if part.trim().is_empty() {
            return Err("nothing stands where a knock belongs, beside a comma".to_owned());
        }
        for word in part.split_whitespace() {
            let word: KnockSpec = word.parse().map_err(|error: Invalid| error.to_string())?;
            knocks.push(word.knock(Protocol::Tcp));
        }
    }
    match knocks.len() {
        many if many > KNOCKS_MAX => Err(format!(
            "{many} knocks: a sequence has at most {KNOCKS_MAX}"
        )),
        _ => Ok(knocks),
    }
}
