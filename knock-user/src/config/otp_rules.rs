//! What cannot work about the ports of time-based sequences, of which any may be a knock one day.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use knock_common::layout::FlagClass;
use knock_sequence::{Knock, PortSet, Ports, duration::spell};

use crate::model::{
    settings::{Door, Dynamic, Otp, Settings},
    value::spell_flags,
};

/// A problem of a door: its place, the key, and the reason.
pub(super) type Found = (usize, &'static str, String);

/// The doors with time-based sequences, and their places.
pub(super) fn timed(settings: &Settings) -> impl Iterator<Item = (usize, &Door, &Otp)> {
    let doors = settings.doors.iter().enumerate();
    doors.filter_map(|(index, door)| match &door.dynamic {
        Some(Dynamic::Otp(otp)) => Some((index, door, otp)),
        Some(Dynamic::OneTime(_)) | None => None,
    })
}

/// All ports that time-based knocks may be on.
pub(super) fn ports(settings: &Settings) -> impl Iterator<Item = Ports> {
    timed(settings).flat_map(|(_, _, otp)| otp.sequences.ports())
}

/// The range that a door's knocks are in, in words.
pub(super) fn words(otp: &Otp) -> String {
    let words: Vec<String> = otp
        .sequences
        .ports()
        .map(|ports| ports.to_string())
        .collect();
    words.join(" and ")
}

/// Everything that cannot work; `protector` says why a port is protected.
pub(super) fn check(
    settings: &Settings,
    protected: &PortSet,
    protector: impl Fn(Ports) -> String,
) -> Vec<Found> {
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
) -> Vec<Found> {
    let closed = protected.ranges();
    let mut found = Vec::new();
    for (index, _, otp) in timed(settings) {
        let within = |own: Ports| closed.iter().find(move |ports| ports.overlaps(own));
        if let Some(ports) = otp.sequences.ports().find_map(within) {
            let reason = format!(
                "its knocks may be on all of {}, and {ports} is {}: take another port_base",
                words(otp),
                protector(*ports)
            );
            found.push((index, "otp", reason));
        }
    }
    found
}

/// Doors that can't be told apart.
fn same(settings: &Settings) -> Vec<Found> {
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
                "door \"{}\" has the same sequences: give it another secret, or let one door open \
                 the ports of both",
                name.name
            );
            found.push((index, "otp", reason));
        }
        others.entry(door.target).or_insert(index);
    }
    found
}

/// How often a sequence may change while any attempt lives, for each that is listened to: numbers of
/// those that are over are not given to others meanwhile, and there is a supply of them
/// (`compile/places.rs`).
const CHANGES_MOST: u32 = 15;

/// Doors whose sequences change too often for one on which knocking may take long.
fn too_often(settings: &Settings) -> Vec<Found> {
    let Some(slowest) = settings
        .doors
        .iter()
        .max_by_key(|door| door.sequence_timeout)
    else {
        return Vec::new();
    };
    let changes = |otp: &Otp| otp.sequences.period * CHANGES_MOST * (2 * u32::from(otp.skew) + 1);
    let found = timed(settings).filter(|(_, _, otp)| slowest.sequence_timeout > changes(otp));
    let told = |(index, _, otp): (usize, &Door, &Otp)| {
        let reason = format!(
            "its sequences change every {}, too often while knocking on door \"{}\" may take {}: \
             take a longer period here, or a shorter sequence_timeout there",
            spell(otp.sequences.period),
            slowest.name,
            spell(slowest.sequence_timeout)
        );
        (index, "otp", reason)
    };
    found.map(told).collect()
}

/// What doors must have in common that share ports.
type Manner = (FlagClass, Option<Duration>);

const fn manner(door: &Door) -> Manner {
    (door.tcp_flags, door.step_timeout)
}

/// Doors that would get into each other's way on the day that they share a knock.
fn at_odds(settings: &Settings) -> Vec<Found> {
    // For each manner: the ports of doors that have it, and the first door with each range.
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

/// The first door of another manner whose ports are such.
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

fn differs(settings: &Settings, index: usize, other: usize, ports: String) -> Found {
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
        "{own}, but {others} for door \"{}\", whose time-based knocks may be on {ports} too: make \
         both the same, or take another port_base",
        other.name
    );
    (index, key, reason)
}
