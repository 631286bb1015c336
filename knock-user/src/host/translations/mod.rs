//! Finds the ports that this host translates to others by rules of nftables and iptables.
//!
//! ```text
//! ask ─▶ nft, iptables ─▶ rules as steps ─▶ walk ─▶ translations, and rules that are not understood
//! ```

use std::net::IpAddr;

use serde_json::Value;

mod ask;
mod iptables;
mod nft;
mod space;
#[cfg(test)]
mod tests;
mod walk;

use self::{
    ask::{Generation, generation},
    walk::Rules,
};
use knock_sequence::Ports;

use crate::host::{clock, os_error};

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
    stamp: Option<Stamp>,
}

/// A state that differs if the rules may have changed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Stamp {
    generation: Generation,
    has_legacy: Option<bool>,
    at_ms: u64,
}

impl Stamp {
    fn now() -> Self {
        Self {
            generation: generation(),
            has_legacy: ask::has_legacy(&TABLES),
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

    /// Reads the rules of the network namespace of this thread. It takes CAP_NET_ADMIN and, if
    /// there are rules, the programs `nft`, `iptables-nft-save` or `iptables-legacy-save`.
    pub fn now() -> Self {
        // The stamp comes first: rules that change meanwhile are read again.
        let stamp = Stamp::now();
        let mut rules = Rules::default();
        let mut reading = Self::default();
        let nft = reading.nft(stamp.generation, &mut rules);
        let legacy = legacy(stamp.has_legacy, &mut rules);
        reading.unread.extend(nft.err());
        reading.unread.extend(legacy.err());
        rules.follow(&mut reading);
        reading.merge();
        reading.unread.sort_unstable();
        reading.unread.dedup();
        reading.stamp = Some(stamp);
        reading
    }

    /// Merges adjacent translations to the same target.
    fn merge(&mut self) {
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
        let now = Stamp::now();
        let Some(stamp) = self.stamp else {
            return true;
        };
        let age_ms = now.at_ms.saturating_sub(stamp.at_ms);
        let is_other = now.generation != stamp.generation || now.has_legacy != stamp.has_legacy;
        let is_late = now.has_legacy == Some(true) && age_ms >= LEGACY_MS;
        (is_other && age_ms >= PAUSE_MS) || is_late
    }

    /// Returns whether another reading has the same result.
    pub fn says_the_same(&self, other: &Self) -> bool {
        self.translations == other.translations && self.unread == other.unread
    }

    fn nft(&mut self, generation: Generation, rules: &mut Rules) -> Result<(), String> {
        if !generation.has_rules() {
            return Ok(());
        }
        let cannot = |because: &str| {
            format!(
                "rules of nftables: {because}; as root, or with CAP_NET_ADMIN and the program nft \
                 (package nftables), they can be read"
            )
        };
        if let Generation::Refused(errno) = generation {
            return Err(cannot(&os_error::plain(&errno.into())));
        }
        let listed = |arguments: &[&str]| -> Result<Value, String> {
            let text = ask::output(&["nft"], arguments)?;
            serde_json::from_str(&text).map_err(|error| format!("nft writes no JSON: {error}"))
        };
        // Elements of sets are left out: there may be many, such as blocked addresses.
        let list = listed(&["-j", "-n", "-t", "list", "ruleset"]);
        let list = list.map_err(|because| cannot(&because))?;
        let unread = &mut self.unread;
        let mut elements = |family: &str, table: &str, name: &str| -> Option<Vec<Value>> {
            let kind = list["nftables"].as_array()?.iter().find_map(|object| {
                let kind = ["set", "map"].into_iter().find(|kind| {
                    let found = &object[*kind];
                    found["family"] == family && found["table"] == table && found["name"] == name
                });
                kind.map(|kind| (kind, &object[kind]))
            });
            let (kind, known) = kind?;
            // Some releases list them nevertheless.
            let found = match known["elem"].as_array() {
                Some(elements) => Ok(elements.clone()),
                None => listed(&["-j", "-n", "list", kind, family, table, name]).map(|list| {
                    let objects = list["nftables"].as_array().into_iter().flatten();
                    let mut elements = objects.filter_map(|object| object[kind]["elem"].as_array());
                    elements.next().cloned().unwrap_or_default()
                }),
            };
            if let Err(because) = &found {
                unread.push(format!(
                    "the {kind} {name} of table {family} {table}: {because}"
                ));
            }
            found.ok()
        };
        let taken = nft::take(&list, &mut elements, rules);
        if taken.has_iptables {
            let programs = [
                ["iptables-nft-save", "iptables-save"],
                ["ip6tables-nft-save", "ip6tables-save"],
            ];
            for programs in programs {
                iptables(&programs, Generated::Nft, rules)?;
            }
        }
        Ok(())
    }
}

/// The backend of iptables rules.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Generated {
    Nft,
    Legacy,
}

fn legacy(has_legacy: Option<bool>, rules: &mut Rules) -> Result<(), String> {
    match has_legacy {
        // Running iptables-legacy-save without tables would create them.
        Some(false) => return Ok(()),
        Some(true) => {}
        None => {
            return Err(
                "rules of iptables-legacy: only root can see whether there are any; those of \
                 iptables-nft can be read"
                    .to_owned(),
            );
        }
    }
    let programs = [
        ["iptables-legacy-save", "iptables-save"],
        ["ip6tables-legacy-save", "ip6tables-save"],
    ];
    for programs in programs {
        iptables(&programs, Generated::Legacy, rules)?;
    }
    Ok(())
}

fn iptables(programs: &[&str], generated: Generated, rules: &mut Rules) -> Result<(), String> {
    let name = programs.first().copied().unwrap_or_default();
    let unread = |because: String| {
        let needs = match generated {
            Generated::Nft => "as root, and with the program",
            Generated::Legacy => "as root with CAP_NET_RAW, and with the program",
        };
        format!("rules of iptables: {because}; {needs} {name} (package iptables), they can be read")
    };
    let text = ask::output(programs, &[]).map_err(unread)?;
    let is_nft = text.contains("# Generated by iptables-nft-save")
        || text.contains("# Generated by ip6tables-nft-save")
        || text.contains("(nf_tables)");
    // Without tables it does not matter which program lists none.
    let has_tables = text.lines().any(|line| line.starts_with('*'));
    if has_tables && is_nft != (generated == Generated::Nft) {
        return Err(unread(
            "the program that is installed lists others".to_owned(),
        ));
    }
    iptables::take(&text, name, rules);
    Ok(())
}
