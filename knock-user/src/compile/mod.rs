//! Turns settings into the tables that the kernel side reads.
//!
//! Every error is found here and reported as a [`Conflict`]; the result is plain [`Tables`], which
//! the loader writes out.
//!
//! May use `model` and the facts in `host`. Must not know where settings come from, nor BPF maps.

mod audience;
mod automaton;
#[cfg(test)]
mod changing;
mod conflict;
mod decoys;
mod difference;
mod edge;
mod entries;
mod flags;
mod handshake;
pub mod id_pool;
mod input;
mod layout;
mod passing;
mod port_groups;
mod ports;
mod spa;
pub mod stable_ids;
mod tables;
#[cfg(test)]
mod tests;
mod ticks;

use knock_common::layout::PortRule;
use knock_sequence::Knock;

pub use self::{
    conflict::Conflict,
    difference::Difference,
    edge::EdgeFrom,
    entries::features,
    id_pool::Capacity,
    input::{Input, Previous},
    stable_ids::StableIds,
    tables::{Tables, grant_keys},
};
use self::{
    entries::{add_sequences, by_number, config, door_entry, from, otp},
    layout::Layout,
    ports::PortTable,
};
use crate::model::settings::{Door, Dynamic, Sequences, Settings};

/// Compiles a configuration.
///
/// # Errors
/// Returns every conflict.
pub fn compile(settings: &Settings, input: &mut Input<'_>) -> Result<Tables, Vec<Conflict>> {
    let layout = Layout::new(settings, input.known, input.sequences, input.before)?;
    let doors = &settings.doors;
    let mut ports = PortTable::default();
    ports.exempt(settings, input.host);
    for (port_group, ranges) in layout.port_groups.ports.iter() {
        let grant_prefix = layout.port_groups.grant_prefix(&[*port_group]);
        let rule = PortRule::protected(*port_group).with_grant_prefix(grant_prefix);
        for &range in ranges {
            ports.put_range(range, rule);
        }
    }
    for knock in knocks(doors, input.sequences) {
        let class = layout.flags.of_knock(knock);
        let first = layout.automaton.first(knock);
        ports.put(knock.protocol, knock.port, PortRule::knock(class, first));
    }
    for door in doors {
        // Each of these ports may become a knock, and some are one for certain sources.
        if let Some(Dynamic::Otp(otp)) = &door.dynamic {
            ports.fill(otp.sequences.ports(), &layout.flags);
        }
    }
    passing::mark(&mut ports, doors, input.sequences);
    audience::mark(&mut ports.rules, doors, &layout.numbers, input.sequences);
    spa::mark(&mut ports, settings);
    let drawn = ports.decoys(settings, &layout.numbers, input)?;
    let (nodes, edges) = layout.automaton.into_tables(&layout.numbers, &layout.paths);
    let entries: Vec<_> = (doors.iter().zip(&layout.numbers))
        .zip(&layout.port_groups.of_doors)
        .map(
            |((door, number), port_groups)| knock_common::layout::DoorEntry {
                grant_prefix: layout.port_groups.grant_prefix(port_groups),
                ..door_entry(settings, door, *number, &layout.target_ids, port_groups)
            },
        )
        .collect();
    let mut by_entry = by_number(&layout.numbers, entries.iter().copied());
    add_sequences(&mut by_entry, &entries, &layout.paths, input.sequences);
    let names = doors.iter().map(|door| door.name.clone());
    let room = match &layout.id_pool {
        Some(id_pool) => id_pool.room(edges.len()),
        None => Capacity::of(nodes.len(), edges.len(), by_entry.len()),
    };
    Ok(Tables {
        features: features(settings),
        config: config(settings, &layout.flags, input),
        ports: ports.rules,
        drawn,
        nodes,
        edges,
        doors: by_entry,
        otp: otp(doors, &layout.numbers),
        targets: layout
            .target_ids
            .iter()
            .map(|(&address, &target_id)| (address.into(), target_id))
            .collect(),
        trust: settings
            .trust
            .iter()
            .map(|prefix| prefix.mapped())
            .collect(),
        block: settings
            .block
            .iter()
            .map(|prefix| prefix.mapped())
            .collect(),
        from: from(doors, &layout.numbers),
        // Only sequences have changed, and the keys of many users take long.
        spa: match input.before {
            Some(before) => before.tables.spa.clone(),
            None => spa::tables(settings, &layout.numbers, &layout.users),
        },
        port_groups: layout.port_groups.ports,
        names: by_number(&layout.numbers, names),
        numbers: layout.used,
        room,
        id_pool: layout.id_pool,
    })
}

/// Returns all knocks, including those of the current changing sequences.
fn knocks<'a>(doors: &'a [Door], sequences: &'a Sequences) -> impl Iterator<Item = Knock> + 'a {
    let dynamic = sequences.values().flatten();
    let fixed = doors.iter().flat_map(|door| &door.knock);
    fixed
        .chain(dynamic.flat_map(|sequence| &sequence.knocks))
        .copied()
}

/// Finds the conflicts that a configuration has on any host.
///
/// # Errors
/// Returns every conflict.
pub fn check(settings: &Settings) -> Result<(), Vec<Conflict>> {
    Layout::new(settings, &StableIds::default(), &Sequences::new(), None).map(|_| ())
}
