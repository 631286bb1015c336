//! Doors with `verify = "handshake"`: clients that connect get in, and no other source does.
#![expect(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

mod audience;
mod forged;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, Permissions},
    io::{ErrorKind, Read as _},
    os::unix::fs::PermissionsExt as _,
    process::Command,
    time::Duration,
};

use knock_common::cookie;
use knock_tests::{
    binary::binaries,
    daemon::Daemon,
    kernel::now,
    namespace::text,
    net::{self, Family, Net},
    other_end::OtherEnd,
    pins,
    server::Server,
    source::Source,
    wait,
};
use serde_json::json;
use tempfile::tempdir;

use forged::Forger;

const SSH: u16 = 22;
const KNOCKS: [u16; 3] = [7000, 9000, 8000];
const DECOYS: [u16; 3] = [7500, 8500, 9500];
const CONFIG: &str = r#"
    decoys = { ports = ["tcp/7500", "tcp/8500", "tcp/9500"] }
    [[door]]
    name = "ssh"
    verify = "handshake"
    knock = ["tcp/7000", "tcp/9000", "tcp/8000"]
    open = ["tcp/22"]
"#;
const MIXED: &str = r#"
    [[door]]
    name = "silent"
    knock = ["tcp/7100", "udp/9100", "tcp/8100"]
    open = ["tcp/80"]
"#;
/// Long enough for a connection on a slow machine.
const LONG: Duration = Duration::from_secs(10);

const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;
const FIN_ACK: u8 = 0x11;
const SYN_ACK: u8 = 0x12;

const SOURCE_PORT: u16 = 45_678;

/// A daemon draws the next key of cookies, and handshakes continue to succeed.
#[test]
fn cookie_keys_are_renewed() {
    test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let brief = CONFIG.replace("verify", "open_for = \"1s\"\n    verify");
        let daemon = Daemon::start(&net.server, &brief);
        let instance = pins::instance(&net.server);
        wait::until("a key is drawn, if it can be now", || {
            let source = net.new_source(Family::V4);
            knocks(&source, "meanwhile");
            drop(source.finds_open(SSH, "meanwhile"));
            // The daemon wakes up when a grant ends.
            daemon.wait_for_event(&json!({"event": "closed", "source": source.name()}));
            let [even, odd] = pins::config(&instance).cookie_keys;
            even != odd || cookie::next_turn(now().unwrap()).is_none()
        });
        daemon.stop();
    });
}

/// Ordinary clients, whose connections are accepted and closed like others.
#[test]
fn clients_that_complete_handshakes_open_the_door() {
    type Client = fn(Family, &str) -> Vec<String>;
    let clients: [(&str, Client); 4] = [
        ("knock-client", |_, host| {
            let client = binaries().client.display();
            let knocks = KNOCKS.map(|port| port.to_string()).join(" ");
            vec![format!(
                "{client} {host} {knocks} --handshake --then-connect 22"
            )]
        }),
        ("nc", |_, host| {
            let each = KNOCKS.map(|port| format!("nc -z -w10 {host} {port}"));
            each.to_vec()
        }),
        ("python", |_, host| {
            let script = format!(
                "import socket\nfor port in {KNOCKS:?}:\n  \
                 s = socket.create_connection(('{host}', port), 10)\n  \
                 assert s.recv(1) == b''\n  s.close()\n"
            );
            vec![format!("python3 -c \"{script}\"")]
        }),
        ("nmap", |family, host| {
            let flag = family.pick("", "-6");
            let each = KNOCKS.map(|port| format!("nmap {flag} -n -Pn -sT -p {port} {host}"));
            each.to_vec()
        }),
    ];
    test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        for (name, commands) in clients {
            let daemon = Daemon::start(&net.server, CONFIG);
            for family in Family::ALL {
                let row = format!("{name}, {family}");
                let source = net.native(family);
                source.finds_closed(SSH, &row);
                for command in commands(family, &source.to.to_string()) {
                    let output = net.client.try_run("sh", &["-c", &command]);
                    assert!(output.status.success(), "{row}: {}", text(&output));
                }
                let opened = json!({"event": "opened", "source": source.name()});
                daemon.wait_for_event(&opened);
                drop(source.finds_open(SSH, &row));
            }
            daemon.stop();
        }
    });
}

/// The kernel's own connections, in each mode. Only in the driver a program is needed at the other end.
#[test]
fn handshake_connections_end_like_ordinary_ones() {
    for mode in ["native", "skb", "tc"] {
        net::test(|net| {
            let _other_end = (mode == "native").then(|| OtherEnd::of(net));
            let _server = Server::tcp(&net.server, &[SSH]);
            let daemon =
                Daemon::start_with(&net.server, CONFIG, &["--iface", "b0", "--mode", mode]);
            for family in Family::ALL {
                let row = format!("{mode}, {family}");
                let source = net.new_source(family);
                knocks(&source, &row);
                drop(source.finds_open(SSH, &row));
                daemon.wait_for_event(&json!({"event": "opened", "source": source.name()}));
                let events = event_names(&daemon, &source);
                assert_eq!(events, ["knock", "knock", "opened"], "{row}");
                // None of them is left, because each was reset when it was closed.
                let ports = KNOCKS.map(|port| format!("dport = :{port}")).join(" or ");
                wait::until("connections to knocks are gone", || {
                    let left = net.client.run("ss", &["-Htan", &format!("( {ports} )")]);
                    left.lines().all(|line| line.starts_with("TIME-WAIT"))
                });
            }
            daemon.stop();
        });
    }
}

#[test]
fn connections_to_wrong_ports_end_the_attempt() {
    test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let daemon = Daemon::start(&net.server, CONFIG);
        for family in Family::ALL {
            for (name, ports) in [
                ("order", &[7000, 8000, 9000][..]),
                ("decoy", &[7000, 9000, 8500, 8000]),
                ("one is missing", &[7000, 8000]),
                ("backwards", &[8000, 9000, 7000]),
            ] {
                let row = format!("{name}, {family}");
                let source = net.new_source(family);
                for &port in ports {
                    connects(&source, port, &row);
                }
                source.finds_closed(SSH, &row);
                knocks(&source, &row);
                drop(source.finds_open(SSH, &row));
            }
            let source = net.new_source(family);
            let row = format!("another port, {family}");
            for port in [7000, 9000] {
                connects(&source, port, &row);
            }
            let closed = source.connect(1234, LONG).unwrap_err();
            assert_eq!(closed.kind(), ErrorKind::ConnectionRefused, "{row}");
            connects(&source, 8000, &row);
            source.finds_closed(SSH, &row);
        }
        daemon.stop();
    });
}

/// To a scanner knocks and decoys look alike, and a scan opens nothing.
#[test]
fn nmap_cannot_distinguish_a_knock_from_a_decoy() {
    let kinds = ["-sS", "-sT", "-sF", "-sN", "-sX", "-sA", "-sM", "-sW"];
    test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let daemon = Daemon::start(&net.server, CONFIG);
        let ports = "7000,7500,8000,8500,9000,9500";
        for family in Family::ALL {
            for kind in kinds {
                let states = scanned(net, family, kind, ports);
                let row = format!("{kind}, {family}: {states:?}");
                let all: BTreeSet<u16> = KNOCKS.into_iter().chain(DECOYS).collect();
                assert!(states.keys().eq(&all), "{row}");
                let different: BTreeSet<&String> = states.values().collect();
                assert_eq!(different.len(), 1, "{row}");
                if matches!(kind, "-sS" | "-sT") {
                    assert!(different.iter().all(|state| *state == "open"), "{row}");
                }
            }
            let source = net.native(family);
            catch_up(net, &daemon, family);
            source.finds_closed(SSH, "after the scans");
            // A scan that only asks is not a knock; one that connects is judged as such.
            let events = event_names(&daemon, &source);
            assert!(!events.contains(&"opened".to_owned()), "{events:?}");
            knocks(&source, "after the scans");
            drop(source.finds_open(SSH, "after the scans"));
        }
        daemon.stop();
    });
}

/// Changing sequences are verified like others.
#[test]
fn one_time_and_time_based_sequences_can_need_handshakes() {
    // A time-based sequence opens once, whichever door has its secret, so each family has its own.
    let secret = |family: Family| format!("a secret of a test, {family}");
    let base = |family: Family| family.pick("20000", "30000");
    let directory = tempdir().unwrap();
    let [here, there] = ["here", "there"].map(|name| directory.path().join(name));
    let lines = " 7000,9000,8000\n 7001,9001,8001\n 7002,9002,8002\n";
    for path in [&here, &there] {
        fs::write(path, lines).unwrap();
        fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
    }
    let mut config = format!(
        "[[door]]\nname = \"once\"\nverify = \"handshake\"\none_time = {here:?}\n\
         open = [\"tcp/22\"]\n"
    );
    for family in Family::ALL {
        let (base, secret) = (base(family), secret(family));
        config += &format!(
            "[[door]]\nname = \"timed-{base}\"\nverify = \"handshake\"\nopen = [\"tcp/80\"]\n\
             otp = {{ secret = \"{secret}\", protocols = [\"tcp\", \"tcp\", \"tcp\"], \
             port_base = {base} }}\n"
        );
    }
    test(|net| {
        let _server = Server::tcp(&net.server, &[SSH, 80]);
        let daemon = Daemon::start(&net.server, &config);
        for family in Family::ALL {
            let host = family.server().to_string();
            let there = there.display();
            let timed = format!("timed-{}", base(family));
            for (door, port, words) in [
                ("once", SSH, format!("--one-time {there}")),
                (
                    timed.as_str(),
                    80,
                    format!(
                        "--otp-protocols tcp,tcp,tcp --otp-port-base {}",
                        base(family)
                    ),
                ),
            ] {
                let row = format!("{door}, {family}");
                let source = net.native(family);
                source.finds_closed(port, &row);
                let mut client = Command::new(&binaries().client);
                client.env("XDG_CONFIG_HOME", "/nonexistent").arg(&host);
                client.args(words.split_whitespace());
                if port == 80 {
                    client.args(["--otp-secret", &secret(family)]);
                }
                client.args(["--handshake", "--retries", "2"]);
                client.args(["--then-connect", &port.to_string()]);
                let output = net.client.enter(|| client.output()).unwrap();
                assert!(output.status.success(), "{row}: {}", text(&output));
                daemon.wait_for_event(
                    &json!({"event": "opened", "source": source.name(), "door": door}),
                );
            }
        }
        daemon.stop();
    });
}

/// Over veth answers need a program at the other end, which knock-user can't see.
#[test]
fn an_interface_that_may_not_send_answers_is_warned_of() {
    const ELSEWHERE: &str = "b0 is veth, and its other end is in another network namespace";
    net::test(|net| {
        for (config, mode, warning) in [
            (CONFIG, "native", true),
            (CONFIG, "skb", false),
            (CONFIG, "tc", false),
            (MIXED, "native", false),
        ] {
            let arguments = ["--iface", "b0", "--mode", mode];
            let daemon = Daemon::start_with(&net.server, config, &arguments);
            let stderr = daemon.process().stderr();
            assert_eq!(stderr.contains(ELSEWHERE), warning, "{mode}: {stderr}");
            daemon.stop();
        }
        net.server
            .ip_batch("link add c0 type veth peer name d0\nlink set c0 up\nlink set d0 up");
        let daemon =
            Daemon::start_with(&net.server, CONFIG, &["--iface", "c0", "--mode", "native"]);
        let stderr = daemon.process().stderr();
        assert!(
            stderr.contains("its other end, d0, has no XDP program in the driver"),
            "{stderr}"
        );
        daemon.stop();
    });
}

/// One configuration has doors of both kinds.
#[test]
fn silent_doors_work_beside_handshake_doors() {
    test(|net| {
        let _server = Server::tcp(&net.server, &[SSH, 80]);
        let daemon = Daemon::start(&net.server, &format!("{CONFIG}{MIXED}"));
        let warned = daemon.process().stderr();
        assert!(warned.contains("its knock ports do not reply"), "{warned}");
        for family in Family::ALL {
            let row = family.to_string();
            let source = net.new_source(family);
            knocks(&source, &row);
            drop(source.finds_open(SSH, &row));
            source.finds_closed(80, &row);
            source.knock("tcp/7100");
            // A SYN is not a wrong knock, a completed connection is one.
            let forger = Forger::of(net, &source);
            for port in [9000, 7500] {
                forger.send(port, SYN, 1, 0);
            }
            source.knock("udp/9100 tcp/8100");
            drop(source.finds_open(80, &row));
            let source = net.new_source(family);
            source.knock("tcp/7100");
            connects(&source, 7500, &row);
            source.knock("udp/9100 tcp/8100");
            source.finds_closed(80, &row);
            source.finds_closed(7100, &row);
        }
        daemon.stop();
    });
}

#[test]
fn a_dry_run_answers_no_handshake() {
    test(|net| {
        let arguments = ["--iface", "b0", "--dry-run"];
        let daemon = Daemon::start_with(&net.server, CONFIG, &arguments);
        let warned = daemon.process().stderr();
        assert!(warned.contains("a dry run sends no replies"), "{warned}");
        assert!(!warned.contains("veth"), "{warned}");
        for family in Family::ALL {
            let closed = net.new_source(family).connect(7000, LONG).unwrap_err();
            assert_eq!(closed.kind(), ErrorKind::ConnectionRefused, "{family}");
        }
        daemon.stop();
    });
}

/// Runs a test where the server's program can answer.
#[track_caller]
fn test(test: impl FnOnce(&Net)) {
    net::test(|net| {
        let other_end = OtherEnd::of(net);
        test(net);
        drop(other_end);
    });
}

/// Connects, and closes the connection when the other end does.
#[track_caller]
fn connects(source: &Source<'_>, port: u16, row: &str) {
    let mut stream = match source.connect(port, LONG) {
        Ok(stream) => stream,
        Err(error) => panic!("{row}: no connection to tcp/{port}: {error}"),
    };
    stream.set_read_timeout(Some(LONG)).unwrap();
    let read = stream.read(&mut [0]);
    assert_eq!(read.unwrap(), 0, "{row}: tcp/{port} sent more");
}

#[track_caller]
fn knocks(source: &Source<'_>, row: &str) {
    for port in KNOCKS {
        connects(source, port, row);
    }
}

/// Returns the names of the events that the daemon reported of a source.
fn event_names(daemon: &Daemon, source: &Source<'_>) -> Vec<String> {
    let events = daemon.events_like(&json!({"source": source.name()}));
    let names = events.iter().map(|event| event["event"].as_str().unwrap());
    names.map(str::to_owned).collect()
}

/// Waits until the daemon has reported what happened before; the event of a new source marks the place.
#[track_caller]
fn catch_up(net: &Net, daemon: &Daemon, family: Family) {
    daemon.catches_up(&net.new_source(family), SSH);
}

/// Returns the state of each port by `nmap`.
fn scanned(net: &Net, family: Family, kind: &str, ports: &str) -> BTreeMap<u16, String> {
    let to = family.server().to_string();
    // In the order of the ports: by chance some other order would be the sequence's.
    let mut arguments = vec!["-n", "-Pn", "-r", kind, "-p", ports, "-oG", "-"];
    if family == Family::V6 {
        arguments.push("-6");
    }
    arguments.push(&to);
    let text = net.client.run("nmap", &arguments);
    let (_, list) = text
        .split_once("Ports: ")
        .unwrap_or_else(|| panic!("{text}"));
    let list = list.split_terminator(['\t', '\n']).next().unwrap();
    list.split(", ")
        .map(|entry| {
            let mut fields = entry.split('/');
            let port = fields.next().unwrap().trim().parse().unwrap();
            (port, fields.next().unwrap().to_owned())
        })
        .collect()
}
