//! Answers at traffic control: each reaches the client, with a correct checksum or with one that the interface
//! completes.
//!
//! A sender on the same machine leaves the checksum to its interface, if that offers to compute it. The packet keeps
//! this state up to the program, and the answer has it too.
#![expect(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

use std::{
    io::Read as _,
    net::{IpAddr, UdpSocket},
    ops::RangeInclusive,
    time::Duration,
};

use knock_tests::{
    daemon::Daemon,
    namespace::Namespace,
    net::{self, CLIENT_LINK, Family, Net, SERVER_LINK},
    path::Path,
    server::Server,
    source::Source,
    tun::{TUN_LINK, TunLink},
    wait,
    wire::{self, Piece, Wire},
};
use serde_json::json;

const SSH: u16 = 22;
const KNOCKS: [u16; 3] = [7000, 9000, 8000];
const REPLIED: u16 = 2222;
const DOORS: &str = r#"
    [[door]]
    name = "proved"
    verify = "handshake"
    knock = ["tcp/7000", "tcp/9000", "tcp/8000"]
    open = ["tcp/22"]
    [[door]]
    name = "udp"
    reply = true
    knock = ["udp/7100", "udp/9100", "udp/8100"]
    open = ["tcp/2222"]
    [[door]]
    name = "tcp"
    reply = true
    knock = ["udp/7200", "udp/9200", "tcp/8200"]
    open = ["tcp/2222"]
"#;
/// Four options without a meaning.
const OPTIONS: [u8; 4] = [1; 4];
const LONG: Duration = Duration::from_secs(10);
const SOURCE_PORT: u16 = 45_678;
const SYN: u8 = 0x02;
const TCP: u8 = 6;
const UDP: u8 = 17;

/// The state of a checksum.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Checksum {
    /// It is that of the whole segment.
    Whole,
    /// It is that of the pseudo header: the interface completes it.
    Pending,
    /// It is neither.
    Wrong,
}

/// The kinds of interfaces, each with and without an Ethernet header.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    Veth,
    Tun,
}

impl Kind {
    const ALL: [Self; 2] = [Self::Veth, Self::Tun];

    const fn links(self) -> [&'static str; 2] {
        match self {
            Self::Veth => [CLIENT_LINK, SERVER_LINK],
            Self::Tun => [TUN_LINK; 2],
        }
    }

    fn source(self, net: &Net, family: Family) -> Source<'_> {
        match self {
            Self::Veth => net.new_source(family),
            Self::Tun => net.new_source(family).to(family.second_server()),
        }
    }
}

#[test]
fn clients_get_answers_whoever_computes_the_checksums() {
    for kind in Kind::ALL {
        test(kind, |net, daemon| {
            for (sender, way_out) in [(true, true), (true, false), (false, true), (false, false)] {
                let [client, server] = kind.links();
                offload(&net.client, client, sender);
                offload(&net.server, server, way_out);
                let expected = match sender && way_out {
                    true => Checksum::Pending,
                    false => Checksum::Whole,
                };
                for family in Family::ALL {
                    let row = format!(
                        "{kind:?}, {family}, the sender's offload {sender}, that of the way out {way_out}"
                    );
                    let source = kind.source(net, family);
                    let wire = Wire::open(&net.client);
                    source.finds_closed(SSH, &row);
                    for port in KNOCKS {
                        connects(&source, port, &row);
                    }
                    drop(source.finds_open(SSH, &row));
                    // SYN and ACK, FIN and ACK, and the reset, for each knock.
                    let found = answers(&wire, &source, 7000..=9000, 9, &row);
                    assert_eq!(found, vec![(TCP, expected); 9], "{row}");

                    let source = kind.source(net, family);
                    assert_eq!(
                        reply_to(&source, "", &[7100, 9100, 8100]).as_deref(),
                        Some("2222"),
                        "{row}"
                    );
                    drop(source.finds_open(REPLIED, &row));
                    let found = answers(&wire, &source, 8100..=8100, 1, &row);
                    assert_eq!(found, [(UDP, expected)], "{row}");
                }
            }
            let names = daemon.events_like(&json!({"event": "opened"}));
            assert_eq!(names.len(), 2 * 4 * 2, "{names:?}");
        });
    }
}

/// A pending checksum is computed over the place where the sender's header began, so answers whose header would be
/// elsewhere, or that have another protocol, are not sent.
#[test]
fn an_answer_is_not_sent_if_its_checksum_would_be_wrong() {
    for kind in Kind::ALL {
        test(kind, |net, daemon| {
            for sender in [true, false] {
                let [client, _] = kind.links();
                offload(&net.client, client, sender);
                let row = format!("{kind:?}, the sender's offload {sender}");
                let wire = Wire::open(&net.client);
                let source = kind.source(net, Family::V4);
                let socket = "socket.socket(socket.AF_INET, socket.SOCK_STREAM)";
                let (code, output) = python(
                    &net.client,
                    &format!(
                        "import socket\ns = {socket}\ns.settimeout({})\n\
                         s.setsockopt(0, 4, bytes({OPTIONS:?}))\ns.bind(('{}', 0))\n\
                         try:\n  s.connect(('{}', 7000))\n  print('connected')\n\
                         except TimeoutError:\n  print('silence')\n",
                        if sender { 0.3 } else { 10.0 },
                        source.from,
                        source.to,
                    ),
                );
                let expected = if sender { "silence" } else { "connected" };
                assert_eq!((code, output.trim()), (Some(0), expected), "{row}, options");
                daemon.catches_up(&kind.source(net, Family::V4), SSH);
                let found = answers(&wire, &source, 7000..=7000, usize::from(!sender), &row);
                let whole = |found: &[(u8, Checksum)]| {
                    found
                        .iter()
                        .all(|(_, checksum)| *checksum == Checksum::Whole)
                };
                assert_eq!(found.is_empty(), sender, "{row}, options: {found:?}");
                assert!(whole(&found), "{row}, options: {found:?}");

                for family in Family::ALL {
                    let row = format!("{row}, {family}, a datagram for a segment");
                    let source = kind.source(net, family);
                    let _none = reply_to(&source, "udp/7200 udp/9200 tcp/8200", &[]);
                    // The door opens all the same.
                    drop(source.finds_open(REPLIED, &row));
                    daemon.catches_up(&kind.source(net, Family::V4), SSH);
                    let found = answers(&wire, &source, 8200..=8200, usize::from(!sender), &row);
                    let expected: &[_] = match sender {
                        true => &[],
                        false => &[(UDP, Checksum::Whole)],
                    };
                    assert_eq!(found, expected, "{row}");
                }
            }
        });
    }
}

/// Frames from a network come with whole checksums, and so do answers to those with options and tags.
#[test]
fn frames_with_options_and_tags_are_answered() {
    test(Kind::Veth, |net, _| {
        let source = net.new_source(Family::V4);
        let path = source.path();
        let payload = wire::segment(path, SOURCE_PORT, 7000, SYN);
        let frame = |options: &[u8]| {
            let piece = Piece {
                offset: 0,
                more: false,
                bytes: &payload.bytes,
            };
            wire::v4(path, payload.protocol, options, 1, piece)
        };
        for (row, frame) in [
            ("plain", frame(&[])),
            ("options", frame(&OPTIONS)),
            ("twenty octets of options", frame(&[1; 20])),
            ("a tag", wire::tagged(&frame(&[]), &[(0x8100, 7)])),
            (
                "two tags and options",
                wire::tagged(&frame(&OPTIONS), &[(0x88a8, 7), (0x8100, 8)]),
            ),
        ] {
            let wire = Wire::open(&net.client);
            wire.send(&frame);
            let found = answers(&wire, &source, 7000..=7000, 1, row);
            assert_eq!(found, [(TCP, Checksum::Whole)], "{row}");
        }
    });
}

/// Runs a test beside a daemon whose doors answer through interfaces of this kind.
#[track_caller]
fn test(kind: Kind, test: impl FnOnce(&Net, &Daemon)) {
    net::test(|net| {
        let tun = (kind == Kind::Tun).then(|| TunLink::of(net));
        let _server = Server::tcp(&net.server, &[SSH, REPLIED]);
        let [_, link] = kind.links();
        let config = format!("interfaces = [\"{link}\"]\nmode = \"tc\"\n{DOORS}");
        let daemon = Daemon::start_with(&net.server, &config, &[]);
        let stderr = daemon.process().stderr();
        assert!(!stderr.contains("answers"), "{stderr}");
        test(net, &daemon);
        daemon.stop();
        drop(tun);
    });
}

fn offload(namespace: &Namespace, link: &str, is_on: bool) {
    let state = if is_on { "on" } else { "off" };
    namespace.run("ethtool", &["-K", link, "tx", state]);
}

#[track_caller]
fn connects(source: &Source<'_>, port: u16, row: &str) {
    let mut stream = match source.connect(port, LONG) {
        Ok(stream) => stream,
        Err(error) => panic!("{row}: no connection to tcp/{port}: {error}"),
    };
    stream.set_read_timeout(Some(LONG)).unwrap();
    assert_eq!(stream.read(&mut [0]).unwrap(), 0, "{row}: tcp/{port}");
}

/// Sends knocks in the words of the client, then datagrams from one socket to these ports, and returns the reply to
/// those.
fn reply_to(source: &Source<'_>, knocks: &str, ports: &[u16]) -> Option<String> {
    source.knock(knocks);
    let reply = source.namespace.enter(|| {
        let socket = UdpSocket::bind((source.from, 0))?;
        for &port in ports {
            socket.send_to(&[0; 8], (source.to, port))?;
        }
        socket.set_read_timeout(Some(LONG))?;
        let mut buffer = [0; 64];
        if ports.is_empty() {
            return Err(std::io::ErrorKind::TimedOut.into());
        }
        let length = socket.recv(&mut buffer)?;
        Ok::<_, std::io::Error>(String::from_utf8_lossy(&buffer[..length]).into_owned())
    });
    reply.ok()
}

fn python(namespace: &Namespace, script: &str) -> (Option<i32>, String) {
    let output = namespace.try_run("python3", &["-c", script]);
    (
        output.status.code(),
        String::from_utf8_lossy(&output.stdout).into_owned(),
    )
}

/// Waits until the client's interfaces have received this many packets to a source from these ports of the server, and
/// returns the protocol of each and the state of its checksum.
#[track_caller]
fn answers(
    wire: &Wire,
    source: &Source<'_>,
    ports: RangeInclusive<u16>,
    least: usize,
    row: &str,
) -> Vec<(u8, Checksum)> {
    let back = source.path().back();
    let mut found = Vec::new();
    wait::until(&format!("{row}: {least} answers are here"), || {
        let seen = wire.seen();
        let packets = seen.iter().filter_map(|frame| packet(frame, back));
        found.extend(packets.filter_map(|(protocol, segment)| {
            let port = u16::from_be_bytes(*segment.first_chunk()?);
            let state = checksum(back, protocol, segment)?;
            ports.contains(&port).then_some((protocol, state))
        }));
        found.len() >= least
    });
    found
}

/// Returns the protocol and the segment of a frame or bare packet without options from one address to another.
fn packet(frame: &[u8], path: Path) -> Option<(u8, &[u8])> {
    let from = |ip: &[u8]| match path.from {
        IpAddr::V4(address) => ip.get(12..16) == Some(&address.octets()[..]),
        IpAddr::V6(address) => ip.get(8..24) == Some(&address.octets()[..]),
    };
    let to = |ip: &[u8]| match path.to {
        IpAddr::V4(address) => ip.get(16..20) == Some(&address.octets()[..]),
        IpAddr::V6(address) => ip.get(24..40) == Some(&address.octets()[..]),
    };
    let starts = [0, 14, 18];
    let ip = starts
        .iter()
        .filter_map(|start| frame.get(*start..))
        .find(|ip| from(ip) && to(ip))?;
    let word = |at: usize| {
        Some(usize::from(u16::from_be_bytes(
            *ip.get(at..)?.first_chunk()?,
        )))
    };
    match path.from {
        IpAddr::V4(_) => Some((*ip.get(9)?, ip.get(20..word(2)?)?)),
        IpAddr::V6(_) => Some((*ip.get(6)?, ip.get(40..40 + word(4)?)?)),
    }
}

/// Returns the state of the checksum of a segment.
fn checksum(path: Path, protocol: u8, segment: &[u8]) -> Option<Checksum> {
    let at = if protocol == TCP { 16 } else { 6 };
    let field = u16::from_be_bytes(*segment.get(at..)?.first_chunk()?);
    let octets = |address| match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let length = (segment.len() as u16).to_be_bytes();
    let pseudo = [
        octets(path.from),
        octets(path.to),
        vec![0, protocol],
        length.to_vec(),
    ]
    .concat();
    Some(if wire::checksum(&[&pseudo, segment]) == 0 {
        Checksum::Whole
    } else if field == !wire::checksum(&[&pseudo]) {
        Checksum::Pending
    } else {
        Checksum::Wrong
    })
}
