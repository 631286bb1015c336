//! Keeps the maps up to date for doors whose sequences change, and retires sequences that were used.
//!
//! The kernel side records a sequence in `USED` before it gives the grant, and gives no second one
//! for it. User space then marks the sequence as used, replaces it with the next one and deletes the
//! record. Until then no client can use the sequence again, even if this process is killed.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result};
use knock_common::layout::{USED_MAX, UsedKey};
use rand::Rng as _;

mod sources;

use self::sources::SequenceSource;
pub use self::sources::SequenceSources;
use super::plan::Plan;
use crate::{
    compile::{self, Conflict, Difference, Input, Tables, stable_ids::StableIds},
    host::{clock, random},
    kernel::{maps, program::XdpProgram},
    model::settings::{Sequences, Settings},
    sequences::{
        one_time::FileState,
        replay_cache::{FORGOTTEN_MS, Floor},
        time_based::Clocks,
    },
};

/// How long a record in `USED` stays at least, in milliseconds: a packet that is being judged by
/// the old sequence must still find it.
const NOTE_MS: u64 = 10_000;

/// The tables in the maps, kept up to date with the sources of sequences.
#[derive(Debug, Default)]
pub struct LiveTables {
    sources: SequenceSources,
    sequences: Sequences,
    /// The content of the maps, if any of it can change.
    tables: Option<Tables>,
    /// It is unknown which sequences were used before this.
    floor: Floor,
    /// When the sequences were followed last, in milliseconds since boot.
    followed_ms: u64,
}

impl LiveTables {
    /// Compiles a configuration with the current sequences of its doors, and keeps what is needed
    /// to change them. A door whose sequences conflict with others gets none until they change.
    /// Known names keep their numbers. Time-based sequences that may have been used before `floor`
    /// are left out.
    ///
    /// # Errors
    /// A [`crate::config::Problems`] with what this host can't provide.
    pub fn compile(plan: &Plan, known: &StableIds, floor: Floor) -> Result<(Self, Tables)> {
        let cell_key = random::key()?;
        let mut decoys = rand::rng();
        let mut draw = || decoys.next_u64();
        let settings = plan.settings();
        let sources = SequenceSources::open(settings, floor);
        let followed_ms = clock::boot_ms();
        let sequences = sources.sequences(followed_ms);
        let tables = compile_without_conflicting(settings, &sequences, &mut |sequences| {
            let mut input = Input {
                host: &plan.host,
                cell_key,
                known,
                draw: &mut draw,
                sequences,
                before: None,
            };
            compile::compile(settings, &mut input)
        })
        .map_err(|conflicts| plan.checked.problems(conflicts))?;
        let moves = !sources.0.is_empty();
        let kept = Self {
            sources,
            sequences,
            tables: moves.then(|| tables.clone()),
            floor,
            followed_ms,
        };
        Ok((kept, tables))
    }

    /// Returns since when it is known which sequences were used.
    pub const fn floor(&self) -> Floor {
        self.floor
    }

    /// Returns whether a used sequence belongs to one of these doors and could still be accepted.
    pub fn may_be_accepted(&self, key: &UsedKey) -> bool {
        let now = Clocks::at(clock::boot_ms());
        self.sources.0.values().any(|source| {
            source.replay_domain() == key.replay_domain
                && match source {
                    SequenceSource::OneTime(_) => true,
                    SequenceSource::Otp(timed) => !timed.is_over(key.sequence_id, now),
                }
        })
    }

    /// Returns how long the last time-based door stays closed for that reason, in milliseconds.
    pub fn waits_ms(&self, now_ms: u64) -> u64 {
        self.sources.waits_ms(now_ms)
    }

    /// Returns the same for each door with changing sequences, by door index.
    pub fn door_waits_ms(&self, now_ms: u64) -> BTreeMap<usize, u64> {
        self.sources.door_waits_ms(now_ms)
    }

    /// Returns whether any sequence can change.
    pub const fn is_dynamic(&self) -> bool {
        self.tables.is_some()
    }

    /// Returns when the sequences have to be followed, in milliseconds since boot; `None` if they never change. It may
    /// have passed.
    pub fn changes_ms(&self) -> Option<u64> {
        self.sources.changes_ms(self.followed_ms)
    }

    /// Returns the state of the one-time files, by door index.
    pub fn files(&self) -> BTreeMap<usize, FileState> {
        self.sources.files()
    }

    /// Stops accepting changing sequences and retires those that were used: afterwards the sources
    /// hold all that has to be remembered.
    ///
    /// # Errors
    /// As for [`LiveTables::follow`].
    pub fn withdraw(&mut self, plan: &Plan, program: &mut XdpProgram) -> Result<()> {
        if !self.is_dynamic() {
            return Ok(());
        }
        self.sources.withdraw();
        self.follow(plan, program)?;
        // Retires what was used in the meantime.
        self.follow(plan, program)?;
        self.sources.close();
        Ok(())
    }

    /// Retires used sequences and writes the current ones to the maps.
    ///
    /// # Errors
    /// The maps can't be read or written: nothing is lost, and the next call tries again.
    pub fn follow(&mut self, plan: &Plan, program: &mut XdpProgram) -> Result<()> {
        let now_ms = clock::boot_ms();
        // Before anything can fail, or the next try would follow at once.
        self.followed_ms = now_ms;
        let used = maps::entries(&program.used()?, USED_MAX).into_iter();
        // A door that was removed may be configured again.
        let is_long_ago = |used_ms: u64| used_ms.saturating_add(FORGOTTEN_MS) <= now_ms;
        let Some(tables) = &mut self.tables else {
            let old = used.filter(|&(_, used_ms)| is_long_ago(used_ms));
            return forget(program, old.map(|(key, _)| key));
        };
        let settings = plan.settings();
        let mut retire = |&(key, used_ms): &(UsedKey, u64)| match self.sources.retire(key) {
            Some(is_away) => is_away && used_ms.saturating_add(NOTE_MS) <= now_ms,
            None => is_long_ago(used_ms),
        };
        let done: Vec<_> = used.filter(|entry| retire(entry)).collect();
        let sequences = self.sources.sequences(now_ms);
        if sequences != self.sequences {
            let mut compile = |sequences: &Sequences| plan.recompile(sequences, tables, now_ms);
            let moved = match are_renewed(&self.sequences, &sequences) {
                true => tables.renewed(settings, &sequences),
                false => compile_without_conflicting(settings, &sequences, &mut compile)
                    .map_err(|conflicts| plan.checked.problems(conflicts))?,
            };
            program
                .rearrange(Difference::new(tables, &moved))
                .context("changing sequences")?;
            *tables = moved;
            self.sequences = sequences;
        }
        let current: BTreeSet<_> = tables.doors.iter().map(used_key).collect();
        let mut done: Vec<_> = done.into_iter().map(|(key, _)| key).collect();
        done.retain(|key| !current.contains(key));
        // If the clock is set back this far, these sequences would become current again.
        if let Some(begin_ms) = self.sources.begin_ms(&done) {
            self.floor.unix_ms = self.floor.unix_ms.max(begin_ms);
            self.sources.raise(self.floor);
        }
        forget(program, done.into_iter())
    }
}

fn forget(program: &mut XdpProgram, keys: impl Iterator<Item = UsedKey>) -> Result<()> {
    let mut used = program.used()?;
    for key in keys {
        maps::delete(&mut used, key).context("deleting the record of a used sequence")?;
    }
    Ok(())
}

/// Compiles, and leaves out the sequences of doors that cause conflicts.
fn compile_without_conflicting(
    settings: &Settings,
    sequences: &Sequences,
    compile: &mut impl FnMut(&Sequences) -> Result<Tables, Vec<Conflict>>,
) -> Result<Tables, Vec<Conflict>> {
    let mut left = sequences.clone();
    loop {
        let conflicts = match compile(&left) {
            Err(conflicts) => conflicts,
            Ok(tables) => return Ok(tables),
        };
        let mut removed = false;
        for conflict in &conflicts {
            let index = conflict.door.filter(|index| left.contains_key(index));
            let door = index.and_then(|index| settings.doors.get(index));
            if let (Some(index), Some(door)) = (index, door) {
                left.remove(&index);
                removed = true;
                tracing::warn!(
                    "door {} can't be opened until its sequences change: {}",
                    door.name,
                    conflict.reason
                );
            }
        }
        if !removed {
            return Err(conflicts);
        }
    }
}

/// Returns whether sequences differ only in the time until which they are accepted.
fn are_renewed(old: &Sequences, new: &Sequences) -> bool {
    let timeless = |sequences: &Sequences| {
        let mut sequences = sequences.clone();
        for sequence in sequences.values_mut().flatten() {
            sequence.good_until_ms = 0;
        }
        sequences
    };
    timeless(old) == timeless(new)
}

const fn used_key(entry: &knock_common::layout::DoorEntry) -> UsedKey {
    UsedKey {
        replay_domain: entry.replay_domain,
        sequence_id: entry.sequence_id,
    }
}
