//! Packets of fwknop.

use std::{
    net::IpAddr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use knock_common::{
    Address, Reason,
    event::Event,
    fwknop::{Passphrase, text::username_hash},
    grant::Grant,
    hmac_sha256::HmacKey,
    layout::{Features, PortRule, port_index},
    packet::Protocol::{Tcp, Udp},
    spa::{
        layout::{FwknopKey, SEEN_MAX, SourcePrefix, SpaMay, SpaMayKey, SpaTag},
        port::{Otherwise, SpaFormats, SpaPort},
    },
};
use knock_tests::{
    frame::{Frame, SYN, eth},
    fwknop::{access_at, base64, seal, with_digest},
    kernel::{Kernel, compile, now},
};
use knock_user::{
    compile::Tables,
    kernel::{maps, program::LoadOptions},
};

const PORT: u16 = 62201;
const HMAC_KEY: &[u8] = b"an HMAC key";
const PASSPHRASE: &[u8] = b"0123456789abcdefghijklmnopqrstuv";

const DOORS: &str = r#"
    door = [
        { name = "ssh", knock = ["tcp/7000", "udp/8000"], open = ["tcp/22"], open_for = "30s" },
        { name = "web", knock = ["tcp/7001", "udp/8001"], open = ["tcp/80", "udp/443"], open_for = "60s" },
        { name = "mail", knock = ["tcp/7002", "udp/8002"], open = ["tcp/25"] },
    ]
"#;

#[test]
fn a_packet_of_fwknop_opens_the_doors_that_it_asks_for() {
    let mut host = FwknopHost::new(&[user(1, b"another key"), user(2, HMAC_KEY)]);
    let timed = |seconds: u64, message: &str| {
        let (now, message) = (wall().as_secs(), base64(message.as_bytes()));
        with_digest(&format!(
            "1234567890123456:YWxpY2U:{now}:3.0.0:3:{message}:{seconds}"
        ))
    };
    let eight = "0.0.0.0,tcp/22,tcp/22,tcp/22,tcp/22,tcp/22,tcp/22,tcp/80,udp/443";
    for (number, (name, text, opened)) in (1..).zip([
        (
            "its address",
            access_now("198.51.100.1,tcp/22"),
            vec![(0, 30)],
        ),
        ("its source", access_now("0.0.0.0,tcp/22"), vec![(0, 30)]),
        (
            "two doors",
            access_now("0.0.0.0,tcp/22,udp/443"),
            vec![(0, 30), (1, 60)],
        ),
        (
            "two ports of a door",
            access_now("0.0.0.0,tcp/80,udp/443"),
            vec![(1, 60)],
        ),
        ("eight ports", access_now(eight), vec![(0, 30), (1, 60)]),
        ("a shorter time", timed(10, "0.0.0.0,tcp/22"), vec![(0, 10)]),
        ("a longer time", timed(90, "0.0.0.0,tcp/22"), vec![(0, 90)]),
        (
            "a time that is too long",
            timed(9000, "0.0.0.0,tcp/22"),
            vec![(0, 100)],
        ),
        ("a time of 0", timed(0, "0.0.0.0,tcp/22"), vec![(0, 30)]),
        (
            "a user name of 64 characters",
            access_at(&"x".repeat(64), wall().as_secs(), eight),
            vec![(0, 30), (1, 60)],
        ),
    ]) {
        let source = format!("198.51.100.{number}");
        let packet = host.seal(HMAC_KEY, &text);
        assert_eq!(
            host.send(&source, packet.as_bytes()),
            (Reason::Opened, Some(2)),
            "{name}"
        );
        assert_eq!(host.grants(&source), opened, "{name}");
        assert_eq!(
            host.send(&source, packet.as_bytes()),
            (Reason::SpaReplayed, Some(2)),
            "{name}"
        );
    }
}

#[test]
fn a_packet_of_fwknop_is_refused_for_one_reason() {
    let any = user(1, HMAC_KEY);
    let is_source = FwknopKey {
        flags: FwknopKey::REQUIRE_SOURCE,
        ..any
    };
    let is_alice = FwknopKey {
        username: username_hash("alice"),
        ..any
    };
    let was_alice = FwknopKey {
        not_after_ns: 1_700_000_000_000_000_000,
        ..any
    };
    let mut is_elsewhere = FwknopKey {
        source_count: 2,
        ..any
    };
    is_elsewhere.sources[0] = prefix("192.0.2.0", 120);
    is_elsewhere.sources[1] = prefix("198.51.100.128", 121);
    let mut is_near = is_elsewhere;
    is_near.sources[1] = prefix("198.51.100.0", 121);
    let ssh = "0.0.0.0,tcp/22";
    let mut host = FwknopHost::new(&[any]);
    let seconds = wall().as_secs();
    let nat = |kind: u32| {
        let message = base64(ssh.as_bytes());
        with_digest(&format!(
            "1234567890123456:YWxpY2U:{seconds}:3.0.0:{kind}:{message}:MTAuMC4wLjEsMjI"
        ))
    };
    let command = base64(b"0.0.0.0,touch /tmp/here");
    let command = with_digest(&format!(
        "1234567890123456:YWxpY2U:{seconds}:3.0.0:0:{command}"
    ));
    for (number, (name, key, text, reason)) in (1..).zip([
        ("a command", any, command, Reason::SpaCommand),
        ("NAT", any, nat(2), Reason::SpaNat),
        ("local NAT", any, nat(5), Reason::SpaNat),
        ("another text", any, "1".repeat(150), Reason::SpaUnreadable),
        (
            "200 s old",
            any,
            access_at("alice", seconds - 200, ssh),
            Reason::SpaStale,
        ),
        (
            "200 s ahead",
            any,
            access_at("alice", seconds + 200, ssh),
            Reason::SpaStale,
        ),
        (
            "a day of 1970",
            any,
            access_at("alice", 1000, ssh),
            Reason::SpaStale,
        ),
        (
            "the greatest time",
            any,
            access_at("alice", 999_999_999_999, ssh),
            Reason::SpaStale,
        ),
        (
            "110 s old",
            any,
            access_at("alice", seconds - 110, ssh),
            Reason::Opened,
        ),
        (
            "110 s ahead",
            any,
            access_at("alice", seconds + 110, ssh),
            Reason::Opened,
        ),
        (
            "a port of no door of the user",
            any,
            access_now("0.0.0.0,tcp/25"),
            Reason::SpaNotAllowed,
        ),
        (
            "a port of no door beside one",
            any,
            access_now("0.0.0.0,tcp/22,tcp/25"),
            Reason::SpaNotAllowed,
        ),
        (
            "a protocol without ports",
            any,
            access_now("0.0.0.0,icmp/0"),
            Reason::SpaNotAllowed,
        ),
        (
            "another user name",
            is_alice,
            access_at("bob", seconds, ssh),
            Reason::SpaNotAllowed,
        ),
        (
            "the right user name",
            is_alice,
            access_at("alice", seconds, ssh),
            Reason::Opened,
        ),
        (
            "no source",
            is_source,
            access_now(ssh),
            Reason::SpaElsewhere,
        ),
        (
            "a source",
            is_source,
            access_now("203.0.113.9,tcp/22"),
            Reason::Opened,
        ),
        (
            "a source that no host has",
            is_source,
            access_now("255.255.255.255,tcp/22"),
            Reason::SpaElsewhere,
        ),
        (
            "an expired user",
            was_alice,
            access_now(ssh),
            Reason::SpaExpired,
        ),
        (
            "from elsewhere",
            is_elsewhere,
            access_now(ssh),
            Reason::SpaForged,
        ),
        (
            "from one of its sources",
            is_near,
            access_now(ssh),
            Reason::Opened,
        ),
    ]) {
        let before = host.seen().len();
        host.set_key(key);
        let source = format!("198.51.100.{number}");
        let packet = host.seal(HMAC_KEY, &text);
        let user = Some(if reason == Reason::SpaForged { 0 } else { 1 });
        assert_eq!(
            host.send(&source, packet.as_bytes()),
            (reason, user),
            "{name}"
        );
        let opened = reason == Reason::Opened && !text.contains("MjAz");
        assert_eq!(host.grants(&source).len(), usize::from(opened), "{name}");
        // The packet is used up, whether it opened anything or not.
        let again = if reason == Reason::SpaForged {
            reason
        } else {
            Reason::SpaReplayed
        };
        assert_eq!(
            host.send(&source, packet.as_bytes()),
            (again, user),
            "{name}, again"
        );
        let used = usize::from(reason != Reason::SpaForged);
        assert_eq!(host.seen().len() - before, used, "{name}");
    }
}

#[test]
fn a_packet_of_fwknop_may_ask_for_another_address() {
    let mut host = FwknopHost::new(&[user(1, HMAC_KEY)]);
    let packet = host.seal(HMAC_KEY, &access_now("203.0.113.9,tcp/22"));
    assert_eq!(
        host.send("198.51.100.7", packet.as_bytes()),
        (Reason::Opened, Some(1))
    );
    let event = host.event.unwrap();
    let named = [event.source, event.other].map(|address| IpAddr::from(address).to_string());
    assert_eq!(named, ["203.0.113.9", "198.51.100.7"]);
    assert_eq!(host.grants("203.0.113.9"), [(0, 30)]);
    assert_eq!(host.grants("198.51.100.7"), []);

    // The event of the next packet no longer has it.
    let packet = host.seal(HMAC_KEY, &access_now("0.0.0.0,tcp/22"));
    assert_eq!(
        host.send("198.51.100.8", packet.as_bytes()),
        (Reason::Opened, Some(1))
    );
    assert_eq!(host.event.unwrap().other, Address::ANY);
}

#[test]
fn the_event_of_a_stale_packet_has_the_offset_of_its_clock() {
    let mut host = FwknopHost::new(&[user(1, HMAC_KEY)]);
    for offset in [-200_i64, 300] {
        let made = wall().as_secs().saturating_add_signed(offset);
        let packet = host.seal(HMAC_KEY, &access_at("alice", made, "0.0.0.0,tcp/22"));
        assert_eq!(
            host.send("198.51.100.7", packet.as_bytes()),
            (Reason::SpaStale, Some(1))
        );
        let event = host.event.unwrap();
        let error_ms = event.until_ms.cast_signed() - offset * 1000;
        assert!((-2000..=0).contains(&error_ms), "{offset} s: {error_ms} ms");
    }
    // The packet from the future is remembered as of its own time, the other one as of now.
    let now_ms = now().unwrap().millis();
    let mut ages: Vec<i64> = host
        .seen()
        .iter()
        .map(|used| used.cast_signed() - now_ms.cast_signed())
        .collect();
    ages.sort_unstable();
    assert!(
        ages[0] <= 0 && (290_000..=300_000).contains(&ages[1]),
        "{ages:?}"
    );
}

#[test]
fn datagrams_in_another_format_are_noise() {
    let sealed = |host: &mut FwknopHost| host.seal(HMAC_KEY, &access_now("0.0.0.0,tcp/22"));
    let mut host = FwknopHost::new(&[user(1, HMAC_KEY)]);
    let packet = sealed(&mut host);
    for (name, payload, reason) in [
        ("nothing", vec![], Reason::SpaNoise),
        (
            "too short",
            packet.as_bytes()[..139].to_vec(),
            Reason::SpaNoise,
        ),
        ("too long", packet.repeat(3).into_bytes(), Reason::SpaNoise),
        (
            "with the prefix",
            format!("U2FsdGVkX1{packet}").into_bytes(),
            Reason::SpaNoise,
        ),
        (
            "as if encrypted with GnuPG",
            format!("hQ{packet}").into_bytes(),
            Reason::SpaNoise,
        ),
        ("binary", vec![0xf3; 225], Reason::SpaNoise),
        (
            "a tag that is not base64",
            (packet[..packet.len() - 1].to_owned() + "=").into_bytes(),
            Reason::SpaNoise,
        ),
        (
            "cut",
            (packet[..40].to_owned() + &packet[44..]).into_bytes(),
            Reason::SpaUnsigned,
        ),
    ] {
        assert_eq!(host.send("198.51.100.7", &payload).0, reason, "{name}");
    }
    assert!(host.seen().is_empty());

    // The frame ends before the datagram does.
    let frame = eth()
        .ip4("198.51.100.7", "192.0.2.2")
        .datagram(40_000, PORT, packet.as_bytes());
    assert_eq!(host.judge(&frame.truncate(1)).0, Reason::SpaNoise);

    for (name, frame) in [
        (
            "TCP",
            eth()
                .ip4("198.51.100.7", "192.0.2.2")
                .tcp(40_000, PORT, SYN),
        ),
        (
            "to a group",
            eth().group().ip4("198.51.100.7", "192.0.2.2").datagram(
                40_000,
                PORT,
                packet.as_bytes(),
            ),
        ),
    ] {
        host.judge(&frame);
        assert_eq!(host.grants("198.51.100.7"), [], "{name}");
    }
    for to in [
        "224.0.0.251",
        "239.1.2.3",
        "255.255.255.255",
        "0.0.0.0",
        "127.0.0.1",
    ] {
        let frame = eth().ip4("198.51.100.7", to);
        let frame = frame.datagram(40_000, PORT, packet.as_bytes());
        assert_eq!(host.judge(&frame).0, Reason::SpaNoise, "{to}");
        assert_eq!(host.grants("198.51.100.7"), [], "{to}");
    }
    assert!(host.seen().is_empty());
    assert_eq!(
        host.send("198.51.100.7", packet.as_bytes()).0,
        Reason::Opened
    );

    let mut host = FwknopHost::with(&tables(&[user(1, HMAC_KEY)], Otherwise::Pass));
    assert_eq!(host.send("198.51.100.7", b"QUIC"), (Reason::Ordinary, None));
    let packet = sealed(&mut host);
    assert_eq!(
        host.send("198.51.100.7", packet.as_bytes()).0,
        Reason::Opened
    );
}

#[test]
fn a_packet_of_fwknop_is_read_behind_any_headers() {
    let mut host = FwknopHost::new(&[user(1, HMAC_KEY)]);
    for (name, frame, source) in [
        (
            "a VLAN tag",
            eth().vlan(7).ip4("198.51.100.1", "192.0.2.2"),
            "198.51.100.1",
        ),
        (
            "two VLAN tags",
            eth().qinq(8).vlan(7).ip4("198.51.100.2", "192.0.2.2"),
            "198.51.100.2",
        ),
        (
            "IPv4 options",
            eth().ip4("198.51.100.3", "192.0.2.2").options(10),
            "198.51.100.3",
        ),
        (
            "IPv6",
            eth().ip6("2001:db8::7", "2001:db8::2"),
            "2001:db8::7",
        ),
        (
            "IPv6 options",
            eth()
                .ip6("2001:db8::8", "2001:db8::2")
                .hop_by_hop()
                .dest_opts(3),
            "2001:db8::8",
        ),
    ] {
        let packet = host.seal(HMAC_KEY, &access_now("0.0.0.0,tcp/22"));
        let frame = frame.datagram(40_000, PORT, packet.as_bytes());
        assert_eq!(host.judge(&frame), (Reason::Opened, Some(1)), "{name}");
        assert_eq!(host.grants(source), [(0, 30)], "{name}");
    }
}

#[test]
fn sixteen_users_are_distinguished() {
    let keys: Vec<Vec<u8>> = (0..16).map(|number| vec![number; 136]).collect();
    let users: Vec<FwknopKey> = (1..)
        .zip(&keys)
        .map(|(number, key)| user(number, key))
        .collect();
    let mut host = FwknopHost::new(&users);
    for (number, key) in (1..).zip(&keys) {
        let packet = host.seal(key, &access_now("0.0.0.0,tcp/22"));
        let source = format!("198.51.100.{number}");
        assert_eq!(
            host.send(&source, packet.as_bytes()),
            (Reason::Opened, Some(number))
        );
    }
    let packet = host.seal(b"no user's key", &access_now("0.0.0.0,tcp/22"));
    assert_eq!(
        host.send("198.51.100.99", packet.as_bytes()),
        (Reason::SpaUnsigned, Some(0)),
        "the passphrase is that of a user"
    );
}

#[test]
fn a_packet_of_a_user_without_the_right_hmac_has_its_own_reason() {
    let mut host = FwknopHost::new(&[user(1, HMAC_KEY)]);
    let mut source = 0;
    // Three lengths of the encrypted text modulo three blocks, so that base64 ends in each way.
    for ports in ["tcp/22", "tcp/22,tcp/222", "tcp/22,tcp/222,tcp/2222"] {
        // The characters of fwknop's HMACs.
        for (name, characters) in [
            ("no HMAC", 0),
            ("MD5", 22),
            ("SHA-1", 27),
            ("another key", 43),
            ("SHA-384", 64),
            ("SHA-512", 86),
        ] {
            for digit in ["A", "B", "7", "/"] {
                let packet = host.seal(HMAC_KEY, &access_now(&format!("0.0.0.0,{ports}")));
                let text = packet[..packet.len() - 43].to_owned() + &digit.repeat(characters);
                source += 1;
                let from = format!("198.51.{}.{}", 100 + source / 250, 1 + source % 250);
                let judged = host.send(&from, text.as_bytes());
                let expected = match text.len() {
                    ..140 => Reason::SpaNoise,
                    140.. => Reason::SpaUnsigned,
                };
                let length = text.len();
                assert_eq!(
                    judged,
                    (expected, Some(0)),
                    "{name}, {ports}, {digit}: {length} characters"
                );
                assert_eq!(host.grants(&from), [], "{name}");
            }
        }
    }
    assert!(host.seen().is_empty(), "it is not used up");
    // Another passphrase: nothing shows whose packet it is.
    let mut others = user(1, HMAC_KEY);
    others.passphrase = Passphrase::new(b"another").unwrap();
    let packet = host.seal(b"no key of a user", &access_now("0.0.0.0,tcp/22"));
    host.set_key(others);
    let (reason, _) = host.send("198.51.100.9", packet.as_bytes());
    assert_eq!(reason, Reason::SpaForged);
}

/// Ports are as in the port table: 65536 is udp/0.
#[test]
fn a_refused_port_of_fwknop_is_in_the_event() {
    let mut host = FwknopHost::new(&[user(1, HMAC_KEY)]);
    for (name, ports, expected) in [
        ("the only one", "tcp/25", 25),
        ("the second", "tcp/22,tcp/25", 25),
        ("the first of two", "tcp/25,tcp/26", 25),
        ("UDP", "udp/22", 65_536 + 22),
    ] {
        let packet = host.seal(HMAC_KEY, &access_now(&format!("0.0.0.0,{ports}")));
        let (reason, _) = host.send("198.51.100.7", packet.as_bytes());
        assert_eq!(reason, Reason::SpaNotAllowed, "{name}");
        let event = host.event.unwrap();
        assert_eq!(event.until_ms, expected, "{name}");
    }
    host.set_key(FwknopKey {
        username: 1,
        ..user(1, HMAC_KEY)
    });
    let packet = host.seal(HMAC_KEY, &access_now("0.0.0.0,tcp/22"));
    let (reason, _) = host.send("198.51.100.7", packet.as_bytes());
    assert_eq!(reason, Reason::SpaNotAllowed);
    assert_eq!(host.event.unwrap().until_ms, 0, "another user name");
}

#[test]
fn a_full_replay_cache_admits_no_packet() {
    let mut host = FwknopHost::new(&[user(1, HMAC_KEY)]);
    let tags = (0..SEEN_MAX).map(|number| (SpaTag([number, 1, 2, 3]), 0));
    host.kernel.write("SPA_SEEN", tags).unwrap();
    let packet = host.seal(HMAC_KEY, &access_now("0.0.0.0,tcp/22"));
    assert_eq!(
        host.send("198.51.100.7", packet.as_bytes()),
        (Reason::SpaFull, Some(1))
    );
    assert_eq!(host.grants("198.51.100.7"), []);
}

/// Of two CPUs that judge a packet at the same time, again and again, one accepts it once.
#[test]
fn a_packet_of_fwknop_that_two_cpus_judge_at_once_is_used_once() {
    const PACKETS: u64 = 2_000;
    const TIMES: u32 = 20;
    let mut host = FwknopHost::new(&[user(1, HMAC_KEY)]);
    let text = access_now("0.0.0.0,tcp/22");
    let frames: Vec<_> = (0..PACKETS)
        .map(|_| {
            let packet = host.seal(HMAC_KEY, &text);
            let frame = eth().ip4("198.51.100.7", "192.0.2.2");
            frame.datagram(40_000, PORT, packet.as_bytes()).bytes()
        })
        .collect();
    let run = host.kernel.judge_on_two_cpus(&frames, TIMES).unwrap();
    let all = 2 * PACKETS * u64::from(TIMES);
    let mut expected = vec![
        (Reason::Opened, 1),
        (Reason::Refreshed, PACKETS - 1),
        (Reason::SpaReplayed, all - PACKETS),
    ];
    let mut counted = run.reasons;
    expected.sort_unstable();
    counted.sort_unstable();
    assert_eq!(counted, expected);
    assert_eq!(host.seen().len() as u64, PACKETS);
}

#[test]
fn every_flipped_bit_of_a_packet_of_fwknop_is_noticed() {
    let mut host = FwknopHost::new(&[user(1, HMAC_KEY)]);
    let packet = host.seal(HMAC_KEY, &access_now("0.0.0.0,tcp/22"));
    for bit in 0..8 * packet.len() {
        let mut packet = packet.clone().into_bytes();
        packet[bit / 8] ^= 1 << (bit % 8);
        let (reason, _) = host.send("198.51.100.7", &packet);
        assert!(
            matches!(
                reason,
                Reason::SpaForged | Reason::SpaUnsigned | Reason::SpaNoise
            ),
            "bit {bit}: {reason:?}"
        );
    }
    assert!(host.seen().is_empty());
    assert_eq!(host.grants("198.51.100.7"), []);
    assert_eq!(
        host.send("198.51.100.7", packet.as_bytes()).0,
        Reason::Opened
    );
}

fn wall() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
}

fn user(number: u16, hmac_key: &[u8]) -> FwknopKey {
    FwknopKey {
        mac: HmacKey::new(hmac_key),
        passphrase: Passphrase::new(PASSPHRASE).unwrap(),
        not_after_ns: u64::MAX,
        user: number,
        ..FwknopKey::default()
    }
}

/// Returns three doors; users who may open the first two.
fn tables(users: &[FwknopKey], otherwise: Otherwise) -> Tables {
    let mut tables = compile(DOORS).unwrap();
    tables.features = tables.features.with(Features::SPA).with(Features::FWKNOP);
    let port = SpaPort {
        formats: SpaFormats::FWKNOP,
        otherwise,
    };
    tables.ports.insert((Udp, PORT), PortRule::spa(port));
    tables.spa.fwknop_keys = users.to_vec();
    for user in users {
        for (protocol, port, door) in [(Tcp, 22, 0), (Tcp, 80, 1), (Udp, 443, 1)] {
            let may = SpaMay {
                open_for_ms: tables.doors[door].open_for_ms,
                open_for_max_ms: 100_000,
                entry: u16::try_from(door).unwrap(),
                ..SpaMay::default()
            };
            let key = SpaMayKey::port(user.user, port_index(protocol, port));
            tables.spa.may.push((key, may));
        }
    }
    tables
}

struct FwknopHost {
    kernel: Kernel,
    packets: u64,
    /// The first event of the last packet.
    event: Option<Event>,
}

impl FwknopHost {
    fn new(users: &[FwknopKey]) -> Self {
        Self::with(&tables(users, Otherwise::Drop))
    }

    fn with(tables: &Tables) -> Self {
        let mut kernel = Kernel::with(tables, LoadOptions::default()).unwrap();
        let since_boot = Duration::from_nanos(now().unwrap().nanos());
        let wall = u64::try_from((wall() - since_boot).as_nanos()).unwrap();
        maps::set(kernel.program().ebpf(), "WALL_CLOCK", [(0, wall)]).unwrap();
        Self {
            kernel,
            packets: 0,
            event: None,
        }
    }

    /// Replaces the first user.
    fn set_key(&mut self, key: FwknopKey) {
        maps::set(self.kernel.program().ebpf(), "FWKNOP_KEYS", [(0, key)]).unwrap();
    }

    /// Returns a packet with a salt of its own.
    fn seal(&mut self, hmac_key: &[u8], text: &str) -> String {
        self.packets += 1;
        seal(
            PASSPHRASE,
            hmac_key,
            self.packets.to_be_bytes(),
            text.as_bytes(),
        )
    }

    /// Sends a payload. Returns the reason, and the user that the event names.
    fn send(&mut self, source: &str, payload: &[u8]) -> (Reason, Option<u16>) {
        let frame = eth().ip4(source, "192.0.2.2");
        self.judge(&frame.datagram(40_000, PORT, payload))
    }

    fn judge(&mut self, frame: &Frame) -> (Reason, Option<u16>) {
        self.kernel.reset_event_limits().unwrap();
        let judged = self.kernel.judge(&frame.bytes()).unwrap();
        self.event = judged.events.first().copied();
        assert_eq!(judged.verdict, judged.reason.verdict());
        (judged.reason, self.event.map(|event| event.user))
    }

    /// Returns when packets were used, in milliseconds since boot.
    fn seen(&mut self) -> Vec<u64> {
        let seen = self.kernel.entries::<SpaTag>("SPA_SEEN").unwrap();
        seen.into_iter().map(|(_, used)| used).collect()
    }

    /// Returns the seconds that grants of an address have left, by door.
    fn grants(&mut self, address: &str) -> Vec<(u16, u64)> {
        let address = Address::from(address.parse::<IpAddr>().unwrap());
        let allow = self.kernel.allow().unwrap();
        let now_ms = now().unwrap().millis();
        let mut grants: Vec<_> = allow
            .iter()
            .filter(|(key, _)| key.source == address)
            .map(|(_, word)| Grant::from_word(*word))
            .map(|grant| (grant.door, (grant.until_ms - now_ms).div_ceil(10_000) * 10))
            .collect();
        grants.sort_unstable();
        grants
    }
}

fn access_now(message: &str) -> String {
    access_at("alice", wall().as_secs(), message)
}

fn prefix(address: &str, bits: u32) -> SourcePrefix {
    SourcePrefix::new(address.parse::<IpAddr>().unwrap().into(), bits)
}
