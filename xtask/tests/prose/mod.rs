//! The prose of a file. Everything else becomes blanks, so that lines keep their numbers.

use std::path::Path;

use super::words::HEADING;

/// Returns the prose of a page: no code, no link targets, no list of words.
pub(crate) fn markdown(text: &str) -> String {
    let mut prose = String::new();
    let (mut is_code, mut is_list) = (false, false);
    for line in text.lines() {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        if line.starts_with('#') && !is_code {
            is_list = line == HEADING;
        }
        if !(is_code || is_fence || is_list) {
            prose += &without_targets(&without_code(line));
        }
        prose.push('\n');
    }
    prose
}

/// Replaces code between backquotes.
fn without_code(line: &str) -> String {
    line.split('`')
        .enumerate()
        .map(|(index, part)| match index % 2 {
            0 => part,
            _ => "\u{1}",
        })
        .collect()
}

/// Replaces the targets of links.
fn without_targets(line: &str) -> String {
    let mut parts = line.split("](");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| {
        let rest = part.split_once(')').map_or("", |(_, rest)| rest);
        text + "\u{1}" + rest
    })
}

/// Returns the prose of a source file: all of it, or in Rust comments, texts and names of tests.
pub(crate) fn source(path: &Path, text: &str) -> String {
    match path.extension().is_some_and(|extension| extension == "rs") {
        true => rust(text),
        false => text.replace('#', " "),
    }
}

/// Returns comments, string literals and names of tests.
fn rust(text: &str) -> String {
    let mut prose = String::new();
    let mut rest = text;
    // Whether the next function is a test.
    let mut is_test = false;
    while let Some(first) = rest.chars().next() {
        let length = if rest.starts_with("//") {
            let length = rest.find('\n').unwrap_or(rest.len());
            prose += &rest[..length].replace(['/', '!'], " ");
            length
        } else if let Some((length, literal)) = literal(rest) {
            prose.push('\u{1}');
            // A line that is continued is one text.
            prose += &literal.replace("\\\n", " \n");
            prose.push('\u{1}');
            length
        } else if rest.starts_with("#[test]") {
            is_test = true;
            "#[test]".len()
        } else if rest.starts_with("fn ") && is_test {
            is_test = false;
            let length = rest.find('(').unwrap_or(rest.len());
            prose.push('\u{1}');
            prose += &rest["fn ".len()..length].replace('_', " ");
            prose.push('\u{1}');
            length
        } else {
            match first {
                '\n' => prose.push('\n'),
                // Code between comments separates them.
                c if !c.is_whitespace() => prose.push('\u{1}'),
                _ => {}
            }
            identifier(rest).unwrap_or(first.len_utf8())
        };
        rest = &rest[length..];
    }
    prose
}

/// Returns the length of a word at the beginning, so that `r` in `for` begins no raw string.
fn identifier(text: &str) -> Option<usize> {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    let length = text.find(|c| !is_part(c)).unwrap_or(text.len());
    (length > 0).then_some(length)
}

/// Returns the length of a literal at the beginning, and the text in it; a character has none.
fn literal(text: &str) -> Option<(usize, &str)> {
    let begin = text.trim_start_matches(['b', 'c']);
    let before = text.len() - begin.len();
    if let Some(raw) = begin.strip_prefix('r') {
        let body = raw.trim_start_matches('#');
        let hashes = &raw[..raw.len() - body.len()];
        let body = body.strip_prefix('"')?;
        let end = body.find(&format!("\"{hashes}"))?;
        let length = before + 1 + hashes.len() + 1 + end + 1 + hashes.len();
        return Some((length, &body[..end]));
    }
    if let Some(body) = begin.strip_prefix('"') {
        let end = unescaped(body, '"')?;
        return Some((before + end + 2, &body[..end]));
    }
    // A character, not a lifetime.
    let body = begin.strip_prefix('\'')?;
    let is_character = body.starts_with('\\') || body.chars().nth(1) == Some('\'');
    let end = unescaped(body, '\'').filter(|_| is_character)?;
    Some((before + end.max(1) + 2, ""))
}

/// Returns the position at which a quote ends a literal.
fn unescaped(body: &str, quote: char) -> Option<usize> {
    let mut is_escaped = false;
    body.char_indices()
        .find(|&(_, c)| {
            let is_end = c == quote && !is_escaped;
            is_escaped = c == '\\' && !is_escaped;
            is_end
        })
        .map(|(at, _)| at)
}
