//! Packets in unusual forms: fragments, extension headers, VLAN tags. Each row is sent twice: without knock-user, where
//! those that Linux understands arrive, and with it, where none does.

use std::net::{IpAddr, Ipv4Addr};

use knock_tests::{
    daemon::Daemon,
    net::{self, Family, Net, SERVER_LINK},
    path::Path,
    server::Server,
    source::Source,
    wait,
    wire::{Payload, Piece, Wire, datagram, fragment, padding, syn, tagged, v4, v6, whole},
};
use serde_json::json;

const SSH: u16 = 22;

const DNS: u16 = 5353;

const OPEN: u16 = 80;

const DOOR: &str = r#"
    [[door]]
    name = "ssh"
    knock = ["tcp/7000", "udp/8000", "tcp/9000"]
    open = ["tcp/22", "udp/5353"]
"#;

const KNOCKS: &str = "tcp/7000 udp/8000 tcp/9000";

/// Where the program runs.
const MODES: [&str; 3] = ["native", "skb", "tc"];

const HOP_BY_HOP: u8 = 0;

const ROUTING: u8 = 43;

const DESTINATION: u8 = 60;

#[test]
fn nothing_in_disguise_reaches_a_protected_port() {
    for mode in MODES {
        net::test(|net| {
            let _server = Server::tcp(&net.server, &[SSH, OPEN]).and_udp(&net.server, DNS);
            let wire = Wire::open(&net.client);
            let sources = Family::ALL.map(|family| net.new_source(family));
            for source in &sources {
                for (shape, row) in rows(source, 20_000) {
                    let RowPath { port, number, .. } = shape;
                    let name = format!("{} to port {port}, {}, no program", row.name, source.from);
                    send(&wire, &row);
                    if row.understood {
                        wait::until(&name, || is_answered(&wire, number));
                    }
                }
            }

            let daemon = start(net, mode);
            wire.seen();
            let before = net.server_packets();
            for source in &sources {
                for (shape, row) in rows(source, 30_000) {
                    let RowPath { port, number, .. } = shape;
                    send(&wire, &row);
                    // What arrives is answered while it is being sent, but for the UDP echo.
                    if port == DNS {
                        std::thread::sleep(std::time::Duration::from_millis(5));
                    }
                    assert!(
                        !is_answered(&wire, number),
                        "{mode}: {} to port {port}, {}: it arrives",
                        row.name,
                        source.from
                    );
                }
            }
            let after = net.server_packets();
            assert_eq!(
                before, after,
                "{mode}: segments and datagrams that the server's stack took"
            );
            for reason in [
                "no-grant",
                "tiny-fragment",
                "extensions-too-long",
                "vlan-too-deep",
                "truncated",
            ] {
                let is_reported = daemon
                    .events()
                    .iter()
                    .any(|event| event["reason"] == reason);
                assert!(
                    is_reported,
                    "{mode}: no event has {reason}:\n{}",
                    daemon.process().printed()
                );
            }
            daemon.stop();
        });
    }
}

/// A source with a grant may send fragments; only unreadable packets are dropped.
#[test]
fn fragments_of_a_granted_source_arrive() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH, OPEN]).and_udp(&net.server, DNS);
        let wire = Wire::open(&net.client);
        let daemon = Daemon::start(&net.server, DOOR);
        for family in Family::ALL {
            let source = net.new_source(family);
            source.knock(KNOCKS);
            let path = source.path();
            let payload = datagram(path, 40_000, DNS, b"sixteen octets .");
            let (first, rest) = payload.bytes.split_at(16);
            let frames = match family {
                Family::V4 => [(0, true, first), (2, false, rest)].map(|(offset, more, bytes)| {
                    let piece = Piece {
                        offset,
                        more,
                        bytes,
                    };
                    v4(path, payload.protocol, &[], 1, piece)
                }),
                Family::V6 => [(0, true, first), (2, false, rest)].map(|(offset, more, bytes)| {
                    v6(path, &[fragment(1, offset, more)], payload.protocol, bytes)
                }),
            };
            frames.iter().for_each(|frame| wire.send(frame));
            wait::until("the pieces are echoed", || is_answered(&wire, 40_000));
        }
        daemon.stop();
    });
}

#[test]
fn an_ipv6_packet_cannot_borrow_an_ipv4_grant() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]).and_udp(&net.server, DNS);
        let wire = Wire::open(&net.client);
        let daemon = Daemon::start(&net.server, DOOR);
        let source = net.new_source(Family::V4);
        source.knock(KNOCKS);
        let IpAddr::V4(address) = source.from else {
            panic!("{} is IPv4", source.from);
        };
        let path = Path {
            from: Ipv4Addr::to_ipv6_mapped(&address).into(),
            to: Family::V6.server(),
        };
        let payload = datagram(path, 40_000, DNS, b"borrowed");
        wire.send(&v6(path, &[], payload.protocol, &payload.bytes));
        daemon.wait_for_event(&json!({"event": "dropped", "reason": "bad-header"}));
        assert!(!is_answered(&wire, 40_000));
        daemon.stop();
    });
}

/// At traffic control the outermost tag is off already, so one more is read.
#[test]
fn knocks_in_tagged_frames_count() {
    type Tags = &'static [(u16, u16)];
    let rows: [(&str, Tags, &[&str]); 5] = [
        ("one tag", &[(0x8100, 7)], &MODES),
        ("two tags", &[(0x88a8, 5), (0x8100, 7)], &MODES),
        ("two inner tags", &[(0x8100, 5), (0x8100, 7)], &MODES),
        (
            "three tags",
            &[(0x88a8, 5), (0x88a8, 6), (0x8100, 7)],
            &["tc"],
        ),
        (
            "four tags",
            &[(0x88a8, 4), (0x88a8, 5), (0x88a8, 6), (0x8100, 7)],
            &[],
        ),
    ];
    for mode in MODES {
        net::test(|net| {
            let _server = Server::tcp(&net.server, &[SSH]);
            let wire = Wire::open(&net.client);
            let daemon = start(net, mode);
            for (name, tags, modes) in rows {
                for family in Family::ALL {
                    let source = net.new_source(family);
                    let path = source.path();
                    let knocks = [
                        syn(path, 40_000, 7000),
                        datagram(path, 40_000, 8000, &[0]),
                        syn(path, 40_000, 9000),
                    ];
                    for knock in &knocks {
                        source.finds_closed(SSH, name);
                        wire.send(&tagged(&whole(path, knock), tags));
                    }
                    let is_open = modes.contains(&mode);
                    source.finds(is_open, SSH, &format!("{mode}: {name}, {family}"));
                }
            }
            daemon.stop();
        });
    }
}

#[track_caller]
fn start(net: &Net, mode: &str) -> Daemon {
    let arguments = ["--iface", SERVER_LINK, "--mode", mode];
    Daemon::start_with(&net.server, DOOR, &arguments)
}

/// Frames that are meant to reach a protected port.
struct Row {
    name: &'static str,
    frames: Vec<Vec<u8>>,
    /// Whether Linux understands them, so that they arrive without knock-user.
    understood: bool,
}

fn row(name: &'static str, understood: bool, frames: impl Into<Vec<Vec<u8>>>) -> Row {
    Row {
        name,
        frames: frames.into(),
        understood,
    }
}

/// Where a row's packets go: its number distinguishes its answers and fragments from those of other rows.
#[derive(Clone, Copy)]
struct RowPath {
    path: Path,
    number: u16,
    port: u16,
}

impl RowPath {
    fn payload(self, port: u16) -> Payload {
        match self.port {
            SSH => syn(self.path, self.number, port),
            _ => datagram(self.path, self.number, port, b"sixteen octets ."),
        }
    }

    fn rows(self) -> Vec<Row> {
        match self.path.from {
            IpAddr::V4(_) => self.v4_rows(),
            IpAddr::V6(_) => self.v6_rows(),
        }
    }

    fn v4_rows(self) -> Vec<Row> {
        let Payload { protocol, bytes } = self.payload(self.port);
        let part = |options: &[u8], offset, more, bytes: &[u8]| {
            let piece = Piece {
                offset,
                more,
                bytes,
            };
            v4(self.path, protocol, options, self.number, piece)
        };
        let (first, rest) = bytes.split_at(8);
        let harmless = self.payload(OPEN).bytes;
        let (harmless, _) = harmless.split_at(8);
        let whole = part(&[], 0, false, &bytes);
        let mut to_all = whole.clone();
        to_all[..6].fill(0xff);
        let mut rows = vec![
            row("with options", true, [part(&[1; 8], 0, false, &bytes)]),
            row("with all options", true, [part(&[1; 40], 0, false, &bytes)]),
            row(
                "eight octets first",
                true,
                [part(&[], 0, true, first), part(&[], 1, false, rest)],
            ),
            row(
                "the end first",
                true,
                [part(&[], 1, false, rest), part(&[], 0, true, first)],
            ),
            row(
                "a first piece twice",
                true,
                [
                    part(&[], 0, true, first),
                    part(&[], 0, true, first),
                    part(&[], 1, false, rest),
                ],
            ),
            row(
                "a piece to an open port, then the same one to the protected port",
                false,
                [
                    part(&[], 0, true, harmless),
                    part(&[], 0, true, first),
                    part(&[], 1, false, rest),
                ],
            ),
            row(
                "a piece to an open port, then the whole over it",
                false,
                [part(&[], 0, true, harmless), part(&[], 0, false, &bytes)],
            ),
            row("only a later piece", false, [part(&[], 1, false, rest)]),
            row(
                "cut in the middle of the header",
                false,
                [whole[..14 + 20 + 4].to_vec()],
            ),
            // For TCP, Linux wants a packet of its own.
            row("to a group of hosts", self.port == DNS, [to_all]),
        ];
        rows.extend(tags(&whole));
        rows
    }

    fn v6_rows(self) -> Vec<Row> {
        let Payload { protocol, bytes } = self.payload(self.port);
        let with = |extensions: &[_]| v6(self.path, extensions, protocol, &bytes);
        let part = |before: &[_], offset, more, bytes: &[u8]| {
            let extensions = [before, &[fragment(self.number, offset, more)]].concat();
            v6(self.path, &extensions, protocol, bytes)
        };
        let (first, rest) = bytes.split_at(8);
        let options = |count| vec![padding(DESTINATION); count];
        // A first piece has to hold the whole header (RFC 7112), and a TCP header is longer.
        let is_header = self.port == DNS;
        let whole = with(&[]);
        let mut rows = vec![
            row("destination options", true, [with(&options(1))]),
            row(
                "hop by hop, destination options",
                true,
                [with(&[padding(HOP_BY_HOP), padding(DESTINATION)])],
            ),
            row("routing header", false, [with(&[padding(ROUTING)])]),
            row("six headers", true, [with(&options(6))]),
            row("seven headers", true, [with(&options(7))]),
            row("twenty headers", true, [with(&options(20))]),
            row(
                "a fragment that is whole",
                true,
                [with(&[fragment(self.number, 0, false)])],
            ),
            row(
                "eight octets first",
                is_header,
                [part(&[], 0, true, first), part(&[], 1, false, rest)],
            ),
            row(
                "the end first",
                is_header,
                [part(&[], 1, false, rest), part(&[], 0, true, first)],
            ),
            row(
                "options before the pieces",
                is_header,
                [
                    part(&options(2), 0, true, first),
                    part(&options(2), 1, false, rest),
                ],
            ),
            row(
                "options in the first piece, ports in the next",
                false,
                [
                    v6(
                        self.path,
                        &[fragment(self.number, 0, true)],
                        DESTINATION,
                        &[protocol, 0, 1, 4, 0, 0, 0, 0],
                    ),
                    v6(
                        self.path,
                        &[fragment(self.number, 1, false)],
                        DESTINATION,
                        &bytes,
                    ),
                ],
            ),
            row("only a later piece", false, [part(&[], 1, false, rest)]),
            row(
                "cut in the middle of the header",
                false,
                [whole[..14 + 40 + 4].to_vec()],
            ),
        ];
        rows.extend(tags(&whole));
        rows
    }
}

/// Returns a frame with VLAN tags. Number 0 is not a VLAN: a host takes such a frame like one without a tag.
fn tags(whole: &[u8]) -> [Row; 7] {
    const Q: u16 = 0x8100;
    const AD: u16 = 0x88a8;
    let with = |tags: &[_]| [tagged(whole, tags)];
    [
        row("as it is", true, with(&[])),
        row("priority tag", true, with(&[(Q, 0)])),
        row("outer priority tag", true, with(&[(AD, 0)])),
        row("two priority tags", true, with(&[(AD, 0), (Q, 0)])),
        row(
            "three priority tags",
            true,
            with(&[(AD, 0), (Q, 0), (Q, 0)]),
        ),
        row(
            "four priority tags",
            true,
            with(&[(AD, 0), (Q, 0), (Q, 0), (Q, 0)]),
        ),
        row(
            "a tag of a VLAN that the host is not in",
            false,
            with(&[(Q, 7)]),
        ),
    ]
}

/// Returns all rows of a source, for both protocols.
fn rows(source: &Source<'_>, first_number: u16) -> Vec<(RowPath, Row)> {
    let mut rows = Vec::new();
    let mut number = first_number;
    for port in [SSH, DNS] {
        let shape = |number| RowPath {
            path: source.path(),
            number,
            port,
        };
        for index in 0..shape(0).rows().len() {
            let shape = shape(number);
            rows.extend(shape.rows().into_iter().nth(index).map(|row| (shape, row)));
            number += 1;
        }
    }
    rows
}

/// Returns whether the server has answered: whether a frame to this port of the client has arrived.
fn is_answered(wire: &Wire, port: u16) -> bool {
    let to = port.to_be_bytes();
    wire.seen().iter().any(|frame| {
        let header = match frame.get(12..14) {
            Some([0x08, 0x00]) => 14 + 20,
            Some([0x86, 0xdd]) => 14 + 40,
            _ => return false,
        };
        // Away from the server, and from a protected port: a reset would be an answer too.
        frame.get(..6) == Some(&net::macs().0)
            && frame.get(header + 2..header + 4) == Some(&to)
            && frame
                .get(header..header + 2)
                .is_some_and(|from| from == SSH.to_be_bytes() || from == DNS.to_be_bytes())
    })
}

#[track_caller]
fn send(wire: &Wire, row: &Row) {
    for frame in &row.frames {
        wire.send(frame);
    }
}
