//! The files of which a configuration consists, and what lines of theirs mean.

use std::{fmt, path::Path};

/// The first character of a line that begins the part of an included file in a text, and has the name of the file as
/// the main file gives it. TOML forbids the character, so no file has such a line.
pub(crate) const MARK: char = '\u{1}';

/// A file as the user named it, and the files that it includes. Lines are counted over all of them, as in the text that
/// consists of all parts.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Sources {
    main: String,
    /// The lines with the names of included files, and these names.
    included: Vec<(usize, String)>,
}

/// The text of one file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Part<'t> {
    /// The name of an included file, relative to the directory of the main one; none for the main one.
    pub(crate) name: Option<&'t str>,
    pub(crate) text: &'t str,
    /// Where it begins in the whole text.
    pub(crate) offset: usize,
}

impl Sources {
    /// Returns the files of a text with all parts; `main` is the name of the first one. The names of the others in the
    /// text are relative to its directory.
    pub(crate) fn of(main: &str, text: &str) -> Self {
        let lines = (1..).zip(text.split('\n'));
        let directory = Path::new(main).parent().unwrap_or(Path::new(""));
        let included = lines.filter_map(|(line, text)| {
            let name = text.strip_prefix(MARK)?;
            Some((line, directory.join(name).display().to_string()))
        });
        Self {
            main: main.to_owned(),
            included: included.collect(),
        }
    }

    /// Returns the name of the main file.
    pub fn main(&self) -> &str {
        &self.main
    }

    /// Returns the files, each with its first line.
    pub fn files(&self) -> impl Iterator<Item = (usize, &str)> {
        let included = self.included.iter();
        let included = included.map(|(line, name)| (line.saturating_add(1), name.as_str()));
        std::iter::once((1, self.main.as_str())).chain(included)
    }

    /// Returns the file that has a line, and its number there.
    pub fn find(&self, line: usize) -> (&str, usize) {
        let after = self.included.partition_point(|(first, _)| *first < line);
        let within = after
            .checked_sub(1)
            .and_then(|index| self.included.get(index));
        match within {
            Some((first, name)) => (name, line.saturating_sub(*first)),
            None => (&self.main, line),
        }
    }

    /// Returns where a line is, for a sentence about another one: `on line 7`, `on line 7 of seq.d/bob.toml`.
    pub(crate) fn on_line(&self, line: usize) -> String {
        let (file, number) = self.find(line);
        match self.included.is_empty() {
            true => format!("on line {number}"),
            false => format!("on line {number} of {file}"),
        }
    }
}

impl From<&str> for Sources {
    fn from(main: &str) -> Self {
        Self {
            main: main.to_owned(),
            included: Vec::new(),
        }
    }
}

impl From<String> for Sources {
    fn from(main: String) -> Self {
        Self {
            main,
            included: Vec::new(),
        }
    }
}

impl fmt::Display for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.main)
    }
}

/// Returns the parts of a text, the main file first.
pub(crate) fn parts(text: &str) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    let mut part = Part {
        name: None,
        text,
        offset: 0,
    };
    let mut offset = 0;
    for line in text.split_inclusive('\n') {
        let next = offset + line.len();
        if let Some(name) = line.strip_prefix(MARK) {
            parts.push(Part {
                text: &text[part.offset..offset],
                ..part
            });
            part = Part {
                name: Some(name.trim_end_matches('\n')),
                text: &text[next..],
                offset: next,
            };
        }
        offset = next;
    }
    parts.push(part);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_those_of_their_files() {
        let text =
            "a = 1\nb = 2\n\u{1}one.toml\nc = 3\n\u{1}two.toml\n\u{1}three.toml\nd = 4\n\ne = 5";
        let sources = Sources::of("seq.toml", text);
        for (line, expected) in [
            (1, ("seq.toml", 1)),
            (2, ("seq.toml", 2)),
            (4, ("one.toml", 1)),
            (7, ("three.toml", 1)),
            (9, ("three.toml", 3)),
        ] {
            assert_eq!(sources.find(line), expected, "{line}");
        }
        let parts = parts(text);
        let names: Vec<_> = parts.iter().map(|part| part.name).collect();
        assert_eq!(
            names,
            [None, Some("one.toml"), Some("two.toml"), Some("three.toml")]
        );
        let texts: Vec<_> = parts.iter().map(|part| part.text).collect();
        assert_eq!(texts, ["a = 1\nb = 2\n", "c = 3\n", "", "d = 4\n\ne = 5"]);
        for part in parts {
            assert!(text[part.offset..].starts_with(part.text));
        }
        assert_eq!(Sources::of("seq.toml", "a = 1").on_line(1), "on line 1");
        assert_eq!(sources.on_line(4), "on line 1 of one.toml");
    }
}
