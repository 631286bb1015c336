//! A scan of all ports opens no door, and disturbs no client that knocks meanwhile.

use std::time::{Duration, Instant};

use knock_common::packet::Protocol::{Tcp, Udp};
use knock_tests::{
    daemon::Daemon,
    net::{self, Family, Net},
    server::Server,
    source::Source,
    wire::{self, Wire},
};
use knock_user::config;
use serde_json::json;

const SSH: u16 = 22;

/// Each is a sequence that some scan walks through: in one protocol, from one to the other, port by
/// port, or backwards.
const DOORS: &str = r#"
    [[door]]
    name = "tcp"
    knock = ["tcp/7000", "tcp/9000"]
    open = ["tcp/22"]
    [[door]]
    name = "udp"
    knock = ["udp/7001", "udp/9001"]
    open = ["tcp/22"]
    [[door]]
    name = "mixed"
    knock = ["tcp/7002", "udp/9002"]
    open = ["tcp/22"]
    [[door]]
    name = "backwards"
    knock = ["tcp/9003", "tcp/7003"]
    open = ["tcp/22"]
    [[door]]
    name = "neighbours"
    knock = ["tcp/7010", "tcp/7012"]
    open = ["tcp/22"]
"#;

/// Doors whose knocks have flags that are not wrong knocks at any port: FIN, and SYN with ACK too.
const OTHER_FLAGS: &str = r#"
    [[door]]
    name = "fin"
    knock = ["tcp/7000", "tcp/9000", "tcp/8000"]
    open = ["tcp/22"]
    tcp_flags = "fin"
    [[door]]
    name = "syn"
    knock = ["tcp/7001", "udp/8001", "tcp/9001"]
    open = ["tcp/22"]
    tcp_flags = "syn"
    [[door]]
    name = "connects"
    knock = ["tcp/7002", "tcp/8002", "tcp/9002"]
    open = ["tcp/22"]
"#;

type Scan = fn(&Source<'_>);

const SCANS: [(&str, Scan); 5] = [
    ("tcp, ascending", |source| source.scan(Tcp, 1..=u16::MAX)),
    ("udp, ascending", |source| source.scan(Udp, 1..=u16::MAX)),
    ("tcp, descending", |source| {
        source.scan(Tcp, (1..=u16::MAX).rev())
    }),
    ("tcp, then udp", |source| {
        source.scan(Tcp, 6_000..=10_000);
        source.scan(Udp, 6_000..=10_000);
    }),
    ("port by port, both", |source| {
        for port in 6_990..=9_010 {
            source.scan(Tcp, [port]);
            source.scan(Udp, [port]);
        }
    }),
];

#[test]
fn no_scan_opens_a_door() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH, 80]);
        let daemon = Daemon::start(&net.server, DOORS);
        for family in Family::ALL {
            for (name, scan) in SCANS {
                let row = format!("{name}, {family}");
                let source = net.new_source(family);
                let start = Instant::now();
                scan(&source);
                // A scan slower than `sequence_timeout` would prove nothing.
                assert!(start.elapsed() < Duration::from_secs(20), "{row}: slow");
                nothing_opened(&daemon, &source, &row);
                source.knock("tcp/7000 tcp/9000");
                source.finds(true, SSH, &format!("{row}: knocks after the scan"));
            }
        }
        daemon.stop();
    });
}

#[test]
fn a_scan_disturbs_no_other_source() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let daemon = Daemon::start(&net.server, DOORS);
        for family in Family::ALL {
            let scanner = net.new_source(family);
            let honest: Vec<_> = (0..20).map(|_| net.new_source(family)).collect();
            std::thread::scope(|scope| {
                let scan = scope.spawn(|| {
                    scanner.scan(Tcp, 1..=u16::MAX);
                });
                for source in &honest {
                    let connected = source.knock_and_connect("tcp/7000 tcp/9000", SSH);
                    assert!(connected.is_ok(), "{family}: {connected:?}");
                }
                scan.join().unwrap();
            });
            nothing_opened(&daemon, &scanner, "scanner");
        }
        daemon.stop();
    });
}

/// Nothing between the knocks resets scans with flags that ask for no connection.
#[test]
fn no_scan_with_other_flags_opens_a_door() {
    const FIN: u8 = 0x01;
    const SYN_ACK: u8 = 0x12;
    const XMAS: u8 = 0x29;
    type Ports = fn() -> Vec<u16>;
    let scans: [(&str, Ports); 2] = [
        ("ascending", || (6_990..=9_010).collect()),
        ("descending", || (6_990..=9_010).rev().collect()),
    ];
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH, 80]);
        let daemon = Daemon::start(&net.server, OTHER_FLAGS);
        let wire = Wire::open(&net.client);
        let send = |source: &Source<'_>, flags, port| {
            let path = source.path();
            wire.send(&wire::whole(
                path,
                &wire::segment(path, 40_000, port, flags),
            ));
        };
        for family in Family::ALL {
            for flags in [FIN, SYN_ACK, XMAS] {
                for (name, ports) in scans {
                    let row = format!("flags {flags:#04x}, {name}, {family}");
                    let source = net.new_source(family);
                    for port in ports() {
                        send(&source, flags, port);
                    }
                    nothing_opened(&daemon, &source, &row);
                }
            }
            // The packets of the scans are knocks: in the door's order they open it.
            let source = net.new_source(family);
            for port in [7000, 9000, 8000] {
                send(&source, FIN, port);
            }
            source.finds(true, SSH, &format!("fin, in order, {family}"));
            let source = net.new_source(family);
            send(&source, SYN_ACK, 7001);
            source.knock("udp/8001");
            send(&source, SYN_ACK, 9001);
            source.finds(true, SSH, &format!("syn,ack, in order, {family}"));
        }
        daemon.stop();
    });
}

/// nmap scans too.
#[test]
fn nmap_opens_no_door() {
    let scans: [(&str, &[&str]); 3] = [
        ("tcp", &["-sS", "-p1-65535"]),
        ("udp", &["-sU", "-p6990-9010"]),
        ("both", &["-sS", "-sU", "-pT:6990-9010,U:6990-9010"]),
    ];
    let other_flags: [(&str, &[&str]); 3] = [
        ("fin", &["-sF", "-p1-65535"]),
        ("xmas", &["-sX", "-p6990-9010"]),
        ("syn,ack", &["-sS", "--scanflags", "SYNACK", "-p6990-9010"]),
    ];
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH, 80]);
        for (doors, rows) in [(DOORS, scans), (OTHER_FLAGS, other_flags)] {
            let daemon = Daemon::start(&net.server, doors);
            for family in Family::ALL {
                for (name, kind) in rows {
                    let row = format!("{name}, {family}");
                    nmap(net, family, kind);
                    nothing_opened(&daemon, &net.native(family), &row);
                }
            }
            daemon.stop();
        }
    });
}

/// The scans of this file would open these doors, so a start refuses them.
#[test]
fn doors_that_a_scan_opens_are_refused() {
    const UP: &str = "a port scan in ascending order would complete this sequence";
    const DOWN: &str = "a port scan in descending order would complete this sequence";
    let rows = [
        ("", "tcp/7000 tcp/7001 tcp/7002", "syn,!ack", Some(UP)),
        ("", "tcp/7002 tcp/7001 tcp/7000", "syn,!ack", Some(DOWN)),
        ("", "tcp/7101 udp/7100", "syn,!ack", Some(DOWN)),
        ("", "tcp/7000 tcp/8000 tcp/9000", "syn,!ack", None),
        ("", "tcp/9000 tcp/8000 tcp/7000", "syn,!ack", None),
        ("", "tcp/7000 tcp/8000 tcp/9000", "fin", Some(UP)),
        ("", "tcp/9000 tcp/8000 tcp/7000", "fin", Some(DOWN)),
        ("", "tcp/7000 tcp/8000 tcp/9000", "urg", Some(UP)),
        ("", "tcp/7000 tcp/8000 tcp/9000", "syn", Some(UP)),
        ("", "tcp/7000 tcp/8000 tcp/9000", "!ack", Some(UP)),
        ("", "tcp/7000 tcp/9000 tcp/8000", "fin", None),
        ("", "tcp/7000 udp/8000 tcp/9000", "fin", None),
        ("", "tcp/7000 tcp/8000 tcp/9000", "syn,!ack,!fin", None),
        ("strict = false", "tcp/7000 tcp/9000", "syn,!ack", Some(UP)),
        (
            "strict = false",
            "tcp/9000 tcp/7000",
            "syn,!ack",
            Some(DOWN),
        ),
        (
            "strict = false",
            "tcp/7000 tcp/9000 tcp/8000",
            "syn,!ack",
            None,
        ),
    ];
    for (top, knocks, flags, wanted) in rows {
        let knocks = knocks.replace(' ', "\", \"");
        let text = format!(
            "{top}\n[[door]]\nname = \"x\"\nknock = [\"{knocks}\"]\nopen = [\"tcp/22\"]\n\
             tcp_flags = \"{flags}\"\n"
        );
        let error = config::parse(&text, "x")
            .err()
            .map(|error| error.to_string());
        match (wanted, error) {
            (None, None) => {}
            (Some(wanted), Some(error)) if error.contains(wanted) => {}
            (_, error) => panic!("{text}{error:?}"),
        }
    }
}

/// Ports that the host serves are never wrong knocks. That they lie between two knocks is not in the
/// file, so it can only be warned of.
#[test]
fn served_ports_between_two_knocks_are_warned_of() {
    const CONFIG: &str = r#"
        [[door]]
        name = "ssh"
        knock = ["tcp/7000", "tcp/7003"]
        open = ["tcp/22"]
    "#;
    for (served, opens) in [(vec![7001], false), (vec![7001, 7002], true)] {
        net::test(|net| {
            let namespace = &net.server;
            let ports = [&[SSH], served.as_slice()].concat();
            let _server = Server::tcp(namespace, &ports);
            let daemon = Daemon::start(namespace, CONFIG);
            let stderr = daemon.process().stderr();
            let warned = stderr.contains("this host listens on all ports between the knocks");
            assert_eq!(warned, opens, "{stderr}");
            for family in Family::ALL {
                let source = net.new_source(family);
                source.scan(Tcp, 6_900..=7_100);
                source.finds(opens, SSH, &format!("{served:?}, {family}"));
            }
            daemon.stop();
        });
    }
}

#[track_caller]
fn nothing_opened(daemon: &Daemon, source: &Source<'_>, row: &str) {
    source.finds_closed(SSH, row);
    let opened = daemon.events_like(&json!({"event": "opened", "source": source.name()}));
    assert!(opened.is_empty(), "{row}: {opened:?}");
}

/// Scans in the order of the ports, each once and without pauses.
#[track_caller]
fn nmap(net: &Net, family: Family, kind: &[&str]) {
    let to = family.server().to_string();
    let mut arguments = vec![
        "-n",
        "-Pn",
        "-r",
        "--max-retries",
        "0",
        "--min-rate",
        "20000",
    ];
    arguments.extend(["-T5", "--host-timeout", "60s"]);
    arguments.extend(kind);
    if family == Family::V6 {
        arguments.push("-6");
    }
    arguments.push(&to);
    net.client.run("nmap", &arguments);
}
