//! Stores the greatest stamp that each key of a user has used, on disk for the next boot.
//!
//! During a boot, the map `SPA_LAST` has these stamps: all instances share it, and no command
//! removes it. A boot begins without the map. The file has what was used until a second before the
//! last one ended; if that end was orderly, the file has all of it. After any other end, no stamp
//! counts that may have been used before.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use knock_common::spa::layout::{KeyId, SpaTag};
use knock_sequence::duration::millis;
use serde::{Deserialize, Serialize};

use super::{
    one_time,
    replay_cache::{boot, directories, lock},
};
use crate::{
    host::{clock, os_error, private_files},
    kernel::instance::Instance,
};

const FILE: &str = "spa-stamps.json";
/// How long a removed key is remembered, in milliseconds. Afterwards the floor covers it.
const FORGOTTEN_MS: u64 = 14 * 86_400_000;
const NANOS_PER_MS: u64 = 1_000_000;
/// How long a packet of fwknop can be fresh, in milliseconds: its time may be 120 s ahead of the
/// host's clock, and 120 s behind.
pub const FWKNOP_FRESH_MS: u64 = 240_000;

/// A stamp that is not accepted, and all before it, because packets with them may have been used.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct StampFloor {
    /// By the wall clock, in nanoseconds since 1970.
    pub unix_ns: u64,
    /// By the boot clock, in milliseconds: the wall clock may have been wrong then.
    pub boot_ms: Option<u64>,
    /// How far the stamp of a packet may have been ahead, in milliseconds.
    pub window_ms: u64,
}

impl StampFloor {
    /// Returns the greatest stamp that is not accepted, by a wall clock at `wall_ns` nanoseconds
    /// more than the boot clock.
    pub fn at(self, wall_ns: u64) -> u64 {
        let since_boot = |ms: u64| ms.saturating_add(self.window_ms) * NANOS_PER_MS;
        self.boot_ms
            .map_or(0, |ms| wall_ns.saturating_add(since_boot(ms)))
            .max(self.unix_ns)
    }

    /// Returns until when no packet of fwknop is accepted, in milliseconds since boot.
    pub fn fwknop_from_ms(self) -> u64 {
        self.boot_ms
            .map_or(0, |ms| ms.saturating_add(FWKNOP_FRESH_MS))
    }

    /// Returns for how many milliseconds no packet of a client with a right clock is accepted.
    pub fn wait_ms(self, boot_ms: u64) -> u64 {
        let end = |ms: u64| ms.saturating_add(self.window_ms);
        self.boot_ms.map_or(0, |ms| end(ms).saturating_sub(boot_ms))
    }
}

/// The content of the file.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
struct State {
    /// Instances that may use stamps which are not in the file, with the boot in which they
    /// started.
    open: BTreeMap<String, String>,
    /// When it became unknown which stamps were used before.
    lost: Option<Lost>,
    /// The widest window, in milliseconds.
    window_ms: u64,
    /// Keys without a stamp here have not used any after this, in nanoseconds since 1970.
    floor_ns: u64,
    /// The stamps, by the id of the key.
    keys: BTreeMap<u64, Stamp>,
    /// The packets of fwknop that were used in the last minutes.
    #[serde(default)]
    seen: Vec<Seen>,
}

/// A packet of fwknop that was used.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
struct Seen {
    tag: [u32; 4],
    /// Milliseconds since 1970.
    at_ms: u64,
}

/// What packets have used.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Used {
    /// The greatest stamp of each key, in nanoseconds since 1970.
    pub stamps: BTreeMap<KeyId, u64>,
    /// The packets of fwknop, each with its time in milliseconds since boot.
    pub seen: BTreeMap<SpaTag, u64>,
}

/// A moment of a boot.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
struct Lost {
    boot: String,
    /// Milliseconds since boot.
    boot_ms: u64,
}

/// The greatest stamp that a key has used.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
struct Stamp {
    /// Nanoseconds since 1970.
    last_ns: u64,
    /// When the key was last configured, in milliseconds since 1970.
    configured_ms: u64,
}

/// The stamps of an instance.
#[derive(Debug)]
pub struct Stamps {
    instance: String,
    /// Whether `SPA_LAST` was pinned before this process started.
    is_continued: bool,
    /// Whether it was reported that users have to wait.
    is_reported: AtomicBool,
    opened: Mutex<Option<Opened>>,
}

/// What is known about stamps from before this process.
#[derive(Clone, Debug, Default)]
pub struct Opened {
    /// No stamp up to this is accepted.
    pub floor: StampFloor,
    /// Whether the floor exists because stamps were lost.
    pub is_unknown: bool,
    /// The packets of fwknop that may not be used again.
    pub seen: Vec<SpaTag>,
    keys: BTreeMap<u64, u64>,
    path: Option<PathBuf>,
}

impl Opened {
    /// Returns the least value of a key's word in `SPA_LAST`, by the difference of the clocks.
    pub fn least(&self, key: KeyId, wall_ns: u64) -> u64 {
        let last = self.keys.get(&key.0).copied().unwrap_or(0);
        last.max(self.floor.at(wall_ns))
    }
}

impl Stamps {
    /// Creates the record of an instance; `is_continued` states whether `SPA_LAST` was pinned
    /// before.
    pub fn new(instance: &str, is_continued: bool) -> Self {
        Self {
            instance: instance.to_owned(),
            is_continued,
            is_reported: AtomicBool::new(false),
            opened: Mutex::new(None),
        }
    }

    /// Reads the file, and records that more stamps may be used from now on. Only the first call
    /// does this. `window` is that of the configuration.
    pub fn open(&self, window: Duration) -> Opened {
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        opened.get_or_insert_with(|| self.read(window)).clone()
    }

    /// Returns whether it was not reported yet that users have to wait.
    pub fn is_first_report(&self) -> bool {
        !self.is_reported.swap(true, Ordering::Relaxed)
    }

    fn read(&self, window: Duration) -> Opened {
        let mut failures = Vec::new();
        for directory in directories() {
            match self.read_in(&directory, window) {
                Ok(opened) => return opened,
                Err(error) => failures.push(os_error::describe(&error)),
            }
        }
        tracing::warn!(
            "the stamps of SPA packets can't be written, so after the next boot users wait before \
             they get in: {}",
            failures.join("; ")
        );
        Opened {
            floor: StampFloor {
                unix_ns: 0,
                boot_ms: (!self.is_continued).then(clock::boot_ms),
                window_ms: millis(window),
            },
            is_unknown: !self.is_continued,
            ..Opened::default()
        }
    }

    fn read_in(&self, directory: &Path, window: Duration) -> Result<Opened> {
        private_files::directory(directory)
            .with_context(|| format!("creating {}", directory.display()))?;
        let path = directory.join(FILE);
        let boot = boot()?;
        let _lock = lock(&path)?;
        let found = State::read(&path);
        let is_closed = found.as_ref().is_some_and(|state| state.open.is_empty());
        let is_unknown = !is_closed && !self.is_continued;
        // A process of this boot lost them, and stopped before it used the map.
        let lost = found.as_ref().and_then(|state| state.lost.clone());
        let lost = lost.filter(|lost| lost.boot == boot);
        let was_in_this_boot = found
            .as_ref()
            .is_some_and(|state| state.open.values().any(|began| *began == boot));
        let mut state = found.unwrap_or_default();
        state.window_ms = state.window_ms.max(millis(window));
        let mut floor = StampFloor {
            unix_ns: state.floor_ns,
            boot_ms: None,
            window_ms: state.window_ms,
        };
        state.lost = match is_unknown {
            true => Some(Lost {
                boot: boot.clone(),
                // Nothing was attached since the boot unless the file has an instance of it.
                boot_ms: if was_in_this_boot {
                    clock::boot_ms()
                } else {
                    0
                },
            }),
            false => lost,
        };
        floor.boot_ms = state.lost.as_ref().map(|lost| lost.boot_ms);
        if let Some(far) = state.far_ahead(clock::unix_ms()) {
            tracing::warn!(
                "SPA packets with stamps up to {far} count as used, which is in the future: \
                 correct the clock of this host; if it is right, remove {} and reboot",
                path.display()
            );
        }
        // Removed instances have used stamps only before this moment.
        let is_there = |name: &str| {
            let instance = Instance::named(name);
            instance.owner().is_some() || instance.pins().exists()
        };
        state
            .open
            .retain(|name, began| *began == boot && is_there(name));
        state.open.insert(self.instance.clone(), boot);
        state.write(&path)?;
        let keys = state.keys.iter().map(|(&key, stamp)| (key, stamp.last_ns));
        Ok(Opened {
            floor,
            is_unknown,
            seen: state.seen.iter().map(|seen| SpaTag(seen.tag)).collect(),
            keys: keys.collect(),
            path: Some(path),
        })
    }

    /// Writes the stamps used until now to the disk; `configured` are the keys that may use more.
    /// Does nothing if the file was not opened.
    ///
    /// # Errors
    /// The file can't be written: it has the stamps of the last call.
    pub fn write(&self, used: &Used, configured: &BTreeSet<KeyId>) -> Result<()> {
        self.update(|state, _| state.merge(used, configured, clock::unix_ms()))
    }

    /// Does the same, and records that this instance uses no more stamps.
    ///
    /// # Errors
    /// As for [`Stamps::write`]: after the next boot, users wait before they get in.
    pub fn close(&self, used: &Used) -> Result<()> {
        self.update(|state, floor| {
            state.merge(used, &BTreeSet::new(), clock::unix_ms());
            state.open.remove(&self.instance);
            state.floor_ns = state.floor_ns.max(floor.at(clock::wall_ns()));
        })
    }

    fn update(&self, change: impl FnOnce(&mut State, StampFloor)) -> Result<()> {
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(opened) = opened.as_mut() else {
            return Ok(());
        };
        let Some(path) = &opened.path else {
            return Ok(());
        };
        let _lock = lock(path)?;
        let mut state = State::read(path).with_context(|| format!("reading {}", path.display()))?;
        change(&mut state, opened.floor);
        state.write(path)?;
        let keys = state.keys.iter().map(|(&key, stamp)| (key, stamp.last_ns));
        opened.keys = keys.collect();
        Ok(())
    }
}

/// Returns the greatest stamp that each key has used, from the last write.
///
/// # Errors
/// The file exists and can't be read.
pub fn recorded() -> Result<BTreeMap<KeyId, u64>> {
    for directory in directories() {
        let path = directory.join(FILE);
        if !path.exists() {
            continue;
        }
        let state = State::read(&path)
            .with_context(|| format!("{} can't be read: run this as root", path.display()))?;
        let keys = state.keys.iter();
        return Ok(keys
            .map(|(&key, stamp)| (KeyId(key), stamp.last_ns))
            .collect());
    }
    Ok(BTreeMap::new())
}

impl State {
    /// Returns the greatest stamp that no client with a right clock can have used yet, as a time.
    fn far_ahead(&self, unix_ms: u64) -> Option<Timestamp> {
        let last = self.keys.values().map(|stamp| stamp.last_ns).max();
        let last_ms = last.unwrap_or(0).max(self.floor_ns) / NANOS_PER_MS;
        let is_far = last_ms > unix_ms.saturating_add(2 * self.window_ms);
        let time = || Timestamp::from_millisecond(i64::try_from(last_ms).ok()?).ok();
        is_far.then(time).flatten()
    }

    /// Adds used stamps, and drops keys that were removed long ago.
    fn merge(&mut self, used: &Used, configured: &BTreeSet<KeyId>, unix_ms: u64) {
        self.merge_seen(&used.seen, unix_ms, clock::boot_ms());
        for (&KeyId(key), &last_ns) in &used.stamps {
            let stamp = self.keys.entry(key).or_insert(Stamp {
                last_ns,
                configured_ms: unix_ms,
            });
            stamp.last_ns = stamp.last_ns.max(last_ns);
        }
        for KeyId(key) in configured {
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
    fn merge_seen(&mut self, seen: &BTreeMap<SpaTag, u64>, unix_ms: u64, boot_ms: u64) {
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
        self.seen = fresh.map(|(tag, at_ms)| Seen { tag, at_ms }).collect();
    }

    /// Reads the file; none if it does not exist or can't be parsed.
    fn read(path: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(path).ok()?).ok()
    }

    fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_vec(self).context("writing stamps")?;
        one_time::write_file(path, &text).with_context(|| format!("writing {}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_floor_follows_the_clock_that_was_set() {
        let floor = StampFloor {
            unix_ns: 5_000_000,
            boot_ms: Some(10),
            window_ms: 20,
        };
        for (name, wall_ns, expected) in [
            ("before the clock is set", 0, 30_000_000),
            ("after", 1_000_000_000, 1_030_000_000),
        ] {
            assert_eq!(floor.at(wall_ns), expected, "{name}");
        }
        let known = StampFloor {
            boot_ms: None,
            ..floor
        };
        assert_eq!(known.at(1_000_000_000), 5_000_000);
        for (now_ms, expected) in [(0, 30), (25, 5), (30, 0), (100, 0)] {
            assert_eq!(floor.wait_ms(now_ms), expected, "{now_ms}");
            assert_eq!(known.wait_ms(now_ms), 0, "{now_ms}");
        }
    }

    #[test]
    fn stamps_only_grow_and_removed_keys_are_remembered() {
        let mut state = State::default();
        let [one, two] = [KeyId(1), KeyId(2)];
        let used = |stamps: &[(KeyId, u64)]| Used {
            stamps: stamps.iter().copied().collect(),
            ..Used::default()
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
        let mut state = State::default();
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
