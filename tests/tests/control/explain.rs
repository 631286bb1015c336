//! `explain` agrees with what happens to a packet.

use std::net::{IpAddr, Ipv6Addr};

use knock_tests::{
    daemon::Daemon,
    net::{self, Family, Net},
    server::Server,
    source::Source,
    ssh::{KNOCKS, SSH},
};
use serde_json::{Value, json};

use crate::{answer, ask};
use AdminStep::{Ask, Knock};

/// Doors, and every other setting that affects a verdict.
const HOUSE: &str = r#"
    protect = ["tcp/3306"]
    trust = ["192.0.2.1", "2001:db8::1"]
    exempt = ["tcp/443"]

    [lockout]
    failures = 2
    for = "60s"

    [decoys]
    ports = ["tcp/7001"]

    [[door]]
    name = "ssh"
    knock = ["tcp/7000", "udp/8000", "tcp/9000"]
    open = ["tcp/22", "udp/5353"]
    open_for = "10m"
"#;

/// The history of a source, the port in question, and the last sentence of the answer.
type Situation = (
    &'static str,
    &'static [AdminStep],
    &'static str,
    &'static str,
);

#[rustfmt::skip]
const SITUATIONS: &[Situation] = &[
    ("an unauthorized source", &[], "tcp/22", "a new connection would be dropped: no grant"),
    ("a port that no door opens", &[Knock(KNOCKS)], "tcp/3306", "a new connection would be dropped: no grant"),
    ("by UDP", &[], "udp/5353", "a datagram would be dropped: no grant"),
    ("let in", &[Knock(KNOCKS)], "tcp/22", "a new connection would pass: source has a grant"),
    ("let in by UDP", &[Knock(KNOCKS)], "udp/5353", "a datagram would pass: source has a grant"),
    ("let in by hand", &[Ask("grant SOURCE --door ssh")], "tcp/22", "a new connection would pass: source has a grant"),
    ("revoked", &[Knock(KNOCKS), Ask("revoke SOURCE")], "tcp/22", "a new connection would be dropped: no grant"),
    ("a first knock", &[], "tcp/7000", "a new connection would be dropped: first knock (1 of 3 of ssh)"),
    ("a next knock", &[Knock("tcp/7000")], "udp/8000", "a datagram would be dropped: correct knock (2 of 3 of ssh)"),
    ("a last knock", &[Knock("tcp/7000 udp/8000")], "tcp/9000", "a new connection would be dropped: door opened (ssh opens tcp/22, udp/5353 for 10m)"),
    ("half way", &[Knock("tcp/7000 udp/8000")], "tcp/22", "a new connection would be dropped: no grant"),
    ("a wrong knock", &[Knock("tcp/7000")], "tcp/9000", "a new connection would be dropped: wrong knock (after 1 of 3 of ssh)"),
    ("a knock out of sequence", &[], "udp/8000", "a datagram would be dropped: knock out of sequence"),
    ("a decoy", &[Knock("tcp/7000")], "tcp/7001", "a new connection would be dropped: decoy port (after 1 of 3 of ssh)"),
    ("another port", &[Knock("tcp/7000")], "tcp/5555", "a new connection would pass: unrelated port during an attempt (after 1 of 3 of ssh)"),
    ("another port, not knocking", &[], "tcp/5555", "a new connection would pass: port not configured"),
    ("an exempt port", &[Knock("tcp/7000")], "tcp/443", "a new connection would pass: the port is exempt"),
    ("locked out", &[Knock("tcp/7000 tcp/9000 tcp/7000 tcp/9000")], "tcp/7000", "a new connection would be dropped: locked out"),
];

#[test]
fn explain_agrees_with_what_a_packet_meets() {
    for family in Family::ALL {
        net::test(|net| {
            let _server = Server::tcp(&net.server, &[SSH, 443, 3306, 5555]);
            let _echo = Server::tcp(&net.server, &[]).and_udp(&net.server, 5353);
            let daemon = Daemon::start(&net.server, HOUSE);
            for (number, &(name, steps, port, outcome)) in (1_u128..).zip(SITUATIONS) {
                // Lockouts of IPv6 are for a /64, so each row has one of its own.
                let source = match family {
                    Family::V4 => net.new_source(family),
                    Family::V6 => {
                        let from = (0x2001_0db8_000a << 80) | (number << 64) | 9;
                        net.source(Ipv6Addr::from(from).into(), family.server())
                    }
                };
                happens(net, &source, steps);
                let explained = explained(net, source.from, port);
                assert_eq!(last_sentence(&explained), outcome, "{family}: {name}");
                meets(&daemon, &source, port, &explained, name);
            }
            // Trusted from its own address.
            let trusted = net.native(family);
            let explained = explained(net, trusted.from, "tcp/22");
            assert_eq!(
                last_sentence(&explained),
                "a new connection would pass: trusted source"
            );
            trusted.finds_open(SSH, "trusted");
            daemon.stop();
        });
    }
}

#[test]
fn explain_prints_the_chain_of_reasons() {
    net::test(|net| {
        let daemon = Daemon::start(&net.server, HOUSE);
        let source = net.new_source(Family::V4);
        let name = source.name();
        source.knock("tcp/7000 udp/8000");
        let text = ask(&net.server, &format!("explain {name} tcp/22")).out;
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 5, "{text}");
        assert_eq!(lines[0], "tcp/22 is protected; opened by ssh");
        assert_eq!(lines[1], format!("{name} is not trusted"));
        assert_eq!(lines[2], "no grant");
        let left = lines[3]
            .strip_prefix("2 of 3 knocks of ssh made, ")
            .unwrap();
        assert!(left.ends_with("s left for the rest"), "{text}");
        assert_eq!(lines[4], "a new connection would be dropped: no grant");
        // An explanation is not a knock.
        source.knock("tcp/9000");
        daemon.wait_for_event(&json!({"event": "opened", "source": name}));
        daemon.stop();
    });
}

/// A packet, or an action of an administrator.
enum AdminStep {
    Knock(&'static str),
    Ask(&'static str),
}

fn happens(net: &Net, source: &Source<'_>, steps: &[AdminStep]) {
    for step in steps {
        match step {
            Knock(knocks) => source.knock(knocks),
            Ask(words) => {
                let asked = ask(&net.server, &words.replace("SOURCE", &source.name()));
                assert_eq!(asked.code, Some(0), "{asked:?}");
            }
        }
    }
}

#[track_caller]
fn explained(net: &Net, source: IpAddr, port: &str) -> Value {
    answer(&net.server, &format!("explain {source} {port}"))
}

fn last_sentence(explained: &Value) -> &str {
    explained["steps"]
        .as_array()
        .unwrap()
        .last()
        .unwrap()
        .as_str()
        .unwrap()
}

/// Sends the packet that was explained, and compares.
#[track_caller]
fn meets(daemon: &Daemon, source: &Source<'_>, port: &str, explained: &Value, name: &str) {
    let (protocol, number) = port.split_once('/').unwrap();
    let number: u16 = number.parse().unwrap();
    let passes = explained["verdict"] == "pass";
    if protocol == "tcp" {
        source.finds(passes, number, name);
    } else {
        // A knock has no echo, whether or not it passes: its event shows it.
        assert_eq!(source.has_udp_echo(number), passes, "{name}");
    }
    let reason = explained["reason"].as_str().unwrap();
    // Packets pass without an event by default, and openings are reported by the ledger.
    let pattern = match reason {
        "granted" | "trusted" | "ordinary" => return,
        "opened" => json!({"event": "opened", "source": source.name()}),
        _ => json!({"source": source.name(), "port": number, "reason": reason}),
    };
    daemon.wait_for_event(&pattern);
}
