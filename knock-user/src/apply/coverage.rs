//! Reads what is in force on each interface.

use anyhow::Result;

use super::protection::Protection;
use crate::{
    host::interface,
    interfaces::coverage::{self, Coverage, CoverageState},
    kernel::{link_state::LinkState, pins},
};

impl Protection {
    /// Returns the state of each configured interface.
    ///
    /// # Errors
    /// The interfaces can't be listed, or the pins can't be read.
    pub fn coverage(&self) -> Result<Vec<Coverage>> {
        let links = pins::links(&self.instance)?;
        let interfaces = interface::list()?;
        let mut all = coverage::among(&self.registry.interfaces, self.mode, &links, &interfaces);
        for one in &mut all {
            if let Some(held) = self.held.get(&one.name)
                && let Some(on) = interfaces.iter().find(|on| on.index == held.index)
            {
                let link = LinkState::of(&held.link)?;
                if link.holds(on) {
                    let mode = link.mode(on);
                    one.state = match coverage::unreadable(on, Some(mode), &links) {
                        Some(refusal) => CoverageState::Refused(refusal),
                        None => CoverageState::Protected {
                            mode,
                            chosen: None,
                            program: link.program,
                            is_pinned: false,
                            behind: link.before().to_vec(),
                        },
                    };
                }
            }
            if let CoverageState::Protected { mode, .. } = one.state
                && let Some(shortfall) = one.index.and_then(|index| self.watchdog.shortfall(index))
            {
                one.state = CoverageState::Bypassed { mode, shortfall };
            }
            // Only an attempt to attach shows this refusal.
            if one.state == CoverageState::Missing
                && let Some(refusal) = self.refused.get(&one.name)
            {
                one.state = CoverageState::Refused(refusal.clone());
            }
        }
        coverage::note_reasons(&self.registry.chosen, &mut all);
        coverage::note_barriers(&self.instance, &mut all, &interfaces);
        Ok(all)
    }
}
