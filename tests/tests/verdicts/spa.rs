//! Single packet authorization: how the program in the kernel judges packets, in all kinds of frames.

use std::net::IpAddr;

use knock_common::{
    Address,
    Reason::{self, *},
    grant::Grant,
    layout::GrantKey,
    spa::{
        layout::{SpaDoorId, SpaKey, SpaKeyName},
        port::Otherwise,
        seal::{Content, Sealer},
    },
};
use knock_tests::{
    frame::{Frame, SYN, eth},
    kernel::{Kernel, compile},
    spa::{self, OPEN_FOR_MAX_MS, OPEN_FOR_MS, WINDOW},
};
use knock_user::{compile::Tables, kernel::program::LoadOptions};

const CONFIG: &str = r#"
    [[door]]
    name = "ssh"
    knock = ["tcp/7000", "tcp/9000", "tcp/8000"]
    open = ["tcp/22"]
    [[door]]
    name = "wiki"
    knock = ["tcp/7100", "udp/9100", "tcp/8100"]
    open = ["tcp/443", "udp/443"]
"#;

const PORT: u16 = 62_201;
const ALICE: u16 = 1;
const BOB: u16 = 2;
const CLIENT: &str = "203.0.113.7";
const CLIENT_V6: &str = "2001:db8:7::7";

#[test]
fn a_packet_opens_its_door_in_each_kind_of_frame() {
    let mut kernel = kernel(&tables(Otherwise::Drop));
    let alice = spa::client(ALICE);
    for (name, frame, syn) in [
        ("IPv4", v4(), v4()),
        ("IPv6", v6(), v6()),
        (
            "VLAN",
            eth().vlan(7).ip4("203.0.113.8", "192.0.2.2"),
            eth().ip4("203.0.113.8", "192.0.2.2"),
        ),
        (
            "two tags, IPv6",
            eth().qinq(8).vlan(7).ip6("2001:db8:7::8", "2001:db8::2"),
            eth().ip6("2001:db8:7::8", "2001:db8::2"),
        ),
        (
            "options",
            eth().ip4("203.0.113.9", "192.0.2.2").options(10),
            eth().ip4("203.0.113.9", "192.0.2.2"),
        ),
        (
            "extension headers",
            eth()
                .ip6("2001:db8:7::9", "2001:db8::2")
                .hop_by_hop()
                .dest_opts(2),
            eth().ip6("2001:db8:7::9", "2001:db8::2"),
        ),
        (
            "a first fragment",
            eth().ip4("203.0.113.10", "192.0.2.2").fragment(0, true),
            eth().ip4("203.0.113.10", "192.0.2.2"),
        ),
    ] {
        let syn = syn.tcp(40_000, 22, SYN).bytes();
        assert_eq!(kernel.judge(&syn).unwrap().reason, NoGrant, "{name}");
        let packet = alice.seal(&ssh());
        let judged = kernel.judge(&datagram(frame.clone(), &packet)).unwrap();
        assert_eq!(judged.reason, Opened, "{name}");
        let [event] = judged.events[..] else {
            panic!("{name}: {:?}", judged.events);
        };
        assert_eq!(
            (event.user, event.door, event.stage),
            (ALICE, 0, 0),
            "{name}"
        );
        assert_eq!(kernel.judge(&syn).unwrap().reason, Granted, "{name}");
        let again = kernel.judge(&datagram(frame, &packet)).unwrap();
        assert_eq!(again.reason, SpaReplayed, "{name}");
    }
}

/// A packet to several hosts, or to one that can't be this one, opens nothing and uses no stamp, in whatever frame it
/// comes.
#[test]
fn a_packet_that_is_not_for_this_host_alone_opens_nothing() {
    const TO: [(&str, bool); 12] = [
        ("192.0.2.2", true),
        ("192.0.2.255", true),
        ("224.0.0.251", false),
        ("239.255.255.250", false),
        ("255.255.255.255", false),
        ("0.0.0.0", false),
        ("127.0.0.1", false),
        ("2001:db8::2", true),
        ("ff02::1", false),
        ("ff0e::7", false),
        ("::", false),
        ("::1", false),
    ];
    for (otherwise, passed_on) in [(Otherwise::Drop, SpaNoise), (Otherwise::Pass, Ordinary)] {
        for is_group_frame in [false, true] {
            let mut kernel = kernel(&tables(otherwise));
            let packet = spa::client(ALICE).seal(&ssh());
            // The right addresses last, since they use the packet.
            let (right, wrong): (Vec<_>, Vec<_>) =
                TO.into_iter().partition(|(_, is_right)| *is_right);
            for (to, is_right) in wrong.into_iter().chain(right) {
                let row = format!("{to}, {otherwise:?}, to a group: {is_group_frame}");
                let frame = match is_group_frame {
                    true => eth().group(),
                    false => eth(),
                };
                let frame = match to.contains(':') {
                    true => frame.ip6(CLIENT_V6, to),
                    false => frame.ip4(CLIENT, to),
                };
                let judged = kernel.judge(&datagram(frame, &packet)).unwrap();
                let expected = match (is_group_frame, is_right) {
                    (true, _) => Ordinary,
                    (false, false) => passed_on,
                    (false, true) if to == "192.0.2.2" => Opened,
                    (false, true) => SpaReplayed,
                };
                assert_eq!(judged.reason, expected, "{row}");
            }
        }
    }
}

#[test]
fn a_packet_opens_what_its_user_may_open() {
    let mut kernel = kernel(&tables(Otherwise::Drop));
    let (alice, bob) = (spa::client(ALICE), spa::client(BOB));
    let unknown = spa::client(3);
    let forger = Sealer {
        mac: unknown.mac,
        ..alice
    };
    let other = Address::from_v4([198, 51, 100, 9]);
    type Change = fn(Content) -> Content;
    let rows: [(&str, Sealer, Change, Reason, u16); 14] = [
        ("ssh", alice, |c| c, Opened, ALICE),
        ("ssh again", alice, |c| c, Refreshed, ALICE),
        (
            "a door of others",
            alice,
            |c| Content {
                door: spa::door("wiki"),
                ..c
            },
            SpaNotAllowed,
            ALICE,
        ),
        (
            "another address",
            alice,
            |c| Content {
                source: Address::from_v4([198, 51, 100, 9]),
                ..c
            },
            SpaElsewhere,
            ALICE,
        ),
        (
            "reserved octets",
            alice,
            |c| Content {
                reserved: [1, 2, 3],
                ..c
            },
            SpaUnreadable,
            ALICE,
        ),
        (
            "an unknown action",
            alice,
            |c| Content { action: 2, ..c },
            SpaUnreadable,
            ALICE,
        ),
        (
            "close",
            alice,
            |c| Content { action: 1, ..c },
            Closed,
            ALICE,
        ),
        (
            "his first door",
            bob,
            |c| Content {
                door: SpaDoorId::FIRST,
                ..c
            },
            Opened,
            BOB,
        ),
        (
            "for another address",
            bob,
            |c| Content {
                source: Address::from_v4([198, 51, 100, 9]),
                ..c
            },
            Opened,
            BOB,
        ),
        ("an unknown key", unknown, |c| c, SpaUnknown, 0),
        ("a forgery", forger, |c| c, SpaForged, 0),
        (
            "too old",
            alice,
            |c| Content {
                stamp: c.stamp - 2 * WINDOW,
                ..c
            },
            SpaStale,
            ALICE,
        ),
        (
            "too new",
            alice,
            |c| Content {
                stamp: c.stamp + 2 * WINDOW,
                ..c
            },
            SpaStale,
            ALICE,
        ),
        (
            "too old and forged",
            forger,
            |c| Content {
                stamp: c.stamp - 2 * WINDOW,
                ..c
            },
            SpaStale,
            0,
        ),
    ];
    for (name, client, change, reason, user) in rows {
        kernel.reset_event_limits().unwrap();
        let content = change(ssh());
        let judged = kernel
            .judge(&datagram(v4(), &client.seal(&content)))
            .unwrap();
        assert_eq!(judged.reason, reason, "{name}");
        let [event] = judged.events[..] else {
            panic!("{name}: {:?}", judged.events);
        };
        assert_eq!(event.user, user, "{name}");
        let client = Address::from_v4([203, 0, 113, 7]);
        let (source, others) = if reason == SpaElsewhere {
            (client, other)
        } else if content.source == other {
            (other, client)
        } else {
            (client, Address::ANY)
        };
        assert_eq!((event.source, event.other), (source, others), "{name}");
        if reason == SpaNotAllowed {
            assert_eq!(event.door, 1, "{name}");
        }
        if reason == SpaStale {
            assert!((event.until_ms as i64).abs() > 59_000, "{name}: {event:?}");
        }
    }
}

#[test]
fn a_grant_lasts_as_long_as_asked_and_allowed() {
    let tables = tables(Otherwise::Drop);
    for (seconds, lasts_ms) in [
        (0, OPEN_FOR_MS),
        (5, 5_000),
        (600, OPEN_FOR_MAX_MS),
        (601, OPEN_FOR_MAX_MS),
        (u32::MAX, OPEN_FOR_MAX_MS),
    ] {
        let mut kernel = kernel(&tables);
        let packet = spa::client(ALICE).seal(&Content { seconds, ..ssh() });
        let judged = kernel.judge(&datagram(v6(), &packet)).unwrap();
        assert_eq!(judged.reason, Opened, "{seconds} s");
        let at_ms = judged.events[0].at_ns / 1_000_000;
        assert_eq!(
            grants(&mut kernel, CLIENT_V6, at_ms),
            [lasts_ms],
            "{seconds} s"
        );
    }
}

#[test]
fn noise_is_judged_by_the_other_use_of_the_port() {
    let packet = spa::client(ALICE).seal(&ssh());
    let short = &packet[..71];
    let wrong_gate = [short, &[!packet[71]]].concat();
    for (name, otherwise, noise, events) in [
        ("drop", Otherwise::Drop, SpaNoise, 1),
        ("pass", Otherwise::Pass, Ordinary, 0),
        ("protected", Otherwise::Protected(0), NoGrant, 1),
    ] {
        let mut kernel = kernel(&tables(otherwise));
        for payload in [&b""[..], short, &wrong_gate, &[7; 300]] {
            for frame in [v4(), v6()] {
                let judged = kernel.judge(&datagram(frame, payload)).unwrap();
                assert_eq!(judged.reason, noise, "{name}");
                assert_eq!(judged.events.len(), events, "{name}");
            }
        }
        let long = [&packet[..], &[7; 200]].concat();
        let judged = kernel.judge(&datagram(v4(), &long)).unwrap();
        assert_eq!(judged.reason, Opened, "{name}");
    }
}

#[test]
fn each_flipped_bit_is_refused() {
    let tables = tables(Otherwise::Drop);
    let mut kernel = kernel(&tables);
    let alice = spa::client(ALICE);
    let packet = alice.seal(&ssh());
    for bit in 0..8 * packet.len() {
        for closes_gate in [false, true] {
            if closes_gate && bit / 8 >= 64 {
                continue;
            }
            let mut changed = packet;
            changed[bit / 8] ^= 1 << (bit % 8);
            if closes_gate {
                alice.close_gate(&mut changed);
            }
            let judged = kernel.judge(&datagram(v4(), &changed)).unwrap();
            let is_refused = match closes_gate {
                false => judged.reason == SpaNoise,
                true => matches!(judged.reason, SpaForged | SpaStale | SpaUnknown),
            };
            assert!(is_refused, "bit {bit}: {:?}", judged.reason);
            assert!(
                judged.events.iter().all(|event| event.user == 0),
                "bit {bit}"
            );
        }
    }
    assert!(kernel.allow().unwrap().is_empty());
    // No refused packet used the stamp.
    let judged = kernel.judge(&datagram(v4(), &packet)).unwrap();
    assert_eq!(judged.reason, Opened);
}

#[test]
fn an_answer_says_what_happened() {
    let mut tables = tables(Otherwise::Drop);
    for (_, may) in &mut tables.spa.may {
        may.port = 22;
    }
    let mut kernel = kernel(&tables);
    let alice = spa::client(ALICE);
    let wiki = spa::door("wiki");
    type Change = fn(Content) -> Content;
    let rows: [(&str, Change, Reason, u32); 4] = [
        ("opened", |c| Content { seconds: 7, ..c }, Opened, 7),
        (
            "not allowed",
            |c| Content {
                door: spa::door("wiki"),
                ..c
            },
            SpaNotAllowed,
            0,
        ),
        (
            "too old",
            |c| Content {
                stamp: c.stamp - 2 * WINDOW,
                ..c
            },
            SpaStale,
            0,
        ),
        ("close", |c| Content { action: 0x81, ..c }, Closed, 0),
    ];
    assert_ne!(wiki, SpaDoorId::FIRST);
    for frame in [v4(), v6(), eth().vlan(7).ip4(CLIENT, "192.0.2.2")] {
        for (name, change, reason, seconds) in rows {
            kernel.reset_event_limits().unwrap();
            let content = change(Content {
                action: 0x80,
                ..ssh()
            });
            let packet = alice.seal(&content);
            let question = datagram(frame.clone(), &packet);
            let (judged, answered) = kernel.answer(&question).unwrap();
            let expected = if judged == Refreshed {
                Refreshed
            } else {
                reason
            };
            // A stale packet is answered once, and not after a newer one.
            if reason == SpaStale {
                assert_eq!((judged, answered), (SpaStale, None), "{name}");
                continue;
            }
            let answered = answered.unwrap_or_else(|| panic!("{name}: {judged:?}"));
            assert_eq!(judged, expected, "{name}");
            let payload = &answered[answered.len() - 48..];
            let body = alice.open_answer(&packet, payload).unwrap();
            assert_eq!(body[0], judged as u8, "{name}");
            assert_eq!(body[4..8], seconds.to_le_bytes(), "{name}");
            let (again, nothing) = kernel.answer(&question).unwrap();
            assert_eq!((again, nothing), (SpaReplayed, None), "{name}");
        }
    }
}

/// Of two CPUs that judge a packet at the same time, again and again, one accepts it once.
#[test]
fn a_packet_that_two_cpus_judge_at_once_is_used_once() {
    const PACKETS: u64 = 2_000;
    const TIMES: u32 = 20;
    let mut kernel = kernel(&tables(Otherwise::Drop));
    let alice = spa::client(ALICE);
    let first = ssh();
    let frames: Vec<_> = (0..PACKETS)
        .map(|number| {
            let stamp = first.stamp + number;
            datagram(v4(), &alice.seal(&Content { stamp, ..first }))
        })
        .collect();
    let run = kernel.judge_on_two_cpus(&frames, TIMES).unwrap();
    let count = |reason| {
        let counted = run.reasons.iter().find(|(counted, _)| *counted == reason);
        counted.map_or(0, |(_, count)| *count)
    };
    assert_eq!(count(Opened), 1, "{:?}", run.reasons);
    assert_eq!(count(Refreshed), PACKETS - 1, "{:?}", run.reasons);
    let all = 2 * PACKETS * u64::from(TIMES);
    assert_eq!(count(SpaReplayed), all - PACKETS, "{:?}", run.reasons);
}

/// As many users as a company has, each with two keys and the same doors.
#[test]
fn every_key_of_many_users_opens_every_door() {
    const USERS: u16 = 2_000;
    const DOORS: u16 = 20;
    let names: Vec<String> = (0..DOORS).map(|door| format!("d{door}")).collect();
    let config: String = (0..DOORS)
        .map(|door| {
            format!(
                "[[door]]\nname = \"d{door}\"\nknock = [\"tcp/{}\", \"tcp/{}\"]\nopen = [\"tcp/{}\"]\n",
                7_000 + door,
                8_000 + door,
                1_000 + door
            )
        })
        .collect();
    let mut tables = compile(&config).unwrap();
    spa::add_port(&mut tables, PORT, spa::port(Otherwise::Drop));
    let doors: Vec<&str> = names.iter().map(String::as_str).collect();
    for user in 1..=USERS {
        spa::add_user(&mut tables, user, 0, &doors);
        // The second key of a user has a number of its own.
        let (name, key) = tables.spa.keys[tables.spa.keys.len() - 1];
        let Sealer {
            mac, cipher, id, ..
        } = spa::client(USERS + user);
        let second = SpaKey { mac, cipher, ..key };
        tables.spa.keys.push((SpaKeyName { id, ..name }, second));
    }
    let mut kernel = kernel(&tables);
    for user in [1, 2, USERS / 2, USERS - 1, USERS] {
        for key in [user, USERS + user] {
            for name in &doors {
                kernel.reset_event_limits().unwrap();
                let content = spa::content(spa::door(name)).unwrap();
                let packet = spa::client(key).seal(&content);
                let judged = kernel.judge(&datagram(v6(), &packet)).unwrap();
                assert!(
                    matches!(judged.reason, Opened | Refreshed),
                    "{key}, {name}: {judged:?}"
                );
                assert_eq!(judged.events[0].user, user, "{key}, {name}");
            }
        }
    }
}

fn tables(otherwise: Otherwise) -> Tables {
    let mut tables = compile(CONFIG).unwrap();
    spa::add_port(&mut tables, PORT, spa::port(otherwise));
    spa::add_user(&mut tables, ALICE, 0, &["ssh"]);
    spa::add_user(&mut tables, BOB, SpaKey::FOR_OTHERS, &["wiki", "ssh"]);
    tables
}

fn kernel(tables: &Tables) -> Kernel {
    let mut kernel = Kernel::with(tables, LoadOptions::default()).unwrap();
    spa::start(&mut kernel, tables).unwrap();
    kernel
}

fn v4() -> Frame {
    eth().ip4(CLIENT, "192.0.2.2")
}

fn v6() -> Frame {
    eth().ip6(CLIENT_V6, "2001:db8::2")
}

fn datagram(frame: Frame, payload: &[u8]) -> Vec<u8> {
    frame.datagram(40_000, PORT, payload).bytes()
}

fn ssh() -> Content {
    spa::content(spa::door("ssh")).unwrap()
}

/// Returns how long the grants of a source last, in milliseconds from now; the greatest is 1 s more than asked for.
fn grants(kernel: &mut Kernel, source: &str, now_ms: u64) -> Vec<u64> {
    let source = Address::from(source.parse::<IpAddr>().unwrap());
    let allow = kernel.allow().unwrap().into_iter();
    let own = allow.filter(|(key, _): &(GrantKey, u64)| key.source == source);
    own.map(|(_, word)| Grant::from_word(word).until_ms - now_ms)
        .collect()
}
