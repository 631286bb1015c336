//! Doors whose sequences change: what is listened to now, and what becomes of what was used.
//!
//! The kernel side gives a grant for a sequence once and notes that in `USED` before. Here it is
//! put away for good, another sequence takes its place, and the note goes. Until then nobody opens
//! with it again, whatever becomes of this process.

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
        one_time::{OneTimeFile, Standing},
        replay_cache::{FORGOTTEN_MS, Floor},
        time_based::{Clocks, Timed},
    },
};

/// For how long a sequence is good without this process, which alone can put it away, in
/// milliseconds: one to two times this.
const LEASE_MS: u64 = 30_000;

/// How long a note stays at least, in milliseconds: a packet that was on its way through a sequence
/// when that was taken away still has to find it.
const NOTE_MS: u64 = 10_000;

/// Where the changing sequences of a configuration come from, by the places of their doors.
#[derive(Debug, Default)]
pub struct Sources(BTreeMap<usize, Source>);

/// Where the sequences of one door come from.
#[derive(Debug)]
enum Source {
    OneTime(OneTimeFile),
    Otp(Timed),
}

impl Sources {
    /// Opens what a configuration names. What can't be had disables its door and nothing else. What
    /// was used before `floor` is not known.
    pub fn open(settings: &Settings, floor: Floor) -> Self {
        let doors = settings.doors.iter().enumerate();
        let source = |(place, door): (_, &Door)| {
            let dynamic = door.dynamic.as_ref()?;
            Some((place, Source::open(settings, door, dynamic, floor)))
        };
        Self(doors.filter_map(source).collect())
    }

    /// What is listened to at a moment, in milliseconds since boot.
    pub fn sequences(&self, now_ms: u64) -> Sequences {
        let sources = self.0.iter();
        sources
            .map(|(&place, source)| (place, source.sequences(now_ms)))
            .collect()
    }

    /// When something else is listened to, in milliseconds since boot; `None` if never.
    pub fn changes_ms(&self, now_ms: u64) -> Option<u64> {
        let sources = self.0.values();
        sources.map(|source| source.changes_ms(now_ms)).min()
    }

    /// How it is with the files of one-time sequences, by the places of their doors.
    fn files(&self) -> BTreeMap<usize, Standing> {
        let sources = self.0.iter();
        sources
            .filter_map(|(&place, source)| Some((place, source.file()?.standing())))
            .collect()
    }

    /// From now on nothing is listened to.
    fn withdraw(&mut self) {
        for source in self.0.values_mut() {
            match source {
                Source::OneTime(file) => file.withdraw(),
                Source::Otp(timed) => timed.withdraw(),
            }
        }
    }

    /// What was withdrawn is put away.
    fn close(&self) {
        self.0
            .values()
            .filter_map(Source::file)
            .for_each(OneTimeFile::close);
    }

    /// Puts a sequence away that was used, wherever it is; tells whether it is, for good. None if no
    /// door has it.
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

    /// Time-based sequences are good only from here on.
    fn raise(&mut self, floor: Floor) {
        for source in self.0.values_mut() {
            match source {
                Source::Otp(timed) => timed.raise(floor),
                Source::OneTime(_) => {}
            }
        }
    }

    /// The latest begin of a time-based sequence of these, in milliseconds since 1970.
    fn begin_ms(&self, keys: &[UsedKey]) -> Option<u64> {
        let begin = |key: &UsedKey| {
            let of_key = self
                .0
                .values()
                .filter(|source| source.replay_domain() == key.replay_domain);
            of_key
                .filter_map(|source| source.begin_ms(key.sequence_id))
                .max()
        };
        keys.iter().filter_map(begin).max()
    }

    /// How long it takes until all time-based doors can be opened, in milliseconds.
    fn waits_ms(&self, now_ms: u64) -> u64 {
        let waits = self.door_waits_ms(now_ms);
        waits.into_values().max().unwrap_or(0)
    }

    fn door_waits_ms(&self, now_ms: u64) -> BTreeMap<usize, u64> {
        let waits = self.0.iter().map(|(&place, source)| match source {
            Source::Otp(timed) => (place, timed.waits_ms(Clocks::at(now_ms))),
            Source::OneTime(_) => (place, 0),
        });
        waits.collect()
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
                let current = file.current().into_iter();
                let sequence = |current: crate::sequences::one_time::Current| Sequence {
                    knocks: current.knocks,
                    sequence_id: current.sequence_id,
                    replay_domain: file.replay_domain(),
                    good_until_ms: lease(now_ms, 2),
                    per_source: Vec::new(),
                };
                current.map(sequence).collect()
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
            // Why not is told of the file.
            Self::OneTime(file) => file.mark_used(sequence_id).is_ok(),
            Self::Otp(timed) => timed.is_over(sequence_id, Clocks::at(clock::boot_ms())),
        }
    }
}

/// The end of a lease: always the same within [`LEASE_MS`].
const fn lease(now_ms: u64, leases: u64) -> u64 {
    (now_ms / LEASE_MS + leases) * LEASE_MS
}

/// What the maps of a configuration hold, kept up with its sources.
#[derive(Debug, Default)]
pub struct LiveTables {
    sources: Sources,
    sequences: Sequences,
    /// What the maps were filled with, if anything of it changes.
    tables: Option<Tables>,
    /// What was used before this is not known.
    floor: Floor,
}

impl LiveTables {
    /// Compiles a configuration with the sequences that its doors have now, and keeps what is needed
    /// to change them. A door whose sequences do not go together with the others' has none until
    /// they change.
    ///
    /// # Errors
    /// What `compile` finds wrong with everything else.
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

    /// From when on it is known what was used.
    pub const fn floor(&self) -> Floor {
        self.floor
    }

    /// Whether a sequence that was used is one of these doors', and its time may still come.
    pub fn may_come(&self, key: &UsedKey) -> bool {
        let now = Clocks::at(clock::boot_ms());
        self.sources.0.values().any(|source| {
            source.replay_domain() == key.replay_domain
                && match source {
                    Source::OneTime(_) => true,
                    Source::Otp(timed) => !timed.is_over(key.sequence_id, now),
                }
        })
    }

    /// How long it takes until all time-based doors can be opened because of that, in milliseconds.
    pub fn waits_ms(&self, now_ms: u64) -> u64 {
        self.sources.waits_ms(now_ms)
    }

    /// The same for each door with changing sequences, by its place.
    pub fn door_waits_ms(&self, now_ms: u64) -> BTreeMap<usize, u64> {
        self.sources.door_waits_ms(now_ms)
    }

    /// Whether anything ever changes.
    pub const fn is_moving(&self) -> bool {
        self.tables.is_some()
    }

    /// When to look again, in milliseconds since boot; `None` if nothing ever changes by itself.
    pub fn changes_ms(&self, now_ms: u64) -> Option<u64> {
        self.sources.changes_ms(now_ms)
    }

    /// How it is with the files of one-time sequences, by the places of their doors.
    pub fn files(&self) -> BTreeMap<usize, Standing> {
        self.sources.files()
    }

    /// Listens to one-time sequences no more, and puts away what was used: after that nothing has to
    /// be remembered.
    ///
    /// # Errors
    /// As for [`LiveTables::follow`].
    pub fn withdraw(&mut self, plan: &Plan, firewall: &mut XdpProgram) -> Result<()> {
        if !self.is_moving() {
            return Ok(());
        }
        self.sources.withdraw();
        self.follow(plan, firewall)?;
        // What was used while that was done.
        self.follow(plan, firewall)?;
        self.sources.close();
        Ok(())
    }

    /// Puts away what was used, and puts in place what is listened to now.
    ///
    /// # Errors
    /// The maps can't be read or written: nothing is lost, and the next time does it.
    pub fn follow(&mut self, plan: &Plan, firewall: &mut XdpProgram) -> Result<()> {
        let used = maps::entries(&firewall.used()?, USED_MAX).into_iter();
        let now_ms = clock::boot_ms();
        // The door may come back.
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
        // If the clock is set back that far, their time comes again.
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
        maps::delete(&mut used, key).context("forgetting a sequence that was put away")?;
    }
    Ok(())
}

/// Compiles, and leaves out sequences of doors that stand in the way.
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
            let place = conflict.door.filter(|place| left.contains_key(place));
            let door = place.and_then(|place| settings.doors.get(place));
            if let (Some(place), Some(door)) = (place, door) {
                left.remove(&place);
                removed = true;
                tracing::warn!(
                    "nobody can open door {} until its sequences change: {}",
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

/// Whether sequences are the same but for the time until which they are good.
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
