//! Attaches the program to the interfaces of a configuration, and undoes that.

use anyhow::{Result, bail};

use super::{
    change::Change,
    find_interfaces::{Admitted, FoundInterfaces},
};
use crate::{
    host::interface::{self, Interface},
    interfaces::{
        admission::{Refusal, Ways},
        attach::{self, Attached},
    },
    kernel::{entry::Entry, instance::Instance, pins, program::XdpProgram},
    model::settings::Mode,
};

impl Change<'_> {
    /// Attaches to all interfaces: first to those where the kernel may refuse, then to those where
    /// the program replaces another. `attached` and `found` are also updated on failure.
    pub(super) fn attach(
        &self,
        program: &mut XdpProgram,
        found: &mut FoundInterfaces,
        all: &[Interface],
        attached: &mut Vec<Attached>,
    ) -> Result<()> {
        // An interface whose name another one has taken stays protected until the change is
        // committed.
        pins::step_aside(self.instance, all)?;
        let links = pins::links(self.instance)?;
        let is_ours = |one: &&Admitted| pins::is_ours(&links, &one.interface);
        for one in found.admitted.iter().filter(|one| !is_ours(one)) {
            let name = &one.name;
            match program.attach(name, &one.interface, &one.ways, self.instance) {
                Ok((new, None)) => attached.push(new),
                Ok((_, Some(_))) => bail!(
                    "{} has disappeared meanwhile, so the link can't be pinned",
                    self.instance.links().display()
                ),
                Err(error) => match error.downcast::<Refusal>() {
                    Ok(refusal) if self.may_be_refused(name) => {
                        found.refused.push((name.clone(), refusal));
                    }
                    Ok(refusal) => return Err(refusal.into()),
                    Err(error) => return Err(error),
                },
            }
        }
        let mut misplaced = Vec::new();
        for link in &links {
            // This includes renamed interfaces whose new name is not configured.
            if let Some(interface) = all.iter().find(|interface| link.holds(interface)) {
                let is_refused =
                    |(_, refusal): &(String, Refusal)| refusal.interface() == interface.name;
                if found.refused.iter().any(is_refused) {
                    pins::unlink(&self.instance.link(&link.name))?;
                    continue;
                }
                let current = link.mode(interface);
                let ways = Ways::of(interface, self.attach_options.mode);
                let is_misplaced =
                    attach::is_misplaced(current, interface, &ways, self.mode_before());
                // No program reads the packets of an interface whose link-layer type has changed in
                // this mode.
                let is_read = Entry::of(current, interface.first_header()).is_some();
                if is_read {
                    let mut replaced =
                        program.replace(&link.name, interface, current, self.instance)?;
                    if self.chooses_anew() {
                        let is_it = |one: &&Admitted| one.interface.index == interface.index;
                        let admitted = found.admitted.iter().find(is_it);
                        replaced.because = admitted.and_then(|one| one.ways.reason(current));
                    }
                    if !self.interfaces.contains(&link.name) {
                        continue;
                    }
                    found.absent.retain(|name| *name != link.name);
                    attached.push(replaced);
                }
                if is_misplaced {
                    misplaced.push((link.name.clone(), interface, current, ways));
                }
            }
        }
        // A link ends when its last descriptor is closed.
        drop(links);
        // Steps that are not atomic come last.
        for (name, interface, current, ways) in misplaced {
            let changed = program.change_mode(&name, interface, current, &ways, self.instance)?;
            if let Some(changed) = changed {
                attached.retain(|replaced| replaced.interface != name);
                attached.push(changed);
            }
        }
        Ok(())
    }

    /// Returns whether `auto` decides about interfaces that have a program, since the previous configuration named a
    /// mode.
    fn chooses_anew(&self) -> bool {
        self.attach_options.mode == Mode::Auto
            && self
                .mode_before()
                .is_some_and(|before| before != Mode::Auto)
    }

    /// Returns the numbers of the interfaces that a program of this instance is attached to.
    pub(super) fn indices(&self, all: &[Interface]) -> Result<Vec<u32>> {
        let links = pins::links(self.instance)?;
        Ok(all
            .iter()
            .filter(|interface| pins::is_ours(&links, interface))
            .map(|interface| interface.index)
            .collect())
    }

    /// Undoes [`Change::attach`].
    pub(super) fn undo_attach(
        &self,
        program: &mut XdpProgram,
        attached: &[Attached],
    ) -> Result<()> {
        for new in attached.iter().filter(|attached| !attached.replaced) {
            pins::unlink(&self.instance.link(&new.interface))?;
        }
        if self.instance.linked().is_empty() || !self.instance.has_program() {
            return Ok(());
        }
        attach::restore(self.instance)?;
        move_back(program, attached, self.instance)
    }
}

/// Switches the pinned program back to the attach modes that were in use before `attached`.
///
/// # Errors
/// The kernel refuses.
pub(super) fn move_back(
    program: &mut XdpProgram,
    attached: &[Attached],
    instance: &Instance,
) -> Result<()> {
    let changed = attached.iter().filter_map(|attached| {
        let before = attached.before?;
        Some((&attached.interface, before))
    });
    for (name, before) in changed {
        // A link that is held here would not end.
        let links = pins::links(instance)?;
        let all = interface::list()?;
        let on = links.iter().filter(|link| link.name == *name);
        let on = on.flat_map(|link| all.iter().find(|one| link.holds(one)).zip(Some(link)));
        let Some((interface, current)) = on.map(|(on, link)| (on, link.mode(on))).next() else {
            continue;
        };
        drop(links);
        let ways = Ways::of(interface, before.setting());
        program.change_mode_back(name, interface, current, &ways, instance)?;
    }
    Ok(())
}
