//! Records why `auto` chose the modes of interfaces.

use std::collections::BTreeMap;

use crate::{interfaces::attach::Attached, kernel::registry::ModeReason};

/// Updates the recorded reasons for modes after the program was attached to an interface. A program that replaces
/// another one keeps its mode, and the reason for it.
pub(super) fn note_reason(chosen: &mut BTreeMap<String, ModeReason>, attached: &Attached) {
    let is_kept = attached.replaced && attached.before.is_none();
    match &attached.because {
        Some(because) => {
            let reason = ModeReason {
                mode: attached.mode.name().to_owned(),
                because: because.clone(),
            };
            chosen.insert(attached.interface.clone(), reason);
        }
        None if is_kept => {}
        None => {
            chosen.remove(&attached.interface);
        }
    }
}
