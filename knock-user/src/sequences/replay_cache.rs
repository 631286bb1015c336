//! Stores which sequences were used, on disk between one process and the next.
//!
//! While a process runs or its pins exist, the map `USED` has this record. An orderly end of both
//! writes it to a file. After any other end the record is lost, and time-based sequences of periods
//! that may have been accepted before are void.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use anyhow::{Context as _, Result};
use knock_common::layout::UsedKey;
use serde::{Deserialize, Serialize};

use crate::{
    host::clock,
    kernel::instance::Instance,
    sequences::{
        one_time,
        state_directory::{boot, candidates, elsewhere, first_usable, lock, lock_soon},
    },
};

const FILE: &str = "used-sequences.json";
/// How long used sequences are recorded, in milliseconds: longer than any time-based sequence is
/// accepted.
pub const FORGOTTEN_MS: u64 = 14 * 86_400_000;

/// The time from which on time-based sequences are accepted, because it is unknown which were used
/// before.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Floor {
    /// By the wall clock, in milliseconds since 1970.
    pub unix_ms: u64,
    /// By the boot clock, in milliseconds: the wall clock may have been wrong then.
    pub boot_ms: Option<u64>,
}

impl Floor {
    /// Returns this time by the current wall clock, in milliseconds since 1970.
    pub fn at(self, unix_ms: u64, boot_ms: u64) -> u64 {
        self.boot_ms
            .map(|began| boot_ms.saturating_sub(began))
            .map(|ago| unix_ms.saturating_sub(ago))
            .unwrap_or(0)
            .max(self.unix_ms)
    }
}

/// The content of the file.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
struct CacheFile {
    /// Instances that may use sequences without a record here, with the boot in which they started.
    open: BTreeMap<String, String>,
    /// It is unknown which sequences were used before this, in milliseconds since 1970.
    unknown_before_ms: u64,
    /// The used sequences.
    used: Vec<UsedSequence>,
}

/// A used sequence.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
struct UsedSequence {
    replay_domain: u32,
    sequence_id: u32,
    /// The time of use, in milliseconds since 1970.
    at_ms: u64,
}

impl UsedSequence {
    const fn key(&self) -> UsedKey {
        UsedKey {
            replay_domain: self.replay_domain,
            sequence_id: self.sequence_id,
        }
    }
}

/// The replay cache of an instance.
#[derive(Debug)]
pub struct Replay {
    instance: String,
    /// Whether the map `USED` of the previous process is still pinned.
    is_continued: bool,
    /// Reading waits for other instances; nobody else waits for that.
    opened: OnceLock<LoadedCache>,
}

/// The result of reading the replay cache.
#[derive(Clone, Debug, Default)]
pub struct LoadedCache {
    /// The time from which on time-based sequences are accepted.
    pub floor: Floor,
    /// Later sequences that were used.
    pub used: Vec<UsedKey>,
    /// Whether the floor exists because the record was lost.
    pub is_unknown: bool,
    /// Why the record is lost at a reboot, if it is, with the cure.
    pub volatile: Option<String>,
    path: Option<PathBuf>,
}

impl Replay {
    /// Creates the replay cache of an instance; `is_continued` states whether its maps were pinned
    /// before.
    pub fn new(instance: &str, is_continued: bool) -> Self {
        Self {
            instance: instance.to_owned(),
            is_continued,
            opened: OnceLock::new(),
        }
    }

    /// Reads the used sequences, and records that more may be used from now on. Only the first call
    /// does this.
    pub fn open(&self) -> LoadedCache {
        let opened = self.opened.get_or_init(|| {
            let read = self.read();
            if let Some(reason) = &read.volatile {
                tracing::warn!("{reason}");
            }
            read
        });
        opened.clone()
    }

    /// Returns why what was used is forgotten at a reboot, if it is, with the cure.
    pub fn volatile(&self) -> Option<String> {
        self.opened.get().and_then(|opened| opened.volatile.clone())
    }

    fn read(&self) -> LoadedCache {
        match first_usable(|directory| self.read_in(directory)) {
            Ok(found) => LoadedCache {
                volatile: found.volatile,
                ..found.result
            },
            Err(failures) => {
                let reason = format!(
                    "the replay cache can't be written, so the next start will accept only later \
                     sequences: {failures}"
                );
                LoadedCache {
                    floor: self.floor_without_file(),
                    is_unknown: !self.is_continued,
                    volatile: Some(reason),
                    ..LoadedCache::default()
                }
            }
        }
    }

    fn floor_without_file(&self) -> Floor {
        Floor {
            unix_ms: 0,
            boot_ms: (!self.is_continued).then(clock::boot_ms),
        }
    }

    fn read_in(&self, directory: &Path) -> Result<LoadedCache> {
        let path = directory.join(FILE);
        let boot = boot()?;
        let _lock = lock(&path)?;
        let mut found = CacheFile::read(&path);
        let elsewhere: Vec<_> = elsewhere(directory, FILE);
        for other in elsewhere.iter().filter_map(|path| CacheFile::read(path)) {
            found = Some(match found {
                Some(found) => found.merged(other),
                None => other,
            });
        }
        // An instance without a process has recorded used sequences only in its own map, if at all.
        let is_served =
            |name: &str, began: &str| began == boot && Instance::named(name).owner().is_some();
        let is_closed = found.as_ref().is_some_and(|state| {
            state
                .open
                .iter()
                .all(|(name, began)| *name != self.instance && is_served(name, began))
        });
        // The map has what this instance used if the process that pinned it recorded that here.
        let is_listed = found
            .as_ref()
            .is_some_and(|state| state.open.get(&self.instance) == Some(&boot));
        let is_unknown = !(is_closed || self.is_continued && is_listed);
        let mut state = found.unwrap_or_default();
        let mut floor = Floor::default();
        if is_unknown {
            floor.boot_ms = Some(clock::boot_ms());
            state.unknown_before_ms = state.unknown_before_ms.max(clock::unix_ms());
            // Removed instances used sequences only before this moment. Pins without a process may
            // use more.
            state.open.retain(|name, began| {
                is_served(name, began) || (*began == boot && Instance::named(name).pins().exists())
            });
        }
        floor.unix_ms = state.unknown_before_ms;
        state.open.insert(self.instance.clone(), boot);
        state.write(&path)?;
        for other in elsewhere {
            // What can't be removed is read again at the next start.
            let _kept = fs::remove_file(other);
        }
        Ok(LoadedCache {
            floor,
            used: state.used.iter().map(UsedSequence::key).collect(),
            is_unknown,
            volatile: None,
            path: Some(path),
        })
    }

    /// Writes the sequences used until now, with their times in milliseconds since boot. None may
    /// be used afterwards. Does nothing if the cache was not opened.
    ///
    /// # Errors
    /// The file can't be written: the record is lost for the next start.
    pub fn close(&self, used: &[(UsedKey, u64)], floor: Floor) -> Result<()> {
        // While a cancelled reload still waits for the lock of the file, nothing was used yet.
        let Some(path) = self.opened.get().and_then(|opened| opened.path.as_ref()) else {
            return Ok(());
        };
        let _lock = lock_soon(path)?;
        let mut state =
            CacheFile::read(path).with_context(|| format!("reading {}", path.display()))?;
        state.open.remove(&self.instance);
        state.close(used, floor, clock::unix_ms(), clock::boot_ms());
        state.write(path)
    }
}

/// Writes the used sequences of an instance whose process was killed, with their times in
/// milliseconds since boot. Its program must be detached.
///
/// # Errors
/// The file can't be written: the record is lost for the next start.
pub fn close_without_process(instance: &str, used: &[(UsedKey, u64)]) -> Result<()> {
    let boot = boot()?;
    for directory in candidates() {
        let path = directory.join(FILE);
        if !path.exists() {
            continue;
        }
        let _lock = lock(&path)?;
        let Some(mut state) = CacheFile::read(&path) else {
            continue;
        };
        if state.open.get(instance) != Some(&boot) {
            continue;
        }
        state.open.remove(instance);
        let floor = Floor {
            unix_ms: state.unknown_before_ms,
            boot_ms: None,
        };
        state.close(used, floor, clock::unix_ms(), clock::boot_ms());
        return state.write(&path);
    }
    Ok(())
}

impl CacheFile {
    /// Returns what both files have.
    fn merged(mut self, other: Self) -> Self {
        let known: BTreeSet<_> = self.used.iter().map(UsedSequence::key).collect();
        let more = other.used.into_iter();
        self.used
            .extend(more.filter(|used| !known.contains(&used.key())));
        self.unknown_before_ms = self.unknown_before_ms.max(other.unknown_before_ms);
        for (name, boot) in other.open {
            self.open.entry(name).or_insert(boot);
        }
        self
    }

    /// Adds used sequences, and drops those whose time has passed long ago.
    fn close(&mut self, used: &[(UsedKey, u64)], floor: Floor, unix_ms: u64, boot_ms: u64) {
        let mut known: BTreeSet<_> = self.used.iter().map(UsedSequence::key).collect();
        for &(key, used_ms) in used {
            if known.insert(key) {
                self.used.push(UsedSequence {
                    replay_domain: key.replay_domain,
                    sequence_id: key.sequence_id,
                    at_ms: unix_ms.saturating_sub(boot_ms.saturating_sub(used_ms)),
                });
            }
        }
        let mut floor_ms = floor.at(unix_ms, boot_ms);
        self.used.retain(|used| {
            let is_kept = used.at_ms.saturating_add(FORGOTTEN_MS) > unix_ms;
            if !is_kept {
                // If the clock is set back this far, the sequence would become current again.
                floor_ms = floor_ms.max(used.at_ms);
            }
            is_kept
        });
        self.unknown_before_ms = self.unknown_before_ms.max(floor_ms);
    }

    /// Reads the file; none if it does not exist or can't be parsed.
    fn read(path: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(path).ok()?).ok()
    }

    fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_vec(self).context("writing used sequences")?;
        one_time::write_file(path, &text).with_context(|| format!("writing {}", path.display()))
    }
}
