//! Finds the ports that this host translates to others by rules of nftables and iptables, and by IPVS.
//!
//! ```text
//! ask ─▶ nft, iptables ─▶ rules as steps ─▶ walk ─▶ translations, and rules that are not understood
//! ```

use serde_json::Value;

mod ask;
mod iptables;
mod ipvs;
mod nft;
mod nft_values;
mod reading;
mod space;
#[cfg(test)]
mod tests;
mod walk;

pub use self::reading::{Reading, Translation};
use self::{ask::Generation, reading::RulesVersion, walk::TranslationRules};
use crate::host::os_error;

impl Reading {
    /// Reads the rules of the network namespace of this thread. It takes CAP_NET_ADMIN and, if
    /// there are rules, the programs `nft`, `iptables-nft-save` or `iptables-legacy-save`.
    pub fn now() -> Self {
        // The stamp comes first: rules that change meanwhile are read again.
        let stamp = RulesVersion::now();
        let mut rules = TranslationRules::default();
        let mut reading = Self::default();
        let nft = reading.nft(stamp.generation, &mut rules);
        let legacy = legacy(stamp.has_legacy, &mut rules);
        reading.unread.extend(nft.err());
        reading.unread.extend(legacy.err());
        rules.follow(&mut reading);
        ipvs::take(&ask::services(), &mut reading);
        reading.merge();
        reading.unread.sort_unstable();
        reading.unread.dedup();
        reading.stamp = Some(stamp);
        reading
    }

    fn nft(&mut self, generation: Generation, rules: &mut TranslationRules) -> Result<(), String> {
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
                iptables(&programs, IptablesBackend::Nft, rules)?;
            }
        }
        Ok(())
    }
}

/// The backend of iptables rules.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum IptablesBackend {
    Nft,
    Legacy,
}

fn legacy(has_legacy: Option<bool>, rules: &mut TranslationRules) -> Result<(), String> {
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
        iptables(&programs, IptablesBackend::Legacy, rules)?;
    }
    Ok(())
}

fn iptables(
    programs: &[&str],
    generated: IptablesBackend,
    rules: &mut TranslationRules,
) -> Result<(), String> {
    let name = programs.first().copied().unwrap_or_default();
    let unread = |because: String| {
        let needs = match generated {
            IptablesBackend::Nft => "as root, and with the program",
            IptablesBackend::Legacy => "as root with CAP_NET_RAW, and with the program",
        };
        format!("rules of iptables: {because}; {needs} {name} (package iptables), they can be read")
    };
    let text = ask::output(programs, &[]).map_err(unread)?;
    let is_nft = text.contains("# Generated by iptables-nft-save")
        || text.contains("# Generated by ip6tables-nft-save")
        || text.contains("(nf_tables)");
    // Without tables it does not matter which program lists none.
    let has_tables = text.lines().any(|line| line.starts_with('*'));
    if has_tables && is_nft != (generated == IptablesBackend::Nft) {
        return Err(unread(
            "the program that is installed lists others".to_owned(),
        ));
    }
    iptables::take(&text, name, rules);
    Ok(())
}
