//! Loopback addresses: only on the loopback interface can they be source addresses.
#![expect(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

use std::{
    net::{IpAddr, TcpStream, UdpSocket},
    time::Duration,
};

use knock_tests::{
    daemon::{self, Daemon},
    net::{self, Family, Net, SERVER_LINK},
    path::Path,
    server::Server,
    wait,
    wire::{Wire, datagram, syn, whole},
};
use serde_json::{Value, json};

const CONFIG: &str = r#"
    [[door]]
    name = "ssh"
    knock = ["udp/7000"]
    open = ["tcp/22"]
"#;

#[test]
fn only_the_loopback_interface_has_loopback_addresses() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[22]);
        let links = ["--iface", SERVER_LINK, "--iface", "lo"];
        let daemon = Daemon::start_with(&net.server, CONFIG, &links);
        let wire = Wire::open(&net.client);
        let mut refused = bad_headers(net);
        for (from, family) in [
            ("127.0.0.1", Family::V4),
            ("0.0.0.0", Family::V4),
            ("224.0.0.1", Family::V4),
            ("255.255.255.255", Family::V4),
            ("::1", Family::V6),
            ("::", Family::V6),
            ("ff02::1", Family::V6),
        ] {
            let path = Path {
                from: from.parse().unwrap(),
                to: family.server(),
            };
            wire.send(&whole(path, &datagram(path, 40_000, 7000, b"knock")));
            wire.send(&whole(path, &syn(path, 40_000, 22)));
            refused += 2;
            wait::until("both packets are refused", || bad_headers(net) == refused);
        }
        assert_eq!(daemon.events_like(&json!({"event": "opened"})).len(), 0);
        for loopback in ["127.0.0.1", "::1"] {
            let address: IpAddr = loopback.parse().unwrap();
            let connects = || {
                let limit = Duration::from_millis(300);
                net.server
                    .enter(|| TcpStream::connect_timeout(&(address, 22).into(), limit).is_ok())
            };
            assert!(!connects(), "{loopback} before its knock");
            net.server.enter(|| {
                let socket = UdpSocket::bind((address, 0)).unwrap();
                socket.send_to(b"knock", (address, 7000)).unwrap();
            });
            daemon.wait_for_event(&json!({"event": "opened", "source": loopback}));
            assert!(connects(), "{loopback} after its knock");
        }
        for (source, is_granted) in [("127.0.0.2", true), ("0.0.0.0", false), ("ff02::1", false)] {
            let (code, text) = daemon::ask(&net.server, &["grant", source, "--door", "ssh"]);
            assert_eq!(code == Some(0), is_granted, "{source}: {text}");
            assert_eq!(
                text.contains("no host on the network has this address"),
                !is_granted,
                "{source}: {text}"
            );
        }
        daemon.stop();
    });
}

#[test]
fn grant_refuses_addresses_that_no_host_has() {
    net::test(|net| {
        let daemon = Daemon::start(&net.server, CONFIG);
        for source in ["127.0.0.1", "::1", "0.0.0.0", "::", "224.0.0.1", "ff02::1"] {
            let (code, text) = daemon::ask(&net.server, &["grant", source, "--door", "ssh"]);
            assert_ne!(code, Some(0), "{source}");
            assert!(
                text.contains("no host on the network has this address"),
                "{source}: {text}"
            );
        }
        assert_eq!(daemon.events_like(&json!({"event": "opened"})).len(), 0);
        daemon.stop();
    });
}

fn bad_headers(net: &Net) -> u64 {
    let (_, status) = daemon::ask(&net.server, &["status", "--json"]);
    let status: Value = serde_json::from_str(&status).unwrap();
    let counters = status["counters"].as_array().unwrap();
    let bad = counters
        .iter()
        .find(|counter| counter["name"] == "bad-header");
    bad.map_or(0, |counter| counter["count"].as_u64().unwrap())
}
