//! Doors whose sequences change: what is listened to now, and what becomes of what was used.
//!
//! The kernel side gives a grant for a sequence once and notes that in `SPENT` before. Here it is
//! put away for good, another sequence takes its place, and the note goes. Until then nobody opens
//! with it again, whatever becomes of this process.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result};
use knock_common::layout::{SPENT_MAX, SpentKey};

use crate::{
    clock,
    compile::{Conflict, Difference, Sequences, Tables},
    config::{
        Lines,
        checked::{Door, Moving, Sequence, Settings},
    },
    firewall::Firewall,
    maps,
    one_time::{OneTimeFile, Standing},
    otp::{Clocks, Timed},
    start::Plan,
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
    /// Opens what a configuration names. What can't be had disables its door and nothing else.
    pub fn open(settings: &Settings) -> Self {
        let doors = settings.doors.iter().enumerate();
        let source = |(place, door): (_, &Door)| {
            Some((place, Source::open(settings, door, door.moving.as_ref()?)))
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

    /// From now on no one-time sequence is listened to.
    fn withdraw(&mut self) {
        for source in self.0.values_mut() {
            match source {
                Source::OneTime(file) => file.withdraw(),
                Source::Otp(_) => {}
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

    /// Puts a sequence away that was used; tells whether it is, for good.
    fn put_away(&mut self, place: usize, mark: u32) -> bool {
        let source = self.0.get_mut(&place);
        source.is_none_or(|source| source.put_away(mark))
    }
}

impl Source {
    fn open(settings: &Settings, door: &Door, moving: &Moving) -> Self {
        match moving {
            Moving::OneTime(one_time) => {
                let mut lines = Lines::new(settings, door);
                let refuses = |knocks: &[_]| lines.refuse(knocks);
                let file = OneTimeFile::open(&one_time.file, one_time.lookahead, refuses);
                Self::OneTime(file)
            }
            Moving::Otp(otp) => Self::Otp(Timed::new(otp, door.within)),
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
                let sequence = |current: crate::one_time::Current| Sequence {
                    knocks: current.knocks,
                    mark: current.mark,
                    good_until_ms: lease(now_ms, 2),
                    bound: Vec::new(),
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

    fn put_away(&mut self, mark: u32) -> bool {
        match self {
            // Why not is told of the file.
            Self::OneTime(file) => file.mark_used(mark).is_ok(),
            Self::Otp(timed) => timed.is_over(mark, Clocks::at(clock::boot_ms())),
        }
    }
}

/// The end of a lease: always the same within [`LEASE_MS`].
const fn lease(now_ms: u64, leases: u64) -> u64 {
    (now_ms / LEASE_MS + leases) * LEASE_MS
}

/// What the maps of a configuration hold, kept up with its sources.
#[derive(Debug, Default)]
pub struct Kept {
    sources: Sources,
    sequences: Sequences,
    /// What the maps were filled with, if anything of it changes.
    tables: Option<Tables>,
}

impl Kept {
    /// Compiles a configuration with the sequences that its doors have now, and keeps what is needed
    /// to change them. A door whose sequences do not go together with the others' has none until
    /// they change.
    ///
    /// # Errors
    /// What `compile` finds wrong with everything else.
    pub fn compile(
        settings: &Settings,
        mut compile: impl FnMut(&Sequences) -> Result<Tables, Vec<Conflict>>,
    ) -> Result<(Self, Tables), Vec<Conflict>> {
        let sources = Sources::open(settings);
        let sequences = sources.sequences(clock::boot_ms());
        let tables = without_conflicts(settings, &sequences, &mut compile)?;
        let moves = !sources.0.is_empty();
        let kept = Self {
            sources,
            sequences,
            tables: moves.then(|| tables.clone()),
        };
        Ok((kept, tables))
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
    /// As for [`Kept::follow`].
    pub fn withdraw(&mut self, plan: &Plan, firewall: &mut Firewall) -> Result<()> {
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
    pub fn follow(&mut self, plan: &Plan, firewall: &mut Firewall) -> Result<()> {
        let spent = maps::entries(&firewall.spent()?, SPENT_MAX).into_iter();
        let Some(tables) = &mut self.tables else {
            return forget(firewall, spent.map(|(key, _)| key));
        };
        let now_ms = clock::boot_ms();
        let settings = plan.settings();
        let mut put_away = |&(key, used_ms): &(SpentKey, u64)| {
            let place = place(settings, tables, key);
            place.is_none_or(|place| self.sources.put_away(place, key.mark))
                && used_ms.saturating_add(NOTE_MS) <= now_ms
        };
        let done: Vec<_> = spent.filter(|entry| put_away(entry)).collect();
        let sequences = self.sources.sequences(now_ms);
        if sequences != self.sequences {
            let mut compile = |sequences: &Sequences| plan.recompile(sequences, tables, now_ms);
            let moved = match are_renewed(&self.sequences, &sequences) {
                true => tables.renewed(settings, &sequences),
                false => without_conflicts(settings, &sequences, &mut compile)
                    .map_err(|conflicts| plan.checked.problems(conflicts))?,
            };
            firewall
                .rearrange(Difference::new(tables, &moved))
                .context("changing sequences")?;
            *tables = moved;
            self.sequences = sequences;
        }
        let current: BTreeSet<_> = tables.doors.iter().map(spent_key).collect();
        let done = done.into_iter().map(|(key, _)| key);
        forget(firewall, done.filter(|key| !current.contains(key)))
    }
}

fn forget(firewall: &mut Firewall, keys: impl Iterator<Item = SpentKey>) -> Result<()> {
    let mut spent = firewall.spent()?;
    for key in keys {
        maps::delete(&mut spent, key).context("forgetting a sequence that was put away")?;
    }
    Ok(())
}

/// Compiles, and leaves out sequences of doors that stand in the way.
fn without_conflicts(
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

/// The place of the door that a note is about.
fn place(settings: &Settings, tables: &Tables, key: SpentKey) -> Option<usize> {
    let name = tables.names.get(usize::try_from(key.door).ok()?)?;
    settings.doors.iter().position(|door| door.name == *name)
}

const fn spent_key(entry: &knock_common::layout::Door) -> SpentKey {
    SpentKey {
        door: entry.number as u32,
        mark: entry.mark,
    }
}
