//! Attaches the program to the interfaces of a configuration, and undoes that.

use anyhow::{Result, bail};

use super::{change::Change, find_interfaces::FoundInterfaces};
use crate::{
    host::interface::{self, Interface},
    interfaces::{
        admission::Refusal,
        attach::{self, Attached},
    },
    kernel::{
        instance::Instance,
        pins,
        program::{self, XdpProgram},
    },
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
        let is_ours = |(_, interface): &&(String, Interface)| pins::is_ours(&links, interface);
        for (name, interface) in found.admitted.iter().filter(|one| !is_ours(one)) {
            match program.attach(name, interface, self.attach_options.mode, self.instance) {
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
                let replaced = program.replace(&link.name, interface, self.instance)?;
                if self.interfaces.contains(&link.name) {
                    found.absent.retain(|name| *name != link.name);
                    attached.push(replaced);
                    if attach::is_misplaced(interface, self.attach_options.mode, self.mode_before())
                    {
                        misplaced.push((link.name.clone(), interface));
                    }
                }
            }
        }
        // A link ends when its last descriptor is closed.
        drop(links);
        // Steps that are not atomic come last.
        for (name, interface) in misplaced {
            let switched =
                program.switch(&name, interface, self.attach_options.mode, self.instance)?;
            attached.retain(|replaced| replaced.interface != name);
            attached.push(switched);
        }
        Ok(())
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
        if self.instance.linked().is_empty() || !self.instance.program().exists() {
            return Ok(());
        }
        program::restore(self.instance)?;
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
    let switched: Vec<_> = attached
        .iter()
        .filter(|attached| attached.switched)
        .collect();
    if switched.is_empty() {
        return Ok(());
    }
    let all = interface::list()?;
    for switched in switched {
        let mode = match switched.native {
            true => Mode::Skb,
            false => Mode::Native,
        };
        if let Some(interface) = interface::named(&switched.interface, &all) {
            program.switch_back(&switched.interface, interface, mode, instance)?;
        }
    }
    Ok(())
}
