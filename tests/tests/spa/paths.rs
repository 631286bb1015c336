//! Packets over every path: both families, a VLAN, extension headers, a NAT, a relay, a service on the port.

use std::{
    net::{IpAddr, UdpSocket},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use knock_tests::{
    daemon::Daemon,
    namespace::{Namespace, text},
    net::{self, Family, Net},
    random::Random,
    server::Server,
    ssh::SSH,
    wire::{self, Payload, Piece, Wire},
};
use serde_json::json;

use crate::{
    oracle::oracle,
    users::{DOORS, Users},
};

/// The port of SPA packets.
const PORT: u16 = 62_201;
const WEB: u16 = 80;
const ALICE: &[(&str, &str)] = &[("alice", "doors = [\"ssh\", \"wiki\"]")];

/// No SYN is dropped: the client sends the first one right after its packet.
#[test]
fn the_first_syn_after_a_packet_passes() {
    const RUNS: usize = 100;
    net::test(|net| {
        let server = Server::tcp(&net.server, &[SSH]);
        let users = Users::new();
        let daemon = Daemon::start(&net.server, &users.config("", ALICE, DOORS));
        for family in Family::ALL {
            let host = family.server().to_string();
            let source = net.native(family);
            let denied = json!({"event": "denied", "source": source.name(), "port": SSH});
            source.finds_closed(SSH, &host);
            daemon.wait_for_event(&denied);
            let before = daemon.events_like(&denied).len();
            for _ in 0..RUNS {
                users.opens(&net.client, "alice", &[&host, "--then-connect", "22"]);
                users.opens(&net.client, "alice", &[&host, "--close"]);
            }
            daemon.catches_up(&net.new_source(family), SSH);
            assert_eq!(daemon.events_like(&denied).len(), before, "{family}");
            source.finds_closed(SSH, &host);
        }
        assert!(server.peers() >= RUNS * Family::ALL.len());
        daemon.stop();
    });
}

#[test]
fn a_packet_is_found_behind_tags_options_and_extension_headers() {
    const TAG: (u16, u16) = (0x8100, 7);
    const OUTER: (u16, u16) = (0x88a8, 8);
    const HOP_BY_HOP: u8 = 0;
    const DESTINATION: u8 = 60;
    type Shape = fn(knock_tests::path::Path, &Payload) -> Vec<u8>;
    fn extended(path: knock_tests::path::Path, payload: &Payload, headers: &[u8]) -> Vec<u8> {
        let headers: Vec<_> = headers
            .iter()
            .map(|&number| wire::padding(number))
            .collect();
        wire::v6(path, &headers, payload.protocol, &payload.bytes)
    }
    let rows: [(&str, &[Family], Shape); 6] = [
        ("plain", &Family::ALL, wire::whole),
        ("in a VLAN", &Family::ALL, |path, payload| {
            wire::tagged(&wire::whole(path, payload), &[TAG])
        }),
        ("in two VLANs", &Family::ALL, |path, payload| {
            wire::tagged(&wire::whole(path, payload), &[OUTER, TAG])
        }),
        ("with options of IPv4", &[Family::V4], |path, payload| {
            let piece = Piece {
                offset: 0,
                more: false,
                bytes: &payload.bytes,
            };
            wire::v4(path, payload.protocol, &[1; 8], 1, piece)
        }),
        (
            "behind an extension header",
            &[Family::V6],
            |path, payload| extended(path, payload, &[DESTINATION]),
        ),
        ("behind two, in a VLAN", &[Family::V6], |path, payload| {
            wire::tagged(&extended(path, payload, &[HOP_BY_HOP, DESTINATION]), &[TAG])
        }),
    ];
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let users = Users::new();
        let daemon = Daemon::start(&net.server, &users.config("", ALICE, DOORS));
        let wire = Wire::open(&net.client);
        for (name, families, shape) in rows {
            for &family in families {
                let row = format!("{name}, {family}");
                let source = net.new_source(family);
                source.finds_closed(SSH, &row);
                let packet = users.packet("alice", &source.name(), "ssh", now());
                let datagram = wire::datagram(source.path(), 40_000, PORT, &packet);
                wire.send(&shape(source.path(), &datagram));
                drop(source.finds_open(SSH, &row));
            }
        }
        daemon.stop();
    });
}

/// The client in Python also sends the packet itself.
#[test]
fn an_independent_client_opens_the_door() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let users = Users::new();
        let daemon = Daemon::start(&net.server, &users.config("", ALICE, DOORS));
        let private = users.private("alice");
        for family in Family::ALL {
            let (host, port) = (family.server().to_string(), PORT.to_string());
            net.native(family).finds_closed(SSH, &host);
            let words = [
                "send",
                &host,
                &port,
                &private,
                &users.host,
                "::",
                "ssh",
                "0",
            ];
            let output = net.client.enter(|| oracle(&words).output()).unwrap();
            assert!(output.status.success(), "{}", text(&output));
            drop(net.native(family).finds_open(SSH, &host));
        }
        daemon.stop();
    });
}

#[test]
fn behind_a_nat_an_unbound_packet_opens_and_the_inner_address_does_not() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let users = Users::new();
        let daemon = Daemon::start(&net.server, &users.config("", ALICE, DOORS));
        let nat = Nat::new(net);
        let host = Family::V4.server().to_string();
        let outside = Family::V4.client().to_string();

        let words = [&host, "--source", Nat::INNER, "--no-answer"];
        users.opens(&nat.inner, "alice", &words);
        daemon.wait_for_event(&json!({
            "event": "denied", "reason": "spa-elsewhere", "source": outside, "user": "alice",
            "asked_for": Nat::INNER,
        }));
        net.native(Family::V4)
            .finds_closed(SSH, "the inner address");

        users.opens(&nat.inner, "alice", &[&host, "--then-connect", "22"]);
        daemon.wait_for_event(&json!({"event": "opened", "source": outside, "user": "alice"}));
        daemon.stop();
    });
}

/// A bound packet that was intercepted opens for no other source, and the attempt does not use it up.
#[test]
fn a_relayed_packet_opens_only_for_its_own_address() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let users = Users::new();
        let daemon = Daemon::start(&net.server, &users.config("", ALICE, DOORS));
        for family in Family::ALL {
            let [own, other] = [0; 2].map(|_| net.new_source(family));
            let packet = users.packet("alice", &own.name(), "ssh", now());
            send(&net.client, other.from, other.to, &packet);
            daemon.wait_for_event(
                &json!({"event": "denied", "reason": "spa-elsewhere", "source": other.name()}),
            );
            other.finds_closed(SSH, "the relay");
            own.finds_closed(SSH, "whose packet was taken");

            let packet = users.packet("alice", &own.name(), "ssh", now());
            send(&net.client, own.from, own.to, &packet);
            drop(own.finds_open(SSH, "the client's next packet"));
            other.finds_closed(SSH, "the relay");
            send(&net.client, other.from, other.to, &packet);
            daemon.wait_for_event(
                &json!({"event": "denied", "reason": "spa-replayed", "source": other.name()}),
            );
            other.finds_closed(SSH, "with a copy");
        }
        daemon.stop();
    });
}

/// Single packet authorization beside a protocol of a server: none of its datagrams is lost.
#[test]
fn a_service_on_the_port_receives_everything_else() {
    const QUIC: u16 = 443;
    const DATAGRAMS: usize = 25_000;
    let others = other_datagrams();
    net::test(|net| {
        let server = Server::tcp(&net.server, &[SSH, WEB]).and_udp(&net.server, QUIC);
        let spa = "ports = [\"udp/443\"]\notherwise = \"pass\"";
        for is_fwknop_accepted in [false, true] {
            let row = format!("fwknop: {is_fwknop_accepted}");
            let users = Users::new();
            let bob = is_fwknop_accepted.then(|| users.fwknop("bob"));
            let config = users.config(spa, ALICE, &(bob.unwrap_or_default() + DOORS));
            let daemon = Daemon::start(&net.server, &config);
            for family in Family::ALL {
                let (from, to) = (family.client(), family.server());
                let lost = net.client.enter(|| {
                    let socket = UdpSocket::bind((from, 0)).unwrap();
                    socket
                        .set_read_timeout(Some(Duration::from_secs(10)))
                        .unwrap();
                    let all = others.iter().cycle().take(DATAGRAMS);
                    let lost = all.filter(|(_, sent)| {
                        let mut received = [0; 2_048];
                        socket.send_to(sent, (to, QUIC)).unwrap();
                        let length = socket.recv(&mut received);
                        length.is_err() || received[..length.unwrap()] != *sent
                    });
                    lost.map(|(name, _)| *name).collect::<Vec<_>>()
                });
                assert!(lost.is_empty(), "{row}, {family}: {lost:?}");
                let host = to.to_string();
                let words = [&host, "--port", "udp/443", "--then-connect", "22"];
                users.opens(&net.client, "alice", &words);
            }
            daemon.stop();
        }
        assert!(server.met(Family::V4.client(), QUIC));
    });
}

/// Datagrams of protocols that a server may have on the port, and others that are shorter than a packet, as long, and
/// longer.
fn other_datagrams() -> Vec<(&'static str, Vec<u8>)> {
    let mut random = Random::new(443);
    let mut of = |first: &[u8], length: usize| -> Vec<u8> {
        let noise = (first.len()..length).map(|_| random.next() as u8);
        first.iter().copied().chain(noise).collect()
    };
    let mut datagrams = Vec::new();
    for length in [0, 1, 71, 72, 73, 272, 1_200] {
        datagrams.push(("noise", of(&[], length)));
    }
    for _ in 0..10 {
        // RFC 9000, 17.2 and 17.3: a long header has the first bit, a short one has not; both have the second.
        let initial = [&[0xc3, 0, 0, 0, 1, 8][..], &of(&[], 8), &[0, 0, 0x44, 0x9e]].concat();
        datagrams.push(("QUIC, Initial", of(&initial, 1_200)));
        let handshake = [&[0xe1, 0, 0, 0, 1, 8][..], &of(&[], 8), &[4]].concat();
        datagrams.push(("QUIC, Handshake", of(&handshake, 72)));
        let negotiation = [0x80, 0, 0, 0, 0, 8];
        datagrams.push(("QUIC, Version Negotiation", of(&negotiation, 35)));
        for length in [21, 72, 97, 1_252] {
            datagrams.push(("QUIC, short header", of(&[0x4b], length)));
        }
        let name = b"\x07example\x03com\0";
        let query = [
            &of(&[], 2)[..],
            &[1, 0, 0, 1, 0, 0, 0, 0, 0, 0],
            name,
            &[0, 1, 0, 1],
        ]
        .concat();
        datagrams.push(("DNS", query.clone()));
        datagrams.push(("DNS, padded", [query, vec![0; 99]].concat()));
        for (kind, length) in [(1, 148), (2, 92), (3, 64), (4, 32), (4, 96), (4, 1_452)] {
            datagrams.push(("WireGuard", of(&[kind, 0, 0, 0], length)));
        }
        let stun = [0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42];
        datagrams.push(("STUN", of(&stun, 20)));
        datagrams.push(("DTLS", of(&[22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0], 240)));
    }
    datagrams
}

/// Returns this moment: ns since 1970.
pub(crate) fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    now.as_nanos().try_into().unwrap()
}

/// Sends a datagram from an address of a namespace.
#[track_caller]
fn send(namespace: &Namespace, from: IpAddr, to: IpAddr, datagram: &[u8]) {
    let sent = namespace.enter(|| UdpSocket::bind((from, 0))?.send_to(datagram, (to, PORT)));
    assert_eq!(sent.unwrap(), datagram.len(), "{from} to {to}");
}

/// Makes the client's namespace a NAT for a namespace behind it.
struct Nat {
    inner: Namespace,
}

impl Nat {
    const INNER: &str = "10.7.0.2";

    fn new(net: &Net) -> Self {
        let inner = Namespace::new("c");
        net.client.sysctl("ipv4/ip_forward", "1");
        net.client.ip(&format!(
            "link add a7 type veth peer name c0 netns {}",
            inner.name()
        ));
        net.client
            .ip_batch("address add 10.7.0.1/24 dev a7\nlink set a7 up");
        inner.ip_batch(&format!(
            "address add {}/24 dev c0\nlink set lo up\nlink set c0 up\nroute add default via 10.7.0.1",
            Self::INNER
        ));
        let rules = "table ip nat { chain c { type nat hook postrouting priority srcnat;
                     ip saddr 10.7.0.0/24 masquerade; }; }";
        net.client.run("nft", &[rules]);
        Self { inner }
    }
}
