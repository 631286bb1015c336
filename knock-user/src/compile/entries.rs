//! The values of single entries, from settings and numbers.

use std::{collections::BTreeMap, net::IpAddr};

use knock_common::{
    Address, cookie,
    layout::{self, Audience, Config, FLAG_CLASSES, Features, FlagClass},
    port_digits::PortDigits,
};
use knock_sequence::duration::millis;

use super::{audience, automaton::KnockPath, flags::Flags, input::Input, ticks::ticks};
use crate::model::{
    fleet::Alone,
    settings::{Door, Dynamic, Lockout, Scope, Sequences, Settings},
};

/// Returns the features that a configuration uses.
pub fn features(settings: &Settings) -> Features {
    let targets = settings.doors.iter().any(|door| door.target.is_some());
    let reply = settings.doors.iter().any(|door| door.reply);
    let global = |lockout: &Lockout| lockout.scope == Scope::Global;
    let lapses = |door: &Door| lapses_alone(settings, door);
    [
        (settings.strict, Features::STRICT),
        (settings.established.keep, Features::KEEP),
        (!settings.trust.is_empty(), Features::TRUST),
        (!settings.block.is_empty(), Features::BLOCK),
        (
            settings.doors.iter().any(|door| !door.from.is_empty()),
            Features::FROM,
        ),
        (targets, Features::TARGETS),
        (settings.has_handshakes() || reply, Features::ANSWERS),
        (settings.lockout.is_some(), Features::LOCKOUT),
        (settings.spa().is_some(), Features::SPA),
        (settings.fwknop_users().next().is_some(), Features::FWKNOP),
        (
            settings
                .doors
                .iter()
                .any(|door| !door.grant_prefix.is_single()),
            Features::GRANT_PREFIX,
        ),
        (
            settings.doors.iter().any(|door| door.knock_pass),
            Features::KNOCK_PASS,
        ),
        (
            settings.doors.iter().any(is_per_source),
            Features::PER_SOURCE,
        ),
        (settings.doors.iter().any(lapses), Features::FLEET),
        (
            settings.lockout.as_ref().is_some_and(global),
            Features::LOCKOUT_GLOBAL,
        ),
    ]
    .into_iter()
    .filter_map(|(set, flag)| set.then_some(flag))
    .fold(Features::default(), Features::with)
}

pub(super) fn config(settings: &Settings, flags: &Flags, input: &Input<'_>) -> Config {
    let mut flag_classes = [FlagClass::default(); FLAG_CLASSES];
    for (entry, class) in flag_classes.iter_mut().zip(&flags.classes) {
        *entry = *class;
    }
    let lockout = settings.lockout.as_ref();
    let longest = settings
        .doors
        .iter()
        .map(|door| ticks(door.sequence_timeout))
        .max();
    Config {
        flow_idle_ms: settings.established.idle_ms(),
        lockout_ms: lockout.map_or(0, |lockout| millis(lockout.duration)),
        confirm_by_ms: u64::MAX,
        // Until the daemon has followed the engine.
        fleet_until_ms: 0,
        cell_key: input.cell_key,
        // The same key for both turns, until the other one is drawn.
        cookie_keys: [cookie::key(input.cell_key); 2],
        spa_window_ns: settings
            .spa()
            .map_or(0, |spa| millis(spa.window) * 1_000_000),
        lockout_failures: lockout.map_or(0, |lockout| lockout.failures.into()),
        attempt_max_ticks: longest.unwrap_or(0),
        flag_classes,
        // The sizes of the tables are decided when they are made.
        first_knocks_shift: 0,
        lockouts_shift: 0,
    }
}

/// Returns whether a door opens only while this host follows the engine of its group.
fn lapses_alone(settings: &Settings, door: &Door) -> bool {
    let alone = settings.fleet.as_ref().map(|fleet| fleet.alone);
    alone == Some(Alone::Closed) && settings.is_shared(door)
}

pub(super) fn door_entry(
    settings: &Settings,
    door: &Door,
    number: u16,
    target_ids: &BTreeMap<IpAddr, u16>,
    port_groups: &[u16],
) -> layout::DoorEntry {
    let mut entry = layout::DoorEntry {
        number,
        open_for_ms: millis(door.open_for),
        sequence_timeout_ticks: ticks(door.sequence_timeout),
        target_id: door
            .target
            .and_then(|target| target_ids.get(&target).copied())
            .unwrap_or(0),
        closes: u16::from(!door.closed().is_empty()),
        is_limited: u16::from(!door.from.is_empty()),
        is_shared: u16::from(lapses_alone(settings, door)),
        reply: door
            .first_tcp()
            .filter(|_| door.reply)
            .map_or_else(PortDigits::default, PortDigits::of),
        ..layout::DoorEntry::default()
    };
    for (slot, port_group) in entry.port_groups.iter_mut().zip(port_groups) {
        *slot = *port_group;
        entry.port_group_count += 1;
    }
    entry
}

/// Returns the inputs of knocks that depend on the source, by number of the door.
pub(super) fn otp(doors: &[Door], numbers: &[u16]) -> Vec<(u16, layout::OtpEntry)> {
    let entry = |(door, &number): (&Door, &u16)| match &door.dynamic {
        Some(Dynamic::Otp(otp)) if otp.sequences.bind_source => Some((number, otp.entry())),
        Some(Dynamic::Otp(_) | Dynamic::OneTime(_)) | None => None,
    };
    doors.iter().zip(numbers).filter_map(entry).collect()
}

/// Returns the prefixes from which doors can be used, by number of the door, and those of several doors.
pub(super) fn from(doors: &[Door], numbers: &[u16]) -> Vec<(u16, Address, u32)> {
    let prefixes = |(door, &number): (&'_ Door, &u16)| {
        let mapped = door.from.iter().map(|prefix| prefix.mapped());
        mapped
            .map(|(address, bits)| (number, address, bits))
            .collect::<Vec<_>>()
    };
    let of_several = audience::of_several(doors).into_iter();
    let of_several = of_several.map(|(address, bits)| (Audience::SEVERAL_DOORS, address, bits));
    let of_doors = doors.iter().zip(numbers).flat_map(prefixes);
    of_doors.chain(of_several).collect()
}

/// Adds an entry for each sequence of a door that has several.
pub(super) fn add_sequences(
    by_entry: &mut Vec<layout::DoorEntry>,
    doors: &[layout::DoorEntry],
    paths: &[KnockPath],
    sequences: &Sequences,
) {
    for (&place, sequences) in sequences {
        let own = paths.iter().filter(|path| path.door == place);
        for (path, sequence) in own.zip(sequences) {
            let entry = usize::from(path.entry);
            if by_entry.len() <= entry {
                by_entry.resize(entry + 1, layout::DoorEntry::default());
            }
            by_entry[entry] = layout::DoorEntry {
                sequence_id: sequence.sequence_id,
                replay_domain: sequence.replay_domain,
                good_until_ms: sequence.good_until_ms,
                ..doors[place]
            };
        }
    }
}

/// Reorders values of doors by number; there may be gaps.
pub(super) fn by_number<T: Clone + Default>(
    numbers: &[u16],
    items: impl Iterator<Item = T>,
) -> Vec<T> {
    let count = numbers
        .iter()
        .max()
        .map_or(0, |&most| usize::from(most) + 1);
    let mut placed = vec![T::default(); count];
    for (&number, item) in numbers.iter().zip(items) {
        if let Some(place) = placed.get_mut(usize::from(number)) {
            *place = item;
        }
    }
    placed
}

/// Returns whether knocks of a door depend on the source.
fn is_per_source(door: &Door) -> bool {
    match &door.dynamic {
        Some(Dynamic::Otp(otp)) => otp.sequences.bind_source,
        Some(Dynamic::OneTime(_)) | None => false,
    }
}
