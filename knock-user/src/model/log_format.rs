//! The formats of events.

use clap::ValueEnum;

/// The format of events.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum LogFormat {
    /// Text for people.
    Text,
    /// One JSON object a line, as with --json.
    Json,
    /// knockd's lines, for programs that read its log.
    Knockd,
}
