//! Replaces one configuration with another, or restores the previous state.

use std::collections::BTreeMap;

use anyhow::Result;

use super::{
    access::{record_connections, remove_grants, write_grants},
    change::Change,
    deployed::{Deployed, Rollback},
    dynamic::LiveTables,
    key_stamps::KeyStamps,
    mode_reasons::note_reason,
    preparation::{PreparedConfiguration, numbers},
    texts,
};
use crate::{
    config,
    host::{interface, os_error},
    interfaces::{admission::Refusal, attach::Attached, coverage},
    kernel::{barrier, pins, program::XdpProgram, registry::Registry},
    model::{attach_mode::AttachMode, settings::Mode},
};

/// The result of a change.
pub(super) struct Transition {
    pub(super) program: XdpProgram,
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
        prepared: impl FnOnce() -> Result<PreparedConfiguration>,
    ) -> Result<Transition> {
        let transition = self
            .reject_until_confirmed()
            .and_then(|()| prepared())
            .and_then(|prepared| self.try_to_execute(prepared));
        if transition.is_err() {
            let unpinned = pins::forget_next(self.instance);
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

    fn try_to_execute(&self, prepared: PreparedConfiguration) -> Result<Transition> {
        self.require_closed_port()?;
        let known = numbers(self.before);
        let PreparedConfiguration {
            live_tables,
            key_stamps,
            tables,
            mut program,
            tracked,
            search,
            is_first,
            limited,
            kept_sizes,
        } = prepared;
        // Nothing attached below concerns an interface that already has a link, so one list is
        // enough.
        let all = interface::list()?;
        let mut found = self.find(&all)?;
        self.require_interface(&found, &all)?;
        let indices = self.indices(&all)?;
        let mut registry = self.registry(&known, &tables, limited);
        registry.programs = program.program_ids()?;
        registry.fallback = match is_first {
            true => None,
            false => self.fallback(&indices),
        };
        if is_first {
            program.set_confirm_by(self.attach_options.confirm_by_ms)?;
        }
        // A later process finds all that it needs to roll back or to continue before anything
        // changes.
        texts::keep_next(self.instance, &self.plan.checked.text)?;
        program.pin_next(self.instance)?;
        registry.write(&self.instance.registry())?;
        if self.before.is_none() {
            // The meaning of the door numbers in left-over grants is unknown.
            let entries = program.grants()?;
            remove_grants(&mut program, entries)?;
        }
        write_grants(&mut program, &known, &known, &tables)?;
        let has_tracked = !tracked.is_empty();
        let mut connections = record_connections(&mut program, &tables, tracked, &[])?;
        // A command may have blocked a source since the program was loaded.
        program.follow_blocks()?;
        let mut attached = Vec::new();
        let done = self.attach(&mut program, &mut found, &all, &mut attached);
        let done =
            done.and_then(|()| self.note_attached(&mut program, &mut registry, &mut attached));
        // Repeats both for grants and connections since the first pass.
        let done = done.and_then(|()| {
            write_grants(&mut program, &known, &registry.numbers, &tables)?;
            let forwarded = search.run_again(&tables, has_tracked);
            let new = record_connections(&mut program, &tables, forwarded, &connections)?;
            connections.extend(new);
            Ok(())
        });
        if let Err(error) = done {
            self.undo_attach(&mut program, &attached)?;
            return Err(error.context("nothing was changed"));
        }
        attached.sort_by(|a, b| a.interface.cmp(&b.interface));
        let switched = attached
            .iter()
            .filter(|attached| attached.before.is_some())
            .cloned()
            .collect();
        found.refused.extend(self.unreadable(&mut attached)?);
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
            kept_sizes,
        };
        let rollback = Rollback {
            tables,
            interfaces: self.interfaces.to_vec(),
            indices,
            switched,
            is_first,
        };
        Ok(Transition {
            program,
            live_tables,
            key_stamps,
            registry,
            deployed,
            rollback,
        })
    }

    /// Records the programs that were attached, and the reasons for their modes: an interface may have taken another
    /// way than the first one, and its program was loaded for it.
    fn note_attached(
        &self,
        program: &mut XdpProgram,
        registry: &mut Registry,
        attached: &mut [Attached],
    ) -> Result<()> {
        let programs = program.program_ids()?;
        let before = registry.clone();
        if self.attach_options.mode == Mode::Auto {
            registry.chosen = self
                .before
                .map_or_else(BTreeMap::new, |it| it.chosen.clone());
        }
        for one in attached {
            note_reason(&mut registry.chosen, one);
            let reason = registry.chosen.get(&one.interface);
            let reason = reason.filter(|reason| reason.is_for(one.mode));
            one.because = reason.map(|reason| reason.because.clone());
        }
        registry.programs = programs;
        if *registry == before {
            return Ok(());
        }
        if registry.programs != before.programs {
            program.pin_next(self.instance)?;
        }
        registry.write(&self.instance.registry())
    }

    /// Takes out of `attached` the interfaces whose packets the program can't read there, with the reasons: it drops
    /// them.
    fn unreadable(&self, attached: &mut Vec<Attached>) -> Result<Vec<(String, Refusal)>> {
        if !attached.iter().any(|one| one.mode == AttachMode::Tc) {
            return Ok(Vec::new());
        }
        let links = pins::links(self.instance)?;
        let all = interface::list()?;
        let mut unreadable = Vec::new();
        attached.retain(|one| {
            let link = links.iter().find(|link| link.name == one.interface);
            let on = link.and_then(|link| all.iter().find(|on| link.holds(on)));
            let refusal = on.and_then(|on| coverage::unreadable(on, Some(one.mode), &links));
            let is_readable = refusal.is_none();
            unreadable.extend(refusal.map(|refusal| (one.interface.clone(), refusal)));
            is_readable
        });
        Ok(unreadable)
    }
}
