//! Rows of packets, and the functions that run them.

use std::{net::IpAddr, thread, time::Duration};

use knock_common::{
    Address, Reason, Verdict,
    access::Flow,
    event::{Event, NO_DOOR},
    grant::Grant,
    layout::{FlowKey, GrantKey, LOCKOUT_BUCKETS, WAYS},
    lockout::Failures,
    packet::Protocol,
    reason::Reporting,
};
use knock_tests::{
    frame::{ACK, Frame, SYN, eth},
    kernel::{Kernel, compile, now},
};
use knock_user::{compile::Tables, kernel::program::LoadOptions};

/// A packet of the row's source, or of its neighbour.
#[derive(Clone, Copy)]
pub(crate) struct RowPacket {
    protocol: Protocol,
    port: u16,
    flags: u8,
    source_port: u16,
    is_neighbours: bool,
    is_same_network: bool,
    is_elsewhere: bool,
    is_for_group: bool,
    is_to_multicast: bool,
}

pub(crate) fn tcp(port: u16, flags: u8) -> RowPacket {
    RowPacket {
        protocol: Protocol::Tcp,
        port,
        flags,
        source_port: 40_000,
        is_neighbours: false,
        is_same_network: false,
        is_elsewhere: false,
        is_for_group: false,
        is_to_multicast: false,
    }
}

pub(crate) fn syn(port: u16) -> RowPacket {
    tcp(port, SYN)
}

pub(crate) fn ack(port: u16) -> RowPacket {
    tcp(port, ACK)
}

pub(crate) fn udp(port: u16) -> RowPacket {
    RowPacket {
        protocol: Protocol::Udp,
        ..tcp(port, 0)
    }
}

impl RowPacket {
    /// Sends from this port of the source.
    pub(crate) fn over_port(self, source_port: u16) -> Self {
        Self {
            source_port,
            ..self
        }
    }

    /// Sends from another address of the source's IPv6 /64; for IPv4, from the source itself.
    pub(crate) fn same_network(self) -> Self {
        Self {
            is_same_network: true,
            ..self
        }
    }

    /// Sends from another source.
    pub(crate) fn neighbour(self) -> Self {
        Self {
            is_neighbours: true,
            ..self
        }
    }

    /// Sends to another address of this host.
    pub(crate) fn elsewhere(self) -> Self {
        Self {
            is_elsewhere: true,
            ..self
        }
    }

    /// Sends to a group of hosts.
    pub(crate) fn group(self) -> Self {
        Self {
            is_for_group: true,
            ..self
        }
    }

    /// Sends to a multicast address, in a frame to this host alone, as some access points send it.
    pub(crate) fn multicast(self) -> Self {
        Self {
            is_to_multicast: true,
            ..self
        }
    }

    /// Returns the expected reason. If it is ever reported, it is reported once and without a door.
    pub(crate) fn is(self, reason: Reason) -> RowStep {
        let reported = match reason.reporting() {
            Reporting::Never => vec![],
            Reporting::Drops | Reporting::Knocks | Reporting::Always => vec![("", 0)],
        };
        RowStep::Packet(self, reason, reported)
    }
}

/// A door, and how many of its knocks have been made.
pub(crate) type Place = (&'static str, u16);

/// One step of a row.
#[derive(Clone)]
pub(crate) enum RowStep {
    /// A packet, its reason, and the doors and stages that are reported with it.
    Packet(RowPacket, Reason, Vec<Place>),
    /// Milliseconds pass.
    Wait(u64),
    /// Grants, flows and lockouts become older by this many seconds.
    Later(u64),
    /// The seconds that the source's only grant has left, and the door that gave it.
    Grant(u64, &'static str),
    /// How many flows there are from the source.
    Flows(usize),
}

impl RowStep {
    /// Returns the stage of the source's attempt, or the door that it opened.
    pub(crate) fn reported(self, door: &'static str, stage: u16) -> Self {
        let Self::Packet(packet, reason, _) = self else {
            panic!("only packets are reported: {}", self.name());
        };
        Self::Packet(packet, reason, vec![(door, stage)])
    }

    /// Returns another door that the same knock completes.
    pub(crate) fn and_reported(mut self, door: &'static str, stage: u16) -> Self {
        if let Self::Packet(_, _, reported) = &mut self {
            reported.push((door, stage));
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
            Self::Wait(millis) => format!("{millis} ms pass"),
            Self::Later(seconds) => format!("{seconds} s later"),
            Self::Grant(..) => "the grant".to_owned(),
            Self::Flows(_) => "the flows".to_owned(),
        }
    }
}

/// The packets of one source.
pub(crate) struct Row {
    name: &'static str,
    steps: Vec<RowStep>,
}

pub(crate) fn row(name: &'static str, steps: impl Into<Vec<RowStep>>) -> Row {
    Row {
        name,
        steps: steps.into(),
    }
}

/// The address family of a table's packets.
#[derive(Clone, Copy, Debug)]
pub(crate) enum FrameFamily {
    V4,
    V6,
}

pub(crate) const BOTH: &[FrameFamily] = &[FrameFamily::V4, FrameFamily::V6];

impl FrameFamily {
    fn source(self, number: usize) -> String {
        match self {
            Self::V4 => format!("198.18.{}.{}", number >> 8, number & 255),
            Self::V6 => format!("2001:db8:18:{number:x}::1"),
        }
    }

    pub(crate) fn frame(self, source: &str, packet: RowPacket) -> Frame {
        let frame = match packet.is_for_group {
            true => eth().group(),
            false => eth(),
        };
        let frame = match (self, packet.is_elsewhere) {
            (Self::V4, _) if packet.is_to_multicast => frame.ip4(source, "224.0.0.251"),
            (Self::V6, _) if packet.is_to_multicast => frame.ip6(source, "ff02::fb"),
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
pub(crate) struct Table {
    pub(crate) kernel: Kernel,
    pub(crate) tables: Tables,
    dry_run: bool,
    family: FrameFamily,
    pub(crate) number: usize,
}

impl Table {
    pub(crate) fn new(text: &str, options: LoadOptions<'_>) -> Self {
        let tables = compile(text).unwrap();
        Self {
            kernel: Kernel::with(&tables, options).unwrap(),
            tables,
            dry_run: options.dry_run,
            family: FrameFamily::V4,
            number: 0,
        }
    }

    pub(crate) fn run(&mut self, families: &[FrameFamily], rows: &[Row]) {
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

    pub(crate) fn address(&self) -> Address {
        self.source(false).parse::<IpAddr>().unwrap().into()
    }

    fn step(&mut self, step: &RowStep, name: &str) {
        match step {
            RowStep::Packet(packet, reason, reported) => {
                self.packet(*packet, *reason, reported, name)
            }
            RowStep::Wait(millis) => thread::sleep(Duration::from_millis(*millis)),
            RowStep::Later(seconds) => self.later(*seconds),
            RowStep::Grant(seconds, door) => self.grant(*seconds, door, name),
            RowStep::Flows(count) => {
                let address = self.address();
                let flows = self.kernel.flows().unwrap();
                let own = flows.iter().filter(|(key, _)| key.source == address);
                assert_eq!(own.count(), *count, "{name}");
            }
        }
    }

    pub(crate) fn packet(
        &mut self,
        packet: RowPacket,
        reason: Reason,
        reported: &[Place],
        name: &str,
    ) {
        let source = self.source(packet.is_neighbours);
        let source = match packet.is_same_network {
            true => source.replace("::1", ":ffff:ffff:ffff:ffff"),
            false => source,
        };
        let frame = self.family.frame(&source, packet).bytes();
        self.kernel.reset_event_limits().unwrap();
        let judged = self.kernel.judge(&frame).unwrap();
        let places: Vec<(String, u16)> = judged
            .events
            .iter()
            .map(|event| (self.door(event), event.stage))
            .collect();
        let wanted: Vec<(String, u16)> = reported
            .iter()
            .map(|&(door, stage)| (door.to_owned(), stage))
            .collect();
        assert_eq!((judged.reason, places), (reason, wanted), "{name}");
        let verdict = match self.dry_run {
            true => Verdict::Pass,
            false => reason.verdict(),
        };
        assert_eq!(judged.verdict, verdict, "{name}");
        assert_eq!(judged.stats, [], "{name}");
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

    /// Makes everything older. Nothing can be older than the machine: just after its start, what is
    /// missing must pass.
    fn later(&mut self, seconds: u64) {
        let millis = seconds * 1000;
        let address = self.address();
        let kernel = &mut self.kernel;
        let grant = |_: &GrantKey, word| {
            let grant = Grant::from_word(word);
            let until_ms = grant.until_ms.saturating_sub(millis);
            Grant { until_ms, ..grant }.to_word()
        };
        kernel.change("ALLOW", grant).unwrap();
        let flows = kernel.flows().unwrap();
        let own = flows.iter().filter(|(key, _)| key.source == address);
        let missing = own.map(|(_, word)| millis.saturating_sub(Flow::from_word(*word).seen_ms));
        thread::sleep(Duration::from_millis(missing.max().unwrap_or(0)));
        let flow = |_: &FlowKey, word| {
            let flow = Flow::from_word(word);
            let seen_ms = flow.seen_ms.saturating_sub(millis);
            Flow { seen_ms }.to_word()
        };
        kernel.change("FLOWS", flow).unwrap();
        let older = |cell: u64| {
            let failures = Failures::from_word(cell);
            let tag = cell ^ failures.to_word();
            let last_ms = failures.last_ms.wrapping_sub(millis);
            let older = Failures {
                last_ms,
                ..failures
            };
            tag | older.to_word()
        };
        let lockouts = kernel.lockouts().unwrap();
        let used = (0..LOCKOUT_BUCKETS)
            .zip(lockouts)
            .filter(|(_, cells)| *cells != [0; WAYS]);
        let older = used.map(|(bucket, cells)| {
            (
                bucket,
                cells.map(|cell| if cell == 0 { 0 } else { older(cell) }),
            )
        });
        kernel.set_lockouts(older).unwrap();
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
pub(crate) fn check(text: &str, rows: &[Row]) {
    Table::new(text, LoadOptions::default()).run(BOTH, rows);
}
