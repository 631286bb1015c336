//! Sources whose attempts failed too often are not listened to for a while.

use crate::{
    Address, World,
    layout::{Config, Features},
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
fn subject(source: Address, features: Features) -> Address {
    if features.has(Features::LOCKOUT_GLOBAL) {
        Address::ANY
    } else {
        source
    }
}

/// Whether knocks of a source are not listened to.
#[inline(always)]
pub fn is_locked_out<W: World>(world: &W, source: Address, config: &Config, now: Moment) -> bool {
    let features = world.features();
    if !features.has(Features::LOCKOUT) {
        return false;
    }
    let Some(word) = world.lockouts().find(&subject(source, features)) else {
        return false;
    };
    let failures = Failures::from_word(word.load());
    u32::from(failures.count) >= config.lockout_failures && failures.are_remembered(now, config)
}

/// Counts a failed attempt.
#[inline(always)]
pub fn fail<W: World>(world: &W, source: Address, config: &Config, now: Moment) {
    let features = world.features();
    if !features.has(Features::LOCKOUT) {
        return;
    }
    let key = subject(source, features);
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sim::Sim;

    const A: Address = Address {
        words: [1, 0, 0, 0],
    };
    const B: Address = Address {
        words: [2, 0, 0, 0],
    };

    fn config(failures: u32, ms: u64) -> Config {
        Config {
            lockout_failures: failures,
            lockout_ms: ms,
            ..Config::default()
        }
    }

    fn with_lockout() -> Sim {
        Sim {
            features: Features::LOCKOUT,
            ..Sim::default()
        }
    }

    const fn at(ms: u64) -> Moment {
        Moment::from_nanos(ms * 1_000_000)
    }

    #[test]
    fn who_is_locked_out_when() {
        const SOURCE: Features = Features::LOCKOUT;
        const GLOBAL: Features = SOURCE.with(Features::LOCKOUT_GLOBAL);
        // Three failures of A at these milliseconds lock out for 1000; is it, and B, then?
        for (name, features, fails, now, a, b) in [
            ("never", SOURCE, &[][..], 0, false, false),
            ("too few", SOURCE, &[10, 20], 30, false, false),
            ("enough", SOURCE, &[10, 20, 30], 30, true, false),
            ("more", SOURCE, &[10, 20, 30, 40], 41, true, false),
            (
                "to the last millisecond",
                SOURCE,
                &[10, 20, 30],
                1029,
                true,
                false,
            ),
            ("over", SOURCE, &[10, 20, 30], 1030, false, false),
            (
                "each remembered by the next",
                SOURCE,
                &[10, 1009, 2008],
                2009,
                true,
                false,
            ),
            ("one forgotten", SOURCE, &[10, 20, 1020], 1021, false, false),
            ("everybody", GLOBAL, &[10, 20, 30], 30, true, true),
            ("everybody, over", GLOBAL, &[10, 20, 30], 1030, false, false),
            ("off", Features(0), &[10, 20, 30], 30, false, false),
        ] {
            let sim = Sim {
                features,
                ..Sim::default()
            };
            let config = config(3, 1000);
            for &ms in fails {
                fail(&sim, A, &config, at(ms));
            }
            let locked_out = |who| is_locked_out(&sim, who, &config, at(now));
            assert_eq!((locked_out(A), locked_out(B)), (a, b), "{name}");
        }
    }

    #[test]
    fn the_count_stays_at_its_end() {
        let sim = with_lockout();
        for _ in 0..70_000 {
            fail(&sim, A, &config(1, u64::MAX), at(5));
        }
        let word = sim.lockouts.value(&A).unwrap();
        let most = Failures {
            last_ms: 5,
            count: u16::MAX,
        };
        assert_eq!(Failures::from_word(word), most);
    }

    proptest! {
        #[test]
        fn failures_survive_their_word(last_ms in 0_u64..1 << 48, count: u16) {
            let failures = Failures { last_ms, count };
            prop_assert_eq!(Failures::from_word(failures.to_word()), failures);
        }

        #[test]
        fn any_word_is_read(word: u64, now: u64, ms: u64, most: u32) {
            let sim = with_lockout();
            sim.lockouts.insert(&A, word);
            let (config, now) = (config(most, ms), Moment::from_nanos(now));
            is_locked_out(&sim, A, &config, now);
            fail(&sim, A, &config, now);
        }
    }
}
