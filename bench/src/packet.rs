//! Measures the program's time for each kind of packet (`BPF_PROG_TEST_RUN`).

mod cases;
pub mod two_cpus;

use anyhow::{Result, ensure};
use aya::programs::ProgramFd;
use knock_common::{
    Reason,
    layout::{PortRule, port_index},
    packet::Protocol,
};
use knock_tests::{frame::Frame, kernel::compile, namespace::Namespace};

use self::cases::{
    CASES, PacketCase, WITH_GRANT, WITHOUT_GRANT, Wrap, data, first, second, syn, third,
};
use crate::{
    baselines::Baselines,
    floor::{self, FloorProgram, FloorPrograms, OVER_FLOOR_MOST},
    receiver,
    report::{ReportSection, Row, Unit},
    scale::Scale,
    subject::Subject,
    timing::{self, Samples},
    xdp_filter::{self, FilterFeatures},
};

/// The title of the section.
pub const TITLE: &str = "per packet";

pub(crate) const CONFIG: &str = r#"
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

/// The rules of the ports of [`CONFIG`] for the floors.
const RULES: [(u32, PortRule); 5] = [
    (port_index(Protocol::Tcp, 22), PortRule::protected(0)),
    (port_index(Protocol::Tcp, 7000), PortRule::knock(0, 1)),
    (port_index(Protocol::Udp, 8000), PortRule::knock(0, 2)),
    (port_index(Protocol::Tcp, 9000), PortRule::knock(0, 3)),
    (port_index(Protocol::Tcp, 7777), PortRule::DECOY),
];

/// The measurements of a case.
#[derive(Clone, Debug, Default)]
struct CaseCosts {
    ours: Samples,
    floor: Samples,
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
        let mut floors = FloorPrograms::load(&FloorProgram::ALL, &RULES)?;
        open_door(&mut subject, WITH_GRANT)?;
        for round in 0..scale.rounds {
            let mut programs = Programs {
                subject: &mut subject,
                floors: &mut floors,
                alone: &mut alone,
                filters: &filters,
            };
            all.round(&mut programs, round, scale.times)?;
        }
    }
    Ok(all.section(scale, &filters))
}

/// Opens the door for the source of each family with this last octet, and sends data from it, so that there is a flow.
fn open_door(subject: &mut Subject, who: u8) -> Result<()> {
    for wrap in [Wrap::V4, Wrap::V6] {
        for (packet, reason) in [
            (first as fn(Frame) -> Frame, Reason::FirstKnock),
            (second, Reason::NextKnock),
            (third, Reason::Opened),
            (data, Reason::Granted),
        ] {
            let frame = packet(wrap.from(who)).bytes();
            subject.judged("a source gets a grant and a flow", &[reason], |subject| {
                subject.same(&frame, 1)
            })?;
        }
    }
    Ok(())
}

/// The programs that are compared.
struct Programs<'a> {
    subject: &'a mut Subject,
    floors: &'a mut FloorPrograms,
    alone: &'a mut Baselines,
    filters: &'a Filters,
}

impl PacketCosts {
    /// Measures each case once, with the programs that it is compared with.
    fn round(&mut self, programs: &mut Programs<'_>, round: u32, times: u32) -> Result<()> {
        let Programs {
            subject,
            floors,
            alone,
            filters,
        } = programs;
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
                let [ours, floor] = each(subject, floors, case, *wrap, round, &what)?;
                measured.ours.add(ours);
                measured.floor.add(floor);
                continue;
            }
            let frame = (case.packet)(wrap.from(case.who)).bytes();
            let ours =
                subject.judged(&what, case.reasons, |subject| subject.same(&frame, times))?;
            measured.ours.add(ours.nanos);
            let floor = floors.same(case.floor, case.reasons, &frame, times)?;
            measured.floor.add(floor.nanos);
            let deny = timing::run(alone.program("deny")?, &frame, times)?;
            measured.deny.add(deny.nanos);
            for (samples, filter) in measured.filters.iter_mut().zip(&filters.programs) {
                alone.subject(filter)?;
                let filtered = timing::run(alone.program("jump")?, &frame, times)?;
                let denied = filtered.verdict == XDP_DROP;
                let for_ssh = case.is_for_ssh();
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
        let rows = self.cases.iter().map(|(case, wrap, measured)| {
            let net = |samples: &Samples| match case.is_stateless() {
                true => samples.least(),
                false => samples.least() - self.empty.each[wrap.index()].least() + empty,
            };
            let (ours, floor) = (net(&measured.ours), net(&measured.floor));
            let mut row = Row::new(format!("{}{}", case.what, wrap.suffix()), ours, Unit::Nanos)
                .goal(floor::goal(ours, floor))
                .beside("floor program", floor)
                .beside("empty", empty);
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
             kernel's loop around an empty program. A floor program does only what no design can avoid for the \
             decision of its row, with maps of the same types and sizes; the goal is \
             {OVER_FLOOR_MOST} times its figure. Knocks that change \
             something come from {WARM} sources in turn, and what makes their packets ({:.1} ns) is subtracted, \
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

/// Measures a packet from each source of a group, after their preparing packets: the program, and the floor program.
fn each(
    subject: &mut Subject,
    floors: &mut FloorPrograms,
    case: &PacketCase,
    wrap: Wrap,
    round: u32,
    what: &str,
) -> Result<[f64; 2]> {
    let group = |again| match case.needs_new_sources() {
        // Sources that no other wrapping has used.
        true => 1 + (round * 2 + again) * Wrap::ALL.len() as u32 + wrap.index() as u32,
        false => 0,
    };
    let mut nanos = [0.0; 2];
    // In the second run everything is in the cache.
    for again in [0, 1] {
        let (before, packet) = case.packets(wrap, group(again));
        for packet in &before {
            subject.each(packet)?;
        }
        let ours = subject.judged(what, case.reasons, |subject| subject.each(&packet))?;
        nanos = [ours, floors.each(case.floor, case.reasons, &packet)?];
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
