//! Gives and ends grants outside the kernel side: those by hand, and those of other hosts.

use std::io::Write;

use anyhow::{Context as _, Result};
use knock_common::{Address, grant::Grant};

use super::state::Daemon;
use crate::{
    host::clock,
    kernel::maps::Plain,
    ledger::{By, Revocation},
};

impl<W: Write> Daemon<W> {
    /// Gives a source the grant of a door, unless it has a longer one, and reports it as if it had knocked.
    ///
    /// # Errors
    /// There is no room, or the maps can't be written.
    pub(crate) fn let_in(&mut self, source: Address, grant: Grant, by: By) -> Result<()> {
        let now_ms = clock::boot_ms();
        let keys = self.ledger.entries_of(source, grant.door);
        let covered = keys.iter().map(|key| key.source);
        self.protection.program().mark_present(covered)?;
        for key in keys {
            self.give_by_hand(key, grant)?;
        }
        let actions = self.ledger.granted(source, grant, by, now_ms);
        self.act(&actions, now_ms.saturating_mul(1_000_000));
        Ok(())
    }

    /// Ends the grants that cover a source, of the door with a number or of all; returns what was ended.
    ///
    /// # Errors
    /// The map of grants can't be read or written.
    pub(crate) fn shut_out(
        &mut self,
        source: Address,
        door: Option<u16>,
        by: By,
    ) -> Result<Revocation> {
        let entries = self.protection.program().grants()?;
        let now_ms = clock::boot_ms();
        let revocation = self.ledger.revoke(source, door, &entries, now_ms);
        let mut allow = self.protection.program().allow()?;
        for &(key, grant) in &revocation.write {
            let written = allow.insert(Plain(key), Plain(grant.to_word()), 0);
            written.context("ending a grant")?;
        }
        let actions = self
            .ledger
            .revoked(source, &revocation, by, clock::boot_ms());
        self.act(&actions, clock::boot_ns());
        Ok(revocation)
    }
}
