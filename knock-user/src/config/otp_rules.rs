//! Finds contradictions about the ports of time-based sequences, each of which may become a knock.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use knock_common::layout::FlagClass;
use knock_sequence::{Knock, PortSet, Ports, duration::spell};

use super::places::DoorProblem;
use crate::model::{
    settings::{Door, Dynamic, Otp, Settings},
    value::spell_flags,
};

/// Returns the doors with time-based sequences, and their indices.
pub(super) fn timed(settings: &Settings) -> impl Iterator<Item = (usize, &Door, &Otp)> {
    let doors = settings.doors.iter().enumerate();
    doors.filter_map(|(index, door)| match &door.dynamic {
        Some(Dynamic::Otp(otp)) => Some((index, door, otp)),
        Some(Dynamic::OneTime(_)) | None => None,
    })
}

/// Returns all ports that time-based knocks may use.
pub(super) fn ports(settings: &Settings) -> impl Iterator<Item = Ports> {
    timed(settings).flat_map(|(_, _, otp)| otp.sequences.ports())
}

/// Returns the ranges of a door's knocks, in words.
pub(super) fn words(otp: &Otp) -> String {
    let words: Vec<String> = otp
        .sequences
        .ports()
        .map(|ports| ports.to_string())
        .collect();
    words.join(" and ")
}

/// Returns every contradiction; `protector` returns why a port is protected.
pub(super) fn check(
    settings: &Settings,
    protected: &PortSet,
    protector: impl Fn(Ports) -> String,
) -> Vec<DoorProblem> {
    let mut found = protected_ports(settings, protected, protector);
    found.extend(same(settings));
    found.extend(at_odds(settings));
    found.extend(too_often(settings));
    found
}

fn protected_ports(
    settings: &Settings,
    protected: &PortSet,
    protector: impl Fn(Ports) -> String,
) -> Vec<DoorProblem> {
    let closed = protected.ranges();
    let mut found = Vec::new();
    for (index, _, otp) in timed(settings) {
        let within = |own: Ports| closed.iter().find(move |ports| ports.overlaps(own));
        if let Some(ports) = otp.sequences.ports().find_map(within) {
            let reason = format!(
                "its knocks may use any port of {}, and {ports} is {}: use another port_base",
                words(otp),
                protector(*ports)
            );
            found.push((index, "otp", reason));
        }
    }
    found
}

/// Finds doors with the same sequences.
fn same(settings: &Settings) -> Vec<DoorProblem> {
    let mut first: BTreeMap<_, BTreeMap<Option<IpAddr>, usize>> = BTreeMap::new();
    let mut found = Vec::new();
    for (index, door, otp) in timed(settings) {
        let protocols: Vec<u8> = otp
            .sequences
            .protocols
            .iter()
            .map(|&one| one as u8)
            .collect();
        let entry = otp.entry();
        let key = (
            bytemuck::bytes_of(&entry).to_vec(),
            protocols,
            otp.sequences.period,
            otp.sequences.bind_source,
        );
        let others = first.entry(key).or_default();
        let other = match door.target {
            Some(target) => others.get(&Some(target)).or_else(|| others.get(&None)),
            None => others.values().min(),
        };
        if let Some(name) = other.and_then(|&other| settings.doors.get(other)) {
            let reason = format!(
                "door \"{}\" has the same sequences: use another secret, or let one door open \
                 the ports of both",
                name.name
            );
            found.push((index, "otp", reason));
        }
        others.entry(door.target).or_insert(index);
    }
    found
}

/// How often each accepted sequence may change while an attempt lasts. Numbers of old sequences are
/// not reused before that attempt has expired, and `compile/id_pool.rs` keeps this many spare.
const CHANGES_MOST: u32 = 15;

/// Finds doors whose sequences change too often for a door with a long `sequence_timeout`.
fn too_often(settings: &Settings) -> Vec<DoorProblem> {
    let Some(slowest) = settings
        .doors
        .iter()
        .max_by_key(|door| door.sequence_timeout)
    else {
        return Vec::new();
    };
    let changes = |otp: &Otp| otp.sequences.period * CHANGES_MOST * (2 * u32::from(otp.skew) + 1);
    let found = timed(settings).filter(|(_, _, otp)| slowest.sequence_timeout > changes(otp));
    let problem = |(index, _, otp): (usize, &Door, &Otp)| {
        let reason = format!(
            "its sequences change every {}, too often for door \"{}\", whose sequence_timeout is \
             {}: use a longer period here, or a shorter sequence_timeout there",
            spell(otp.sequences.period),
            slowest.name,
            spell(slowest.sequence_timeout)
        );
        (index, "otp", reason)
    };
    found.map(problem).collect()
}

/// Settings that must be equal in doors that share ports.
type Manner = (FlagClass, Option<Duration>);

const fn manner(door: &Door) -> Manner {
    (door.tcp_flags, door.step_timeout)
}

/// Finds doors that would conflict as soon as they share a knock.
fn at_odds(settings: &Settings) -> Vec<DoorProblem> {
    // By settings: the ports of doors with these, and the first door with each range.
    let mut manners: BTreeMap<Manner, BTreeMap<Ports, usize>> = BTreeMap::new();
    let mut found = Vec::new();
    for (index, door, otp) in timed(settings) {
        let own = || otp.sequences.ports();
        let shared = other_owner(&manners, door, |ports| own().any(|own| own.overlaps(ports)));
        if let Some(other) = shared {
            found.push(differs(settings, index, other, words(otp)));
        }
        let ranges = manners.entry(manner(door)).or_default();
        for ports in own() {
            ranges.entry(ports).or_insert(index);
        }
    }
    for (index, door) in settings.doors.iter().enumerate() {
        let at = |ports: Ports| {
            let is_in = |knock: &&Knock| ports.overlaps((**knock).into());
            door.knock.iter().find(is_in)
        };
        if let Some(other) = other_owner(&manners, door, |ports| at(ports).is_some()) {
            let knock = manners
                .values()
                .flat_map(BTreeMap::keys)
                .find_map(|p| at(*p));
            let knock = knock.map_or_else(String::new, ToString::to_string);
            found.push(differs(settings, index, other, knock));
        }
    }
    found
}

/// Returns the first door with other settings that has one of these ports.
fn other_owner(
    manners: &BTreeMap<Manner, BTreeMap<Ports, usize>>,
    door: &Door,
    are_such: impl Fn(Ports) -> bool,
) -> Option<usize> {
    let others = manners.iter().filter(|(other, _)| **other != manner(door));
    let owned = others.flat_map(|(_, ranges)| ranges);
    let shared = owned.filter(|(ports, _)| are_such(**ports));
    shared.map(|(_, &index)| index).min()
}

fn differs(settings: &Settings, index: usize, other: usize, ports: String) -> DoorProblem {
    let doors = &settings.doors;
    let (Some(door), Some(other)) = (doors.get(index), doors.get(other)) else {
        return (index, "otp", String::new());
    };
    let (key, own, others) = if door.step_timeout == other.step_timeout {
        let [own, others] = [door, other].map(|door| spell_flags(door.tcp_flags));
        ("tcp_flags", own, others)
    } else {
        let step = |door: &Door| door.step_timeout.map_or("none".to_owned(), spell);
        ("step_timeout", step(door), step(other))
    };
    let reason = format!(
        "{own}, but {others} for door \"{}\", whose time-based knocks may use {ports} too: use \
         the same for both, or another port_base",
        other.name
    );
    (index, key, reason)
}
