//! An instance in the hands of this process: puts configurations in place, one after the other.
//!
//! Start, restart, upgrade and reload are one operation. A program is loaded with maps of its own
//! for everything that a configuration says, and with the pinned maps that all configurations
//! share; then each interface's link is given to the new program in one step. A packet is judged by
//! the old program with the old maps or by the new one with the new maps, never by half of each.

mod change;
mod frames;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, mem,
    path::Path,
    sync::Arc,
};

use anyhow::{Context as _, Result};
use aya::programs::links::FdLink;
use knock_common::{
    Address,
    layout::{Door, FlowKey, SPENT_MAX},
};

use self::change::{Change, Made, remove_all};
pub use self::{
    change::{Preparation, Prepared},
    frames::Noticed,
};
use crate::{
    admission::{self, Refusal},
    attach::{self, Attached},
    bpffs,
    carry::{self, Carried},
    clock,
    compile::Tables,
    config::checked::Mode,
    coverage::{self, Coverage, State},
    firewall::{self, Firewall},
    gate,
    instance::{Instance, Locked},
    interface::{self, Interface},
    maps,
    moving::Kept,
    one_time::Standing,
    pins::{self, Pinned},
    refused,
    registry::Registry,
    replay::Replay,
    start::Plan,
    watchdog::Watchdog,
};

/// How a program is put in place.
#[derive(Clone, Copy, Debug)]
pub struct How {
    /// How it is attached where none of ours is yet.
    pub mode: Mode,
    /// Whether packets are only judged.
    pub dry_run: bool,
    /// The aya-log level of the program.
    pub log_level: u8,
    /// Whether an interface that is not there is waited for.
    pub may_be_absent: bool,
    /// Until when a confirmation is waited for, in milliseconds since boot.
    pub confirm_by_ms: Option<u64>,
}

/// What was put in place.
#[derive(Debug)]
pub struct Put {
    /// The doors by number.
    pub doors: Vec<Door>,
    /// Their names; empty where no door has the number.
    pub names: Vec<String>,
    /// The longest that any attempt lives.
    pub horizon_ticks: u32,
    /// Where, and how.
    pub attached: Vec<Attached>,
    /// Interfaces that are waited for.
    pub absent: Vec<String>,
    /// Interfaces that can't be taken, by the names under which they are asked for: they are tried
    /// again.
    pub refused: Vec<(String, Refusal)>,
    /// Ports that the configuration before protected, and this one does not.
    pub opened: Vec<String>,
    /// Connections to protected ports that were there and not known: they go on if connections are
    /// kept at all.
    pub found: Vec<FlowKey>,
}

/// What ended with the configuration before.
#[derive(Debug, Default)]
pub struct Ended {
    /// Interfaces that are no longer protected.
    pub released: Vec<String>,
    /// Grants of doors that are no more, with the door's name if it is known.
    pub grants: BTreeSet<(Address, Option<String>)>,
}

/// What became of interfaces.
#[derive(Debug, Default)]
pub struct Followed {
    /// Those that were attached to.
    pub attached: Vec<Attached>,
    /// Those that can't be taken, if that is new or for another reason than before.
    pub refused: Vec<(String, Refusal)>,
    /// Those that had lost our program though they were there all the time; they are among those
    /// that were attached to, or that can't be taken.
    pub lost: Vec<String>,
    /// Those that went away.
    pub gone: Vec<String>,
    /// Those that have another name, which is the second one: they stay protected.
    pub renamed: Vec<(String, String)>,
    /// Those that are no longer protected, since another one has their old name.
    pub released: Vec<String>,
    /// Why nothing can be pinned, if that is new: what is attached ends with this process.
    pub unpinned: Option<String>,
    /// Whether everything is pinned again.
    pub is_pinned_again: bool,
    /// What else failed, a line each.
    pub failures: Vec<String>,
    /// The names of all interfaces, by their numbers.
    pub names: BTreeMap<u32, String>,
}

/// A protected instance.
#[derive(Debug)]
pub struct Protection {
    instance: Locked,
    firewall: Firewall,
    registry: Registry,
    kept: Kept,
    replay: Arc<Replay>,
    mode: Mode,
    unsettled: Option<Unsettled>,
    /// Names that interfaces had, and those that they have.
    renamed: BTreeMap<String, String>,
    /// The numbers of the interfaces that are attached, by the names under which they are asked for.
    attached: BTreeMap<String, u32>,
    /// Why those can't be taken that can't, as it was told.
    refused: BTreeMap<String, Refusal>,
    /// Links that can't be pinned because bpffs is gone, by the same names.
    held: BTreeMap<String, Held>,
    /// Why nothing can be pinned, as it was told.
    unpinned: Option<String>,
    /// Whether frames get to the program.
    watchdog: Watchdog,
}

/// A link that only this process keeps.
#[derive(Debug)]
struct Held {
    link: FdLink,
    /// The number of its interface.
    index: u32,
}

/// What is needed to let go of the configuration before, or to go back to it.
#[derive(Debug)]
struct Unsettled {
    tables: Tables,
    interfaces: Vec<String>,
    /// Interfaces that had no program of ours.
    fresh: Vec<String>,
    /// What was moved from the driver to behind it, or the other way.
    switched: Vec<Attached>,
    before: Option<Registry>,
    /// Whether no program of ours was there, or only one that nobody ever confirmed.
    is_first: bool,
}

impl Protection {
    /// Takes an instance over, or begins one, and puts a configuration in place: on all interfaces
    /// or on none.
    ///
    /// # Errors
    /// Whatever stands in the way; everything is then as it was before.
    pub fn begin(
        instance: Locked,
        plan: &Plan,
        interfaces: &[String],
        how: How,
    ) -> Result<(Self, Put)> {
        let before = Registry::read(&instance.registry()).unwrap_or_else(|error| {
            tracing::warn!(
                "{}; grants that were given before end",
                refused::told(&error)
            );
            None
        });
        let is_continued = before.is_some() && instance.maps().join("SPENT").exists();
        let replay = Arc::new(Replay::new(instance.name(), is_continued));
        let change = Change {
            instance: &instance,
            before: before.as_ref(),
            plan,
            interfaces,
            how,
            is_reload: false,
        };
        let Made {
            firewall,
            kept,
            registry,
            put,
            unsettled,
        } = change.make(|| {
            let preparation =
                Preparation::new(&instance, before.as_ref(), how, Arc::clone(&replay), None);
            preparation.make(plan, interfaces, &std::sync::Mutex::new(false))
        })?;
        let refused = put.refused.iter().cloned().collect();
        let protection = Self {
            instance,
            firewall,
            kept,
            replay,
            registry,
            mode: how.mode,
            unsettled: Some(unsettled),
            renamed: BTreeMap::new(),
            attached: BTreeMap::new(),
            refused,
            held: BTreeMap::new(),
            unpinned: None,
            watchdog: Watchdog::default(),
        };
        Ok((protection, put))
    }

    /// What is needed to make another configuration ready for [`Protection::change`]. Nothing else
    /// may be put in place between the two.
    pub fn preparation(&self, how: How) -> Preparation {
        let replay = Arc::clone(&self.replay);
        // Without doors that are time-based nothing was opened that would know.
        let floor = self.kept.is_moving().then(|| self.kept.floor());
        Preparation::new(&self.instance, Some(&self.registry), how, replay, floor).in_place_of_one()
    }

    /// Puts another configuration, which is ready, in place of the one that is there.
    ///
    /// # Errors
    /// As for [`Protection::begin`].
    pub fn change(
        &mut self,
        plan: &Plan,
        interfaces: &[String],
        how: How,
        prepared: Prepared,
    ) -> Result<Put> {
        let change = Change {
            instance: &self.instance,
            before: Some(&self.registry),
            plan,
            interfaces,
            how,
            is_reload: true,
        };
        let Made {
            firewall,
            kept,
            registry,
            put,
            unsettled,
        } = change.make(|| Ok(prepared))?;
        self.refused = put.refused.iter().cloned().collect();
        self.firewall = firewall;
        self.kept = kept;
        self.registry = registry;
        self.mode = how.mode;
        self.unsettled = Some(unsettled);
        Ok(put)
    }

    /// Lets go of the configuration before: there is no way back to it.
    ///
    /// # Errors
    /// The maps, the pins or the registry can't be written.
    pub fn settle(&mut self) -> Result<Ended> {
        let Some(unsettled) = self.unsettled.take() else {
            return Ok(Ended::default());
        };
        let Unsettled {
            tables, interfaces, ..
        } = unsettled;
        let held = self.firewall.grants()?;
        let now_ms = clock::boot_ms();
        let Carried { remove, ended, .. } =
            carry::grants(&held, &self.registry.numbers, &tables, now_ms);
        remove_all(&mut self.firewall, remove)?;
        self.firewall.pin_program(&self.instance)?;
        let mut released = Vec::new();
        for interface in self.instance.linked() {
            if !interfaces.contains(&interface) && pins::unlink(&self.instance.link(&interface))? {
                released.push(interface);
            }
        }
        self.registry.interfaces = interfaces;
        self.registry.numbers = tables.numbers;
        self.registry.confirm_by_ms = None;
        self.registry.write(&self.instance.registry())?;
        Ok(Ended {
            released,
            grants: ended,
        })
    }

    /// Goes back to what was before this process: to the program that was attached then, or to none.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn go_back(mut self) -> Result<()> {
        let Some(unsettled) = self.unsettled.take() else {
            return Ok(());
        };
        if unsettled.is_first {
            return self.instance.remove();
        }
        let program = self.instance.program();
        firewall::put_back(&program, &interface::list()?, &self.instance)?;
        change::move_back(&mut self.firewall, &unsettled.switched, &self.instance)?;
        for interface in unsettled.fresh {
            pins::unlink(&self.instance.link(&interface))?;
        }
        match unsettled.before {
            Some(before) => before.write(&self.instance.registry()),
            None => Ok(()),
        }
    }

    /// Ends the protection; what is returned are the interfaces that were protected.
    ///
    /// # Errors
    /// The pins can't be removed.
    pub fn detach(self) -> Result<Vec<String>> {
        let interfaces = self.instance.linked();
        self.instance.remove()?;
        Ok(interfaces)
    }

    /// Looks at the interfaces: attaches to those that can be taken, and forgets the links of those
    /// that went away; tells what is new. What can't be taken is asked again the next time.
    ///
    /// # Errors
    /// The kernel does not tell, or the pins can't be read or written.
    pub fn follow_interfaces(&mut self) -> Result<Followed> {
        let mut followed = Followed::default();
        let pinned = self.pin_again().err().map(|error| refused::told(&error));
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
                    followed.failures.push(refused::told(&error));
                }
            }
        }
        self.attached.retain(|name, _| wanted.contains(name));
        self.refused.retain(|name, _| wanted.contains(name));
        self.follow_attachments()?;
        Ok(followed)
    }

    /// Whether everything that is asked for is attached and pinned as it was when it was looked at
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
                gate::open(interface, &self.instance)?;
                self.attached.insert(name.to_owned(), interface.index);
                self.refused.remove(name);
                return Ok(());
            }
            Ok(()) => {
                let mode = self.mode;
                let attached = self.firewall.attach(name, interface, mode, &self.instance);
                match attached.map_err(anyhow::Error::downcast::<Refusal>) {
                    Ok((attached, link)) => {
                        gate::open(interface, &self.instance)?;
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
        if self.unsettled.is_none() && !instance.program().exists() {
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
    /// The kernel does not tell, or the pins can't be read.
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
        coverage::note_gates(&self.instance, &mut all, &interfaces);
        Ok(all)
    }

    /// Puts away sequences that were used, and puts in place those that are listened to now.
    ///
    /// # Errors
    /// As for [`Kept::follow`].
    pub fn follow_sequences(&mut self, plan: &Plan) -> Result<()> {
        self.kept.follow(plan, &mut self.firewall)
    }

    /// Listens to changing sequences no more, since nobody will be there to put them away, and writes
    /// down which were used.
    ///
    /// # Errors
    /// As for [`Kept::follow`], or that can't be written: the next start accepts only later ones.
    pub fn withdraw_sequences(&mut self, plan: &Plan) -> Result<()> {
        self.kept.withdraw(plan, &mut self.firewall)?;
        let used = maps::entries(&self.firewall.spent()?, SPENT_MAX);
        self.replay.close(&used, self.kept.floor())
    }

    /// How it is with the files of one-time sequences, by the places of their doors.
    pub fn files(&self) -> BTreeMap<usize, Standing> {
        self.kept.files()
    }

    /// Whether sequences ever change.
    pub fn has_moving_doors(&self) -> bool {
        self.kept.is_moving()
    }

    /// When sequences change by themselves, in milliseconds since boot.
    pub fn sequences_change_ms(&self, now_ms: u64) -> Option<u64> {
        self.kept.changes_ms(now_ms)
    }

    /// The kernel side.
    pub fn firewall(&mut self) -> &mut Firewall {
        &mut self.firewall
    }

    /// What is known about it besides its pins.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Where it lives.
    pub fn instance(&self) -> &Instance {
        &self.instance
    }

    /// Has a program that ends without a confirmation stay in force, or end in time as before: one
    /// without an end takes longer to load than may be left.
    ///
    /// # Errors
    /// The map or the registry can't be written.
    pub fn outlast(&mut self, is_confirmed: bool) -> Result<()> {
        self.firewall.confirm(is_confirmed)?;
        let confirm_by_ms = self.registry.confirm_by_ms.filter(|_| !is_confirmed);
        let told = Registry {
            confirm_by_ms,
            ..self.registry.clone()
        };
        told.write(&self.instance.registry())
    }

    /// Whether [`Protection::go_back`] goes back to a program that protects.
    pub fn goes_back_to_protection(&self) -> bool {
        let unsettled = self.unsettled.as_ref();
        unsettled.is_some_and(|unsettled| !unsettled.is_first)
    }

    /// Whether the program lets everything pass if the confirmation does not come.
    pub fn lets_pass_unconfirmed(&self) -> bool {
        let unsettled = self.unsettled.as_ref();
        self.registry.confirm_by_ms.is_some()
            && unsettled.is_some_and(|unsettled| unsettled.is_first)
    }
}
