//! How a change ends: with the new configuration settled, with the one before, or with none.

use anyhow::Result;

use super::{Ended, Protection, Rollback, access::remove_all, change};
use crate::{
    apply::{
        carry_grants::{self, Carried},
        texts, unconfirmed,
    },
    host::{clock, interface},
    kernel::{pins, registry::Registry},
};

impl Protection {
    /// Makes the configuration that is attached the one that stays, also if this process is
    /// killed: from here on there is no way back. [`Protection::commit`] cleans up after it.
    ///
    /// # Errors
    /// The map or the registry can't be written; the configuration is then as much on trial as it
    /// was.
    pub fn confirm(&mut self) -> Result<()> {
        let passes_knocks = self.lets_pass_unconfirmed();
        if passes_knocks {
            self.firewall.set_confirm_by(None)?;
        }
        let settled = Registry {
            confirm_by_ms: None,
            fallback: None,
            ..self.registry.clone()
        };
        if let Err(error) = settled.write(&self.instance.registry()) {
            if passes_knocks {
                self.firewall.set_confirm_by(self.registry.confirm_by_ms)?;
            }
            return Err(error);
        }
        self.registry = settled;
        Ok(())
    }

    /// Lets go of the configuration before: there is no way back to it.
    ///
    /// # Errors
    /// The maps, the pins or the registry can't be written.
    pub fn commit(&mut self) -> Result<Ended> {
        if self.rollback.is_none() {
            return Ok(Ended::default());
        }
        // This is the step that counts: who is killed after it leaves the new configuration.
        self.confirm()?;
        let Some(rollback) = self.rollback.take() else {
            return Ok(Ended::default());
        };
        let Rollback {
            tables, interfaces, ..
        } = rollback;
        self.firewall.pin_program(&self.instance)?;
        texts::commit(&self.instance)?;
        let held = self.firewall.grants()?;
        let now_ms = clock::boot_ms();
        let Carried { remove, ended, .. } =
            carry_grants::grants(&held, &self.registry.numbers, &tables, now_ms);
        remove_all(&mut self.firewall, remove)?;
        let mut released = Vec::new();
        for interface in self.instance.linked() {
            if !interfaces.contains(&interface) && pins::unlink(&self.instance.link(&interface))? {
                released.push(interface);
            }
        }
        self.registry.interfaces = interfaces;
        self.registry.numbers = tables.numbers;
        self.registry.write(&self.instance.registry())?;
        Ok(Ended {
            released,
            grants: ended,
        })
    }

    /// Goes back to what was in force before: to the program that was attached then, or to none.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn go_back(mut self) -> Result<()> {
        let Some(rollback) = self.rollback.take() else {
            return Ok(());
        };
        if rollback.is_first {
            return self.instance.remove();
        }
        unconfirmed::put_program_back(&self.instance, &interface::list()?)?;
        change::move_back(&mut self.firewall, &rollback.switched, &self.instance)?;
        unconfirmed::let_go(&self.instance, &self.registry, &rollback.indices, true)
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

    /// Notes the digest of a text that a restart is not to put in force; gives back the one before.
    ///
    /// # Errors
    /// The registry can't be written.
    pub fn set_rejected(&mut self, text: Option<u64>) -> Result<Option<u64>> {
        // What is in force is not refused.
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

    /// Whether [`Protection::go_back`] goes back to a program that protects.
    pub fn goes_back_to_protection(&self) -> bool {
        let rollback = self.rollback.as_ref();
        rollback.is_some_and(|rollback| !rollback.is_first)
    }

    /// Whether the program lets everything pass if the confirmation does not come.
    pub fn lets_pass_unconfirmed(&self) -> bool {
        let rollback = self.rollback.as_ref();
        self.registry.is_on_trial() && rollback.is_some_and(|rollback| rollback.is_first)
    }
}
