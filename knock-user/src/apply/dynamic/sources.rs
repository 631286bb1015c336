//! The sources of changing sequences: one-time files and shared secrets.

use std::collections::BTreeMap;

use knock_common::layout::UsedKey;

use crate::{
    config::one_time_lines::OneTimeCheck,
    host::clock,
    model::settings::{AcceptedSequence, Door, Dynamic, Sequences, Settings},
    sequences::{
        one_time::{Current, FileState, OneTimeFile},
        replay_cache::Floor,
        time_based::{Clocks, TimeBasedDoor},
    },
};

/// How long the kernel side accepts a one-time sequence without this process, which alone can
/// retire it: one to two times this, in milliseconds.
const LEASE_MS: u64 = 30_000;

/// The sources of changing sequences, by door index.
#[derive(Debug, Default)]
pub struct SequenceSources(pub(super) BTreeMap<usize, SequenceSource>);

/// The source of the sequences of one door.
#[derive(Debug)]
pub(super) enum SequenceSource {
    OneTime(OneTimeFile),
    Otp(TimeBasedDoor),
}

impl SequenceSources {
    /// Opens the sources that a configuration names. A source that can't be opened disables only
    /// its door. It is unknown which sequences were used before `floor`.
    pub fn open(settings: &Settings, floor: Floor) -> Self {
        let source = |(index, door): (_, &Door)| {
            let dynamic = door.dynamic.as_ref()?;
            Some((index, SequenceSource::open(settings, door, dynamic, floor)))
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
    pub(super) fn changes_ms(&self, now_ms: u64) -> Option<u64> {
        self.0
            .values()
            .map(|source| source.changes_ms(now_ms))
            .min()
    }

    /// Returns the state of the one-time files, by door index.
    pub(super) fn files(&self) -> BTreeMap<usize, FileState> {
        self.0
            .iter()
            .filter_map(|(&index, source)| Some((index, source.file()?.state())))
            .collect()
    }

    /// Stops accepting sequences.
    pub(super) fn withdraw(&mut self) {
        for source in self.0.values_mut() {
            match source {
                SequenceSource::OneTime(file) => file.withdraw(),
                SequenceSource::Otp(timed) => timed.withdraw(),
            }
        }
    }

    /// Records that the withdrawn sequences are no longer accepted.
    pub(super) fn close(&self) {
        self.0
            .values()
            .filter_map(SequenceSource::file)
            .for_each(OneTimeFile::close);
    }

    /// Retires a used sequence in every source that has it. Returns whether all have done so
    /// durably; none if no door has it.
    pub(super) fn retire(&mut self, key: UsedKey) -> Option<bool> {
        let of_key = |source: &&SequenceSource| source.replay_domain() == key.replay_domain;
        let file = self
            .0
            .values()
            .filter(of_key)
            .find_map(SequenceSource::file);
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
    pub(super) fn raise(&mut self, floor: Floor) {
        for source in self.0.values_mut() {
            match source {
                SequenceSource::Otp(timed) => timed.raise(floor),
                SequenceSource::OneTime(_) => {}
            }
        }
    }

    /// Returns the latest start of a time-based sequence among these, in milliseconds since 1970.
    pub(super) fn begin_ms(&self, keys: &[UsedKey]) -> Option<u64> {
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
    pub(super) fn waits_ms(&self, now_ms: u64) -> u64 {
        self.door_waits_ms(now_ms).into_values().max().unwrap_or(0)
    }

    pub(super) fn door_waits_ms(&self, now_ms: u64) -> BTreeMap<usize, u64> {
        self.0
            .iter()
            .map(|(&index, source)| match source {
                SequenceSource::Otp(timed) => (index, timed.waits_ms(Clocks::at(now_ms))),
                SequenceSource::OneTime(_) => (index, 0),
            })
            .collect()
    }
}

impl SequenceSource {
    pub(super) fn open(settings: &Settings, door: &Door, dynamic: &Dynamic, floor: Floor) -> Self {
        match dynamic {
            Dynamic::OneTime(one_time) => {
                let mut lines = OneTimeCheck::new(settings, door);
                let refuses = |knocks: &[_]| lines.refuse(knocks);
                let file = OneTimeFile::open(&one_time.file, one_time.lookahead, refuses);
                Self::OneTime(file)
            }
            Dynamic::Otp(otp) => {
                Self::Otp(TimeBasedDoor::new(otp, door.sequence_timeout).after(floor))
            }
        }
    }

    pub(super) const fn replay_domain(&self) -> u32 {
        match self {
            Self::OneTime(file) => file.replay_domain(),
            Self::Otp(timed) => timed.replay_domain(),
        }
    }

    pub(super) fn begin_ms(&self, sequence_id: u32) -> Option<u64> {
        match self {
            Self::OneTime(_) => None,
            Self::Otp(timed) => Some(timed.begin_ms(sequence_id)),
        }
    }

    pub(super) const fn file(&self) -> Option<&OneTimeFile> {
        match self {
            Self::OneTime(file) => Some(file),
            Self::Otp(_) => None,
        }
    }

    pub(super) fn sequences(&self, now_ms: u64) -> Vec<AcceptedSequence> {
        match self {
            Self::OneTime(file) => {
                let sequence = |current: Current| AcceptedSequence {
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

    pub(super) fn changes_ms(&self, now_ms: u64) -> u64 {
        match self {
            Self::OneTime(_) => lease(now_ms, 1),
            Self::Otp(timed) => timed.changes_ms(Clocks::at(now_ms)),
        }
    }

    pub(super) fn retire(&mut self, sequence_id: u32) -> bool {
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
