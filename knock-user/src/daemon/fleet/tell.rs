//! What happens here, for the other hosts of the group.

use std::{io::Write, mem};

use anyhow::{Result, bail};
use knock_common::Address;

use super::{
    super::state::Daemon,
    link::{Noted, now},
};
use crate::{host::random, model::prefix::Prefix};

impl<W: Write> Daemon<W> {
    /// Takes a grant over that was there before this process, or before the group.
    pub(in crate::daemon) fn adopt_for_group(&mut self, source: Address, door: u16, until_ms: u64) {
        let Some((door, source)) = self.shared_door(source, door) else {
            return;
        };
        if let Some(fleet) = &mut self.fleet {
            let nothing_yet = fleet.exchange.act(|group| {
                group.adopt(&door, source, until_ms, now());
                Vec::new()
            });
            debug_assert!(nothing_yet.is_empty(), "it comes with the list");
        }
    }

    /// Passes on to the group what packets to this host opened and closed since the last call.
    pub(in crate::daemon) fn tell_group(&mut self) {
        let noted = match &mut self.fleet {
            Some(fleet) => mem::take(&mut fleet.noted),
            None => return,
        };
        for noted in noted {
            match noted {
                Noted::Opened {
                    source,
                    door,
                    until_ms,
                } => self.share_grant(source, door, until_ms, None),
                Noted::Closed { source, door } => self.share_end(source, door),
            }
        }
    }

    fn share_end(&mut self, source: Address, door: u16) {
        let Some((door, source)) = self.shared_door(source, door) else {
            return;
        };
        if let Err(error) = self.revoke_in_group(Some(&door), source, None) {
            tracing::warn!("{source} keeps {door} at the other hosts of the group: {error:#}");
        }
    }

    /// Passes on to the group a grant of a door with this number, if the group opens it; `by` is the user who gave it
    /// by hand.
    pub(crate) fn share_grant(
        &mut self,
        source: Address,
        door: u16,
        until_ms: u64,
        by: Option<u32>,
    ) {
        // What this host knew when the packet came counts, not what it knows now.
        let given_ms = self.ledger.given_ms(source, door);
        let Some((door, source)) = self.shared_door(source, door) else {
            return;
        };
        let now = now();
        let given_ms = given_ms.unwrap_or(now.boot_ms).min(now.boot_ms);
        let Some(fleet) = &mut self.fleet else {
            return;
        };
        let steps =
            (fleet.exchange).act(|group| group.given(&door, source, given_ms, until_ms, by, now));
        self.take_steps(steps);
    }

    /// Ends the grants of a source in the whole group, for a door or for all; returns the id of the revocation.
    ///
    /// # Errors
    /// This host is in no group, or the kernel gives no random numbers.
    pub(crate) fn revoke_in_group(
        &mut self,
        door: Option<&str>,
        source: Prefix,
        by: Option<u32>,
    ) -> Result<u64> {
        let [id] = random::key()?;
        let Some(fleet) = &mut self.fleet else {
            bail!("this host is in no group: add [fleet] to its configuration");
        };
        let steps = (fleet.exchange).act(|group| group.revoke(door, source, id, by, now()));
        self.take_steps(steps);
        Ok(id)
    }
}
