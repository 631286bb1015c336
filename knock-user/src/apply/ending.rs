//! Ends a change: commits the new configuration, rolls back to the previous one, or detaches.

use std::{collections::BTreeSet, mem};

use anyhow::Result;

use super::{
    access::remove_grants, attach_interfaces, deployed::Rollback, discard::discard,
    protection::Protection,
};
use crate::{
    apply::{
        carry_grants::{self, Carried, EndCause},
        texts, unconfirmed,
    },
    host::clock,
    interfaces::attach,
    kernel::{pins, registry::Registry},
    model::prefix::Prefix,
};

/// The grants that ended with the previous configuration.
#[derive(Debug, Default)]
pub struct EndedGrants {
    /// Interfaces that are no longer protected.
    pub released: Vec<String>,
    /// The sources of valid grants that ended, and the reasons.
    pub grants: BTreeSet<(Prefix, EndCause)>,
}

impl Protection {
    /// Ends the trial of the attached configuration, also for the case that this process is killed:
    /// no rollback is possible from here on. [`Protection::commit`] cleans up afterwards.
    ///
    /// # Errors
    /// The map or the registry can't be written; the configuration then stays on trial.
    pub fn confirm(&mut self) -> Result<()> {
        let passes_knocks = self.lets_pass_unconfirmed();
        if passes_knocks {
            self.program.set_confirm_by(None)?;
        }
        let settled = Registry {
            confirm_by_ms: None,
            fallback: None,
            ..self.registry.clone()
        };
        if let Err(error) = settled.write(&self.instance.registry()) {
            if passes_knocks {
                self.program.set_confirm_by(self.registry.confirm_by_ms)?;
            }
            return Err(error);
        }
        self.registry = settled;
        Ok(())
    }

    /// Removes the previous configuration; no rollback is possible afterwards.
    ///
    /// # Errors
    /// The maps, the pins or the registry can't be written.
    pub fn commit(&mut self) -> Result<EndedGrants> {
        if self.rollback.is_none() {
            return Ok(EndedGrants::default());
        }
        // This step decides: a process that is killed after it leaves the new configuration in
        // force.
        self.confirm()?;
        let Some(rollback) = self.rollback.take() else {
            return Ok(EndedGrants::default());
        };
        let Rollback {
            mut tables,
            interfaces,
            ..
        } = rollback;
        self.program.pin_program(&self.instance)?;
        texts::commit(&self.instance)?;
        let held = self.program.grants()?;
        let now_ms = clock::boot_ms();
        let known = &self.registry.numbers;
        let Carried { remove, ended, .. } =
            carry_grants::grants(&held, known, known, &tables, now_ms);
        remove_grants(&mut self.program, remove)?;
        let mut released = Vec::new();
        for interface in self.instance.linked() {
            if !interfaces.contains(&interface) && pins::unlink(&self.instance.link(&interface))? {
                released.push(interface);
            }
        }
        self.registry.interfaces = interfaces;
        self.registry.numbers = mem::take(&mut tables.numbers);
        discard(tables);
        self.registry.write(&self.instance.registry())?;
        Ok(EndedGrants {
            released,
            grants: ended,
        })
    }

    /// Rolls back to the program that was attached before, or to none.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn roll_back(mut self) -> Result<()> {
        let Some(rollback) = self.rollback.take() else {
            return Ok(());
        };
        if rollback.is_first {
            self.instance.remove()?;
            self.close_stamps();
            return Ok(());
        }
        attach::restore(&self.instance)?;
        attach_interfaces::move_back(&mut self.program, &rollback.switched, &self.instance)?;
        unconfirmed::discard_trial(&self.instance, &self.registry, &rollback.indices, true)
    }

    /// Detaches the program and returns the interfaces that were protected.
    ///
    /// # Errors
    /// The pins can't be removed.
    pub fn detach(mut self) -> Result<Vec<String>> {
        let interfaces = self.instance.linked();
        self.instance.remove()?;
        self.close_stamps();
        Ok(interfaces)
    }

    /// Records the digest of a text that a restart must not put in force, and returns the previous
    /// one.
    ///
    /// # Errors
    /// The registry can't be written.
    pub fn set_rejected(&mut self, text: Option<u64>) -> Result<Option<u64>> {
        // A text that is in force is never rejected.
        let rejected = text.filter(|text| self.registry.text != Some(*text));
        let noted = Registry {
            rejected,
            ..self.registry.clone()
        };
        noted.write(&self.instance.registry())?;
        let before = self.registry.rejected;
        self.registry = noted;
        Ok(before)
    }

    /// Returns whether [`Protection::roll_back`] restores a program that protects.
    pub fn rolls_back_to_protection(&self) -> bool {
        self.rollback
            .as_ref()
            .is_some_and(|rollback| !rollback.is_first)
    }

    /// Returns whether the program lets all packets pass if no confirmation arrives.
    pub fn lets_pass_unconfirmed(&self) -> bool {
        self.registry.is_on_trial()
            && self
                .rollback
                .as_ref()
                .is_some_and(|rollback| rollback.is_first)
    }
}
