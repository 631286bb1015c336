//! Measures the program's time for packets of single packet authorization (`BPF_PROG_TEST_RUN`), and what users cost
//! ordinary traffic.

use anyhow::{Result, ensure};
use knock_common::{
    Reason,
    spa::{
        layout::SpaKeyId,
        port::Otherwise,
        seal::{Content, Sealer},
    },
};
use knock_tests::{
    frame::{ACK, eth},
    kernel::compile,
    spa,
};

use crate::{
    report::{Goal, ReportSection, Row, Unit},
    scale::Scale,
    subject::Subject,
    timing::{self, Samples},
};

/// The title of the section.
pub const TITLE: &str = "single packet authorization";

const CONFIG: &str = r#"
    [[door]]
    name = "ssh"
    knock = ["tcp/7000", "udp/8000", "tcp/9000"]
    open = ["tcp/22"]
"#;
const PORT: u16 = 62_201;
const USER: u16 = 1;

/// Runs of right packets in a round: each needs a packet of its own.
const RIGHT: u32 = 500;
/// The most that a user may cost an ordinary packet, in nanoseconds.
const ORDINARY_MOST: f64 = 1.0;

/// Measures all cases.
pub fn measure(scale: Scale) -> Result<ReportSection> {
    let without = compile(CONFIG)?;
    let mut with = without.clone();
    spa::add_port(&mut with, PORT, spa::port(Otherwise::Drop));
    spa::add_user(&mut with, USER, 0, &["ssh"]);
    let ordinary = eth().ip4("203.0.113.7", "192.0.2.2").tcp(40_000, 1234, ACK);
    let ordinary = ordinary.bytes();

    let mut empty = Samples::default();
    let mut plain = [Samples::default(), Samples::default()];
    let mut refused: Vec<_> = CASES.iter().map(|_| Samples::default()).collect();
    let mut right = [Samples::default(), Samples::default()];
    for _ in 0..scale.loads {
        let mut subjects = [Subject::load(&without)?, Subject::load(&with)?];
        spa::start(subjects[1].kernel(), &with)?;
        for _ in 0..scale.rounds {
            empty.add(timing::run(subjects[0].empty()?, &ordinary, scale.times)?.nanos);
            for (subject, samples) in subjects.iter_mut().zip(&mut plain) {
                samples.add(subject.same(&ordinary, scale.times)?.nanos);
            }
            let [_, subject] = &mut subjects;
            for (case, samples) in CASES.iter().zip(&mut refused) {
                let frame = case.frame(subject)?;
                let nanos = subject.judged(case.what, &[case.reason], |subject| {
                    Ok(subject.same(&frame, scale.times)?.nanos)
                })?;
                samples.add(nanos);
            }
            for (action, samples) in [0, 0x80].into_iter().zip(&mut right) {
                samples.add(opens(subject, action)?);
            }
        }
    }

    let empty = empty.least();
    let row = |what: &str, ours: f64, most: f64| {
        Row::new(what, ours, Unit::Nanos)
            .goal(Goal::at_most(ours, most, Unit::Nanos))
            .beside("empty", empty)
    };
    let mut rows: Vec<Row> = CASES
        .iter()
        .zip(&refused)
        .map(|(case, samples)| row(case.what, samples.least(), empty + case.most))
        .collect();
    let [opens, answered] = right.each_ref().map(Samples::least);
    // Each is a run of its own, with cold caches: no goal for a stream of packets applies.
    for (what, ours) in [
        ("a right packet", opens),
        ("a right packet, answered", answered),
    ] {
        rows.push(Row::new(format!("{what}, run alone"), ours, Unit::Nanos));
    }
    let [before, after] = plain.each_ref().map(Samples::least);
    rows.push(
        Row::new("an ordinary packet, with a user", after, Unit::Nanos)
            .goal(Goal::at_most(after - before, ORDINARY_MOST, Unit::Nanos))
            .beside("without users", before),
    );
    Ok(ReportSection {
        title: TITLE,
        method: format!(
            "`BPF_PROG_TEST_RUN`, the least of {} interleaved rounds over {} loads. Right packets are run one by one, \
             so their figure includes the kernel's start of a run. All figures include the {empty:.1} ns of an \
             empty program.",
            scale.loads * scale.rounds,
            scale.loads,
        ),
        rows,
    })
}

/// A packet that is refused each time.
struct SpaCase {
    what: &'static str,
    reason: Reason,
    /// The most that it may cost beside the empty program, in nanoseconds.
    most: f64,
    packet: fn(Sealer, Content) -> Vec<u8>,
}

const CASES: [SpaCase; 4] = [
    SpaCase {
        what: "noise",
        reason: Reason::SpaNoise,
        most: 60.0,
        packet: |_, _| vec![0x5a; 120],
    },
    SpaCase {
        what: "a stale packet",
        reason: Reason::SpaStale,
        most: 200.0,
        packet: |client, content| {
            let stamp = content.stamp - 2 * spa::WINDOW;
            client.seal(&Content { stamp, ..content }).into()
        },
    },
    SpaCase {
        what: "a replay",
        reason: Reason::SpaReplayed,
        most: 200.0,
        packet: |client, content| client.seal(&content).into(),
    },
    SpaCase {
        what: "a forgery with the host's public key",
        reason: Reason::SpaForged,
        most: 800.0,
        packet: |client, content| {
            let mac = spa::client(USER + 1).mac;
            let stamp = content.stamp + spa::WINDOW / 2;
            Sealer { mac, ..client }
                .seal(&Content { stamp, ..content })
                .into()
        },
    },
];

impl SpaCase {
    /// The frame, after whatever makes it be refused for its reason.
    fn frame(&self, subject: &mut Subject) -> Result<Vec<u8>> {
        let content = spa::content(spa::door("ssh"))?;
        let packet = (self.packet)(spa::client(USER), content);
        let used = match self.reason == Reason::SpaReplayed {
            true => content.stamp,
            false => 0,
        };
        set_last(subject, used)?;
        Ok(frame(&packet))
    }
}

fn frame(payload: &[u8]) -> Vec<u8> {
    let headers = eth().ip4("203.0.113.7", "192.0.2.2");
    headers.datagram(40_000, PORT, payload).bytes()
}

/// Sets the replay word of the user's key.
fn set_last(subject: &mut Subject, stamp: u64) -> Result<()> {
    subject
        .kernel()
        .write("SPA_LAST", [(SpaKeyId(USER.into()), stamp)])
}

/// Measures right packets, one by one; returns the least.
fn opens(subject: &mut Subject, action: u8) -> Result<f64> {
    set_last(subject, 0)?;
    // Those of the refused packets.
    subject.kernel().events()?;
    let mut samples = Samples::default();
    for _ in 0..RIGHT {
        let content = Content {
            action,
            ..spa::content(spa::door("ssh"))?
        };
        let frame = frame(&spa::client(USER).seal(&content));
        subject.kernel().reset_event_limits()?;
        samples.add(subject.same(&frame, 1)?.nanos);
        let opened = subject.kernel().events()?.len();
        ensure!(opened == 1, "a right packet caused {opened} events");
    }
    Ok(samples.least())
}
