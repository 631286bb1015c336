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
        Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result};
use knock_common::spa::layout::{SpaKeyId, SpaTag};
use knock_sequence::duration::millis;

use super::{
    boot_mark::BootMark,
    stamp_file::{LossMoment, Stamp, StampFile},
    state_directory::{boot, candidates, elsewhere, first_usable, lock, lock_of, lock_soon},
};
pub use super::{
    stamp_file::{FWKNOP_FRESH_MS, UsedStamps},
    stamp_floor::StampFloor,
};
use crate::{
    host::{clock, private_files},
    kernel::instance::Instance,
};

const FILE: &str = "spa-stamps.json";

/// The stamps of an instance.
#[derive(Debug)]
pub struct StampStore {
    instance: String,
    /// Whether `SPA_LAST` and `SPA_SEEN` were pinned before this process started.
    is_continued: bool,
    /// Whether it was reported that users have to wait.
    is_reported: AtomicBool,
    /// Reading waits for other instances; nobody else waits for that.
    opened: OnceLock<Mutex<OpenedStamps>>,
}

/// The knowledge about stamps from before this process.
#[derive(Clone, Debug, Default)]
pub struct OpenedStamps {
    /// No stamp up to this is accepted.
    pub floor: StampFloor,
    /// Whether the floor exists because stamps were lost.
    pub is_unknown: bool,
    /// The packets of fwknop that may not be used again.
    pub seen: Vec<SpaTag>,
    /// Why the stamps are lost at a reboot, if they are, with the cure.
    pub volatile: Option<String>,
    keys: BTreeMap<u64, u64>,
    path: Option<PathBuf>,
}

impl OpenedStamps {
    /// Returns the least value of a key's word in `SPA_LAST`, by the difference of the clocks.
    pub fn least(&self, key: SpaKeyId, wall_ns: u64) -> u64 {
        let last = self.keys.get(&key.0).copied().unwrap_or(0);
        last.max(self.floor.at(wall_ns))
    }

    /// Returns a new file with what is known, in place of one that is lost. Every instance may use more
    /// stamps.
    fn file(&self) -> Result<StampFile> {
        let boot = boot()?;
        let names = Instance::with_files()?.into_iter();
        let open = names.map(|instance| (instance.name().to_owned(), boot.clone()));
        let configured_ms = clock::unix_ms();
        let keys = self.keys.iter().map(|(&key, &last_ns)| {
            let stamp = Stamp {
                last_ns,
                configured_ms,
            };
            (key, stamp)
        });
        Ok(StampFile {
            open: open.collect(),
            lost: self.floor.boot_ms.map(|boot_ms| LossMoment {
                boot: boot.clone(),
                boot_ms,
            }),
            window_ms: self.floor.window_ms,
            floor_ns: self.floor.unix_ns,
            keys: keys.collect(),
            seen: Vec::new(),
        })
    }

    /// Records a stamp that a packet of a key has used, in nanoseconds since 1970.
    pub fn record(&mut self, SpaKeyId(key): SpaKeyId, stamp_ns: u64) {
        let last = self.keys.entry(key).or_default();
        *last = stamp_ns.max(*last);
    }
}

impl StampStore {
    /// Creates the record of an instance; `is_continued` states whether `SPA_LAST` and `SPA_SEEN`
    /// were pinned before.
    pub fn new(instance: &str, is_continued: bool) -> Self {
        Self {
            instance: instance.to_owned(),
            is_continued,
            is_reported: AtomicBool::new(false),
            opened: OnceLock::new(),
        }
    }

    /// Reads the file, and records that more stamps may be used from now on. Only the first call
    /// does this. `window` is that of the configuration.
    pub fn open(&self, window: Duration) -> OpenedStamps {
        let opened = self.opened.get_or_init(|| {
            let read = self.read(window);
            if let Some(reason) = &read.volatile {
                tracing::warn!("{reason}");
            }
            Mutex::new(read)
        });
        locked(opened).clone()
    }

    /// Returns whether it was not reported yet that users have to wait.
    pub fn is_first_report(&self) -> bool {
        !self.is_reported.swap(true, Ordering::Relaxed)
    }

    /// Returns why what was used is forgotten at a reboot, if it is, with the cure.
    pub fn volatile(&self) -> Option<String> {
        let opened = self.opened.get()?;
        locked(opened).volatile.clone()
    }

    fn read(&self, window: Duration) -> OpenedStamps {
        match first_usable(|directory| self.read_in(directory, window)) {
            Ok(found) => OpenedStamps {
                volatile: found.volatile,
                ..found.result
            },
            Err(failures) => {
                let reason = format!(
                    "used stamps can't be saved, so after a reboot users have to wait: {failures}"
                );
                OpenedStamps {
                    floor: StampFloor {
                        unix_ns: 0,
                        boot_ms: match self.is_continued {
                            true => lost_before(),
                            false => Some(clock::boot_ms()),
                        },
                        window_ms: millis(window),
                    },
                    is_unknown: !self.is_continued,
                    volatile: Some(reason),
                    ..OpenedStamps::default()
                }
            }
        }
    }

    fn read_in(&self, directory: &Path, window: Duration) -> Result<OpenedStamps> {
        let path = directory.join(FILE);
        let boot = boot()?;
        // Who removes the file leaves its lock.
        let had_file = path.exists() || lock_of(&path).exists();
        let _lock = lock(&path)?;
        let mut found = StampFile::read(&path);
        let mut is_damaged = had_file && found.is_none();
        let elsewhere: Vec<_> = elsewhere(directory, FILE);
        for other in elsewhere.iter().filter(|path| path.exists()) {
            let other = StampFile::read(other);
            is_damaged |= other.is_none();
            found = match (found, other) {
                (Some(found), Some(other)) => Some(found.merged(other)),
                (found, other) => found.or(other),
            };
        }
        let mark = BootMark::read(&boot);
        let is_closed = !is_damaged && found.as_ref().is_some_and(|state| state.open.is_empty());
        // A process of this boot lost them, and stopped before it used the map.
        let of_mark = mark.as_ref().and_then(|mark| mark.lost.clone());
        let of_file = found.as_ref().and_then(|state| state.lost.clone());
        let lost = of_file
            .into_iter()
            .chain(of_mark)
            .filter(|lost| lost.boot == boot)
            .max_by_key(|lost| lost.boot_ms);
        let was_in_this_boot = is_damaged
            || mark.is_some()
            || found
                .as_ref()
                .is_some_and(|state| state.open.values().any(|began| *began == boot));
        let is_unknown = !is_closed && !self.is_continued;
        let mut state = found.unwrap_or_default();
        state.window_ms = state.window_ms.max(millis(window));
        let mut floor = StampFloor {
            unix_ns: state.floor_ns,
            boot_ms: None,
            window_ms: state.window_ms,
        };
        state.lost = match is_unknown {
            true => Some(LossMoment {
                boot: boot.clone(),
                // Nothing was attached since the boot unless something shows that.
                boot_ms: if was_in_this_boot {
                    clock::boot_ms()
                } else {
                    0
                },
            }),
            false => lost,
        };
        floor.boot_ms = state.lost.as_ref().map(|lost| lost.boot_ms);
        BootMark {
            boot: boot.clone(),
            lost: state.lost.clone(),
        }
        .write()?;
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
        for other in elsewhere {
            // What can't be removed is read again at the next start.
            let _kept = fs::remove_file(other);
        }
        let keys = state.keys.iter().map(|(&key, stamp)| (key, stamp.last_ns));
        Ok(OpenedStamps {
            floor,
            is_unknown,
            seen: state.seen.iter().map(|seen| SpaTag(seen.tag)).collect(),
            volatile: None,
            keys: keys.collect(),
            path: Some(path),
        })
    }

    /// Writes the stamps used until now to the disk; `configured` are the keys that may use more.
    /// Does nothing if the file was not opened.
    ///
    /// # Errors
    /// The file can't be written: it has the stamps of the last call.
    pub fn write(&self, used: &UsedStamps, configured: &BTreeSet<SpaKeyId>) -> Result<()> {
        self.update(|state, _| state.merge(used, configured, clock::unix_ms()))
    }

    /// Does the same, and records that this instance uses no more stamps.
    ///
    /// # Errors
    /// As for [`StampStore::write`]: after a reboot, users have to wait.
    pub fn close(&self, used: &UsedStamps) -> Result<()> {
        self.update(|state, floor| {
            state.merge(used, &BTreeSet::new(), clock::unix_ms());
            state.open.remove(&self.instance);
            state.floor_ns = state.floor_ns.max(floor.at(clock::wall_ns()));
        })
    }

    fn update(&self, change: impl FnOnce(&mut StampFile, StampFloor)) -> Result<()> {
        let Some(opened) = self.opened.get() else {
            return Ok(());
        };
        let mut opened = locked(opened);
        let Some(path) = &opened.path else {
            return Ok(());
        };
        // An administrator may have emptied the directory: what this process knows is written again.
        if let Some(directory) = path.parent() {
            private_files::directory(directory)
                .with_context(|| format!("creating {}", directory.display()))?;
        }
        let _lock = lock_soon(path)?;
        let mut state = match StampFile::read(path) {
            Some(state) => state,
            None => opened.file()?,
        };
        change(&mut state, opened.floor);
        state.write(path)?;
        let keys = state.keys.iter().map(|(&key, stamp)| (key, stamp.last_ns));
        opened.keys = keys.collect();
        Ok(())
    }
}

/// Returns when it became unknown in this boot which stamps were used, in milliseconds since boot, as
/// the mark has it.
fn lost_before() -> Option<u64> {
    let mark = BootMark::read(&boot().ok()?)?;
    mark.lost.map(|lost| lost.boot_ms)
}

fn locked(opened: &Mutex<OpenedStamps>) -> MutexGuard<'_, OpenedStamps> {
    opened.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns the greatest stamp that each key has used: from the files, and from `words`, those of
/// the map `SPA_LAST`, if it is there.
///
/// # Errors
/// A file exists and can't be read.
pub fn recorded(words: &[(SpaKeyId, u64)]) -> Result<BTreeMap<SpaKeyId, u64>> {
    let mut state = StampFile::default();
    for directory in candidates() {
        let path = directory.join(FILE);
        if path.exists() {
            let found = StampFile::read(&path)
                .with_context(|| format!("{} can't be read: run this as root", path.display()))?;
            state = state.merged(found);
        }
    }
    let mut used: BTreeMap<_, _> = state
        .keys
        .iter()
        .map(|(&key, stamp)| (SpaKeyId(key), stamp.last_ns))
        .collect();
    for (key, word) in state.beyond_floor(words) {
        let last = used.entry(key).or_insert(word);
        *last = word.max(*last);
    }
    Ok(used)
}

/// Writes the stamps that were used until an instance was detached whose process was killed, and
/// records that it uses no more; `used` are the contents of both maps.
///
/// # Errors
/// The file can't be written: after the next boot, users wait before they get in.
pub fn close_without_process(
    instance: &str,
    words: &[(SpaKeyId, u64)],
    seen: BTreeMap<SpaTag, u64>,
) -> Result<()> {
    let boot = boot()?;
    for directory in candidates() {
        let path = directory.join(FILE);
        if !path.exists() {
            continue;
        }
        let _lock = lock(&path)?;
        let Some(mut state) = StampFile::read(&path) else {
            continue;
        };
        if state.open.remove(instance) != Some(boot.clone()) {
            continue;
        }
        let floor_ns = state.highest_floor(&boot);
        let stamps = state.beyond_floor(words).collect();
        let used = UsedStamps { stamps, seen };
        state.merge(&used, &BTreeSet::new(), clock::unix_ms());
        state.floor_ns = state.floor_ns.max(floor_ns);
        return state.write(&path);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Otherwise a packet would open again once the floor is lower than its stamp.
    #[test]
    fn a_used_stamp_counts_after_the_floor_went_up_and_down() {
        let mut opened = OpenedStamps {
            floor: StampFloor {
                unix_ns: 0,
                boot_ms: Some(1),
                window_ms: 1,
            },
            ..OpenedStamps::default()
        };
        let key = SpaKeyId(7);
        opened.record(key, 9_000_000);
        opened.record(key, 8_000_000);
        for (row, wall_ns, expected) in [
            ("right", 0, 9_000_000),
            ("ahead", 50_000_000, 52_000_000),
            ("right again", 0, 9_000_000),
        ] {
            assert_eq!(opened.least(key, wall_ns), expected, "{row}");
        }
        assert_eq!(opened.least(SpaKeyId(8), 0), 2_000_000, "another key");
    }
}
