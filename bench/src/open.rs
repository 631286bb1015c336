//! Measures the time from the last knock until a connection succeeds.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use knock_tests::{
    net::{Family, Net},
    server::Server,
    source::Source,
    wire::{Wire, syn, whole},
};

use nix::unistd::gettid;

use crate::{
    receiver::{Receiver, ReceiverKind},
    report::{Goal, ReportSection, Row, Unit},
    scale::Scale,
    timing::{self, Samples},
};

/// The title of the section.
pub const TITLE: &str = "time to open";

const PORT: u16 = 22;
/// The pause between two SYNs.
const GAP: Duration = Duration::from_micros(20);
/// The longest time from the last knock to the first SYN; with more, the machine was busy and the try
/// does not count. Daemons take longer to open a port, since they start a program.
const AT_ONCE: Duration = Duration::from_micros(1_500);
const CLIENT_CPU: usize = 0;
const SERVER_CPU: usize = 1;
/// SYNs come from this port and those after it, one each.
const FIRST_PORT: u16 = 20_000;
/// Longer than any peer took.
const PATIENCE: Duration = Duration::from_millis(800);

/// The measurements of a kind of receiver.
#[derive(Clone, Debug, Default)]
struct OpeningTimes {
    micros: Samples,
    at_once: u32,
    never: u32,
    /// Tries that don't count.
    held_up: u32,
}

impl OpeningTimes {
    fn tries(&self) -> u32 {
        self.micros.count() as u32 + self.never
    }
}

/// Measures every receiver that admits a client after knocks.
pub fn measure(scale: Scale) -> Result<ReportSection> {
    let ours = try_often(ReceiverKind::KnockUser, scale.openings)?;
    let mut at_once = Row::new(
        format!(
            "of {} SYNs sent right behind the last knock, answered",
            scale.openings
        ),
        ours.at_once.into(),
        Unit::Count,
    )
    .goal(Goal::at_least(
        ours.at_once.into(),
        scale.openings.into(),
        Unit::Count,
    ));
    let quantiles = [("half", 0.5), ("nine of ten", 0.9), ("all", 1.0)];
    let mut rows = quantiles.map(|(which, share)| {
        let what = format!("last knock to the first SYN that is answered, {which} within");
        Row::new(what, ours.micros.quantile(share), Unit::Micros)
    });
    for kind in ReceiverKind::DOORS {
        let theirs = match kind.missing() {
            Some(why) => Err(why),
            None => Ok(try_often(kind, scale.openings)?),
        };
        let count = theirs.clone().map(|theirs| theirs.at_once.into());
        at_once = at_once.beside_or(kind.name(), count);
        rows = std::array::from_fn(|index| {
            let (_, share) = quantiles[index];
            let figure = theirs.as_ref().map_err(Clone::clone).map(|theirs| {
                // The door did not open within the time limit.
                if theirs.never > 0 && share == 1.0 {
                    f64::INFINITY
                } else {
                    theirs.micros.quantile(share)
                }
            });
            rows[index].clone().beside_or(kind.name(), figure)
        });
    }
    let method = format!(
        "{} openings each, every one from a new source: the knocks (one packet for fwknop) without \
         a pause, a SYN right behind the last, then a SYN each {} µs (AF_PACKET). The time is from \
         before the last knock is sent until before the SYN that is the first to be answered. \
         knockd and fwknopd add to a set of nftables; the recipe is that of the nftables wiki.",
        scale.openings,
        GAP.as_micros()
    );
    Ok(ReportSection {
        title: TITLE,
        method,
        rows: [at_once].into_iter().chain(rows).collect(),
    })
}

fn try_often(kind: ReceiverKind, openings: u32) -> Result<OpeningTimes> {
    let net = Net::new();
    let _server = Server::tcp(&net.server, &[PORT]);
    let receiver = Receiver::start(&net, kind)?;
    let wire = Wire::open(&net.client);
    // Client and server act as two hosts: a daemon does not run at the client's expense.
    if let Some(process) = receiver.process() {
        timing::pin_thread(i32::try_from(process.id())?, SERVER_CPU)?;
    }
    let mut measured = OpeningTimes::default();
    while measured.tries() < openings {
        let source = net.new_source(Family::V4);
        let knocks = receiver.knocks(&source)?;
        let opened = net.client.enter(|| -> Result<_> {
            timing::pin(CLIENT_CPU)?;
            // No other thread runs between a knock and the SYN behind it.
            timing::go_first(gettid().as_raw())?;
            open(&wire, &source, &knocks)
        })?;
        match opened {
            Try::HeldUp => measured.held_up += 1,
            Try::Never => measured.never += 1,
            Try::After(number, time) => {
                measured.at_once += u32::from(number == 0);
                measured.micros.add(micros(time));
            }
        }
        // A machine that delays each try gives no measurement.
        ensure!(
            measured.held_up <= openings,
            "{}: the client was held up {} times between its last knock and its first SYN: \
             measure when the machine is idle",
            kind.name(),
            measured.held_up
        );
    }
    Ok(measured)
}

/// The result of a try.
enum Try {
    /// The number of the first SYN that was answered, and the time from the knock until it was sent.
    After(u16, Duration),
    /// None was answered.
    Never,
    /// The SYN behind the last knock was sent too late for a result.
    HeldUp,
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

/// Knocks and sends SYNs.
fn open(wire: &Wire, source: &Source<'_>, knocks: &[Vec<u8>]) -> Result<Try> {
    let path = source.path();
    // Made before, so that nothing is computed between the knock and the SYN behind it; to ask for
    // memory took half a millisecond.
    let syns: Vec<_> = (0..u16::try_from(PATIENCE.as_micros() / GAP.as_micros())?)
        .map(|number| whole(path, &syn(path, FIRST_PORT + number, PORT)))
        .collect();
    let mut sent = Vec::with_capacity(syns.len());
    wire.seen();
    let mut knocked = Instant::now();
    for knock in knocks {
        knocked = Instant::now();
        wire.send(knock);
    }
    let mut answered: Option<u16> = None;
    for syn in &syns {
        // Nothing is read between the last knock and the first SYN, not even answers.
        if !sent.is_empty() {
            let due = GAP * u32::try_from(sent.len())?;
            answered = earliest(answered, wire, source);
            while answered.is_none() && knocked.elapsed() < due {
                answered = earliest(answered, wire, source);
            }
        }
        // Answers come in the order of the SYNs.
        if answered.is_some() {
            break;
        }
        sent.push(knocked.elapsed());
        wire.send(syn);
        if sent.len() == 1 && knocked.elapsed() > AT_ONCE {
            return Ok(Try::HeldUp);
        }
    }
    let deadline = Instant::now() + Duration::from_millis(20);
    while answered.is_none() && Instant::now() < deadline {
        answered = earliest(answered, wire, source);
    }
    let Some(number) = answered else {
        return Ok(Try::Never);
    };
    let after = sent.get(usize::from(number)).copied();
    let after = after.context("an answer to a SYN that was not sent")?;
    Ok(Try::After(number, after))
}

/// Returns the least number of a SYN that was answered.
fn earliest(known: Option<u16>, wire: &Wire, source: &Source<'_>) -> Option<u16> {
    let seen = wire.seen();
    let answers = seen.iter().filter_map(|frame| answer(frame, source));
    known.into_iter().chain(answers).min()
}

/// Returns the number of the source's SYN that a frame answers.
fn answer(frame: &[u8], source: &Source<'_>) -> Option<u16> {
    const SYN_ACK: u8 = 0x12;
    let to: [u8; 4] = *frame.get(14 + 16..)?.first_chunk()?;
    if source.from != IpAddr::from(to) {
        return None;
    }
    let tcp = frame.get(14 + 20..)?;
    let [a, b, c, d] = *tcp.first_chunk()?;
    let flags = *tcp.get(13)?;
    if frame.get(14 + 9) != Some(&6) || [a, b] != PORT.to_be_bytes() || flags != SYN_ACK {
        return None;
    }
    u16::from_be_bytes([c, d]).checked_sub(FIRST_PORT)
}
