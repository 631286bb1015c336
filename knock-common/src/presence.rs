//! The presence filter: one lookup shows that the big maps have nothing about a source.
//!
//! A slot holds until when there may be a grant or a flow, and until when an attempt, of any source that hashes to it.
//! A time that is too late costs a lookup only, so the hash needs no key, and user space may write [`ALWAYS`].

use crate::{Address, Subprograms, env::Word, layout::PRESENCE_SLOTS, time::Moment};

/// The word of a slot whose sources must always be looked up.
pub const ALWAYS: u64 = u64::MAX;

const SLOT_BITS: u32 = PRESENCE_SLOTS.trailing_zeros();

/// Few CPUs write to one slot at the same moment; after this many tries a CPU writes [`ALWAYS`].
const TRIES: usize = 4;

/// Returns the slot of a source.
#[inline(always)]
pub fn slot(source: Address) -> u32 {
    let [a, b, c, d] = source.words.map(u64::from);
    // Odd constants with well-mixed bits: the golden ratio, and one of xxHash's primes.
    let mixed = (a << 32 | b).wrapping_mul(0xc2b2_ae3d_27d4_eb4f) ^ (c << 32 | d);
    (mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - SLOT_BITS)) as u32
}

/// The word of a slot.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Presence(u64);

impl Presence {
    /// Reads the slot of a source.
    #[inline(always)]
    pub fn of<E: Subprograms>(env: &E, source: Address) -> Self {
        Self(
            env.presence(slot(source))
                .map_or(ALWAYS, |word| word.load()),
        )
    }

    /// Returns whether the slot was never written: it needs no clock.
    #[inline(always)]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Returns whether there may be a grant or a flow.
    #[inline(always)]
    pub const fn may_pass(self, now: Moment) -> bool {
        self.0 >> 32 >= seconds(now)
    }

    /// Returns whether there may be an attempt.
    #[inline(always)]
    pub const fn may_knock(self, now: Moment) -> bool {
        self.0 & 0xffff_ffff >= seconds(now)
    }

    /// Records that there may be a grant or a flow of `source`, of whose slot this is the word, until `until`.
    #[inline(always)]
    pub fn expect_pass<E: Subprograms>(self, env: &E, source: Address, until: Moment) {
        self.raise(env, source, seconds(until) << 32);
    }

    /// Records that there may be an attempt of `source`, of whose slot this is the word, until `until`.
    #[inline(always)]
    pub fn expect_knock<E: Subprograms>(self, env: &E, source: Address, until: Moment) {
        self.raise(env, source, seconds(until));
    }

    #[inline(always)]
    fn raise<E: Subprograms>(self, env: &E, source: Address, floor: u64) {
        // A slot is never lowered, so a word that was read a moment ago shows as well that there is nothing to write.
        if merge(self.0, floor) != self.0 {
            env.raise_presence(slot(source), floor);
        }
    }
}

/// Records that there may be a grant or a flow of `source` until `until`.
#[inline(always)]
pub fn expect_pass<E: Subprograms>(env: &E, source: Address, until: Moment) {
    Presence::of(env, source).expect_pass(env, source, until);
}

#[inline(always)]
const fn seconds(moment: Moment) -> u64 {
    // A second here is 2³⁰ ns, 7 % longer, which needs a shift only. 32 bits last 146 years.
    moment.nanos() >> 30
}

#[inline(always)]
fn merge(held: u64, floor: u64) -> u64 {
    let pass = core::cmp::max(held >> 32, floor >> 32);
    let knock = core::cmp::max(held & 0xffff_ffff, floor & 0xffff_ffff);
    pass << 32 | knock
}

/// Raises both halves of a slot to those of `floor` or more.
#[inline(always)]
pub fn raise_slot<E: Subprograms>(env: &E, slot: u32, floor: u64) {
    let Some(word) = env.presence(slot) else {
        return;
    };
    for _ in 0..TRIES {
        let old = word.load();
        if word.replace(old, merge(old, floor)) {
            return;
        }
    }
    word.store(ALWAYS);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Env as _, sim::Sim};

    const SOURCE: Address = Address {
        words: [1, 2, 3, 4],
    };

    fn expect_knock(sim: &Sim, source: Address, until: Moment) {
        Presence::of(sim, source).expect_knock(sim, source, until);
    }

    const fn second(number: u64) -> Moment {
        Moment::from_nanos(number << 30)
    }

    #[test]
    fn grants_and_attempts_have_times_of_their_own() {
        let sim = Sim::default();
        let at = |now| {
            let presence = Presence::of(&sim, SOURCE);
            (
                presence.may_pass(second(now)),
                presence.may_knock(second(now)),
            )
        };
        assert!(Presence::of(&sim, SOURCE).is_empty());
        expect_knock(&sim, SOURCE, second(5));
        assert!(!Presence::of(&sim, SOURCE).is_empty());
        assert_eq!((at(5), at(6)), ((false, true), (false, false)));
        expect_pass(&sim, SOURCE, second(9));
        assert_eq!(
            (at(5), at(9), at(10)),
            ((true, true), (true, false), (false, false))
        );
        // An earlier end changes nothing.
        expect_knock(&sim, SOURCE, second(3));
        expect_pass(&sim, SOURCE, second(1));
        assert_eq!(
            (at(5), at(9), at(10)),
            ((true, true), (true, false), (false, false))
        );
    }

    #[test]
    fn a_slot_with_always_never_expires() {
        let sim = Sim::default();
        sim.presence(slot(SOURCE)).unwrap().store(ALWAYS);
        expect_pass(&sim, SOURCE, second(7));
        let presence = Presence::of(&sim, SOURCE);
        assert!(!presence.is_empty());
        assert!(presence.may_pass(second(0xffff_ffff)) && presence.may_knock(second(0xffff_ffff)));
    }

    proptest! {
        #[test]
        fn a_recorded_source_is_looked_up_until_its_end(
            recorded in prop::collection::vec((any::<[u32; 4]>(), any::<bool>(), 0_u64..1 << 60), 1..40),
            now in 0_u64..1 << 60,
        ) {
            let sim = Sim::default();
            for &(words, pass, until) in &recorded {
                let (source, until) = (Address { words }, Moment::from_nanos(until));
                prop_assert!(slot(source) < PRESENCE_SLOTS);
                match pass {
                    true => expect_pass(&sim, source, until),
                    false => expect_knock(&sim, source, until),
                }
            }
            for &(words, pass, until) in recorded.iter().filter(|(.., until)| now <= *until) {
                let presence = Presence::of(&sim, Address { words });
                let now = Moment::from_nanos(now);
                prop_assert!(!presence.is_empty() || until >> 30 == 0);
                let may = if pass { presence.may_pass(now) } else { presence.may_knock(now) };
                prop_assert!(may);
            }
        }
    }
}
