//! Measures growth: the time per packet with more doors, and with more attempts, grants and flows.

use anyhow::Result;
use knock_common::{
    Reason,
    layout::{DOORS_MAX, PortRule, port_index},
    packet::Protocol,
};
use knock_tests::{
    frame::{ACK, Frame, SYN, eth},
    kernel::compile,
};

use crate::{
    doors::{self, KNOCKS, OPENS},
    floor::{self, FloorProgram, FloorPrograms, OVER_FLOOR_MOST},
    report::{Goal, ReportSection, Row, Unit},
    scale::Scale,
    subject::{PacketSeries, Subject},
    timing::{self, Samples},
};

/// The title of the section.
pub const TITLE: &str = "growth";

/// The numbers of doors that are compared.
const DOORS: [u32; 3] = [1, 100, DOORS_MAX];
/// The numbers of sources that are compared; the largest is the size of the smallest table.
const SOURCES: [u32; 3] = [1, 1 << 10, 1 << 16];
/// The goal: the largest ratio of the time with the most entries to the time with the fewest.
const GROWTH_MOST: f64 = 1.2;

/// The rules of the ports of the first door for the floors.
const RULES: [(u32, PortRule); 4] = [
    (port_index(Protocol::Tcp, OPENS), PortRule::protected(0)),
    (port_index(Protocol::Tcp, KNOCKS[0]), PortRule::knock(0, 1)),
    (port_index(Protocol::Tcp, KNOCKS[1]), PortRule::knock(0, 2)),
    (port_index(Protocol::Tcp, KNOCKS[2]), PortRule::knock(0, 3)),
];

/// The offset of the last four octets of the source address, behind Ethernet.
const SOURCE_ENDS_AT: u32 = 14 + 16;

/// A kind of packet.
struct GrowthCase {
    what: &'static str,
    packet: fn(Frame) -> Frame,
    /// The packets that each source sends before it.
    before: &'static [fn(Frame) -> Frame],
    reasons: &'static [Reason],
    /// The program that does only what is needed for it.
    floor: FloorProgram,
    /// Whether a packet changes the state that the next one finds.
    is_change: bool,
    /// The name of the entries of which each source adds one.
    grows: Option<&'static str>,
}

fn first(frame: Frame) -> Frame {
    frame.tcp(40_000, KNOCKS[0], SYN)
}

fn second(frame: Frame) -> Frame {
    frame.tcp(40_000, KNOCKS[1], SYN)
}

fn third(frame: Frame) -> Frame {
    frame.tcp(40_000, KNOCKS[2], SYN)
}

fn other_port(frame: Frame) -> Frame {
    frame.tcp(40_000, 5000, SYN)
}

fn syn(frame: Frame) -> Frame {
    frame.tcp(40_000, OPENS, SYN)
}

fn data(frame: Frame) -> Frame {
    frame.tcp(40_000, OPENS, ACK)
}

const CASES: &[GrowthCase] = &[
    GrowthCase {
        what: "SYN, unused port",
        packet: other_port,
        before: &[],
        reasons: &[Reason::Ordinary],
        floor: FloorProgram::Filter,
        is_change: false,
        grows: Some("other sources"),
    },
    GrowthCase {
        what: "SYN, protected port, no grant",
        packet: syn,
        before: &[],
        reasons: &[Reason::NoGrant],
        floor: FloorProgram::Filter,
        is_change: false,
        grows: Some("other sources"),
    },
    GrowthCase {
        what: "SYN, protected port, grant",
        packet: syn,
        before: &[first, second, third],
        reasons: &[Reason::Granted],
        floor: FloorProgram::Grant,
        is_change: false,
        grows: Some("grants"),
    },
    GrowthCase {
        what: "data, protected port, established flow",
        packet: data,
        before: &[first, second, third, data],
        reasons: &[Reason::Flow],
        floor: FloorProgram::Flow,
        is_change: false,
        grows: Some("flows"),
    },
    GrowthCase {
        what: "first knock",
        packet: first,
        before: &[other_port],
        reasons: &[Reason::FirstKnock],
        floor: FloorProgram::First,
        is_change: true,
        grows: None,
    },
    GrowthCase {
        what: "middle knock",
        packet: second,
        before: &[other_port, first],
        reasons: &[Reason::NextKnock],
        floor: FloorProgram::Step,
        is_change: true,
        grows: None,
    },
    GrowthCase {
        what: "last knock",
        packet: third,
        before: &[other_port, first, second],
        reasons: &[Reason::Opened, Reason::Refreshed],
        floor: FloorProgram::Open,
        is_change: true,
        grows: None,
    },
    GrowthCase {
        what: "duplicate of a middle knock",
        packet: second,
        before: &[first, second],
        reasons: &[Reason::Duplicate],
        floor: FloorProgram::Duplicate,
        is_change: false,
        grows: Some("sources in progress"),
    },
];

/// The number of alternating sources, whose entries stay in the cache.
const WARM: u32 = 1 << 10;

impl GrowthCase {
    fn send(&self, subject: &mut Subject, packet: fn(Frame) -> Frame, sources: u32) -> Result<f64> {
        let mut packet = self.packet(packet, sources);
        packet.plan.shuffled = 1;
        subject.each(&packet)
    }

    fn packet(&self, packet: fn(Frame) -> Frame, sources: u32) -> PacketSeries {
        let frame = packet(eth().ip4("10.0.0.0", "192.0.2.2")).bytes();
        PacketSeries::each(frame, SOURCE_ENDS_AT, sources)
    }

    fn prepare(&self, subject: &mut Subject, sources: u32) -> Result<()> {
        for packet in self.before {
            subject.each(&self.packet(*packet, sources))?;
        }
        Ok(())
    }

    /// Measures packets of one source, or of a few if each changes the state; returns the nanoseconds per packet.
    fn hot(&self, subject: &mut Subject, times: u32) -> Result<f64> {
        if self.is_change {
            self.prepare(subject, WARM)?;
            return subject.judged(self.what, self.reasons, |subject| {
                self.send(subject, self.packet, WARM)
            });
        }
        let frame = self.packet(self.packet, 1).frame;
        subject.judged(self.what, self.reasons, |subject| {
            Ok(subject.same(&frame, times)?.nanos)
        })
    }

    /// Measures the floor program of the case, with packets of many sources as in [`Self::cold`].
    fn cold_floor(&self, sources: u32) -> Result<f64> {
        let mut packet = self.packet(self.packet, sources);
        packet.plan.shuffled = 1;
        FloorPrograms::load(&[self.floor], &RULES)?.each(self.floor, self.reasons, &packet)
    }

    /// Measures packets of many sources, in an order that caches don't predict; returns the nanoseconds per packet.
    fn cold(&self, subject: &mut Subject, sources: u32) -> Result<f64> {
        if self.is_change {
            self.prepare(subject, sources)?;
        }
        subject.judged(self.what, self.reasons, |subject| {
            self.send(subject, self.packet, sources)
        })
    }
}

/// The measurements for one number of doors, sources or grants.
#[derive(Clone, Debug, Default)]
struct SizeCosts {
    hot: Samples,
    cold: Samples,
}

/// The empty program: alone, and behind the programs that generate packets of few and of many sources.
#[derive(Clone, Debug, Default)]
struct EmptyCosts {
    alone: Samples,
    warm: Samples,
    cold: Samples,
}

impl EmptyCosts {
    fn measure(&mut self, subject: &mut Subject, times: u32) -> Result<()> {
        let frame = CASES[0].packet(syn, 1).frame;
        let alone = timing::run(subject.empty()?, &frame, times)?;
        self.alone.add(alone.nanos);
        for (samples, sources) in [(&mut self.warm, WARM), (&mut self.cold, 1 << 16)] {
            let mut packet = CASES[0].packet(syn, sources);
            packet.plan.shuffled = 1;
            samples.add(subject.each_empty(&packet)?);
        }
        Ok(())
    }

    /// Subtracts the time of the program that generates the packets.
    fn net(&self, figure: f64, made: &Samples) -> f64 {
        figure - made.least() + self.alone.least()
    }
}

/// Measures both kinds of growth.
pub fn measure(scale: Scale) -> Result<ReportSection> {
    let mut empty = EmptyCosts::default();
    let floors = measure_floors(scale)?;
    let by_doors = measure_doors(scale, &mut empty)?;
    let by_sources = measure_sources(scale, &mut empty)?;
    let mut rows = Vec::new();
    let with_cold = |row: Row, case: &GrowthCase, cold: &Samples| {
        let floor = floors.iter().find(|(other, _)| other.what == case.what);
        let floor = floor.map_or(f64::NAN, |(_, samples)| samples.least());
        let [cold, floor] = [cold.least(), floor].map(|figure| empty.net(figure, &empty.cold));
        row.goal(floor::goal(cold, floor))
            .beside("cold cache", cold)
            .beside("floor program, cold cache", floor)
    };
    for (case, measured) in CASES.iter().zip(&by_doors) {
        let made = |measured: &SizeCosts| match case.is_change {
            true => empty.net(measured.hot.least(), &empty.warm),
            false => measured.hot.least(),
        };
        let hot: Vec<f64> = measured.iter().map(made).collect();
        let cold = &measured[DOORS.len() - 1].cold;
        rows.push(with_cold(
            grown(case.what, &DOORS, "doors", &hot),
            case,
            cold,
        ));
    }
    for (case, grows, measured) in by_sources {
        let hot: Vec<f64> = measured.iter().map(|m| m.hot.least()).collect();
        let cold = &measured[SOURCES.len() - 1].cold;
        rows.push(with_cold(
            grown(case.what, &SOURCES, grows, &hot),
            case,
            cold,
        ));
    }
    let method = format!(
        "`BPF_PROG_TEST_RUN`, the least of {} rounds over {} loads. The figures are for the largest \
         number and one source (knocks: {WARM} in turn), all keys in the cache; \"cold cache\" is \
         the same packet from {} sources in shuffled order, beside the floor program (see \"per packet\"); \
         the second goal is {OVER_FLOOR_MOST} times the figure of that. What makes packets of many sources is \
         subtracted; the {:.1} ns of the loop around an empty program are not.",
        scale.loads * scale.rounds,
        scale.loads,
        SOURCES[2],
        empty.alone.least(),
    );
    Ok(ReportSection {
        title: TITLE,
        method,
        rows,
    })
}

/// Returns the row of the largest number, beside the figures of the others.
fn grown(what: &str, numbers: &[u32; 3], of: &str, figures: &[f64]) -> Row {
    let [few, some, most] = *figures else {
        return Row::new(what, f64::NAN, Unit::Nanos);
    };
    Row::new(format!("{what}, {} {of}", numbers[2]), most, Unit::Nanos)
        .goal(Goal::at_most(most / few, GROWTH_MOST, Unit::Times))
        .beside(numbers[0].to_string(), few)
        .beside(numbers[1].to_string(), some)
}

/// Measures the floor program of each case with the most sources.
fn measure_floors(scale: Scale) -> Result<Vec<(&'static GrowthCase, Samples)>> {
    let mut all: Vec<_> = CASES
        .iter()
        .map(|case| (case, Samples::default()))
        .collect();
    for _ in 0..scale.loads {
        for (case, samples) in &mut all {
            samples.add(case.cold_floor(SOURCES[2])?);
        }
    }
    Ok(all)
}

fn measure_doors(scale: Scale, empty: &mut EmptyCosts) -> Result<Vec<[SizeCosts; 3]>> {
    let mut all = vec![<[SizeCosts; 3]>::default(); CASES.len()];
    let tables = DOORS.map(|count| compile(&doors::many(count)));
    for _ in 0..scale.loads {
        for (index, tables) in tables.iter().enumerate() {
            let tables = match tables {
                Ok(tables) => tables,
                Err(error) => anyhow::bail!("{} doors: {error:#}", DOORS[index]),
            };
            // Entries of other sources would distort the comparison.
            let mut subjects = [Subject::load(tables)?, Subject::load(tables)?];
            let [hot, cold] = &mut subjects;
            for (case, measured) in CASES.iter().zip(&mut all) {
                if !case.is_change {
                    case.prepare(hot, 1)?;
                }
                for _ in 0..scale.rounds {
                    measured[index].hot.add(case.hot(hot, scale.times)?);
                }
            }
            empty.measure(hot, scale.times)?;
            if DOORS[index] == DOORS_MAX {
                for (case, measured) in CASES.iter().zip(&mut all) {
                    if !case.is_change {
                        case.prepare(cold, SOURCES[2])?;
                    }
                    measured[index].cold.add(case.cold(cold, SOURCES[2])?);
                }
            }
        }
    }
    Ok(all)
}

/// Each case with the name of the growing entries, and its measurements for each number of sources.
type BySources = Vec<(&'static GrowthCase, &'static str, [SizeCosts; 3])>;

fn measure_sources(scale: Scale, empty: &mut EmptyCosts) -> Result<BySources> {
    let cases = CASES.iter().filter_map(|case| Some((case, case.grows?)));
    let mut all: BySources = cases
        .map(|(case, grows)| (case, grows, Default::default()))
        .collect();
    let tables = compile(&doors::many(1))?;
    for _ in 0..scale.loads {
        for (index, sources) in SOURCES.into_iter().enumerate() {
            for (case, _, measured) in &mut all {
                let mut subject = Subject::load(&tables)?;
                case.prepare(&mut subject, sources)?;
                // If the table is full now, the measured source may have been evicted.
                case.prepare(&mut subject, 1)?;
                for _ in 0..scale.rounds {
                    measured[index]
                        .hot
                        .add(case.hot(&mut subject, scale.times)?);
                }
                if sources == SOURCES[2] {
                    measured[index].cold.add(case.cold(&mut subject, sources)?);
                    empty.measure(&mut subject, scale.times)?;
                }
            }
        }
    }
    Ok(all)
}
