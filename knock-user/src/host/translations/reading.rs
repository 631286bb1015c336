//! Translations, as far as the rules of a network namespace could be read.

use std::net::IpAddr;

use knock_sequence::Ports;

use super::ask::{self, Generation, generation};
use crate::host::clock;

/// The tables in which iptables changes ports.
const TABLES: [&str; 2] = ["nat", "mangle"];

/// The most ports of a translation that are exempt: with more, the host rather forwards everything,
/// and exempting all of that would leave no port that resets scanners.
const MOST_SERVED: u16 = 1_024;

/// The interval at which rules of iptables-legacy are read again, in milliseconds: they have no
/// generation number.
const LEGACY_MS: u64 = 60_000;

/// The shortest interval between two readings, in milliseconds.
const PAUSE_MS: u64 = 5_000;

/// A translation of some ports to another address or port.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Translation {
    /// The ports to which others connect.
    pub from: Ports,
    /// The new address, if it changes; the first of several.
    pub to: Option<IpAddr>,
    /// The first and the last new port; none if ports do not change.
    pub port: Option<(u16, u16)>,
}

impl Translation {
    /// Returns whether its ports are exempt like those of listeners.
    pub const fn is_served(&self) -> bool {
        self.from.last - self.from.first < MOST_SERVED
    }
}

/// The translations of a network namespace, as far as its rules could be read.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Reading {
    /// The translations that are understood.
    pub translations: Vec<Translation>,
    /// Rules that are not understood or could not be read, with the reason and the cure.
    pub unread: Vec<String>,
    /// The state of the rules when they were read.
    pub(super) stamp: Option<RulesVersion>,
}

/// A state that differs if the rules may have changed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct RulesVersion {
    pub(super) generation: Generation,
    pub(super) has_legacy: Option<bool>,
    pub(super) ipvs: u64,
    pub(super) at_ms: u64,
}

impl RulesVersion {
    pub(super) fn now() -> Self {
        Self {
            generation: generation(),
            has_legacy: ask::has_legacy(&TABLES),
            ipvs: ask::services_version(&ask::services()),
            at_ms: clock::boot_ms(),
        }
    }
}

impl Reading {
    /// Creates a reading of translations from another source.
    pub const fn of(translations: Vec<Translation>) -> Self {
        Self {
            translations,
            unread: Vec::new(),
            stamp: None,
        }
    }

    /// Merges adjacent translations to the same target.
    pub(super) fn merge(&mut self) {
        self.translations
            .sort_unstable_by_key(|one| (one.to, one.port, one.from));
        self.translations.dedup_by(|next, before| {
            let is_same = next.to == before.to
                && next.port == before.port
                && next.from.protocol == before.from.protocol
                && next.from.first <= before.from.last.saturating_add(1);
            if is_same {
                before.from.last = before.from.last.max(next.from.last);
            }
            is_same
        });
        self.translations.sort_unstable();
    }

    /// Returns whether the rules may have changed. This runs no program.
    pub fn is_old(&self) -> bool {
        let now = RulesVersion::now();
        let Some(stamp) = self.stamp else {
            return true;
        };
        let age_ms = now.at_ms.saturating_sub(stamp.at_ms);
        let is_other = now.generation != stamp.generation
            || now.has_legacy != stamp.has_legacy
            || now.ipvs != stamp.ipvs;
        let is_late = now.has_legacy == Some(true) && age_ms >= LEGACY_MS;
        (is_other && age_ms >= PAUSE_MS) || is_late
    }

    /// Returns whether another reading has the same result.
    pub fn says_the_same(&self, other: &Self) -> bool {
        self.translations == other.translations && self.unread == other.unread
    }
}
