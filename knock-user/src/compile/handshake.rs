//! Doors whose knocks are verified with a TCP handshake.

use std::collections::BTreeSet;

use knock_common::{layout::FlagClass, packet::Protocol};
use knock_sequence::{PortSet, Ports};

use super::conflict::Conflict;
use crate::model::{
    settings::{Door, Dynamic, Sequences, Settings, Verify},
    value::spell_flags,
};

/// Returns the TCP ports that a door's knocks may use.
pub(super) fn ports<'a>(
    index: usize,
    door: &'a Door,
    sequences: &'a Sequences,
) -> impl Iterator<Item = Ports> + 'a {
    all_ports(index, door, sequences).filter(|ports| ports.protocol == Protocol::Tcp)
}

/// Returns the ports that a door's knocks may use.
pub(super) fn all_ports<'a>(
    index: usize,
    door: &'a Door,
    sequences: &'a Sequences,
) -> impl Iterator<Item = Ports> + 'a {
    let dynamic = sequences.get(&index).into_iter().flatten();
    let dynamic = dynamic.flat_map(|sequence| &sequence.knocks);
    let timed = match &door.dynamic {
        Some(Dynamic::Otp(otp)) => otp.sequences.ports().collect(),
        Some(Dynamic::OneTime(_)) | None => Vec::new(),
    };
    let knocks = door.knock.iter().chain(dynamic).copied();
    knocks.map(Ports::from).chain(timed)
}

/// Finds knocks that no handshake can verify, and ports that would have to reply and stay silent.
pub(super) fn check(doors: &[Door], sequences: &Sequences, conflicts: &mut Vec<Conflict>) {
    let proved = |door: &&(usize, &Door)| door.1.verify == Verify::Handshake;
    let all: Vec<(usize, &Door)> = doors.iter().enumerate().collect();
    if !all.iter().any(|door| proved(&door)) {
        return;
    }
    let others = || all.iter().filter(|door| !proved(door));
    let silent = others().flat_map(|(index, door)| ports(*index, door, sequences));
    let silent = PortSet::new(silent);
    for &(index, door) in all.iter().filter(proved) {
        of_door(index, door, sequences, conflicts);
        let Some(shared) = ports(index, door, sequences).find(|ports| silent.touches(*ports))
        else {
            continue;
        };
        let has = |(index, door): &&(usize, &Door)| {
            ports(*index, door, sequences).any(|ports| ports.overlaps(shared))
        };
        let name = others().find(has).map_or("", |(_, other)| &other.name);
        let reason = format!(
            "{shared} is also a knock of door \"{name}\", which has verify = \"{}\", and a port \
             either replies or stays silent: use the same verify for both, or another port",
            Verify::Packet.name()
        );
        conflicts.push(Conflict::of_door(index, "verify", reason));
    }
}

fn of_door(index: usize, door: &Door, sequences: &Sequences, conflicts: &mut Vec<Conflict>) {
    let is_udp = |ports: &Ports| ports.protocol == Protocol::Udp;
    if let Some(knock) = all_ports(index, door, sequences).find(is_udp) {
        let reason = format!(
            "{knock} can't be verified, because UDP has no handshake: use TCP knocks only, or \
             remove verify = \"handshake\""
        );
        conflicts.push(Conflict::of_door(index, "verify", reason));
    }
    if door.tcp_flags != FlagClass::SYN {
        let reason = format!(
            "packets with tcp_flags = \"{}\" do not start a handshake: remove tcp_flags",
            spell_flags(door.tcp_flags)
        );
        conflicts.push(Conflict::of_door(index, "verify", reason));
    }
}

/// Returns the ports next to silent knocks, if decoys reply.
pub(super) fn beside(settings: &Settings) -> BTreeSet<u16> {
    if !settings.has_handshakes() {
        return BTreeSet::new();
    }
    let doors = settings.doors.iter();
    let silent = doors.filter(|door| door.verify == Verify::Packet);
    let knocks = silent.flat_map(|door| &door.knock);
    let tcp = knocks.filter(|knock| knock.protocol == Protocol::Tcp);
    tcp.flat_map(|knock| [knock.port.saturating_sub(1), knock.port.saturating_add(1)])
        .collect()
}
