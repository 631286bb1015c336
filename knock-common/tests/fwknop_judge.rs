//! How packets of fwknop are judged: who may ask for what, for how long and how often.
#![expect(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

use std::net::IpAddr;

use knock_common::{
    Address, Env as _, Reason, Stat,
    env::Table as _,
    event::Event,
    fwknop::{Passphrase, judge::WINDOW_MS, text::username_hash},
    grant::Grant,
    hmac_sha256::HmacKey,
    judge,
    layout::{DoorEntry, Features, GrantKey, PortRule, port_index},
    packet::Protocol::{Tcp, Udp},
    sim::Sim,
    spa::{
        layout::{FwknopKey, SourcePrefix, SpaMay, SpaMayKey},
        port::{Otherwise, SpaFormats, SpaPort},
    },
};

#[path = "../../tests/src/fwknop.rs"]
#[expect(
    dead_code,
    unreachable_pub,
    reason = "shared with the tests on the program in the kernel"
)]
mod seal;

use seal::{access_at, base64, encrypt, seal, with_digest};

const PORT: u16 = 62_201;
const CLIENT: &str = "198.51.100.7";
const HOST: &str = "192.0.2.2";
const PASSPHRASE: &[u8] = b"a passphrase";
const NOW_S: u64 = 1_700_000_000;
const BOOT_MS: u64 = 500_000;
const ALICE: u16 = 3;

#[test]
fn a_packet_opens_the_doors_of_its_ports() {
    let now = |message: &str| access_at("bob", NOW_S, message);
    let expiring = FwknopKey {
        not_after_ns: (NOW_S + 20) * 1_000_000_000,
        ..alice()
    };
    for (name, user, text, expected) in [
        ("one", alice(), now("0.0.0.0,tcp/22"), vec![(0, 30_000)]),
        (
            "two",
            alice(),
            now("0.0.0.0,tcp/22,udp/443"),
            vec![(0, 30_000), (1, 60_000)],
        ),
        (
            "two ports of a door",
            alice(),
            now("0.0.0.0,tcp/80,udp/443"),
            vec![(1, 60_000)],
        ),
        (
            "a door twice",
            alice(),
            now("0.0.0.0,tcp/80,tcp/22,udp/443"),
            vec![(0, 30_000), (1, 60_000)],
        ),
        (
            "for a shorter time",
            alice(),
            timed(10, "0.0.0.0,tcp/22"),
            vec![(0, 10_000)],
        ),
        (
            "for a longer time",
            alice(),
            timed(90, "0.0.0.0,tcp/22"),
            vec![(0, 90_000)],
        ),
        (
            "for too long",
            alice(),
            timed(101, "0.0.0.0,tcp/22"),
            vec![(0, 100_000)],
        ),
        (
            "for no time",
            alice(),
            timed(0, "0.0.0.0,tcp/22"),
            vec![(0, 30_000)],
        ),
        (
            "until the user ends",
            expiring,
            now("0.0.0.0,tcp/22"),
            vec![(0, 20_000)],
        ),
        (
            "its own address",
            alice(),
            now("198.51.100.7,tcp/22"),
            vec![(0, 30_000)],
        ),
    ] {
        let sim = host(&[user]);
        let packet = sealed(1, &text);
        let (reason, events) = send(&sim, packet.as_bytes());
        assert_eq!(reason, Reason::Opened, "{name}");
        assert_eq!(grants(&sim, CLIENT), expected, "{name}");
        assert_eq!(events.len(), expected.len(), "{name}");
        assert!(events.iter().all(|event| event.user == ALICE), "{name}");
        let (reason, events) = send(&sim, packet.as_bytes());
        assert_eq!(reason, Reason::SpaReplayed, "{name}, again");
        assert_eq!(events[0].user, ALICE, "{name}, again");
        assert_eq!(grants(&sim, CLIENT), expected, "{name}, again");
    }
}

#[test]
fn a_grant_for_another_address_is_for_it_alone() {
    let sim = host(&[alice()]);
    let text = access_at("bob", NOW_S, "203.0.113.9,tcp/22");
    let (reason, events) = send(&sim, sealed(1, &text).as_bytes());
    assert_eq!(reason, Reason::Opened);
    assert_eq!(grants(&sim, CLIENT), []);
    assert_eq!(grants(&sim, "203.0.113.9"), [(0, 30_000)]);
    assert_eq!(
        (events[0].source, events[0].other),
        (address("203.0.113.9"), address(CLIENT))
    );
}

#[test]
fn a_packet_beyond_the_rights_of_its_user_is_refused_for_good() {
    let now = |message: &str| access_at("bob", NOW_S, message);
    let named = |name: &str| FwknopKey {
        username: username_hash(name),
        ..alice()
    };
    let bound = FwknopKey {
        flags: FwknopKey::REQUIRE_SOURCE,
        ..alice()
    };
    let ended = |ns: u64| FwknopKey {
        not_after_ns: NOW_S * 1_000_000_000 + ns,
        ..alice()
    };
    let kind = |kind: u32| {
        let message = base64(b"0.0.0.0,tcp/22");
        with_digest(&format!(
            "1234567890123456:Ym9i:{NOW_S}:3.0.0:{kind}:{message}"
        ))
    };
    let port = |port: u16| u64::from(port_index(Tcp, port));
    let ssh = "0.0.0.0,tcp/22";
    for (name, user, text, expected, detail) in [
        (
            "a port of no door",
            alice(),
            now("0.0.0.0,tcp/25"),
            Reason::SpaNotAllowed,
            port(25),
        ),
        (
            "one port too many",
            alice(),
            now("0.0.0.0,tcp/22,tcp/23"),
            Reason::SpaNotAllowed,
            port(23),
        ),
        (
            "another user name",
            named("carol"),
            now(ssh),
            Reason::SpaNotAllowed,
            0,
        ),
        (
            "whoever this comes from",
            bound,
            now(ssh),
            Reason::SpaElsewhere,
            0,
        ),
        (
            "an address that no host has",
            alice(),
            now("224.0.0.1,tcp/22"),
            Reason::SpaElsewhere,
            0,
        ),
        (
            "the moment of the end",
            ended(0),
            now(ssh),
            Reason::SpaExpired,
            0,
        ),
        ("before the end", ended(1), now(ssh), Reason::Opened, 0),
        (
            "the right user name",
            named("bob"),
            now(ssh),
            Reason::Opened,
            0,
        ),
        ("a command", alice(), kind(0), Reason::SpaCommand, 0),
        ("NAT", alice(), kind(2), Reason::SpaNat, 0),
        ("another type", alice(), kind(9), Reason::SpaUnreadable, 0),
    ] {
        let sim = host(&[user]);
        let packet = sealed(1, &text);
        let (reason, events) = send(&sim, packet.as_bytes());
        assert_eq!(reason, expected, "{name}");
        let is_opened = expected == Reason::Opened;
        assert_eq!(grants(&sim, CLIENT).is_empty(), !is_opened, "{name}");
        assert_eq!(events.len(), 1, "{name}");
        assert_eq!(events[0].user, ALICE, "{name}");
        if !is_opened {
            assert_eq!(events[0].until_ms, detail, "{name}");
        }
        assert_eq!(
            send(&sim, packet.as_bytes()).0,
            Reason::SpaReplayed,
            "{name}, again"
        );
    }
}

#[test]
fn a_packet_is_fresh_for_two_minutes_both_ways() {
    let window_s = (WINDOW_MS / 1_000).cast_signed();
    for (name, ahead_s, expected) in [
        ("on time", 0, Reason::Opened),
        ("just fresh", -window_s, Reason::Opened),
        ("just stale", -window_s - 1, Reason::SpaStale),
        ("just not too far ahead", window_s, Reason::Opened),
        ("too far ahead", window_s + 1, Reason::SpaStale),
    ] {
        let sim = host(&[alice()]);
        let made_s = NOW_S.wrapping_add_signed(ahead_s);
        let packet = sealed(1, &access_at("bob", made_s, "0.0.0.0,tcp/22"));
        let (reason, events) = send(&sim, packet.as_bytes());
        assert_eq!(reason, expected, "{name}");
        if expected == Reason::SpaStale {
            assert_eq!(events[0].until_ms.cast_signed(), ahead_s * 1_000, "{name}");
        }
        // It stays in the replay cache until its time has passed.
        let seen: Vec<u64> = sim
            .spa_seen
            .entries
            .borrow()
            .values()
            .map(|word| word.get())
            .collect();
        let ahead_ms = u64::try_from(ahead_s.max(0)).unwrap() * 1_000;
        assert_eq!(seen, [BOOT_MS + ahead_ms], "{name}");
        assert_eq!(
            send(&sim, packet.as_bytes()).0,
            Reason::SpaReplayed,
            "{name}, again"
        );
    }
}

#[test]
fn a_full_replay_cache_opens_nothing() {
    let mut sim = host(&[alice()]);
    sim.spa_seen.capacity = 1;
    let text = access_at("bob", NOW_S, "0.0.0.0,tcp/22");
    assert_eq!(send(&sim, sealed(1, &text).as_bytes()).0, Reason::Opened);
    let used = grants(&sim, CLIENT);
    sim.now.set(sim.now.get() + 1_000_000_000);
    assert_eq!(send(&sim, sealed(2, &text).as_bytes()).0, Reason::SpaFull);
    assert_eq!(grants(&sim, CLIENT), used);
}

/// The reason that matters most: no room for a grant, then a new grant.
#[test]
fn several_doors_have_one_reason() {
    let text = access_at("bob", NOW_S, "0.0.0.0,tcp/22,tcp/80");
    let one = |port: &str| access_at("bob", NOW_S, &format!("0.0.0.0,{port}"));
    for (name, before, capacity, expected) in [
        ("both are new", None, 9, Reason::Opened),
        ("the first was open", Some("tcp/22"), 9, Reason::Opened),
        ("the second was open", Some("tcp/80"), 9, Reason::Opened),
        (
            "no room for the second",
            Some("tcp/22"),
            1,
            Reason::GrantsFull,
        ),
        (
            "no room for the first",
            Some("tcp/80"),
            1,
            Reason::GrantsFull,
        ),
    ] {
        let mut sim = host(&[alice()]);
        sim.allow.capacity = capacity;
        if let Some(port) = before {
            assert_eq!(
                send(&sim, sealed(1, &one(port)).as_bytes()).0,
                Reason::Opened,
                "{name}"
            );
        }
        assert_eq!(
            send(&sim, sealed(2, &text).as_bytes()).0,
            expected,
            "{name}"
        );
        if capacity > 1 {
            assert_eq!(
                send(&sim, sealed(3, &text).as_bytes()).0,
                Reason::Refreshed,
                "{name}"
            );
        }
    }
}

#[test]
fn each_user_has_a_key_and_sources() {
    let from = |user: FwknopKey, text: &str| {
        let mut sources = [SourcePrefix::default(); 16];
        sources[0] = SourcePrefix::new(address(text), 120);
        FwknopKey {
            source_count: 1,
            sources,
            ..user
        }
    };
    let other = |number: u16, key: &[u8]| FwknopKey {
        mac: HmacKey::new(key),
        user: number,
        ..alice()
    };
    let text = access_at("bob", NOW_S, "0.0.0.0,tcp/22");
    let unused = FwknopKey::default();
    for (name, users, expected) in [
        ("the only one", vec![alice()], Reason::Opened),
        ("the second", vec![other(1, b"x"), alice()], Reason::Opened),
        (
            "behind an unused entry",
            vec![unused, alice()],
            Reason::SpaForged,
        ),
        (
            "from its network",
            vec![from(alice(), CLIENT)],
            Reason::Opened,
        ),
        (
            "from elsewhere",
            vec![from(alice(), "203.0.113.1")],
            Reason::SpaForged,
        ),
        ("another key", vec![other(1, b"x")], Reason::SpaUnsigned),
    ] {
        let sim = host(&users);
        let (reason, events) = send(&sim, sealed(1, &text).as_bytes());
        // A packet that a key decrypts has a reason of its own in its report.
        let reported = events.last().and_then(Event::reason).unwrap();
        assert_eq!(reported, expected, "{name}");
        assert_eq!(
            reason == Reason::Opened,
            expected == Reason::Opened,
            "{name}"
        );
        assert_eq!(
            grants(&sim, CLIENT).is_empty(),
            reason != Reason::Opened,
            "{name}"
        );
    }
}

#[test]
fn other_packets_are_noise_within_the_event_limit() {
    let sim = host(&[alice()]);
    let text = access_at("bob", NOW_S, "0.0.0.0,tcp/22");
    let unsigned = &encrypt(PASSPHRASE, [1; 8], text.as_bytes())[10..];
    assert_eq!(send(&sim, unsigned.as_bytes()).0, Reason::SpaUnsigned);
    let noise = [b'!'; 200];
    let mut reported = 0;
    for _ in 0..100 {
        let (reason, events) = send(&sim, &noise);
        assert_eq!(reason, Reason::SpaNoise);
        reported += events.len();
    }
    assert_eq!(reported, 64);
    let suppressed = sim.stats.borrow().get(&Stat::EventsSuppressed).copied();
    assert_eq!(suppressed, Some(100 - 64));
    assert_eq!(sim.features(), Features::SPA.with(Features::FWKNOP));
    assert!(sim.spa_seen().find(&bytemuck::Zeroable::zeroed()).is_none());
}

/// Returns a user, by what the row changes.
fn alice() -> FwknopKey {
    FwknopKey {
        mac: HmacKey::new(b"alice's key"),
        passphrase: Passphrase::new(PASSPHRASE).unwrap(),
        not_after_ns: u64::MAX,
        user: ALICE,
        ..FwknopKey::default()
    }
}

/// Returns three doors; alice may open the first two, for at most 100 s.
fn host(users: &[FwknopKey]) -> Sim {
    let door = |number: u16| DoorEntry {
        number,
        port_group_count: 1,
        port_groups: [number; 16],
        ..DoorEntry::default()
    };
    let port = SpaPort {
        formats: SpaFormats::FWKNOP,
        otherwise: Otherwise::Drop,
    };
    let may = |entry: u16, open_for_ms| SpaMay {
        open_for_ms,
        open_for_max_ms: 100_000,
        entry,
        ..SpaMay::default()
    };
    let doors = [
        (Tcp, 22, 0, 30_000),
        (Tcp, 80, 1, 60_000),
        (Udp, 443, 1, 60_000),
    ];
    let sim = Sim {
        features: Features::SPA.with(Features::FWKNOP),
        ports: [(port_index(Udp, PORT), PortRule::spa(port))].into(),
        doors: [0, 1, 2].map(door).into(),
        fwknop_keys: users.to_vec(),
        spa_may: doors
            .map(|(protocol, port, entry, open_for_ms)| {
                let key = SpaMayKey::port(ALICE, port_index(protocol, port));
                (key, may(entry, open_for_ms))
            })
            .into(),
        ..Sim::default()
    };
    sim.now.set(BOOT_MS * 1_000_000);
    sim.wall_clock
        .set(NOW_S * 1_000_000_000 - BOOT_MS * 1_000_000);
    sim
}

fn sealed(salt: u8, text: &str) -> String {
    seal(PASSPHRASE, b"alice's key", [salt; 8], text.as_bytes())
}

fn send(sim: &Sim, payload: &[u8]) -> (Reason, Vec<Event>) {
    let frame = knock_frame::eth().ip4(CLIENT, HOST);
    let frame = frame.datagram(40_000, PORT, payload).bytes();
    let reason = judge(&frame[..], sim);
    (reason, sim.events.take())
}

fn address(text: &str) -> Address {
    text.parse::<IpAddr>().unwrap().into()
}

/// Returns how long the grants of a source last, by door, in milliseconds.
fn grants(sim: &Sim, source: &str) -> Vec<(u16, u64)> {
    let ends = (0..3).filter_map(|port_group| {
        let key = GrantKey {
            source: address(source),
            port_group,
            target_id: 0,
        };
        let grant = Grant::from_word(sim.allow.value(&key)?);
        Some((grant.door, grant.until_ms - BOOT_MS))
    });
    ends.collect()
}

/// Returns a text of the type with a time to be open for.
fn timed(seconds: u64, message: &str) -> String {
    let message = base64(message.as_bytes());
    with_digest(&format!(
        "1234567890123456:Ym9i:{NOW_S}:3.0.0:3:{message}:{seconds}"
    ))
}
