//! Users of single packet authorization whose keys are numbers, for tests on the program in the kernel.

use anyhow::Result;
use knock_common::{
    Address,
    hmac_sha256::HmacKey,
    layout::{Features, PortRule},
    packet::Protocol,
    spa::{
        layout::{Gate, SpaDoorId, SpaKey, SpaKeyId, SpaKeyName, SpaMay, SpaMayKey},
        port::{Otherwise, SpaFormats, SpaPort},
        seal::{Content, Sealer},
    },
};
use knock_user::{compile::Tables, kernel::maps};

use crate::kernel::{Kernel, now};

/// The time since 1970 at boot, in nanoseconds.
pub const WALL_CLOCK: u64 = 1_800_000_000_000_000_000;
/// How far a stamp may be from the wall clock, in nanoseconds.
pub const WINDOW: u64 = 30_000_000_000;
/// How long a grant lasts unless the packet names a time, in milliseconds.
pub const OPEN_FOR_MS: u64 = 30_000;
/// The longest that a packet can ask for, in milliseconds.
pub const OPEN_FOR_MAX_MS: u64 = 600_000;

const GATE: Gate = Gate {
    check: [1, 2],
    mask: [3, 4],
    is_used: 1,
};

/// Returns a port that accepts the format `knock`.
pub const fn port(otherwise: Otherwise) -> PortRule {
    PortRule::spa(SpaPort {
        formats: SpaFormats::KNOCK,
        otherwise,
    })
}

/// Returns the id of a door.
pub fn door(name: &str) -> SpaDoorId {
    let octets = name.bytes().take(8);
    SpaDoorId(octets.fold(0, |number, octet| number << 8 | u64::from(octet)))
}

/// Returns the client of a user.
pub fn client(user: u16) -> Sealer {
    Sealer {
        gate: GATE,
        mac: HmacKey::new(&[b"mac", &user.to_le_bytes()[..]].concat()),
        cipher: HmacKey::new(&[b"cipher", &user.to_le_bytes()[..]].concat()),
        id: SpaKeyId(user.into()),
    }
}

/// Returns a packet's content: the door for 30 seconds, for the packet's source.
///
/// # Errors
/// The clock can't be read.
pub fn content(door: SpaDoorId) -> Result<Content> {
    Ok(Content {
        stamp: now()?.nanos() + WALL_CLOCK,
        source: Address::ANY,
        door,
        seconds: 0,
        action: 0,
        reserved: [0; 3],
    })
}

/// Adds a UDP port for single packet authorization to a configuration.
pub fn add_port(tables: &mut Tables, number: u16, rule: PortRule) {
    tables.features = tables.features.with(Features::SPA);
    tables.config.spa_window_ns = WINDOW;
    tables.ports.insert((Protocol::Udp, number), rule);
    tables.spa.gates = vec![GATE];
}

/// Adds a user who may open these doors, the first of them by default.
pub fn add_user(tables: &mut Tables, user: u16, flags: u16, doors: &[&str]) {
    let Sealer {
        mac, cipher, id, ..
    } = client(user);
    let key = SpaKey {
        mac,
        cipher,
        not_after_ns: u64::MAX,
        user,
        flags,
        padding: 0,
    };
    tables.spa.keys.push((SpaKeyName::new(id, 0), key));
    let entry = |name: &str| tables.names.iter().position(|door| door == name);
    let may = |name: &str| SpaMay {
        open_for_ms: OPEN_FOR_MS,
        open_for_max_ms: OPEN_FOR_MAX_MS,
        entry: entry(name)
            .and_then(|entry| entry.try_into().ok())
            .unwrap_or(u16::MAX),
        ..SpaMay::default()
    };
    let first = doors.first().map(|name| (SpaDoorId::FIRST, may(name)));
    let named = doors.iter().map(|name| (door(name), may(name)));
    let all: Vec<_> = first.into_iter().chain(named).collect();
    let everybody: Vec<_> = tables
        .names
        .iter()
        .map(|name| (door(name), may(name)))
        .collect();
    for (door, may) in all {
        tables.spa.may.push((SpaMayKey::door(user, door), may));
    }
    for (door, may) in everybody {
        let key = SpaMayKey::door(SpaMayKey::ANYBODY, door);
        if tables.spa.may.iter().all(|(known, _)| *known != key) {
            tables.spa.may.push((key, may));
        }
    }
}

/// Sets the clock of a program in the kernel, and gives each key of its configuration a replay word.
///
/// # Errors
/// The maps can't be written.
pub fn start(kernel: &mut Kernel, tables: &Tables) -> Result<()> {
    let ebpf = kernel.program().ebpf();
    maps::set(ebpf, "WALL_CLOCK", [(0, WALL_CLOCK)])?;
    let words = tables.spa.keys.iter().map(|(name, _)| (name.id, 0_u64));
    maps::insert(ebpf, "SPA_LAST", words)
}
