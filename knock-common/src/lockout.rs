//! Sources whose attempts failed too often are not listened to for a while.

use crate::{
    Address, World,
    layout::{Active, Config},
    time::Moment,
    world::{Table, Word},
};

/// Failed attempts and the last one's time: one word.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Failures {
    /// The last failed attempt, in milliseconds since boot.
    pub last_ms: u64,
    /// Failed attempts until then, none of them forgotten.
    pub count: u16,
}

impl Failures {
    /// The word that the map holds.
    #[inline(always)]
    pub const fn to_word(self) -> u64 {
        self.last_ms << 16 | self.count as u64
    }

    /// The failures that a word of the map means.
    #[inline(always)]
    pub const fn from_word(word: u64) -> Self {
        Self {
            last_ms: word >> 16,
            count: word as u16,
        }
    }

    #[inline(always)]
    const fn are_remembered(self, now: Moment, config: &Config) -> bool {
        now.millis() < self.last_ms.saturating_add(config.lockout_ms)
    }
}

#[inline(always)]
fn subject(source: Address, active: Active) -> Address {
    if active.has(Active::LOCKOUT_GLOBAL) {
        Address::ANY
    } else {
        source
    }
}

/// Whether knocks of a source are not listened to.
#[inline(always)]
pub fn is_locked_out<W: World>(
    world: &W,
    source: Address,
    active: Active,
    config: &Config,
    now: Moment,
) -> bool {
    if !active.has(Active::LOCKOUT) {
        return false;
    }
    let Some(word) = world.lockouts().find(&subject(source, active)) else {
        return false;
    };
    let failures = Failures::from_word(word.load());
    u32::from(failures.count) >= config.lockout_failures && failures.are_remembered(now, config)
}

/// Counts a failed attempt.
#[inline(always)]
pub fn fail<W: World>(world: &W, source: Address, active: Active, config: &Config, now: Moment) {
    if !active.has(Active::LOCKOUT) {
        return;
    }
    let key = subject(source, active);
    let fresh = Failures {
        last_ms: now.millis(),
        count: 1,
    };
    let Some(word) = world.lockouts().find(&key) else {
        world.lockouts().insert(&key, fresh.to_word());
        return;
    };
    let old = Failures::from_word(word.load());
    let count = if old.are_remembered(now, config) {
        old.count.saturating_add(1)
    } else {
        1
    };
    // Two CPUs that fail the same source at once may count one; the next failure comes soon.
    word.replace(old.to_word(), Failures { count, ..fresh }.to_word());
}
