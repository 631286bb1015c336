//! Detects drivers that lost the program, and attaches it again.

use std::{future::pending, io::Write};

use anyhow::Result;
use tokio::sync::oneshot;

use super::state::Daemon;
use crate::{
    host::{
        clock,
        link_events::{LinkChange, LinkChangeKind, LinkWatch},
    },
    interfaces::watchdog::resume::Resume,
    kernel::program::LoadedCopy,
};

/// Watches for what can make a driver lose the program; opened before the program is attached.
#[derive(Debug)]
pub struct Watches {
    pub(super) links: LinkWatch,
    pub(super) resume: Resume,
}

impl Watches {
    /// Opens the watches; must be called inside a tokio runtime.
    ///
    /// # Errors
    /// The kernel refuses the socket.
    pub fn open() -> Result<Self> {
        Ok(Self {
            links: LinkWatch::open()?,
            resume: Resume::watch(),
        })
    }
}

/// Waits for the second copy of the program; never returns if none is being loaded.
pub(super) async fn loaded_copy(copy: &mut Option<oneshot::Receiver<LoadedCopy>>) -> LoadedCopy {
    if let Some(loading) = copy
        && let Ok(loaded) = loading.await
    {
        return loaded;
    }
    // The thread ended without a result.
    *copy = None;
    pending().await
}

impl<W: Write> Daemon<W> {
    /// Follows changes of interfaces; first what keeps ports closed.
    pub(super) fn links_changed(&mut self, changes: &[LinkChange]) -> Result<()> {
        self.protection.links_changed(changes, clock::boot_ms());
        let rearmed = self.rearm_due();
        let is_more = |change: &LinkChange| change.kind != LinkChangeKind::Touched;
        if changes.iter().any(is_more) {
            self.follow_interfaces()?;
        }
        rearmed
    }

    /// Hands drivers the program again if the machine was suspended.
    pub(super) fn resumed(&mut self, was_asleep: bool) -> Result<()> {
        if was_asleep {
            self.protection.resumed(clock::boot_ms());
        }
        self.rearm_due()
    }

    pub(super) fn rearm_due(&mut self) -> Result<()> {
        self.protection.rearm_due(clock::boot_ms())
    }

    /// Begins to load the second copy of the program, unless that was begun.
    pub(super) fn begin_copy(&mut self) -> Result<()> {
        if let Some(loading) = self.protection.begin_copy()? {
            self.copy = Some(loading);
        }
        Ok(())
    }

    /// Takes over the second copy, and attaches it where it is already needed.
    pub(super) fn take_copy(&mut self, loaded: LoadedCopy) -> Result<()> {
        self.copy = None;
        self.protection.take_copy(loaded, clock::boot_ms())
    }

    /// Compares the frames that arrived with those that the program saw.
    pub(super) fn watch_frames(&mut self) -> Result<()> {
        self.begin_copy()?;
        let noticed = self.protection.watch_frames(clock::boot_ms())?;
        if noticed.is_empty() {
            return Ok(());
        }
        for noticed in noticed {
            let failure = noticed.failure.as_deref();
            let (interface, finding) = (&noticed.interface, noticed.finding);
            let at_ns = clock::boot_ns();
            self.console
                .frames(&self.ports, interface, finding, failure, at_ns);
            self.report_protecting(noticed.attached.into_iter().collect());
        }
        self.notify_state();
        Ok(())
    }
}
