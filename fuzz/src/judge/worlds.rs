//! The configurations under which scripts are played.

use std::sync::OnceLock;

use knock_common::packet::Protocol;
use knock_sequence::Ports;
use knock_user::{
    compile::{Input, Tables, compile, stable_ids::StableIds},
    config,
    host::Host,
    model::settings::{AcceptedSequence, Decoys, Dynamic, Exempt, Sequences, Settings},
};

/// Configurations that use everything together: each is one world.
const TEXTS: [&str; 5] = [
    include_str!("worlds/plain.toml"),
    include_str!("worlds/targets.toml"),
    include_str!("worlds/handshake.toml"),
    include_str!("worlds/loose.toml"),
    include_str!("worlds/once.toml"),
];

/// When the sequence of a time-based door ends, in milliseconds since boot: a minute after the script begins.
const TIME_BASED_UNTIL_MS: u64 = 100_000;

/// A configuration, ready to be simulated.
pub(super) struct Compiled {
    pub(super) settings: Settings,
    pub(super) tables: Tables,
    /// The changing sequences, by the place of their door.
    pub(super) sequences: Sequences,
    /// Ports that scripts select by number: all that the settings name, and an unused one.
    pub(super) ports: Vec<(Protocol, u16)>,
    /// Ports that may be knocks of changing sequences.
    pub(super) changing: Vec<Ports>,
}

/// Returns all worlds, compiled once.
pub(super) fn all() -> &'static [Compiled] {
    static ALL: OnceLock<Vec<Compiled>> = OnceLock::new();
    ALL.get_or_init(|| TEXTS.iter().map(|text| compiled(text)).collect())
}

fn compiled(text: &str) -> Compiled {
    let settings = match config::parse(text, "world.toml") {
        Ok(checked) => checked.settings,
        Err(problems) => panic!("{problems}"),
    };
    let sequences = sequences(&settings);
    let tables = compile(
        &settings,
        &mut Input {
            host: &Host::default(),
            cell_key: std::array::from_fn(|word| {
                (word as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
            }),
            known: &StableIds::default(),
            draw: &mut || 0,
            sequences: &sequences,
            before: None,
        },
    );
    let tables = match tables {
        Ok(tables) => tables,
        Err(conflicts) => panic!("{conflicts:?}"),
    };
    Compiled {
        ports: ports(&settings, &sequences),
        changing: changing(&settings, &sequences),
        settings,
        tables,
        sequences,
    }
}

/// Returns two sequences for each one-time door, and one for each time-based door, which ends some time after the
/// script begins.
fn sequences(settings: &Settings) -> Sequences {
    let mut sequences = Sequences::new();
    for (place, door) in settings.doors.iter().enumerate() {
        let own = match &door.dynamic {
            None => continue,
            Some(Dynamic::OneTime(_)) => vec![
                sequence(1, &["tcp/7000", "udp/8000", "tcp/5000"], u64::MAX, &[]),
                sequence(2, &["tcp/7000", "udp/8000", "udp/8100"], u64::MAX, &[]),
            ],
            Some(Dynamic::Otp(_)) => vec![sequence(
                7,
                &["udp/20010", "tcp/20020"],
                TIME_BASED_UNTIL_MS,
                &[Protocol::Udp, Protocol::Tcp],
            )],
        };
        sequences.insert(place, own);
    }
    sequences
}

fn sequence(
    sequence_id: u32,
    knocks: &[&str],
    good_until_ms: u64,
    per_source: &[Protocol],
) -> AcceptedSequence {
    AcceptedSequence {
        knocks: knocks
            .iter()
            .filter_map(|knock| knock.parse().ok())
            .collect(),
        sequence_id,
        replay_domain: 9,
        good_until_ms,
        per_source: per_source.to_vec(),
    }
}

fn changing(settings: &Settings, sequences: &Sequences) -> Vec<Ports> {
    let doors = settings.doors.iter();
    let changing = doors.filter_map(|door| match &door.dynamic {
        Some(Dynamic::Otp(otp)) => Some(otp.sequences.ports()),
        Some(Dynamic::OneTime(_)) | None => None,
    });
    let mut changing: Vec<Ports> = changing.flatten().collect();
    let sequences = sequences.values().flatten();
    let knocks = sequences.flat_map(|sequence| &sequence.knocks);
    changing.extend(knocks.copied().map(Ports::from));
    changing
}

fn ports(settings: &Settings, sequences: &Sequences) -> Vec<(Protocol, u16)> {
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
    for sequence in sequences.values().flatten() {
        let knocks: Vec<Ports> = sequence.knocks.iter().copied().map(Ports::from).collect();
        ends(&knocks);
    }
    ports
}
