//! An instance that this process protects, from its start over all changes.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    sync::Arc,
};

use anyhow::Result;
use aya::programs::links::FdLink;
use knock_common::layout::USED_MAX;

use super::{
    change::Change,
    deployed::{Deployed, Rollback},
    discard::discard,
    dynamic::LiveTables,
    interim,
    key_stamps::KeyStamps,
    mode_reasons::note_reason,
    options::AttachOptions,
    plan::Plan,
    preparation::{Preparation, PreparedConfiguration},
    transition::Transition,
};
use crate::{
    host::os_error,
    interfaces::{admission::Refusal, attach::Attached, watchdog::Watchdog},
    kernel::{
        instance::Instance, lock::Locked, maps, pins, program::XdpProgram, registry::Registry,
        tcx::Placed,
    },
    model::settings::Mode,
    sequences::{one_time::FileState, replay_cache::Replay, stamps::StampStore},
};

/// An instance that this process protects.
#[derive(Debug)]
pub struct Protection {
    pub(super) instance: Locked,
    pub(super) program: XdpProgram,
    pub(super) registry: Registry,
    pub(super) live_tables: LiveTables,
    pub(super) replay: Arc<Replay>,
    pub(super) stamps: Arc<StampStore>,
    pub(super) key_stamps: KeyStamps,
    pub(super) mode: Mode,
    pub(super) rollback: Option<Rollback>,
    /// New names of renamed interfaces, by configured name.
    pub(super) renamed: BTreeMap<String, String>,
    /// The numbers of the attached interfaces, by configured name.
    pub(super) attached: BTreeMap<String, u32>,
    /// The reported programs of others that run before ours, by configured name.
    pub(super) behind: BTreeMap<String, Vec<Placed>>,
    /// The reported reasons why interfaces can't be attached to, by configured name.
    pub(super) refused: BTreeMap<String, Refusal>,
    /// Links that can't be pinned because bpffs is gone, by configured name.
    pub(super) held: BTreeMap<String, HeldInterface>,
    /// The reported reason why nothing can be pinned.
    pub(super) unpinned: Option<String>,
    /// Compares received frames with those that reach the program.
    pub(super) watchdog: Watchdog,
}

/// A link that ends with this process.
#[derive(Debug)]
pub(super) struct HeldInterface {
    pub(super) link: FdLink,
    /// The number of its interface.
    pub(super) index: u32,
}

impl Protection {
    /// Takes over or creates an instance, and attaches a configuration to all interfaces or to
    /// none.
    ///
    /// # Errors
    /// The configuration could not be put in force; the previous state is then restored.
    pub fn begin(
        instance: Locked,
        plan: &Plan,
        interfaces: &[String],
        attach_options: AttachOptions,
    ) -> Result<(Self, Deployed)> {
        let before = Registry::read(&instance.registry()).unwrap_or_else(|error| {
            tracing::warn!("{}; existing grants end", os_error::describe(&error));
            None
        });
        let found_protected = match before {
            None if !instance.linked().is_empty() => pins::protected(&instance)?,
            Some(_) | None => None,
        }
        .map(|found| found.iter().map(ToString::to_string).collect());
        let is_continued = before.is_some() && instance.maps().join("USED").exists();
        let replay = Arc::new(Replay::new(instance.name(), is_continued));
        let replay_pins = pins::REPLAY.map(|map| pins::replay_directory().join(map.name));
        let are_pinned = replay_pins.iter().all(|pin| pin.exists());
        let stamps = Arc::new(StampStore::new(instance.name(), are_pinned));
        let change = Change {
            instance: &instance,
            before: before.as_ref(),
            plan,
            interfaces,
            attach_options,
            is_reload: false,
            found_protected,
        };
        let Transition {
            program,
            live_tables,
            key_stamps,
            registry,
            deployed,
            rollback,
        } = change.execute(|| {
            let preparation = Preparation::new(
                &instance,
                before.as_ref(),
                attach_options,
                Arc::clone(&replay),
                None,
                Arc::clone(&stamps),
            );
            interim::prepare(&preparation, plan, interfaces, &instance, before.as_ref())
        })?;
        let refused = deployed.refused.iter().cloned().collect();
        Ok((
            Self {
                instance,
                program,
                live_tables,
                replay,
                stamps,
                key_stamps,
                registry,
                mode: attach_options.mode,
                rollback: Some(rollback),
                renamed: BTreeMap::new(),
                attached: BTreeMap::new(),
                behind: BTreeMap::new(),
                refused,
                held: BTreeMap::new(),
                unpinned: None,
                watchdog: Watchdog::default(),
            },
            deployed,
        ))
    }

    /// Returns the input for preparing the next configuration, which goes to
    /// [`Protection::change`]. No other configuration may be put in force in between.
    pub fn preparation(&self, attach_options: AttachOptions) -> Preparation {
        // Without time-based doors this process has no record of used sequences.
        let floor = self
            .live_tables
            .is_dynamic()
            .then(|| self.live_tables.floor());
        Preparation::new(
            &self.instance,
            Some(&self.registry),
            attach_options,
            Arc::clone(&self.replay),
            floor,
            Arc::clone(&self.stamps),
        )
        .for_running_instance()
    }

    /// Replaces the configuration in force with a prepared one.
    ///
    /// # Errors
    /// As for [`Protection::begin`].
    pub fn change(
        &mut self,
        plan: &Plan,
        interfaces: &[String],
        attach_options: AttachOptions,
        prepared: PreparedConfiguration,
    ) -> Result<Deployed> {
        let change = Change {
            instance: &self.instance,
            before: Some(&self.registry),
            plan,
            interfaces,
            attach_options,
            is_reload: true,
            found_protected: None,
        };
        let Transition {
            program,
            live_tables,
            key_stamps,
            registry,
            deployed,
            rollback,
        } = change.execute(|| Ok(prepared))?;
        self.refused = deployed.refused.iter().cloned().collect();
        let mut before = mem::replace(&mut self.program, program);
        let stamps = mem::replace(&mut self.key_stamps, key_stamps);
        if !self.program.has_users()
            && let Err(error) = stamps.leave(&mut before, &self.stamps)
        {
            tracing::warn!("{}", os_error::describe(&error));
        }
        discard(mem::replace(&mut self.live_tables, live_tables));
        self.registry = registry;
        self.mode = attach_options.mode;
        self.rollback = Some(rollback);
        Ok(deployed)
    }

    /// Records why `auto` chose the mode of an interface that the program was attached to.
    ///
    /// # Errors
    /// The registry can't be written.
    pub(super) fn note_chosen(&mut self, attached: &Attached) -> Result<()> {
        let before = self.registry.chosen.clone();
        note_reason(&mut self.registry.chosen, attached);
        if self.registry.chosen == before {
            return Ok(());
        }
        self.registry.write(&self.instance.registry())
    }

    /// Retires used sequences and writes the current ones to the maps.
    ///
    /// # Errors
    /// As for [`LiveTables::follow`].
    pub fn follow_sequences(&mut self, plan: &Plan) -> Result<()> {
        self.live_tables.follow(plan, &mut self.program)
    }

    /// Stops accepting sequences that change, since no process will retire them, and records which
    /// were used.
    ///
    /// # Errors
    /// As for [`LiveTables::follow`], or the record can't be written: the next start then accepts
    /// only later sequences.
    pub fn withdraw_sequences(&mut self, plan: &Plan) -> Result<()> {
        self.live_tables.withdraw(plan, &mut self.program)?;
        let used = maps::entries(&self.program.used()?, USED_MAX);
        self.replay.close(&used, self.live_tables.floor())
    }

    /// Returns why what opens doors is forgotten at a reboot, if it is, with the cure.
    pub fn volatile(&self) -> BTreeSet<String> {
        let reasons = [self.replay.volatile(), self.stamps.volatile()];
        reasons.into_iter().flatten().collect()
    }

    /// Returns the state of the one-time files, by door index.
    pub fn files(&self) -> BTreeMap<usize, FileState> {
        self.live_tables.files()
    }

    /// Returns whether any door has sequences that change.
    pub fn has_dynamic_doors(&self) -> bool {
        self.live_tables.is_dynamic()
    }

    /// Returns how long time-based doors stay closed, in milliseconds by door index, because it is
    /// unknown which of their sequences were used.
    pub fn waits_ms(&self, now_ms: u64) -> BTreeMap<usize, u64> {
        self.live_tables.door_waits_ms(now_ms)
    }

    /// Returns when the current sequences have to be followed, in milliseconds since boot; see
    /// [`LiveTables::changes_ms`].
    pub fn sequences_change_ms(&self) -> Option<u64> {
        self.live_tables.changes_ms()
    }

    /// Returns the loaded program.
    pub fn program(&mut self) -> &mut XdpProgram {
        &mut self.program
    }

    /// Returns the registry.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Returns the instance.
    pub fn instance(&self) -> &Instance {
        &self.instance
    }
}
