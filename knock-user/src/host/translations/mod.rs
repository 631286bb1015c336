//! Ports that this host translates to others: rules of nftables and iptables.
//!
//! ```text
//! ask ─▶ nft, iptables ─▶ rules as steps ─▶ walk ─▶ translations, and what is not understood
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

/// Tables in which iptables gives packets other ports.
const TABLES: [&str; 2] = ["nat", "mangle"];
/// The most ports of one translation that are served ports: more of them are rather a host that passes
/// everything on, and exempting all of that would leave no port that resets who scans.
const MOST_SERVED: u16 = 1_024;
/// How often rules of iptables-legacy are read again, which have no number that says whether they are
/// others, in milliseconds.
const LEGACY_MS: u64 = 60_000;
/// The shortest time between two readings, in milliseconds.
const PAUSE_MS: u64 = 5_000;

/// What comes to some ports goes to another address or port.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Translation {
    /// The ports to which others connect.
    pub from: Ports,
    /// The address that gets the packets, if it is another: the first of several.
    pub to: Option<IpAddr>,
    /// The first and the last port there; none if they keep theirs.
    pub port: Option<(u16, u16)>,
}

impl Translation {
    /// Whether its ports count as served ones.
    pub const fn is_served(&self) -> bool {
        self.from.last - self.from.first < MOST_SERVED
    }
}

/// The translations of a network namespace, as far as they could be read.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Reading {
    /// Those that are understood.
    pub translations: Vec<Translation>,
    /// What is not, or could not be read, with the reason and the cure.
    pub unread: Vec<String>,
    /// What the rules were.
    stamp: Option<Stamp>,
}

/// Shows whether rules may be others than those that were read.
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
    /// What rules say that were read elsewhere.
    pub const fn of(translations: Vec<Translation>) -> Self {
        Self {
            translations,
            unread: Vec::new(),
            stamp: None,
        }
    }

    /// Reads the rules of the network namespace that this thread is in. It takes CAP_NET_ADMIN and, where
    /// there are rules, the programs `nft`, `iptables-nft-save` or `iptables-legacy-save`.
    pub fn now() -> Self {
        // First: rules that change meanwhile are read again.
        let stamp = Stamp::now();
        let mut rules = Rules::default();
        let mut reading = Self::default();
        let done = reading.nft(stamp.generation, &mut rules);
        reading.unread.extend(done.err());
        let done = legacy(stamp.has_legacy, &mut rules);
        reading.unread.extend(done.err());
        rules.follow(&mut reading);
        reading.merge();
        reading.unread.sort_unstable();
        reading.unread.dedup();
        reading.stamp = Some(stamp);
        reading
    }

    /// Makes one of those that follow each other and lead to the same place.
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

    /// Whether the rules may be others now; this runs no program.
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

    /// Whether another reading says the same.
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
        // Without the elements of sets, which may be many, such as addresses that are blocked.
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
            // Some releases list them all the same.
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

/// Who has made rules of iptables.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Generated {
    Nft,
    Legacy,
}

fn legacy(has_legacy: Option<bool>, rules: &mut Rules) -> Result<(), String> {
    match has_legacy {
        // Asking iptables-legacy-save where there is nothing would make tables.
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
    // Without tables it does not matter who lists none.
    let has_tables = text.lines().any(|line| line.starts_with('*'));
    if has_tables && is_nft != (generated == Generated::Nft) {
        return Err(unread(
            "the program that is installed lists others".to_owned(),
        ));
    }
    iptables::take(&text, name, rules);
    Ok(())
}
