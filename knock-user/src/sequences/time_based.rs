//! Computes which time-based sequences are accepted, and when that changes.

use std::{ops::RangeInclusive, time::Duration};

use knock_common::otp::Octets;
use knock_sequence::duration::millis;

use crate::{
    host::clock,
    model::settings::{AcceptedSequence, Otp},
    sequences::replay_cache::Floor,
};

/// Computed times are rounded down to this, in milliseconds: two clocks that are read one after the
/// other differ slightly each time.
const STEP_MS: u64 = 50;

/// The longest time until a change of the wall clock is noticed, in milliseconds.
const NOTICE_MS: u64 = 2_000;

/// How long an expired sequence is recorded as used, in milliseconds: the clock may be set back
/// this far.
const MEMORY_MS: u64 = 3_600_000;

/// The time of two clocks at the same moment, in milliseconds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Clocks {
    /// Since 1970: the clock that clients use, and that can be set.
    pub unix_ms: u64,
    /// Since boot: the clock of the kernel side.
    pub boot_ms: u64,
}

impl Clocks {
    /// Returns the current times, given the time since boot.
    pub fn at(boot_ms: u64) -> Self {
        Self {
            unix_ms: clock::unix_ms(),
            boot_ms,
        }
    }
}

/// The time-based sequences of a door.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TimeBasedDoor {
    otp: Otp,
    period_ms: u64,
    sequence_timeout_ms: u64,
    replay_domain: u32,
    floor: Floor,
    is_withdrawn: bool,
}

impl TimeBasedDoor {
    /// Creates the sequences of a door with this time limit for a whole sequence.
    pub fn new(otp: &Otp, sequence_timeout: Duration) -> Self {
        Self {
            otp: otp.clone(),
            period_ms: millis(otp.sequences.period).max(1),
            sequence_timeout_ms: millis(sequence_timeout),
            replay_domain: replay_domain(otp),
            floor: Floor::default(),
            is_withdrawn: false,
        }
    }

    /// Accepts only sequences of periods that begin after `floor`.
    #[must_use]
    pub fn after(self, floor: Floor) -> Self {
        Self { floor, ..self }
    }

    /// Replaces the floor.
    pub const fn raise(&mut self, floor: Floor) {
        self.floor = floor;
    }

    /// Returns the number under which used sequences are recorded: the same for all doors that have
    /// this secret.
    pub const fn replay_domain(&self) -> u32 {
        self.replay_domain
    }

    /// Stops accepting sequences.
    pub const fn withdraw(&mut self) {
        self.is_withdrawn = true;
    }

    /// Returns the last period that may have been accepted before the record of used sequences
    /// begins; none if the record is complete.
    fn last_unknown(&self, now: Clocks) -> Option<u64> {
        let floor_ms = self.floor.at(now.unix_ms, now.boot_ms);
        (floor_ms > 0).then(|| floor_ms / self.period_ms + u64::from(self.otp.skew))
    }

    /// Returns how long no sequence of the current period is accepted, because the record of used
    /// ones is incomplete, in milliseconds.
    pub fn waits_ms(&self, now: Clocks) -> u64 {
        let first = self.last_unknown(now).map_or(0, |last| last + 1);
        first
            .saturating_mul(self.period_ms)
            .saturating_sub(now.unix_ms)
    }

    /// Returns when a period begins, in milliseconds since 1970.
    pub fn begin_ms(&self, sequence_id: u32) -> u64 {
        u64::from(sequence_id).saturating_mul(self.period_ms)
    }

    /// Returns the sequences that are accepted at a time.
    pub fn sequences(&self, now: Clocks) -> Vec<AcceptedSequence> {
        let booted_ms = now.unix_ms.saturating_sub(now.boot_ms) / STEP_MS * STEP_MS;
        let sequence = |period: u64| {
            Some(AcceptedSequence {
                knocks: self.otp.sequences.half(None, period)?,
                // 0 means no sequence.
                sequence_id: u32::try_from(period)
                    .ok()
                    .filter(|&sequence_id| sequence_id > 0)?,
                replay_domain: self.replay_domain,
                good_until_ms: self.end_ms(period).saturating_sub(booted_ms),
                per_source: match self.otp.sequences.bind_source {
                    true => self.otp.sequences.protocols.clone(),
                    false => Vec::new(),
                },
            })
        };
        if self.is_withdrawn {
            return Vec::new();
        }
        let last_unknown = self.last_unknown(now);
        let is_known = |period: &u64| last_unknown.is_none_or(|last| *period > last);
        self.periods(now)
            .filter(is_known)
            .filter_map(sequence)
            .collect()
    }

    /// Returns the current period, those within the tolerated skew, and those before in which a
    /// client may have started that has not finished.
    fn periods(&self, now: Clocks) -> RangeInclusive<u64> {
        let skew = u64::from(self.otp.skew);
        let oldest = now.unix_ms.saturating_sub(self.sequence_timeout_ms) / self.period_ms;
        oldest.saturating_sub(skew)..=now.unix_ms / self.period_ms + skew
    }

    /// Returns until when the sequence of a period can be started, in milliseconds since 1970.
    fn end_ms(&self, period: u64) -> u64 {
        period
            .saturating_add(u64::from(self.otp.skew) + 1)
            .saturating_mul(self.period_ms)
    }

    /// Returns when the accepted sequences may change, in milliseconds since boot.
    pub fn changes_ms(&self, now: Clocks) -> u64 {
        let ahead = |time: u64| self.period_ms - time % self.period_ms;
        let begins = ahead(now.unix_ms);
        let ends = ahead(now.unix_ms.saturating_sub(self.sequence_timeout_ms));
        now.boot_ms + begins.min(ends).min(NOTICE_MS)
    }

    /// Returns whether a period ended so long ago that its sequence will not be accepted again.
    pub fn is_over(&self, sequence_id: u32, now: Clocks) -> bool {
        self.end_ms(sequence_id.into())
            .saturating_add(self.sequence_timeout_ms)
            .saturating_add(MEMORY_MS)
            < now.unix_ms
    }
}

/// Derives the number from a period that never occurs, so it reveals nothing about real sequences.
fn replay_domain(otp: &Otp) -> u32 {
    let octets = Octets::of(&otp.sequences.secret, None, u64::MAX);
    u32::from_be_bytes([0, 1, 2, 3].map(|knock| octets.get(knock)))
}
