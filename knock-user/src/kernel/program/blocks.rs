//! The sources that commands have blocked, in the maps.

use anyhow::{Context as _, Result, bail};
use aya::maps::{Array, MapError, lpm_trie::Key};
use knock_common::{
    blocked::Blocked,
    layout::BLOCKED_MAX,
    seen::{FramesSeen, SLOTS},
};

use super::XdpProgram;
use crate::{
    kernel::{
        blocks,
        maps::{self, Plain},
    },
    model::prefix::MappedPrefix,
};

impl XdpProgram {
    /// Returns what commands have blocked, expired blocks among them.
    ///
    /// # Errors
    /// The map can't be read.
    pub fn blocks(&self) -> Result<Vec<(MappedPrefix, Blocked)>> {
        blocks::entries(maps::map(&self.ebpf, "BLOCKED")?)
    }

    /// Writes blocks, and then removes others.
    ///
    /// # Errors
    /// There is no room for another prefix, or the map can't be written.
    pub fn change_blocks(
        &mut self,
        write: &[(MappedPrefix, Blocked)],
        remove: &[MappedPrefix],
    ) -> Result<()> {
        let mut trie = blocks::Trie::try_from(maps::map_mut(&mut self.ebpf, "BLOCKED")?)?;
        for &((address, bits), block) in write {
            match trie.insert(&Key::new(bits, Plain(address)), Plain(block), 0) {
                Ok(()) => {}
                Err(MapError::SyscallError(error))
                    if error.io_error.raw_os_error() == Some(nix::libc::ENOSPC) =>
                {
                    bail!(
                        "there is no room for another block: {BLOCKED_MAX} prefixes are blocked; \
                         `knock-user list --blocked` shows them, and `knock-user unblock` ends one"
                    );
                }
                Err(error) => return Err(error).context("writing a block"),
            }
        }
        for &(address, bits) in remove {
            match trie.remove(&Key::new(bits, Plain(address))) {
                Err(MapError::SyscallError(error))
                    if error.io_error.kind() == std::io::ErrorKind::NotFound => {}
                other => other.context("removing a block")?,
            }
        }
        self.follow_blocks()
    }

    /// Makes the program look for blocked sources if there are any. Without them, packets cost nothing more.
    ///
    /// # Errors
    /// The maps can't be read or written.
    pub fn follow_blocks(&mut self) -> Result<()> {
        let has_blocks = !self.blocks()?.is_empty();
        if self.has_blocks == has_blocks {
            return Ok(());
        }
        self.has_blocks = has_blocks;
        let bit = self.seen_bits();
        let map = maps::map_mut(&mut self.ebpf, "FRAMES_SEEN")?;
        let mut slots = Array::<_, Plain<FramesSeen>>::try_from(map)?;
        for slot in 0..SLOTS {
            let Plain(seen) = slots.get(&slot, 0).context("reading the map FRAMES_SEEN")?;
            let arrived = seen.arrived & FramesSeen::ARRIVED | bit;
            slots
                .set(slot, Plain(FramesSeen { arrived, ..seen }), 0)
                .context("writing the map FRAMES_SEEN")?;
        }
        Ok(())
    }

    /// Returns the bits of [`FramesSeen::arrived`] that the program reads.
    pub(super) const fn seen_bits(&self) -> u64 {
        match self.has_blocks {
            true => FramesSeen::BLOCKS,
            false => 0,
        }
    }
}
