//! Command lines in the project's Markdown.

use clap::{Arg, Command, error::ErrorKind};

use super::pages::{pages, rows};

/// The text before and the words in place of what a reader puts in.
const PLACEHOLDERS: [(&str, &str); 3] = [
    ("SOURCE", "192.0.2.1"),
    ("ADDRESS", "192.0.2.1"),
    ("PORT", "22"),
];

/// Asserts that a program accepts each of its command lines in the pages; returns how many there are.
///
/// What a sentence leaves out, such as a host, may be missing.
pub(crate) fn check_command_lines(command: &Command) -> usize {
    let mut count = 0;
    for page in pages() {
        for line in code(&page.text) {
            let Some(words) = words_of(command.get_name(), line) else {
                continue;
            };
            count += 1;
            let Err(error) = command.clone().try_get_matches_from(&words) else {
                continue;
            };
            let is_option_alone = words.last().is_some_and(|word| word.starts_with('-'));
            let is_incomplete = [
                ErrorKind::DisplayHelp,
                ErrorKind::DisplayVersion,
                ErrorKind::MissingRequiredArgument,
            ];
            let lacks_value = error.kind() == ErrorKind::InvalidValue && is_option_alone;
            let is_fine = is_incomplete.contains(&error.kind()) || lacks_value;
            assert!(is_fine, "{}: {line}\n{error}", page.path.display());
        }
    }
    count
}

/// Asserts that the tables below a heading have the arguments of a command and their defaults, and no others.
pub(crate) fn check_arguments(command: &Command, page: &str, heading: &str) {
    let plain = |text: &str| text.replace('`', "");
    let row = |row: Vec<&str>| (plain(row[0]), plain(row[1]));
    let mut found: Vec<_> = rows(page, heading).into_iter().map(row).collect();
    let arguments = command.get_arguments();
    let mut expected: Vec<_> = arguments.map(|arg| (spelling(arg), default(arg))).collect();
    found.sort();
    expected.sort();
    assert_eq!(found, expected, "{heading}");
}

/// Returns the code in backquotes, and lines of code blocks.
fn code(text: &str) -> Vec<&str> {
    let mut is_block = false;
    let mut code = Vec::new();
    for line in text.lines() {
        let is_fence = line.trim_start().starts_with("```");
        is_block ^= is_fence;
        match is_block {
            _ if is_fence => {}
            true => code.push(line),
            false => code.extend(line.split('`').skip(1).step_by(2)),
        }
    }
    code
}

/// Returns the words of a command line, if it is one of this program.
fn words_of(program: &str, line: &str) -> Option<Vec<String>> {
    let line = line.trim_start_matches(['$', ' ']);
    let line = line.strip_prefix("sudo ").unwrap_or(line);
    let line = line.strip_prefix("target/release/").unwrap_or(line);
    let rest = line.strip_prefix(program)?;
    if !(rest.is_empty() || rest.starts_with(' ')) || rest.contains('…') {
        return None;
    }
    let end = rest.find([';', '&', '#', '|', '>']).unwrap_or(rest.len());
    let words = rest[..end].split_whitespace();
    let words = words.map(|word| word.trim_matches(['[', ']']).to_owned());
    let words = words.map(|word| {
        let found = PLACEHOLDERS.iter().find(|(name, _)| *name == word);
        found.map_or(word, |(_, value)| (*value).to_owned())
    });
    Some([program.to_owned()].into_iter().chain(words).collect())
}

/// Returns how an argument is written: `-i, --iface IF`.
fn spelling(arg: &Arg) -> String {
    let short = arg.get_short().map(|short| format!("-{short}"));
    let long = arg.get_long().map(|long| format!("--{long}"));
    let names: Vec<_> = short.into_iter().chain(long).collect();
    let values = arg.get_value_names().unwrap_or_default();
    let value = values.first().filter(|_| arg.get_action().takes_values());
    let value = value.map(|value| value.to_string());
    let parts = (!names.is_empty()).then(|| names.join(", "));
    parts.into_iter().chain(value).collect::<Vec<_>>().join(" ")
}

/// Returns the default as `--help` has it; nothing if there is none.
fn default(arg: &Arg) -> String {
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let default = help.split_once("[default: ").map(|(_, default)| default);
    if let Some(default) = default {
        return default.trim_end_matches(']').replace('`', "");
    }
    let values = arg.get_default_values().iter();
    let values: Vec<_> = values.map(|value| value.to_string_lossy()).collect();
    match arg.get_action().takes_values() {
        true => values.join(" "),
        false => String::new(),
    }
}
