//! Writes values and comments as TOML.

use std::fmt::Display;

use crate::model::terminal::is_harmful;

/// The width of comment lines.
const COLUMNS: usize = 100;

/// Writes a string as TOML.
pub(crate) fn string(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// Writes an array of strings on one line.
pub(crate) fn list<T: Display>(items: &[T]) -> String {
    let items: Vec<String> = items.iter().map(|item| string(&item.to_string())).collect();
    format!("[{}]", items.join(", "))
}

/// Writes a text as wrapped comments; what TOML forbids there, or harms a terminal, is escaped.
pub(crate) fn comment(text: &str) -> String {
    let mut comment = String::new();
    for paragraph in text.lines() {
        let mut line = "#".to_owned();
        for word in paragraph.split(' ') {
            let word: String = word.chars().map(shown).collect();
            if line.len() > 1 && line.chars().count() + 1 + word.chars().count() > COLUMNS {
                comment += line.trim_end();
                comment.push('\n');
                line = "#".to_owned();
            }
            line.push(' ');
            line += &word;
        }
        comment += line.trim_end();
        comment.push('\n');
    }
    comment
}

/// Writes each line of a text as a comment; what TOML forbids there, or harms a terminal, is escaped.
pub(crate) fn commented(text: &str) -> String {
    text.lines()
        .map(|line| {
            let line: String = line.chars().map(shown).collect();
            format!("# {line}\n")
        })
        .collect()
}

fn shown(character: char) -> String {
    if is_harmful(character) && character != '\t' {
        character.escape_unicode().to_string()
    } else {
        character.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_read_back_unchanged() {
        for text in [
            "",
            "plain",
            "with \"quotes\" and 'quotes'",
            "back\\slash",
            "two\nlines",
            "\u{1}\u{7f}\t\r",
            "'''",
            "\"\"\"",
            "ü門",
        ] {
            let written = format!("key = {}", string(text));
            let read: toml::Table = written.parse().unwrap();
            assert_eq!(read["key"].as_str(), Some(text), "{written}");
        }
    }

    #[test]
    fn comments_are_read_as_comments() {
        let long = "word ".repeat(40);
        for text in ["", "one", "two\nlines", "\u{1}\u{7f}", &long] {
            for written in [comment(text), commented(text)] {
                let read: toml::Table = written.parse().unwrap();
                assert!(read.is_empty(), "{written}");
            }
        }
        assert!(comment(&long).lines().all(|line| line.len() <= COLUMNS));
    }
}
