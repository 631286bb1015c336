//! Measures the program's time for packets of single packet authorization (`BPF_PROG_TEST_RUN`), and what users cost
//! ordinary traffic.

use std::ops::RangeFrom;

use anyhow::{Context as _, Result};
use knock_common::{
    Reason,
    fwknop::Passphrase,
    hmac_sha256::HmacKey,
    layout::{Features, PortRule, port_index},
    packet::Protocol,
    spa::{
        layout::{FwknopKey, SpaKeyId, SpaMay, SpaMayKey},
        port::{Otherwise, SpaFormats, SpaPort},
        seal::{Content, Sealer},
    },
};
use knock_tests::{
    frame::{ACK, eth},
    fwknop,
    kernel::compile,
    spa,
};
use knock_user::compile::Tables;

use crate::{
    plan::PAYLOADS,
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

/// Where the payload of [`frame`] begins.
const PAYLOAD_AT: u32 = 14 + 20 + 8;
/// The most that a right packet may cost beside the empty program, in nanoseconds.
const RIGHT_MOST: f64 = 1_500.0;
/// The most that a user may cost an ordinary packet, in nanoseconds.
const ORDINARY_MOST: f64 = 1.0;

/// Measures all cases.
pub fn measure(scale: Scale) -> Result<ReportSection> {
    let without = compile(CONFIG)?;
    let mut with = without.clone();
    spa::add_port(&mut with, PORT, spa::port(Otherwise::Drop));
    spa::add_user(&mut with, USER, 0, &["ssh"]);
    let with_fwknop = fwknop_tables(without.clone())?;
    let ordinary = eth().ip4("203.0.113.7", "192.0.2.2").tcp(40_000, 1234, ACK);
    let ordinary = ordinary.bytes();

    let mut empty = Samples::default();
    let mut plain = [Samples::default(), Samples::default()];
    let mut refused: Vec<_> = CASES.iter().map(|_| Samples::default()).collect();
    let mut right = Samples::default();
    let mut answered = Samples::default();
    let mut fwknop = FWKNOP_CASES.each_ref().map(|_| Samples::default());
    for _ in 0..scale.loads {
        let mut subjects = [Subject::load(&without)?, Subject::load(&with)?];
        spa::start(subjects[1].kernel(), &with)?;
        let mut host = Subject::load(&with_fwknop)?;
        spa::start(host.kernel(), &with_fwknop)?;
        let mut salts = 0..;
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
            right.add(opens(subject)?);
            answered.add(answers(subject)?);
            for (case, samples) in FWKNOP_CASES.iter().zip(&mut fwknop) {
                samples.add(case.measure(&mut host, &mut salts, scale.times)?);
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
    rows.push(row("a right packet", right.least(), empty + RIGHT_MOST));
    // The answer overwrites the packet, so each is a run of its own, with cold caches.
    rows.push(Row::new(
        "a right packet, answered, run alone",
        answered.least(),
        Unit::Nanos,
    ));
    for (case, samples) in FWKNOP_CASES.iter().zip(&fwknop) {
        rows.push(row(case.what, samples.least(), empty + case.most));
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
            "`BPF_PROG_TEST_RUN`, the least of {} interleaved rounds over {} loads. Each right packet differs from the \
             one before; the exchange of payloads is subtracted. All figures include the {empty:.1} ns of an empty \
             program.",
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
    /// Returns the frame, after whatever makes it be refused for its reason.
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

/// Returns this many packets of the user, each later than the one before.
fn right_packets(count: u32, action: u8) -> Result<Vec<Vec<u8>>> {
    let first = spa::content(spa::door("ssh"))?;
    let packets = (0..count).map(|number| {
        let content = Content {
            stamp: first.stamp + u64::from(number),
            action,
            ..first
        };
        spa::client(USER).seal(&content).into()
    });
    Ok(packets.collect())
}

/// Measures right packets.
fn opens(subject: &mut Subject) -> Result<f64> {
    set_last(subject, 0)?;
    let packets = right_packets(PAYLOADS, 0)?;
    measure_right(subject, "right packets", &packets)
}

/// Measures right packets of one length, of either format.
fn measure_right(subject: &mut Subject, what: &str, packets: &[Vec<u8>]) -> Result<f64> {
    subject.kernel().events()?;
    let empty = vec![0; packets.first().map_or(0, Vec::len)];
    subject.judged(what, &[Reason::Opened, Reason::Refreshed], |subject| {
        subject.dealt(&frame(&empty), PAYLOAD_AT, packets)
    })
}

/// Measures right packets that are answered, one by one; returns the least.
fn answers(subject: &mut Subject) -> Result<f64> {
    const RUNS: u32 = 100;
    set_last(subject, 0)?;
    let mut samples = Samples::default();
    for packet in right_packets(RUNS, 0x80)? {
        subject.kernel().events()?;
        samples.add(subject.same(&frame(&packet), 1)?.nanos);
    }
    Ok(samples.least())
}

const HMAC_KEY: &[u8] = b"an HMAC key";
const PASSPHRASE: &[u8] = b"0123456789abcdefghijklmnopqrstuv";

/// Adds a user of fwknop, who may open the first door.
fn fwknop_tables(mut tables: Tables) -> Result<Tables> {
    let accepting = SpaPort {
        formats: SpaFormats::FWKNOP,
        otherwise: Otherwise::Drop,
    };
    spa::add_port(&mut tables, PORT, PortRule::spa(accepting));
    tables.features = tables.features.with(Features::FWKNOP);
    tables.spa.fwknop_keys = vec![FwknopKey {
        mac: HmacKey::new(HMAC_KEY),
        passphrase: Passphrase::new(PASSPHRASE).context("the passphrase has a wrong length")?,
        not_after_ns: u64::MAX,
        user: USER,
        ..FwknopKey::default()
    }];
    let may = SpaMay {
        open_for_ms: spa::OPEN_FOR_MS,
        open_for_max_ms: spa::OPEN_FOR_MAX_MS,
        ..SpaMay::default()
    };
    let ssh = SpaMayKey::port(USER, port_index(Protocol::Tcp, 22));
    tables.spa.may.push((ssh, may));
    Ok(tables)
}

/// A packet of fwknop.
struct FwknopCase {
    what: &'static str,
    hmac_key: &'static [u8],
    /// The most that it may cost beside the empty program, in nanoseconds.
    most: f64,
}

const FWKNOP_CASES: [FwknopCase; 2] = [
    FwknopCase {
        what: "fwknop: a forgery, one user",
        hmac_key: b"another HMAC key",
        most: 1_500.0,
    },
    FwknopCase {
        what: "fwknop: a right packet",
        hmac_key: HMAC_KEY,
        most: 4_500.0,
    },
];

impl FwknopCase {
    /// Measures packets with salts that were not used.
    fn measure(&self, host: &mut Subject, salts: &mut RangeFrom<u64>, times: u32) -> Result<f64> {
        let seconds = spa::content(spa::door("ssh"))?.stamp / 1_000_000_000;
        let text = fwknop::access_at("alice", seconds, "0.0.0.0,tcp/22");
        let packets: Vec<Vec<u8>> = salts
            .take(PAYLOADS as usize)
            .map(|salt| {
                fwknop::seal(
                    PASSPHRASE,
                    self.hmac_key,
                    salt.to_be_bytes(),
                    text.as_bytes(),
                )
            })
            .map(String::into_bytes)
            .collect();
        if self.hmac_key == HMAC_KEY {
            return measure_right(host, self.what, &packets);
        }
        let forged = packets.first().context("there is no packet")?;
        host.judged(self.what, &[Reason::SpaForged], |host| {
            Ok(host.same(&frame(forged), times)?.nanos)
        })
    }
}
