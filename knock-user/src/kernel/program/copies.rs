//! A second loaded copy of the program, for drivers that lose it.
//!
//! Some drivers make new queues and forget the program, and the core still reports it. A link's update with
//! the program that it has already is a no-op there (`bpf_xdp_link_update()`); with another one it is handed
//! to the driver. Both copies have the same maps, so it does not matter which of them judges a packet.

use std::{mem, thread};

use anyhow::{Context as _, Result};
use aya::programs::Xdp;
use aya_obj::programs::XdpAttachType;
use tokio::sync::oneshot;

use super::{XdpProgram, give, program, rejected};
use crate::{
    host::clock,
    kernel::{
        instance::Instance,
        pins::{self, Pinned},
    },
};

/// How long to wait before loading is tried again, in milliseconds.
const RETRY_MS: u64 = 60_000;

/// The second copy.
#[derive(Debug, Default)]
pub(super) enum Copy {
    /// Nothing was begun yet.
    #[default]
    Absent,
    /// Another thread loads it.
    Loading,
    /// It is there.
    Loaded(Box<Xdp>),
    /// It could not be loaded: what it is loaded from, and when that is tried again.
    Failed(Box<Xdp>, u64),
}

/// The outcome of loading the second copy: the copy, or why it is not loaded.
#[derive(Debug)]
pub struct LoadedCopy {
    copy: Box<Xdp>,
    done: Result<()>,
}

impl XdpProgram {
    /// Begins to load the second copy in another thread, unless that was begun. It takes as long as the first
    /// one took, and some 100 kB. What is returned hands out what [`XdpProgram::take_copy`] takes.
    ///
    /// # Errors
    /// The kernel refuses; the first copy stays what it is.
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
            let loads = copy.load().map_err(rejected);
            // Nobody needs it any more.
            let _given_up = done.send(LoadedCopy { copy, done: loads });
        });
        Ok(Some(loaded))
    }

    /// The program before it was loaded; the loaded one stays in its place.
    fn spare(&mut self, instance: &Instance) -> Result<Box<Xdp>> {
        // aya has one descriptor for a program, and bpffs gives another.
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

    /// Takes the second copy in.
    ///
    /// # Errors
    /// It could not be loaded, which is tried again after a minute.
    pub fn take_copy(&mut self, loaded: LoadedCopy) -> Result<()> {
        // One of a program that was replaced meanwhile is of no use.
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

    /// Whether there is a second copy that a driver can be handed.
    pub const fn has_copy(&self) -> bool {
        matches!(self.copy, Copy::Loaded(_))
    }

    /// Hands the driver below a pinned link the copy of the program that the link does not have, in one step: no
    /// packet goes by in between. Where the driver has not lost the program, that is one pointer. The second copy
    /// must have been loaded.
    ///
    /// # Errors
    /// There is no second copy, or the kernel refuses.
    pub fn rearm(&mut self, pinned: Pinned) -> Result<()> {
        let name = pinned.name;
        let Copy::Loaded(copy) = &mut self.copy else {
            anyhow::bail!(
                "the driver of {name} can't be handed the program again before it is loaded a \
                 second time"
            );
        };
        let own = program(&mut self.ebpf)?;
        let has_own = own.info().is_ok_and(|info| info.id() == pinned.program);
        let other = if has_own { copy } else { own };
        give(other, pinned.link)
            .with_context(|| format!("handing the driver of {name} the program again"))
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
        let mut all = vec![self.program_id()?];
        if let Copy::Loaded(copy) = &self.copy {
            all.push(copy.info()?.id());
        }
        Ok(all)
    }
}
