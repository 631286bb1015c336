//! The command line.

use std::{path::PathBuf, time::Duration};

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

use crate::{
    config::{checked::Mode, value},
    control::client::Ask,
    generate,
};

/// Makes chosen ports invisible until the right source has knocked.
///
/// Without a subcommand it protects the interfaces until it is stopped, with events on the console.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "knock-user",
    version,
    args_conflicts_with_subcommands = true,
    after_help = "Exit codes: 0 done, 1 could not, 2 bad usage or bad configuration.\n\n\
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
    /// An interface to protect; several share all knocks and grants. Default: `interfaces` in the
    /// configuration.
    #[arg(long = "iface", value_name = "IF")]
    pub interfaces: Vec<String>,
    /// The configuration.
    #[arg(long, value_name = "FILE", default_value = "/etc/knock/seq.toml")]
    pub config: PathBuf,
    /// How to attach: in the driver, behind it, or whichever works. Default: `mode` in the
    /// configuration.
    #[arg(long, value_name = "MODE")]
    pub mode: Option<Mode>,
    /// Judge, count and tell, but drop nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Undo everything after this time, such as 60s, unless `knock-user confirm` comes: for work on
    /// a machine that is far away.
    #[arg(long, value_name = "TIME", value_parser = value::duration)]
    pub confirm: Option<Duration>,
    /// What becomes of the protection when this process ends.
    #[arg(long, value_name = "WHAT", default_value = "detach")]
    pub on_exit: OnExit,
    /// Wait for interfaces that are not there yet: they are protected as soon as they appear.
    #[arg(long)]
    pub wait_for_interfaces: bool,
    /// Events as one JSON object a line.
    #[arg(long)]
    pub json: bool,
    /// How events are written.
    #[arg(
        long,
        value_name = "FORMAT",
        default_value = "text",
        conflicts_with = "json"
    )]
    pub log_format: LogFormat,
    /// Tell more on standard error: -v what the program in the kernel decides about knocks and
    /// protected ports, -vv about every packet.
    #[arg(short, long, action = ArgAction::Count)]
    pub verbose: u8,
}

/// What to do, if not to protect.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Tell all errors and warnings of a configuration, and what it would protect.
    Check {
        /// The configuration.
        #[arg(long, value_name = "FILE", default_value = "/etc/knock/seq.toml")]
        config: PathBuf,
    },
    /// Print a door with knocks that are drawn at random.
    Generate(generate::Options),
    /// Print a configuration made of knockd's, and tell what is not as it was.
    ImportKnockd {
        /// knockd's configuration, such as /etc/knockd.conf.
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

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
