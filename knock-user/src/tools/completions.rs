//! `knock-user completions`: what a shell completes. The shell asks this program, which knows the names of doors.

use std::{
    fs,
    io::{Read as _, Write},
    path::Path,
};

use anyhow::{Context as _, Result};
use clap::{Args, Command, ValueEnum};
use clap_complete::{ArgValueCandidates, CompleteEnv, CompletionCandidate, env::Shells};

use crate::{apply::options::CONFIG, config, host::files};

/// The environment variable with which a shell asks.
const VARIABLE: &str = "KNOCK_USER_COMPLETE";
/// The name of the program.
const NAME: &str = "knock-user";
/// How many octets of a configuration are read; a longer one completes nothing.
const LENGTH_MAX: u64 = 4 << 20;
/// Where the kernel lists interfaces.
const INTERFACES: &str = "/sys/class/net";

/// Which script to print.
#[derive(Args, Clone, Debug)]
pub struct CompletionOptions {
    /// Print the script for this shell
    #[arg(value_name = "SHELL")]
    pub shell: CompletionShell,
}

/// The shells.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum CompletionShell {
    /// bash.
    Bash,
    /// zsh.
    Zsh,
    /// fish.
    Fish,
}

impl CompletionShell {
    const fn name(self) -> &'static str {
        match self {
            Self::Bash => "bash",
            Self::Zsh => "zsh",
            Self::Fish => "fish",
        }
    }
}

/// Prints the script.
///
/// # Errors
/// It can't be written.
pub fn run(options: &CompletionOptions, out: &mut impl Write) -> Result<()> {
    let shells = Shells::builtins();
    let Some(shell) = shells.completer(options.shell.name()) else {
        return Ok(());
    };
    shell
        .write_registration(VARIABLE, NAME, NAME, NAME, out)
        .context("writing the completions")
}

/// Answers a shell that asks, and ends the program; otherwise returns. Nothing may be printed before.
///
/// `command` makes the command line.
pub fn answer(command: impl Fn() -> Command) {
    CompleteEnv::with_factory(|| completing(command()))
        .var(VARIABLE)
        .complete();
}

/// Adds the names of doors and interfaces to a command line, wherever an argument takes one.
fn completing(command: Command) -> Command {
    // `mut_arg` would change the order of positional arguments.
    let with_names = |command: Command| {
        command.mut_args(|argument| match argument.get_id().as_str() {
            "door" => argument.add(ArgValueCandidates::new(doors)),
            "interface" | "interfaces" => argument.add(ArgValueCandidates::new(interfaces)),
            _ => argument,
        })
    };
    with_names(command).mut_subcommands(with_names)
}

/// Returns the names of the doors in the default configuration and the files that it includes; none if this user may
/// not read it.
fn doors() -> Vec<CompletionCandidate> {
    let mut text = String::new();
    let file = files::open_regular(Path::new(CONFIG), "it is not a regular file");
    let read = file.and_then(|file| file.take(LENGTH_MAX).read_to_string(&mut text));
    if read.is_err() {
        return Vec::new();
    }
    config::with_included(Path::new(CONFIG), &text)
        .iter()
        .flat_map(|text| doors_in(text))
        .map(CompletionCandidate::new)
        .collect()
}

fn doors_in(text: &str) -> Vec<String> {
    let table: toml::Table = text.parse().unwrap_or_default();
    let doors = table.get("door").and_then(toml::Value::as_array);
    let names = doors
        .into_iter()
        .flatten()
        .filter_map(|door| door.get("name"));
    names
        .filter_map(|name| name.as_str().map(str::to_owned))
        .collect()
}

fn interfaces() -> Vec<CompletionCandidate> {
    let entries = fs::read_dir(INTERFACES).into_iter().flatten();
    let names = entries.filter_map(|entry| Some(entry.ok()?.file_name()));
    names.map(CompletionCandidate::new).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doors_are_named() {
        for (name, text, expected) in [
            ("none", "", &[][..]),
            (
                "two",
                "[[door]]\nname = \"ssh\"\n[[door]]\nname = \"wiki\"\n",
                &["ssh", "wiki"],
            ),
            (
                "no name",
                "[[door]]\n[[door]]\nname = \"wiki\"\n",
                &["wiki"],
            ),
            ("no TOML", "[[door\n", &[]),
        ] {
            assert_eq!(doors_in(text), expected, "{name}");
        }
    }
}
