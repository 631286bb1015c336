//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::{
    admin::{self, Subcommands},
    apply::options::{CONFIG, Run},
    tools::{completions, generate, import_fwknop, keygen},
    top,
};

/// Returns the groups of subcommands in `--help`: clap lists them all under one heading.
fn groups() -> impl Iterator<Item = (&'static str, Vec<&'static str>)> {
    let configurations = vec![
        "check",
        "generate",
        "keygen",
        "import-knockd",
        "import-fwknop",
        "completions",
    ];
    let mut groups: Vec<_> = admin::GROUPS
        .iter()
        .map(|(heading, names)| (*heading, names.to_vec()))
        .collect();
    if let Some((_, shown)) = groups.first_mut() {
        shown.push("top");
    }
    groups.push(("Commands about configurations", configurations));
    groups.into_iter()
}

/// Hide ports until the right source has knocked
///
/// Without a command, protect the interfaces until stopped, with events on the console.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "knock-user",
    version,
    args_conflicts_with_subcommands = true,
    help_template = help_template(),
    after_help = "Exit codes: 0 success, 1 failure, 2 usage or configuration error\n\n\
                  Example:\n  sudo knock-user --iface eth0 --config seq.toml"
)]
pub struct Cli {
    /// The subcommand; without one, the program protects.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Options of the protection.
    #[command(flatten)]
    pub run: Run,
}

/// The subcommand; without one, the program protects.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Validate a configuration and show what it would protect
    Check {
        /// Read the configuration from this file
        #[arg(short, long, value_name = "FILE", default_value = CONFIG)]
        config: PathBuf,
    },
    /// Print a door with random knocks
    Generate(generate::GenerateOptions),
    /// Make the host's private key for SPA packets, and print its public key
    Keygen(keygen::KeygenOptions),
    /// Convert a knockd configuration; differences go to standard error
    ImportKnockd {
        /// Read knockd's configuration from this file, such as /etc/knockd.conf
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Convert a configuration of fwknop's server; keys go to files of their own
    ImportFwknop(import_fwknop::ImportOptions),
    /// Print the script with which a shell completes options and the names of doors
    Completions(completions::CompletionOptions),
    /// Follow interfaces, rates, grants, attempts and events on a terminal
    Top(top::TopOptions),
    /// A subcommand for a running knock-user.
    #[command(flatten)]
    Admin(Subcommands),
}

/// Returns the layout of `--help`, with the subcommands in [`groups`].
fn help_template() -> String {
    let commands = <Command as Subcommand>::augment_subcommands(clap::Command::new(""));
    let width = commands
        .get_subcommands()
        .map(|command| command.get_name().len())
        .max()
        .unwrap_or_default();
    let line = |name: &&str| {
        let command = commands.find_subcommand(name)?;
        let about = command.get_about().cloned().unwrap_or_default();
        Some(format!("  {name:width$}  {about}\n"))
    };
    let group = |(heading, names): (&str, Vec<&str>)| {
        let lines: String = names.iter().filter_map(line).collect();
        format!("{heading}:\n{lines}\n")
    };
    let groups: String = groups().map(group).collect();
    format!(
        "{{about-with-newline}}\n{{usage-heading}} {{usage}}\n\n{groups}{{options}}{{after-help}}"
    )
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn every_subcommand_is_in_one_group() {
        let command = Cli::command();
        let mut names: Vec<_> = command
            .get_subcommands()
            .map(|sub| sub.get_name())
            .collect();
        let mut grouped: Vec<_> = groups().flat_map(|(_, names)| names).collect();
        names.sort_unstable();
        grouped.sort_unstable();
        assert_eq!(grouped, names);
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
