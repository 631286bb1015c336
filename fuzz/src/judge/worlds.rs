//! The configurations that scripts are played under.

use std::sync::OnceLock;

use knock_common::packet::Protocol;
use knock_sequence::Ports;
use knock_user::{
    compile::{Given, Sequences, Tables, compile, stable_ids::Numbers},
    config,
    host::Host,
    model::settings::{Decoys, Exempt, Moving, Settings},
};

/// Configurations that use everything together: each is one world.
const TEXTS: [&str; 4] = [
    include_str!("worlds/plain.toml"),
    include_str!("worlds/targets.toml"),
    include_str!("worlds/handshake.toml"),
    include_str!("worlds/loose.toml"),
];

/// A configuration, ready to be simulated.
pub(super) struct Compiled {
    pub(super) settings: Settings,
    pub(super) tables: Tables,
    /// Ports that scripts name by a number: all that the settings name, and one of nobody.
    pub(super) ports: Vec<(Protocol, u16)>,
    /// Ports that may be knocks of changing sequences.
    pub(super) changing: Vec<Ports>,
}

/// All worlds, compiled once.
pub(super) fn all() -> &'static [Compiled] {
    static ALL: OnceLock<Vec<Compiled>> = OnceLock::new();
    ALL.get_or_init(|| TEXTS.iter().map(|text| compiled(text)).collect())
}

fn compiled(text: &str) -> Compiled {
    let settings = match config::parse(text, "world.toml") {
        Ok(checked) => checked.settings,
        Err(problems) => panic!("{problems}"),
    };
    let tables = compile(
        &settings,
        &mut Given {
            host: &Host::default(),
            cell_key: std::array::from_fn(|word| {
                (word as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
            }),
            known: &Numbers::default(),
            draw: &mut || 0,
            sequences: &Sequences::new(),
            before: None,
        },
    );
    let tables = match tables {
        Ok(tables) => tables,
        Err(conflicts) => panic!("{conflicts:?}"),
    };
    Compiled {
        ports: ports(&settings),
        changing: changing(&settings),
        settings,
        tables,
    }
}

fn changing(settings: &Settings) -> Vec<Ports> {
    let doors = settings.doors.iter();
    let changing = doors.filter_map(|door| match &door.moving {
        Some(Moving::Otp(otp)) => Some(otp.sequences.ports()),
        Some(Moving::OneTime(_)) | None => None,
    });
    changing.flatten().collect()
}

fn ports(settings: &Settings) -> Vec<(Protocol, u16)> {
    let mut ports = vec![(Protocol::Tcp, 55_555), (Protocol::Udp, 55_555)];
    let mut ends = |all: &[Ports]| {
        for one in all {
            ports.extend([(one.protocol, one.first), (one.protocol, one.last)]);
        }
    };
    ends(&settings.protect);
    if let Decoys::Listed(listed) = &settings.decoys {
        ends(listed);
    }
    if let Exempt::Listed(listed) = &settings.exempt {
        ends(listed);
    }
    for door in &settings.doors {
        ends(door.opened());
        let knocks: Vec<Ports> = door.knock.iter().copied().map(Ports::from).collect();
        ends(&knocks);
    }
    ports
}
