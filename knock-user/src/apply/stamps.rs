//! Keeps the stamps that keys of users have used: in the map `SPA_LAST`, and on disk. Follows the
//! wall clock for the program, which has none.

use std::{collections::BTreeMap, thread, time::Duration};

use anyhow::{Context as _, Result};
use knock_common::spa::layout::{SEEN_MAX, SpaKeyId};

use super::{key_stamps::AFTER_USE, protection::Protection};
use crate::{
    host::{clock, os_error},
    kernel::maps,
    sequences::stamps::{FWKNOP_FRESH_MS, UsedStamps},
};

/// A smaller change of the wall clock does not move the floor, in nanoseconds.
const STEP_NS: u64 = 100_000_000;
/// How long a CPU may judge a packet that has passed a gate: far longer than it takes.
const PASSAGE: Duration = Duration::from_millis(5);
/// The effect of a failure to write the file, and the cure.
const NOT_SAVED: &str = "used stamps could not be saved, so after a reboot users have to wait; let \
                         knock-user write to its state directory";

impl Protection {
    /// Passes the wall clock on to the program. If it was set and stamps were lost, the floor moves
    /// with it.
    ///
    /// # Errors
    /// A map can't be read or written.
    pub fn follow_wall_clock(&mut self) -> Result<()> {
        if !self.program.has_users() {
            return Ok(());
        }
        self.key_stamps.release(&mut self.program)?;
        let wall_ns = clock::wall_ns();
        let floor_ns = self.key_stamps.opened.floor.at(wall_ns);
        if floor_ns.abs_diff(self.key_stamps.floor_ns) < STEP_NS {
            return self.program.set_wall_clock(wall_ns);
        }
        self.program.open_gates(false)?;
        thread::sleep(PASSAGE);
        // Before the floor hides what packets have used.
        let saved = self.save_stamps();
        let moved = self
            .key_stamps
            .move_floor(&mut self.program, wall_ns)
            .and_then(|()| self.program.set_wall_clock(wall_ns));
        self.program.open_gates(true)?;
        moved.and(saved)
    }

    /// Writes the stamps that were used since the last call to the disk. Reports a failure once.
    ///
    /// # Errors
    /// The file can't be written, or the maps can't be read.
    pub fn save_stamps(&mut self) -> Result<()> {
        if !self.program.has_users() {
            return Ok(());
        }
        let counters = self.program.counters()?;
        let counted = AFTER_USE.map(|reason| {
            let count = counters.get(reason as usize);
            count.copied().unwrap_or_default()
        });
        if self.key_stamps.counted == Some(counted) {
            return Ok(());
        }
        let used = self.key_stamps.used(&mut self.program)?;
        if used == self.key_stamps.written {
            self.key_stamps.counted = Some(counted);
            return Ok(());
        }
        match self.stamps.write(&used, &self.key_stamps.keys) {
            Ok(()) => {
                self.key_stamps.counted = Some(counted);
                self.key_stamps.written = used;
                self.key_stamps.has_failed = false;
                Ok(())
            }
            Err(_) if self.key_stamps.has_failed => Ok(()),
            Err(error) => {
                self.key_stamps.has_failed = true;
                Err(error.context(NOT_SAVED))
            }
        }
    }

    /// Returns the greatest stamp that each key of a user has used, in nanoseconds since 1970.
    ///
    /// # Errors
    /// The map can't be read.
    pub fn used_stamps(&mut self) -> Result<BTreeMap<SpaKeyId, u64>> {
        match self.program.has_users() {
            true => Ok(self.key_stamps.used(&mut self.program)?.stamps),
            false => Ok(BTreeMap::new()),
        }
    }

    /// Removes packets of fwknop that are long stale. If there are few, they are kept for a day, in
    /// case the clock is set back.
    ///
    /// # Errors
    /// The map can't be read or written.
    pub fn forget_seen(&mut self) -> Result<()> {
        const DAY_MS: u64 = 86_400_000;
        if !self.program.has_users() {
            return Ok(());
        }
        let mut seen = self.program.seen()?;
        let all = maps::entries(&seen, SEEN_MAX);
        let kept_ms = match all.len() > SEEN_MAX as usize / 2 {
            true => FWKNOP_FRESH_MS,
            false => DAY_MS,
        };
        let oldest_ms = clock::boot_ms().saturating_sub(kept_ms);
        for (tag, _) in all.into_iter().filter(|(_, used_ms)| *used_ms < oldest_ms) {
            maps::delete(&mut seen, tag).context("removing a packet from SPA_SEEN")?;
        }
        Ok(())
    }

    /// Writes all used stamps once no packet can use another one.
    pub(super) fn close_stamps(&mut self) {
        let used = match self.program.has_users() {
            true => self.key_stamps.used(&mut self.program),
            false => Ok(UsedStamps::default()),
        };
        let closed = used.and_then(|used| self.stamps.close(&used));
        if let Err(error) = closed {
            tracing::warn!("{NOT_SAVED}: {}", os_error::describe(&error));
        }
    }
}
