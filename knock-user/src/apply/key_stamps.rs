//! The stamps that keys of users have used, in the map `SPA_LAST` of a program.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};
use knock_common::{
    Reason,
    spa::layout::{FwknopKey, LAST_MAX, SEEN_MAX, SpaKeyId},
};

use crate::{
    compile::Tables,
    host::clock,
    kernel::{
        maps::{self, Plain},
        program::XdpProgram,
    },
    sequences::stamps::{FWKNOP_FRESH_MS, OpenedStamps, StampStore, UsedStamps},
};

/// Reasons that are counted after a packet has used its stamp.
pub(super) const AFTER_USE: [Reason; 11] = [
    Reason::Opened,
    Reason::Refreshed,
    Reason::Closed,
    Reason::GrantsFull,
    Reason::CutOff,
    Reason::SpaExpired,
    Reason::SpaNotAllowed,
    Reason::SpaElsewhere,
    Reason::SpaUnreadable,
    Reason::SpaCommand,
    Reason::SpaNat,
];

/// The stamps of a configuration that is loaded.
#[derive(Debug, Default)]
pub(super) struct KeyStamps {
    /// The keys of its users.
    pub(super) keys: BTreeSet<SpaKeyId>,
    /// Which stamps count as used, and why.
    pub(super) opened: OpenedStamps,
    /// The word of keys that have used no stamp that is known.
    pub(super) floor_ns: u64,
    /// The counters of [`AFTER_USE`] when the stamps were read last.
    pub(super) counted: Option<[u64; AFTER_USE.len()]>,
    /// The content of the file.
    pub(super) written: UsedStamps,
    /// The keys of fwknop's clients, until they are accepted.
    pub(super) held: Vec<FwknopKey>,
    /// Whether the last attempt to write the file failed, which was reported.
    pub(super) has_failed: bool,
}

impl KeyStamps {
    /// Gives each key of a configuration its word in a program that is not attached yet.
    pub(super) fn begin(
        program: &mut XdpProgram,
        tables: &Tables,
        mut opened: OpenedStamps,
    ) -> Result<Self> {
        let keys: BTreeSet<_> = tables.spa_key_ids().collect();
        let wall_ns = clock::wall_ns();
        let mut stamps = program.stamps()?;
        for &key in &keys {
            let least = opened.least(key, wall_ns);
            if maps::insert_new(&mut stamps, key, least).context("adding a key to SPA_LAST")? {
                continue;
            }
            // The program in force raises the word with each packet that it accepts. Between the
            // comparison and the write of `replace_if`, two system calls that follow each other, such
            // a packet would be forgotten. A word is raised here only while stamps are lost.
            loop {
                let Plain(word) = stamps.get(&Plain(key), 0).context("reading SPA_LAST")?;
                if word >= least {
                    break;
                }
                opened.record(key, word);
                if maps::replace_if(&mut stamps, key, word, least).context("writing SPA_LAST")? {
                    break;
                }
            }
        }
        let now_ms = clock::boot_ms();
        let mut seen = program.seen()?;
        for &tag in &opened.seen {
            maps::insert_new(&mut seen, tag, now_ms).context("adding a packet to SPA_SEEN")?;
        }
        let mut held = Vec::new();
        if now_ms < opened.floor.fwknop_from_ms() {
            held = tables.spa.fwknop_keys.clone();
            program.set_fwknop_keys(&vec![FwknopKey::default(); held.len()])?;
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
    pub(super) fn move_floor(&mut self, program: &mut XdpProgram, wall_ns: u64) -> Result<()> {
        let floor_ns = self.opened.floor.at(wall_ns);
        let mut stamps = program.stamps()?;
        for &key in &self.keys {
            let Plain(word) = stamps.get(&Plain(key), 0).context("reading SPA_LAST")?;
            // A higher floor hides it, until the clock is set back.
            if word > self.floor_ns {
                self.opened.record(key, word);
            }
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
    pub(super) fn used(&self, program: &mut XdpProgram) -> Result<UsedStamps> {
        let all = maps::entries(&program.stamps()?, LAST_MAX).into_iter();
        let stamps = all.filter(|(_, word)| *word > self.floor_ns).collect();
        let oldest_ms = clock::boot_ms().saturating_sub(FWKNOP_FRESH_MS);
        let seen = maps::entries(&program.seen()?, SEEN_MAX).into_iter();
        let seen = seen.filter(|(_, used_ms)| *used_ms >= oldest_ms).collect();
        Ok(UsedStamps { stamps, seen })
    }

    /// Accepts packets of fwknop once those from before the loss are stale.
    pub(super) fn release(&mut self, program: &mut XdpProgram) -> Result<()> {
        if self.held.is_empty() || clock::boot_ms() < self.opened.floor.fwknop_from_ms() {
            return Ok(());
        }
        program.set_fwknop_keys(&self.held)?;
        self.held.clear();
        Ok(())
    }

    /// Writes the stamps that a program used before one without users replaced it.
    pub(super) fn leave(&self, before: &mut XdpProgram, record: &StampStore) -> Result<()> {
        if !before.has_users() {
            return Ok(());
        }
        record.write(&self.used(before)?, &BTreeSet::new())
    }
}
