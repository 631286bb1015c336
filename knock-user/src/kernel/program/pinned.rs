//! Programs that are pinned, and how a link gets another program.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail};
use aya::programs::{
    Program, SchedClassifier, Xdp, links::FdLink, tc::SchedClassifierLink, xdp::XdpLink,
};
use aya_obj::programs::XdpAttachType;

use crate::kernel::{entry::Entry, instance::Instance};

/// Programs that can be attached.
pub trait Programs {
    /// Returns whether there is such a program.
    fn has(&self, entry: Entry) -> bool;

    /// Returns a loaded program.
    ///
    /// # Errors
    /// There is none, or it can't be loaded or opened.
    fn entry(&mut self, entry: Entry) -> Result<&mut Program>;
}

/// The pinned programs of an instance.
#[derive(Debug)]
pub struct PinnedPrograms<'a> {
    instance: &'a Instance,
    /// Whether these are the programs of a configuration that is not committed yet.
    are_next: bool,
    opened: BTreeMap<Entry, Program>,
}

impl<'a> PinnedPrograms<'a> {
    /// Returns the programs of the last committed configuration.
    pub const fn committed(instance: &'a Instance) -> Self {
        Self {
            instance,
            are_next: false,
            opened: BTreeMap::new(),
        }
    }

    /// Returns the programs of a configuration that is not committed yet.
    pub const fn next(instance: &'a Instance) -> Self {
        Self {
            instance,
            are_next: true,
            opened: BTreeMap::new(),
        }
    }

    fn path(&self, entry: Entry) -> std::path::PathBuf {
        match self.are_next {
            true => self.instance.next_program(entry),
            false => self.instance.program(entry),
        }
    }
}

impl Programs for PinnedPrograms<'_> {
    fn has(&self, entry: Entry) -> bool {
        self.path(entry).exists()
    }

    fn entry(&mut self, entry: Entry) -> Result<&mut Program> {
        let path = self.path(entry);
        let opening = || format!("opening the program {}", path.display());
        Ok(match self.opened.entry(entry) {
            std::collections::btree_map::Entry::Occupied(opened) => opened.into_mut(),
            std::collections::btree_map::Entry::Vacant(free) => free.insert(match entry {
                Entry::Xdp | Entry::XdpIp => Program::Xdp(
                    Xdp::from_pin(&path, XdpAttachType::Interface).with_context(opening)?,
                ),
                Entry::Tc | Entry::TcIp => Program::SchedClassifier(
                    SchedClassifier::from_pin(&path).with_context(opening)?,
                ),
            }),
        })
    }
}

/// Switches a link to another program in one step. The pin keeps the link, not this process.
///
/// # Errors
/// The program can't be attached where the link is, or the kernel refuses.
pub fn give(program: &mut Program, link: FdLink) -> Result<()> {
    if let Program::Xdp(program) = program {
        give_xdp(program, link)
    } else if let Program::SchedClassifier(program) = program {
        let link = program.attach_to_link(SchedClassifierLink::try_from(link)?)?;
        drop(program.take_link(link)?);
        Ok(())
    } else {
        bail!("the program belongs neither to XDP nor to traffic control")
    }
}

/// Switches a link to another XDP program, as [`give`].
pub(super) fn give_xdp(program: &mut Xdp, link: FdLink) -> Result<()> {
    let link = program.attach_to_link(XdpLink::try_from(link)?)?;
    drop(program.take_link(link)?);
    Ok(())
}
