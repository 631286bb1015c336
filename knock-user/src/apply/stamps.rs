//! Keeps the stamps that keys of users have used: in the map `SPA_LAST`, and on disk. Follows the
//! wall clock for the program, which has none.

use std::{
    collections::{BTreeMap, BTreeSet},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use knock_common::{
    Reason,
    spa::layout::{FwknopKey, KeyId, LAST_MAX, SEEN_MAX},
};

use super::Protection;
use crate::{
    compile::Tables,
    host::{clock, os_error},
    kernel::{
        maps::{self, Plain},
        program::XdpProgram,
    },
    sequences::stamps::{FWKNOP_FRESH_MS, Opened, Used},
};

/// Reasons that are counted after a packet has used its stamp.
const AFTER_USE: [Reason; 10] = [
    Reason::Opened,
    Reason::Refreshed,
    Reason::Closed,
    Reason::GrantsFull,
    Reason::SpaExpired,
    Reason::SpaNotAllowed,
    Reason::SpaElsewhere,
    Reason::SpaUnreadable,
    Reason::SpaCommand,
    Reason::SpaNat,
];
/// A smaller change of the wall clock does not move the floor, in nanoseconds.
const STEP_NS: u64 = 100_000_000;
/// How long a CPU may judge a packet that has passed a gate: far longer than it takes.
const PASSAGE: Duration = Duration::from_millis(5);

/// The stamps of a configuration that is loaded.
#[derive(Debug, Default)]
pub(super) struct KeyStamps {
    /// The keys of its users.
    keys: BTreeSet<KeyId>,
    /// Which stamps count as used, and why.
    opened: Opened,
    /// The word of keys that have used no stamp that is known.
    floor_ns: u64,
    /// The counters of [`AFTER_USE`] when the stamps were read last.
    counted: Option<[u64; AFTER_USE.len()]>,
    /// What the file has.
    written: Used,
    /// The keys of fwknop's clients, until they are accepted.
    held: Vec<FwknopKey>,
    /// Whether the last attempt to write the file failed, which was reported.
    has_failed: bool,
}

impl KeyStamps {
    /// Gives each key of a configuration its word in a program that is not attached yet.
    pub(super) fn begin(
        firewall: &mut XdpProgram,
        tables: &Tables,
        opened: Opened,
    ) -> Result<Self> {
        let keys: BTreeSet<_> = tables.spa_key_ids().collect();
        let wall_ns = clock::wall_ns();
        let mut stamps = firewall.stamps()?;
        for &key in &keys {
            let least = opened.least(key, wall_ns);
            if !maps::insert_new(&mut stamps, key, least).context("adding a key to SPA_LAST")? {
                let Plain(word) = stamps.get(&Plain(key), 0).context("reading SPA_LAST")?;
                if word < least {
                    stamps
                        .insert(Plain(key), Plain(least), 0)
                        .context("writing SPA_LAST")?;
                }
            }
        }
        let now_ms = clock::boot_ms();
        let mut seen = firewall.seen()?;
        for &tag in &opened.seen {
            maps::insert_new(&mut seen, tag, now_ms).context("adding a packet to SPA_SEEN")?;
        }
        let mut held = Vec::new();
        if now_ms < opened.floor.fwknop_from_ms() {
            held = tables.spa.fwknop_keys.clone();
            firewall.set_fwknop_keys(&vec![FwknopKey::default(); held.len()])?;
        }
        Ok(Self {
            keys,
            held,
            floor_ns: opened.floor.at(wall_ns),
            opened,
            ..Self::default()
        })
    }

    /// Moves the floor after the wall clock was set. The gates must be closed.
    fn move_floor(&mut self, firewall: &mut XdpProgram, wall_ns: u64) -> Result<()> {
        let floor_ns = self.opened.floor.at(wall_ns);
        let mut stamps = firewall.stamps()?;
        for &key in &self.keys {
            let Plain(word) = stamps.get(&Plain(key), 0).context("reading SPA_LAST")?;
            let least = self.opened.least(key, wall_ns);
            // Only a word that no packet has written may become smaller.
            if word == self.floor_ns || word < least {
                stamps
                    .insert(Plain(key), Plain(least), 0)
                    .context("writing SPA_LAST")?;
            }
        }
        self.floor_ns = floor_ns;
        Ok(())
    }

    /// Returns what packets have used.
    fn used(&self, firewall: &mut XdpProgram) -> Result<Used> {
        let all = maps::entries(&firewall.stamps()?, LAST_MAX).into_iter();
        let stamps = all.filter(|(_, word)| *word > self.floor_ns).collect();
        let oldest_ms = clock::boot_ms().saturating_sub(FWKNOP_FRESH_MS);
        let seen = maps::entries(&firewall.seen()?, SEEN_MAX).into_iter();
        let seen = seen.filter(|(_, used_ms)| *used_ms >= oldest_ms).collect();
        Ok(Used { stamps, seen })
    }

    /// Accepts packets of fwknop once those from before the loss are stale.
    fn release(&mut self, firewall: &mut XdpProgram) -> Result<()> {
        if self.held.is_empty() || clock::boot_ms() < self.opened.floor.fwknop_from_ms() {
            return Ok(());
        }
        firewall.set_fwknop_keys(&self.held)?;
        self.held.clear();
        Ok(())
    }
}

impl Protection {
    /// Passes the wall clock on to the program. If it was set and stamps were lost, the floor moves
    /// with it.
    ///
    /// # Errors
    /// A map can't be read or written.
    pub fn follow_wall_clock(&mut self) -> Result<()> {
        if !self.firewall.has_users() {
            return Ok(());
        }
        self.key_stamps.release(&mut self.firewall)?;
        let wall_ns = clock::wall_ns();
        let floor_ns = self.key_stamps.opened.floor.at(wall_ns);
        if floor_ns.abs_diff(self.key_stamps.floor_ns) < STEP_NS {
            return self.firewall.set_wall_clock(wall_ns);
        }
        self.firewall.open_gates(false)?;
        thread::sleep(PASSAGE);
        let moved = self
            .key_stamps
            .move_floor(&mut self.firewall, wall_ns)
            .and_then(|()| self.firewall.set_wall_clock(wall_ns));
        self.firewall.open_gates(true)?;
        moved
    }

    /// Writes the stamps that were used since the last call to the disk. Reports a failure once.
    ///
    /// # Errors
    /// The file can't be written, or the maps can't be read.
    pub fn save_stamps(&mut self) -> Result<()> {
        if !self.firewall.has_users() {
            return Ok(());
        }
        let counters = self.firewall.counters()?;
        let counted = AFTER_USE.map(|reason| {
            let count = counters.get(reason as usize);
            count.copied().unwrap_or_default()
        });
        if self.key_stamps.counted == Some(counted) {
            return Ok(());
        }
        let used = self.key_stamps.used(&mut self.firewall)?;
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
                Err(error.context(
                    "the stamps of SPA packets are not written, so after a reboot users wait \
                     before they get in",
                ))
            }
        }
    }

    /// Returns the greatest stamp that each key of a user has used, in nanoseconds since 1970.
    ///
    /// # Errors
    /// The map can't be read.
    pub fn used_stamps(&mut self) -> Result<BTreeMap<KeyId, u64>> {
        match self.firewall.has_users() {
            true => Ok(self.key_stamps.used(&mut self.firewall)?.stamps),
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
        if !self.firewall.has_users() {
            return Ok(());
        }
        let mut seen = self.firewall.seen()?;
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

    /// Writes the stamps that the previous program left, if the present one accepts none.
    pub(super) fn leave_stamps(&self, before: &mut XdpProgram, stamps: &KeyStamps) -> Result<()> {
        if !before.has_users() || self.firewall.has_users() {
            return Ok(());
        }
        self.stamps.write(&stamps.used(before)?, &BTreeSet::new())
    }

    /// Writes all used stamps once no packet can use another one.
    pub(super) fn close_stamps(&mut self) {
        let used = match self.firewall.has_users() {
            true => self.key_stamps.used(&mut self.firewall),
            false => Ok(Used::default()),
        };
        let closed = used.and_then(|used| self.stamps.close(&used));
        if let Err(error) = closed {
            tracing::warn!(
                "the stamps of SPA packets are not written, so after a reboot users wait before \
                 they get in: {}",
                os_error::describe(&error)
            );
        }
    }
}
