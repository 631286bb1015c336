//! Puts configurations in force, one after the other. Start, restart, upgrade and reload are one
//! operation.
//!
//! A program is loaded with maps of its own for everything that a configuration says, and with the
//! pinned maps that all configurations share; then each interface's link is given to the new program
//! in one step. A packet is judged by the old program with the old maps or by the new one with the
//! new maps, never by half of each.
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
    layout::{Door, FlowKey, USED_MAX},
};

use self::change::{Change, Transition};
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
        maps,
        program::XdpProgram,
        registry::Registry,
    },
    model::settings::Mode,
    sequences::{one_time::Standing, replay_cache::Replay},
};

/// How a program is put in place.
#[derive(Clone, Copy, Debug)]
pub struct AttachOptions {
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
    /// The digest of a text that was not confirmed and is not to be put in force by a restart.
    pub rejected: Option<u64>,
}

/// What was put in place.
#[derive(Debug)]
pub struct Deployed {
    /// The doors by number.
    pub doors: Vec<Door>,
    /// Their names; empty where no door has the number.
    pub names: Vec<String>,
    /// The longest that any attempt lives.
    pub attempt_max_ticks: u32,
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
    firewall: XdpProgram,
    registry: Registry,
    kept: LiveTables,
    replay: Arc<Replay>,
    mode: Mode,
    rollback: Option<Rollback>,
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
struct Rollback {
    tables: Tables,
    interfaces: Vec<String>,
    /// The numbers of the interfaces that had a program of ours.
    indices: Vec<u32>,
    /// What was moved from the driver to behind it, or the other way.
    switched: Vec<Attached>,
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
        attach_options: AttachOptions,
    ) -> Result<(Self, Deployed)> {
        let before = Registry::read(&instance.registry()).unwrap_or_else(|error| {
            tracing::warn!(
                "{}; grants that were given before end",
                os_error::told(&error)
            );
            None
        });
        let found_protected = match before {
            None if !instance.linked().is_empty() => crate::kernel::pins::protected(&instance)?,
            Some(_) | None => None,
        };
        let found_protected =
            found_protected.map(|found| found.iter().map(ToString::to_string).collect());
        let is_continued = before.is_some() && instance.maps().join("USED").exists();
        let replay = Arc::new(Replay::new(instance.name(), is_continued));
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
            kept,
            registry,
            deployed,
            rollback,
        } = change.make(|| {
            let preparation = Preparation::new(
                &instance,
                before.as_ref(),
                attach_options,
                Arc::clone(&replay),
                None,
            );
            interim::prepare(&preparation, plan, interfaces, &instance, before.as_ref())
        })?;
        let refused = deployed.refused.iter().cloned().collect();
        let protection = Self {
            instance,
            firewall,
            kept,
            replay,
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

    /// What is needed to make another configuration ready for [`Protection::change`]. Nothing else
    /// may be put in place between the two.
    pub fn preparation(&self, attach_options: AttachOptions) -> Preparation {
        let replay = Arc::clone(&self.replay);
        // Without doors that are time-based nothing was opened that would know.
        let floor = self.kept.is_moving().then(|| self.kept.floor());
        Preparation::new(
            &self.instance,
            Some(&self.registry),
            attach_options,
            replay,
            floor,
        )
        .in_place_of_one()
    }

    /// Puts another configuration, which is ready, in place of the one that is there.
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
            kept,
            registry,
            deployed,
            rollback,
        } = change.make(|| Ok(prepared))?;
        self.refused = deployed.refused.iter().cloned().collect();
        self.firewall = firewall;
        self.kept = kept;
        self.registry = registry;
        self.mode = attach_options.mode;
        self.rollback = Some(rollback);
        Ok(deployed)
    }

    /// Puts away sequences that were used, and puts in place those that are listened to now.
    ///
    /// # Errors
    /// As for [`LiveTables::follow`].
    pub fn follow_sequences(&mut self, plan: &Plan) -> Result<()> {
        self.kept.follow(plan, &mut self.firewall)
    }

    /// Listens to changing sequences no more, since nobody will be there to put them away, and writes
    /// down which were used.
    ///
    /// # Errors
    /// As for [`LiveTables::follow`], or that can't be written: the next start accepts only later ones.
    pub fn withdraw_sequences(&mut self, plan: &Plan) -> Result<()> {
        self.kept.withdraw(plan, &mut self.firewall)?;
        let used = maps::entries(&self.firewall.used()?, USED_MAX);
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

    /// How long it takes until time-based doors can be opened, in milliseconds, by the places of the
    /// doors: what was used before is not known.
    pub fn waits_ms(&self, now_ms: u64) -> BTreeMap<usize, u64> {
        self.kept.door_waits_ms(now_ms)
    }

    /// When sequences change by themselves, in milliseconds since boot.
    pub fn sequences_change_ms(&self, now_ms: u64) -> Option<u64> {
        self.kept.changes_ms(now_ms)
    }

    /// The kernel side.
    pub fn firewall(&mut self) -> &mut XdpProgram {
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
}
