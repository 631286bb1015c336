//! Drivers that lose the program: what is noticed of that is told.

use std::io::Write;

use anyhow::Result;

use super::Daemon;
use crate::{
    clock,
    links::{LinkChange, LinkChangeKind},
};

impl<W: Write> Daemon<W> {
    /// Does what changes of interfaces ask for; first what keeps ports closed.
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

    /// Compares the frames that arrived with those that the program saw.
    pub(super) fn watch_frames(&mut self) -> Result<()> {
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
            self.say_protecting(noticed.attached.into_iter().collect());
        }
        self.say_standing();
        Ok(())
    }
}
