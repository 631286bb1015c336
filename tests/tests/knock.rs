//! A door opens at once after its correct knocks, for their source alone and for `open_for`.

use std::{
    collections::HashSet,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use knock_tests::{
    binary::binaries,
    daemon::Daemon,
    namespace::text,
    net::{self, Family, Net},
    server::Server,
    source::{Source, echoes, is_cut},
    ssh::{DOOR, KNOCKS, SSH},
    wait,
};
use serde_json::json;

#[test]
fn a_door_opens_after_its_knocks_and_closes_when_the_grant_expires() {
    net::test(|net| {
        let server = Server::tcp(&net.server, &[SSH]);
        let config = format!("{DOOR}\nopen_for = \"2s\"");
        let daemon = Daemon::start(&net.server, &config);
        for family in Family::ALL {
            let row = &family.to_string();
            let source = net.new_source(family);
            source.finds_closed(SSH, row);
            daemon.wait_for_event(
                &json!({"event": "denied", "source": source.name(), "protocol": "tcp",
                "port": SSH, "reason": "no-grant"}),
            );

            let knocked = Instant::now();
            source.knock(KNOCKS);
            let opened = daemon.wait_for_event(&json!({"event": "opened", "source": source.name(),
                "door": "ssh", "ports": ["tcp/22"]}));
            let seconds = opened["seconds"].as_f64();
            assert!(
                seconds.is_some_and(|s| (1.9..=2.0).contains(&s)),
                "{row}: {opened}"
            );
            let mut established = source.finds_open(SSH, row);
            assert!(echoes(&mut established), "{row}: data while it is open");

            sleep_until(knocked + Duration::from_millis(2_100));
            source.finds_closed(SSH, row);
            daemon.wait_for_event(
                &json!({"event": "closed", "source": source.name(), "door": "ssh",
                "reason": "expired"}),
            );
            assert!(echoes(&mut established), "{row}: data on what was open");
            assert!(echoes(&mut established), "{row}: and again");
        }
        assert_eq!(server.peers(), Family::ALL.len());
        daemon.stop();
    });
}

#[test]
fn keep_false_cuts_connections_when_the_grant_ends() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let config = format!("established.keep = false\n{DOOR}\nopen_for = \"1s\"");
        let daemon = Daemon::start(&net.server, &config);
        for family in Family::ALL {
            let row = &family.to_string();
            let source = net.new_source(family);
            let knocked = Instant::now();
            let mut stream = source
                .knock_and_connect(KNOCKS, SSH)
                .unwrap_or_else(|error| panic!("{row}: {error}"));
            assert!(echoes(&mut stream), "{row}: data while it is open");
            sleep_until(knocked + Duration::from_millis(1_100));
            assert!(is_cut(&mut stream), "{row}: the connection is not cut");
        }
        daemon.stop();
    });
}

#[test]
fn a_packet_right_behind_the_last_knock_gets_in() {
    const SOURCES: usize = 60;
    net::test(|net| {
        let server = Server::tcp(&net.server, &[SSH]);
        let daemon = Daemon::start(&net.server, DOOR);
        for family in Family::ALL {
            for number in 1..=SOURCES {
                let source = net.new_source(family);
                let connected = source.knock_and_connect(KNOCKS, SSH);
                assert!(
                    connected.is_ok(),
                    "{family}, source {number}: {connected:?}"
                );
            }
        }
        wait::until("the server met all", || server.peers() == 2 * SOURCES);
        daemon.stop();
    });
}

#[test]
fn our_client_connects_at_its_first_attempt() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let daemon = Daemon::start(&net.server, DOOR);
        for family in Family::ALL {
            let host = family.server().to_string();
            let mut command = Command::new(&binaries().client);
            command.args([&host, "tcp/7000", "udp/8000", "tcp/9000"]);
            command.args(["--then-connect", "22", "--json"]);
            let output = net.client.enter(|| command.output()).unwrap();
            let printed = text(&output);
            assert!(output.status.success(), "{family}: {printed}");
            let last = printed.lines().last().unwrap();
            let line: serde_json::Value = serde_json::from_str(last).unwrap();
            assert_eq!(line["event"], "connected", "{family}: {printed}");
            assert_eq!(line["attempt"], 1, "{family}: {printed}");
            let by = family.client().to_string();
            daemon.wait_for_event(&json!({"event": "opened", "source": by, "door": "ssh"}));
        }
        daemon.stop();
    });
}

#[test]
fn only_the_correct_knocks_open() {
    const ROWS: &[Row] = &[
        opens("as configured", "tcp/7000 udp/8000 tcp/9000"),
        opens(
            "each one twice",
            "tcp/7000 tcp/7000 udp/8000 udp/8000 tcp/9000 tcp/9000",
        ),
        opens(
            "the second one five times",
            "tcp/7000 udp/8000 udp/8000 udp/8000 udp/8000 udp/8000 tcp/9000",
        ),
        opens(
            "the first one once more, late",
            "tcp/7000 udp/8000 tcp/7000 udp/8000 tcp/9000",
        ),
        opens(
            "wrong, then right",
            "tcp/7000 tcp/9000 tcp/7000 udp/8000 tcp/9000",
        ),
        opens(
            "a try at the protected port between",
            "tcp/7000 udp/8000 tcp/22 tcp/9000",
        ),
        opens(
            "a try at a served port between",
            "tcp/7000 udp/8000 tcp/80 tcp/9000",
        ),
        opens(
            "slowly, but in time",
            "tcp/7000 wait/300ms udp/8000 wait/300ms tcp/9000",
        ),
        fails(
            "no knock that counts",
            "tcp/9000",
            "knock",
            "out-of-sequence",
        ),
        fails(
            "one is missing at the end",
            "tcp/7000 udp/8000",
            "knock",
            "next-knock",
        ),
        fails(
            "one is missing between",
            "tcp/7000 tcp/9000",
            "reset",
            "wrong-knock",
        ),
        fails(
            "one is missing at the start",
            "udp/8000 tcp/9000",
            "knock",
            "out-of-sequence",
        ),
        fails(
            "backwards",
            "tcp/9000 udp/8000 tcp/7000",
            "knock",
            "first-knock",
        ),
        fails(
            "the last two exchanged",
            "tcp/7000 tcp/9000 udp/8000",
            "reset",
            "wrong-knock",
        ),
        fails(
            "the first two exchanged",
            "udp/8000 tcp/7000 tcp/9000",
            "reset",
            "wrong-knock",
        ),
        fails(
            "the other protocol",
            "udp/7000 tcp/8000 udp/9000",
            "denied",
            "no-grant",
        ),
        fails(
            "the other protocol, once",
            "tcp/7000 tcp/8000 tcp/9000",
            "reset",
            "stray-port",
        ),
        fails(
            "the wrong knock of another door",
            "tcp/7000 udp/8000 tcp/5000 tcp/9000",
            "reset",
            "wrong-knock",
        ),
        fails(
            "a port of no door, tcp",
            "tcp/7000 udp/8000 tcp/12345 tcp/9000",
            "reset",
            "stray-port",
        ),
        fails(
            "a port of no door, udp",
            "tcp/7000 udp/12345 udp/8000 tcp/9000",
            "reset",
            "stray-port",
        ),
        fails(
            "too late for the last",
            "tcp/7000 udp/8000 wait/1100ms tcp/9000",
            "late",
            "too-late",
        ),
        fails(
            "each in time, all too late",
            "tcp/7000 wait/550ms udp/8000 wait/550ms tcp/9000",
            "late",
            "too-late",
        ),
    ];
    net::test(|net| {
        let server = Server::tcp(&net.server, &[SSH, 80]);
        let config = format!(
            r#"{DOOR}
            sequence_timeout = "1s"
            [[door]]
            name = "other"
            knock = ["tcp/5000", "tcp/4000"]
            open = ["tcp/5432"]
            "#
        );
        let daemon = Daemon::start(&net.server, &config);
        run(net, &daemon, &server, ROWS);
        daemon.stop();
    });
}

#[test]
fn step_timeout_bounds_the_pause_between_knocks() {
    const ROWS: &[Row] = &[
        opens("at once", KNOCKS),
        opens(
            "two short pauses",
            "tcp/7000 wait/250ms udp/8000 wait/250ms tcp/9000",
        ),
        opens(
            "a pause with a repetition does not count twice",
            "tcp/7000 udp/8000 wait/300ms tcp/9000",
        ),
        fails(
            "a long pause",
            "tcp/7000 wait/450ms udp/8000 tcp/9000",
            "late",
            "too-late",
        ),
        fails(
            "a repetition buys no time",
            "tcp/7000 wait/250ms tcp/7000 wait/250ms udp/8000 tcp/9000",
            "late",
            "too-late",
        ),
    ];
    net::test(|net| {
        let server = Server::tcp(&net.server, &[SSH]);
        let daemon = Daemon::start(&net.server, &format!("{DOOR}\nstep_timeout = \"400ms\""));
        run(net, &daemon, &server, ROWS);
        daemon.stop();
    });
}

#[test]
fn one_source_does_not_knock_for_another() {
    net::test(|net| {
        let server = Server::tcp(&net.server, &[SSH]);
        let daemon = Daemon::start(&net.server, DOOR);
        for family in Family::ALL {
            let [a, b] = [net.new_source(family), net.new_source(family)];
            a.knock(KNOCKS);
            b.finds_closed(SSH, "the other one");
            a.finds(true, SSH, "who knocked");

            // Turn by turn: neither disturbs the other.
            let [c, d] = [net.new_source(family), net.new_source(family)];
            for knock in KNOCKS.split(' ') {
                c.knock(knock);
                d.knock(knock);
            }
            c.finds(true, SSH, "turn by turn, the first");
            d.finds(true, SSH, "turn by turn, the second");

            // Two halves by two sources are not a sequence.
            let [e, f] = [net.new_source(family), net.new_source(family)];
            e.knock("tcp/7000 udp/8000");
            f.knock("tcp/9000");
            e.finds_closed(SSH, "the first half");
            f.finds_closed(SSH, "the second half");
            assert!(!server.met(b.from, SSH), "{family}");
        }
        daemon.stop();
    });
}

#[test]
fn knocking_again_extends_the_grant() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let daemon = Daemon::start(&net.server, &format!("{DOOR}\nopen_for = \"2s\""));
        let sources = Family::ALL.map(|family| net.new_source(family));
        let first = Instant::now();
        for source in &sources {
            source.knock(KNOCKS);
            daemon.wait_for_event(&json!({"event": "opened", "source": source.name()}));
        }
        sleep_until(first + Duration::from_millis(1_200));
        let second = Instant::now();
        for source in &sources {
            source.knock(KNOCKS);
            daemon.wait_for_event(&json!({"event": "refreshed", "source": source.name()}));
        }
        sleep_until(first + Duration::from_millis(2_300));
        for source in &sources {
            source.finds(true, SSH, "after the first end");
            let closed = daemon.events_like(&json!({"event": "closed", "source": source.name()}));
            assert!(closed.is_empty(), "{closed:?}");
        }
        sleep_until(second + Duration::from_millis(2_100));
        for source in &sources {
            source.finds_closed(SSH, "after the second end");
            daemon.wait_for_event(&json!({"event": "closed", "source": source.name()}));
            let opened = daemon.events_like(&json!({"event": "opened", "source": source.name()}));
            assert_eq!(opened.len(), 1, "opened once: {opened:?}");
        }
        daemon.stop();
    });
}

#[test]
fn a_closing_sequence_revokes_the_grant_of_its_source_only() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let config = format!(
            r#"{DOOR}
            [[door]]
            name = "away"
            knock = ["tcp/9100", "tcp/7100"]
            close = ["tcp/22"]
            "#
        );
        let daemon = Daemon::start(&net.server, &config);
        for family in Family::ALL {
            let [leaver, stayer] = [net.new_source(family), net.new_source(family)];
            stayer.knock(KNOCKS);
            let mut stream = leaver.knock_and_connect(KNOCKS, SSH).unwrap();
            leaver.knock("tcp/9100 tcp/7100");
            leaver.finds_closed(SSH, "after closing");
            daemon.wait_for_event(
                &json!({"event": "closed", "source": leaver.name(), "door": "ssh",
                "reason": "sequence", "by": "away"}),
            );
            stayer.finds(true, SSH, "another source");
            assert!(
                echoes(&mut stream),
                "{family}: established connections continue"
            );
            leaver.knock(KNOCKS);
            leaver.finds(true, SSH, "knocked again");
        }
        daemon.stop();
    });
}

#[test]
fn doors_with_a_common_beginning_open_separately() {
    const DOORS: &str = r#"
        [[door]]
        name = "first"
        knock = ["tcp/7000", "tcp/8000", "tcp/9000"]
        open = ["tcp/22"]
        [[door]]
        name = "second"
        knock = ["tcp/7000", "udp/8500", "tcp/9500"]
        open = ["tcp/443", "udp/5353"]
        [[door]]
        name = "longer"
        knock = ["tcp/7000", "tcp/8000", "tcp/9500", "tcp/9000"]
        open = ["tcp/5432"]
    "#;
    // Knocks, and whether 22, 443 and 5432 are open then.
    let rows = [
        ("first", "tcp/7000 tcp/8000 tcp/9000", [true, false, false]),
        ("second", "tcp/7000 udp/8500 tcp/9500", [false, true, false]),
        (
            "longer",
            "tcp/7000 tcp/8000 tcp/9500 tcp/9000",
            [false, false, true],
        ),
        (
            "from one into the other",
            "tcp/7000 tcp/8000 udp/8500 tcp/9500",
            [false; 3],
        ),
        (
            "one after the other",
            "tcp/7000 tcp/8000 tcp/9000 tcp/7000 udp/8500 tcp/9500",
            [true, true, false],
        ),
    ];
    net::test(|net| {
        let ports = [22, 443, 5432];
        let _server = Server::tcp(&net.server, &ports).and_udp(&net.server, 5353);
        let daemon = Daemon::start(&net.server, DOORS);
        for family in Family::ALL {
            for (name, knocks, open) in rows {
                let source = net.new_source(family);
                source.knock(knocks);
                for (port, open) in ports.into_iter().zip(open) {
                    source.finds(open, port, &format!("{name}, {family}"));
                }
                let [_, second, _] = open;
                assert_eq!(
                    source.has_udp_echo(5353),
                    second,
                    "{name}, {family}: udp/5353"
                );
            }
        }
        daemon.stop();
    });
}

#[test]
fn a_door_can_be_limited_to_one_address() {
    const DOORS: &str = r#"
        [[door]]
        name = "v4"
        knock = ["tcp/7000", "tcp/9000"]
        open = ["tcp/22"]
        target = "192.0.2.3"
        [[door]]
        name = "v6"
        knock = ["tcp/7000", "tcp/9000"]
        open = ["tcp/22"]
        target = "2001:db8::3"
    "#;
    const KNOCKS: &str = "tcp/7000 tcp/9000";
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let daemon = Daemon::start(&net.server, DOORS);
        for family in Family::ALL {
            let both = |source: Source<'_>, one: bool, other: bool, row: &str| {
                source.finds(one, SSH, row);
                source.to(family.other_server()).finds(other, SSH, row);
            };
            let here = net.new_source(family);
            here.knock(KNOCKS);
            both(here, false, false, "knocked at the other address");

            let there = net.new_source(family);
            there.to(family.other_server()).knock(KNOCKS);
            both(there, false, true, "knocked at the door's address");

            let mixed = net.new_source(family);
            mixed.knock("tcp/7000");
            mixed.to(family.other_server()).knock("tcp/9000");
            both(mixed, false, false, "half here, half there");
        }
        daemon.stop();
    });
}

#[test]
fn trusted_sources_need_not_knock() {
    const TRUST: &str = r#"trust = ["198.51.100.4/30", "2001:db8:a::4/126", "192.0.2.1"]"#;
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let daemon = Daemon::start(&net.server, &format!("{TRUST}\n{DOOR}"));
        for family in Family::ALL {
            for (number, trusted) in [(3, false), (4, true), (7, true), (8, false)] {
                let source = net.source(family.source(number), family.server());
                source.finds(trusted, SSH, &format!("source {number}, {family}"));
            }
        }
        net.native(Family::V4).finds(true, SSH, "a single address");
        net.native(Family::V6).finds_closed(SSH, "not in the list");
        daemon.stop();
    });
}

#[test]
fn wrong_knocks_lock_a_source_out_for_the_configured_time() {
    const WRONG: &str = "tcp/7000 tcp/9000";
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let config = format!("lockout = {{ failures = 2, for = \"2s\" }}\n{DOOR}");
        let daemon = Daemon::start(&net.server, &config);
        let sources = Family::ALL.map(|family| net.new_source(family));
        let start = Instant::now();
        for source in &sources {
            source.knock(WRONG);
            source.knock(KNOCKS);
            source.finds(true, SSH, "one failure");
        }
        let sources = Family::ALL.map(|family| net.new_source(family));
        for source in &sources {
            source.knock(WRONG);
            source.knock(WRONG);
            source.knock(KNOCKS);
            source.finds_closed(SSH, "two failures");
            daemon.wait_for_event(
                &json!({"event": "locked-out", "reason": "locked-out", "source": source.name()}),
            );
        }
        let other = net.new_source(Family::V4);
        other.knock(KNOCKS);
        other.finds(true, SSH, "another source meanwhile");
        assert!(
            start.elapsed() < Duration::from_secs(2),
            "too slow to distinguish"
        );
        thread::sleep(Duration::from_millis(2_100));
        for source in &sources {
            source.knock(KNOCKS);
            source.finds(true, SSH, "after the lockout");
        }
        daemon.stop();
    });
}

#[test]
fn decoys_end_the_attempt() {
    const ROWS: &[Row] = &[
        opens("no decoy touched", "tcp/7000 udp/9000 tcp/8000"),
        opens("a decoy before", "tcp/8500 tcp/7000 udp/9000 tcp/8000"),
        fails(
            "a decoy between",
            "tcp/7000 tcp/8500 udp/9000 tcp/8000",
            "decoy",
            "decoy",
        ),
        fails(
            "a datagram to a decoy",
            "tcp/7000 udp/9000 udp/8501 tcp/8000",
            "decoy",
            "decoy",
        ),
        opens(
            "an unused port, not strict",
            "tcp/7000 tcp/8502 udp/9000 tcp/8000",
        ),
    ];
    net::test(|net| {
        let server = Server::tcp(&net.server, &[SSH]);
        let config = r#"
            strict = false
            decoys.ports = ["tcp/8500", "udp/8501"]
            [[door]]
            name = "ssh"
            knock = ["tcp/7000", "udp/9000", "tcp/8000"]
            open = ["tcp/22"]
        "#;
        let daemon = Daemon::start(&net.server, config);
        run(net, &daemon, &server, ROWS);
        let silent = net.new_source(Family::V4);
        silent.finds_closed(8500, "a decoy looks like a knock port");
        silent.finds_closed(7000, "and that is silent");
        daemon.stop();
    });
}

#[test]
fn every_grant_has_one_opening_and_one_end() {
    const SOURCES: usize = 20;
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let daemon = Daemon::start(&net.server, &format!("{DOOR}\nopen_for = \"1s\""));
        let sources: Vec<_> = (0..SOURCES).map(|_| net.new_source(Family::V4)).collect();
        for source in &sources {
            source.knock(KNOCKS);
        }
        let names: HashSet<_> = sources.iter().map(Source::name).collect();
        for what in ["opened", "closed"] {
            for name in &names {
                daemon.wait_for_event(&json!({"event": what, "source": name, "door": "ssh"}));
            }
            assert_eq!(
                daemon.events_like(&json!({"event": what})).len(),
                SOURCES,
                "{what}"
            );
        }
        daemon.stop();
    });
}

/// Waits for a time that a test depends on.
fn sleep_until(moment: Instant) {
    thread::sleep(moment.saturating_duration_since(Instant::now()));
}

/// The packets of a source, and whether the door is open to it afterwards.
struct Row {
    name: &'static str,
    knocks: &'static str,
    opens: bool,
    /// The event with the reason if it is not.
    event: Option<(&'static str, &'static str)>,
}

const fn opens(name: &'static str, knocks: &'static str) -> Row {
    Row {
        name,
        knocks,
        opens: true,
        event: None,
    }
}

const fn fails(
    name: &'static str,
    knocks: &'static str,
    event: &'static str,
    reason: &'static str,
) -> Row {
    Row {
        name,
        knocks,
        opens: false,
        event: Some((event, reason)),
    }
}

/// Runs rows, each with a source of its own, over both families.
#[track_caller]
fn run(net: &Net, daemon: &Daemon, server: &Server, rows: &[Row]) {
    for family in Family::ALL {
        for row in rows {
            let name = &format!("{}, {family}", row.name);
            let source = net.new_source(family);
            source.knock(row.knocks);
            source.finds(row.opens, SSH, name);
            if row.opens {
                server.meets(source.from, SSH);
            }
            if let Some((event, reason)) = row.event {
                daemon.wait_for_event(
                    &json!({"event": event, "reason": reason, "source": source.name()}),
                );
            }
            let opened = json!({"event": "opened", "source": source.name()});
            if row.opens {
                daemon.wait_for_event(&opened);
            } else {
                assert!(daemon.events_like(&opened).is_empty(), "{name}");
                assert!(!server.met(source.from, SSH), "{name}: the server met it");
            }
        }
    }
}
