//! Logs commands that failed.

use std::time::Instant;

use super::throttle::Throttle;
use crate::commands::CommandReport;

/// Failed commands of a door that are logged in a second, each in its own line.
pub(super) const FAILED_LOGGED: u32 = 16;

/// Logs the end of a command.
pub(super) fn log_result(failed: &mut Throttle, report: &CommandReport) {
    if report.is_success() {
        tracing::debug!("{report}");
    } else if let Some(line) = failed.note(&report.job.door, report.to_string(), Instant::now()) {
        tracing::warn!("{line}");
    }
}
