//! A line of the console.

use super::record::EventKind;

/// The columns after the time.
#[derive(Clone, Debug)]
pub(super) struct ConsoleLine {
    pub(super) what: EventKind,
    pub(super) source: String,
    pub(super) door: String,
    pub(super) why: String,
}
