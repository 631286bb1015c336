//! Draws random sequences.

use std::ops::RangeInclusive;

use knock_common::packet::Protocol;
use knock_sequence::{Knock, Ports};
use rand::{CryptoRng, RngExt as _, seq::index};

use crate::{model::problem::Problems, strength};

/// How often an unusable sequence is drawn again. More than half are usable, so this many failures
/// in a row mean that there is none.
const DRAWS_MOST: u32 = 1_000;

/// The ports and protocols from which sequences are drawn.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Urn {
    /// The number of knocks of a sequence.
    pub knocks: RangeInclusive<usize>,
    /// The protocols of a knock, equally likely.
    pub protocols: Vec<Protocol>,
    ports: Vec<u16>,
}

/// The reason why no sequence can be drawn.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Unsuitable {
    /// Each port is used once, and there are too few.
    #[error(
        "{knocks} knocks need as many ports, and there are {ports} from {} to {} that the door \
         does not open: widen --range, or lower --knocks",
        range.start(), range.end()
    )]
    TooFew {
        /// The number of knocks.
        knocks: usize,
        /// The number of ports.
        ports: usize,
        /// The range of ports.
        range: RangeInclusive<u16>,
    },
    /// The configuration would refuse such a door.
    #[error(transparent)]
    Door(#[from] Problems),
    /// There are not enough different sequences, or a scan completes all of them.
    #[error("no further usable sequence was found: widen --range, or raise --knocks")]
    Exhausted,
}

impl Urn {
    /// Draws from the ports of a range, each at most once, without those in `opened`.
    ///
    /// # Errors
    /// Returns an error if there are fewer ports than knocks.
    pub fn new(
        knocks: RangeInclusive<usize>,
        range: RangeInclusive<u16>,
        protocols: Vec<Protocol>,
        opened: &[Ports],
    ) -> Result<Self, Unsuitable> {
        let is_opened = |port| opened.iter().any(|o| (o.first..=o.last).contains(&port));
        let ports: Vec<u16> = range.clone().filter(|&port| !is_opened(port)).collect();
        if ports.len() < *knocks.end() {
            return Err(Unsuitable::TooFew {
                knocks: *knocks.end(),
                ports: ports.len(),
                range,
            });
        }
        Ok(Self {
            knocks,
            protocols,
            ports,
        })
    }

    /// Draws a sequence that is not in order and that `is_usable`.
    ///
    /// # Errors
    /// Returns an error if none is found.
    pub fn draw(
        &self,
        random: &mut impl CryptoRng,
        mut is_usable: impl FnMut(&[Knock]) -> bool,
    ) -> Result<Vec<Knock>, Unsuitable> {
        (0..DRAWS_MOST)
            .map(|_| self.any(random))
            .find(|knocks| !is_in_order(knocks) && is_usable(knocks))
            .ok_or(Unsuitable::Exhausted)
    }

    fn any(&self, random: &mut impl CryptoRng) -> Vec<Knock> {
        let count = random.random_range(self.knocks.clone());
        index::sample(random, self.ports.len(), count)
            .into_iter()
            .filter_map(|index| self.ports.get(index))
            .filter_map(|&port| {
                let protocol = random.random_range(0..self.protocols.len());
                let protocol = *self.protocols.get(protocol)?;
                Some(Knock { protocol, port })
            })
            .collect()
    }

    /// Returns the number of sequences of a length, as a power of two.
    pub fn bits(&self, knocks: usize) -> f64 {
        strength::arrangements(self.ports.len(), self.protocols.len(), knocks)
    }
}

/// Returns whether a port scan in order would complete it. Two knocks are always in order, so they
/// are accepted.
fn is_in_order(knocks: &[Knock]) -> bool {
    let ports: Vec<u16> = knocks.iter().map(|knock| knock.port).collect();
    let descending = ports.iter().rev();
    knocks.len() > 2 && (ports.is_sorted() || descending.is_sorted())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;
    use rand::{SeedableRng as _, rngs::StdRng};

    use super::*;

    const BOTH: [Protocol; 2] = [Protocol::Tcp, Protocol::Udp];

    proptest! {
        #[test]
        fn drawn_knocks_are_in_the_ranges_and_differ(
            seed: u64,
            (least, more) in (3_usize..20, 0_usize..20),
            first in 1_u16..60_000,
            spare in 0_u16..100,
        ) {
            let most = least + more;
            let last = first + u16::try_from(most).unwrap() + spare;
            let opened = [Ports { protocol: Protocol::Tcp, first: first + 1, last: first + 1 }];
            let urn = Urn::new(least..=most, first..=last, BOTH.to_vec(), &opened).unwrap();
            let mut random = StdRng::seed_from_u64(seed);
            let knocks = urn.draw(&mut random, |_| true).unwrap();
            prop_assert!((least..=most).contains(&knocks.len()));
            let ports: Vec<u16> = knocks.iter().map(|knock| knock.port).collect();
            let unique: HashSet<u16> = ports.iter().copied().collect();
            prop_assert_eq!(unique.len(), ports.len(), "{:?}", ports);
            prop_assert!(ports.iter().all(|port| (first..=last).contains(port)));
            prop_assert!(!ports.contains(&(first + 1)), "what is opened");
            let up = ports.windows(2).any(|pair| pair[0] < pair[1]);
            let down = ports.windows(2).any(|pair| pair[0] > pair[1]);
            prop_assert!(up && down, "{:?}", ports);
        }
    }

    #[test]
    fn every_sequence_is_equally_likely() {
        let urn = Urn::new(3..=3, 1..=4, vec![Protocol::Udp], &[]).unwrap();
        let mut random = StdRng::seed_from_u64(1);
        let mut seen = std::collections::BTreeMap::new();
        const DRAWN: usize = 16_000;
        for _ in 0..DRAWN {
            let knocks = urn.draw(&mut random, |_| true).unwrap();
            *seen.entry(knocks).or_insert(0_usize) += 1;
        }
        // 4 · 3 · 2 orders, of which 4 ascend and 4 descend.
        assert_eq!(seen.len(), 16);
        for (knocks, times) in seen {
            let expected = DRAWN / 16;
            assert!(
                times.abs_diff(expected) < expected / 5,
                "{knocks:?}: {times}"
            );
        }
    }

    #[test]
    fn the_number_of_sequences_is_exact() {
        let rows = [
            (1..=1, 1..=1, 1, 0.0),
            (1..=1, 1..=1, 2, 1.0),
            (2..=2, 1..=4, 1, 12_f64.log2()),
            (
                6..=6,
                1..=100,
                1,
                (100.0 * 99.0 * 98.0 * 97.0 * 96.0 * 95.0_f64).log2(),
            ),
        ];
        for (knocks, range, protocols, bits) in rows {
            let protocols = BOTH[..protocols].to_vec();
            let urn = Urn::new(knocks.clone(), range, protocols, &[]).unwrap();
            let found = urn.bits(*knocks.end());
            assert!((found - bits).abs() < 1e-9, "{knocks:?}: {found} {bits}");
        }
    }

    #[test]
    fn impossible_draws_are_refused() {
        let urn = Urn::new(3..=7, 1..=6, BOTH.to_vec(), &[]);
        let error = urn.unwrap_err().to_string();
        assert!(
            error.starts_with("7 knocks need as many ports, and there are 6 from 1 to 6"),
            "{error}"
        );
        let urn = Urn::new(3..=3, 1..=4, BOTH.to_vec(), &[]).unwrap();
        let mut random = StdRng::seed_from_u64(1);
        assert_eq!(urn.draw(&mut random, |_| false), Err(Unsuitable::Exhausted));
    }
}
