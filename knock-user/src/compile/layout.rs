//! Numbers everything that the tables refer to, and finds what they can't hold.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use knock_common::{
    event::NO_DOOR,
    layout::{BLOCK_MAX, DOORS_MAX, FROM_MAX, Symbol, TARGETS_MAX, TRUST_MAX},
};

use super::{
    audience,
    automaton::{Automaton, KnockPath, builder, symbol},
    conflict::Conflict,
    flags::Flags,
    handshake,
    id_pool::{self, IdPool},
    input::Previous,
    passing,
    port_groups::PortGroups,
    spa,
    stable_ids::{IdAssigner, StableIds},
    ticks::ticks,
};
use crate::model::settings::{Door, Sequences, Settings};

/// The results of the steps that can fail.
pub(super) struct Layout {
    /// The numbers of the doors, in their order.
    pub(super) numbers: Vec<u16>,
    /// The numbers of the users, in their order.
    pub(super) users: Vec<u16>,
    /// The numbers of everything.
    pub(super) used: StableIds,
    /// The id of each target.
    pub(super) target_ids: BTreeMap<IpAddr, u16>,
    pub(super) flags: Flags,
    pub(super) port_groups: PortGroups,
    pub(super) paths: Vec<KnockPath>,
    pub(super) automaton: Automaton,
    /// Numbers that stay unchanged while sequences change; none if no door has changing sequences.
    pub(super) id_pool: Option<IdPool>,
}

impl Layout {
    pub(super) fn new(
        settings: &Settings,
        known: &StableIds,
        sequences: &Sequences,
        before: Option<Previous<'_>>,
    ) -> Result<Self, Vec<Conflict>> {
        let mut conflicts = Vec::new();
        let mut id_assigner = IdAssigner::new(known);
        let doors = &settings.doors;
        within_limits(settings, &mut conflicts);
        spa::within_limits(settings, &mut conflicts);
        let target_ids = target_ids(doors, &mut id_assigner, &mut conflicts);
        // Within these limits, numbers fit their types.
        if !conflicts.is_empty() {
            return Err(conflicts);
        }
        let flags = Flags::new(doors, sequences, &mut conflicts);
        handshake::check(doors, sequences, &mut conflicts);
        passing::check(doors, sequences, &mut conflicts);
        let numbers = doors.iter().map(|door| id_assigner.door(&door.name));
        // Within the limits, there are enough numbers for the doors of two configurations.
        let numbers: Vec<u16> = numbers.map(|number| number.unwrap_or(NO_DOOR)).collect();
        let users = spa::user_numbers(settings, &mut id_assigner);
        let port_groups = PortGroups::new(settings, &numbers, &mut id_assigner, &mut conflicts);
        let mut id_pool = id_pool(doors, &numbers, sequences, before);
        let paths = paths(doors, &numbers, sequences, id_pool.as_mut()).map_err(|c| vec![c])?;
        let automaton = builder::build(doors, &paths, &target_ids, &mut conflicts);
        match (port_groups, automaton) {
            (Some(port_groups), Some(mut automaton)) if conflicts.is_empty() => {
                if let Some(id_pool) = &mut id_pool {
                    let own = id_pool.number(&automaton, before.map(|before| before.now_ms));
                    automaton.renumber(&own.map_err(|conflict| vec![conflict])?);
                }
                Ok(Self {
                    numbers,
                    users,
                    used: id_assigner.used,
                    target_ids,
                    flags,
                    port_groups,
                    paths,
                    automaton,
                    id_pool,
                })
            }
            _ => Err(conflicts),
        }
    }
}

/// Returns the pool of stable numbers, if any door has changing sequences.
fn id_pool(
    doors: &[Door],
    numbers: &[u16],
    sequences: &Sequences,
    before: Option<Previous<'_>>,
) -> Option<IdPool> {
    let dynamic = doors.iter().any(|door| door.dynamic.is_some());
    dynamic.then(|| match before {
        Some(Previous { tables, now_ms }) => {
            let mut id_pool = tables.id_pool.clone().unwrap_or_default();
            id_pool.begin(now_ms);
            id_pool
        }
        None => {
            let end = numbers.iter().max().map_or(0, |&most| u32::from(most) + 1);
            let longest = doors.iter().map(|door| ticks(door.sequence_timeout)).max();
            IdPool::new(end, sequences, longest.unwrap_or(0))
        }
    })
}

/// Returns the sequences for the automaton.
fn paths(
    doors: &[Door],
    numbers: &[u16],
    sequences: &Sequences,
    mut id_pool: Option<&mut IdPool>,
) -> Result<Vec<KnockPath>, Conflict> {
    let mut paths = Vec::with_capacity(doors.len());
    for (index, (door, &number)) in doors.iter().zip(numbers).enumerate() {
        if !door.knock.is_empty() {
            paths.push(KnockPath {
                door: index,
                entry: number,
                symbols: door.knock.iter().copied().map(symbol).collect(),
                per_source: 0,
            });
        }
        for sequence in sequences.get(&index).into_iter().flatten() {
            let entry = id_pool
                .as_mut()
                .and_then(|p| p.entry(number, sequence.sequence_id));
            let fixed = sequence.knocks.iter().copied().map(symbol);
            let per_source = sequence.per_source.iter().map(|_| Symbol::PER_SOURCE);
            paths.push(KnockPath {
                door: index,
                entry: entry.ok_or_else(id_pool::no_room)?,
                symbols: fixed.chain(per_source).collect(),
                per_source: u8::try_from(sequence.per_source.len()).unwrap_or(u8::MAX),
            });
        }
    }
    Ok(paths)
}

fn within_limits(settings: &Settings, conflicts: &mut Vec<Conflict>) {
    let doors = settings.doors.len();
    if doors > DOORS_MAX as usize {
        conflicts.push(Conflict::of_file(
            "door",
            format!("{doors} doors are too many: the limit is {DOORS_MAX}; remove some"),
        ));
    }
    let from: usize = settings.doors.iter().map(|door| door.from.len()).sum();
    let of_several = audience::of_several(&settings.doors).len();
    for (key, count, most) in [
        ("trust", settings.trust.len(), TRUST_MAX),
        ("block", settings.block.len(), BLOCK_MAX),
        ("from", from + of_several, FROM_MAX),
    ] {
        if count > most as usize {
            conflicts.push(Conflict::of_file(
                key,
                format!(
                    "{count} prefixes are too many: the limit is {most}; join neighbours \
                     into shorter prefixes"
                ),
            ));
        }
    }
}

fn target_ids(
    doors: &[Door],
    id_assigner: &mut IdAssigner<'_>,
    conflicts: &mut Vec<Conflict>,
) -> BTreeMap<IpAddr, u16> {
    let targets: BTreeSet<IpAddr> = doors.iter().filter_map(|door| door.target).collect();
    if targets.len() > TARGETS_MAX as usize {
        conflicts.push(Conflict::of_file(
            "door",
            format!(
                "{} different targets are too many: the limit is {TARGETS_MAX}; use fewer, or \
                 doors without a target",
                targets.len()
            ),
        ));
    }
    let target_id = |target| Some((target, id_assigner.target(target)?));
    targets.into_iter().filter_map(target_id).collect()
}
