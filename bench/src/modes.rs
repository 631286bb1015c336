//! Measures the attach modes: the time of a packet at traffic control beside XDP, and the throughput of one TCP stream
//! into a veth.

use anyhow::{Context as _, Result, ensure};
use knock_common::Reason;
use knock_tests::{
    daemon::Daemon,
    entry::Entry,
    frame::{ACK, Frame, SYN, eth},
    kernel::{Kernel, compile},
    net::{CLIENT_LINK, Net, SERVER_LINK},
};
use knock_user::kernel::program::LoadOptions;

use crate::{
    baselines::Baselines,
    link::one_queue,
    packet::CONFIG,
    report::{Goal, ReportSection, Row, Unit},
    scale::Scale,
    stream,
    timing::{self, Samples},
};

/// The title of the section.
pub const TITLE: &str = "attach modes";

/// The least length of a frame. Its packet then has room for an IPv6 header behind 14 octets, as test runs require.
const FRAME_LEAST: usize = 14 + 14 + 40;

/// The goal: the most times what the same judgement takes at XDP, with the loop around a program at traffic control.
const OVER_XDP_MOST: f64 = 1.25;
/// The goal: the least share of a stream's throughput that is left with the program at traffic control.
const STREAM_LEAST: f64 = 0.9;
/// The CPU of both ends of the stream.
const CPU: usize = 1;

/// Sources without and with a grant. A packet without Ethernet has their third part where a frame has its EtherType,
/// which is what a test run at traffic control takes it for; it takes IPv4 for a frame to a group (`eth_type_trans`).
const WITHOUT_GRANT: &str = "2001:db8:86dd::7";
/// See [`WITHOUT_GRANT`].
const WITH_GRANT: &str = "2001:db8:86dd::8";

/// A kind of packet.
struct ModeCase {
    what: &'static str,
    source: &'static str,
    packet: fn(Frame) -> Frame,
    reason: Reason,
}

fn syn(frame: Frame) -> Frame {
    frame.tcp(40_000, 22, SYN)
}

fn data(frame: Frame) -> Frame {
    frame.tcp(40_000, 22, ACK)
}

const CASES: [ModeCase; 5] = [
    ModeCase {
        what: "TCP data, unused port",
        source: WITHOUT_GRANT,
        packet: |frame| frame.tcp(40_000, 443, ACK),
        reason: Reason::Ordinary,
    },
    ModeCase {
        what: "SYN, unused port",
        source: WITHOUT_GRANT,
        packet: |frame| frame.tcp(40_000, 443, SYN),
        reason: Reason::Ordinary,
    },
    ModeCase {
        what: "SYN, protected port, no grant",
        source: WITHOUT_GRANT,
        packet: syn,
        reason: Reason::NoGrant,
    },
    ModeCase {
        what: "SYN, protected port, grant",
        source: WITH_GRANT,
        packet: syn,
        reason: Reason::Granted,
    },
    ModeCase {
        what: "data, protected port, established flow",
        source: WITH_GRANT,
        packet: data,
        reason: Reason::Flow,
    },
];

/// What opens the door, and begins a flow.
const OPENING: [fn(Frame) -> Frame; 4] = [
    |frame| frame.tcp(40_000, 7000, SYN),
    |frame| frame.udp(40_000, 8000),
    |frame| frame.tcp(40_000, 9000, SYN),
    data,
];

/// The entries that are compared.
const ENTRIES: [Entry; 4] = [Entry::Xdp, Entry::Bare, Entry::Tc, Entry::Ip];

/// Measures packets and streams.
pub fn measure(scale: Scale) -> Result<ReportSection> {
    let mut rows = packets(scale)?;
    rows.push(streams(scale)?);
    let method = format!(
        "Packets of IPv6: `BPF_PROG_TEST_RUN`, the least of {} interleaved rounds over {} loads, with the \
         kernel's loop around the program, which takes longer at traffic control. In mode `skb` the \
         program is that of `native`; what the kernel does before either is in the section \"flood\". \
         The goal is {OVER_XDP_MOST} times the loop at traffic control with the judgement at XDP. The \
         stream: one TCP connection to an unused port through a veth pair, both ends on one CPU, \
         segmentation offload on where the kernel leaves it on; the fastest of {} streams of {} ms in \
         each mode.",
        scale.loads * scale.rounds,
        scale.loads,
        scale.floods,
        scale.stream.as_millis(),
    );
    Ok(ReportSection {
        title: TITLE,
        method,
        rows,
    })
}

fn frame(source: &str, packet: fn(Frame) -> Frame) -> Vec<u8> {
    let mut frame = packet(eth().ip6(source, "2001:db8::2")).bytes();
    // A test run at traffic control takes no shorter packet.
    frame.resize(frame.len().max(FRAME_LEAST), 0);
    frame
}

fn packets(scale: Scale) -> Result<Vec<Row>> {
    let tables = compile(CONFIG)?;
    let mut all = [(); CASES.len()].map(|()| <[Samples; ENTRIES.len()]>::default());
    let [mut empty, mut empty_at_tc] = <[Samples; 2]>::default();
    let nothing = frame(WITHOUT_GRANT, syn);
    for _ in 0..scale.loads {
        let at_xdp = Baselines::load(&["pass"])?;
        let mut at_tc = Baselines::load(&[])?;
        let at_tc = at_tc.classifier("pass_tc")?;
        let mut kernels = Vec::new();
        for entry in ENTRIES {
            let mut kernel = Kernel::with_entry(&tables, LoadOptions::default(), entry)?;
            for packet in OPENING {
                kernel.judge(&frame(WITH_GRANT, packet))?;
            }
            kernels.push((entry, kernel));
        }
        for _ in 0..scale.rounds {
            empty.add(timing::run(at_xdp.program("pass")?, &nothing, scale.times)?.nanos);
            empty_at_tc.add(timing::run_classifier(at_tc, &nothing, scale.times)?.nanos);
            for (index, (entry, kernel)) in kernels.iter_mut().enumerate() {
                for (case, samples) in CASES.iter().zip(&mut all) {
                    samples[index].add(case.run(*entry, kernel, scale.times)?);
                }
            }
        }
    }
    let (empty, empty_at_tc) = (empty.least(), empty_at_tc.least());
    let row = |(case, samples): (&ModeCase, &[Samples; ENTRIES.len()])| {
        let [xdp, bare, tc, ip] = samples.each_ref().map(Samples::least);
        let over_xdp = tc / (empty_at_tc + xdp - empty);
        Row::new(format!("{}, tc", case.what), tc, Unit::Nanos)
            .goal(Goal::at_most(over_xdp, OVER_XDP_MOST, Unit::Times))
            .beside("empty, tc", empty_at_tc)
            .beside("tc, no Ethernet", ip)
            .beside("native, skb", xdp)
            .beside("skb, no Ethernet", bare)
            .beside("empty, XDP", empty)
    };
    Ok(CASES.iter().zip(&all).map(row).collect())
}

impl ModeCase {
    /// Has an entry judge the packet this many times, and returns the nanoseconds for each.
    fn run(&self, entry: Entry, kernel: &mut Kernel, times: u32) -> Result<f64> {
        let frame = frame(self.source, self.packet);
        let packet = entry.input(&frame).context("a frame without a packet")?;
        // What was counted before is of other cases.
        kernel.repeat(&frame, 1)?;
        let before = timing::thread_time()?;
        entry.run(kernel.program().ebpf(), packet, None, times)?;
        let spent = timing::thread_time()? - before;
        let judged = kernel.repeat(&frame, 1)?;
        ensure!(
            judged.reasons == [(self.reason, u64::from(times) + 1)],
            "{}: {} judged {:?}",
            self.what,
            entry.name(),
            judged.reasons
        );
        Ok(timing::nanos(spent) / f64::from(times))
    }
}

/// Measures a stream without the program, and with it in each mode.
fn streams(scale: Scale) -> Result<Row> {
    const MODES: [Option<&str>; 4] = [None, Some("tc"), Some("skb"), Some("native")];
    let mut all = <[Samples; MODES.len()]>::default();
    for _ in 0..scale.floods {
        for (mode, samples) in MODES.into_iter().zip(&mut all) {
            let net = one_queue();
            samples.add(stream_into(&net, mode, scale)? * 8.0 / 1e9);
        }
    }
    let [none, tc, skb, native] = all.map(|samples| samples.quantile(1.0));
    Ok(Row::new("one TCP stream into a veth, tc", tc, Unit::Gbits)
        .goal(Goal::at_least(tc / none, STREAM_LEAST, Unit::Times))
        .beside("no program", none)
        .beside("skb", skb)
        .beside("native", native))
}

/// Returns the octets per second of a stream, in a mode or without the program.
fn stream_into(net: &Net, mode: Option<&str>, scale: Scale) -> Result<f64> {
    // The networks of tests have it off.
    (net.client).run("ethtool", &["-K", CLIENT_LINK, "tso", "on", "gso", "on"]);
    let _daemon = mode.map(|mode| {
        let arguments = ["--iface", SERVER_LINK, "--mode", mode];
        Daemon::start_with(&net.server, CONFIG, &arguments)
    });
    stream::goodput(net, CPU, scale.stream)
}
