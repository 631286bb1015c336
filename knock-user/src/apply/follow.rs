//! Interfaces of an instance that change while a process has it.

use std::{fs, mem, path::Path};

use anyhow::{Context as _, Result};

use super::{Followed, Held, Protection};
use crate::{
    host::{
        interface::{self, Interface},
        os_error,
    },
    interfaces::{
        admission::{self, Refusal},
        attach,
        coverage::{self, Coverage, State},
    },
    kernel::{
        barrier, bpffs,
        pins::{self, Pinned},
    },
};

impl Protection {
    /// Looks at the interfaces: attaches to those that can be taken, and forgets the links of those
    /// that went away; returns what is new. What can't be taken is asked again the next time.
    ///
    /// # Errors
    /// The interfaces can't be listed, or the pins can't be read or written.
    pub fn follow_interfaces(&mut self) -> Result<Followed> {
        let mut followed = Followed::default();
        let pinned = self.pin_again().err().map(|error| os_error::told(&error));
        if pinned != self.unpinned {
            followed.is_pinned_again = pinned.is_none();
            followed.unpinned.clone_from(&pinned);
            self.unpinned = pinned;
        }
        let all = interface::list()?;
        let names = all.iter().map(|one| (one.index, one.name.clone()));
        followed.names = names.collect();
        let wanted = self.registry.interfaces.clone();
        followed.renamed = pins::follow_names(&self.instance, &wanted, &all)?;
        let links = pins::links(&self.instance)?;
        let mut there = Vec::new();
        for name in &wanted {
            if let Some(interface) = interface::named(name, &all) {
                there.push((name, interface));
            } else if let Some(found) = coverage::renamed(name, &wanted, &links, &all) {
                let now = found.name.clone();
                let known = self.renamed.insert(name.clone(), now.clone());
                if known.as_ref() != Some(&now) {
                    followed.renamed.push((name.clone(), now));
                }
            } else {
                let was_there = self.attached.remove(name).is_some();
                self.held.remove(name);
                self.refused.remove(name);
                self.renamed.remove(name);
                if pins::unlink(&self.instance.link(name))? || was_there {
                    followed.gone.push(name.clone());
                }
            }
        }
        let order: Vec<_> = there.iter().map(|(_, interface)| *interface).collect();
        let order = admission::in_order(order, &all);
        for interface in order {
            if let Some((name, _)) = there.iter().find(|(_, one)| one.index == interface.index) {
                let done = self.follow(name, interface, &all, &links, &mut followed);
                if let Err(error) = done {
                    followed.failures.push(os_error::told(&error));
                }
            }
        }
        self.attached.retain(|name, _| wanted.contains(name));
        self.refused.retain(|name, _| wanted.contains(name));
        self.follow_attachments()?;
        Ok(followed)
    }

    /// Whether everything that is asked for is attached and pinned still, as it was looked at
    /// last. This opens the pins and asks nothing else, so it may be asked each second.
    pub fn is_as_it_was(&self) -> bool {
        // Another program, or one above, may go without a word; what the kernel itself refused is
        // tried again with the next change of an interface, and from time to time.
        let mut refused = self.refused.values();
        let is_final = refused.all(|refusal| matches!(refusal, Refusal::Kernel { .. }));
        let is_whole = self.held.is_empty() && self.unpinned.is_none();
        let Ok(links) = pins::links(&self.instance) else {
            return false;
        };
        let is_pinned = self.attached.iter().all(|(_, index)| {
            let mut indices = links.iter().map(|link| link.index);
            indices.any(|on| on == *index)
        });
        let is_there = |shape: &pins::Shape| self.instance.maps().join(shape.name).exists();
        is_final && is_whole && is_pinned && pins::SHARED.iter().all(is_there)
    }

    /// Does for one interface that is there what [`Protection::follow_interfaces`] does for all.
    fn follow(
        &mut self,
        name: &str,
        interface: &Interface,
        all: &[Interface],
        links: &[Pinned],
        followed: &mut Followed,
    ) -> Result<()> {
        let pinned = links.iter().find(|link| link.holds(interface));
        let is_held = pinned.is_none() && self.holds(name, interface)?;
        // One that had this name, and is still attached under it.
        let mut named = links.iter().filter(|link| link.name == name);
        let old = named.find_map(|link| all.iter().find(|other| link.holds(other)));
        let old = old.filter(|old| old.index != interface.index);
        let old = old.map(|old| old.name.clone());
        let old = old.or(self.renamed.remove(name));
        let refusal = match admission::admit(interface, all, pinned.is_some() || is_held) {
            Ok(()) if pinned.is_some() || is_held => {
                barrier::open(interface, &self.instance)?;
                self.attached.insert(name.to_owned(), interface.index);
                self.refused.remove(name);
                return Ok(());
            }
            Ok(()) => {
                let mode = self.mode;
                let attached = self.firewall.attach(name, interface, mode, &self.instance);
                match attached.map_err(anyhow::Error::downcast::<Refusal>) {
                    Ok((attached, link)) => {
                        barrier::open(interface, &self.instance)?;
                        let index = interface.index;
                        let held = link.map(|link| (name.to_owned(), Held { link, index }));
                        self.held.extend(held);
                        let before = self.attached.insert(name.to_owned(), interface.index);
                        if before == Some(interface.index) {
                            followed.lost.push(name.to_owned());
                        }
                        self.refused.remove(name);
                        followed.attached.push(attached);
                        followed.released.extend(old);
                        return Ok(());
                    }
                    Err(Ok(refusal)) => refusal,
                    Err(Err(error)) => return Err(error),
                }
            }
            Err(refusal) => refusal,
        };
        // What the program can't read it does not judge.
        self.held.remove(name);
        if let Some(pinned) = pinned {
            pins::unlink(&self.instance.link(&pinned.name))?;
        }
        if self.attached.remove(name) == Some(interface.index) {
            followed.lost.push(name.to_owned());
        }
        if self.refused.insert(name.to_owned(), refusal.clone()) != Some(refusal.clone()) {
            followed.refused.push((name.to_owned(), refusal));
        }
        Ok(())
    }

    /// Whether a link that only this process keeps is on an interface. One that is on another is let
    /// go.
    fn holds(&mut self, name: &str, interface: &Interface) -> Result<bool> {
        let Some(held) = self.held.get(name) else {
            return Ok(false);
        };
        let is_on = pins::index(&held.link)? == interface.index
            && match interface.program {
                Some(id) => self.firewall.has_program(id)?,
                None => false,
            };
        if !is_on {
            self.held.remove(name);
        }
        Ok(is_on)
    }

    /// Makes sure that everything is pinned that is to outlive this process: bpffs may have been
    /// unmounted, or somebody removed files.
    ///
    /// # Errors
    /// There is no bpffs, with the cure, or the kernel refuses.
    pub fn pin_again(&mut self) -> Result<()> {
        let instance = &self.instance;
        let directories = [instance.maps(), instance.links()];
        if !directories.iter().all(|directory| bpffs::is_one(directory)) {
            bpffs::ensure(Path::new(bpffs::DIRECTORY))?;
            for directory in directories {
                fs::create_dir_all(&directory)
                    .with_context(|| format!("making {}", directory.display()))?;
            }
        }
        self.firewall.pin_maps(instance)?;
        // What awaits its confirmation is pinned when that comes.
        let is_pinned = instance.program().exists() && instance.ports().exists();
        if self.rollback.is_none() && !is_pinned {
            self.firewall.pin_program(instance)?;
        }
        for (name, Held { link, index }) in mem::take(&mut self.held) {
            if let Some(link) = attach::pin_if_possible(link, &instance.link(&name))? {
                self.held.insert(name, Held { link, index });
            }
        }
        Ok(())
    }

    /// Why nothing can be pinned, if that was so when interfaces were looked at last.
    pub fn unpinned(&self) -> Option<&str> {
        self.unpinned.as_deref()
    }

    /// What is true of the interfaces that are asked for.
    ///
    /// # Errors
    /// The interfaces can't be listed, or the pins can't be read.
    pub fn coverage(&self) -> Result<Vec<Coverage>> {
        let links = pins::links(&self.instance)?;
        let interfaces = interface::list()?;
        let mut all = coverage::among(&self.registry.interfaces, &links, &interfaces);
        for one in &mut all {
            if let Some(held) = self.held.get(&one.name)
                && let Some(on) = interfaces.iter().find(|on| on.index == held.index)
                && let Some(program) = on.program
                && pins::index(&held.link)? == held.index
            {
                one.state = State::Protected {
                    native: on.native,
                    program,
                    is_pinned: false,
                };
            }
            if let State::Protected { native, .. } = one.state
                && let Some(shortfall) = one.index.and_then(|index| self.watchdog.shortfall(index))
            {
                one.state = State::Bypassed { native, shortfall };
            }
            // What only attaching shows.
            if one.state == State::Missing
                && let Some(refusal) = self.refused.get(&one.name)
            {
                one.state = State::Refused(refusal.clone());
            }
        }
        coverage::note_barriers(&self.instance, &mut all, &interfaces);
        Ok(all)
    }
}
