//! What works but is unwise, and what to do about it.

use super::{Checked, Problem};
use crate::host::Host;

/// Everything that is unwise about a configuration on a certain host.
pub(super) fn advise(_checked: &Checked, _host: &Host) -> Vec<Problem> {
    Vec::new()
}
