//! Measures the cost of a flood that arrives over a link: CPU time per dropped packet.

use std::str::FromStr;

use anyhow::{Result, ensure};
use knock_common::packet::Protocol;
use knock_tests::{
    frame::SYN,
    net::{Family, Net},
    path::Path,
    wire::{datagram, segment, whole},
};

use crate::{
    generator::Generator,
    link::{one_queue, receive_on_one_cpu},
    plan::Plan,
    receiver::{Receiver, ReceiverKind},
    report::{Goal, ReportSection, Row, Unit},
    scale::Scale,
    stream,
    timing::Samples,
    xdp_filter::FilterFeatures,
};

/// The title of the section.
pub const TITLE: &str = "flood";

/// The CPU that sends and receives.
const CPU: usize = 0;
/// The CPU of the honest stream, while the other CPU sends.
const OTHER_CPU: usize = 1;
/// The rate of the flood beside an honest stream, in packets per second.
const FLOOD: u32 = 1_000_000;
/// The number of spoofed sources, in an order that caches don't predict.
const SOURCES: u32 = 1 << 16;

/// Offsets behind Ethernet: the IPv4 source address and the checksums.
const SOURCE_AT: u32 = 14 + 12;
const HEADER_SUM_AT: u32 = 14 + 10;
const TCP_SUM_AT: u32 = 14 + 20 + 16;
const UDP_SUM_AT: u32 = 14 + 20 + 6;

/// Goal: the most CPU time per packet beyond an empty program that drops, in nanoseconds.
const OVER_EMPTY_MOST: f64 = 35.0;
const UNDER_INPUT_LEAST: f64 = 4.0;
const UNDER_INGRESS_LEAST: f64 = 3.0;
/// Goal: how many times the cost of nftables at the device is that of `knock-user` at traffic control, at least.
const AT_TC_LEAST: f64 = 1.0;

/// A port of the server.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TargetPort {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Its number.
    pub port: u16,
}

impl FromStr for TargetPort {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('/');
        let named = |name: &str| {
            [Protocol::Tcp, Protocol::Udp]
                .into_iter()
                .find(|protocol| protocol.name() == name)
        };
        parts
            .and_then(|(name, port)| {
                Some(Self {
                    protocol: named(name)?,
                    port: port.parse().ok()?,
                })
            })
            .ok_or_else(|| "a port is written like tcp/22".to_owned())
    }
}

/// Returns a SYN to a TCP port of the server, and a plan that spoofs [`SOURCES`] sources.
pub fn spoofed_syns(port: u16) -> (Vec<u8>, Plan) {
    let protocol = Protocol::Tcp;
    spoofed(TargetPort { protocol, port }, SOURCES)
}

/// Returns the first packet of a connection to a port of the server, and a plan with this many sources.
pub fn spoofed(target: TargetPort, sources: u32) -> (Vec<u8>, Plan) {
    let path = spoofed_path();
    let (payload, payload_sum_at) = match target.protocol {
        Protocol::Tcp => (segment(path, 40_000, target.port, SYN), TCP_SUM_AT),
        Protocol::Udp => (datagram(path, 40_000, target.port, &[0]), UDP_SUM_AT),
    };
    let mut frame = whole(path, &payload);
    // The shortest Ethernet frame, without its checksum.
    frame.resize(60, 0);
    (frame, plan(sources, payload_sum_at))
}

/// Returns a datagram to a UDP port of the server, and a plan that spoofs [`SOURCES`] sources.
pub fn spoofed_datagrams(port: u16, content: &[u8]) -> (Vec<u8>, Plan) {
    let path = spoofed_path();
    let frame = whole(path, &datagram(path, 40_000, port, content));
    (frame, plan(SOURCES, UDP_SUM_AT))
}

fn spoofed_path() -> Path {
    Path {
        from: [10, 0, 0, 0].into(),
        to: Family::V4.server(),
    }
}

fn plan(sources: u32, payload_sum_at: u32) -> Plan {
    Plan {
        source_at: SOURCE_AT,
        sources: sources - 1,
        first: 10 << 24,
        header_sum_at: HEADER_SUM_AT,
        payload_sum_at,
        shuffled: 1,
        ..Plan::default()
    }
}

/// The measurements of a receiver.
#[derive(Clone, Debug, Default)]
struct DropCosts {
    nanos: Samples,
    rate: Samples,
}

/// Measures all receivers.
pub fn measure(scale: Scale) -> Result<ReportSection> {
    let net = one_queue();
    let mut generator = Generator::load()?;
    let kinds: Vec<ReceiverKind> = [ReceiverKind::KnockUser]
        .into_iter()
        .chain(ReceiverKind::PEERS)
        .collect();
    let mut all = vec![DropCosts::default(); kinds.len()];
    for _ in 0..scale.floods {
        for (kind, measured) in kinds.iter().zip(&mut all) {
            if kind.missing().is_none() {
                measured.add(&net, &mut generator, *kind, scale)?;
            }
        }
    }
    // Only one network exists at a time.
    drop(net);
    let figure = |wanted: ReceiverKind, of: fn(&DropCosts) -> f64| {
        let found = kinds.iter().zip(&all).find(|(kind, _)| **kind == wanted);
        found.map_or(f64::NAN, |(_, measured)| of(measured))
    };
    let nanos = |kind| figure(kind, |measured| measured.nanos.least());
    let rate = |kind| figure(kind, |measured| measured.rate.quantile(1.0) / 1e6);
    let ours = nanos(ReceiverKind::KnockUser);
    let mut cost = Row::new(
        "CPU for each dropped SYN, sent and received",
        ours,
        Unit::Nanos,
    )
    .goal(Goal::at_most(
        ours - nanos(ReceiverKind::Empty),
        OVER_EMPTY_MOST,
        Unit::Nanos,
    ));
    for (kind, least) in [
        (ReceiverKind::NftInput, UNDER_INPUT_LEAST),
        (ReceiverKind::NftIngress, UNDER_INGRESS_LEAST),
    ] {
        if kind.missing().is_none() {
            cost = cost.goal(Goal::at_least(nanos(kind) / ours, least, Unit::Times));
        }
    }
    if ReceiverKind::NftIngress.missing().is_none() {
        let at_tc = nanos(ReceiverKind::KnockUserTc);
        let times = nanos(ReceiverKind::NftIngress) / at_tc;
        cost = cost.goal(Goal::at_least(times, AT_TC_LEAST, Unit::Times));
    }
    let mut rates = Row::new(
        "packets a second on one CPU",
        rate(ReceiverKind::KnockUser),
        Unit::Mpps,
    );
    for kind in ReceiverKind::PEERS {
        let or = |figure| kind.missing().map_or(Ok(figure), Err);
        cost = cost.beside_or(kind.name(), or(nanos(kind)));
        rates = rates.beside_or(kind.name(), or(rate(kind)));
    }
    let rows = vec![cost, rates, stream(scale)?];
    let method = format!(
        "SYNs of 60 octets to the protected port from {SOURCES} spoofed sources, made by the kernel \
         (`BPF_F_TEST_XDP_LIVE_FRAMES`) and sent over a veth pair of one queue; CPU {CPU} sends and \
         receives. CPU time of the sender with its soft interrupts and of ksoftirqd, divided by what \
         the receiver itself counted as dropped; the least of {} rounds. Making and sending a frame \
         is in all figures, the same for each. The stream goes to an unused port; CPU {CPU} \
         only sends the flood then, and CPU {OTHER_CPU} has the link's interrupts and both ends of \
         the stream. What it loses is in comparison with itself without the flood.",
        scale.floods
    );
    Ok(ReportSection {
        title: TITLE,
        method,
        rows,
    })
}

/// Measures what an honest stream loses during a flood, with each receiver.
fn stream(scale: Scale) -> Result<Row> {
    let lost = |kind: ReceiverKind| -> Result<f64> {
        let net = one_queue();
        let _receiver = Receiver::start(&net, kind)?;
        receive_on_one_cpu(&net)?;
        let goodput = |rate| -> Result<f64> {
            let (frame, plan) = spoofed_syns(22);
            let flow = Generator::load()?.flow(&net, CPU, frame, plan, rate)?;
            let goodput = stream::goodput(&net, OTHER_CPU, scale.stream)?;
            flow.stop()?;
            Ok(goodput)
        };
        let (alone, flooded) = (goodput(1)?, goodput(FLOOD)?);
        Ok((1.0 - flooded / alone) * 100.0)
    };
    let what = "goodput that a TCP stream loses, 1 M SYNs a second";
    let mut row = Row::new(what, lost(ReceiverKind::KnockUser)?, Unit::Percent);
    // A program that drops everything drops the stream too.
    let kinds = ReceiverKind::PEERS
        .into_iter()
        .filter(|kind| !matches!(kind, ReceiverKind::Empty | ReceiverKind::EmptySkb));
    // One receiver of each kind in a quick run.
    const FEW: [ReceiverKind; 3] = [
        ReceiverKind::Filter(FilterFeatures::Tcp),
        ReceiverKind::NftInput,
        ReceiverKind::Nothing,
    ];
    for kind in kinds.filter(|kind| !scale.quick || FEW.contains(kind)) {
        let figure = match kind.missing() {
            Some(why) => Err(why),
            None => Ok(lost(kind)?),
        };
        row = row.beside_or(kind.name(), figure);
    }
    Ok(row)
}

impl DropCosts {
    fn add(
        &mut self,
        net: &Net,
        generator: &mut Generator,
        kind: ReceiverKind,
        scale: Scale,
    ) -> Result<()> {
        let receiver = Receiver::start(net, kind)?;
        let (frame, plan) = spoofed_syns(22);
        // Slow receivers get fewer frames, so that each takes equally long.
        let count = match kind {
            ReceiverKind::KnockUser | ReceiverKind::Empty | ReceiverKind::Filter(_) => scale.frames,
            ReceiverKind::KnockUserSkb
            | ReceiverKind::KnockUserTc
            | ReceiverKind::EmptySkb
            | ReceiverKind::NftIngress
            | ReceiverKind::NftInput
            | ReceiverKind::NftRecipe => scale.frames / 4,
            ReceiverKind::Nothing => scale.frames / 20,
            ReceiverKind::Knockd | ReceiverKind::Fwknopd(_) => 0,
        };
        let sent = generator.blast(net, CPU, &frame, plan, count)?;
        let received = receiver.received()?;
        ensure!(
            received.dropped > sent.frames / 100 * 99,
            "{}: {} frames were sent, {received:?}",
            kind.name(),
            sent.frames
        );
        self.nanos.add(sent.nanos_for(received.dropped));
        self.rate
            .add(received.dropped as f64 / sent.wall.as_secs_f64());
        Ok(())
    }
}
