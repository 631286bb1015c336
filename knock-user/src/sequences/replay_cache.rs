//! Which sequences were used, kept on the disk between one process and the next.
//!
//! While a process runs, or its pins stay, the map `USED` knows it. What ends both in order leaves a
//! file; after anything else nobody knows, and time-based sequences of periods that may have been
//! listened to before are void.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError, TryLockError},
};

use anyhow::{Context as _, Result};
use knock_common::layout::UsedKey;
use serde::{Deserialize, Serialize};

use crate::{
    host::{clock, os_error, paths::RUN, private_files},
    kernel::instance::Instance,
    sequences::one_time,
};

/// Where it is without systemd, which names another directory.
const DIRECTORY: &str = "/var/lib/knock";
const FILE: &str = "used-sequences.json";
/// For how long what was used is remembered, in milliseconds: longer than any time-based sequence is
/// good.
pub const FORGOTTEN_MS: u64 = 14 * 86_400_000;
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Time-based sequences are good from here on, because nobody knows which were used before.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Floor {
    /// By the wall clock, in milliseconds since 1970.
    pub unix_ms: u64,
    /// By the boot clock, in milliseconds: the wall clock may have been wrong then.
    pub boot_ms: Option<u64>,
}

impl Floor {
    /// The same by the wall clock as it is now, in milliseconds since 1970.
    pub fn at(self, unix_ms: u64, boot_ms: u64) -> u64 {
        let ago = self.boot_ms.map(|began| boot_ms.saturating_sub(began));
        let began = ago.map(|ago| unix_ms.saturating_sub(ago));
        began.unwrap_or(0).max(self.unix_ms)
    }
}

/// What the file says.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
struct State {
    /// Instances that may use sequences without a note here, with the boot in which they began.
    open: BTreeMap<String, String>,
    /// Nobody knows which sequences were used before this, in milliseconds since 1970.
    unknown_before_ms: u64,
    /// What was used.
    used: Vec<Used>,
}

/// A sequence that was used.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
struct Used {
    replay_domain: u32,
    sequence_id: u32,
    /// When, in milliseconds since 1970.
    at_ms: u64,
}

impl Used {
    const fn key(&self) -> UsedKey {
        UsedKey {
            replay_domain: self.replay_domain,
            sequence_id: self.sequence_id,
        }
    }
}

/// What was used before this process.
#[derive(Debug)]
pub struct Replay {
    instance: String,
    /// Whether the map that was pinned before is still there.
    is_continued: bool,
    opened: Mutex<Option<Opened>>,
}

/// What was read, once.
#[derive(Clone, Debug, Default)]
pub struct Opened {
    /// From when on time-based sequences are good.
    pub floor: Floor,
    /// Those that are void all the same.
    pub used: Vec<UsedKey>,
    /// Whether that is so because nothing is known.
    pub is_unknown: bool,
    path: Option<PathBuf>,
}

impl Replay {
    /// That of an instance; `is_continued` says that its pinned maps are those of before.
    pub fn new(instance: &str, is_continued: bool) -> Self {
        Self {
            instance: instance.to_owned(),
            is_continued,
            opened: Mutex::new(None),
        }
    }

    /// Reads what was used, and notes that more may be used from now on. Only the first time.
    pub fn open(&self) -> Opened {
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        opened.get_or_insert_with(|| self.read()).clone()
    }

    fn read(&self) -> Opened {
        let mut failures = Vec::new();
        for directory in directories() {
            match self.read_in(&directory) {
                Ok(opened) => return opened,
                Err(error) => failures.push(os_error::told(&error)),
            }
        }
        tracing::warn!(
            "which sequences were used can't be kept for the next start, which will accept only \
             later ones: {}",
            failures.join("; ")
        );
        Opened {
            floor: self.floor_without_file(),
            is_unknown: !self.is_continued,
            ..Opened::default()
        }
    }

    fn floor_without_file(&self) -> Floor {
        Floor {
            unix_ms: 0,
            boot_ms: (!self.is_continued).then(clock::boot_ms),
        }
    }

    fn read_in(&self, directory: &Path) -> Result<Opened> {
        private_files::directory(directory)
            .with_context(|| format!("making {}", directory.display()))?;
        let path = directory.join(FILE);
        let boot = boot()?;
        let _turn = turn(&path)?;
        let found = State::read(&path);
        // What one that nobody serves has used is noted only in its own map, if at all.
        let is_served =
            |name: &str, began: &str| began == boot && Instance::named(name).owner().is_some();
        let is_closed = found.as_ref().is_some_and(|state| {
            let mut open = state.open.iter();
            open.all(|(name, began)| *name != self.instance && is_served(name, began))
        });
        let is_unknown = !is_closed && !self.is_continued;
        let mut state = found.unwrap_or_default();
        let mut floor = Floor::default();
        if is_unknown {
            floor.boot_ms = Some(clock::boot_ms());
            state.unknown_before_ms = state.unknown_before_ms.max(clock::unix_ms());
            // What those have used that are removed is before this moment. Pins without a process let
            // more be used.
            state.open.retain(|name, began| {
                is_served(name, began) || (*began == boot && Instance::named(name).pins().exists())
            });
        }
        floor.unix_ms = state.unknown_before_ms;
        state.open.insert(self.instance.clone(), boot);
        state.write(&path)?;
        Ok(Opened {
            floor,
            used: state.used.iter().map(Used::key).collect(),
            is_unknown,
            path: Some(path),
        })
    }

    /// Writes the sequences used until now (key, and milliseconds since boot), after which none is
    /// used any more; does nothing if none was opened.
    ///
    /// # Errors
    /// The file can't be written: the next start knows nothing.
    pub fn close(&self, used: &[(UsedKey, u64)], floor: Floor) -> Result<()> {
        let opened = match self.opened.try_lock() {
            Ok(opened) => opened,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            // A reload that is given up still waits for its turn: nothing was used yet.
            Err(TryLockError::WouldBlock) => return Ok(()),
        };
        let Some(path) = opened.as_ref().and_then(|opened| opened.path.as_ref()) else {
            return Ok(());
        };
        let _turn = turn(path)?;
        let mut state = State::read(path).with_context(|| format!("reading {}", path.display()))?;
        state.open.remove(&self.instance);
        state.close(used, floor, clock::unix_ms(), clock::boot_ms());
        state.write(path)
    }
}

impl State {
    /// Adds what was used, and forgets what was used so long ago that its time is over.
    fn close(&mut self, used: &[(UsedKey, u64)], floor: Floor, unix_ms: u64, boot_ms: u64) {
        let mut known: BTreeSet<_> = self.used.iter().map(Used::key).collect();
        for &(key, used_ms) in used {
            if known.insert(key) {
                self.used.push(Used {
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
                // If the clock is set back that far, its time comes again.
                floor_ms = floor_ms.max(used.at_ms);
            }
            is_kept
        });
        self.unknown_before_ms = self.unknown_before_ms.max(floor_ms);
    }

    /// None if there is none that can be understood.
    fn read(path: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(path).ok()?).ok()
    }

    fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_vec(self).context("writing what was used")?;
        one_time::write_file(path, &text).with_context(|| format!("writing {}", path.display()))
    }
}

/// Where it may be: the first that can be written to. What is in /run is gone after a reboot.
fn directories() -> Vec<PathBuf> {
    let given = env::var_os("STATE_DIRECTORY");
    let given = given.as_deref().map(env::split_paths);
    let first = given.and_then(|mut paths| paths.next());
    let first = first.unwrap_or_else(|| DIRECTORY.into());
    vec![first, RUN.into()]
}

fn boot() -> Result<String> {
    let id = fs::read_to_string(BOOT_ID).with_context(|| format!("reading {BOOT_ID}"))?;
    Ok(id.trim().to_owned())
}

/// Instances read and write one after the other.
fn turn(path: &Path) -> Result<fs::File> {
    let lock = path.with_extension("lock");
    let locked = private_files::open(&lock).and_then(|file| file.lock().map(|()| file));
    locked.with_context(|| format!("locking {}", lock.display()))
}
