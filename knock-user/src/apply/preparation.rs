//! Compiles and loads configurations that are not in force yet.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
};

use anyhow::{Context as _, Result, anyhow, bail};
use knock_common::layout::FlowKey;

use super::{
    key_stamps::KeyStamps,
    options::AttachOptions,
    tracked_flows::{Judged, Search},
};
use crate::{
    apply::{dynamic::LiveTables, plan::Plan},
    compile::{Tables, stable_ids::StableIds},
    host::{
        clock,
        interface::{self, Interface},
    },
    interfaces::attach,
    kernel::{
        instance::Instance,
        pins,
        program::{LoadOptions, XdpProgram},
        registry::Registry,
    },
    model::table_sizes::{SizedTable, TableSizes},
    sequences::{
        replay_cache::{Floor, LoadedCache, Replay},
        stamps::{self, StampStore},
    },
};

/// The input for preparing a configuration. Preparing takes long for a large one, changes nothing,
/// and can run in another thread while the previous configuration is in force.
#[derive(Debug)]
pub struct Preparation {
    instance: Instance,
    known: StableIds,
    attach_options: AttachOptions,
    replay: Arc<Replay>,
    /// The floor that this process knows itself, if it does.
    floor: Option<Floor>,
    stamps: Arc<StampStore>,
    /// Whether there is no confirmed program of this instance to roll back to.
    is_first: bool,
    /// What the previous configuration judges.
    judged: Judged,
    /// The keys of the tables whose sizes the previous configuration set.
    limited: Vec<String>,
}

/// A configuration that is compiled and loaded, but not in force yet.
#[derive(Debug)]
pub struct PreparedConfiguration {
    pub(super) live_tables: LiveTables,
    pub(super) key_stamps: KeyStamps,
    pub(super) tables: Tables,
    pub(super) program: XdpProgram,
    /// The connections that this host forwards or translates and that would be cut.
    pub(super) tracked: Vec<FlowKey>,
    /// Finds those that are made until the program is attached.
    pub(super) search: Search,
    /// Whether there is no program to roll back to. This one then lets all packets pass by itself
    /// if its confirmation does not arrive.
    pub(super) is_first: bool,
    /// The keys of the tables whose sizes this configuration sets, or whose sizes an earlier one has set.
    pub(super) limited: Vec<String>,
    /// A warning about tables that keep their sizes.
    pub(super) kept_sizes: Option<String>,
}

impl Preparation {
    pub(super) fn new(
        instance: &Instance,
        before: Option<&Registry>,
        attach_options: AttachOptions,
        replay: Arc<Replay>,
        floor: Option<Floor>,
        stamps: Arc<StampStore>,
    ) -> Self {
        Self {
            instance: instance.clone(),
            known: numbers(before),
            attach_options,
            replay,
            floor,
            stamps,
            // A configuration that was never committed is not a fallback.
            is_first: instance.linked().is_empty() || !instance.has_program(),
            judged: Judged::by(before, instance),
            limited: before.map_or_else(Vec::new, |before| before.limited.clone()),
        }
    }

    /// Adapts this to a process that serves the instance: its configuration is the fallback, even
    /// if none of its interfaces exists at the moment.
    pub(super) fn for_running_instance(self) -> Self {
        Self {
            is_first: false,
            ..self
        }
    }

    /// Compiles and loads a configuration unless `is_given_up` is set meanwhile. The mutex is
    /// locked while pins may be made and while shared maps are written, so the caller who sets it
    /// afterwards finds nothing unfinished.
    ///
    /// # Errors
    /// A [`crate::model::problem::Problems`] with what this host can't provide, the kernel refuses,
    /// or preparing was given up.
    pub fn make(
        &self,
        plan: &Plan,
        interfaces: &[String],
        is_given_up: &Mutex<bool>,
    ) -> Result<PreparedConfiguration> {
        let listed = interface::list()?;
        let links = pins::links(&self.instance)?;
        let mut loopback = listed.iter().filter(|found| found.is_loopback());
        let is_named = |found: &Interface| interfaces.iter().any(|name| found.is_called(name));
        let moves = (plan.settings().doors.iter()).any(|door| door.dynamic.is_some());
        let replay = match moves {
            true => self.replay.open(),
            false => LoadedCache::default(),
        };
        let floor = self.floor.unwrap_or(replay.floor);
        let (live_tables, tables) = LiveTables::compile(plan, &self.known, floor)?;
        let spa = plan.settings().spa();
        let opened = spa.map(|spa| self.stamps.open(spa.window));
        let uses = plan.settings().uses();
        let limits = &plan.settings().limits;
        let chosen = TableSizes::choose(limits, uses, plan.host.memory);
        let sizes = pins::sizes(&self.instance, uses, chosen)?;
        let kept = sizes.unlike(&chosen, limits, &self.limited);
        let limited = SizedTable::ALL
            .into_iter()
            .filter(|table| limits.configures(*table) || kept.contains(table));
        let options = LoadOptions {
            dry_run: self.attach_options.dry_run,
            log_level: self.attach_options.log_level,
            // If a program protected before, letting all packets pass would not be a rollback.
            confirm_by_ms: self.attach_options.confirm_by_ms.filter(|_| self.is_first),
            loopback: loopback.any(is_named),
            instance: Some(&self.instance),
            sizes,
            entries: &attach::entries(interfaces, self.attach_options.mode, &links, &listed),
        };
        let search = Search::new(
            &plan.host,
            interfaces,
            &self.judged,
            sizes.get(SizedTable::Flows),
        );
        let (mut program, tracked) = thread::scope(|scope| {
            let tracked = thread::Builder::new()
                .spawn_scoped(scope, || {
                    search.run_first(&tables, self.attach_options.dry_run)
                })
                .context("starting a thread")?;
            // An end waits for pins, and not for the rest.
            let created = {
                let _held = unless(is_given_up)?;
                XdpProgram::create(&tables, options)?
            };
            let program = created.complete(&tables, options.entries)?;
            let tracked = tracked.join();
            let tracked =
                tracked.map_err(|_| anyhow!("the search for connections has panicked"))?;
            Ok::<_, anyhow::Error>((program, tracked))
        })?;
        if let Some(walked) = program.verified_instructions()? {
            tracing::debug!("the verifier walked {walked} instructions");
        }
        // What follows is written to shared maps.
        let _held = unless(is_given_up)?;
        let mut used = replay.used;
        used.retain(|key| live_tables.may_be_accepted(key));
        program.note_used(&used)?;
        let key_stamps = match opened {
            Some(opened) => self.begin_stamps(&mut program, &tables, opened)?,
            None => KeyStamps::default(),
        };
        let waits_ms = live_tables.waits_ms(clock::boot_ms());
        if waits_ms > 0 {
            tracing::warn!(
                "time-based doors can be opened in {} s: it is unknown which of their sequences were \
                 used before, so only those that begin from now on are accepted",
                waits_ms.div_ceil(1_000)
            );
        }
        Ok(PreparedConfiguration {
            live_tables,
            key_stamps,
            tables,
            program,
            tracked,
            search,
            is_first: self.is_first,
            limited: limited.map(|table| table.key().to_owned()).collect(),
            kept_sizes: sizes.kept_text(&chosen, &kept),
        })
    }
}

/// Returns the lock that a caller who cancels has to wait for.
///
/// # Errors
/// Preparing was cancelled.
fn unless(is_given_up: &Mutex<bool>) -> Result<MutexGuard<'_, bool>> {
    let is_given_up = is_given_up.lock().unwrap_or_else(PoisonError::into_inner);
    match *is_given_up {
        true => bail!("preparing the new configuration was cancelled"),
        false => Ok(is_given_up),
    }
}

impl Preparation {
    /// Gives each key its word, and warns if users have to wait before they get in.
    fn begin_stamps(
        &self,
        program: &mut XdpProgram,
        tables: &Tables,
        opened: stamps::OpenedStamps,
    ) -> Result<KeyStamps> {
        let now_ms = clock::boot_ms();
        let fwknop_ms = match tables.spa.fwknop_keys.is_empty() {
            true => 0,
            false => opened.floor.fwknop_from_ms().saturating_sub(now_ms),
        };
        if fwknop_ms > 0 && self.stamps.is_first_report() {
            tracing::warn!(
                "users of fwknop get in in {} s, and others earlier: it is unknown which packets \
                 were used before, so only those made from then on are accepted",
                fwknop_ms.div_ceil(1_000)
            );
        }
        let wait_ms = opened.floor.wait_ms(now_ms);
        if wait_ms > 0 && self.stamps.is_first_report() {
            tracing::warn!(
                "users get in with SPA packets in {} s: it is unknown which packets were used \
                 before, so only those made from then on are accepted",
                wait_ms.div_ceil(1_000)
            );
        }
        KeyStamps::begin(program, tables, opened)
    }
}

pub(super) fn numbers(before: Option<&Registry>) -> StableIds {
    before
        .map(|before| before.numbers.clone())
        .unwrap_or_default()
}
