//! Which time-based sequences are listened to, and from when to when.

use std::{ops::RangeInclusive, time::Duration};

use knock_common::otp::Octets;
use knock_sequence::duration::millis;

use crate::{
    host::clock,
    model::settings::{Otp, Sequence},
    sequences::replay_cache::Floor,
};

/// Clocks that are read one after the other show a little more the second time; what is worked out
/// from them should be the same.
const STEP_MS: u64 = 50;

/// After this at the latest it is noticed that somebody has set the clock, in milliseconds.
const NOTICE_MS: u64 = 2_000;

/// For how long a sequence is remembered as used when its time is over, in milliseconds: so far back
/// may the clock be set.
const MEMORY_MS: u64 = 3_600_000;

/// What two clocks show at the same moment, in milliseconds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Clocks {
    /// Since 1970: what knockers know, and what somebody may set.
    pub unix_ms: u64,
    /// Since boot: what the kernel side knows.
    pub boot_ms: u64,
}

impl Clocks {
    /// Now, which is this moment since boot.
    pub fn at(boot_ms: u64) -> Self {
        Self {
            unix_ms: clock::unix_ms(),
            boot_ms,
        }
    }
}

/// The sequences of one door.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Timed {
    otp: Otp,
    period_ms: u64,
    sequence_timeout_ms: u64,
    replay_domain: u32,
    floor: Floor,
    is_withdrawn: bool,
}

impl Timed {
    /// Those of a door on which knocking may take as long as `sequence_timeout`.
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

    /// The same, but only those of periods that begin after this are listened to.
    #[must_use]
    pub fn after(self, floor: Floor) -> Self {
        Self { floor, ..self }
    }

    /// As [`Timed::after`], from now on.
    pub const fn raise(&mut self, floor: Floor) {
        self.floor = floor;
    }

    /// Under which number it is noted that a sequence was used: the same for all doors that have
    /// this secret.
    pub const fn replay_domain(&self) -> u32 {
        self.replay_domain
    }

    /// From now on nothing is listened to.
    pub const fn withdraw(&mut self) {
        self.is_withdrawn = true;
    }

    /// The number of the last period that may have been listened to before it is known what was
    /// used; none if everything is known.
    fn last_unknown(&self, now: Clocks) -> Option<u64> {
        let floor_ms = self.floor.at(now.unix_ms, now.boot_ms);
        (floor_ms > 0).then(|| floor_ms / self.period_ms + u64::from(self.otp.skew))
    }

    /// How long it takes until a sequence of the current period is listened to, because of what is
    /// not known, in milliseconds.
    pub fn waits_ms(&self, now: Clocks) -> u64 {
        let first = self.last_unknown(now).map_or(0, |last| last + 1);
        first
            .saturating_mul(self.period_ms)
            .saturating_sub(now.unix_ms)
    }

    /// When a period begins, in milliseconds since 1970.
    pub fn begin_ms(&self, sequence_id: u32) -> u64 {
        u64::from(sequence_id).saturating_mul(self.period_ms)
    }

    /// What is listened to at a moment.
    pub fn sequences(&self, now: Clocks) -> Vec<Sequence> {
        let booted_ms = now.unix_ms.saturating_sub(now.boot_ms) / STEP_MS * STEP_MS;
        let sequence = |period: u64| {
            Some(Sequence {
                knocks: self.otp.sequences.half(None, period)?,
                // 0 is none.
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
        let periods = self.periods(now).filter(is_known);
        periods.filter_map(sequence).collect()
    }

    /// The current period, as many before and after as the door tolerates, and before those the ones
    /// in which somebody may have begun who is still on the way.
    fn periods(&self, now: Clocks) -> RangeInclusive<u64> {
        let skew = u64::from(self.otp.skew);
        let oldest = now.unix_ms.saturating_sub(self.sequence_timeout_ms) / self.period_ms;
        oldest.saturating_sub(skew)..=now.unix_ms / self.period_ms + skew
    }

    /// Until when a period's sequence may be begun, in milliseconds since 1970.
    fn end_ms(&self, period: u64) -> u64 {
        let periods = period.saturating_add(u64::from(self.otp.skew) + 1);
        periods.saturating_mul(self.period_ms)
    }

    /// When to look again, in milliseconds since boot: something else may be listened to.
    pub fn changes_ms(&self, now: Clocks) -> u64 {
        let ahead = |time: u64| self.period_ms - time % self.period_ms;
        let begins = ahead(now.unix_ms);
        let ends = ahead(now.unix_ms.saturating_sub(self.sequence_timeout_ms));
        now.boot_ms + begins.min(ends).min(NOTICE_MS)
    }

    /// Whether a period is over for so long that nobody will listen to its sequence any more.
    pub fn is_over(&self, sequence_id: u32, now: Clocks) -> bool {
        let end = self
            .end_ms(sequence_id.into())
            .saturating_add(self.sequence_timeout_ms);
        end.saturating_add(MEMORY_MS) < now.unix_ms
    }
}

/// Part of what the secret makes of a period that never comes: it says nothing of those that do.
fn replay_domain(otp: &Otp) -> u32 {
    let octets = Octets::of(&otp.sequences.secret, None, u64::MAX);
    u32::from_be_bytes([0, 1, 2, 3].map(|knock| octets.get(knock)))
}
