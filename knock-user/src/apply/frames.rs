//! What a protected instance does about drivers that lose the program.

use anyhow::{Context as _, Result};
use tokio::sync::oneshot;

use super::Protection;
use crate::{
    host::{
        interface::{self, Interface},
        link_events::{LinkChange, LinkChangeKind},
        os_error,
    },
    interfaces::{
        attach::Attached,
        coverage::State,
        driver,
        watchdog::{Attachment, frames::Finding},
    },
    kernel::{pins, program::LoadedCopy},
    model::settings::Mode,
};

/// What was noticed of the frames of an interface.
#[derive(Debug)]
pub struct Noticed {
    /// The name of the interface.
    pub interface: String,
    /// What was noticed.
    pub finding: Finding,
    /// How the interface was attached again, if it was.
    pub attached: Option<Attached>,
    /// Why nothing could be done, if something was to be.
    pub failure: Option<String>,
}

impl Protection {
    /// Takes in what is attached now.
    ///
    /// # Errors
    /// The kernel does not tell, or the pins can't be read.
    pub fn follow_attachments(&mut self) -> Result<()> {
        let all = interface::list()?;
        let attached = self.coverage()?.into_iter().filter_map(|one| {
            let (State::Protected { .. } | State::Bypassed { .. }) = one.state else {
                return None;
            };
            all.iter()
                .find(|interface| Some(interface.index) == one.index)
        });
        let attachments = attached
            .map(|interface| attachment(interface, &all))
            .collect();
        self.watchdog.follow(attachments);
        Ok(())
    }

    /// Takes in what became of interfaces: each of these changes may have cost a driver the program.
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

    /// The machine was suspended: drivers have made their queues anew.
    pub fn resumed(&mut self, now_ms: u64) {
        self.watchdog.resumed(now_ms);
    }

    /// When a driver is next handed another copy of the program, in milliseconds since boot.
    pub fn rearm_ms(&self) -> Option<u64> {
        // What is due before there is a copy is done as soon as there is.
        self.watchdog.next_ms().filter(|_| self.firewall.has_copy())
    }

    /// Begins to load the second copy of the program in another thread, if a driver may need it and that was
    /// not begun; what is returned hands out what [`Protection::take_copy`] takes.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn begin_copy(&mut self) -> Result<Option<oneshot::Receiver<LoadedCopy>>> {
        // Not when it is needed: ports are open then.
        match self.watchdog.has_native() {
            true => self.firewall.begin_copy(&self.instance),
            false => Ok(None),
        }
    }

    /// Takes the second copy in, and hands it to the drivers that may have lost the program meanwhile.
    ///
    /// # Errors
    /// It could not be loaded, or the kernel refuses.
    pub fn take_copy(&mut self, loaded: LoadedCopy, now_ms: u64) -> Result<()> {
        self.firewall.take_copy(loaded)?;
        // Its number is noted before it may be attached.
        self.registry.programs = self.firewall.program_ids()?;
        self.registry.write(&self.instance.registry())?;
        self.rearm_due(now_ms)
    }

    /// Hands another copy of the program to the drivers that may have lost it.
    ///
    /// # Errors
    /// The kernel refuses; the others were handed theirs.
    pub fn rearm_due(&mut self, now_ms: u64) -> Result<()> {
        let mut done = Ok(());
        if !self.firewall.has_copy() {
            return done;
        }
        for index in self.watchdog.due(now_ms) {
            let rearmed = self.rearm(index, now_ms);
            done = done.and(rearmed);
        }
        done
    }

    /// Hands a driver another copy of the program.
    fn rearm(&mut self, index: u32, now_ms: u64) -> Result<()> {
        if !self.firewall.has_copy() {
            self.watchdog.event(index, now_ms);
            return Ok(());
        }
        self.watchdog.rearmed(index, now_ms);
        let links = pins::links(&self.instance)?;
        // One that is not pinned is told as such.
        let Some(pinned) = links.into_iter().find(|link| link.index == index) else {
            return Ok(());
        };
        tracing::debug!("the driver of {} is handed the program again", pinned.name);
        self.firewall.rearm(pinned)
    }

    /// Compares the frames that arrived with those that the program saw, and does what follows.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub fn watch_frames(&mut self, now_ms: u64) -> Result<Vec<Noticed>> {
        let firewall = &mut self.firewall;
        let received = |index| Ok(interface::received(index)?.unwrap_or_default());
        let findings = self
            .watchdog
            .look(|slot| firewall.take_seen(slot), received, now_ms)?;
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
                failure: failure.map(|error| os_error::told(&error)),
            }
        });
        let noticed: Vec<_> = noticed.collect();
        if noticed.iter().any(|noticed| noticed.attached.is_some()) {
            self.follow_attachments()?;
        }
        Ok(noticed)
    }

    /// The name under which an interface is asked for.
    fn name_of(&self, index: u32) -> String {
        let known = self.attached.iter().find(|(_, on)| **on == index);
        known.map_or_else(|| format!("interface {index}"), |(name, _)| name.clone())
    }

    /// Attaches behind the driver what the driver does not run.
    fn attach_behind_driver(&mut self, index: u32) -> Result<Attached> {
        let name = self.name_of(index);
        let all = interface::list()?;
        let interface = all.iter().find(|interface| interface.index == index);
        let interface = interface.with_context(|| format!("{name} is gone"))?;
        self.firewall
            .switch(&name, interface, Mode::Skb, &self.instance)
    }
}

/// What is watched of an interface.
fn attachment(interface: &Interface, all: &[Interface]) -> Attachment {
    // Bonds hand the program to their ports (bond_xdp_set()), and netvsc to its virtual function
    // (netvsc_vf_setxdp()), and frames have the numbers of those.
    let below = all
        .iter()
        .filter(|below| interface.native && below.master == Some(interface.index));
    Attachment {
        index: interface.index,
        native: interface.native,
        follows_events: interface.native && !driver::resets_for_a_program(interface),
        is_software: interface.kind.is_some(),
        below: below.map(|below| below.index).collect(),
    }
}
