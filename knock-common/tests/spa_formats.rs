//! A port that takes packets of both formats, and what is neither.

use std::net::IpAddr;

use knock_common::{
    Address, Reason,
    env::Table as _,
    event::Event,
    fwknop::Passphrase,
    hmac_sha256::HmacKey,
    judge,
    layout::{Config, DoorEntry, Features, PortRule, port_index},
    packet::Protocol::{Tcp, Udp},
    sim::Sim,
    spa::{
        layout::{FwknopKey, Gate, SpaDoorId, SpaKey, SpaKeyId, SpaKeyName, SpaMay, SpaMayKey},
        port::{Otherwise, SpaFormats, SpaPort},
        seal::{Content, Sealer},
    },
};

#[path = "../../tests/src/fwknop.rs"]
#[expect(
    dead_code,
    unreachable_pub,
    reason = "shared with the tests on the program in the kernel"
)]
mod seal;

const PORT: u16 = 62_201;
const CLIENT: &str = "198.51.100.7";
const NOW_S: u64 = 1_700_000_000;
const SECOND: u64 = 1_000_000_000;
const ALICE: u16 = 3;
const BOB: u16 = 4;
const GATE: Gate = Gate {
    check: [1, 2],
    mask: [3, 4],
    is_used: 1,
};

fn alice() -> Sealer {
    Sealer {
        gate: GATE,
        mac: HmacKey::new(b"mac"),
        cipher: HmacKey::new(b"cipher"),
        id: SpaKeyId(5),
    }
}

/// Returns alice's packet of a moment.
fn packet(sealer: Sealer, stamp: u64) -> Vec<u8> {
    let content = Content {
        stamp,
        source: Address::ANY,
        door: SpaDoorId::FIRST,
        seconds: 0,
        action: 0,
        reserved: [0; 3],
    };
    sealer.seal(&content).into()
}

/// Returns bob's packet, in the format of fwknop.
fn of_fwknop(salt: u8) -> Vec<u8> {
    let text = seal::access_at("bob", NOW_S, "0.0.0.0,tcp/22");
    seal::seal(b"a passphrase", b"bob's key", [salt; 8], text.as_bytes()).into()
}

fn host(otherwise: Otherwise) -> Sim {
    let Sealer {
        mac, cipher, id, ..
    } = alice();
    let key = SpaKey {
        mac,
        cipher,
        not_after_ns: u64::MAX,
        user: ALICE,
        ..SpaKey::default()
    };
    let bob = FwknopKey {
        mac: HmacKey::new(b"bob's key"),
        passphrase: Passphrase::new(b"a passphrase").unwrap_or_default(),
        not_after_ns: u64::MAX,
        user: BOB,
        ..FwknopKey::default()
    };
    let may = SpaMay {
        open_for_ms: 30_000,
        open_for_max_ms: 30_000,
        ..SpaMay::default()
    };
    let port = SpaPort {
        formats: SpaFormats::KNOCK.with(SpaFormats::FWKNOP),
        otherwise,
    };
    let door = DoorEntry {
        port_group_count: 1,
        ..DoorEntry::default()
    };
    let sim = Sim {
        features: Features::SPA.with(Features::FWKNOP),
        config: Config {
            spa_window_ns: 30 * SECOND,
            ..Config::default()
        },
        ports: [(port_index(Udp, PORT), PortRule::spa(port))].into(),
        doors: vec![door],
        spa_gates: vec![GATE],
        spa_keys: [(SpaKeyName::new(id, 0), key)].into(),
        fwknop_keys: vec![bob],
        spa_may: [
            (SpaMayKey::door(ALICE, SpaDoorId::FIRST), may),
            (SpaMayKey::port(BOB, port_index(Tcp, 22)), may),
        ]
        .into(),
        ..Sim::default()
    };
    sim.now.set(500 * SECOND);
    sim.wall_clock.set((NOW_S - 500) * SECOND);
    sim.spa_last.insert(&id, 0);
    sim
}

fn send(sim: &Sim, payload: &[u8]) -> (Reason, Vec<Event>) {
    let host: IpAddr = [192, 0, 2, 2].into();
    let frame = knock_frame::eth().ip4(CLIENT, &host.to_string());
    let frame = frame.datagram(40_000, PORT, payload).bytes();
    let reason = judge(&frame[..], sim);
    (reason, sim.events.take())
}

#[test]
fn a_port_takes_packets_of_both_formats() {
    for (otherwise, noise, events) in [
        (Otherwise::Drop, Reason::SpaNoise, 1),
        (Otherwise::Pass, Reason::Ordinary, 0),
    ] {
        let sim = host(otherwise);
        let opened = |payload: &[u8], user: u16, row: &str| {
            let (reason, events) = send(&sim, payload);
            let is_opened = matches!(reason, Reason::Opened | Reason::Refreshed);
            assert!(is_opened, "{otherwise:?}, {row}: {reason:?}");
            let users: Vec<_> = events.iter().map(|event| event.user).collect();
            assert_eq!(users, [user], "{otherwise:?}, {row}");
            let (reason, _) = send(&sim, payload);
            assert_eq!(reason, Reason::SpaReplayed, "{otherwise:?}, {row}, again");
        };
        opened(&packet(alice(), NOW_S * SECOND), ALICE, "of knock-client");
        opened(&of_fwknop(1), BOB, "of fwknop");
        for (row, payload) in [
            ("nothing", vec![]),
            ("as long as a packet of knock-client", vec![0xf3; 72]),
            ("as long as a packet of fwknop", vec![0xf3; 225]),
            ("longer", vec![b'A'; 1_400]),
        ] {
            let (reason, reported) = send(&sim, &payload);
            assert_eq!(reason, noise, "{otherwise:?}, {row}");
            assert_eq!(reported.len(), events, "{otherwise:?}, {row}");
        }
    }
}

/// Its alphabet makes a datagram no packet of fwknop: where other datagrams pass, so does one whose end is no HMAC.
#[test]
fn a_text_without_an_hmac_passes_where_others_pass() {
    let right = of_fwknop(1);
    let (last, others) = right.split_last().map_or((&0, &[][..]), |parts| parts);
    // The two lowest bits of the last character belong to no octet.
    let other = [others, &[last.wrapping_add(1)]].concat();
    for (otherwise, expected) in [
        (Otherwise::Drop, Reason::SpaUnsigned),
        (Otherwise::Pass, Reason::Ordinary),
    ] {
        let sim = host(otherwise);
        assert_eq!(send(&sim, &other).0, expected, "{otherwise:?}");
        assert_eq!(send(&sim, &right).0, Reason::Opened, "{otherwise:?}");
    }
}

/// A flood of forgeries with used stamps costs no HMAC each, like one of copies.
#[test]
fn a_forgery_with_a_used_stamp_is_a_replay() {
    let sim = host(Otherwise::Drop);
    let forger = Sealer {
        mac: HmacKey::new(b"a guess"),
        ..alice()
    };
    let used = NOW_S * SECOND;
    for (row, sealer, stamp, reason, user) in [
        ("before", forger, used, Reason::SpaForged, 0),
        ("the packet", alice(), used, Reason::Opened, ALICE),
        ("with its stamp", forger, used, Reason::SpaReplayed, 0),
        (
            "with an earlier stamp",
            forger,
            used - 1,
            Reason::SpaReplayed,
            0,
        ),
        ("with a later stamp", forger, used + 1, Reason::SpaForged, 0),
        ("a copy", alice(), used, Reason::SpaReplayed, ALICE),
        (
            "the next packet",
            alice(),
            used + 1,
            Reason::Refreshed,
            ALICE,
        ),
    ] {
        let (found, events) = send(&sim, &packet(sealer, stamp));
        assert_eq!(found, reason, "{row}");
        let users: Vec<_> = events.iter().map(|event| event.user).collect();
        assert_eq!(users, [user], "{row}");
    }
}
