//! What the configuration does not reach on this host. Interfaces and addresses may come after the
//! start, as when the host boots.

use std::{collections::BTreeSet, io::Write};

use anyhow::Result;

use super::Daemon;
use crate::{
    guards,
    host::{self, Link},
};

/// What was seen of the host, and reported.
#[derive(Default)]
pub(super) struct Surroundings {
    links: Vec<Link>,
    told: BTreeSet<String>,
}

impl<W: Write> Daemon<W> {
    /// Warns of what is new since interfaces or addresses have changed, of each thing once.
    pub(super) fn follow_surroundings(&mut self) -> Result<()> {
        let mut links = host::links()?;
        guards::note(&mut links);
        if links == self.surroundings.links {
            return Ok(());
        }
        self.surroundings.links.clone_from(&links);
        let warnings = self.plan.surroundings(links, &self.run);
        for warning in warnings {
            if !self.plan.warnings.contains(&warning)
                && self.surroundings.told.insert(warning.clone())
            {
                tracing::warn!("{warning}");
            }
        }
        Ok(())
    }

    /// The interfaces that are up, have addresses and are not protected at this moment, as a note.
    pub(super) fn unprotected_note(&self) -> Option<String> {
        let mut links = host::links().ok()?;
        guards::note(&mut links);
        self.plan.unprotected(links, &self.run)
    }
}
