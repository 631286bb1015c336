//! Whoever tries all ports opens no door, and disturbs nobody who knocks meanwhile.

use std::time::{Duration, Instant};

use knock_common::packet::Protocol::{Tcp, Udp};
use knock_tests::{
    daemon::Daemon,
    net::{self, Family, Net},
    server::Server,
    source::Source,
};
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

#[track_caller]
fn nothing_opened(daemon: &Daemon, source: &Source<'_>, row: &str) {
    source.finds_closed(SSH, row);
    let opened = daemon.told(&json!({"event": "opened", "source": source.name()}));
    assert!(opened.is_empty(), "{row}: {opened:?}");
}

#[test]
fn no_scan_opens_a_door() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH, 80]);
        let daemon = Daemon::start(&net.server, DOORS);
        for family in Family::ALL {
            for (name, scan) in SCANS {
                let row = format!("{name}, {family}");
                let source = net.stranger(family);
                let start = Instant::now();
                scan(&source);
                // Slower than `within` it would prove nothing.
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
fn a_scan_disturbs_nobody_else() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let daemon = Daemon::start(&net.server, DOORS);
        for family in Family::ALL {
            let scanner = net.stranger(family);
            let honest: Vec<_> = (0..20).map(|_| net.stranger(family)).collect();
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

/// The same with the scanner that people use.
#[test]
fn nmap_opens_no_door() {
    let rows: [(&str, &[&str]); 3] = [
        ("tcp", &["-sS", "-p1-65535"]),
        ("udp", &["-sU", "-p6990-9010"]),
        ("both", &["-sS", "-sU", "-pT:6990-9010,U:6990-9010"]),
    ];
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH, 80]);
        let daemon = Daemon::start(&net.server, DOORS);
        for family in Family::ALL {
            for (name, kind) in rows {
                let row = format!("{name}, {family}");
                nmap(net, family, kind);
                nothing_opened(&daemon, &net.native(family), &row);
            }
        }
        daemon.stop();
    });
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
            let told = daemon.process().stderr();
            let warned = told.contains("this host listens on all ports between the knocks");
            assert_eq!(warned, opens, "{told}");
            for family in Family::ALL {
                let source = net.stranger(family);
                source.scan(Tcp, 6_900..=7_100);
                source.finds(opens, SSH, &format!("{served:?}, {family}"));
            }
            daemon.stop();
        });
    }
}
