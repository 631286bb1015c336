//! Command line options of a start.

use std::{path::PathBuf, time::Duration};

use clap::{ArgAction, Args};
use knock_sequence::duration;

use crate::{
    console::color::ColorChoice,
    kernel::persistence::OnExit,
    model::{log_format::LogFormat, settings::Mode},
};

/// The configuration file unless `--config` names another one.
pub const CONFIG: &str = "/etc/knock/seq.toml";

// Headings of `--help`.
const WHAT: &str = "What to protect";
const CAREFULLY: &str = "Trying it out, and ending";
const REPORTING: &str = "Reporting";

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
    /// Attach in the driver, behind it, at traffic control, or in whichever way works
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
    /// Choose when lines have colors; auto means on a terminal, unless NO_COLOR is set
    #[arg(long, value_name = "WHEN", default_value = "auto", help_heading = REPORTING)]
    pub color: ColorChoice,
    /// Log to standard error: -v for knocks and protected ports, -vv for every packet
    #[arg(short, long, action = ArgAction::Count, help_heading = REPORTING)]
    pub verbose: u8,
}

impl Run {
    /// Returns whether events are printed as JSON.
    pub fn is_json(&self) -> bool {
        self.json || self.log_format == LogFormat::Json
    }
}

/// The way in which a configuration is attached.
#[derive(Clone, Copy, Debug)]
pub struct AttachOptions {
    /// The attach mode of interfaces that have no program of this instance yet.
    pub mode: Mode,
    /// Whether the program judges, counts and reports packets, but drops none.
    pub dry_run: bool,
    /// The aya-log level of the program.
    pub log_level: u8,
    /// Whether to wait for interfaces that do not exist.
    pub may_be_absent: bool,
    /// The end of the trial, in milliseconds since boot; none without a trial.
    pub confirm_by_ms: Option<u64>,
    /// The digest of a text that was not confirmed. A restart does not put it in force.
    pub rejected: Option<u64>,
}
