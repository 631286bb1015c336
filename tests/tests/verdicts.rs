//! What the program in the kernel decides: tables of packets, one source for each row.
//!
//! ```text
//! Row ── name ── Step, Step, …
//!                 │
//!                 ├ a packet, its reason, what is told about it
//!                 ├ time: passed, or made to have passed in the maps
//!                 └ what the maps hold now
//! ```
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test stops at what it did not expect"
)]

use std::{net::IpAddr, thread, time::Duration};

use knock_common::{
    Address, Reason, Tally, Verdict,
    access::{Flow, Grant},
    event::{Event, NO_DOOR},
    layout::{ALLOW_MAX, Active, FlowKey, GrantKey},
    lockout::Failures,
    packet::Protocol,
    reason::Telling,
};
use knock_tests::{
    frame::{ACK, FIN, Frame, PSH, RST, SYN, SYN_ACK, URG, eth},
    kernel::{FRAME_LEAST, Kernel, compile, now},
    shapes,
};
use knock_user::{compile::Tables, firewall::Options};

use Reason::{
    BadHeader, Closed, Decoy, Duplicate, FirstKnock, Granted, GrantsFull, LockedOut, NextKnock,
    NoGrant, NotBegun, Opened, Ordinary, OtherFlags, Refreshed, Restarted, Scanned, TooLate,
    Trusted, WrongKnock,
};

/// A packet of the row's source, or of its neighbour.
#[derive(Clone, Copy)]
struct Packet {
    protocol: Protocol,
    port: u16,
    flags: u8,
    source_port: u16,
    is_neighbours: bool,
    is_elsewhere: bool,
    is_for_group: bool,
}

fn tcp(port: u16, flags: u8) -> Packet {
    Packet {
        protocol: Protocol::Tcp,
        port,
        flags,
        source_port: 40_000,
        is_neighbours: false,
        is_elsewhere: false,
        is_for_group: false,
    }
}

fn syn(port: u16) -> Packet {
    tcp(port, SYN)
}

fn ack(port: u16) -> Packet {
    tcp(port, ACK)
}

fn udp(port: u16) -> Packet {
    Packet {
        protocol: Protocol::Udp,
        ..tcp(port, 0)
    }
}

impl Packet {
    /// From this port of the source.
    fn over_port(self, source_port: u16) -> Self {
        Self {
            source_port,
            ..self
        }
    }

    /// From another source.
    fn neighbour(self) -> Self {
        Self {
            is_neighbours: true,
            ..self
        }
    }

    /// To another address of this host.
    fn elsewhere(self) -> Self {
        Self {
            is_elsewhere: true,
            ..self
        }
    }

    /// To a group of hosts.
    fn group(self) -> Self {
        Self {
            is_for_group: true,
            ..self
        }
    }

    /// What it is to be. If that is ever told, it is told once and without a door.
    fn is(self, reason: Reason) -> Step {
        let told = match reason.telling() {
            Telling::Never => vec![],
            Telling::Drops | Telling::Knocks | Telling::Always => vec![("", 0)],
        };
        Step::Packet(self, reason, told)
    }
}

/// A door, and how many of its knocks have been made.
type Place = (&'static str, u8);

/// One step of a row.
#[derive(Clone)]
enum Step {
    /// A packet, its reason, and the places that are told with it.
    Packet(Packet, Reason, Vec<Place>),
    /// Milliseconds pass.
    Wait(u64),
    /// Grants, flows and lockouts become so many seconds older.
    Later(u64),
    /// The seconds that the source's only grant has left, and the door that gave it.
    Grant(u64, &'static str),
    /// How many flows there are from the source.
    Flows(usize),
}

use Step::{Flows, Later, Wait};

impl Step {
    /// Where the source's attempt is, or what it opened.
    fn told(self, door: &'static str, stage: u8) -> Self {
        let Self::Packet(packet, reason, _) = self else {
            panic!("only packets are told: {}", self.name());
        };
        Self::Packet(packet, reason, vec![(door, stage)])
    }

    /// Another door that the same knock completes.
    fn and_told(mut self, door: &'static str, stage: u8) -> Self {
        if let Self::Packet(_, _, told) = &mut self {
            told.push((door, stage));
        }
        self
    }

    fn name(&self) -> String {
        match self {
            Self::Packet(packet, ..) => format!(
                "{}/{} flags {:#04x}",
                packet.protocol.name(),
                packet.port,
                packet.flags
            ),
            Wait(millis) => format!("{millis} ms pass"),
            Later(seconds) => format!("{seconds} s later"),
            Self::Grant(..) => "the grant".to_owned(),
            Flows(_) => "the flows".to_owned(),
        }
    }
}

/// What one source does.
struct Row {
    name: &'static str,
    steps: Vec<Step>,
}

fn row<const N: usize>(name: &'static str, steps: [Step; N]) -> Row {
    Row {
        name,
        steps: steps.to_vec(),
    }
}

/// The address family of a table's packets.
#[derive(Clone, Copy, Debug)]
enum Family {
    V4,
    V6,
}

const BOTH: &[Family] = &[Family::V4, Family::V6];

impl Family {
    fn source(self, number: usize) -> String {
        match self {
            Self::V4 => format!("198.18.{}.{}", number >> 8, number & 255),
            Self::V6 => format!("2001:db8:18::{number:x}"),
        }
    }

    fn frame(self, source: &str, packet: Packet) -> Frame {
        let frame = match packet.is_for_group {
            true => eth().group(),
            false => eth(),
        };
        let frame = match (self, packet.is_elsewhere) {
            (Self::V4, false) => frame.ip4(source, "192.0.2.2"),
            (Self::V4, true) => frame.ip4(source, "192.0.2.3"),
            (Self::V6, false) => frame.ip6(source, "2001:db8::2"),
            (Self::V6, true) => frame.ip6(source, "2001:db8::3"),
        };
        match packet.protocol {
            Protocol::Tcp => frame.tcp(packet.source_port, packet.port, packet.flags),
            Protocol::Udp => frame.udp(packet.source_port, packet.port),
        }
    }
}

/// A loaded configuration and the row that is being run.
struct Table {
    kernel: Kernel,
    tables: Tables,
    dry_run: bool,
    family: Family,
    number: usize,
}

impl Table {
    fn new(text: &str, options: Options) -> Self {
        let tables = compile(text).unwrap();
        Self {
            kernel: Kernel::with(&tables, options).unwrap(),
            tables,
            dry_run: options.flags & Active::DRY_RUN != 0,
            family: Family::V4,
            number: 0,
        }
    }

    fn run(&mut self, families: &[Family], rows: &[Row]) {
        for &family in families {
            self.family = family;
            for row in rows {
                self.number += 1;
                for (number, step) in (1..).zip(&row.steps) {
                    let name = step.name();
                    self.step(
                        step,
                        &format!("{}, {family:?}, step {number}: {name}", row.name),
                    );
                }
            }
        }
    }

    fn source(&self, is_neighbours: bool) -> String {
        let other = if is_neighbours { 0x4000 } else { 0 };
        self.family.source(self.number + other)
    }

    fn address(&self) -> Address {
        self.source(false).parse::<IpAddr>().unwrap().into()
    }

    fn step(&mut self, step: &Step, name: &str) {
        match step {
            Step::Packet(packet, reason, told) => self.packet(*packet, *reason, told, name),
            Wait(millis) => thread::sleep(Duration::from_millis(*millis)),
            Later(seconds) => self.later(*seconds),
            Step::Grant(seconds, door) => self.grant(*seconds, door, name),
            Flows(count) => {
                let address = self.address();
                let flows = self.kernel.flows().unwrap();
                let own = flows.iter().filter(|(key, _)| key.source == address);
                assert_eq!(own.count(), *count, "{name}");
            }
        }
    }

    fn packet(&mut self, packet: Packet, reason: Reason, told: &[Place], name: &str) {
        let source = self.source(packet.is_neighbours);
        let frame = self.family.frame(&source, packet).bytes();
        self.kernel.open_gates().unwrap();
        let judged = self.kernel.judge(&frame).unwrap();
        let places: Vec<(String, u8)> = judged
            .events
            .iter()
            .map(|event| (self.door(event), event.stage))
            .collect();
        let wanted: Vec<(String, u8)> = told
            .iter()
            .map(|&(door, stage)| (door.to_owned(), stage))
            .collect();
        assert_eq!((judged.reason, places), (reason, wanted), "{name}");
        let verdict = match self.dry_run {
            true => Verdict::Pass,
            false => reason.verdict(),
        };
        assert_eq!(judged.verdict, verdict, "{name}");
        assert_eq!(judged.tallies, [], "{name}");
        for event in judged.events {
            let ip: IpAddr = event.source.into();
            assert_eq!(ip.to_string(), source, "{name}");
            assert_eq!(event.source_port, packet.source_port, "{name}");
            assert_eq!(event.port, packet.port, "{name}");
            assert_eq!(event.protocol, packet.protocol as u8, "{name}");
            assert_eq!(event.reason(), Some(reason), "{name}");
        }
    }

    fn door(&self, event: &Event) -> String {
        match event.door {
            NO_DOOR => String::new(),
            door => self.tables.names[usize::from(door)].clone(),
        }
    }

    fn later(&mut self, seconds: u64) {
        let millis = seconds * 1000;
        let kernel = &mut self.kernel;
        let grant = |_: &GrantKey, word| {
            let grant = Grant::from_word(word);
            let until_ms = grant.until_ms.saturating_sub(millis);
            Grant { until_ms, ..grant }.to_word()
        };
        kernel.change("ALLOW", grant).unwrap();
        let flow = |_: &FlowKey, word| {
            let flow = Flow::from_word(word);
            let seen_ms = flow.seen_ms.saturating_sub(millis);
            Flow { seen_ms, ..flow }.to_word()
        };
        kernel.change("FLOWS", flow).unwrap();
        let failures = |_: &Address, word| {
            let failures = Failures::from_word(word);
            let last_ms = failures.last_ms.saturating_sub(millis);
            Failures {
                last_ms,
                ..failures
            }
            .to_word()
        };
        kernel.change("LOCKOUTS", failures).unwrap();
    }

    fn grant(&mut self, seconds: u64, door: &str, name: &str) {
        let address = self.address();
        let allow = self.kernel.allow().unwrap();
        let own: Vec<Grant> = allow
            .iter()
            .filter(|(key, _)| key.source == address)
            .map(|(_, word)| Grant::from_word(*word))
            .collect();
        let &[grant] = &own[..] else {
            panic!("{name}: not one, but {own:?}");
        };
        assert_eq!(self.tables.names[usize::from(grant.door)], door, "{name}");
        let left = grant.until_ms.saturating_sub(now().unwrap().millis());
        // A slow machine may have taken some time since.
        let expected = (seconds * 1000).saturating_sub(5000)..=seconds * 1000;
        assert!(expected.contains(&left), "{name}: {left} ms left");
    }
}

/// Runs rows under a configuration, with sources of both families.
fn check(text: &str, rows: &[Row]) {
    Table::new(text, Options::default()).run(BOTH, rows);
}

#[test]
fn shapes_of_frames() {
    let mut kernel = Kernel::load(r#"protect = ["tcp/22", "udp/22"]"#).unwrap();
    for shape in shapes::all() {
        let frame = shape.frame.bytes();
        if frame.len() < FRAME_LEAST {
            kernel.judge(&frame).unwrap_err();
            continue;
        }
        kernel.open_gates().unwrap();
        let judged = kernel.judge(&frame).unwrap();
        let (reason, source) = match shape.read {
            Ok(_) => (NoGrant, 40_000),
            Err(reason) => (reason, 0),
        };
        assert_eq!(judged.reason, reason, "{}: {frame:02x?}", shape.name);
        assert_eq!(judged.verdict, reason.verdict(), "{}", shape.name);
        let told: Vec<_> = judged
            .events
            .iter()
            .map(|event| (event.reason(), event.source_port))
            .collect();
        match reason.verdict() {
            Verdict::Drop => assert_eq!(told, [(Some(reason), source)], "{}", shape.name),
            Verdict::Pass => assert_eq!(told, [], "{}", shape.name),
        }
    }
}

const PORTS: &str = r#"
    protect = ["tcp/3306", "udp/161", "udp/60000-60100"]
    exempt = ["tcp/80", "udp/443"]
    decoys = { ports = ["tcp/2222", "udp/2223"] }
    [[door]]
    name = "ssh"
    knock = ["tcp/7000", "udp/8000", "tcp/9000"]
    open = ["tcp/22"]
"#;

#[test]
fn kinds_of_ports() {
    check(
        PORTS,
        &[
            row(
                "protected",
                [
                    syn(22).is(NoGrant),
                    ack(22).is(NoGrant),
                    tcp(22, SYN_ACK).is(NoGrant),
                    tcp(22, RST).is(NoGrant),
                    tcp(22, 0).is(NoGrant),
                    syn(3306).is(NoGrant),
                    udp(161).is(NoGrant),
                    udp(60_000).is(NoGrant),
                    udp(60_100).is(NoGrant),
                    syn(22).group().is(NoGrant),
                ],
            ),
            row(
                "the other protocol's port",
                [
                    udp(22).is(Ordinary),
                    udp(3306).is(Ordinary),
                    syn(161).is(Ordinary),
                    udp(7000).is(Ordinary),
                    udp(2222).is(Ordinary),
                ],
            ),
            row(
                "ordinary",
                [
                    syn(1).is(Ordinary),
                    ack(65_535).is(Ordinary),
                    udp(0).is(Ordinary),
                    udp(60_101).is(Ordinary),
                ],
            ),
            row("exempt", [syn(80).is(Ordinary), udp(443).is(Ordinary)]),
            row(
                "decoy",
                [
                    syn(2222).is(Decoy),
                    udp(2223).is(Decoy),
                    ack(2222).is(OtherFlags),
                    udp(2223).group().is(Ordinary),
                ],
            ),
            row(
                "knock with other flags",
                [
                    ack(7000).is(OtherFlags),
                    tcp(7000, SYN_ACK).is(OtherFlags),
                    tcp(7000, RST).is(OtherFlags),
                    tcp(7000, 0).is(OtherFlags),
                    tcp(7000, SYN | PSH | URG).is(FirstKnock).told("ssh", 1),
                ],
            ),
        ],
    );
}

#[test]
fn trusted_sources() {
    let text = r#"
        protect = ["tcp/22"]
        trust = ["10.0.0.0/8", "203.0.113.7", "198.18.0.0/15", "fd00::/8", "2001:db8::1"]
    "#;
    let mut kernel = Kernel::load(text).unwrap();
    for (source, reason) in [
        ("10.0.0.0", Trusted),
        ("10.255.255.255", Trusted),
        ("9.255.255.255", NoGrant),
        ("11.0.0.0", NoGrant),
        ("203.0.113.7", Trusted),
        ("203.0.113.6", NoGrant),
        ("198.19.255.255", Trusted),
        ("198.20.0.0", NoGrant),
        ("fd00::1", Trusted),
        ("fdff:ffff::1", Trusted),
        ("fe00::1", NoGrant),
        ("2001:db8::1", Trusted),
        ("2001:db8::2", NoGrant),
        // The words of 10.0.0.1, but an address of its own.
        ("::a00:1", NoGrant),
    ] {
        let frame = match source.contains(':') {
            true => eth().ip6(source, "2001:db8::2"),
            false => eth().ip4(source, "192.0.2.2"),
        };
        for flags in [SYN, ACK] {
            let judged = kernel
                .judge(&frame.clone().tcp(1, 22, flags).bytes())
                .unwrap();
            assert_eq!(judged.reason, reason, "{source}");
        }
    }
}

#[test]
fn nobody_is_trusted_by_default() {
    check(
        r#"protect = ["tcp/22"]"#,
        &[row("a stranger", [syn(22).is(NoGrant)])],
    );
}

/// On the wire such an address could be taken for the IPv4 source that it names.
#[test]
fn mapped_addresses() {
    let mut kernel = Kernel::load(PORTS).unwrap();
    let mapped = "::ffff:198.51.100.1";
    for (name, port, flags, reason) in [
        ("protected", 22, SYN, BadHeader),
        ("knock", 7000, SYN, BadHeader),
        ("decoy", 2222, SYN, BadHeader),
        ("new connection elsewhere", 1234, SYN, BadHeader),
        ("exempt", 80, SYN, Ordinary),
        ("not for knocking", 1234, ACK, Ordinary),
    ] {
        let frame = eth().ip6(mapped, "2001:db8::2").tcp(1, port, flags);
        let judged = kernel.judge(&frame.bytes()).unwrap();
        assert_eq!(judged.reason, reason, "{name}");
    }
    assert_eq!(kernel.progress().unwrap(), []);
}

const DOORS: &str = r#"
    protect = ["tcp/3306"]
    exempt = ["tcp/80", "udp/443"]
    decoys = { ports = ["tcp/2222", "udp/2223"] }
    door = [
        { name = "ssh", knock = ["tcp/7000", "udp/8000", "tcp/9000"], open = ["tcp/22"] },
        { name = "vpn", knock = ["tcp/7000", "udp/8000", "tcp/9500"], open = ["udp/1194"] },
        { name = "twice", knock = ["tcp/7100", "tcp/7100", "udp/8100"], open = ["tcp/23"] },
        { name = "one", knock = ["udp/6000"], open = ["tcp/24"] },
        { name = "short", knock = ["tcp/5000", "tcp/4000"], open = ["tcp/25"] },
        { name = "longer", knock = ["tcp/5000", "tcp/4000", "tcp/3000"], open = ["tcp/26"] },
        { name = "whole", knock = ["tcp/2300", "udp/2200", "tcp/2100"], open = ["tcp/27"] },
        { name = "end", knock = ["udp/2200", "tcp/2100"], open = ["tcp/28"] },
    ]
"#;

fn opens_ssh() -> [Step; 3] {
    [
        syn(7000).is(FirstKnock).told("ssh", 1),
        udp(8000).is(NextKnock).told("ssh", 2),
        syn(9000).is(Opened).told("ssh", 3),
    ]
}

#[test]
fn sequences() {
    let [a, b, c] = opens_ssh();
    check(
        DOORS,
        &[
            row(
                "the right order",
                [
                    syn(22).is(NoGrant),
                    a.clone(),
                    syn(22).is(NoGrant),
                    b.clone(),
                    syn(22).is(NoGrant),
                    c.clone(),
                    Step::Grant(30, "ssh"),
                    syn(22).is(Granted),
                    ack(22).is(Granted),
                    syn(23).is(NoGrant),
                    syn(3306).is(NoGrant),
                ],
            ),
            row(
                "backwards",
                [
                    syn(9000).is(NotBegun),
                    udp(8000).is(NotBegun),
                    a.clone(),
                    syn(22).is(NoGrant),
                ],
            ),
            row(
                "a wrong one between",
                [
                    a.clone(),
                    syn(9000).is(WrongKnock).told("ssh", 1),
                    udp(8000).is(NotBegun),
                    syn(9000).is(NotBegun),
                    syn(22).is(NoGrant),
                ],
            ),
            row(
                "a wrong last one",
                [
                    a.clone(),
                    b.clone(),
                    syn(3000).is(WrongKnock).told("ssh", 2),
                    syn(9000).is(NotBegun),
                ],
            ),
            row(
                "one left out",
                [
                    a.clone(),
                    syn(9000).is(WrongKnock).told("ssh", 1),
                    syn(22).is(NoGrant),
                ],
            ),
            row(
                "each doubled",
                [
                    a.clone(),
                    syn(7000).is(Duplicate),
                    b.clone(),
                    udp(8000).is(Duplicate),
                    udp(8000).over_port(50_000).is(Duplicate),
                    c.clone(),
                    syn(9000).is(Duplicate),
                    syn(22).is(Granted),
                ],
            ),
            row(
                "a wrong one that begins another sequence",
                [
                    a.clone(),
                    b.clone(),
                    syn(5000).is(Restarted).told("short", 1),
                    syn(4000).is(Opened).told("short", 2),
                ],
            ),
            row(
                "from the beginning again",
                [
                    a.clone(),
                    b.clone(),
                    syn(7000).is(Restarted).told("ssh", 1),
                    b.clone(),
                    c.clone(),
                ],
            ),
            row(
                "a shared beginning",
                [
                    a.clone(),
                    b.clone(),
                    syn(9500).is(Opened).told("vpn", 3),
                    udp(1194).is(Granted),
                    syn(22).is(NoGrant),
                ],
            ),
            row(
                "a port twice in the sequence",
                [
                    syn(7100).is(FirstKnock).told("twice", 1),
                    syn(7100).is(NextKnock).told("twice", 2),
                    syn(7100).is(Duplicate),
                    udp(8100).is(Opened).told("twice", 3),
                ],
            ),
            row(
                "a single knock, again and again",
                [
                    udp(6000).is(Opened).told("one", 1),
                    udp(6000).is(Refreshed).told("one", 1),
                    udp(6000).is(Refreshed).told("one", 1),
                    syn(24).is(Granted),
                ],
            ),
            row(
                "a door whose sequence begins another's",
                [
                    syn(5000).is(FirstKnock).told("short", 1),
                    syn(4000).is(Opened).told("short", 2),
                    syn(26).is(NoGrant),
                    syn(3000).is(Opened).told("longer", 3),
                    syn(25).is(Granted),
                    syn(26).is(Granted),
                ],
            ),
            row(
                "a door whose sequence ends another's",
                [
                    syn(2300).is(FirstKnock).told("whole", 1),
                    udp(2200).is(NextKnock).told("whole", 2),
                    syn(2100).is(Opened).told("whole", 3).and_told("end", 3),
                    syn(27).is(Granted),
                    syn(28).is(Granted),
                ],
            ),
            row(
                "only that end",
                [
                    udp(2200).is(FirstKnock).told("end", 1),
                    syn(2100).is(Opened).told("end", 2),
                    syn(27).is(NoGrant),
                    syn(28).is(Granted),
                ],
            ),
            row(
                "another sequence after one",
                [
                    a.clone(),
                    b.clone(),
                    c.clone(),
                    syn(5000).is(FirstKnock).told("short", 1),
                    syn(4000).is(Opened).told("short", 2),
                ],
            ),
            row(
                "the same sequence after itself",
                [
                    a.clone(),
                    b.clone(),
                    c.clone(),
                    a.clone(),
                    b.clone(),
                    syn(9000).is(Refreshed).told("ssh", 3),
                ],
            ),
            row(
                "each from another port and to another address",
                [
                    syn(7000).over_port(1).is(FirstKnock).told("ssh", 1),
                    udp(8000)
                        .over_port(2)
                        .elsewhere()
                        .is(NextKnock)
                        .told("ssh", 2),
                    c.clone(),
                    syn(22).elsewhere().is(Granted),
                ],
            ),
            row(
                "two sources between each other",
                [
                    a.clone(),
                    udp(8000).neighbour().is(NotBegun),
                    b.clone(),
                    syn(9000).neighbour().is(NotBegun),
                    syn(7000).neighbour().is(FirstKnock).told("ssh", 1),
                    c.clone(),
                    syn(22).neighbour().is(NoGrant),
                    syn(22).is(Granted),
                    udp(8000).neighbour().is(NextKnock).told("ssh", 2),
                ],
            ),
        ],
    );
}

#[test]
fn strict() {
    let [a, b, c] = opens_ssh();
    let rest = [b.clone(), c.clone()];
    let undisturbed = |name, step: Step| {
        let [b, c] = rest.clone();
        row(name, [a.clone(), step.clone(), b, step, c])
    };
    check(
        DOORS,
        &[
            row(
                "a SYN to another port",
                [
                    a.clone(),
                    syn(1234).is(Scanned).told("ssh", 1),
                    syn(1234).is(Ordinary),
                    udp(8000).is(NotBegun),
                ],
            ),
            row(
                "a datagram to another port",
                [
                    a.clone(),
                    b.clone(),
                    udp(1234).is(Scanned).told("ssh", 2),
                    syn(9000).is(NotBegun),
                ],
            ),
            row(
                "a knock's port with the other protocol",
                [a.clone(), syn(8000).is(Scanned).told("ssh", 1)],
            ),
            row(
                "a decoy",
                [
                    a.clone(),
                    syn(2222).is(Decoy).told("ssh", 1),
                    udp(8000).is(NotBegun),
                ],
            ),
            row(
                "a UDP decoy",
                [
                    a.clone(),
                    b.clone(),
                    udp(2223).is(Decoy).told("ssh", 2),
                    syn(9000).is(NotBegun),
                ],
            ),
            row(
                "after the door is open",
                [
                    a.clone(),
                    b.clone(),
                    c.clone(),
                    syn(1234).is(Ordinary),
                    syn(22).is(Granted),
                ],
            ),
            undisturbed("ACK to another port", ack(1234).is(Ordinary)),
            undisturbed("SYN, ACK to another port", tcp(1234, SYN_ACK).is(Ordinary)),
            undisturbed("RST to another port", tcp(1234, RST).is(Ordinary)),
            undisturbed("FIN to another port", tcp(1234, FIN).is(Ordinary)),
            undisturbed("SYN to an exempt port", syn(80).is(Ordinary)),
            undisturbed("datagram to an exempt port", udp(443).is(Ordinary)),
            undisturbed("SYN to a protected port", syn(3306).is(NoGrant)),
            undisturbed("SYN to the door's port", syn(22).is(NoGrant)),
            undisturbed("datagram to a group", udp(1234).group().is(Ordinary)),
            undisturbed("SYN to a group", syn(1234).group().is(Ordinary)),
            undisturbed("knock to a group", syn(5000).group().is(Ordinary)),
            undisturbed("decoy to a group", syn(2222).group().is(Ordinary)),
            undisturbed("knock with other flags", ack(5000).is(OtherFlags)),
            undisturbed("decoy with other flags", ack(2222).is(OtherFlags)),
            undisturbed("another source", syn(1234).neighbour().is(Ordinary)),
        ],
    );
}

#[test]
fn not_strict() {
    let text = r#"
        strict = false
        [[door]]
        name = "ssh"
        knock = ["tcp/7000", "udp/9000", "tcp/6000"]
        open = ["tcp/22"]
    "#;
    check(
        text,
        &[row(
            "other ports between the knocks",
            [
                syn(7000).is(FirstKnock).told("ssh", 1),
                syn(1234).is(Ordinary),
                udp(9000).is(NextKnock).told("ssh", 2),
                udp(1234).is(Ordinary),
                syn(6000).is(Opened).told("ssh", 3),
            ],
        )],
    );
}

#[test]
fn time_limits() {
    let text = r#"
        door = [
            { name = "total", knock = ["udp/8000", "tcp/7000", "udp/6000"], open = ["tcp/22"], within = "500ms" },
            { name = "step", knock = ["udp/8001", "tcp/7001", "udp/6001"], open = ["tcp/23"], step_timeout = "300ms" },
            { name = "quick", knock = ["udp/8002", "tcp/7002"], open = ["tcp/24"], within = "300ms" },
            { name = "slow", knock = ["udp/8002", "tcp/7002", "udp/6002"], open = ["tcp/25"], within = "10s" },
        ]
    "#;
    // One family is enough for what takes real time.
    Table::new(text, Options::default()).run(
        &[Family::V4],
        &[
            row(
                "in time",
                [
                    udp(8000).is(FirstKnock).told("total", 1),
                    syn(7000).is(NextKnock).told("total", 2),
                    udp(6000).is(Opened).told("total", 3),
                ],
            ),
            row(
                "second knock too late",
                [
                    udp(8000).is(FirstKnock).told("total", 1),
                    Wait(550),
                    syn(7000).is(TooLate).told("total", 1),
                    syn(7000).is(NotBegun),
                ],
            ),
            row(
                "the time runs from the first knock on",
                [
                    udp(8000).is(FirstKnock).told("total", 1),
                    Wait(300),
                    syn(7000).is(NextKnock).told("total", 2),
                    Wait(300),
                    udp(6000).is(TooLate).told("total", 2),
                    udp(6000).is(NotBegun),
                ],
            ),
            row(
                "a first knock after its time begins anew",
                [
                    udp(8000).is(FirstKnock).told("total", 1),
                    Wait(550),
                    udp(8000).is(FirstKnock).told("total", 1),
                    syn(7000).is(NextKnock).told("total", 2),
                    Wait(550),
                    udp(8000).is(FirstKnock).told("total", 1),
                ],
            ),
            row(
                "each step in time",
                [
                    udp(8001).is(FirstKnock).told("step", 1),
                    Wait(200),
                    syn(7001).is(NextKnock).told("step", 2),
                    Wait(200),
                    udp(6001).is(Opened).told("step", 3),
                ],
            ),
            row(
                "a duplicate does not give more time",
                [
                    udp(8001).is(FirstKnock).told("step", 1),
                    Wait(200),
                    udp(8001).is(Duplicate),
                    Wait(200),
                    syn(7001).is(TooLate).told("step", 1),
                ],
            ),
            row(
                "last step too late",
                [
                    udp(8001).is(FirstKnock).told("step", 1),
                    syn(7001).is(NextKnock).told("step", 2),
                    Wait(350),
                    udp(6001).is(TooLate).told("step", 2),
                    syn(23).is(NoGrant),
                ],
            ),
            row(
                "too late for the one door, not for the other",
                [
                    udp(8002).is(FirstKnock).told("quick", 1),
                    Wait(350),
                    syn(7002).is(TooLate).told("quick", 2),
                    syn(24).is(NoGrant),
                    udp(6002).is(Opened).told("slow", 3),
                    syn(25).is(Granted),
                ],
            ),
            row(
                "a scan after its time ends nothing",
                [
                    udp(8000).is(FirstKnock).told("total", 1),
                    Wait(550),
                    syn(1234).is(Ordinary),
                    syn(7000).is(NotBegun),
                ],
            ),
        ],
    );
}

const GRANTS: &str = r#"
    established = { idle = "10m" }
    door = [
        { name = "ssh", knock = ["tcp/7000", "udp/8000"], open = ["tcp/22", "udp/1194"], open_for = "1m" },
        { name = "long", knock = ["tcp/7001", "udp/8000"], open = ["tcp/22", "udp/1194"], open_for = "1h" },
        { name = "bye", knock = ["tcp/7002", "udp/8000"], close = ["tcp/22", "udp/1194"] },
        { name = "both", knock = ["tcp/7003", "udp/8000"], open = ["tcp/22", "udp/1194", "tcp/23"], open_for = "1m" },
        { name = "command", knock = ["tcp/7004", "udp/8000"], on_open = ["true"], open_for = "1m" },
    ]
"#;

/// The knocks of a door of [`GRANTS`].
fn knock(door: &'static str, reason: Reason) -> [Step; 2] {
    let first = match door {
        "ssh" => 7000,
        "long" => 7001,
        "bye" => 7002,
        "both" => 7003,
        _ => 7004,
    };
    [
        syn(first).is(FirstKnock).told(door, 1),
        udp(8000).is(reason).told(door, 2),
    ]
}

/// A row that begins with an open door.
fn opened<const N: usize>(name: &'static str, steps: [Step; N]) -> Row {
    Row {
        name,
        steps: [&knock("ssh", Opened)[..], &steps[..]].concat(),
    }
}

#[test]
fn grants() {
    let [again_first, again] = knock("ssh", Refreshed);
    let [anew_first, anew] = knock("ssh", Opened);
    let [long_first, long] = knock("long", Refreshed);
    let [long_alone_first, long_alone] = knock("long", Opened);
    let [bye_first, bye] = knock("bye", Closed);
    let [command_first, command] = knock("command", Opened);
    let [command_again_first, command_again] = knock("command", Refreshed);
    check(
        GRANTS,
        &[
            opened(
                "valid and over",
                [
                    Step::Grant(60, "ssh"),
                    Later(55),
                    syn(22).is(Granted),
                    Later(5),
                    syn(22).is(NoGrant),
                    udp(1194).is(NoGrant),
                ],
            ),
            opened(
                "refreshed while valid",
                [
                    Later(30),
                    again_first.clone(),
                    again.clone(),
                    Step::Grant(60, "ssh"),
                ],
            ),
            opened(
                "opened anew when over",
                [Later(60), anew_first, anew, Step::Grant(60, "ssh")],
            ),
            opened(
                "a longer grant takes over",
                [long_first, long, Step::Grant(3600, "long")],
            ),
            row(
                "a shorter grant does not",
                [
                    long_alone_first,
                    long_alone,
                    again_first,
                    again,
                    Step::Grant(3600, "long"),
                ],
            ),
            opened(
                "closed",
                [
                    bye_first.clone(),
                    bye.clone(),
                    syn(22).is(NoGrant),
                    udp(1194).is(NoGrant),
                ],
            ),
            opened(
                "closing cuts no connection",
                [
                    ack(22).is(Granted),
                    bye_first.clone(),
                    bye.clone(),
                    ack(22).is(Reason::Flow),
                    syn(22).is(NoGrant),
                ],
            ),
            row("nothing to close", [bye_first, bye, syn(22).is(NoGrant)]),
            row(
                "a door without ports",
                [
                    command_first,
                    command,
                    syn(22).is(NoGrant),
                    command_again_first,
                    command_again,
                    Step::Grant(60, "command"),
                ],
            ),
        ],
    );
}

/// A door that shares some of its ports with others.
#[test]
fn grants_of_several_services() {
    let [first, last] = knock("both", Opened);
    let [first_again, last_again] = knock("both", Refreshed);
    check(
        GRANTS,
        &[
            row(
                "all of its ports",
                [
                    first,
                    last,
                    syn(22).is(Granted),
                    syn(23).is(Granted),
                    udp(1194).is(Granted),
                ],
            ),
            opened(
                "some were open before",
                [
                    syn(23).is(NoGrant),
                    first_again,
                    last_again,
                    syn(23).is(Granted),
                ],
            ),
        ],
    );
}

#[test]
fn flows_of_connections() {
    check(
        GRANTS,
        &[
            opened(
                "recorded by the packet after the SYN",
                [
                    syn(22).is(Granted),
                    Flows(0),
                    ack(22).is(Granted),
                    Flows(1),
                    ack(22).is(Reason::Flow),
                    Flows(1),
                ],
            ),
            opened(
                "outlives its grant",
                [
                    ack(22).is(Granted),
                    Later(61),
                    ack(22).is(Reason::Flow),
                    tcp(22, PSH | ACK).is(Reason::Flow),
                    tcp(22, SYN_ACK).is(Reason::Flow),
                ],
            ),
            opened(
                "a SYN is a new connection",
                [
                    ack(22).is(Granted),
                    syn(22).is(Granted),
                    Later(61),
                    syn(22).is(NoGrant),
                    ack(22).is(Reason::Flow),
                ],
            ),
            opened(
                "a SYN alone is no flow",
                [syn(22).is(Granted), Later(61), ack(22).is(NoGrant)],
            ),
            opened(
                "a SYN at the last moment is one",
                [
                    Later(57),
                    syn(22).is(Granted),
                    Flows(1),
                    Later(4),
                    ack(22).is(Reason::Flow),
                ],
            ),
            opened(
                "another port of the source",
                [
                    ack(22).is(Granted),
                    Later(61),
                    ack(22).over_port(40_001).is(NoGrant),
                    ack(22).neighbour().is(NoGrant),
                ],
            ),
            opened(
                "idle for as long as it may be",
                [
                    ack(22).is(Granted),
                    Later(590),
                    ack(22).is(Reason::Flow),
                    Later(590),
                    ack(22).is(Reason::Flow),
                    Later(600),
                    ack(22).is(NoGrant),
                ],
            ),
            opened(
                "a FIN shortens it",
                [
                    ack(22).is(Granted),
                    tcp(22, FIN | ACK).is(Reason::Flow),
                    Later(61),
                    ack(22).is(NoGrant),
                ],
            ),
            opened(
                "a RST shortens it",
                [
                    ack(22).is(Granted),
                    tcp(22, RST).is(Reason::Flow),
                    Later(61),
                    ack(22).is(NoGrant),
                ],
            ),
            opened(
                "the farewell after a FIN",
                [
                    ack(22).is(Granted),
                    tcp(22, FIN | ACK).is(Reason::Flow),
                    ack(22).is(Reason::Flow),
                    Later(61),
                    ack(22).is(NoGrant),
                ],
            ),
            opened(
                "a connection that goes on long after a spoofed RST",
                [
                    ack(22).is(Granted),
                    tcp(22, RST).is(Reason::Flow),
                    Later(50),
                    ack(22).is(Reason::Flow),
                    Later(61),
                    ack(22).is(Reason::Flow),
                ],
            ),
            opened(
                "a RST begins none",
                [tcp(22, RST).is(Granted), tcp(22, FIN).is(Granted), Flows(0)],
            ),
            opened(
                "a flow that is over begins again with a grant",
                [
                    ack(22).is(Granted),
                    Later(1200),
                    ack(22).is(NoGrant),
                    syn(7000).is(FirstKnock).told("ssh", 1),
                    udp(8000).is(Opened).told("ssh", 2),
                    ack(22).is(Granted),
                    ack(22).is(Reason::Flow),
                    Flows(1),
                ],
            ),
            opened(
                "UDP",
                [
                    udp(1194).is(Granted),
                    Flows(1),
                    Later(61),
                    udp(1194).is(Reason::Flow),
                    udp(1194).over_port(40_001).is(NoGrant),
                    Later(600),
                    udp(1194).is(NoGrant),
                ],
            ),
        ],
    );
}

#[test]
fn connections_are_cut_if_asked() {
    let text = GRANTS.replace("idle = \"10m\"", "keep = false");
    check(
        &text,
        &[opened(
            "ends with its grant",
            [
                syn(22).is(Granted),
                ack(22).is(Granted),
                ack(22).is(Granted),
                udp(1194).is(Granted),
                Flows(0),
                Later(60),
                ack(22).is(NoGrant),
                udp(1194).is(NoGrant),
            ],
        )],
    );
}

/// A word that user space wrote, or that outlived its time, is judged by the clock alone.
#[test]
fn grants_that_were_written() {
    let mut table = Table::new(GRANTS, Options::default());
    let service = *table.tables.services.keys().next().unwrap();
    let now_ms = now().unwrap().millis();
    for (name, seconds, reason) in [
        ("in the past", -1, NoGrant),
        ("in the future", 60, Granted),
        ("at the beginning of time", i64::MIN / 1000, NoGrant),
    ] {
        table.number += 1;
        let source = table.address();
        let until_ms = now_ms.saturating_add_signed(seconds * 1000);
        let key = GrantKey {
            source,
            service,
            class: 0,
        };
        let word = Grant { until_ms, door: 0 }.to_word();
        table.kernel.write("ALLOW", [(key, word)]).unwrap();
        // Without a hint nothing is looked up.
        table.packet(syn(22), NoGrant, &[("", 0)], name);
        table.kernel.raise_hint(source).unwrap();
        let told: &[Place] = match reason.verdict() {
            Verdict::Drop => &[("", 0)],
            Verdict::Pass => &[],
        };
        table.packet(syn(22), reason, told, name);
    }
}

#[test]
fn no_room_for_grants() {
    let mut table = Table::new(GRANTS, Options::default());
    let [first, last] = knock("ssh", Opened);
    let [first_again, last_again] = knock("ssh", Refreshed);
    table.run(&[Family::V4], &[row("in time", [first.clone(), last])]);
    let others = (0..ALLOW_MAX).map(|number| {
        let key = GrantKey {
            source: Address::from_v4(number.to_be_bytes()),
            service: u16::MAX,
            class: 0,
        };
        (key, u64::MAX)
    });
    // The map is full before the last of them.
    table.kernel.write("ALLOW", others).unwrap_err();
    let held = table.number;
    table.run(
        &[Family::V4],
        &[row(
            "too late",
            [
                first,
                udp(8000).is(GrantsFull).told("ssh", 2),
                syn(22).is(NoGrant),
            ],
        )],
    );
    table.number = held - 1;
    table.run(
        &[Family::V4],
        &[row(
            "who has one keeps it",
            [first_again, last_again, syn(22).is(Granted)],
        )],
    );
}

#[test]
fn lockouts_of_a_source() {
    let text = r#"
        lockout = { failures = 2, for = "1m" }
        decoys = { ports = ["tcp/2222"] }
        [[door]]
        name = "ssh"
        knock = ["tcp/7000", "udp/8000", "tcp/6000"]
        open = ["tcp/22"]
        open_for = "1h"
    "#;
    let first = syn(7000).is(FirstKnock).told("ssh", 1);
    let wrong = syn(6000).is(WrongKnock).told("ssh", 1);
    let scanned = syn(1234).is(Scanned).told("ssh", 1);
    let decoy = syn(2222).is(Decoy).told("ssh", 1);
    let second = udp(8000).is(NextKnock).told("ssh", 2);
    let third = syn(6000).is(Opened).told("ssh", 3);
    check(
        text,
        &[
            row(
                "after two wrong knocks",
                [
                    first.clone(),
                    wrong.clone(),
                    first.clone(),
                    wrong.clone(),
                    syn(7000).is(LockedOut),
                    udp(8000).is(LockedOut),
                    syn(7000).neighbour().is(FirstKnock).told("ssh", 1),
                    Later(59),
                    syn(7000).is(LockedOut),
                    Later(1),
                    first.clone(),
                    second.clone(),
                    third.clone(),
                ],
            ),
            row(
                "a scan and a decoy count too",
                [
                    first.clone(),
                    scanned,
                    first.clone(),
                    decoy,
                    syn(7000).is(LockedOut),
                ],
            ),
            row(
                "failures are forgotten",
                [
                    first.clone(),
                    wrong.clone(),
                    Later(60),
                    first.clone(),
                    wrong.clone(),
                    first.clone(),
                ],
            ),
            row(
                "what fails no attempt counts nothing",
                [
                    udp(8000).is(NotBegun),
                    syn(6000).is(NotBegun),
                    syn(2222).is(Decoy),
                    syn(1234).is(Ordinary),
                    syn(22).is(NoGrant),
                    first.clone(),
                    syn(7000).is(Duplicate),
                ],
            ),
            row(
                "a grant stays",
                [
                    first.clone(),
                    second,
                    third,
                    first.clone(),
                    wrong.clone(),
                    first,
                    wrong,
                    syn(7000).is(LockedOut),
                    syn(22).is(Granted),
                ],
            ),
        ],
    );
}

#[test]
fn lockouts_of_everybody() {
    let text = r#"
        lockout = { failures = 2, for = "1m", scope = "global" }
        [[door]]
        name = "ssh"
        knock = ["tcp/7000", "udp/8000", "tcp/6000"]
        open = ["tcp/22"]
    "#;
    check(
        text,
        &[row(
            "after failures of two",
            [
                syn(7000).is(FirstKnock).told("ssh", 1),
                syn(6000).is(WrongKnock).told("ssh", 1),
                syn(7000).neighbour().is(FirstKnock).told("ssh", 1),
                syn(6000).neighbour().is(WrongKnock).told("ssh", 1),
                syn(7000).is(LockedOut),
                syn(7000).neighbour().is(LockedOut),
                Later(60),
                syn(7000).is(FirstKnock).told("ssh", 1),
            ],
        )],
    );
}

#[test]
fn flags_that_make_a_knock() {
    let text = r#"
        door = [
            { name = "fin", knock = ["tcp/7000", "udp/8000", "tcp/6000"], open = ["tcp/22"], tcp_flags = "fin,!syn" },
            { name = "syn", knock = ["tcp/7001", "udp/8000"], open = ["tcp/23"] },
            { name = "urg", knock = ["tcp/7002", "udp/8000"], open = ["tcp/24"], tcp_flags = "urg" },
        ]
    "#;
    check(
        text,
        &[
            row(
                "fin,!syn",
                [
                    syn(7000).is(OtherFlags),
                    ack(7000).is(OtherFlags),
                    tcp(7000, SYN | FIN).is(OtherFlags),
                    tcp(7000, FIN | ACK).is(FirstKnock).told("fin", 1),
                    udp(8000).is(NextKnock).told("fin", 2),
                    tcp(6000, FIN).is(Opened).told("fin", 3),
                ],
            ),
            row(
                "other flags are no wrong knock",
                [
                    tcp(7000, FIN).is(FirstKnock).told("fin", 1),
                    syn(6000).is(OtherFlags),
                    udp(8000).is(NextKnock).told("fin", 2),
                ],
            ),
            row(
                "the default",
                [
                    tcp(7001, FIN).is(OtherFlags),
                    syn(7001).is(FirstKnock).told("syn", 1),
                    udp(8000).is(Opened).told("syn", 2),
                ],
            ),
            row(
                "urg, whatever the others are",
                [
                    syn(7002).is(OtherFlags),
                    tcp(7002, SYN | URG).is(FirstKnock).told("urg", 1),
                    tcp(7002, URG | ACK).is(Duplicate),
                ],
            ),
        ],
    );
}

#[test]
fn targets() {
    for (family, target) in [(Family::V4, "192.0.2.3"), (Family::V6, "2001:db8::3")] {
        let text = format!(
            r#"door = [
                {{ name = "there", knock = ["tcp/7000", "udp/8000"], open = ["tcp/22"], target = "{target}" }},
                {{ name = "any", knock = ["tcp/7000", "tcp/6000"], open = ["tcp/22", "tcp/23"] }},
            ]"#
        );
        Table::new(&text, Options::default()).run(
            &[family],
            &[
                row(
                    "knocked and opened there",
                    [
                        syn(7000).elsewhere().is(FirstKnock).told("there", 1),
                        udp(8000).elsewhere().is(Opened).told("there", 2),
                        syn(22).elsewhere().is(Granted),
                        syn(22).is(NoGrant),
                        syn(23).elsewhere().is(NoGrant),
                    ],
                ),
                row(
                    "not knocked there",
                    [
                        syn(7000).is(FirstKnock).told("any", 1),
                        udp(8000).is(WrongKnock).told("any", 1),
                    ],
                ),
                row(
                    "half of it there",
                    [
                        syn(7000).elsewhere().is(FirstKnock).told("there", 1),
                        udp(8000).is(NotBegun),
                        udp(8000).elsewhere().is(Opened).told("there", 2),
                    ],
                ),
                row(
                    "a door for any address, knocked there",
                    [
                        syn(7000).elsewhere().is(FirstKnock).told("there", 1),
                        syn(6000).elsewhere().is(Opened).told("any", 2),
                        syn(22).elsewhere().is(Granted),
                        syn(22).is(Granted),
                    ],
                ),
                row(
                    "a connection belongs to its address",
                    [
                        syn(7000).elsewhere().is(FirstKnock).told("there", 1),
                        udp(8000).elsewhere().is(Opened).told("there", 2),
                        ack(22).elsewhere().is(Granted),
                        ack(22).elsewhere().is(Reason::Flow),
                        ack(22).is(NoGrant),
                    ],
                ),
                row(
                    "a scan of one address leaves the other alone",
                    [
                        syn(7000).elsewhere().is(FirstKnock).told("there", 1),
                        syn(1234).is(Ordinary),
                        udp(8000).elsewhere().is(Opened).told("there", 2),
                    ],
                ),
            ],
        );
    }
}

#[test]
fn dry_run() {
    let options = Options {
        flags: Active::DRY_RUN,
        ..Options::default()
    };
    let [a, b, c] = opens_ssh();
    Table::new(PORTS, options).run(
        BOTH,
        &[row(
            "counted and told, but passed",
            [
                syn(22).is(NoGrant),
                syn(2222).is(Decoy),
                a,
                b,
                c,
                syn(22).is(Granted),
                syn(1234).is(Ordinary),
            ],
        )],
    );
}

#[test]
fn what_an_event_says() {
    let mut table = Table::new(GRANTS, Options::default());
    let mut judge = |packet: Packet| {
        let frame = Family::V6.frame("2001:db8:18::1", packet).bytes();
        let before = now().unwrap();
        let judged = table.kernel.judge(&frame).unwrap();
        let after = now().unwrap();
        let &[event] = &judged.events[..] else {
            panic!("not one event, but {:?}", judged.events);
        };
        // The clock is that of the last timer tick: 10 ms at the most.
        let begin = before.nanos().saturating_sub(10_000_000);
        assert!((begin..=after.nanos()).contains(&event.at_ns), "{event:?}");
        event
    };
    judge(syn(7000));
    let opened = judge(udp(8000).over_port(12_345));
    let expected = Event {
        at_ns: opened.at_ns,
        until_ms: opened.at_ns / 1_000_000 + 60_000,
        source: Address::from("2001:db8:18::1".parse::<IpAddr>().unwrap()),
        door: 0,
        source_port: 12_345,
        port: 8000,
        protocol: 1,
        reason: 57,
        stage: 2,
        padding: [0; 7],
    };
    assert_eq!(opened, expected);
    judge(syn(7002));
    let closed = judge(udp(8000));
    assert_eq!(closed.until_ms, closed.at_ns / 1_000_000);
    let refused = judge(syn(22));
    assert_eq!((refused.until_ms, refused.door), (0, NO_DOOR));
}

/// A gate lets 64 events through in 268 ms on each CPU.
#[test]
fn gates_for_events() {
    const TIMES: u64 = 10_000;
    let mut table = Table::new(GRANTS, Options::default());
    let frame = |packet| Family::V4.frame("198.18.0.1", packet).bytes();
    let kernel = &mut table.kernel;
    let mut flood = |packet, reason, left_out_least: u64| {
        let run = kernel.repeat(&frame(packet), TIMES as u32).unwrap();
        assert_eq!(run.reasons, [(reason, TIMES)]);
        let told = run.events.len() as u64;
        let all: Vec<_> = run.events.iter().map(|event| event.reason()).collect();
        assert!(all.iter().all(|told| *told == Some(reason)));
        assert!(told >= 64, "{told}");
        assert_eq!(run.tallies, [(Tally::EventsLeftOut, TIMES - told)]);
        assert!(TIMES - told >= left_out_least, "{told} were told");
    };
    flood(syn(22), NoGrant, TIMES / 2);
    // The gate for knocks is another one.
    flood(udp(8000), NotBegun, TIMES / 2);
    // What opens is told in any case, and a duplicate never.
    kernel.repeat(&frame(syn(7000)), 1).unwrap();
    let opened = kernel.repeat(&frame(udp(8000)), 1).unwrap();
    assert_eq!(opened.events.len(), 1, "{opened:?}");
    let again = kernel.repeat(&frame(udp(8000)), 100).unwrap();
    assert_eq!(again.reasons, [(Duplicate, 100)]);
    assert_eq!((again.events.len(), again.tallies), (0, vec![]));
}

/// Events that nobody reads are lost in the end, and counted.
#[test]
fn a_full_ring_buffer() {
    let text = r#"
        [[door]]
        name = "one"
        knock = ["udp/6000"]
        open = ["tcp/22"]
    "#;
    let mut kernel = Kernel::load(text).unwrap();
    let frame = |number: u32| {
        let [_, b, c, d] = number.to_be_bytes();
        let source = format!("198.{b}.{c}.{d}");
        eth().ip4(&source, "192.0.2.2").udp(1, 6000).bytes()
    };
    // Each source opens the door, which is told whatever the gates say.
    let mut lost = 0;
    for number in 0..20_000 {
        lost += kernel.judge_unheard(&frame(number)).unwrap();
        if lost > 0 {
            println!("the ring buffer holds {number} events");
            break;
        }
    }
    assert_eq!(lost, 1);
    assert!(kernel.repeat(&frame(0), 1).unwrap().events.len() > 10_000);
}
