//! Doors whose knocks pass to the network stack.

use knock_common::layout::PortKind;
use knock_sequence::PortSet;

use super::{conflict::Conflict, handshake::all_ports, ports::PortTable};
use crate::model::settings::{Door, Sequences};

/// Marks the knock ports of doors with `knock_pass`.
pub(super) fn mark(ports: &mut PortTable, doors: &[Door], sequences: &Sequences) {
    let passing = doors.iter().enumerate().filter(|(_, door)| door.knock_pass);
    for range in passing.flat_map(|(index, door)| all_ports(index, door, sequences)) {
        for port in range.first..=range.last {
            if let Some(rule) = ports.rules.get_mut(&(range.protocol, port))
                && rule.kind() == PortKind::Knock
            {
                *rule = rule.passing_knocks();
            }
        }
    }
}

/// Finds ports on which one door's knocks would pass and another's would be dropped.
pub(super) fn check(doors: &[Door], sequences: &Sequences, conflicts: &mut Vec<Conflict>) {
    if !doors.iter().any(|door| door.knock_pass) {
        return;
    }
    let dropping = || {
        doors
            .iter()
            .enumerate()
            .filter(|(_, door)| !door.knock_pass)
    };
    let dropped = dropping().flat_map(|(index, door)| all_ports(index, door, sequences));
    let dropped = PortSet::new(dropped);
    for (index, door) in doors.iter().enumerate().filter(|(_, door)| door.knock_pass) {
        let mut own = all_ports(index, door, sequences);
        let Some(shared) = own.find(|ports| dropped.touches(*ports)) else {
            continue;
        };
        let has = |(index, door): &(usize, &Door)| {
            all_ports(*index, door, sequences).any(|ports| ports.overlaps(shared))
        };
        let other = dropping().find(has).map_or("", |(_, other)| &other.name);
        let reason = format!(
            "{shared} is also a knock of door \"{other}\", which drops its knocks, and a port \
             either passes or drops them: use the same knock_pass for both, or another port"
        );
        conflicts.push(Conflict::of_door(index, "knock_pass", reason));
    }
}
