//! Holds the documentation of knock-client against the program.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails with the test")]

#[path = "../../knock-common/tests/pages/command_lines.rs"]
mod command_lines;
#[path = "../../knock-common/tests/pages/help.rs"]
mod help;
#[path = "../../knock-common/tests/pages/mod.rs"]
mod pages;
#[path = "../../knock-common/tests/pages/words.rs"]
mod words;

use std::fs;

use clap::{Command, CommandFactory as _};
use knock_client::{cli::Cli, profile};

const PAGE: &str = include_str!("../../docs/client.md");

#[test]
fn every_option_is_on_the_page() {
    let command = Cli::command();
    command_lines::check_arguments(&command, PAGE, "## Options");
    let names: Vec<_> = command.get_subcommands().map(Command::get_name).collect();
    assert_eq!(
        names,
        [
            "proxy",
            "keygen",
            "profiles",
            "ssh-config",
            "share",
            "add",
            "completions",
            "import-fwknop"
        ],
        "a new subcommand needs a place on the page"
    );
    let options = |command: &Command| {
        let arguments = command.get_arguments();
        let options = arguments.filter(|arg| !arg.is_positional());
        options.map(|arg| arg.get_id().clone()).collect::<Vec<_>>()
    };
    let proxy = command.find_subcommand("proxy").unwrap();
    // The page names these as the options that proxy lacks.
    let lacks = [
        "then_connect",
        "print",
        "json",
        "keep",
        "open_for",
        "give_up_after",
    ];
    let mut expected = options(&command);
    expected.retain(|id| !lacks.contains(&id.as_str()));
    assert_eq!(options(proxy), expected);
}

#[test]
fn the_program_accepts_its_command_lines() {
    let count = command_lines::check_command_lines(&Cli::command());
    assert!(count > 20, "{count} command lines");
}

#[test]
fn every_help_line_is_short_and_imperative() {
    help::check_help(&Cli::command());
}

#[test]
fn every_key_of_a_profile_is_on_the_page() {
    for (before, heading) in [
        ("[profile.x]\n", "## Profiles"),
        ("[profile.x.otp]\n", "### Time-based sequences"),
    ] {
        let mut found: Vec<_> = pages::rows(PAGE, heading)
            .into_iter()
            .map(|row| row[0].trim_matches('`').to_owned())
            .collect();
        let mut expected = keys(before);
        found.sort();
        expected.sort();
        assert_eq!(found, expected, "{heading}");
    }
}

/// Returns the keys of a section, as the error about an unknown key lists them.
fn keys(before: &str) -> Vec<String> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("config.toml");
    fs::write(&path, format!("{before}zzzzzz = 1")).unwrap();
    let error = profile::find(&path, "x", true).unwrap_err().to_string();
    let (_, known) = error.split_once("the keys here are ").unwrap();
    known.split(", ").map(str::to_owned).collect()
}
