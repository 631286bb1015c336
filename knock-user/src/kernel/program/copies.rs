//! A second loaded copy of the program, for drivers that lose it.
//!
//! Some drivers lose the program when they make new queues, while the kernel still reports it. Updating
//! a link with the same program does nothing (`bpf_xdp_link_update()`); updating it with another one
//! hands that to the driver. Both copies share their maps, so either may judge a packet.

use std::{mem, thread};

use anyhow::{Context as _, Result};
use aya::programs::Xdp;
use aya_obj::programs::XdpAttachType;
use tokio::sync::oneshot;

use super::{
    XdpProgram,
    copy::{Copy, LoadedCopy},
    entries::load_error,
    pinned::give_xdp,
    program,
};
use crate::{
    host::clock,
    kernel::{
        entry::Entry,
        instance::Instance,
        pins::{self, Pinned},
    },
};

/// The pause before loading is tried again, in milliseconds.
const RETRY_MS: u64 = 60_000;

impl XdpProgram {
    /// Starts to load the second copy in another thread, unless that was started already. It takes
    /// as long as the first one, and about 100 kB. The returned channel yields the argument of
    /// [`XdpProgram::take_copy`].
    ///
    /// # Errors
    /// The kernel refuses; the first copy is not affected.
    pub fn begin_copy(
        &mut self,
        instance: &Instance,
    ) -> Result<Option<oneshot::Receiver<LoadedCopy>>> {
        let spare = match mem::take(&mut self.copy) {
            Copy::Absent => self.spare(instance)?,
            Copy::Failed(spare, at_ms) if at_ms <= clock::boot_ms() => spare,
            begun @ (Copy::Loading | Copy::Loaded(_) | Copy::Failed(..)) => {
                self.copy = begun;
                return Ok(None);
            }
        };
        self.copy = Copy::Loading;
        let (done, loaded) = oneshot::channel();
        let mut copy = spare;
        thread::spawn(move || {
            let loads = copy.load().map_err(load_error);
            // The receiver is gone if the program was replaced.
            let _given_up = done.send(LoadedCopy { copy, done: loads });
        });
        Ok(Some(loaded))
    }

    /// Returns an unloaded program for the second copy; the loaded one stays in its place.
    fn spare(&mut self, instance: &Instance) -> Result<Box<Xdp>> {
        // aya has one descriptor for a program; bpffs gives another one.
        let pin = instance.pins().join("copy");
        pins::unlink(&pin)?;
        let own = program(&mut self.ebpf)?;
        own.pin(&pin)
            .with_context(|| format!("pinning the program {}", pin.display()))?;
        let first = Xdp::from_pin(&pin, XdpAttachType::Interface)
            .with_context(|| format!("opening the program {}", pin.display()));
        pins::unlink(&pin)?;
        let mut spare = mem::replace(program(&mut self.ebpf)?, first?);
        spare
            .unload()
            .context("loading the program a second time")?;
        Ok(Box::new(spare))
    }

    /// Stores the loaded second copy.
    ///
    /// # Errors
    /// Loading failed; it is tried again after a minute.
    pub fn take_copy(&mut self, loaded: LoadedCopy) -> Result<()> {
        // A copy of a program that was replaced meanwhile is of no use.
        if !matches!(self.copy, Copy::Loading) {
            return Ok(());
        }
        let LoadedCopy { copy, done } = loaded;
        self.copy = match done {
            Ok(()) => {
                tracing::debug!("the program is loaded a second time");
                Copy::Loaded(copy)
            }
            Err(_) => Copy::Failed(copy, clock::boot_ms().saturating_add(RETRY_MS)),
        };
        done.context("loading the program a second time, for drivers that lose it")
    }

    /// Returns whether the second copy is loaded.
    pub const fn has_copy(&self) -> bool {
        matches!(self.copy, Copy::Loaded(_))
    }

    /// Hands the driver of a pinned link the copy of the program that the link does not have, in
    /// one step: no packet passes unjudged. Where the driver still has the program, one pointer
    /// changes.
    ///
    /// # Errors
    /// The second copy is not loaded, or the kernel refuses.
    pub fn rearm(&mut self, pinned: Pinned) -> Result<()> {
        let name = pinned.name;
        let Copy::Loaded(copy) = &mut self.copy else {
            anyhow::bail!(
                "the driver of {name} can't be handed the program again before it is loaded a \
                 second time"
            );
        };
        let own = program(&mut self.ebpf)?;
        let has_own = own
            .info()
            .is_ok_and(|info| info.id() == pinned.state.program);
        let other = if has_own { copy } else { own };
        give_xdp(other, pinned.link)
            .with_context(|| format!("handing the driver of {name} the program again"))
    }

    /// Returns whether a program with this id is loaded that is not `entry`.
    ///
    /// # Errors
    /// The kernel does not report the ids.
    pub fn reads_otherwise(&mut self, id: u32, entry: Entry) -> Result<bool> {
        for (loaded, program) in self.loaded() {
            if program.info()?.id() == id {
                return Ok(loaded != entry);
            }
        }
        Ok(entry != Entry::Xdp && self.program_ids()?.contains(&id))
    }

    /// Returns the ids of the loaded programs and copies.
    ///
    /// # Errors
    /// The kernel does not report them.
    pub fn program_ids(&mut self) -> Result<Vec<u32>> {
        let mut all = Vec::new();
        for (_, program) in self.loaded() {
            all.push(program.info()?.id());
        }
        if let Copy::Loaded(copy) = &self.copy {
            all.push(copy.info()?.id());
        }
        Ok(all)
    }
}
