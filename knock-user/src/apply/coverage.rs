//! Reads what is in force on each interface.

use anyhow::Result;

use super::protection::Protection;
use crate::{
    host::interface,
    interfaces::coverage::{self, Coverage, CoverageState},
    kernel::pins,
};

impl Protection {
    /// Returns the state of each configured interface.
    ///
    /// # Errors
    /// The interfaces can't be listed, or the pins can't be read.
    pub fn coverage(&self) -> Result<Vec<Coverage>> {
        let links = pins::links(&self.instance)?;
        let interfaces = interface::list()?;
        let mut all = coverage::among(&self.registry.interfaces, &links, &interfaces);
        for one in &mut all {
            if let Some(held) = self.held.get(&one.name)
                && let Some(on) = interfaces.iter().find(|on| on.index == held.index)
                && let Some(program) = on.program
                && pins::index(&held.link)? == held.index
            {
                one.state = CoverageState::Protected {
                    native: on.native,
                    program,
                    is_pinned: false,
                };
            }
            if let CoverageState::Protected { native, .. } = one.state
                && let Some(shortfall) = one.index.and_then(|index| self.watchdog.shortfall(index))
            {
                one.state = CoverageState::Bypassed { native, shortfall };
            }
            // Only an attempt to attach shows this refusal.
            if one.state == CoverageState::Missing
                && let Some(refusal) = self.refused.get(&one.name)
            {
                one.state = CoverageState::Refused(refusal.clone());
            }
        }
        coverage::note_barriers(&self.instance, &mut all, &interfaces);
        Ok(all)
    }
}
