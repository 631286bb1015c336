//! Why a door can't be kept open.

use crate::refused;
use knock_sequence::duration::spell;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Why a door can't be kept open.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// There is nothing to keep open.
    #[error("--close closes the door, so --keep can't keep it open: leave one of them out")]
    Closes,
    /// Lines of a one-time file would be wasted.
    #[error(
        "--keep would use a line of {} every {}, since the door opens for {}: have the host open it for 10m or \
         longer (open_for) and name that time with --open-for, or use --spa",
        file.display(), spell(*every), spell(*open_for)
    )]
    WastesLines {
        /// The file.
        file: PathBuf,
        /// The time between renewals.
        every: Duration,
        /// The time of a grant.
        open_for: Duration,
    },
    /// Renewals would need several sequences in a period.
    #[error(
        "--keep needs a sequence of its own for each renewal, and a period of {} has one, but the door opens for {}: \
         have the host open it for {} or longer (open_for) and name that time with --open-for",
        spell(*period), spell(*open_for), spell(*least)
    )]
    ShorterThanPeriod {
        /// The period.
        period: Duration,
        /// The time of a grant.
        open_for: Duration,
        /// The shortest time that works.
        least: Duration,
    },
    /// The command can't be started.
    #[error(
        "cannot run {program}: {}; check its name and PATH",
        refused::plain(cause)
    )]
    NotRun {
        /// The program.
        program: String,
        /// The system's error.
        cause: io::Error,
    },
    /// Signals can't be received.
    #[error("cannot wait for Ctrl-C: {}; leave --keep out", refused::plain(.0))]
    Signals(io::Error),
    /// Nothing succeeded for too long.
    #[error("gave up after {} without success: {last}", spell(*after))]
    GaveUp {
        /// The time that was allowed.
        after: Duration,
        /// The last reason.
        last: String,
    },
}
