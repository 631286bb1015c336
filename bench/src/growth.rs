//! What grows: more doors, and more sources that are knocking, have grants, have connections.

use anyhow::Result;
use knock_common::{Reason, layout::DOORS_MAX};
use knock_tests::{
    frame::{ACK, Frame, SYN, eth},
    kernel::compile,
};

use crate::{
    doors::{self, KNOCKS, OPENS},
    report::{Goal, Row, Section, Unit},
    scale::Scale,
    subject::{Packet, Subject},
    timing::{self, Samples},
};

/// What the section is called.
pub const TITLE: &str = "growth";

/// Numbers of doors.
const DOORS: [u32; 3] = [1, 100, DOORS_MAX];
/// Numbers of sources: as many as the smallest table of the firewall holds, at most.
const SOURCES: [u32; 3] = [1, 1 << 10, 1 << 16];
/// Nothing is to grow by more.
const GROWTH_MOST: f64 = 1.2;

/// Behind Ethernet and IPv4.
const SOURCE_ENDS_AT: u32 = 14 + 16;

/// A kind of packet.
struct Case {
    what: &'static str,
    packet: fn(Frame) -> Frame,
    /// What each source sends before it.
    before: &'static [fn(Frame) -> Frame],
    reasons: &'static [Reason],
    /// Whether a packet changes what the next one meets.
    is_change: bool,
    /// What there is more of with more sources that did the same.
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

const CASES: &[Case] = &[
    Case {
        what: "SYN, unused port",
        packet: other_port,
        before: &[],
        reasons: &[Reason::Ordinary],
        is_change: false,
        grows: Some("strangers"),
    },
    Case {
        what: "SYN, protected port, stranger",
        packet: syn,
        before: &[],
        reasons: &[Reason::NoGrant],
        is_change: false,
        grows: Some("strangers"),
    },
    Case {
        what: "SYN, protected port, grant",
        packet: syn,
        before: &[first, second, third],
        reasons: &[Reason::Granted],
        is_change: false,
        grows: Some("grants"),
    },
    Case {
        what: "data, protected port, established flow",
        packet: data,
        before: &[first, second, third, data],
        reasons: &[Reason::Flow],
        is_change: false,
        grows: Some("flows"),
    },
    Case {
        what: "first knock",
        packet: first,
        before: &[other_port],
        reasons: &[Reason::FirstKnock],
        is_change: true,
        grows: None,
    },
    Case {
        what: "middle knock",
        packet: second,
        before: &[other_port, first],
        reasons: &[Reason::NextKnock],
        is_change: true,
        grows: None,
    },
    Case {
        what: "last knock",
        packet: third,
        before: &[other_port, first, second],
        reasons: &[Reason::Opened, Reason::Refreshed],
        is_change: true,
        grows: None,
    },
    Case {
        what: "duplicate of a middle knock",
        packet: second,
        before: &[first, second],
        reasons: &[Reason::Duplicate],
        is_change: false,
        grows: Some("sources in progress"),
    },
];

/// Sources in turn, whose entries stay in the cache.
const WARM: u32 = 1 << 10;

impl Case {
    fn send(&self, subject: &mut Subject, packet: fn(Frame) -> Frame, sources: u32) -> Result<f64> {
        let mut packet = self.packet(packet, sources);
        packet.plan.shuffled = 1;
        subject.each(&packet)
    }

    fn packet(&self, packet: fn(Frame) -> Frame, sources: u32) -> Packet {
        let frame = packet(eth().ip4("10.0.0.0", "192.0.2.2")).bytes();
        Packet::each(frame, SOURCE_ENDS_AT, sources)
    }

    fn prepare(&self, subject: &mut Subject, sources: u32) -> Result<()> {
        for packet in self.before {
            subject.each(&self.packet(*packet, sources))?;
        }
        Ok(())
    }

    /// One source, or as few as a packet that changes something needs.
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

    /// Many sources in an order that no cache foresees.
    fn cold(&self, subject: &mut Subject, sources: u32) -> Result<f64> {
        if self.is_change {
            self.prepare(subject, sources)?;
        }
        subject.judged(self.what, self.reasons, |subject| {
            self.send(subject, self.packet, sources)
        })
    }
}

/// What was measured for one number of doors, sources or grants.
#[derive(Clone, Debug, Default)]
struct Measured {
    hot: Samples,
    cold: Samples,
}

/// The empty program, alone and behind what makes packets of few and of many sources.
#[derive(Clone, Debug, Default)]
struct Empty {
    alone: Samples,
    warm: Samples,
    cold: Samples,
}

impl Empty {
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

    /// What a figure would be without what makes the packets.
    fn net(&self, figure: f64, made: &Samples) -> f64 {
        figure - made.least() + self.alone.least()
    }
}

/// Measures both kinds of growth.
pub fn measure(scale: Scale) -> Result<Section> {
    let mut empty = Empty::default();
    let by_doors = measure_doors(scale, &mut empty)?;
    let by_sources = measure_sources(scale, &mut empty)?;
    let mut rows = Vec::new();
    for (case, measured) in CASES.iter().zip(&by_doors) {
        let made = |measured: &Measured| match case.is_change {
            true => empty.net(measured.hot.least(), &empty.warm),
            false => measured.hot.least(),
        };
        let hot: Vec<f64> = measured.iter().map(made).collect();
        let cold = &measured[DOORS.len() - 1].cold;
        let mut row = grown(case.what, &DOORS, "doors", &hot);
        row = row.beside("cold cache", empty.net(cold.least(), &empty.cold));
        rows.push(row);
    }
    for (case, grows, measured) in by_sources {
        let hot: Vec<f64> = measured.iter().map(|m| m.hot.least()).collect();
        let cold = &measured[SOURCES.len() - 1].cold;
        let mut row = grown(case.what, &SOURCES, grows, &hot);
        row = row.beside("cold cache", empty.net(cold.least(), &empty.cold));
        rows.push(row);
    }
    let method = format!(
        "`BPF_PROG_TEST_RUN`, the least of {} rounds over {} loads. The figures are for the largest \
         number and one source (knocks: {WARM} in turn), all keys in the cache; \"cold cache\" is \
         the same packet from {} sources in shuffled order. What makes packets of many sources is \
         subtracted; the {:.1} ns of the loop around an empty program are not.",
        scale.loads * scale.rounds,
        scale.loads,
        SOURCES[2],
        empty.alone.least(),
    );
    Ok(Section {
        title: TITLE,
        method,
        rows,
    })
}

/// The figure for the largest number, with those for the others beside it.
fn grown(what: &str, numbers: &[u32; 3], of: &str, figures: &[f64]) -> Row {
    let [few, some, most] = *figures else {
        return Row::new(what, f64::NAN, Unit::Nanos);
    };
    Row::new(format!("{what}, {} {of}", numbers[2]), most, Unit::Nanos)
        .goal(Goal::at_most(most / few, GROWTH_MOST, Unit::Times))
        .beside(numbers[0].to_string(), few)
        .beside(numbers[1].to_string(), some)
}

fn measure_doors(scale: Scale, empty: &mut Empty) -> Result<Vec<[Measured; 3]>> {
    let mut all = vec![<[Measured; 3]>::default(); CASES.len()];
    let tables = DOORS.map(|count| compile(&doors::many(count)));
    for _ in 0..scale.loads {
        for (index, tables) in tables.iter().enumerate() {
            let tables = match tables {
                Ok(tables) => tables,
                Err(error) => anyhow::bail!("{} doors: {error:#}", DOORS[index]),
            };
            // Other sources' entries would be in the way of what is compared.
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

/// What grows with the number of sources, with what it is called.
type BySources = Vec<(&'static Case, &'static str, [Measured; 3])>;

fn measure_sources(scale: Scale, empty: &mut Empty) -> Result<BySources> {
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
                // Where the table is full now, the one that is measured may have had to go.
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
