//! Reads the valid part of a file with TOML errors, so that one bad statement hides no other error.
//!
//! A statement is a table header or a key with its value, from the line that it begins in to the
//! next one. Those that can't be read are reported and replaced by blanks, which keeps the lines of
//! all others.

use std::ops::Range;

use toml::de::{DeTable, Error};

use crate::model::problem::ProblemReport;

/// How many repeated statements are reported; each costs one more parse of the whole file.
const REPEATED_MAX: usize = 50;
/// How many statements are joined at most, such as the lines of an inline table.
const PARTS_MAX: usize = 32;

/// Part of a text.
struct Statement {
    span: Range<usize>,
    /// Returns whether it begins a table.
    is_header: bool,
}

/// Reports why a text is not TOML, and returns the text without the unreadable statements. `error`
/// is the first error.
pub(super) fn readable(text: &str, error: &Error, report: &mut ProblemReport) -> String {
    // The lines of a multi-line string may look like statements.
    if text.contains("\"\"\"") || text.contains("'''") {
        report.add(line(error, 0, report), "", not_toml(error));
        return String::new();
    }
    let statements = statements(text);
    let mut rest = text.to_owned();
    let mut header_line = report.line(&(0..0));
    let mut is_lost = false;
    let mut index = 0;
    while let Some(statement) = statements.get(index) {
        let (count, broken) = parts(text, &statements[index..]);
        let end = statements[index + count - 1].span.end;
        let span = statement.span.start..end;
        if statement.is_header {
            header_line = report.line(&span);
            // What follows a header that can't be read belongs to no other table.
            is_lost = broken.is_some();
        }
        if let Some(error) = &broken {
            let part = &text[span.clone()];
            let key = key(part);
            let reason = unreadable(part).unwrap_or_else(|| not_toml(error));
            report.add(line(error, span.start, report), key, reason);
        }
        if is_lost || broken.is_some() {
            let key = key(&text[span.clone()]).to_owned();
            report.broken.push((header_line, key));
            blank(&mut rest, span.clone());
        }
        // What follows an inline table that is not closed may be meant for it.
        is_lost |= broken.is_some() && value(&text[span]).is_some_and(|it| it.starts_with('{'));
        index += count;
    }
    repeated(&statements, &mut rest, report);
    rest
}

/// Returns how many statements belong together, at least 1, and why they can't be read. The lines
/// of an inline table look like statements.
fn parts(text: &str, statements: &[Statement]) -> (usize, Option<Error>) {
    let Some(first) = statements.first() else {
        return (1, None);
    };
    let Err(error) = DeTable::parse(&text[first.span.clone()]) else {
        return (1, None);
    };
    if first.is_header {
        return (1, Some(error));
    }
    let more = statements.iter().take(PARTS_MAX).skip(1);
    let mut more = more.take_while(|part| !part.is_header);
    match more.position(|part| is_toml(&text[first.span.start..part.span.end])) {
        Some(place) => (place + 2, None),
        None => (1, Some(error)),
    }
}

/// Removes keys and tables that repeat others.
fn repeated(statements: &[Statement], rest: &mut String, report: &mut ProblemReport) {
    for _ in 0..REPEATED_MAX {
        let Err(error) = DeTable::parse(rest) else {
            return;
        };
        let at = error.span().unwrap_or_default().start;
        let place = statements.partition_point(|it| it.span.start <= at);
        let Some(statement) = statements.get(place.saturating_sub(1)) else {
            break;
        };
        let key = key(&rest[statement.span.clone()]).to_owned();
        report.add(line(&error, 0, report), &key, not_toml(&error));
        blank(rest, statement.span.clone());
    }
    if !is_toml(rest) {
        rest.clear();
    }
}

fn is_toml(text: &str) -> bool {
    DeTable::parse(text).is_ok()
}

fn not_toml(error: &Error) -> String {
    format!("not TOML: {}", error.message())
}

/// Returns the line of an error in a part of the text that begins at `start`.
fn line(error: &Error, start: usize, report: &ProblemReport) -> usize {
    let span = error.span().unwrap_or_default();
    report.line(&(start + span.start..start + span.end))
}

/// Returns the reason for a bare word as a value, which the parser reports as a bad number.
fn unreadable(statement: &str) -> Option<String> {
    let value = value(statement)?;
    if value.is_empty() {
        return Some("a value is missing after =".to_owned());
    }
    if is_like_date(value) {
        return Some(format!(
            "{value} is not a date or time that exists: write year, month and day, as in \
             2027-01-31, or a time with its offset, as in 2027-01-31T18:00:00Z"
        ));
    }
    let is_word = |c: char| c.is_ascii_alphanumeric() || "./_:-".contains(c);
    value.chars().all(is_word).then(|| {
        format!(
            "{value} is not a value: write true or false, a number, a list, or a text in quotes, \
             as in \"{value}\""
        )
    })
}

/// Returns whether a value begins with numbers in the form of a date.
fn is_like_date(value: &str) -> bool {
    let mut numbers = value.splitn(3, '-');
    let is_number = |part: Option<&str>| {
        part.is_some_and(|part| !part.is_empty() && part.bytes().all(|c| c.is_ascii_digit()))
    };
    is_number(numbers.next())
        && is_number(numbers.next())
        && numbers
            .next()
            .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

/// Returns the first line of a statement's value, if it has one.
fn value(statement: &str) -> Option<&str> {
    let (_, value) = statement.split_once('=')?;
    Some(value.split(['#', '\n']).next()?.trim())
}

/// Returns the key of a statement; empty if it is not a plain key.
fn key(statement: &str) -> &str {
    let key = statement.split_once('=').map_or("", |(key, _)| key.trim());
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if key.chars().all(is_plain) { key } else { "" }
}

fn statements(text: &str) -> Vec<Statement> {
    let mut statements: Vec<Statement> = Vec::new();
    // True while the last statement may continue.
    let mut is_open = false;
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        let span = at..at + line.len();
        at = span.end;
        let words = line.trim();
        let is_header = words.starts_with('[');
        let is_key = line.split_once('=').is_some_and(|(key, _)| {
            let is_bare = |c: char| c.is_ascii_alphanumeric() || "_-.\" \t".contains(c);
            !key.trim().is_empty() && key.chars().all(is_bare)
        });
        let is_empty = words.is_empty() || words.starts_with('#');
        match statements.last_mut() {
            Some(last) if is_empty || (is_open && !is_header && !is_key) => {
                last.span.end = span.end;
            }
            Some(_) | None => {
                is_open = is_key && !is_toml(line);
                statements.push(Statement { span, is_header });
            }
        }
    }
    statements
}

/// Replaces a part with blanks, and keeps line ends.
fn blank(text: &mut String, span: Range<usize>) {
    let blanks: String = text[span.clone()]
        .bytes()
        .map(|byte| if byte == b'\n' { '\n' } else { ' ' })
        .collect();
    text.replace_range(span, &blanks);
}
