//! `completions`: what a shell completes. The shell asks this program, which knows the names of profiles.

use crate::failure::Failure;
use crate::profile;
use clap::{Args, Command, ValueEnum};
use clap_complete::env::Shells;
use clap_complete::{ArgValueCandidates, CompleteEnv, CompletionCandidate};
use std::io::Write;

/// The environment variable with which a shell asks.
const VARIABLE: &str = "KNOCK_CLIENT_COMPLETE";
/// The name of the program.
const NAME: &str = "knock-client";

/// Arguments of `completions`.
#[derive(Args, Debug)]
pub struct Completions {
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

/// Prints the script to `out`.
///
/// # Errors
///
/// `out` can't be written.
pub fn run(args: &Completions, out: &mut impl Write) -> Result<(), Failure> {
    let shells = Shells::builtins();
    let Some(shell) = shells.completer(args.shell.name()) else {
        return Ok(());
    };
    let written = shell.write_registration(VARIABLE, NAME, NAME, NAME, out);
    written.and_then(|()| out.flush()).map_err(Failure::Output)
}

/// Answers a shell that asks, and ends the program; otherwise returns. Nothing may be printed before.
///
/// `command` makes the command line.
pub fn answer(command: impl Fn() -> Command) {
    CompleteEnv::with_factory(|| completing(command()))
        .var(VARIABLE)
        .complete();
}

/// Adds the names of profiles to a command line, wherever an argument takes one.
fn completing(command: Command) -> Command {
    // `mut_arg` would change the order of positional arguments.
    let with_names = |command: Command, named: &'static str| {
        command.mut_args(move |argument| match argument.get_id() == named {
            true => argument.add(ArgValueCandidates::new(profiles)),
            false => argument,
        })
    };
    [("proxy", "host"), ("ssh-config", "name"), ("share", "name")]
        .into_iter()
        .fold(with_names(command, "host"), |command, (name, id)| {
            command.mut_subcommand(name, |subcommand| with_names(subcommand, id))
        })
}

/// Returns the names of profiles in the default file, with their hosts; none if it can't be read.
fn profiles() -> Vec<CompletionCandidate> {
    let path = profile::path(None);
    let found = path.and_then(|path| profile::all(&path, true).ok());
    let candidate = |(name, profile): (String, profile::Profile)| {
        let host = profile.host.unwrap_or_default();
        CompletionCandidate::new(name).help((!host.is_empty()).then(|| host.into()))
    };
    found
        .unwrap_or_default()
        .into_iter()
        .map(candidate)
        .collect()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn every_named_argument_exists() {
        let command = super::completing(crate::cli::Cli::command());
        command.debug_assert();
    }
}
