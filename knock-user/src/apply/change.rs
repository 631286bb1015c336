//! Replaces one configuration with another.

use std::collections::BTreeSet;

use anyhow::{Result, bail};

use super::{
    AttachOptions, Deployed, Prepared, Rollback,
    access::{record_connections, remove_grants, write_grants},
    find_interfaces::FoundInterfaces,
    preparation::numbers,
    stamps::KeyStamps,
};
use crate::{
    apply::{dynamic::LiveTables, plan::Plan, texts},
    compile::{Tables, stable_ids::StableIds},
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

/// A change from one configuration to another.
pub(super) struct Change<'a> {
    pub(super) instance: &'a Instance,
    pub(super) before: Option<&'a Registry>,
    pub(super) plan: &'a Plan,
    pub(super) interfaces: &'a [String],
    pub(super) attach_options: AttachOptions,
    /// Whether this process already serves the instance: a refused interface then does not end the
    /// rest.
    pub(super) is_reload: bool,
    /// What the previous program protects by its own port table, if there is no registry.
    pub(super) found_protected: Option<Vec<String>>,
}

/// The result of a change.
pub(super) struct Transition {
    pub(super) firewall: XdpProgram,
    pub(super) live_tables: LiveTables,
    pub(super) key_stamps: KeyStamps,
    pub(super) registry: Registry,
    pub(super) deployed: Deployed,
    pub(super) rollback: Rollback,
}

impl Change<'_> {
    /// Puts the configuration in force, or restores the previous state.
    pub(super) fn execute(
        &self,
        prepared: impl FnOnce() -> Result<Prepared>,
    ) -> Result<Transition> {
        let transition = self
            .reject_until_confirmed()
            .and_then(|()| prepared())
            .and_then(|prepared| self.try_to_execute(prepared));
        if transition.is_err() {
            let unpinned = pins::unlink(&self.instance.next_program()).map(drop);
            let undone = match self.before {
                Some(before) => before.write(&self.instance.registry()),
                None if self.instance.linked().is_empty() => self.instance.remove(),
                None => Ok(()),
            };
            if let Err(error) = undone.and(unpinned) {
                tracing::warn!("{}", os_error::describe(&error));
            }
        }
        transition
    }

    /// Records the configuration of a start on trial as unconfirmed, in the registry of what is in
    /// force: if the process is killed while it compiles, the next start does not apply that
    /// configuration without a trial. A reload does the same before it reads the file.
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

    fn try_to_execute(&self, prepared: Prepared) -> Result<Transition> {
        self.require_closed_port()?;
        let known = numbers(self.before);
        let Prepared {
            live_tables,
            key_stamps,
            tables,
            mut firewall,
            is_first,
        } = prepared;
        // Nothing attached below concerns an interface that already has a link, so one list is
        // enough.
        let all = interface::list()?;
        let mut found = self.find(&all)?;
        self.require_interface(&found, &all)?;
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
        // A later process finds all that it needs to roll back or to continue before anything
        // changes.
        texts::keep_next(self.instance, &self.plan.checked.text)?;
        firewall.pin_next(self.instance)?;
        registry.write(&self.instance.registry())?;
        if self.before.is_none() {
            // The meaning of the door numbers in left-over grants is unknown.
            let entries = firewall.grants()?;
            remove_grants(&mut firewall, entries.into_iter().map(|(key, _)| key))?;
        }
        write_grants(&mut firewall, &known, &tables)?;
        let mut connections = record_connections(&mut firewall, &tables)?;
        let mut attached = Vec::new();
        let done = self.attach(&mut firewall, &mut found, &all, &mut attached);
        // Repeats both for grants and connections since the first pass.
        let done = done.and_then(|()| {
            write_grants(&mut firewall, &registry.numbers, &tables)?;
            connections.extend(record_connections(&mut firewall, &tables)?);
            Ok(())
        });
        if let Err(error) = done {
            self.undo_attach(&mut firewall, &attached)?;
            return Err(error.context("nothing was changed"));
        }
        attached.sort_by(|a, b| a.interface.cmp(&b.interface));
        let switched = attached
            .iter()
            .filter(|attached| attached.switched)
            .cloned()
            .collect();
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
            live_tables,
            key_stamps,
            registry,
            deployed,
            rollback,
        })
    }

    /// Returns whether this change confirms or rolls back the trial of this process. Rolling back
    /// to open ports was promised, so it is allowed.
    pub(super) fn ends_a_trial(&self) -> bool {
        let is_on_trial = self
            .before
            .is_some_and(|before| before.confirm_by_ms.is_some());
        self.is_reload && is_on_trial
    }

    /// Refuses to replace a configuration that closes ports with one that closes none: that is far
    /// more often an emptied file than an intention.
    fn require_closed_port(&self) -> Result<()> {
        if self.ends_a_trial() {
            return Ok(());
        }
        if self.instance.linked().is_empty() {
            return Ok(());
        }
        match self.before {
            Some(before) if before.dry_run => Ok(()),
            Some(before) => Ok(self.plan.checked.may_replace(&before.protected)?),
            None => self.require_closed_port_without_registry(),
        }
    }

    /// Does the same if only the port table of the previous program shows what is closed. Whether
    /// that program ran dry is unknown, so it counts as protecting.
    fn require_closed_port_without_registry(&self) -> Result<()> {
        let checked = &self.plan.checked;
        let registry = self.instance.registry();
        let Some(protected) = &self.found_protected else {
            return Ok(checked.may_replace_unknown(&registry)?);
        };
        if self.attach_options.dry_run && !protected.is_empty() {
            bail!(
                "a dry run protects nothing, and {} would be open to everybody; {} can't be read, \
                 so this may not be intended: nothing was changed. `knock-user detach` \
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

    /// Returns whether to wait for an interface that can't be attached to, instead of failing.
    pub(super) fn may_be_refused(&self, name: &str) -> bool {
        self.attach_options.may_be_absent || (self.is_reload && self.was_asked_for(name))
    }

    /// Returns the registry until the change is committed: it covers both configurations.
    fn registry(&self, known: &StableIds, tables: &Tables) -> Registry {
        let before = self.before.iter().flat_map(|before| &before.interfaces);
        let interfaces: BTreeSet<_> = self.interfaces.iter().chain(before).cloned().collect();
        let protected = self.plan.settings().protected().ranges();
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
            // A trial of the same text may have been rejected.
            rejected: self
                .attach_options
                .rejected
                .filter(|rejected| *rejected != text),
        }
    }

    /// Attaches to all interfaces: first to those where the kernel may refuse, then to those where
    /// the program replaces another. `attached` and `found` are also updated on failure.
    fn attach(
        &self,
        firewall: &mut XdpProgram,
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
            match firewall.attach(name, interface, self.attach_options.mode, self.instance) {
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
        // A link ends when its last descriptor is closed.
        drop(links);
        // Steps that are not atomic come last.
        for (name, interface) in misplaced {
            let switched =
                firewall.switch(&name, interface, self.attach_options.mode, self.instance)?;
            attached.retain(|replaced| replaced.interface != name);
            attached.push(switched);
        }
        Ok(())
    }

    /// Returns the numbers of the interfaces that a program of this instance is attached to.
    fn indices(&self, all: &[Interface]) -> Result<Vec<u32>> {
        let links = pins::links(self.instance)?;
        Ok(all
            .iter()
            .filter(|interface| pins::is_ours(&links, interface))
            .map(|interface| interface.index)
            .collect())
    }

    /// Returns what a rollback restores: the configuration that was committed last.
    fn fallback(&self, indices: &[u32]) -> Option<Box<Fallback>> {
        let before = self.before?;
        before.fallback.clone().or_else(|| {
            Some(Box::new(Fallback {
                registry: before.clone(),
                indices: indices.to_vec(),
            }))
        })
    }

    /// Returns the ports that the previous configuration protected and this one leaves open. A dry
    /// run protects nothing.
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
        self.plan
            .settings()
            .leaves_open(protected)
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    fn mode_before(&self) -> Option<Mode> {
        self.before.and_then(|before| before.mode)
    }

    /// Undoes [`Change::attach`].
    fn undo_attach(&self, firewall: &mut XdpProgram, attached: &[Attached]) -> Result<()> {
        for new in attached.iter().filter(|attached| !attached.replaced) {
            pins::unlink(&self.instance.link(&new.interface))?;
        }
        if self.instance.linked().is_empty() || !self.instance.program().exists() {
            return Ok(());
        }
        program::restore(self.instance)?;
        move_back(firewall, attached, self.instance)
    }
}

/// Switches the pinned program back to the attach modes that were in use before `attached`.
///
/// # Errors
/// The kernel refuses.
pub(super) fn move_back(
    firewall: &mut XdpProgram,
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
            firewall.switch_back(&switched.interface, interface, mode, instance)?;
        }
    }
    Ok(())
}
