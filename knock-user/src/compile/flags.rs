//! The TCP flags of knocks, by port.

use std::collections::BTreeMap;

use knock_common::{
    layout::{FLAG_CLASSES, FlagClass, PortRule},
    packet::Protocol,
};
use knock_sequence::Knock;

use super::{conflict::Conflict, handshake};
use crate::model::{
    settings::{Door, Dynamic, Sequences, Verify},
    value::spell_flags,
};

/// The flags with which TCP packets count as knocks, by port.
pub(super) struct Flags {
    pub(super) classes: Vec<FlagClass>,
    /// The ports with other flags than the default, or with a handshake.
    by_port: BTreeMap<u16, u8>,
}

impl Flags {
    pub(super) fn new(
        doors: &[Door],
        sequences: &Sequences,
        conflicts: &mut Vec<Conflict>,
    ) -> Self {
        let mut flags = Self {
            classes: vec![FlagClass::SYN],
            by_port: BTreeMap::new(),
        };
        let mut owners: BTreeMap<u16, usize> = BTreeMap::new();
        for (index, door) in doors.iter().enumerate() {
            let number = flags.number(door.tcp_flags);
            let tcp = |knock: &&Knock| knock.protocol == Protocol::Tcp;
            if let Some(Dynamic::Otp(otp)) = &door.dynamic
                && number != FlagClass::SYN_INDEX
            {
                let ports = otp
                    .sequences
                    .ports()
                    .filter(|p| p.protocol == Protocol::Tcp);
                let ports = ports.flat_map(|ports| ports.first..=ports.last);
                flags.by_port.extend(ports.map(|port| (port, number)));
            }
            let dynamic = sequences.get(&index).into_iter().flatten();
            let dynamic = dynamic.flat_map(|sequence| &sequence.knocks);
            for knock in door.knock.iter().chain(dynamic).filter(tcp) {
                let owner = *owners.entry(knock.port).or_insert(index);
                let Some(other) = doors.get(owner) else {
                    continue;
                };
                if other.tcp_flags != door.tcp_flags {
                    conflicts.push(Conflict::of_door(
                        index,
                        "tcp_flags",
                        format!(
                            "\"{}\" for {knock}, but door \"{}\" wants \"{}\": all doors that \
                             use a knock port need the same flags: use these, or another port",
                            spell_flags(door.tcp_flags),
                            other.name,
                            spell_flags(other.tcp_flags)
                        ),
                    ));
                    // Once for each door.
                    break;
                }
                if number != FlagClass::SYN_INDEX {
                    flags.by_port.insert(knock.port, number);
                }
            }
        }
        for (index, door) in doors.iter().enumerate() {
            if door.verify == Verify::Handshake {
                let ports = handshake::ports(index, door, sequences);
                let ports = ports.flat_map(|ports| ports.first..=ports.last);
                flags
                    .by_port
                    .extend(ports.map(|port| (port, PortRule::HANDSHAKE)));
            }
        }
        if flags.classes.len() > FLAG_CLASSES {
            conflicts.push(Conflict::of_file(
                "door",
                format!(
                    "{} different tcp_flags are too many: the limit is {FLAG_CLASSES}; let doors \
                     share them",
                    flags.classes.len()
                ),
            ));
        }
        flags
    }

    pub(super) fn number(&mut self, class: FlagClass) -> u8 {
        let found = self.classes.iter().position(|known| *known == class);
        let number = found.unwrap_or_else(|| {
            self.classes.push(class);
            self.classes.len() - 1
        });
        // The limit keeps the number within a byte.
        u8::try_from(number).unwrap_or(u8::MAX)
    }

    pub(super) fn of_knock(&self, knock: Knock) -> u8 {
        match knock.protocol {
            Protocol::Tcp => self.by_port.get(&knock.port).copied(),
            Protocol::Udp => None,
        }
        .unwrap_or(FlagClass::SYN_INDEX)
    }
}
