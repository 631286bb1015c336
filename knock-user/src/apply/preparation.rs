//! Configurations that are compiled and loaded, and not in force yet.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Result, bail};

use super::AttachOptions;
use crate::{
    apply::{dynamic::LiveTables, plan::Plan},
    compile::{Tables, stable_ids::StableIds},
    host::{
        clock,
        interface::{self, Interface},
    },
    kernel::{
        instance::Instance,
        program::{Options, XdpProgram},
        registry::Registry,
    },
    sequences::replay_cache::{Floor, Opened, Replay},
};

/// What is needed to make a configuration ready. That takes long for a large one, changes nothing,
/// and can be done by another thread while the configuration before is in force.
#[derive(Debug)]
pub struct Preparation {
    instance: Instance,
    known: StableIds,
    attach_options: AttachOptions,
    replay: Arc<Replay>,
    /// As far as this process knows by itself.
    floor: Option<Floor>,
    /// Whether there is no confirmed program of ours to go back to.
    is_first: bool,
}

/// A configuration that is compiled and loaded, and not in force yet.
#[derive(Debug)]
pub struct Prepared {
    pub(super) kept: LiveTables,
    pub(super) tables: Tables,
    pub(super) firewall: XdpProgram,
    /// Whether there is no program to go back to, so that this one lets everything pass by itself
    /// when its confirmation does not come.
    pub(super) is_first: bool,
}

impl Preparation {
    pub(super) fn new(
        instance: &Instance,
        before: Option<&Registry>,
        attach_options: AttachOptions,
        replay: Arc<Replay>,
        floor: Option<Floor>,
    ) -> Self {
        Self {
            instance: instance.clone(),
            known: numbers(before),
            attach_options,
            replay,
            floor,
            // What was never settled is nothing to go back to.
            is_first: instance.linked().is_empty() || !instance.program().exists(),
        }
    }

    /// The same for a process that has the instance in its hands: its configuration is what to go
    /// back to, also where none of its interfaces is there at the moment.
    pub(super) fn in_place_of_one(self) -> Self {
        Self {
            is_first: false,
            ..self
        }
    }

    /// Compiles and loads a configuration, unless it was given up meanwhile, which `is_given_up`
    /// says. That is locked while pins may be made: whoever sets it afterwards finds none of them
    /// half made.
    ///
    /// # Errors
    /// A [`crate::model::problem::Problems`] with what this host can't do of it, the kernel refuses, or it
    /// was given up.
    pub fn make(
        &self,
        plan: &Plan,
        interfaces: &[String],
        is_given_up: &Mutex<bool>,
    ) -> Result<Prepared> {
        let listed = interface::list()?;
        let mut loopback = listed.iter().filter(|found| found.is_loopback());
        let is_named = |found: &Interface| interfaces.iter().any(|name| found.is_called(name));
        let moves = (plan.settings().doors.iter()).any(|door| door.dynamic.is_some());
        let replay = match moves {
            true => self.replay.open(),
            false => Opened::default(),
        };
        let floor = self.floor.unwrap_or(replay.floor);
        let (kept, tables) = plan.compile(&self.known, floor)?;
        let is_given_up = is_given_up.lock().unwrap_or_else(PoisonError::into_inner);
        if *is_given_up {
            bail!("the new configuration is given up");
        }
        let options = Options {
            dry_run: self.attach_options.dry_run,
            log_level: self.attach_options.log_level,
            // Where there was protection, letting everything pass would not be going back.
            confirm_by_ms: self.attach_options.confirm_by_ms.filter(|_| self.is_first),
            loopback: loopback.any(is_named),
            instance: Some(&self.instance),
        };
        let mut firewall = XdpProgram::load(&tables, options)?;
        if let Some(walked) = firewall.verified_instructions()? {
            tracing::debug!("the verifier walked {walked} instructions");
        }
        let mut used = replay.used;
        used.retain(|key| kept.may_come(key));
        firewall.note_used(&used)?;
        let waits_ms = kept.waits_ms(clock::boot_ms());
        if waits_ms > 0 {
            tracing::warn!(
                "time-based doors can be opened in {} s: which of their sequences were used before \
                 is not known, so only those that begin now are good",
                waits_ms.div_ceil(1_000)
            );
        }
        Ok(Prepared {
            kept,
            tables,
            firewall,
            is_first: self.is_first,
        })
    }
}

pub(super) fn numbers(before: Option<&Registry>) -> StableIds {
    let numbers = before.map(|before| before.numbers.clone());
    numbers.unwrap_or_default()
}
