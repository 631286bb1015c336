//! How events are written.

use clap::ValueEnum;

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
