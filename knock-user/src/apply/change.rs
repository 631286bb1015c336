//! One configuration that takes the place of another.

use std::collections::BTreeSet;

use anyhow::{Result, bail};

use super::{
    AttachOptions, Deployed, Prepared, Rollback,
    access::{give, keep_connections, remove_all},
    find_interfaces::Found,
    preparation::numbers,
};
use crate::{
    apply::{dynamic::LiveTables, plan::Plan, texts},
    compile::{self, Tables, stable_ids::StableIds},
    config,
    host::{
        interface::{self, Interface},
        netns, os_error,
    },
    interfaces::{
        admission::Refusal,
        attach::{self, Attached},
    },
    kernel::{
        barrier,
        instance::Instance,
        pins,
        program::{self, XdpProgram},
        registry::{Fallback, Registry},
    },
    model::settings::Mode,
};

/// What takes which place.
pub(super) struct Change<'a> {
    pub(super) instance: &'a Instance,
    pub(super) before: Option<&'a Registry>,
    pub(super) plan: &'a Plan,
    pub(super) interfaces: &'a [String],
    pub(super) attach_options: AttachOptions,
    /// Whether this process has it in its hands already: what is refused does not end what goes on.
    pub(super) is_reload: bool,
    /// What the earlier program protects, by its own port table, where no registry says it.
    pub(super) found_protected: Option<Vec<String>>,
}

/// What came of it.
pub(super) struct Transition {
    pub(super) firewall: XdpProgram,
    pub(super) kept: LiveTables,
    pub(super) registry: Registry,
    pub(super) deployed: Deployed,
    pub(super) rollback: Rollback,
}

impl Change<'_> {
    /// Makes it, or leaves everything as it was.
    pub(super) fn make(&self, prepared: impl FnOnce() -> Result<Prepared>) -> Result<Transition> {
        let made = self.reject_until_confirmed();
        let made = made.and_then(|()| prepared());
        let made = made.and_then(|prepared| self.try_to_make(prepared));
        if made.is_err() {
            let unpinned = pins::unlink(&self.instance.next_program()).map(drop);
            let undone = match self.before {
                Some(before) => before.write(&self.instance.registry()),
                None if self.instance.linked().is_empty() => self.instance.remove(),
                None => Ok(()),
            };
            if let Err(error) = undone.and(unpinned) {
                tracing::warn!("{}", os_error::told(&error));
            }
        }
        made
    }

    /// Notes the configuration of a start on trial as one that was not confirmed, in the registry of
    /// what is in force: if the process is killed while it compiles, the next start does not apply
    /// that configuration without a trial. A reload does the same before it reads the file.
    fn reject_until_confirmed(&self) -> Result<()> {
        let text = Some(config::digest(&self.plan.checked.text));
        let (Some(before), Some(_), false) = (
            self.before,
            self.attach_options.confirm_by_ms,
            self.is_reload,
        ) else {
            return Ok(());
        };
        if self.instance.linked().is_empty() || before.text == text {
            return Ok(());
        }
        let noted = Registry {
            rejected: text,
            ..before.clone()
        };
        noted.write(&self.instance.registry())
    }

    fn try_to_make(&self, prepared: Prepared) -> Result<Transition> {
        self.keeps_something_closed()?;
        let known = numbers(self.before);
        let Prepared {
            kept,
            tables,
            mut firewall,
            is_first,
        } = prepared;
        // What is attached below concerns no interface that has a link already, so one look will do.
        let all = interface::list()?;
        let mut found = self.find(&all)?;
        self.keeps_an_interface(&found, &all)?;
        let indices = self.indices(&all)?;
        let mut registry = self.registry(&known, &tables);
        registry.programs = firewall.program_ids()?;
        registry.fallback = match is_first {
            true => None,
            false => self.fallback(&indices),
        };
        if is_first {
            firewall.set_confirm_by(self.attach_options.confirm_by_ms)?;
        }
        // All that a later process needs to go back, or to go on, is there before anything changes.
        texts::keep_next(self.instance, &self.plan.checked.text)?;
        firewall.pin_next(self.instance)?;
        registry.write(&self.instance.registry())?;
        if self.before.is_none() {
            // Nothing says what the numbers in left-over grants stand for.
            let entries = firewall.grants()?;
            remove_all(&mut firewall, entries.into_iter().map(|(key, _)| key))?;
        }
        give(&mut firewall, &known, &tables)?;
        let mut connections = keep_connections(&mut firewall, &tables)?;
        let mut attached = Vec::new();
        let done = self.attach(&mut firewall, &mut found, &all, &mut attached);
        // What was given and connected between the first look and the attaching.
        let done = done.and_then(|()| {
            give(&mut firewall, &registry.numbers, &tables)?;
            connections.extend(keep_connections(&mut firewall, &tables)?);
            Ok(())
        });
        if let Err(error) = done {
            self.take_back(&mut firewall, &attached)?;
            return Err(error.context("nothing is changed"));
        }
        attached.sort_by(|a, b| a.interface.cmp(&b.interface));
        let switched = attached.iter().filter(|attached| attached.switched);
        let switched = switched.cloned().collect();
        barrier::open_all(self.instance)?;
        let deployed = Deployed {
            doors: tables.doors.clone(),
            names: tables.names.clone(),
            attempt_max_ticks: tables.config.attempt_max_ticks,
            attached,
            absent: found.absent,
            refused: found.refused,
            opened: self.opened(),
            found: connections,
        };
        let rollback = Rollback {
            tables,
            interfaces: self.interfaces.to_vec(),
            indices,
            switched,
            is_first,
        };
        Ok(Transition {
            firewall,
            kept,
            registry,
            deployed,
            rollback,
        })
    }

    /// Whether this confirms what this process has on trial, or goes back to what was before: going
    /// back to open ports is what was promised.
    pub(super) fn ends_a_trial(&self) -> bool {
        let is_on_trial = self
            .before
            .is_some_and(|before| before.confirm_by_ms.is_some());
        self.is_reload && is_on_trial
    }

    /// Where ports are closed, a configuration that closes none does not take the place of the one
    /// before: it is far more often a file that was emptied than a wish.
    fn keeps_something_closed(&self) -> Result<()> {
        if self.ends_a_trial() {
            return Ok(());
        }
        if self.instance.linked().is_empty() {
            return Ok(());
        }
        match self.before {
            Some(before) if before.dry_run => Ok(()),
            Some(before) => Ok(self.plan.checked.may_replace(&before.protected)?),
            None => self.keeps_closed_without_registry(),
        }
    }

    /// The same where only the earlier program says what is closed, if it does: whether
    /// that program was a dry run is not known, so it counts as one that protects.
    fn keeps_closed_without_registry(&self) -> Result<()> {
        let checked = &self.plan.checked;
        let registry = self.instance.registry();
        let Some(protected) = &self.found_protected else {
            return Ok(checked.may_replace_unknown(&registry)?);
        };
        if self.attach_options.dry_run && !protected.is_empty() {
            bail!(
                "a dry run protects nothing, and {} would be open to everybody; {} can't be read, \
                 so whether that is meant can't be seen: nothing is changed. `knock-user detach` \
                 opens these ports; start the dry run after it",
                protected.join(", "),
                registry.display()
            );
        }
        Ok(checked.may_replace(protected)?)
    }

    pub(super) fn was_asked_for(&self, name: &str) -> bool {
        let before = self.before.map_or(&[][..], |before| &before.interfaces);
        before.iter().any(|before| before == name)
    }

    /// Whether an interface that can't be taken is waited for, and no reason to give up.
    pub(super) fn may_be_refused(&self, name: &str) -> bool {
        self.attach_options.may_be_absent || (self.is_reload && self.was_asked_for(name))
    }

    /// What the registry says until the change is settled: both configurations.
    fn registry(&self, known: &StableIds, tables: &Tables) -> Registry {
        let before = self.before.iter().flat_map(|before| &before.interfaces);
        let interfaces: BTreeSet<_> = self.interfaces.iter().chain(before).cloned().collect();
        let protected = compile::protected(self.plan.settings()).ranges();
        let text = config::digest(&self.plan.checked.text);
        let established = self.plan.settings().established;
        let [flow_idle_ms, flow_idle_udp_ms] = match established.keep {
            true => established.idle_ms(),
            false => [0; 2],
        };
        Registry {
            interfaces: interfaces.into_iter().collect(),
            config: self.plan.path.clone(),
            dry_run: self.attach_options.dry_run,
            mode: Some(self.attach_options.mode),
            confirm_by_ms: self.attach_options.confirm_by_ms,
            numbers: known.with(&tables.numbers),
            ports: self.plan.ports_by_door(),
            protected: protected.iter().map(ToString::to_string).collect(),
            needs_process: self.plan.settings().needs_process(),
            config_digest: self.plan.checked.digest,
            flow_idle_ms,
            flow_idle_udp_ms,
            namespace: netns::inode().ok(),
            text: Some(text),
            programs: Vec::new(),
            fallback: None,
            // The trial may have been one of the same text.
            rejected: self
                .attach_options
                .rejected
                .filter(|rejected| *rejected != text),
        }
    }

    /// Attaches to all interfaces: first where the kernel may refuse, then where the program takes
    /// the place of another. What is attached is noted, also if that comes to an end; what is
    /// refused and need not be taken is noted in `found`.
    fn attach(
        &self,
        firewall: &mut XdpProgram,
        found: &mut Found,
        all: &[Interface],
        attached: &mut Vec<Attached>,
    ) -> Result<()> {
        // What another interface has the name of stays protected until this is settled.
        pins::step_aside(self.instance, all)?;
        let links = pins::links(self.instance)?;
        let is_ours = |(_, interface): &&(String, Interface)| pins::is_ours(&links, interface);
        for (name, interface) in found.admitted.iter().filter(|one| !is_ours(one)) {
            match firewall.attach(name, interface, self.attach_options.mode, self.instance) {
                Ok((new, None)) => attached.push(new),
                Ok((_, Some(_))) => bail!(
                    "{} is gone since this began, so nothing can be pinned there",
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
            // Also one that has another name now, for which nobody asks.
            if let Some(interface) = all.iter().find(|interface| link.holds(interface)) {
                let is_refused =
                    |(_, refusal): &(String, Refusal)| refusal.interface() == interface.name;
                if found.refused.iter().any(is_refused) {
                    pins::unlink(&self.instance.link(&link.name))?;
                    continue;
                }
                let replaced = firewall.replace(&link.name, interface, self.instance)?;
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
        // A link ends when nobody holds it.
        drop(links);
        // What can't be done in one step comes last.
        for (name, interface) in misplaced {
            let switched =
                firewall.switch(&name, interface, self.attach_options.mode, self.instance)?;
            attached.retain(|replaced| replaced.interface != name);
            attached.push(switched);
        }
        Ok(())
    }

    /// The numbers of the interfaces that a program of this instance is attached to.
    fn indices(&self, all: &[Interface]) -> Result<Vec<u32>> {
        let links = pins::links(self.instance)?;
        let attached = all
            .iter()
            .filter(|interface| pins::is_ours(&links, interface));
        Ok(attached.map(|interface| interface.index).collect())
    }

    /// What is gone back to if this is not settled: the configuration that was settled last.
    fn fallback(&self, indices: &[u32]) -> Option<Box<Fallback>> {
        let before = self.before?;
        let last = before.fallback.clone();
        last.or_else(|| {
            Some(Box::new(Fallback {
                registry: before.clone(),
                indices: indices.to_vec(),
            }))
        })
    }

    /// What the configuration before protected and this one does not; a dry run protects nothing.
    fn opened(&self) -> Vec<String> {
        let protected: &[String] = match (self.before, &self.found_protected) {
            (Some(before), _) if before.dry_run => &[],
            (Some(before), _) => &before.protected,
            (None, Some(found)) => found,
            (None, None) => &[],
        };
        if self.attach_options.dry_run {
            return protected.to_vec();
        }
        let open = self.plan.settings().leaves_open(protected);
        open.iter().map(ToString::to_string).collect()
    }

    fn mode_before(&self) -> Option<Mode> {
        self.before.and_then(|before| before.mode)
    }

    /// Undoes [`Change::attach`].
    fn take_back(&self, firewall: &mut XdpProgram, attached: &[Attached]) -> Result<()> {
        for new in attached.iter().filter(|attached| !attached.replaced) {
            pins::unlink(&self.instance.link(&new.interface))?;
        }
        let program = self.instance.program();
        if self.instance.linked().is_empty() || !program.exists() {
            return Ok(());
        }
        program::put_back(&program, &interface::list()?, self.instance)?;
        move_back(firewall, attached, self.instance)
    }
}

/// Moves the program that is pinned, and in its links again, to where it was before these were
/// switched.
///
/// # Errors
/// The kernel refuses.
pub(super) fn move_back(
    firewall: &mut XdpProgram,
    attached: &[Attached],
    instance: &Instance,
) -> Result<()> {
    for switched in attached.iter().filter(|attached| attached.switched) {
        let mode = match switched.native {
            true => Mode::Skb,
            false => Mode::Native,
        };
        let all = interface::list()?;
        if let Some(interface) = interface::named(&switched.interface, &all) {
            firewall.switch_back(&switched.interface, interface, mode, instance)?;
        }
    }
    Ok(())
}
