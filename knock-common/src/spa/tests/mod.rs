mod answers;
mod format;
mod port;
mod stamps;
mod users;

use std::{
    cell::Cell,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    rc::Rc,
    vec,
    vec::Vec,
};

use proptest::prelude::*;

use super::{
    layout::{Gate, SpaDoorId, SpaKey, SpaKeyId, SpaKeyName, SpaMay, SpaMayKey},
    port::{Otherwise, SpaFormats, SpaPort},
    seal::{Content, PACKET_BYTES, Sealer},
    stamp,
};
use crate::{
    Address, Reason, Stat, Verdict,
    env::{Table as _, Word},
    event::{Event, NO_DOOR},
    grant::Grant,
    hmac_sha256,
    layout::{Config, DoorEntry, Features, GrantKey, PortRule, port_index},
    packet::Protocol,
    sha256,
    sim::Sim,
};

const PORT: u16 = 62_201;
const STAMP: u64 = 1_800_000_000_123_456_789;
const SECOND: u64 = 1_000_000_000;
const WINDOW: u64 = 30 * SECOND;
/// Time since boot when a packet with [`STAMP`] was made.
const BOOT: u64 = 5_000 * SECOND;
const ALICE: u16 = 7;
const SSH: SpaDoorId = SpaDoorId(0x79c7_ebe6_91a3_2f62);
const WIKI: SpaDoorId = SpaDoorId(0x1a51_dc21_62ca_9bcf);
const OTHERS: SpaDoorId = SpaDoorId(1);
const SSH_NUMBER: u16 = 3;
const WIKI_NUMBER: u16 = 4;
const OTHERS_NUMBER: u16 = 5;

const fn v4(last: u8) -> Address {
    let [a, b, c, _] = Address::ANY.words;
    Address {
        words: [
            a,
            b,
            c | u32::from_ne_bytes([0, 0, 0xff, 0xff]),
            u32::from_ne_bytes([203, 0, 113, last]),
        ],
    }
}

const CLIENT: Address = v4(7);
const OTHER: Address = v4(8);
const V6: Address = Address {
    words: [
        u32::from_ne_bytes([0x20, 0x01, 0x0d, 0xb8]),
        0,
        0,
        u32::from_ne_bytes([0, 0, 0, 7]),
    ],
};

fn octets<const N: usize>(text: &str) -> [u8; N] {
    assert_eq!(text.len(), 2 * N);
    std::array::from_fn(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap())
}

/// Returns the keys of host private key 32 × 0x11 and client private key 32 × 0x22.
fn sealer() -> Sealer {
    let key = |text| hmac_sha256::HmacKey::new(&octets::<32>(text));
    let sip = |text| {
        let key: [u8; 16] = octets(text);
        let [low, high] = *key.as_chunks().0 else {
            panic!("16 octets");
        };
        [low, high].map(u64::from_le_bytes)
    };
    Sealer {
        gate: Gate {
            check: sip("24254e8004742453e82759c2f0e4e041"),
            mask: sip("4b1499d26b027e58ff5fcbc455b824a7"),
            is_used: 1,
        },
        mac: key("1cb98ea809191451a021585414a310aad4f009bfeb00c683ca3d8ecc2bd6820d"),
        cipher: key("c36c35d5d20e89c89472a973e559e034d4bd27457238853f68cc962a6ced4ef2"),
        id: SpaKeyId(u64::from_le_bytes(octets("ae08b31542742c32"))),
    }
}

const CONTENT: Content = Content {
    stamp: STAMP,
    source: CLIENT,
    door: SSH,
    seconds: 30,
    action: 0,
    reserved: [0; 3],
};

/// Returns a host with alice's key, who may open `ssh` and `wiki`; bob has a door of his own.
fn host() -> Sim {
    host_with(0)
}

fn host_with(flags: u16) -> Sim {
    let sealer = sealer();
    let key = SpaKey {
        mac: sealer.mac,
        cipher: sealer.cipher,
        not_after_ns: u64::MAX,
        user: ALICE,
        flags,
        padding: 0,
    };
    let door = |number: u16| DoorEntry {
        open_for_ms: 1,
        number,
        port_group_count: 1,
        port_groups: [number; 16],
        // Knocks of these doors are always too late.
        sequence_timeout_ticks: 0,
        sequence_id: 1,
        ..DoorEntry::default()
    };
    let may = |entry: u16, minutes: u64| SpaMay {
        open_for_ms: 30_000,
        open_for_max_ms: minutes * 60_000,
        entry,
        ..SpaMay::default()
    };
    let (ssh, wiki, others) = (may(0, 10), may(1, 1), may(2, 10));
    let anybody = SpaMayKey::ANYBODY;
    let port = SpaPort {
        formats: SpaFormats::KNOCK,
        otherwise: Otherwise::Drop,
    };
    let sim = Sim {
        features: Features::SPA,
        config: Config {
            spa_window_ns: WINDOW,
            ..Config::default()
        },
        ports: [
            (port_index(Protocol::Udp, PORT), PortRule::spa(port)),
            (
                port_index(Protocol::Tcp, 22),
                PortRule::protected(SSH_NUMBER),
            ),
        ]
        .into(),
        doors: [SSH_NUMBER, WIKI_NUMBER, OTHERS_NUMBER].map(door).into(),
        spa_gates: vec![sealer.gate],
        spa_keys: [(SpaKeyName::new(sealer.id, 0), key)].into(),
        spa_may: [
            (SpaMayKey::door(ALICE, SpaDoorId::FIRST), ssh),
            (SpaMayKey::door(ALICE, SSH), ssh),
            (SpaMayKey::door(ALICE, WIKI), wiki),
            (SpaMayKey::door(anybody, SSH), ssh),
            (SpaMayKey::door(anybody, WIKI), wiki),
            (SpaMayKey::door(anybody, OTHERS), others),
        ]
        .into(),
        ..Sim::default()
    };
    sim.now.set(BOOT);
    sim.wall_clock.set(STAMP - BOOT);
    sim.spa_last.insert(&sealer.id, 0);
    sim
}

/// Returns a datagram to the host in a frame.
fn frame(source: Address, payload: &[u8]) -> Vec<u8> {
    let host: IpAddr = if source.is_v4() {
        Ipv4Addr::new(192, 0, 2, 1).into()
    } else {
        Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into()
    };
    knock_frame::eth()
        .ip(source.into(), host)
        .datagram(40_000, PORT, payload)
        .bytes()
}

/// Judges a packet; returns the reason and the events.
fn judge(sim: &Sim, source: Address, payload: &[u8]) -> (Reason, Vec<Event>) {
    let reason = crate::judge(&frame(source, payload)[..], sim);
    (reason, sim.events.take())
}

/// Returns the end of a source's grant, in milliseconds from now; `None` if there is none.
fn grant(sim: &Sim, source: Address, number: u16) -> Option<u64> {
    let key = GrantKey {
        source,
        port_group: number,
        target_id: 0,
    };
    let grant = Grant::from_word(sim.allow.value(&key)?);
    assert_eq!(grant.door, number);
    Some(grant.until_ms.saturating_sub(sim.now.get() / 1_000_000))
}

fn last(sim: &Sim) -> u64 {
    sim.spa_last.value(&sealer().id).unwrap()
}

fn number_of(door: u16) -> Option<u16> {
    (door != NO_DOOR).then_some(door)
}
