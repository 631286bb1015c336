//! Puts configurations in force. Start, restart, upgrade and reload are the same operation.
//!
//! Each configuration gets a program with maps of its own, and shares the pinned maps with all other
//! configurations of the instance. Each interface's link is switched to the new program in one step,
//! so either the old program with the old maps judges a packet, or the new program with the new
//! maps.
//!
//! May use `kernel`, `interfaces`, `sequences`, `config` and the rooms below them. Must not know the
//! console, the ledger or the control socket.

mod access;
pub mod carry_grants;
mod change;
pub mod dynamic;
mod ending;
mod find_interfaces;
mod follow;
mod frames;
mod interim;
pub mod options;
pub mod own_session;
pub mod plan;
mod preparation;
mod stamps;
pub mod texts;
pub mod unconfirmed;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use anyhow::Result;
use aya::programs::links::FdLink;
use knock_common::{
    Address,
    layout::{DoorEntry, FlowKey, USED_MAX},
};

use self::{
    change::{Change, Transition},
    stamps::KeyStamps,
};
pub use self::{
    frames::Noticed,
    preparation::{Preparation, Prepared},
};
use crate::{
    apply::{dynamic::LiveTables, plan::Plan},
    compile::Tables,
    host::os_error,
    interfaces::{admission::Refusal, attach::Attached, watchdog::Watchdog},
    kernel::{
        instance::{Instance, Locked},
        maps, pins,
        program::XdpProgram,
        registry::Registry,
    },
    model::settings::Mode,
    sequences::{one_time::Standing, replay_cache::Replay, stamps::Stamps},
};

/// The way in which a configuration is attached.
#[derive(Clone, Copy, Debug)]
pub struct AttachOptions {
    /// The attach mode of interfaces that have no program of this instance yet.
    pub mode: Mode,
    /// Whether the program judges, counts and reports packets, but drops none.
    pub dry_run: bool,
    /// The aya-log level of the program.
    pub log_level: u8,
    /// Whether to wait for interfaces that do not exist.
    pub may_be_absent: bool,
    /// The end of the trial, in milliseconds since boot; none without a trial.
    pub confirm_by_ms: Option<u64>,
    /// The digest of a text that was not confirmed. A restart does not put it in force.
    pub rejected: Option<u64>,
}

/// A configuration that is attached.
#[derive(Debug)]
pub struct Deployed {
    /// The doors by number.
    pub doors: Vec<DoorEntry>,
    /// Their names; an empty name marks an unused number.
    pub names: Vec<String>,
    /// The longest time that an attempt can last, in ticks.
    pub attempt_max_ticks: u32,
    /// The interfaces that the program is attached to.
    pub attached: Vec<Attached>,
    /// The interfaces that do not exist yet.
    pub absent: Vec<String>,
    /// The interfaces that can't be attached to, by configured name. Attaching is tried again.
    pub refused: Vec<(String, Refusal)>,
    /// Ports that the previous configuration protected and this one does not.
    pub opened: Vec<String>,
    /// Existing connections to protected ports that were not recorded as flows before. They
    /// continue if connections are kept at all.
    pub found: Vec<FlowKey>,
}

/// What ended with the previous configuration.
#[derive(Debug, Default)]
pub struct Ended {
    /// Interfaces that are no longer protected.
    pub released: Vec<String>,
    /// Sources whose grants ended because their door is no longer configured, with the door's name
    /// if it is known.
    pub grants: BTreeSet<(Address, Option<String>)>,
}

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
    /// Renamed interfaces, with the old and the new name; they stay protected.
    pub renamed: Vec<(String, String)>,
    /// Interfaces that are no longer protected because another interface has taken their old name.
    pub released: Vec<String>,
    /// The reason why nothing can be pinned, if it is new. Attached programs then end with this
    /// process.
    pub unpinned: Option<String>,
    /// Whether everything is pinned again.
    pub is_pinned_again: bool,
    /// Other failures, one line each.
    pub failures: Vec<String>,
    /// The names of all interfaces, by interface number.
    pub names: BTreeMap<u32, String>,
}

/// An instance that this process protects.
#[derive(Debug)]
pub struct Protection {
    instance: Locked,
    firewall: XdpProgram,
    registry: Registry,
    live_tables: LiveTables,
    replay: Arc<Replay>,
    stamps: Arc<Stamps>,
    key_stamps: KeyStamps,
    mode: Mode,
    rollback: Option<Rollback>,
    /// New names of renamed interfaces, by configured name.
    renamed: BTreeMap<String, String>,
    /// The numbers of the attached interfaces, by configured name.
    attached: BTreeMap<String, u32>,
    /// The reported reasons why interfaces can't be attached to, by configured name.
    refused: BTreeMap<String, Refusal>,
    /// Links that can't be pinned because bpffs is gone, by configured name.
    held: BTreeMap<String, HeldInterface>,
    /// The reported reason why nothing can be pinned.
    unpinned: Option<String>,
    /// Compares received frames with those that reach the program.
    watchdog: Watchdog,
}

/// A link that ends with this process.
#[derive(Debug)]
struct HeldInterface {
    link: FdLink,
    /// The number of its interface.
    index: u32,
}

/// The state that is needed to commit a change, or to roll it back.
#[derive(Debug)]
struct Rollback {
    tables: Tables,
    interfaces: Vec<String>,
    /// The numbers of the interfaces that had a program of this instance.
    indices: Vec<u32>,
    /// Interfaces whose attach mode was switched.
    switched: Vec<Attached>,
    /// Whether no confirmed program of this instance was attached before.
    is_first: bool,
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
        let are_pinned = pins::replay_directory().join("SPA_LAST").exists();
        let stamps = Arc::new(Stamps::new(instance.name(), are_pinned));
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
            firewall,
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
        let protection = Self {
            instance,
            firewall,
            live_tables,
            replay,
            stamps,
            key_stamps,
            registry,
            mode: attach_options.mode,
            rollback: Some(rollback),
            renamed: BTreeMap::new(),
            attached: BTreeMap::new(),
            refused,
            held: BTreeMap::new(),
            unpinned: None,
            watchdog: Watchdog::default(),
        };
        Ok((protection, deployed))
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
        prepared: Prepared,
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
            firewall,
            live_tables,
            key_stamps,
            registry,
            deployed,
            rollback,
        } = change.execute(|| Ok(prepared))?;
        self.refused = deployed.refused.iter().cloned().collect();
        let mut before = std::mem::replace(&mut self.firewall, firewall);
        let stamps = std::mem::replace(&mut self.key_stamps, key_stamps);
        if let Err(error) = self.leave_stamps(&mut before, &stamps) {
            tracing::warn!("{}", os_error::describe(&error));
        }
        self.live_tables = live_tables;
        self.registry = registry;
        self.mode = attach_options.mode;
        self.rollback = Some(rollback);
        Ok(deployed)
    }

    /// Retires used sequences and writes the current ones to the maps.
    ///
    /// # Errors
    /// As for [`LiveTables::follow`].
    pub fn follow_sequences(&mut self, plan: &Plan) -> Result<()> {
        self.live_tables.follow(plan, &mut self.firewall)
    }

    /// Stops accepting sequences that change, since no process will retire them, and records which
    /// were used.
    ///
    /// # Errors
    /// As for [`LiveTables::follow`], or the record can't be written: the next start then accepts
    /// only later sequences.
    pub fn withdraw_sequences(&mut self, plan: &Plan) -> Result<()> {
        self.live_tables.withdraw(plan, &mut self.firewall)?;
        let used = maps::entries(&self.firewall.used()?, USED_MAX);
        self.replay.close(&used, self.live_tables.floor())
    }

    /// Returns the state of the one-time files, by door index.
    pub fn files(&self) -> BTreeMap<usize, Standing> {
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

    /// Returns when the current sequences change, in milliseconds since boot.
    pub fn sequences_change_ms(&self, now_ms: u64) -> Option<u64> {
        self.live_tables.changes_ms(now_ms)
    }

    /// Returns the loaded program.
    pub fn firewall(&mut self) -> &mut XdpProgram {
        &mut self.firewall
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
