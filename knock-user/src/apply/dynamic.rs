//! Keeps the maps up to date for doors whose sequences change, and retires sequences that were used.
//!
//! The kernel side records a sequence in `USED` before it gives the grant, and gives no second one
//! for it. User space then marks the sequence as used, reindexs it with the next one and deletes the
//! record. Until then no client can use the sequence again, even if this process is killed.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result};
use knock_common::layout::{USED_MAX, UsedKey};

use crate::{
    apply::plan::Plan,
    compile::{Conflict, Difference, Sequences, Tables},
    config::one_time_lines::Lines,
    host::clock,
    kernel::{maps, program::XdpProgram},
    model::settings::{Door, Dynamic, Sequence, Settings},
    sequences::{
        one_time::{Current, OneTimeFile, Standing},
        replay_cache::{FORGOTTEN_MS, Floor},
        time_based::{Clocks, Timed},
    },
};

/// How long the kernel side accepts a one-time sequence without this process, which alone can
/// retire it: one to two times this, in milliseconds.
const LEASE_MS: u64 = 30_000;

/// How long a record in `USED` stays at least, in milliseconds: a packet that is being judged by
/// the old sequence must still find it.
const NOTE_MS: u64 = 10_000;

/// The sources of changing sequences, by door index.
#[derive(Debug, Default)]
pub struct Sources(BTreeMap<usize, Source>);

/// The source of the sequences of one door.
#[derive(Debug)]
enum Source {
    OneTime(OneTimeFile),
    Otp(Timed),
}

impl Sources {
    /// Opens the sources that a configuration names. A source that can't be opened disables only
    /// its door. It is unknown which sequences were used before `floor`.
    pub fn open(settings: &Settings, floor: Floor) -> Self {
        let source = |(index, door): (_, &Door)| {
            let dynamic = door.dynamic.as_ref()?;
            Some((index, Source::open(settings, door, dynamic, floor)))
        };
        Self(
            settings
                .doors
                .iter()
                .enumerate()
                .filter_map(source)
                .collect(),
        )
    }

    /// Returns the sequences that are accepted at a time, in milliseconds since boot.
    pub fn sequences(&self, now_ms: u64) -> Sequences {
        self.0
            .iter()
            .map(|(&index, source)| (index, source.sequences(now_ms)))
            .collect()
    }

    /// Returns when the accepted sequences change, in milliseconds since boot; `None` if they never
    /// do.
    pub fn changes_ms(&self, now_ms: u64) -> Option<u64> {
        self.0
            .values()
            .map(|source| source.changes_ms(now_ms))
            .min()
    }

    /// Returns the state of the one-time files, by door index.
    fn files(&self) -> BTreeMap<usize, Standing> {
        self.0
            .iter()
            .filter_map(|(&index, source)| Some((index, source.file()?.standing())))
            .collect()
    }

    /// Stops accepting sequences.
    fn withdraw(&mut self) {
        for source in self.0.values_mut() {
            match source {
                Source::OneTime(file) => file.withdraw(),
                Source::Otp(timed) => timed.withdraw(),
            }
        }
    }

    /// Records that the withdrawn sequences are no longer accepted.
    fn close(&self) {
        self.0
            .values()
            .filter_map(Source::file)
            .for_each(OneTimeFile::close);
    }

    /// Retires a used sequence in every source that has it. Returns whether all have done so
    /// durably; none if no door has it.
    fn retire(&mut self, key: UsedKey) -> Option<bool> {
        let of_key = |source: &&Source| source.replay_domain() == key.replay_domain;
        let file = self.0.values().filter(of_key).find_map(Source::file);
        let knocks = file.and_then(|file| file.sequence(key.sequence_id).map(<[_]>::to_vec));
        let mut is_away = None;
        for source in self.0.values_mut() {
            // A copy of the file has the same line.
            let is_copy = knocks.as_deref().is_some_and(|knocks| {
                let file = source.file();
                file.and_then(|file| file.sequence(key.sequence_id)) == Some(knocks)
            });
            if source.replay_domain() == key.replay_domain || is_copy {
                is_away = Some(source.retire(key.sequence_id) && is_away.unwrap_or(true));
            }
        }
        is_away
    }

    /// Limits time-based sequences to those after `floor`.
    fn raise(&mut self, floor: Floor) {
        for source in self.0.values_mut() {
            match source {
                Source::Otp(timed) => timed.raise(floor),
                Source::OneTime(_) => {}
            }
        }
    }

    /// Returns the latest start of a time-based sequence among these, in milliseconds since 1970.
    fn begin_ms(&self, keys: &[UsedKey]) -> Option<u64> {
        let begin = |key: &UsedKey| {
            self.0
                .values()
                .filter(|source| source.replay_domain() == key.replay_domain)
                .filter_map(|source| source.begin_ms(key.sequence_id))
                .max()
        };
        keys.iter().filter_map(begin).max()
    }

    /// Returns how long the last time-based door stays closed, in milliseconds.
    fn waits_ms(&self, now_ms: u64) -> u64 {
        self.door_waits_ms(now_ms).into_values().max().unwrap_or(0)
    }

    fn door_waits_ms(&self, now_ms: u64) -> BTreeMap<usize, u64> {
        self.0
            .iter()
            .map(|(&index, source)| match source {
                Source::Otp(timed) => (index, timed.waits_ms(Clocks::at(now_ms))),
                Source::OneTime(_) => (index, 0),
            })
            .collect()
    }
}

impl Source {
    fn open(settings: &Settings, door: &Door, dynamic: &Dynamic, floor: Floor) -> Self {
        match dynamic {
            Dynamic::OneTime(one_time) => {
                let mut lines = Lines::new(settings, door);
                let refuses = |knocks: &[_]| lines.refuse(knocks);
                let file = OneTimeFile::open(&one_time.file, one_time.lookahead, refuses);
                Self::OneTime(file)
            }
            Dynamic::Otp(otp) => Self::Otp(Timed::new(otp, door.sequence_timeout).after(floor)),
        }
    }

    const fn replay_domain(&self) -> u32 {
        match self {
            Self::OneTime(file) => file.replay_domain(),
            Self::Otp(timed) => timed.replay_domain(),
        }
    }

    fn begin_ms(&self, sequence_id: u32) -> Option<u64> {
        match self {
            Self::OneTime(_) => None,
            Self::Otp(timed) => Some(timed.begin_ms(sequence_id)),
        }
    }

    const fn file(&self) -> Option<&OneTimeFile> {
        match self {
            Self::OneTime(file) => Some(file),
            Self::Otp(_) => None,
        }
    }

    fn sequences(&self, now_ms: u64) -> Vec<Sequence> {
        match self {
            Self::OneTime(file) => {
                let sequence = |current: Current| Sequence {
                    knocks: current.knocks,
                    sequence_id: current.sequence_id,
                    replay_domain: file.replay_domain(),
                    good_until_ms: lease(now_ms, 2),
                    per_source: Vec::new(),
                };
                file.current().into_iter().map(sequence).collect()
            }
            Self::Otp(timed) => timed.sequences(Clocks::at(now_ms)),
        }
    }

    fn changes_ms(&self, now_ms: u64) -> u64 {
        match self {
            Self::OneTime(_) => lease(now_ms, 1),
            Self::Otp(timed) => timed.changes_ms(Clocks::at(now_ms)),
        }
    }

    fn retire(&mut self, sequence_id: u32) -> bool {
        match self {
            // The state of the file has the reason of a failure.
            Self::OneTime(file) => file.mark_used(sequence_id).is_ok(),
            Self::Otp(timed) => timed.is_over(sequence_id, Clocks::at(clock::boot_ms())),
        }
    }
}

/// Returns the end of a lease, which is the same for all times within [`LEASE_MS`].
const fn lease(now_ms: u64, leases: u64) -> u64 {
    (now_ms / LEASE_MS + leases) * LEASE_MS
}

/// The tables in the maps, kept up to date with the sources of sequences.
#[derive(Debug, Default)]
pub struct LiveTables {
    sources: Sources,
    sequences: Sequences,
    /// The content of the maps, if any of it can change.
    tables: Option<Tables>,
    /// It is unknown which sequences were used before this.
    floor: Floor,
}

impl LiveTables {
    /// Compiles a configuration with the current sequences of its doors, and keeps what is needed
    /// to change them. A door whose sequences conflict with others gets none until they change.
    ///
    /// # Errors
    /// The conflicts that do not come from changing sequences.
    pub fn compile(
        settings: &Settings,
        floor: Floor,
        mut compile: impl FnMut(&Sequences) -> Result<Tables, Vec<Conflict>>,
    ) -> Result<(Self, Tables), Vec<Conflict>> {
        let sources = Sources::open(settings, floor);
        let sequences = sources.sequences(clock::boot_ms());
        let tables = compile_without_conflicting(settings, &sequences, &mut compile)?;
        let moves = !sources.0.is_empty();
        let kept = Self {
            sources,
            sequences,
            tables: moves.then(|| tables.clone()),
            floor,
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
                    Source::OneTime(_) => true,
                    Source::Otp(timed) => !timed.is_over(key.sequence_id, now),
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

    /// Returns when the sequences change next, in milliseconds since boot; `None` if they never do.
    pub fn changes_ms(&self, now_ms: u64) -> Option<u64> {
        self.sources.changes_ms(now_ms)
    }

    /// Returns the state of the one-time files, by door index.
    pub fn files(&self) -> BTreeMap<usize, Standing> {
        self.sources.files()
    }

    /// Stops accepting changing sequences and retires those that were used: afterwards the sources
    /// hold all that has to be remembered.
    ///
    /// # Errors
    /// As for [`LiveTables::follow`].
    pub fn withdraw(&mut self, plan: &Plan, firewall: &mut XdpProgram) -> Result<()> {
        if !self.is_dynamic() {
            return Ok(());
        }
        self.sources.withdraw();
        self.follow(plan, firewall)?;
        // Retires what was used in the meantime.
        self.follow(plan, firewall)?;
        self.sources.close();
        Ok(())
    }

    /// Retires used sequences and writes the current ones to the maps.
    ///
    /// # Errors
    /// The maps can't be read or written: nothing is lost, and the next call tries again.
    pub fn follow(&mut self, plan: &Plan, firewall: &mut XdpProgram) -> Result<()> {
        let used = maps::entries(&firewall.used()?, USED_MAX).into_iter();
        let now_ms = clock::boot_ms();
        // A door that was removed may be configured again.
        let is_long_ago = |used_ms: u64| used_ms.saturating_add(FORGOTTEN_MS) <= now_ms;
        let Some(tables) = &mut self.tables else {
            let old = used.filter(|&(_, used_ms)| is_long_ago(used_ms));
            return forget(firewall, old.map(|(key, _)| key));
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
            firewall
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
        forget(firewall, done.into_iter())
    }
}

fn forget(firewall: &mut XdpProgram, keys: impl Iterator<Item = UsedKey>) -> Result<()> {
    let mut used = firewall.used()?;
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

const fn used_key(entry: &knock_common::layout::Door) -> UsedKey {
    UsedKey {
        replay_domain: entry.replay_domain,
        sequence_id: entry.sequence_id,
    }
}
