//! Follows changes of the interfaces of an instance while a process serves it.

use std::{collections::BTreeMap, fs, mem, path::Path};

use anyhow::{Context as _, Result};

use super::protection::{HeldInterface, Protection};
use crate::{
    host::{
        interface::{self, Interface},
        os_error,
    },
    interfaces::{
        admission::{self, Refusal, Ways},
        attach::{self, Attached},
        coverage,
    },
    kernel::{
        barrier, bpffs,
        entry::Entry,
        link_state::LinkState,
        pins::{self, Pinned},
        tcx::Placed,
    },
    model::attach_mode::AttachMode,
};

/// Changes of the interfaces of an instance.
#[derive(Debug, Default)]
pub struct Followed {
    /// Interfaces that were attached to.
    pub attached: Vec<Attached>,
    /// Interfaces that can't be attached to, if that or its reason is new.
    pub refused: Vec<(String, Refusal)>,
    /// Interfaces that lost the program although they existed all the time. Each is also listed as
    /// attached or refused.
    pub lost: Vec<String>,
    /// Interfaces that no longer exist.
    pub gone: Vec<String>,
    /// Interfaces that were released because they are in another network namespace now.
    pub moved: Vec<String>,
    /// Renamed interfaces, with the old and the new name; they stay protected.
    pub renamed: Vec<(String, String)>,
    /// Interfaces that are no longer protected because another interface has taken their old name.
    pub released: Vec<String>,
    /// The reason why nothing can be pinned, if it is new. Attached programs then end with this
    /// process.
    pub unpinned: Option<String>,
    /// Whether everything is pinned again.
    pub is_pinned_again: bool,
    /// Interfaces on which other programs run before ours, with these, if that is new.
    pub behind: Vec<(String, Vec<Placed>)>,
    /// Interfaces on which no other program runs before ours any more.
    pub first_again: Vec<String>,
    /// Other failures, one line each.
    pub failures: Vec<String>,
    /// The names of all interfaces, by interface number.
    pub names: BTreeMap<u32, String>,
}

impl Protection {
    /// Attaches to interfaces that have become available, forgets the links of those that no longer
    /// exist, and returns what is new. Each call tries refused interfaces again.
    ///
    /// # Errors
    /// The interfaces can't be listed, or the pins can't be read or written.
    pub fn follow_interfaces(&mut self) -> Result<Followed> {
        let mut followed = Followed::default();
        let pinned = self
            .pin_again()
            .err()
            .map(|error| os_error::describe(&error));
        if pinned != self.unpinned {
            followed.is_pinned_again = pinned.is_none();
            followed.unpinned.clone_from(&pinned);
            self.unpinned = pinned;
        }
        let all = interface::list()?;
        followed.names = all
            .iter()
            .map(|one| (one.index, one.name.clone()))
            .collect();
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
                let is_elsewhere = self.is_elsewhere(name, &links)?;
                let was_there = self.attached.remove(name).is_some();
                self.held.remove(name);
                self.refused.remove(name);
                self.renamed.remove(name);
                if pins::unlink(&self.instance.link(name))? || was_there {
                    let released = match is_elsewhere {
                        true => &mut followed.moved,
                        false => &mut followed.gone,
                    };
                    released.push(name.clone());
                }
            }
        }
        let interfaces = there.iter().map(|(_, interface)| *interface).collect();
        for interface in admission::in_order(interfaces, &all) {
            if let Some((name, _)) = there.iter().find(|(_, one)| one.index == interface.index) {
                let done = self.follow(name, interface, &all, &links, &mut followed);
                if let Err(error) = done {
                    followed.failures.push(os_error::describe(&error));
                }
            }
        }
        self.follow_order(&links, &all, &mut followed);
        self.attached.retain(|name, _| wanted.contains(name));
        self.refused.retain(|name, _| wanted.contains(name));
        self.follow_attachments()?;
        Ok(followed)
    }

    /// Returns whether every configured interface is still attached and pinned as in the last call
    /// of [`Protection::follow_interfaces`]. This only opens the pins, so it is cheap enough for
    /// every second.
    pub fn is_intact(&self) -> bool {
        // Another XDP program may end without an event. Interfaces that the kernel refused are
        // tried again after the next link event and from time to time.
        let is_final = self
            .refused
            .values()
            .all(|refusal| matches!(refusal, Refusal::Kernel { .. }));
        let is_whole = self.held.is_empty() && self.unpinned.is_none();
        let Ok(links) = pins::links(&self.instance) else {
            return false;
        };
        let is_pinned = self
            .attached
            .values()
            .all(|index| links.iter().any(|link| link.index == *index));
        let is_same = |link: &Pinned| {
            let known = self.behind.get(&link.name);
            known.map_or(&[][..], Vec::as_slice) == link.before()
        };
        let is_ordered = links.iter().all(is_same);
        // Neither does the kernel report a link of an XDP program.
        let at_tc = links.iter().filter(|link| link.is_at_tc());
        let mut at_tc = at_tc.filter(|link| !self.refused.contains_key(&link.name));
        let is_readable = at_tc.all(|link| {
            interface::numbered(link.index).is_ok_and(|found| {
                let ours = Some(AttachMode::Tc);
                found.is_none_or(|found| coverage::unreadable(&found, ours, &links).is_none())
            })
        });
        let mut maps = pins::places(&self.instance, self.program.uses());
        is_final
            && is_whole
            && is_pinned
            && is_ordered
            && is_readable
            && maps.all(|(_, path)| path.exists())
    }

    /// Returns whether an interface that is not here still has the program, in another network namespace. Call it after
    /// the interfaces were listed: the link of a removed one may take until then to end.
    fn is_elsewhere(&self, name: &str, links: &[Pinned]) -> Result<bool> {
        let pinned = links
            .iter()
            .any(|link| link.name == name && link.index != 0);
        let held = self.held.get(name).map(|held| LinkState::of(&held.link));
        let held = held.transpose()?.is_some_and(|held| held.index != 0);
        Ok(pinned || held)
    }

    /// Notes which programs run before ours: the kernel does not report such changes.
    fn follow_order(&mut self, links: &[Pinned], all: &[Interface], followed: &mut Followed) {
        let mut now = BTreeMap::new();
        let ours = links.iter().filter(|link| {
            !link.before().is_empty() && all.iter().any(|interface| link.holds(interface))
        });
        for link in ours {
            let before = link.before().to_vec();
            if self.behind.get(&link.name) != Some(&before) {
                followed.behind.push((link.name.clone(), before.clone()));
            }
            now.insert(link.name.clone(), before);
        }
        let is_first = |name: &&String| {
            !now.contains_key(*name) && links.iter().any(|link| link.name == **name)
        };
        followed.first_again = self.behind.keys().filter(is_first).cloned().collect();
        self.behind = now;
    }

    /// Does the work of [`Protection::follow_interfaces`] for one existing interface.
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
        // The interface that had this name before and still has our link under it.
        let old = links
            .iter()
            .filter(|link| link.name == name)
            .find_map(|link| all.iter().find(|other| link.holds(other)))
            .filter(|old| old.index != interface.index)
            .map(|old| old.name.clone())
            .or(self.renamed.remove(name));
        let held = match (is_held, self.held.get(name)) {
            (true, Some(held)) => Some(LinkState::of(&held.link)?.mode(interface)),
            (true, None) | (false, _) => None,
        };
        let ours = pinned.map(|link| link.mode(interface)).or(held);
        let refusal = match admission::admit(interface, all, self.mode, ours) {
            Ok(ways) if ours.is_some() => {
                if let Some(link) = pinned {
                    self.follow_header(interface, link, &ways)?;
                }
                barrier::open(interface, &self.instance)?;
                self.attached.insert(name.to_owned(), interface.index);
                match coverage::unreadable(interface, ours, links) {
                    // It drops everything, and stays.
                    Some(refusal) => self.note_refused(name, refusal, followed),
                    None => {
                        let was_refused = self.refused.remove(name).is_some();
                        let kept = ours.filter(|_| was_refused);
                        let kept = kept.map(|mode| self.kept(name, interface, mode));
                        followed.attached.extend(kept);
                    }
                }
                return Ok(());
            }
            Ok(ways) => {
                self.load_for(interface, ways.best())?;
                let attached = self.program.attach(name, interface, &ways, &self.instance);
                self.note_programs()?;
                match attached.map_err(anyhow::Error::downcast::<Refusal>) {
                    Ok((attached, link)) => {
                        barrier::open(interface, &self.instance)?;
                        let index = interface.index;
                        self.held.extend(
                            link.map(|link| (name.to_owned(), HeldInterface { link, index })),
                        );
                        let before = self.attached.insert(name.to_owned(), interface.index);
                        if before == Some(interface.index) {
                            followed.lost.push(name.to_owned());
                        }
                        self.refused.remove(name);
                        self.note_chosen(&attached)?;
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
        // The program can't judge frames that it can't read.
        self.held.remove(name);
        if let Some(pinned) = pinned {
            pins::unlink(&self.instance.link(&pinned.name))?;
        }
        if self.attached.remove(name) == Some(interface.index) {
            followed.lost.push(name.to_owned());
        }
        self.note_refused(name, refusal, followed);
        Ok(())
    }

    /// Notes that an interface can't be protected, and reports it if that or its reason is new.
    fn note_refused(&mut self, name: &str, refusal: Refusal, followed: &mut Followed) {
        let before = self.refused.insert(name.to_owned(), refusal.clone());
        if before.as_ref() != Some(&refusal) {
            followed.refused.push((name.to_owned(), refusal));
        }
    }

    /// Describes an interface on which the program has stayed attached.
    fn kept(&self, name: &str, interface: &Interface, mode: AttachMode) -> Attached {
        let recorded = self.registry.chosen.get(name);
        let recorded = recorded.filter(|recorded| recorded.is_for(mode));
        Attached {
            interface: name.to_owned(),
            now: (interface.name != name).then(|| interface.name.clone()),
            mode,
            because: recorded.map(|recorded| recorded.because.clone()),
            replaced: true,
            before: None,
        }
    }

    /// Returns whether a link that only this process keeps is on the interface. Drops the link if
    /// it is on another one.
    fn holds(&mut self, name: &str, interface: &Interface) -> Result<bool> {
        let Some(held) = self.held.get(name) else {
            return Ok(false);
        };
        let is_on = LinkState::of(&held.link)?.holds(interface);
        if !is_on {
            self.held.remove(name);
        }
        Ok(is_on)
    }

    /// Gives an interface whose link-layer type has changed the program that reads its packets.
    fn follow_header(&mut self, interface: &Interface, link: &Pinned, ways: &Ways) -> Result<()> {
        let mode = link.mode(interface);
        match Entry::of(mode, interface.first_header()) {
            Some(entry) if self.program.reads_otherwise(link.program, entry)? => {
                self.load_for(interface, Some(mode))?;
                let instance = &self.instance;
                self.program
                    .replace(&link.name, interface, mode, instance)?;
            }
            Some(_) => {}
            None => {
                self.load_for(interface, ways.best())?;
                self.program
                    .change_mode(&link.name, interface, mode, ways, &self.instance)?;
            }
        }
        self.note_programs()
    }

    /// Loads the program that an interface needs, before it is attached.
    fn load_for(&mut self, interface: &Interface, mode: Option<AttachMode>) -> Result<()> {
        let entry = mode.and_then(|mode| Entry::of(mode, interface.first_header()));
        if let Some(entry) = entry {
            self.program.load_entry(entry)?;
        }
        self.note_programs()
    }

    /// Records and pins programs that were loaded since the last call, so that a later process knows
    /// them.
    fn note_programs(&mut self) -> Result<()> {
        let programs = self.program.program_ids()?;
        if programs == self.registry.programs {
            return Ok(());
        }
        self.registry.programs = programs;
        self.registry.write(&self.instance.registry())?;
        // Without bpffs, they are pinned when it is back.
        if self.unpinned.is_some() {
            return Ok(());
        }
        match self.rollback {
            None => self.program.pin_program(&self.instance),
            Some(_) => self.program.pin_next(&self.instance),
        }
    }

    /// Pins everything again that must outlive this process: bpffs may have been unmounted, or
    /// files removed.
    ///
    /// # Errors
    /// There is no bpffs (the error has the cure), or the kernel refuses.
    pub fn pin_again(&mut self) -> Result<()> {
        let instance = &self.instance;
        let directories = [instance.maps(), instance.links()];
        if !directories.iter().all(|directory| bpffs::is_one(directory)) {
            bpffs::ensure(Path::new(bpffs::DIRECTORY))?;
            for directory in directories {
                fs::create_dir_all(&directory)
                    .with_context(|| format!("creating {}", directory.display()))?;
            }
        }
        self.program.pin_maps(instance)?;
        // A configuration on trial is pinned when it is confirmed.
        let is_pinned = self.program.is_pinned(instance);
        if self.rollback.is_none() && !is_pinned {
            self.program.pin_program(instance)?;
        }
        for (name, HeldInterface { link, index }) in mem::take(&mut self.held) {
            if let Some(link) = attach::pin_if_possible(link, &instance.link(&name))? {
                self.held.insert(name, HeldInterface { link, index });
            }
        }
        Ok(())
    }

    /// Returns the reason why nothing could be pinned at the last look at the interfaces.
    pub fn unpinned(&self) -> Option<&str> {
        self.unpinned.as_deref()
    }
}
