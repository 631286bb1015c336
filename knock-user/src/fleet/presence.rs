//! Which hosts are members, and what they have confirmed.

use std::collections::{BTreeMap, HashMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::times::Now;

/// For how long a host that does not answer counts as here, in milliseconds.
pub(super) const BEAT_MS: u64 = 30_000;
/// How often a presence is written although nothing changed, so that clocks are compared, in milliseconds.
const REFRESH_MS: u64 = 300_000;
/// The most ids of revocations that a host confirms.
const CONFIRMED: usize = 16;

/// What a host reports about itself.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Facts {
    /// The version of `knock-user`.
    pub version: String,
    /// A hash of its configuration.
    pub config: String,
    /// A hash of its one-time files, which are the same at all hosts of a group.
    pub files: String,
    /// Whether its doors open for knocks while it is cut off.
    pub is_alone: bool,
}

/// A host of the group, as it writes it for the others.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Presence {
    /// What it reports.
    pub facts: Facts,
    /// Its wall clock when it wrote this, in milliseconds since 1970.
    pub wall_ms: u64,
    /// The ids of the latest revocations by hand that it has applied.
    pub confirmed: Vec<u64>,
    /// How far it has got with a shared configuration; none if it has none.
    #[serde(default)]
    pub shared: Option<SharedState>,
}

/// How far a host has got with a shared configuration.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct SharedState {
    /// Its number.
    pub number: u64,
    /// How far it has got.
    pub stage: Stage,
    /// Why it was undone.
    pub reason: Option<String>,
}

/// How far a host has got with a shared configuration.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// It is about to try it, or tries it.
    Trial,
    /// It is in force.
    Applied,
    /// It was undone.
    Undone,
}

/// A host as another one knows it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HostState {
    /// Its name.
    pub host: String,
    /// Whether it is connected to the engine.
    pub is_here: bool,
    /// Since when, in milliseconds since boot: since when it is here, or is not.
    pub since_ms: u64,
    /// What it reported last.
    pub facts: Facts,
    /// How far its clock is ahead of this one, in milliseconds; none if that was not seen.
    pub clock_offset_ms: Option<i64>,
    /// How far it has got with a shared configuration.
    pub shared: Option<SharedState>,
}

/// How far a revocation has got.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Confirmed {
    /// How many hosts have applied it.
    pub by: usize,
    /// How many hosts the group has, those that are cut off included.
    pub of: usize,
    /// The names of those that have not confirmed it.
    pub missing: Vec<String>,
}

/// The hosts of the group.
#[derive(Clone, Debug, Default)]
pub(super) struct Hosts {
    known: BTreeMap<String, Known>,
    /// The names of the hosts, by the keys of their records.
    names: HashMap<String, String>,
    facts: Option<Facts>,
    confirmed: VecDeque<u64>,
    shared: Option<SharedState>,
    /// What this host wrote last, and when, in milliseconds since boot.
    written: Option<(Presence, u64)>,
}

#[derive(Clone, Debug)]
struct Known {
    presence: Presence,
    clock_offset_ms: Option<i64>,
    since_ms: u64,
    /// When it was seen to be gone, in milliseconds since boot.
    gone_ms: Option<u64>,
}

impl Hosts {
    /// Records what this host reports about itself.
    pub(super) fn describe(&mut self, facts: Facts) {
        self.facts = Some(facts);
    }

    /// Records that this host has applied a revocation.
    pub(super) fn confirm(&mut self, ids: &[u64]) {
        for &id in ids {
            if self.confirmed.contains(&id) {
                continue;
            }
            if self.confirmed.len() == CONFIRMED {
                self.confirmed.pop_front();
            }
            self.confirmed.push_back(id);
        }
    }

    /// Records how far this host has got with a shared configuration.
    pub(super) fn report(&mut self, shared: Option<SharedState>) {
        self.shared = shared;
    }

    /// Returns how far a host has got with a shared configuration.
    pub(super) fn shared(&self, host: &str) -> Option<&SharedState> {
        self.known.get(host)?.presence.shared.as_ref()
    }

    /// Returns how many hosts the group has, those that are cut off included.
    pub(super) fn count(&self) -> usize {
        self.known.len()
    }

    /// Returns the names of the hosts that are connected.
    pub(super) fn here(&self) -> impl Iterator<Item = &str> {
        let here = self
            .known
            .iter()
            .filter(|(_, known)| known.gone_ms.is_none());
        here.map(|(host, _)| host.as_str())
    }

    /// Returns how many hosts have a shared configuration in force, or a newer one.
    pub(super) fn applied(&self, number: u64) -> usize {
        let states = self.known.values();
        let states = states.filter_map(|known| known.presence.shared.as_ref());
        let applied =
            |state: &&SharedState| state.number >= number && state.stage == Stage::Applied;
        states.filter(applied).count()
    }

    /// Returns whether another host undid a shared configuration, or is gone since it tried it.
    pub(super) fn complains(&self, number: u64, own: &str) -> bool {
        self.known.iter().any(|(host, known)| {
            let shared = known.presence.shared.as_ref();
            let is_it = |state: &&SharedState| state.number == number && host != own;
            shared.filter(is_it).is_some_and(|state| match state.stage {
                Stage::Undone => true,
                Stage::Trial => known.gone_ms.is_some(),
                Stage::Applied => false,
            })
        })
    }

    /// Returns the presence of this host, if it has to be written.
    pub(super) fn beat(&mut self, now: Now) -> Option<Presence> {
        let presence = Presence {
            facts: self.facts.clone()?,
            wall_ms: now.wall_ms,
            confirmed: self.confirmed.iter().copied().collect(),
            shared: self.shared.clone(),
        };
        let is_same = |(written, at_ms): &(Presence, u64)| {
            let written = Presence {
                wall_ms: presence.wall_ms,
                ..written.clone()
            };
            written == presence && now.boot_ms < at_ms.saturating_add(REFRESH_MS)
        };
        if self.written.as_ref().is_some_and(is_same) {
            return None;
        }
        self.written = Some((presence.clone(), now.boot_ms));
        Some(presence)
    }

    /// Records that the process that writes started again.
    pub(super) fn restart(&mut self) {
        self.written = None;
    }

    /// Takes the presence of a host; `is_live` if it was written just now.
    pub(super) fn take(&mut self, host: &str, presence: Presence, is_live: bool, now: Now) {
        let before = self.known.get(host);
        let offset_ms = presence.wall_ms.wrapping_sub(now.wall_ms).cast_signed();
        let clock_offset_ms = match is_live {
            true => Some(offset_ms),
            false => before.and_then(|known| known.clock_offset_ms),
        };
        let here = before.filter(|known| known.gone_ms.is_none_or(|ms| ms == now.boot_ms));
        let since_ms = here.map_or(now.boot_ms, |known| known.since_ms);
        let known = Known {
            presence,
            clock_offset_ms,
            since_ms,
            gone_ms: None,
        };
        self.known.insert(host.to_owned(), known);
    }

    /// Records under which key a host is.
    pub(super) fn note(&mut self, key: &str, host: &str) {
        self.names.insert(key.to_owned(), host.to_owned());
    }

    /// Records that the engine no longer has a key.
    pub(super) fn deleted(&mut self, key: &str, now_ms: u64) {
        let known = self
            .names
            .get(key)
            .and_then(|name| self.known.get_mut(name));
        if let Some(known) = known {
            known.gone_ms.get_or_insert(now_ms);
        }
    }

    /// Begins to apply a list: hosts that are not in it are gone.
    pub(super) fn list(&mut self, now_ms: u64) {
        for known in self.known.values_mut() {
            known.gone_ms.get_or_insert(now_ms);
        }
    }

    /// Forgets hosts that have been gone for this long.
    pub(super) fn expire(&mut self, gone_for_ms: u64, now_ms: u64) {
        let is_known = |known: &Known| {
            let gone_ms = known.gone_ms;
            gone_ms.is_none_or(|gone_ms| now_ms < gone_ms.saturating_add(gone_for_ms))
        };
        self.known.retain(|_, known| is_known(known));
        self.names.retain(|_, name| self.known.contains_key(name));
    }

    /// Returns the hosts, by their names.
    pub(super) fn all(&self) -> Vec<HostState> {
        let known = self.known.iter();
        let states = known.map(|(host, known)| HostState {
            host: host.clone(),
            is_here: known.gone_ms.is_none(),
            since_ms: known.gone_ms.unwrap_or(known.since_ms),
            facts: known.presence.facts.clone(),
            clock_offset_ms: known.clock_offset_ms,
            shared: known.presence.shared.clone(),
        });
        states.collect()
    }

    /// Returns which hosts have confirmed a revocation; `own` is this one.
    pub(super) fn confirmations(&self, id: u64, own: &str) -> Confirmed {
        let mut names: Vec<_> = self.known.keys().map(String::as_str).collect();
        if !self.known.contains_key(own) {
            names.push(own);
        }
        let has = |name: &str| {
            let known = self.known.get(name);
            let has_written = known.is_some_and(|known| known.presence.confirmed.contains(&id));
            has_written || name == own && self.confirmed.contains(&id)
        };
        let missing = names.iter().filter(|name| !has(name));
        let missing: Vec<_> = missing.map(|name| (*name).to_owned()).collect();
        Confirmed {
            by: names.len() - missing.len(),
            of: names.len(),
            missing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(boot_ms: u64) -> Now {
        Now {
            boot_ms,
            wall_ms: 1_000_000 + boot_ms,
        }
    }

    fn presence(wall_ms: u64, confirmed: &[u64]) -> Presence {
        Presence {
            facts: Facts::default(),
            wall_ms,
            confirmed: confirmed.to_vec(),
            shared: None,
        }
    }

    #[test]
    fn a_host_is_written_when_something_changed_and_at_times() {
        let mut hosts = Hosts::default();
        assert_eq!(hosts.beat(at(0)), None, "nothing is known of it");
        hosts.describe(Facts::default());
        for (name, at_ms, id, is_written) in [
            ("first", 1, None, true),
            ("again", 2, None, false),
            ("a confirmation", 3, Some(7), true),
            ("the same one", 4, Some(7), false),
            ("before its time", 300_002, None, false),
            ("in time", 300_003, None, true),
        ] {
            hosts.confirm(id.as_slice());
            assert_eq!(hosts.beat(at(at_ms)).is_some(), is_written, "{name}");
        }
        hosts.restart();
        assert!(hosts.beat(at(300_004)).is_some(), "after a restart");
        for id in 100..200 {
            hosts.confirm(&[id]);
        }
        let written = hosts.beat(at(300_005)).unwrap().confirmed;
        assert_eq!(written, (184..200).collect::<Vec<_>>());
    }

    #[test]
    fn hosts_confirm_a_revocation_and_those_that_are_gone_are_named() {
        let mut hosts = Hosts::default();
        for (host, confirmed) in [("a", vec![7]), ("b", vec![]), ("c", vec![8, 7])] {
            hosts.note(&format!("p/{host}"), host);
            hosts.take(host, presence(1_000_000, &confirmed), false, at(0));
        }
        hosts.confirm(&[7]);
        hosts.deleted("p/b", 5_000);
        let expected = Confirmed {
            by: 3,
            of: 4,
            missing: vec!["b".to_owned()],
        };
        assert_eq!(hosts.confirmations(7, "own"), expected);
        let states = hosts.all();
        assert_eq!((states[1].is_here, states[1].since_ms), (false, 5_000));
        hosts.expire(10_000, 15_000);
        assert_eq!(hosts.all().len(), 2);
    }

    #[test]
    fn a_list_shows_who_is_gone_and_only_a_new_record_shows_a_clock() {
        let mut hosts = Hosts::default();
        for host in ["a", "b"] {
            hosts.take(host, presence(1_000_000, &[]), false, at(0));
        }
        hosts.list(50);
        hosts.take("a", presence(1_000_000, &[]), false, at(50));
        hosts.take("c", presence(1_003_060, &[]), true, at(60));
        let states = hosts.all().into_iter();
        let states: Vec<_> = states
            .map(|state| (state.is_here, state.since_ms, state.clock_offset_ms))
            .collect();
        assert_eq!(
            states,
            [(true, 0, None), (false, 50, None), (true, 60, Some(3_000))]
        );
    }
}
