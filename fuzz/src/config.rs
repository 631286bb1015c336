//! Configurations: every accepted one compiles, and keeps its meaning when it is written again.

mod write;

use knock_user::{
    compile::{Input, compile, stable_ids::StableIds},
    config,
    host::Host,
    model::{
        problem::Problems,
        settings::{Sequences, Settings},
    },
};

use crate::text::assert_harmless;

/// The name of the file in errors.
const FILE: &str = "seq.toml";

/// Reads a text as a configuration.
pub fn check(text: &[u8]) {
    let Ok(text) = str::from_utf8(text) else {
        return;
    };
    let checked = match config::parse(text, FILE) {
        Ok(checked) => checked,
        Err(problems) => return check_problems(text, &problems),
    };
    let settings = &checked.settings;
    let warnings = checked.warnings(&Host::default());
    for warning in &warnings {
        check_line(text, warning.line);
        assert_harmless(&warning.render("warning", FILE));
    }
    compiles(settings);
    let written = write::settings(settings);
    let again = match config::parse(&written, FILE) {
        Ok(again) => again,
        Err(problems) => panic!("{problems}\nin\n{written}\nwritten for\n{text}"),
    };
    assert_eq!(again.settings, *settings, "{written}");
}

/// Checks that there is at least one problem, each with a line that exists, and that the text moves no cursor.
fn check_problems(text: &str, problems: &Problems) {
    assert!(
        !problems.list.is_empty(),
        "refused without a reason: {text:?}"
    );
    for problem in &problems.list {
        check_line(text, problem.line);
    }
    let text_of_all = problems.to_string();
    assert_harmless(&text_of_all);
    let mut lines = text_of_all.lines();
    assert!(lines.all(|line| line.starts_with(FILE)), "{text_of_all}");
}

fn check_line(text: &str, line: Option<usize>) {
    // An error at the end is one of the line that would come next.
    let lines = text.split('\n').count();
    assert!(
        line.is_none_or(|line| (1..=lines).contains(&line)),
        "line {line:?} of {lines}: {text:?}"
    );
}

/// Checks that it compiles. Only decoys can fail to find room later, since they depend on the host.
fn compiles(settings: &Settings) {
    let tables = compile(
        settings,
        &mut Input {
            host: &Host::default(),
            cell_key: [1; 12],
            known: &StableIds::default(),
            draw: &mut || 7,
            sequences: &Sequences::new(),
            before: None,
        },
    );
    if let Err(conflicts) = tables {
        let are_decoys = conflicts.iter().all(|conflict| conflict.key == "decoys");
        assert!(are_decoys, "{conflicts:?}");
    }
}
