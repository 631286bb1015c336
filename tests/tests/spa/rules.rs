//! What a packet may ask for: doors, times, addresses and the clock.

use std::{net::UdpSocket, time::Duration};

use knock_sequence::spa::{Channel, DoorAction, DoorId, PACKET_LENGTH, Request};
use knock_tests::{
    daemon::Daemon,
    namespace::text,
    net::{self, Family},
    server::Server,
    ssh::SSH,
    wait::{self, PATIENCE},
};
use serde_json::json;

use crate::{
    paths::now,
    users::{DOORS, Users},
};

const PORT: u16 = 62_201;
const WEB: u16 = 80;
const BOTH: &[(&str, &str)] = &[
    ("alice", "doors = [\"ssh\"]"),
    ("bob", "doors = [\"wiki\", \"ssh\"]"),
];

#[test]
fn each_user_opens_their_doors_for_at_most_their_time() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH, WEB]);
        let users = Users::new();
        let daemon = Daemon::start(&net.server, &users.config("", BOTH, DOORS));
        let host = Family::V4.server().to_string();
        let source = net.native(Family::V4);
        let name = source.name();
        for (row, user, words, door, port, seconds) in [
            ("the first door", "alice", &[][..], "ssh", SSH, 30),
            ("the first door of another", "bob", &[], "wiki", WEB, 20),
            ("a named door", "bob", &["--door", "ssh"], "ssh", SSH, 30),
            ("a shorter time", "alice", &["--for", "5s"], "ssh", SSH, 5),
            ("no longer time", "alice", &["--for", "2h"], "ssh", SSH, 30),
            ("a longer time", "bob", &["--for", "5m"], "wiki", WEB, 300),
            (
                "the longest time",
                "bob",
                &["--for", "2h"],
                "wiki",
                WEB,
                600,
            ),
        ] {
            let opened = json!({"event": "opened", "source": name, "door": door, "user": user});
            let before = daemon.events_like(&opened).len();
            source.finds_closed(port, row);
            let port_word = port.to_string();
            let words = [&[&host, "--then-connect", &port_word], words].concat();
            users.opens(&net.client, user, &words);
            let opened = wait::poll(PATIENCE, || {
                daemon.events_like(&opened).into_iter().nth(before)
            });
            let opened = opened.unwrap_or_else(|| panic!("{row}: no event"));
            let given = opened["seconds"].as_f64().unwrap().round();
            assert!((given - f64::from(seconds)).abs() < 0.5, "{row}: {opened}");
            let close = [&host, "--close", "--door", door];
            users.opens(&net.client, user, &close);
            source.finds_closed(port, row);
        }

        let refused = users.client(
            &net.client,
            "alice",
            &[&host, "--door", "wiki", "--no-answer"],
        );
        assert!(refused.status.success(), "{}", text(&refused));
        daemon.wait_for_event(&json!({
            "event": "denied", "reason": "spa-not-allowed", "source": name, "user": "alice", "door": "wiki",
        }));
        source.finds_closed(WEB, "a door of another user");
        daemon.stop();
    });
}

#[test]
fn a_clock_may_be_off_by_the_window() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let users = Users::new();
        let daemon = Daemon::start(&net.server, &users.config("", BOTH, DOORS));
        let private = users.private("alice").parse().unwrap();
        let channel = Channel::new(&private, &users.host.parse().unwrap()).unwrap();
        // In the order of their stamps, since those of a key only increase; with slack for a busy machine.
        for (seconds, opens) in [
            (-31, false),
            (-26, true),
            (0, true),
            (29, true),
            (35, false),
        ] {
            let row = &format!("{seconds} s");
            let source = net.new_source(Family::V6);
            let sent = net.client.enter(|| {
                let socket = UdpSocket::bind((source.from, 0))?;
                let packet = channel.seal(&Request {
                    stamp: now().wrapping_add_signed(seconds * 1_000_000_000),
                    source: None,
                    door: DoorId::of_name("ssh"),
                    seconds: 0,
                    action: DoorAction::Open,
                    answer: false,
                });
                socket.send_to(&packet, (source.to, PORT))
            });
            assert_eq!(sent.unwrap(), PACKET_LENGTH, "{row}");
            source.finds(opens, SSH, row);
            if !opens {
                let stale =
                    json!({"event": "denied", "reason": "spa-stale", "source": source.name()});
                let event = daemon.wait_for_event(&stale);
                let behind = event["seconds_behind"].as_i64().unwrap();
                assert!((behind + seconds).abs() <= 4, "{row}: {event}");
            }
        }
        daemon.stop();
    });
}

/// The grant is for the address that the packet names; events have both addresses.
#[test]
fn only_a_permitted_user_opens_for_another_address() {
    const USERS: &[(&str, &str)] = &[
        ("alice", "doors = [\"ssh\", \"wiki\"]"),
        ("bob", "doors = [\"ssh\"]\nfor_others = true"),
    ];
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let users = Users::new();
        let daemon = Daemon::start(&net.server, &users.config("", USERS, DOORS));
        for family in Family::ALL {
            let host = family.server().to_string();
            let (own, other) = (net.native(family), net.new_source(family));
            let words = [&host, "--source", &other.name(), "--no-answer"];
            users.opens(&net.client, "alice", &words);
            daemon.wait_for_event(&json!({
                "event": "denied", "reason": "spa-elsewhere", "source": own.name(), "user": "alice",
                "asked_for": other.name(),
            }));
            other.finds_closed(SSH, "alice may not");

            users.opens(&net.client, "bob", &words);
            daemon.wait_for_event(&json!({
                "event": "opened", "source": other.name(), "user": "bob", "asked_from": own.name(),
            }));
            drop(other.finds_open(SSH, "bob may"));
            own.finds_closed(SSH, "whose packet it is");

            let words = [&host, "--source", &other.name(), "--door", "ssh"];
            let printed = users.opens(&net.client, "bob", &words);
            let expected = format!("is open for 30s for {} (tcp/22)", other.name());
            assert!(printed.contains(&expected), "{printed}");
        }
        daemon.stop();
    });
}

/// An attacker who intercepts an unbound packet could send it from another address.
#[test]
fn a_host_can_refuse_packets_without_an_address() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let users = Users::new();
        let daemon = Daemon::start(&net.server, &users.config("bind = true", BOTH, DOORS));
        for family in Family::ALL {
            let host = family.server().to_string();
            let source = net.native(family);
            users.opens(
                &net.client,
                "alice",
                &[&host, "--source", "::", "--no-answer"],
            );
            daemon.wait_for_event(
                &json!({"event": "denied", "source": source.name(), "user": "alice"}),
            );
            source.finds_closed(SSH, "without an address");
            users.opens(&net.client, "alice", &[&host, "--then-connect", "22"]);
        }
        daemon.stop();
    });
}

#[test]
fn noise_and_packets_for_another_host_open_nothing() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let (users, other) = (Users::new(), Users::new());
        let daemon = Daemon::start(&net.server, &users.config("", BOTH, DOORS));
        let _config = other.config("", BOTH, DOORS);
        for family in Family::ALL {
            let host = family.server().to_string();
            let source = net.native(family);
            let words = [&host, "--then-connect", "22", "--timeout", "300ms"];
            let output = other.client(&net.client, "alice", &words);
            assert_eq!(output.status.code(), Some(1), "{}", text(&output));
            let noise = net.client.enter(|| {
                let socket = UdpSocket::bind((source.from, 0)).unwrap();
                socket
                    .set_read_timeout(Some(Duration::from_millis(50)))
                    .unwrap();
                for length in [0, 1, 71, 72, 272, 1_400] {
                    socket
                        .send_to(&vec![0x5a; length], (source.to, PORT))
                        .unwrap();
                }
                socket.recv(&mut [0; 2_048])
            });
            assert!(noise.is_err(), "{family}: the port is silent");
            source.finds_closed(SSH, &host);
        }
        daemon.stop();
    });
}
