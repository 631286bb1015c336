//! A second loaded copy of the program, for drivers that lose it.
//!
//! Some drivers make their queues anew, forget the program, and nobody tells the core, which goes on reporting
//! it. A link's update with the program that it has already is a no-op there (`bpf_xdp_link_update()`); with
//! another one it is handed to the driver. Both copies have the same maps, so it does not matter which of them
//! judges a packet.

use anyhow::{Context as _, Result};
use aya::programs::Xdp;
use aya_obj::programs::XdpAttachType;

use super::{Firewall, program, rejected};
use crate::{
    attach,
    instance::Instance,
    pins::{self, Pinned},
};

impl Firewall {
    /// Loads the second copy, unless that is done; returns whether it was loaded now. It takes as long as the
    /// first one took, and some 100 kB.
    ///
    /// # Errors
    /// The kernel refuses; the first copy stays what it is.
    pub fn load_copy(&mut self, instance: &Instance) -> Result<bool> {
        if self.copy.is_some() {
            return Ok(false);
        }
        // aya has one descriptor for a program, and bpffs gives another.
        let pin = instance.pins().join("copy");
        pins::unlink(&pin)?;
        let own = program(&mut self.ebpf)?;
        own.pin(&pin)
            .with_context(|| format!("pinning the program {}", pin.display()))?;
        let first = Xdp::from_pin(&pin, XdpAttachType::Interface)
            .with_context(|| format!("opening the program {}", pin.display()));
        pins::unlink(&pin)?;
        self.copy = Some(first?);
        let own = program(&mut self.ebpf)?;
        own.unload().context("loading the program a second time")?;
        own.load().map_err(rejected)?;
        tracing::debug!("the program is loaded a second time");
        Ok(true)
    }

    /// Hands the driver below a pinned link the copy of the program that the link does not have, in one step: no
    /// packet goes by in between. Where the driver has not lost the program, that is one pointer. The second copy
    /// must have been loaded.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn rearm(&mut self, pinned: Pinned) -> Result<()> {
        let own = program(&mut self.ebpf)?;
        let has_own = own.info().is_ok_and(|info| info.id() == pinned.program);
        let other = match &mut self.copy {
            Some(copy) if has_own || own.fd().is_err() => copy,
            Some(_) | None => own,
        };
        attach::give(other, pinned.link)
            .with_context(|| format!("handing the driver of {} the program again", pinned.name))
    }

    /// Whether this is the kernel's number of one of the copies.
    pub fn has_program(&mut self, id: u32) -> Result<bool> {
        Ok(self.program_ids()?.contains(&id))
    }

    /// The kernel's numbers of the loaded copies.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub fn program_ids(&mut self) -> Result<Vec<u32>> {
        let copy = self.copy.as_ref().map(|copy| copy.info()).transpose()?;
        let mut all = vec![self.program_id()?];
        all.extend(copy.map(|copy| copy.id()).filter(|id| !all.contains(id)));
        Ok(all)
    }
}
