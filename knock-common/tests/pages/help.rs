//! The style of `--help`.

use clap::Command;

use super::words;

/// Asserts the style of `--help`, of a command and its subcommands: imperative lines without a full
/// stop, and none of the words that docs/style.md excludes.
pub(crate) fn check_help(command: &Command) {
    let about = command.get_about().map(ToString::to_string);
    check_line(command.get_name(), &about.unwrap_or_default());
    let count = command.get_arguments().count();
    for arg in command.get_arguments() {
        let name = format!("{} {}", command.get_name(), arg.get_id());
        check_line(
            &name,
            &arg.get_help().map(ToString::to_string).unwrap_or_default(),
        );
        let is_grouped = arg.get_help_heading().is_some() || arg.is_positional();
        assert!(is_grouped || count <= 8, "{name}: no heading");
    }
    let longer = [
        command.get_long_about(),
        command.get_after_help(),
        command.get_before_help(),
    ];
    for text in longer.into_iter().flatten() {
        check_words(command.get_name(), &text.to_string());
    }
    command.get_subcommands().for_each(check_help);
}

fn check_words(name: &str, text: &str) {
    let found: Vec<_> = words::find(text, &words::listed())
        .into_iter()
        .map(|found| found.word)
        .collect();
    assert_eq!(found, [""; 0], "{name}: see docs/style.md: {text}");
}

fn check_line(name: &str, help: &str) {
    check_words(name, help);
    assert!(help.len() <= 120, "{name}: too long: {help}");
    let is_sentence = help.ends_with('.') || help.contains(". ");
    assert!(!is_sentence, "{name}: a full stop: {help}");
    assert!(
        help.starts_with(|first: char| first.is_ascii_uppercase()),
        "{name}: {help:?}"
    );
    // "The door", "Whose", "How long": words that a verb in the imperative never is.
    let first = help.split(' ').next().unwrap_or_default();
    let wrong = [
        "A", "Also", "An", "The", "How", "What", "Who", "Whose", "Where", "Whether", "Only", "For",
        "Which",
    ];
    assert!(!wrong.contains(&first), "{name}: no verb first: {help}");
}
