//! The command line.

use std::{path::PathBuf, time::Duration};

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

use knock_sequence::duration;

use crate::{control::client::Ask, model::settings::Mode, tools::generate};

/// Where the configuration is unless `--config` names another file.
const CONFIG: &str = "/etc/knock/seq.toml";

// Headings of `--help`.
const WHAT: &str = "What to protect";
const CAREFULLY: &str = "Trying it out, and ending";
const REPORTING: &str = "Reporting";

/// The groups of subcommands in `--help`: clap lists them all under one heading.
const GROUPS: [(&str, &[&str]); 4] = [
    (
        "Commands that show",
        &["status", "list", "watch", "explain"],
    ),
    ("Commands about sources", &["grant", "revoke"]),
    (
        "Commands about the protection",
        &["reload", "confirm", "detach"],
    ),
    (
        "Commands about configurations",
        &["check", "generate", "import-knockd"],
    ),
];

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
    /// What to do, if not to protect.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// How to protect.
    #[command(flatten)]
    pub run: Run,
}

/// What becomes of the protection when the process ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum OnExit {
    /// It ends: the ports are open to everybody.
    Detach,
    /// It goes on: grants end in time, and the next start takes it over.
    Keep,
}

/// How events are written.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One object a line, as with --json.
    Json,
    /// knockd's lines, for programs that read its log.
    Knockd,
}

/// How to protect.
#[derive(Args, Clone, Debug)]
pub struct Run {
    /// Protect this interface; repeat for more, which share knocks and grants
    /// [default: `interfaces` in the configuration]
    #[arg(short = 'i', long = "iface", value_name = "IF", help_heading = WHAT)]
    pub interfaces: Vec<String>,
    /// Read the configuration from this file
    #[arg(short, long, value_name = "FILE", default_value = CONFIG, help_heading = WHAT)]
    pub config: PathBuf,
    /// Attach in the driver, behind it, or in whichever way works
    /// [default: `mode` in the configuration]
    #[arg(long, value_name = "MODE", help_heading = WHAT)]
    pub mode: Option<Mode>,
    /// Wait for interfaces that do not exist yet, and protect them as they appear
    #[arg(long, help_heading = WHAT)]
    pub wait_for_interfaces: bool,
    /// Judge, count and report, but drop nothing
    #[arg(long, help_heading = CAREFULLY)]
    pub dry_run: bool,
    /// Roll back after TIME (such as 60s) unless `knock-user confirm` is run; use it on remote
    /// machines
    #[arg(long, value_name = "TIME", value_parser = duration::parse, help_heading = CAREFULLY)]
    pub confirm: Option<Duration>,
    /// Choose what happens to the protection when this process ends
    #[arg(long, value_name = "WHAT", default_value = "detach", help_heading = CAREFULLY)]
    pub on_exit: OnExit,
    /// Print each event as a JSON object on a line of its own
    #[arg(long, help_heading = REPORTING)]
    pub json: bool,
    /// Choose how events are written
    #[arg(
        long,
        value_name = "FORMAT",
        default_value = "text",
        conflicts_with = "json",
        help_heading = REPORTING
    )]
    pub log_format: LogFormat,
    /// Log to standard error: -v for knocks and protected ports, -vv for every packet
    #[arg(short, long, action = ArgAction::Count, help_heading = REPORTING)]
    pub verbose: u8,
}

/// What to do, if not to protect.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Validate a configuration and show what it would protect
    Check {
        /// Read the configuration from this file
        #[arg(short, long, value_name = "FILE", default_value = CONFIG)]
        config: PathBuf,
    },
    /// Print a door with random knocks
    Generate(generate::Options),
    /// Convert a knockd configuration; differences go to standard error
    ImportKnockd {
        /// Read knockd's configuration from this file, such as /etc/knockd.conf
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Whatever is asked of a running knock-user.
    #[command(flatten)]
    Ask(Ask),
}

impl Run {
    /// Whether events are objects.
    pub fn is_json(&self) -> bool {
        self.json || self.log_format == LogFormat::Json
    }
}

/// The layout of `--help`, with the subcommands in [`GROUPS`].
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
    let group = |(heading, names): &(&str, &[&str])| {
        let lines: String = names.iter().filter_map(line).collect();
        format!("{heading}:\n{lines}\n")
    };
    let groups: String = GROUPS.iter().map(group).collect();
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
        let mut grouped: Vec<_> = GROUPS
            .iter()
            .flat_map(|(_, names)| *names)
            .copied()
            .collect();
        names.sort_unstable();
        grouped.sort_unstable();
        assert_eq!(grouped, names);
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
