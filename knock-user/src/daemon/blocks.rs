//! Blocks sources by commands, and ends blocks that have expired.

use std::io::Write;

use anyhow::Result;
use knock_common::blocked::Blocked;

use super::state::Daemon;
use crate::{
    host::clock,
    ledger::{BlockChange, Blocks},
    model::settings::Prefix,
};

impl<W: Write> Daemon<W> {
    /// Takes over what was blocked before this process started.
    pub(super) fn adopt_blocks(&mut self) -> Result<()> {
        self.blocks = Blocks::of(self.protection.program().blocks()?);
        Ok(())
    }

    /// Blocks a prefix until a time, in milliseconds since boot, and returns its block.
    ///
    /// # Errors
    /// There is no room, or the map can't be written.
    pub(crate) fn block(&mut self, prefix: Prefix, until_ms: u64, uid: u32) -> Result<Blocked> {
        let change = self.blocks.block(prefix, until_ms, uid);
        self.carry_out(&change)?;
        let block = self.blocks.get(prefix).unwrap_or_default();
        let end_ms = (block.own_until_ms != Blocked::NEVER).then_some(block.own_until_ms);
        self.console.blocked(prefix, end_ms, uid, clock::boot_ns());
        Ok(block)
    }

    /// Ends the block of a prefix; returns whether there was one.
    ///
    /// # Errors
    /// The map can't be written.
    pub(crate) fn unblock(&mut self, prefix: Prefix, uid: u32) -> Result<bool> {
        let change = self.blocks.unblock(prefix);
        let was_blocked = !change.remove.is_empty();
        self.carry_out(&change)?;
        if was_blocked {
            let at_ns = clock::boot_ns();
            self.console.unblocked(prefix, Some(uid), at_ns);
        }
        Ok(was_blocked)
    }

    /// Removes blocks that have expired: the kernel side no longer counts them.
    pub(super) fn end_blocks(&mut self) -> Result<()> {
        let change = self.blocks.expired(clock::boot_ms());
        if change.remove.is_empty() {
            return Ok(());
        }
        self.carry_out(&change)?;
        for prefix in change.remove {
            let at_ns = clock::boot_ns();
            self.console
                .unblocked(Prefix::from_mapped(prefix), None, at_ns);
        }
        Ok(())
    }

    fn carry_out(&mut self, change: &BlockChange) -> Result<()> {
        let program = self.protection.program();
        program.change_blocks(&change.write, &change.remove)?;
        self.blocks.apply(change);
        Ok(())
    }
}
