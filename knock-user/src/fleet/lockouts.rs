//! Sources that are locked out in the whole group.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::times::Now;
use crate::model::prefix::Prefix;

/// How much later a lockout has to end to count as another one, in milliseconds: clocks differ.
const TOLERANCE_MS: u64 = 2_000;

/// A lockout as hosts write it for each other.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Lockout {
    /// The addresses that are locked out.
    pub source: Prefix,
    /// When it ends, in milliseconds of the wall clock of its host.
    pub until_ms: u64,
    /// How long it lasts from the moment at which the record was written, in milliseconds.
    pub length_ms: u64,
    /// The name of the host at which attempts failed.
    pub host: String,
}

/// The lockouts that this host knows of, with their ends in milliseconds since boot.
#[derive(Clone, Debug, Default)]
pub(super) struct Lockouts {
    known: BTreeMap<Prefix, u64>,
}

impl Lockouts {
    /// Records a lockout of this host; returns whether the others have to know of it.
    pub(super) fn begin(&mut self, source: Prefix, until_ms: u64) -> bool {
        let known = self.known.entry(source).or_default();
        let is_longer = known.saturating_add(TOLERANCE_MS) < until_ms;
        *known = until_ms.max(*known);
        is_longer
    }

    /// Takes a lockout of another host; returns its end here, in milliseconds since boot, if it is longer
    /// than what is known.
    pub(super) fn take(&mut self, lockout: &Lockout, longest_ms: u64, now: Now) -> Option<u64> {
        let until_ms = now.end_of(lockout.until_ms, lockout.length_ms, longest_ms);
        let is_new = until_ms > now.boot_ms && self.begin(lockout.source, until_ms);
        is_new.then_some(until_ms)
    }

    /// Returns the record of a source, unless its lockout has ended.
    pub(super) fn record(&self, source: Prefix, host: &str, now: Now) -> Option<Lockout> {
        let length_ms = self.known.get(&source)?.checked_sub(now.boot_ms)?;
        (length_ms > 0).then(|| Lockout {
            source,
            until_ms: now.wall_ms.saturating_add(length_ms),
            length_ms,
            host: host.to_owned(),
        })
    }

    /// Forgets what has ended.
    pub(super) fn expire(&mut self, now_ms: u64) {
        self.known.retain(|_, until_ms| now_ms < *until_ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lockout_of_another_host_counts_once_and_is_never_longer_here() {
        let source: Prefix = "203.0.113.7".parse().unwrap();
        let now = Now {
            boot_ms: 5_000,
            wall_ms: 1_000_000,
        };
        for (name, own_ms, until_ms, length_ms, expected) in [
            ("new", 0, 1_600_000, 600_000, Some(605_000)),
            ("delivered late", 0, 1_100_000, 600_000, Some(105_000)),
            (
                "the other clock is ahead",
                0,
                9_000_000,
                600_000,
                Some(605_000),
            ),
            (
                "longer than the longest",
                0,
                9_000_000,
                8_000_000,
                Some(3_605_000),
            ),
            ("expired", 0, 999_999, 600_000, None),
            ("known", 604_000, 1_600_000, 600_000, None),
            ("shorter", 700_000, 1_600_000, 600_000, None),
            ("longer", 500_000, 1_600_000, 600_000, Some(605_000)),
        ] {
            let mut lockouts = Lockouts::default();
            if own_ms > 0 {
                assert!(lockouts.begin(source, own_ms), "{name}");
            }
            let lockout = Lockout {
                source,
                until_ms,
                length_ms,
                host: "web-2".to_owned(),
            };
            assert_eq!(lockouts.take(&lockout, 3_600_000, now), expected, "{name}");
            assert_eq!(lockouts.take(&lockout, 3_600_000, now), None, "{name}");
        }
    }
}
