//! The file with the stamps that keys have used.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use knock_common::{
    spa::layout::{SpaKeyId, SpaTag},
    time::NANOS_PER_MILLI,
};
use serde::{Deserialize, Serialize};

use super::one_time;
use crate::host::clock;

/// How long a removed key is remembered, in milliseconds. Afterwards the floor covers it.
const FORGOTTEN_MS: u64 = 14 * 86_400_000;

/// How long a packet of fwknop can be fresh, in milliseconds: its time may be 120 s ahead of the
/// host's clock, and 120 s behind.
pub const FWKNOP_FRESH_MS: u64 = 240_000;

/// The content of the file.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct StampFile {
    /// Instances that may use stamps which are not in the file, with the boot in which they
    /// started.
    pub(super) open: BTreeMap<String, String>,
    /// When it became unknown which stamps were used before.
    pub(super) lost: Option<LossMoment>,
    /// The widest window, in milliseconds.
    pub(super) window_ms: u64,
    /// Keys without a stamp here have not used any after this, in nanoseconds since 1970.
    pub(super) floor_ns: u64,
    /// The stamps, by the id of the key.
    pub(super) keys: BTreeMap<u64, Stamp>,
    /// The packets of fwknop that were used in the last minutes.
    #[serde(default)]
    pub(super) seen: Vec<UsedTag>,
}

/// A packet of fwknop that was used.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct UsedTag {
    pub(super) tag: [u32; 4],
    /// Milliseconds since 1970.
    pub(super) at_ms: u64,
}

/// The stamps that packets have used.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct UsedStamps {
    /// The greatest stamp of each key, in nanoseconds since 1970.
    pub stamps: BTreeMap<SpaKeyId, u64>,
    /// The packets of fwknop, each with its time in milliseconds since boot.
    pub seen: BTreeMap<SpaTag, u64>,
}

/// A moment of a boot.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct LossMoment {
    pub(super) boot: String,
    /// Milliseconds since boot.
    pub(super) boot_ms: u64,
}

/// The greatest stamp that a key has used.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct Stamp {
    /// Nanoseconds since 1970.
    pub(super) last_ns: u64,
    /// When the key was last configured, in milliseconds since 1970.
    pub(super) configured_ms: u64,
}

impl StampFile {
    /// Returns what both files have.
    pub(super) fn merged(mut self, other: Self) -> Self {
        for (key, stamp) in other.keys {
            let known = self.keys.entry(key).or_insert(stamp);
            known.last_ns = known.last_ns.max(stamp.last_ns);
            known.configured_ms = known.configured_ms.max(stamp.configured_ms);
        }
        self.seen.extend(other.seen);
        self.floor_ns = self.floor_ns.max(other.floor_ns);
        self.window_ms = self.window_ms.max(other.window_ms);
        self.lost = self.lost.or(other.lost);
        for (name, boot) in other.open {
            self.open.entry(name).or_insert(boot);
        }
        self
    }

    /// Returns the greatest stamp that no client with a right clock can have used yet, as a time.
    pub(super) fn far_ahead(&self, unix_ms: u64) -> Option<Timestamp> {
        let last = self.keys.values().map(|stamp| stamp.last_ns).max();
        let last_ms = last.unwrap_or(0).max(self.floor_ns) / NANOS_PER_MILLI;
        let is_far = last_ms > unix_ms.saturating_add(2 * self.window_ms);
        let time = || Timestamp::from_millisecond(i64::try_from(last_ms).ok()?).ok();
        is_far.then(time).flatten()
    }

    /// Adds used stamps, and drops keys that were removed long ago.
    pub(super) fn merge(
        &mut self,
        used: &UsedStamps,
        configured: &BTreeSet<SpaKeyId>,
        unix_ms: u64,
    ) {
        self.merge_seen(&used.seen, unix_ms, clock::boot_ms());
        for (&SpaKeyId(key), &last_ns) in &used.stamps {
            let stamp = self.keys.entry(key).or_insert(Stamp {
                last_ns,
                configured_ms: unix_ms,
            });
            stamp.last_ns = stamp.last_ns.max(last_ns);
        }
        for SpaKeyId(key) in configured {
            if let Some(stamp) = self.keys.get_mut(key) {
                stamp.configured_ms = unix_ms;
            }
        }
        let mut floor_ns = self.floor_ns;
        self.keys.retain(|_, stamp| {
            let is_kept = stamp.configured_ms.saturating_add(FORGOTTEN_MS) > unix_ms;
            if !is_kept {
                // If the clock is set back this far, the packet would become current again.
                floor_ns = floor_ns.max(stamp.last_ns);
            }
            is_kept
        });
        self.floor_ns = floor_ns;
    }

    /// Adds used packets of fwknop, and drops those that are no longer fresh.
    pub(super) fn merge_seen(&mut self, seen: &BTreeMap<SpaTag, u64>, unix_ms: u64, boot_ms: u64) {
        let mut all: BTreeMap<[u32; 4], u64> = self
            .seen
            .iter()
            .map(|seen| (seen.tag, seen.at_ms))
            .collect();
        for (&SpaTag(tag), &used_ms) in seen {
            // The time of a packet from the future lies ahead.
            let at_ms = match used_ms.checked_sub(boot_ms) {
                Some(ahead_ms) => unix_ms.saturating_add(ahead_ms),
                None => unix_ms.saturating_sub(boot_ms - used_ms),
            };
            let known = all.entry(tag).or_insert(at_ms);
            *known = at_ms.max(*known);
        }
        let is_fresh = |at_ms: u64| at_ms.saturating_add(FWKNOP_FRESH_MS) > unix_ms;
        let fresh = all.into_iter().filter(|(_, at_ms)| is_fresh(*at_ms));
        self.seen = fresh.map(|(tag, at_ms)| UsedTag { tag, at_ms }).collect();
    }

    /// Reads the file; none if it does not exist or can't be parsed.
    pub(super) fn read(path: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(path).ok()?).ok()
    }

    pub(super) fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_vec(self).context("writing stamps")?;
        one_time::write_file(path, &text).with_context(|| format!("writing {}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_only_grow_and_removed_keys_are_remembered() {
        let mut state = StampFile::default();
        let [one, two] = [SpaKeyId(1), SpaKeyId(2)];
        let used = |stamps: &[(SpaKeyId, u64)]| UsedStamps {
            stamps: stamps.iter().copied().collect(),
            ..UsedStamps::default()
        };
        state.merge(&used(&[(one, 50), (two, 70)]), &[one, two].into(), 1_000);
        state.merge(&used(&[(one, 40)]), &[one].into(), 2_000);
        assert_eq!(state.keys[&1].last_ns, 50);
        assert_eq!(
            (state.keys[&1].configured_ms, state.keys[&2].configured_ms),
            (2_000, 1_000)
        );
        // The second key was removed long ago: the floor covers it.
        state.merge(&used(&[(one, 60)]), &[one].into(), 1_000 + FORGOTTEN_MS);
        assert_eq!(state.keys.keys().copied().collect::<Vec<_>>(), [1]);
        assert_eq!(state.floor_ns, 70);
    }

    #[test]
    fn packets_of_fwknop_are_remembered_while_they_are_fresh() {
        let mut state = StampFile::default();
        let at = |entries: &[(u32, u64)]| -> BTreeMap<SpaTag, u64> {
            let entries = entries.iter();
            entries.map(|&(tag, ms)| (SpaTag([tag; 4]), ms)).collect()
        };
        let unix_ms = 1_000_000_000;
        // One was used ten seconds ago, one has a time that is ten seconds ahead.
        state.merge_seen(&at(&[(1, 90_000), (2, 110_000)]), unix_ms, 100_000);
        let times: Vec<_> = state.seen.iter().map(|seen| seen.at_ms).collect();
        assert_eq!(times, [unix_ms - 10_000, unix_ms + 10_000]);
        // After a reboot, the boot clock has begun again.
        let later_ms = unix_ms - 10_000 + FWKNOP_FRESH_MS;
        state.merge_seen(&at(&[(3, 5_000)]), later_ms, 5_000);
        let tags: Vec<_> = state.seen.iter().map(|seen| seen.tag[0]).collect();
        assert_eq!(tags, [2, 3]);
    }
}
