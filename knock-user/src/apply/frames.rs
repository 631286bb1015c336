//! Restores programs that drivers have lost, and reports interfaces whose frames bypass
//! the program.

use anyhow::{Context as _, Result};
use tokio::sync::oneshot;

use super::protection::Protection;
use crate::{
    host::{
        interface::{self, FirstHeader, Interface},
        link_events::{LinkChange, LinkChangeKind},
        os_error,
    },
    interfaces::{
        admission::Ways,
        attach::Attached,
        coverage::CoverageState,
        driver,
        watchdog::{Attachment, frames::Finding},
    },
    kernel::{pins, program::LoadedCopy},
    model::{attach_mode::AttachMode, settings::Mode},
};

/// A finding about the frames of an interface.
#[derive(Debug)]
pub struct Noticed {
    /// The name of the interface.
    pub interface: String,
    /// The finding.
    pub finding: Finding,
    /// The new attachment, if the interface was attached again.
    pub attached: Option<Attached>,
    /// The reason why the remedy failed, if it did.
    pub failure: Option<String>,
}

impl Protection {
    /// Passes the attached interfaces to the watchdog.
    ///
    /// # Errors
    /// The interfaces can't be listed, or the pins can't be read.
    pub fn follow_attachments(&mut self) -> Result<()> {
        let all = interface::list()?;
        let attachments = self
            .coverage()?
            .into_iter()
            .filter_map(|one| {
                let (CoverageState::Protected { mode, .. } | CoverageState::Bypassed { mode, .. }) =
                    one.state
                else {
                    return None;
                };
                let mut there = all.iter();
                let there = there.find(|interface| Some(interface.index) == one.index)?;
                Some(attachment(there, mode, &all))
            })
            .collect();
        self.watchdog.follow(attachments);
        Ok(())
    }

    /// Passes link events to the watchdog: each may have made a driver lose the program.
    pub fn links_changed(&mut self, changes: &[LinkChange], now_ms: u64) {
        for change in changes {
            match change.kind {
                LinkChangeKind::Appeared { .. }
                | LinkChangeKind::Changed { .. }
                | LinkChangeKind::Touched => {
                    self.watchdog.event(change.index, now_ms);
                }
                LinkChangeKind::Gone => {}
            }
        }
    }

    /// Notes a resume of the machine, after which drivers have new queues.
    pub fn resumed(&mut self, now_ms: u64) {
        self.watchdog.resumed(now_ms);
    }

    /// Returns when the next driver gets another copy of the program, in milliseconds since boot.
    pub fn rearm_ms(&self) -> Option<u64> {
        // Work that is due earlier is done as soon as the copy is loaded.
        self.watchdog.next_ms().filter(|_| self.program.has_copy())
    }

    /// Starts to load the second copy of the program in another thread, if a driver may need it and
    /// no load was started. The returned channel yields the argument of [`Protection::take_copy`].
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn begin_copy(&mut self) -> Result<Option<oneshot::Receiver<LoadedCopy>>> {
        // Loading on demand would leave ports open in the meantime.
        match self.watchdog.has_native() {
            true => self.program.begin_copy(&self.instance),
            false => Ok(None),
        }
    }

    /// Stores the loaded second copy, and hands it to the drivers that may have lost the program
    /// meanwhile.
    ///
    /// # Errors
    /// It could not be loaded, or the kernel refuses.
    pub fn take_copy(&mut self, loaded: LoadedCopy, now_ms: u64) -> Result<()> {
        self.program.take_copy(loaded)?;
        // The registry has the id before the copy may be attached.
        self.registry.programs = self.program.program_ids()?;
        self.registry.write(&self.instance.registry())?;
        self.rearm_due(now_ms)
    }

    /// Hands another copy of the program to each driver that may have lost it.
    ///
    /// # Errors
    /// The kernel refuses one; all others were handled.
    pub fn rearm_due(&mut self, now_ms: u64) -> Result<()> {
        let mut done = Ok(());
        if !self.program.has_copy() {
            return done;
        }
        for index in self.watchdog.due(now_ms) {
            done = done.and(self.rearm(index, now_ms));
        }
        done
    }

    /// Hands a driver another copy of the program.
    fn rearm(&mut self, index: u32, now_ms: u64) -> Result<()> {
        if !self.program.has_copy() {
            self.watchdog.event(index, now_ms);
            return Ok(());
        }
        self.watchdog.rearmed(index, now_ms);
        let links = pins::links(&self.instance)?;
        // An interface without a pinned link is reported elsewhere.
        let Some(pinned) = links.into_iter().find(|link| link.index == index) else {
            return Ok(());
        };
        tracing::debug!("the driver of {} is handed the program again", pinned.name);
        self.program.rearm(pinned)
    }

    /// Compares the received frames with those that the program saw, and applies the remedies.
    ///
    /// # Errors
    /// The counters can't be read.
    pub fn watch_frames(&mut self, now_ms: u64) -> Result<Vec<Noticed>> {
        let program = &mut self.program;
        let received = |index| Ok(interface::received(index)?.unwrap_or_default());
        let findings = self
            .watchdog
            .look(|slot| program.take_seen(slot), received, now_ms)?;
        let noticed = findings.into_iter().map(|(index, finding)| {
            let (attached, failure) = match finding {
                Finding::Rearm(_) => (None, self.rearm(index, now_ms).err()),
                Finding::Generic(_) => match self.attach_behind_driver(index) {
                    Ok(attached) => (Some(attached), None),
                    Err(error) => (None, Some(error)),
                },
                Finding::Blind(_)
                | Finding::Filtered(_)
                | Finding::Foreign { .. }
                | Finding::Sees => (None, None),
            };
            Noticed {
                interface: self.name_of(index),
                finding,
                attached,
                failure: failure.map(|error| os_error::describe(&error)),
            }
        });
        let noticed: Vec<_> = noticed.collect();
        if noticed.iter().any(|noticed| noticed.attached.is_some()) {
            self.follow_attachments()?;
        }
        Ok(noticed)
    }

    /// Returns the configured name of an attached interface.
    fn name_of(&self, index: u32) -> String {
        self.attached
            .iter()
            .find(|(_, on)| **on == index)
            .map_or_else(|| format!("interface {index}"), |(name, _)| name.clone())
    }

    /// Attaches the program behind a driver that does not run it.
    fn attach_behind_driver(&mut self, index: u32) -> Result<Attached> {
        let name = self.name_of(index);
        let all = interface::list()?;
        let interface = all.iter().find(|interface| interface.index == index);
        let interface = interface.with_context(|| format!("{name} no longer exists"))?;
        let ways = Ways::of(interface, Mode::Skb);
        let current = AttachMode::Native;
        let instance = &self.instance;
        let changed = self
            .program
            .change_mode(&name, interface, current, &ways, instance)?;
        changed.with_context(|| format!("{name} is attached behind its driver already"))
    }
}

/// Returns what the watchdog has to know of an interface.
fn attachment(interface: &Interface, mode: AttachMode, all: &[Interface]) -> Attachment {
    let native = mode == AttachMode::Native;
    // Bonds hand the program to their ports (bond_xdp_set()), and netvsc to its virtual function
    // (netvsc_vf_setxdp()), and frames have the numbers of those.
    let below = all
        .iter()
        .filter(|below| native && below.master == Some(interface.index));
    // Tunnels count packets that end in them, such as keepalives, and what another XDP program drops
    // is counted before it.
    let has_other = mode == AttachMode::Tc && interface.program.is_some();
    let is_ethernet = interface.first_header() == FirstHeader::Ethernet;
    Attachment {
        index: interface.index,
        native,
        follows_events: native && !driver::resets_for_a_program(interface),
        is_software: interface.kind.is_some() && is_ethernet && !has_other,
        below: below.map(|below| below.index).collect(),
    }
}
