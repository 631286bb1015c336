//! What the kernel side of a simulated host has recorded as used.

use std::collections::{BTreeMap, BTreeSet};

use knock_user::fleet::{Mark, Use};

/// What a kernel side has recorded as used.
#[derive(Clone, Debug, Default)]
pub(crate) struct Used {
    lines: BTreeMap<String, u32>,
    others: BTreeSet<Use>,
}

impl Used {
    /// Records a use; returns whether it is the first one here.
    pub(crate) fn insert(&mut self, used: &Use) -> bool {
        match used.mark {
            Mark::Line { line, .. } => {
                let highest = self.lines.entry(used.of.clone()).or_default();
                let is_first = line > *highest;
                *highest = line.max(*highest);
                is_first
            }
            Mark::Once { .. } => self.others.insert(used.clone()),
        }
    }
}
