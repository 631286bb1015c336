//! Measures the program's time for each kind of packet (`BPF_PROG_TEST_RUN`).

mod cases;

use anyhow::{Result, ensure};
use aya::programs::ProgramFd;
use knock_common::Reason;
use knock_tests::{frame::Frame, kernel::compile, namespace::Namespace};

use self::cases::{
    CASES, Class, PacketCase, WITH_GRANT, WITHOUT_GRANT, Wrap, data, first, second, syn, third,
};
use crate::{
    baselines::Baselines,
    receiver,
    report::{Goal, ReportSection, Row, Unit},
    scale::Scale,
    subject::Subject,
    timing::{self, Samples},
    xdp_filter::{self, FilterFeatures},
};

/// The title of the section.
pub const TITLE: &str = "per packet";

const CONFIG: &str = r#"
    decoys = { ports = ["tcp/7777"] }
    [[door]]
    name = "ssh"
    knock = ["tcp/7000", "udp/8000", "tcp/9000"]
    open = ["tcp/22"]
    open_for = "1h"
    sequence_timeout = "30m"
"#;

/// Sources in turn: few enough that their entries stay in the cache.
const WARM: u32 = 1024;
/// Return value of XDP programs (`linux/bpf.h`).
const XDP_DROP: u32 = 1;
/// The most that VLAN and IPv6 may cost, in nanoseconds.
const VARIATION_MOST: f64 = 5.0;

/// The measurements of a case.
#[derive(Clone, Debug, Default)]
struct CaseCosts {
    ours: Samples,
    deny: Samples,
    filters: [Samples; 2],
}

/// The empty programs.
#[derive(Clone, Debug, Default)]
struct EmptyCosts {
    alone: Samples,
    /// The empty program behind the tail call that also leads to `xdp-filter`.
    jump: Samples,
    /// The empty program behind the one that generates packets of many sources.
    each: [Samples; 3],
}

/// All measurements.
struct PacketCosts {
    cases: Vec<(&'static PacketCase, Wrap, CaseCosts)>,
    empty: EmptyCosts,
}

/// Measures all cases.
pub fn measure(scale: Scale) -> Result<ReportSection> {
    let cases = Wrap::ALL.iter().flat_map(|&wrap| {
        CASES
            .iter()
            .map(move |case| (case, wrap, CaseCosts::default()))
    });
    let mut all = PacketCosts {
        cases: cases.collect(),
        empty: EmptyCosts::default(),
    };
    let filters = Filters::start()?;
    let tables = compile(CONFIG)?;
    for _ in 0..scale.loads {
        let mut subject = Subject::load(&tables)?;
        let mut alone = Baselines::load(&["deny", "jump", "plain"])?;
        open_door(&mut subject)?;
        for round in 0..scale.rounds {
            all.round(&mut subject, &mut alone, &filters, round, scale.times)?;
        }
    }
    Ok(all.section(scale, &filters))
}

/// Opens the door for a source of each family and sends data from it, so that there is a flow.
fn open_door(subject: &mut Subject) -> Result<()> {
    for wrap in [Wrap::V4, Wrap::V6] {
        for (packet, reason) in [
            (first as fn(Frame) -> Frame, Reason::FirstKnock),
            (second, Reason::NextKnock),
            (third, Reason::Opened),
            (data, Reason::Granted),
        ] {
            let frame = packet(wrap.from(WITH_GRANT)).bytes();
            subject.judged("a source gets a grant and a flow", &[reason], |subject| {
                subject.same(&frame, 1)
            })?;
        }
    }
    Ok(())
}

impl PacketCosts {
    /// Measures each case once, with the programs that it is compared with.
    fn round(
        &mut self,
        subject: &mut Subject,
        alone: &mut Baselines,
        filters: &Filters,
        round: u32,
        times: u32,
    ) -> Result<()> {
        let nothing = syn(Wrap::V4.from(WITHOUT_GRANT)).bytes();
        let empty = timing::run(subject.empty()?, &nothing, times)?;
        self.empty.alone.add(empty.nanos);
        let plain = alone.program("plain")?.fd()?.try_clone()?;
        alone.subject(&plain)?;
        let jump = timing::run(alone.program("jump")?, &nothing, times)?;
        self.empty.jump.add(jump.nanos);
        for (wrap, samples) in Wrap::ALL.into_iter().zip(&mut self.empty.each) {
            let (_, packet) = CASES[0].packets(wrap, 0);
            samples.add(subject.each_empty(&packet)?);
        }
        for (case, wrap, measured) in &mut self.cases {
            let what = format!("{}{}", case.what, wrap.suffix());
            if !case.is_stateless() {
                measured.ours.add(each(subject, case, *wrap, round, &what)?);
                continue;
            }
            let frame = (case.packet)(wrap.from(case.who)).bytes();
            let ours =
                subject.judged(&what, case.reasons, |subject| subject.same(&frame, times))?;
            measured.ours.add(ours.nanos);
            let deny = timing::run(alone.program("deny")?, &frame, times)?;
            measured.deny.add(deny.nanos);
            for (samples, filter) in measured.filters.iter_mut().zip(&filters.programs) {
                alone.subject(filter)?;
                let filtered = timing::run(alone.program("jump")?, &frame, times)?;
                let denied = filtered.verdict == XDP_DROP;
                let for_ssh = matches!(case.class, Class::Denied | Class::Admitted);
                ensure!(
                    denied == for_ssh,
                    "xdp-filter returned {} for {what}",
                    filtered.verdict
                );
                samples.add(filtered.nanos);
            }
        }
        Ok(())
    }

    fn section(&self, scale: Scale, filters: &Filters) -> ReportSection {
        let empty = self.empty.alone.least();
        let jump = self.empty.jump.least() - empty;
        let net = |measured: &CaseCosts, case: &PacketCase, wrap: Wrap| {
            let index = Wrap::ALL
                .iter()
                .position(|other| *other == wrap)
                .unwrap_or(0);
            match case.is_stateless() {
                true => measured.ours.least(),
                false => measured.ours.least() - self.empty.each[index].least() + empty,
            }
        };
        let plain = |case: &PacketCase| {
            let found = self
                .cases
                .iter()
                .find(|(other, wrap, _)| other.what == case.what && *wrap == Wrap::V4);
            found.map_or(f64::NAN, |(case, wrap, measured)| {
                net(measured, case, *wrap)
            })
        };
        let rows = self.cases.iter().map(|(case, wrap, measured)| {
            let ours = net(measured, case, *wrap);
            let mut row = Row::new(format!("{}{}", case.what, wrap.suffix()), ours, Unit::Nanos);
            row = row.goal(match wrap {
                Wrap::V4 => Goal::at_most(ours / empty, case.class.most(), Unit::Times),
                Wrap::Vlan | Wrap::V6 => {
                    Goal::at_most(ours - plain(case), VARIATION_MOST, Unit::Nanos)
                }
            });
            row = row.beside("empty", empty);
            if case.is_stateless() {
                row = row.beside("parse and one port", measured.deny.least());
                for (features, samples) in FilterFeatures::EACH.into_iter().zip(&measured.filters) {
                    let figure = match filters.programs.is_empty() {
                        true => Err("not installed".to_owned()),
                        false => Ok(samples.least() - jump),
                    };
                    row = row.beside_or(features.name(), figure);
                }
            }
            row
        });
        let method = format!(
            "`BPF_PROG_TEST_RUN`, the least of {} interleaved rounds over {} loads of every program (the \
             JIT's placement alone moves one by some ns). All figures include the {empty:.1} ns of the \
             kernel's loop around an empty program; ratios are to that. Knocks that change something \
             come from {WARM} sources in turn, and what makes their packets ({:.1} ns) is subtracted, \
             as is the tail call to xdp-filter ({jump:.1} ns).",
            scale.loads * scale.rounds,
            scale.loads,
            self.empty.each[0].least() - empty,
        );
        ReportSection {
            title: TITLE,
            method,
            rows: rows.collect(),
        }
    }
}

/// Measures a packet from each source of a group, after their preparing packets.
fn each(
    subject: &mut Subject,
    case: &PacketCase,
    wrap: Wrap,
    round: u32,
    what: &str,
) -> Result<f64> {
    let group = |again| match case.needs_new_sources() {
        // Sources that no other wrapping has used.
        true => 1 + (round * 2 + again) * Wrap::ALL.len() as u32 + wrap.index() as u32,
        false => 0,
    };
    let mut nanos = 0.0;
    // In the second run everything is in the cache.
    for again in [0, 1] {
        let (before, packet) = case.packets(wrap, group(again));
        for packet in &before {
            subject.each(packet)?;
        }
        nanos = subject.judged(what, case.reasons, |subject| subject.each(&packet))?;
    }
    Ok(nanos)
}

/// Two instances of `xdp-filter`, each on an interface that carries no packets.
struct Filters {
    programs: Vec<ProgramFd>,
    _namespaces: Vec<Namespace>,
}

impl Filters {
    fn start() -> Result<Self> {
        let mut filters = Self {
            programs: Vec::new(),
            _namespaces: Vec::new(),
        };
        if !receiver::is_installed("xdp-filter") {
            return Ok(filters);
        }
        for features in FilterFeatures::EACH {
            let namespace = Namespace::new("filter");
            namespace.ip("link add f0 type veth peer name f1");
            xdp_filter::deny_ssh(&namespace, "f0", features);
            filters.programs.push(xdp_filter::program(&namespace)?);
            filters._namespaces.push(namespace);
        }
        Ok(filters)
    }
}
