mod answers;

use std::{cell::Cell, net::IpAddr, rc::Rc, vec, vec::Vec};

use proptest::prelude::*;

use super::{
    layout::{DoorId, Gate, KeyId, SpaKey, SpaKeyName, SpaMay, SpaMayKey},
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

const VECTORS: &str = include_str!("../../../tests/spa_vectors.txt");

const PORT: u16 = 62_201;
const STAMP: u64 = 1_800_000_000_123_456_789;
const SECOND: u64 = 1_000_000_000;
const WINDOW: u64 = 30 * SECOND;
/// Time since boot when a packet with [`STAMP`] was made.
const BOOT: u64 = 5_000 * SECOND;
const ALICE: u16 = 7;
const SSH: DoorId = DoorId(0x79c7_ebe6_91a3_2f62);
const WIKI: DoorId = DoorId(0x1a51_dc21_62ca_9bcf);
const OTHERS: DoorId = DoorId(1);
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

/// The keys of host private key 32 × 0x11 and client private key 32 × 0x22.
fn sealer() -> Sealer {
    let key = |text| hmac_sha256::Key::new(&octets::<32>(text));
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
        id: KeyId(u64::from_le_bytes(octets("ae08b31542742c32"))),
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

/// A host with alice's key, who may open `ssh` and `wiki`; bob has a door of his own.
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
            (SpaMayKey::door(ALICE, DoorId::FIRST), ssh),
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

/// A datagram in a frame.
fn frame(source: Address, payload: &[u8]) -> Vec<u8> {
    let length = (8 + payload.len()) as u16;
    let ports = [40_000_u16, PORT, length, 0].map(u16::to_be_bytes).concat();
    let macs = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    let head = if source.is_v4() {
        let from = &source.octets()[12..];
        let total = (20 + length).to_be_bytes();
        let start = [0x45, 0, total[0], total[1], 0, 0, 0, 0, 64, 17, 0, 0];
        [&[8, 0][..], &start, from, &[192, 0, 2, 1]].concat()
    } else {
        let [high, low] = length.to_be_bytes();
        let to = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
        let start = [0x60, 0, 0, 0, high, low, 17, 64];
        [&[0x86, 0xdd][..], &start, &source.octets(), &to].concat()
    };
    [&macs[..], &head, &ports, payload].concat()
}

/// Judges a packet; returns the reason and the events.
fn judge(sim: &Sim, source: Address, payload: &[u8]) -> (Reason, Vec<Event>) {
    let reason = crate::judge(&frame(source, payload)[..], sim);
    (reason, sim.events.take())
}

/// The end of a source's grant, in milliseconds from now; `None` if there is none.
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

/// The vectors of one client and one host. `tests/oracle/spa.py` makes them, which shares no code with this crate.
#[test]
fn packets_are_those_of_another_implementation() {
    let mut count = 0;
    for line in VECTORS.lines().filter(|line| !line.starts_with('#')) {
        let fields: Vec<_> = line.split(" | ").collect();
        let [
            name,
            client,
            host,
            source,
            door,
            seconds,
            action,
            stamp,
            packet,
        ] = fields[..]
        else {
            panic!("{line}");
        };
        if (client, host) != (&"22".repeat(32), &"11".repeat(32)) {
            continue;
        }
        let named = sha256::digest(&[b"knock spa v1 door", door.as_bytes()].concat());
        let [low, high, ..] = named.map(u32::swap_bytes);
        let content = Content {
            stamp: stamp.parse().unwrap(),
            source: Address::from(source.parse::<IpAddr>().unwrap()),
            door: match door {
                "-" => DoorId::FIRST,
                _ => DoorId(u64::from(high) << 32 | u64::from(low)),
            },
            seconds: seconds.parse().unwrap(),
            action: u8::from_str_radix(action.trim_start_matches("0x"), 16).unwrap(),
            reserved: [0; 3],
        };
        assert_eq!(sealer().seal(&content), octets(packet), "{name}");
        count += 1;
    }
    assert!(count > 10, "{count} vectors");
}

#[test]
fn a_packet_opens_what_it_asks_for() {
    let open = |seconds| Content { seconds, ..CONTENT };
    for (name, content, door, lasts_ms) in [
        ("30 seconds", CONTENT, SSH_NUMBER, 30_000),
        ("the time of the door", open(0), SSH_NUMBER, 30_000),
        ("the longest time", open(600), SSH_NUMBER, 600_000),
        ("too long", open(601), SSH_NUMBER, 600_000),
        ("the greatest number", open(u32::MAX), SSH_NUMBER, 600_000),
        (
            "another door",
            Content {
                door: WIKI,
                ..open(90)
            },
            WIKI_NUMBER,
            60_000,
        ),
        (
            "the first door",
            Content {
                door: DoorId::FIRST,
                ..CONTENT
            },
            SSH_NUMBER,
            30_000,
        ),
        (
            "its own source",
            Content {
                source: Address::ANY,
                ..CONTENT
            },
            SSH_NUMBER,
            30_000,
        ),
        (
            "an answer",
            Content {
                action: 0x80,
                ..CONTENT
            },
            SSH_NUMBER,
            30_000,
        ),
    ] {
        let sim = host();
        let packet = sealer().seal(&content);
        let (reason, events) = judge(&sim, CLIENT, &packet);
        assert_eq!(reason, Reason::Opened, "{name}");
        assert_eq!(grant(&sim, CLIENT, door), Some(lasts_ms), "{name}");
        assert_eq!(sim.allow.entries.borrow().len(), 1, "{name}");
        assert_eq!(last(&sim), STAMP, "{name}");
        let expected = Event {
            at_ns: BOOT,
            until_ms: BOOT / 1_000_000 + lasts_ms,
            source: CLIENT,
            destination: Address::from_v4([192, 0, 2, 1]),
            door,
            source_port: 40_000,
            port: PORT,
            protocol: 1,
            reason: Reason::Opened as u8,
            user: ALICE,
            ..Event::default()
        };
        assert_eq!(events, [expected], "{name}");
        let (again, _) = judge(&sim, CLIENT, &packet);
        assert_eq!(again, Reason::SpaReplayed, "{name}, again");
    }
}

#[test]
fn the_next_packet_of_the_client_passes() {
    for source in [CLIENT, V6] {
        let sim = host();
        let packet = sealer().seal(&Content { source, ..CONTENT });
        let mut syn = frame(source, &[0; 20]);
        let ip = syn.len() - 28 - if source.is_v4() { 20 } else { 40 };
        syn[ip + if source.is_v4() { 9 } else { 6 }] = 6;
        let tcp = syn.len() - 28;
        syn[tcp + 2..tcp + 4].copy_from_slice(&22_u16.to_be_bytes());
        syn[tcp + 12..tcp + 14].copy_from_slice(&[0x50, 2]);
        assert_eq!(crate::judge(&syn[..], &sim), Reason::NoGrant);
        assert_eq!(judge(&sim, source, &packet).0, Reason::Opened);
        assert_eq!(crate::judge(&syn[..], &sim), Reason::Granted);
        let close = Content {
            source,
            stamp: STAMP + 1,
            action: 1,
            ..CONTENT
        };
        let (closed, events) = judge(&sim, source, &sealer().seal(&close));
        assert_eq!(closed, Reason::Closed);
        let [Event { door, user, .. }] = events[..] else {
            panic!("{events:?}");
        };
        assert_eq!((door, user), (SSH_NUMBER, ALICE));
        assert_eq!(crate::judge(&syn[..], &sim), Reason::NoGrant);
    }
}

#[test]
fn random_octets_may_follow_a_packet_and_a_part_of_it_is_noise() {
    let packet = sealer().seal(&CONTENT);
    for more in [1, 2, 7, 200] {
        let long = [&packet[..], &vec![0x5a; more]].concat();
        assert_eq!(
            judge(&host(), CLIENT, &long).0,
            Reason::Opened,
            "{more} more"
        );
        assert_eq!(
            judge(
                &host(),
                V6,
                &[
                    &sealer().seal(&Content {
                        source: V6,
                        ..CONTENT
                    })[..],
                    &vec![1; more]
                ]
                .concat()
            )
            .0,
            Reason::Opened,
            "IPv6, {more} more"
        );
    }
    for length in 0..PACKET_BYTES {
        let sim = host();
        assert_eq!(
            judge(&sim, CLIENT, &packet[..length]).0,
            Reason::SpaNoise,
            "{length}"
        );
        // Ethernet pads short frames: what lies behind the datagram is no part of it.
        let mut padded = frame(CLIENT, &packet[..length]);
        padded.extend(&packet[length..]);
        assert_eq!(
            crate::judge(&padded[..], &sim),
            Reason::SpaNoise,
            "{length}, padded"
        );
        assert_eq!(last(&sim), 0, "{length}");
    }
}

/// What a flipped bit changes: without the right gate nothing gets past it, with it the tag is wrong.
#[test]
fn each_changed_bit_is_refused_and_changes_nothing() {
    let packet = sealer().seal(&CONTENT);
    for bit in 0..8 * PACKET_BYTES {
        for closes_gate in [false, true] {
            let mut changed = packet;
            changed[bit / 8] ^= 1 << (bit % 8);
            let mut reasons = vec![Reason::SpaNoise];
            if closes_gate {
                sealer().close_gate(&mut changed);
                // Only a change of the gate itself is undone.
                reasons = match bit / 8 {
                    64.. => continue,
                    // The tag is the input of the mask of id and stamp.
                    0..16 => vec![Reason::SpaStale, Reason::SpaUnknown],
                    16..24 => vec![Reason::SpaUnknown],
                    24..32 => vec![Reason::SpaStale, Reason::SpaForged],
                    _ => vec![Reason::SpaForged],
                };
            }
            let sim = host();
            let (reason, events) = judge(&sim, CLIENT, &changed);
            assert!(reasons.contains(&reason), "bit {bit}: {reason:?}");
            assert_eq!(last(&sim), 0, "bit {bit}");
            assert!(sim.allow.entries.borrow().is_empty(), "bit {bit}");
            assert!(events.iter().all(|event| event.user == 0), "bit {bit}");
        }
    }
}

#[test]
fn a_packet_counts_within_the_window_only() {
    for (name, ahead, reason) in [
        ("on time", 0_i64, Reason::Opened),
        ("29 s ahead", 29, Reason::Opened),
        ("30 s ahead", 30, Reason::Opened),
        ("31 s ahead", 31, Reason::SpaStale),
        ("29 s behind", -29, Reason::Opened),
        ("30 s behind", -30, Reason::Opened),
        ("31 s behind", -31, Reason::SpaStale),
        ("a day behind", -86_400, Reason::SpaStale),
        ("a day ahead", 86_400, Reason::SpaStale),
    ] {
        let sim = host();
        let stamp = STAMP.wrapping_add_signed(ahead * SECOND as i64);
        let packet = sealer().seal(&Content { stamp, ..CONTENT });
        let (found, events) = judge(&sim, CLIENT, &packet);
        assert_eq!(found, reason, "{name}");
        assert_eq!(last(&sim) == stamp, reason == Reason::Opened, "{name}");
        let [event] = events[..] else {
            panic!("{name}: {events:?}");
        };
        // The packet is authentic, so the event names its user.
        assert_eq!(event.user, ALICE, "{name}");
        if reason == Reason::SpaStale {
            assert_eq!(event.until_ms as i64, ahead * 1_000, "{name}");
        }
    }
    for (name, wall_clock) in [
        ("unset", 0),
        ("before 1970", u64::MAX - BOOT),
        ("the last year", u64::MAX / 2),
    ] {
        let sim = host();
        sim.wall_clock.set(wall_clock);
        let (found, _) = judge(&sim, CLIENT, &sealer().seal(&CONTENT));
        assert_eq!(found, Reason::SpaStale, "wall clock {name}");
    }
}

#[test]
fn stamps_only_go_up() {
    let sim = host();
    for (name, stamp, reason) in [
        ("the first", STAMP, Reason::Opened),
        ("the same", STAMP, Reason::SpaReplayed),
        ("one less", STAMP - 1, Reason::SpaReplayed),
        ("one more", STAMP + 1, Reason::Refreshed),
        ("the first again", STAMP, Reason::SpaReplayed),
        ("much later", STAMP + WINDOW, Reason::Refreshed),
        ("in between", STAMP + WINDOW / 2, Reason::SpaReplayed),
    ] {
        let packet = sealer().seal(&Content { stamp, ..CONTENT });
        assert_eq!(judge(&sim, CLIENT, &packet).0, reason, "{name}");
    }
    // The host's clock is set back: used packets stay used.
    sim.wall_clock.set(sim.wall_clock.get() - 3_600 * SECOND);
    let stamp = STAMP - 3_600 * SECOND;
    let packet = sealer().seal(&Content { stamp, ..CONTENT });
    assert_eq!(judge(&sim, CLIENT, &packet).0, Reason::SpaReplayed);
}

#[test]
fn a_used_stamp_stays_used_if_the_user_may_not() {
    let sim = host();
    let not_allowed = Content {
        door: OTHERS,
        ..CONTENT
    };
    let packet = sealer().seal(&not_allowed);
    assert_eq!(judge(&sim, CLIENT, &packet).0, Reason::SpaNotAllowed);
    assert_eq!(judge(&sim, CLIENT, &packet).0, Reason::SpaReplayed);
    assert_eq!(
        judge(&sim, CLIENT, &sealer().seal(&CONTENT)).0,
        Reason::SpaReplayed
    );
}

#[test]
fn a_user_may_open_what_is_configured() {
    const BIND: u16 = SpaKey::BIND;
    const FOR_OTHERS: u16 = SpaKey::FOR_OTHERS;
    let door = |door| Content { door, ..CONTENT };
    let to = |source| Content { source, ..CONTENT };
    let wanted = |action, reserved| Content {
        action,
        reserved,
        ..CONTENT
    };
    let (any, mapped) = (Address::ANY, v4(7));
    let loopback = Address::from_v4([127, 0, 0, 1]);
    let group = Address::from_v4([224, 0, 0, 1]);
    // What the refusal names: the door, and the other address.
    for (name, flags, content, refused) in [
        (
            "a door of others",
            0,
            door(OTHERS),
            Some((Reason::SpaNotAllowed, Some(OTHERS_NUMBER), any)),
        ),
        (
            "no door",
            0,
            door(DoorId(9)),
            Some((Reason::SpaNotAllowed, None, any)),
        ),
        ("its own address", 0, to(mapped), None),
        (
            "another address",
            0,
            to(OTHER),
            Some((Reason::SpaElsewhere, Some(SSH_NUMBER), OTHER)),
        ),
        (
            "an address of the other family",
            0,
            to(V6),
            Some((Reason::SpaElsewhere, Some(SSH_NUMBER), V6)),
        ),
        ("no address", 0, to(any), None),
        (
            "no address, although it is required",
            BIND,
            to(any),
            Some((Reason::SpaElsewhere, Some(SSH_NUMBER), any)),
        ),
        ("its own address, which is required", BIND, to(mapped), None),
        ("another address for others", FOR_OTHERS, to(OTHER), None),
        ("an IPv6 address for others", FOR_OTHERS, to(V6), None),
        (
            "no address for others, although it is required",
            BIND | FOR_OTHERS,
            to(any),
            Some((Reason::SpaElsewhere, Some(SSH_NUMBER), any)),
        ),
        (
            "loopback for others",
            FOR_OTHERS,
            to(loopback),
            Some((Reason::SpaElsewhere, Some(SSH_NUMBER), loopback)),
        ),
        (
            "a group for others",
            FOR_OTHERS,
            to(group),
            Some((Reason::SpaElsewhere, Some(SSH_NUMBER), group)),
        ),
        (
            "an unknown action",
            0,
            wanted(2, [0; 3]),
            Some((Reason::SpaUnreadable, Some(SSH_NUMBER), any)),
        ),
        (
            "the greatest action",
            0,
            wanted(0x7f, [0; 3]),
            Some((Reason::SpaUnreadable, Some(SSH_NUMBER), any)),
        ),
        (
            "a first reserved bit",
            0,
            wanted(0, [1, 0, 0]),
            Some((Reason::SpaUnreadable, Some(SSH_NUMBER), any)),
        ),
        (
            "a last reserved bit",
            0,
            wanted(0x80, [0, 0, 0x80]),
            Some((Reason::SpaUnreadable, Some(SSH_NUMBER), any)),
        ),
    ] {
        let sim = host_with(flags);
        let (reason, events) = judge(&sim, CLIENT, &sealer().seal(&content));
        let [event] = events[..] else {
            panic!("{name}: {events:?}");
        };
        assert_eq!(event.user, ALICE, "{name}");
        assert_eq!(last(&sim), STAMP, "{name}");
        let is_for = if content.source == any {
            CLIENT
        } else {
            content.source
        };
        match refused {
            Some((refused, door, other)) => {
                assert_eq!(reason, refused, "{name}");
                assert_eq!(
                    (number_of(event.door), event.other),
                    (door, other),
                    "{name}"
                );
                assert_eq!(event.source, CLIENT, "{name}");
                assert!(sim.allow.entries.borrow().is_empty(), "{name}");
            }
            None => {
                assert_eq!(reason, Reason::Opened, "{name}");
                assert_eq!(grant(&sim, is_for, SSH_NUMBER), Some(30_000), "{name}");
                assert_eq!(sim.allow.entries.borrow().len(), 1, "{name}");
                let other = if is_for == CLIENT { any } else { CLIENT };
                assert_eq!((event.source, event.other), (is_for, other), "{name}");
            }
        }
    }
}

#[test]
fn an_expired_key_opens_nothing_and_its_grants_end_with_it() {
    for (name, left_ns, lasts_ms) in [
        ("long before", 3_600 * SECOND, Some(30_000)),
        ("less than the grant", 10 * SECOND, Some(10_000)),
        ("the last moment", 1, Some(0)),
        ("its end", 0, None),
    ] {
        let mut sim = host();
        for key in sim.spa_keys.values_mut() {
            key.not_after_ns = STAMP + left_ns;
        }
        let (reason, _) = judge(&sim, CLIENT, &sealer().seal(&CONTENT));
        let expected = if lasts_ms.is_some() {
            Reason::Opened
        } else {
            Reason::SpaExpired
        };
        assert_eq!(reason, expected, "{name}");
        assert_eq!(grant(&sim, CLIENT, SSH_NUMBER), lasts_ms, "{name}");
    }
}

#[test]
fn keys_that_the_host_does_not_have_are_unknown() {
    let mut sim = host();
    sim.spa_keys.clear();
    let packet = sealer().seal(&CONTENT);
    let (reason, events) = judge(&sim, CLIENT, &packet);
    assert_eq!((reason, events.len()), (Reason::SpaUnknown, 1));
    // Without a word for the key nothing shows that the packet is new.
    let sim = host();
    sim.spa_last.entries.borrow_mut().clear();
    assert_eq!(judge(&sim, CLIENT, &packet).0, Reason::SpaFull);
}

#[test]
fn both_host_keys_count_while_clients_change_over() {
    let old = sealer();
    let new = Sealer {
        gate: Gate {
            check: [1, 2],
            mask: [3, 4],
            is_used: 1,
        },
        mac: hmac_sha256::Key::new(b"mac"),
        cipher: hmac_sha256::Key::new(b"cipher"),
        id: old.id,
    };
    let mut sim = host();
    let [key] = sim.spa_keys.values().copied().collect::<Vec<_>>()[..] else {
        panic!("one key");
    };
    sim.spa_gates = vec![new.gate, old.gate];
    sim.spa_keys = [
        (
            SpaKeyName::new(old.id, 0),
            SpaKey {
                mac: new.mac,
                cipher: new.cipher,
                ..key
            },
        ),
        (SpaKeyName::new(old.id, 1), key),
    ]
    .into();
    let at = |more| Content {
        stamp: STAMP + more,
        ..CONTENT
    };
    for (name, packet, reason) in [
        ("the old host key", old.seal(&at(0)), Reason::Opened),
        ("the new host key", new.seal(&at(1)), Reason::Refreshed),
        (
            "a stamp that was used with the other one",
            old.seal(&at(1)),
            Reason::SpaReplayed,
        ),
        (
            "the old host key again",
            old.seal(&at(2)),
            Reason::Refreshed,
        ),
        (
            "the old gate before the new keys",
            Sealer {
                gate: old.gate,
                ..new
            }
            .seal(&at(3)),
            Reason::SpaForged,
        ),
    ] {
        assert_eq!(judge(&sim, CLIENT, &packet).0, reason, "{name}");
    }
    sim.spa_gates[1].is_used = 0;
    let (reason, _) = judge(&sim, CLIENT, &old.seal(&at(4)));
    assert_eq!(reason, Reason::SpaNoise, "an unused gate");
}

#[test]
fn other_packets_to_the_port_are_what_it_is_otherwise() {
    const DATA: &[u8] =
        b"QUIC, for instance, and much longer than the 72 octets that a packet of this format has";
    let group_frame = |payload: &[u8]| {
        let mut group = frame(CLIENT, payload);
        group[0] |= 1;
        group
    };
    let protected = Otherwise::Protected(SSH_NUMBER);
    let packet = sealer().seal(&CONTENT);
    for (name, otherwise, noise, to_group) in [
        ("drop", Otherwise::Drop, Reason::SpaNoise, Reason::Ordinary),
        ("pass", Otherwise::Pass, Reason::Ordinary, Reason::Ordinary),
        ("protected", protected, Reason::NoGrant, Reason::NoGrant),
    ] {
        let mut sim = host();
        let port = SpaPort {
            formats: SpaFormats::KNOCK,
            otherwise,
        };
        sim.ports
            .insert(port_index(Protocol::Udp, PORT), PortRule::spa(port));
        for payload in [DATA, b"short", b""] {
            let (reason, events) = judge(&sim, CLIENT, payload);
            assert_eq!(reason, noise, "{name}");
            assert_eq!(events.is_empty(), noise == Reason::Ordinary, "{name}");
        }
        assert_eq!(
            crate::judge(&group_frame(&packet)[..], &sim),
            to_group,
            "{name}, to a group"
        );
        assert_eq!(judge(&sim, CLIENT, &packet).0, Reason::Opened, "{name}");
        let after = if otherwise == protected {
            Reason::Granted
        } else {
            noise
        };
        assert_eq!(judge(&sim, CLIENT, DATA).0, after, "{name}, after a grant");
    }
}

#[test]
fn a_source_that_no_host_can_have_gets_nothing() {
    for last in [
        Address::from_v4([127, 0, 0, 1]),
        Address::from_v4([0, 0, 0, 0]),
        Address::from_v4([224, 0, 0, 1]),
    ] {
        let sim = host();
        let packet = sealer().seal(&Content {
            source: Address::ANY,
            ..CONTENT
        });
        assert_eq!(judge(&sim, last, &packet).0, Reason::BadHeader, "{last:?}");
        assert!(sim.allow.entries.borrow().is_empty());
    }
}

/// A flood is not authenticated packet by packet: that costs an HMAC each.
#[test]
fn refusals_are_reported_within_their_limit() {
    let sim = host();
    let packet = sealer().seal(&CONTENT);
    assert_eq!(judge(&sim, CLIENT, &packet).0, Reason::Opened);
    let mut reported = 0;
    for _ in 0..1_000 {
        let (reason, events) = judge(&sim, CLIENT, &packet);
        assert_eq!(reason, Reason::SpaReplayed);
        reported += events.len() as u64;
    }
    assert_eq!(reported, 64);
    let suppressed = sim.stats.borrow().get(&Stat::EventsSuppressed).copied();
    assert_eq!(suppressed, Some(1_000 - reported));
}

/// Between reading and writing the word, other CPUs use greater stamps.
struct Racing {
    word: Cell<u64>,
    others: Cell<Vec<u64>>,
}

impl Word for Racing {
    fn load(&self) -> u64 {
        self.word.get()
    }

    fn store(&self, value: u64) {
        self.word.set(value);
    }

    fn replace(&self, old: u64, new: u64) -> bool {
        let mut others = self.others.take();
        if !others.is_empty() {
            self.word.set(others.remove(0));
        }
        self.others.set(others);
        let is_same = self.word.get() == old;
        if is_same {
            self.word.set(new);
        }
        is_same
    }
}

#[test]
fn a_stamp_is_recorded_while_other_cpus_record_theirs() {
    for (name, others, stamp, outcome, word) in [
        ("alone", vec![], 100, None, 100),
        ("a smaller one meanwhile", vec![50], 100, None, 100),
        ("several smaller ones", vec![10, 20, 30], 100, None, 100),
        (
            "a greater one meanwhile",
            vec![200],
            100,
            Some(Reason::SpaReplayed),
            200,
        ),
        (
            "the same one meanwhile",
            vec![100],
            100,
            Some(Reason::SpaReplayed),
            100,
        ),
        (
            "endless smaller ones",
            (1..20).collect(),
            100,
            Some(Reason::Contended),
            8,
        ),
    ] {
        let racing = Racing {
            word: Cell::new(0),
            others: Cell::new(others),
        };
        assert_eq!(stamp::record(&racing, stamp), outcome, "{name}");
        assert_eq!(racing.load(), word, "{name}");
    }
}

proptest! {
    /// Whatever a packet says and whatever the host has: the greatest stamp never goes down, and nothing opens twice.
    #[test]
    fn nothing_opens_twice(
        stamps in prop::collection::vec((0..8_u64, 0..4_u8, any::<bool>()), 1..40),
    ) {
        let sim = host();
        let mut used: Vec<u64> = Vec::new();
        for (more, flip, closes) in stamps {
            let stamp = STAMP + more;
            let mut packet = sealer().seal(&Content { stamp, action: closes.into(), ..CONTENT });
            if flip == 0 {
                packet[40] ^= 1;
                sealer().close_gate(&mut packet);
            }
            let before = last(&sim);
            let (reason, _) = judge(&sim, CLIENT, &packet);
            prop_assert!(last(&sim) >= before);
            let is_used = matches!(reason, Reason::Opened | Reason::Refreshed | Reason::Closed);
            prop_assert_eq!(is_used, flip != 0 && stamp > before);
            if is_used {
                prop_assert!(!used.contains(&stamp));
                used.push(stamp);
            }
        }
    }

    /// Nobody without the keys of the pair gets in, whatever the octets are.
    #[test]
    fn packets_of_others_open_nothing(
        mac: [u8; 32],
        cipher: [u8; 32],
        body: [u8; 32],
        gate: [u64; 4],
        is_gated: bool,
        ahead in -40_i64..40,
    ) {
        let [a, b, c, d] = gate;
        let right = sealer();
        let other = Sealer {
            gate: match is_gated {
                true => right.gate,
                false => Gate { check: [a, b], mask: [c, d], is_used: 1 },
            },
            mac: hmac_sha256::Key::new(&mac),
            cipher: hmac_sha256::Key::new(&cipher),
            id: right.id,
        };
        let sim = host();
        let stamp = STAMP.wrapping_add_signed(ahead * SECOND as i64);
        let (reason, _) = judge(&sim, CLIENT, &other.seal_body(stamp, body));
        let expected = match (is_gated, ahead.abs() <= 30) {
            (false, _) => Reason::SpaNoise,
            (true, false) => Reason::SpaStale,
            (true, true) => Reason::SpaForged,
        };
        prop_assert_eq!(reason, expected);
        prop_assert_eq!(last(&sim), 0);
        prop_assert!(sim.allow.entries.borrow().is_empty());
    }

    /// Any body that a user can seal: what opens is one of the user's doors, for the source, within its limit.
    #[test]
    fn a_users_packet_opens_the_users_doors_only(
        body: [u8; 32],
        knows_door in 0..3_u8,
        is_for_source: bool,
        is_plain: bool,
    ) {
        let mut body = body;
        match knows_door {
            0 => body[16..24].copy_from_slice(&SSH.0.to_le_bytes()),
            1 => body[16..24].copy_from_slice(&OTHERS.0.to_le_bytes()),
            _ => {}
        }
        if is_for_source {
            body[..16].copy_from_slice(&CLIENT.octets());
        }
        if is_plain {
            body[28..].copy_from_slice(&[0; 4]);
        }
        let sim = host();
        let (reason, events) = judge(&sim, CLIENT, &sealer().seal_body(STAMP, body));
        prop_assert_eq!(reason.verdict(), Verdict::Drop);
        prop_assert_eq!(events.len(), 1);
        prop_assert_eq!(events[0].user, ALICE);
        prop_assert_eq!(reason == Reason::Opened, knows_door == 0 && is_for_source && is_plain);
        let entries = sim.allow.entries.borrow();
        let now_ms = sim.now.get() / 1_000_000;
        for (key, word) in entries.iter() {
            let word: &Rc<Cell<u64>> = word;
            prop_assert_eq!(key.source, CLIENT);
            prop_assert_eq!(key.port_group, SSH_NUMBER);
            prop_assert!(Grant::from_word(word.get()).until_ms <= now_ms + 600_000);
        }
    }

    /// The distance of a stamp from the wall clock decides, also around zero and the greatest number.
    #[test]
    fn freshness_is_a_distance(stamp: u64, wall: u64, near: bool, distance in 0..2 * WINDOW) {
        let wall = if near { stamp.wrapping_add(distance) } else { wall };
        let apart = stamp.wrapping_sub(wall).min(wall.wrapping_sub(stamp));
        prop_assert_eq!(stamp::is_fresh(stamp, wall, WINDOW), apart <= WINDOW);
    }

    /// The format of a port survives the port table.
    #[test]
    fn port_rules_keep_their_meaning(formats in 0..4_u8, kind in 0..3_u8, port_group: u16) {
        let otherwise = match kind {
            0 => Otherwise::Drop,
            1 => Otherwise::Pass,
            _ => Otherwise::Protected(port_group),
        };
        let port = SpaPort { formats: SpaFormats(formats), otherwise };
        prop_assert_eq!(PortRule::spa(port).spa_port(), port);
    }
}

#[test]
fn steps_survive_a_register() {
    use super::SpaStep::{self, Authentic, Continue, Judged, Noise, NotSpa};
    for step in Reason::ALL
        .iter()
        .map(|&reason| Judged(reason))
        .chain(Reason::ALL.iter().map(|&reason| Authentic(reason)))
        .chain([Continue, NotSpa, Noise])
    {
        assert_eq!(SpaStep::from_word(step.to_word()), step);
    }
    for word in [u64::MAX, 255, 1 << 12, 1 << 8 | 57] {
        assert_eq!(SpaStep::from_word(word), NotSpa, "{word}");
    }
}
