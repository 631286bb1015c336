//! Measures whether clients get in during a flood of spoofed packets.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use knock_tests::{
    net::{Family, Net, SERVER_LINK},
    server::Server,
    wait,
    wire::Wire,
};

use crate::{
    drop_cost::spoofed_syns,
    generator::{FrameStream, Generator, ReceivedFrames},
    link::{SERVER_CPU, one_queue, receive_on_one_cpu},
    receiver::{Receiver, ReceiverKind},
    report::{Goal, ReportSection, Row, Unit},
    scale::Scale,
    timing,
};

/// The title of the section.
pub const TITLE: &str = "getting in during a flood";

const PORT: u16 = 22;
/// The first knock of the sequence.
const FIRST_KNOCK: u16 = 7000;
/// The number of sequences that are sent; the goal is that all succeed.
const SEQUENCES: u32 = 20;
/// The pause between two knocks, and before the connection.
const PAUSE: Duration = Duration::from_millis(5);
/// The time limit of an attempt to connect, in which its SYN is sent once.
const ATTEMPT: Duration = Duration::from_millis(100);
/// The CPU of the sender.
const CLIENT_CPU: usize = 0;

/// A flood: its port, and its rate in packets per second.
#[derive(Clone, Copy, Debug)]
struct Flood {
    name: &'static str,
    port: u16,
    rate: u32,
}

const FLOODS: &[Option<Flood>] = &[
    None,
    Some(Flood {
        name: "1 M spoofed SYNs a second to the protected port",
        port: PORT,
        rate: 1_000_000,
    }),
    Some(Flood {
        name: "100 k spoofed SYNs a second to the first knock",
        port: FIRST_KNOCK,
        rate: 100_000,
    }),
];

/// Measures every receiver during each flood.
pub fn measure(scale: Scale) -> Result<ReportSection> {
    let patience = scale.patience;
    let mut rows = Vec::new();
    for flood in FLOODS {
        let ours = succeed(ReceiverKind::KnockUser, *flood, patience)?;
        let what = flood.map_or("no flood", |flood| flood.name);
        let mut row = Row::new(
            format!("of {SEQUENCES} sequences, successful: {what}"),
            ours.into(),
            Unit::Count,
        )
        .goal(Goal::at_least(ours.into(), SEQUENCES.into(), Unit::Count));
        for kind in ReceiverKind::DOORS {
            // A receiver that loses every try takes longer.
            if scale.quick && is_one_packet(kind) {
                row = row.beside_or(kind.name(), Err("not with --quick".to_owned()));
                continue;
            }
            row = row.beside_or(
                kind.name(),
                match kind.missing() {
                    Some(why) => Err(why),
                    // fwknopd receives on its own port, which is not flooded.
                    None if is_one_packet(kind) && flood.is_some_and(|f| f.port == FIRST_KNOCK) => {
                        Err("knocks otherwise".to_owned())
                    }
                    None => Ok(succeed(kind, *flood, patience)?.into()),
                },
            );
        }
        rows.push(row);
    }
    let method = format!(
        "{SEQUENCES} correct sequences with {} ms between knocks, each from a new source, and a TCP \
         connection behind them (a SYN each {} ms, for {:.1} s), over a link of one queue. The flood (65 536 spoofed \
         sources) is sent by CPU {CLIENT_CPU}; CPU {SERVER_CPU} receives (threaded NAPI) and has the \
         server's daemon. The knocks share the queue's 256 places with the flood.",
        PAUSE.as_millis(),
        ATTEMPT.as_millis(),
        patience.as_secs_f64()
    );
    Ok(ReportSection {
        title: TITLE,
        method,
        rows,
    })
}

fn is_one_packet(kind: ReceiverKind) -> bool {
    matches!(kind, ReceiverKind::Fwknopd(_))
}

/// Returns the number of sequences that succeed.
fn succeed(kind: ReceiverKind, flood: Option<Flood>, patience: Duration) -> Result<u32> {
    let net = one_queue();
    let _server = Server::tcp(&net.server, &[PORT]);
    let receiver = Receiver::start(&net, kind)?;
    receive_on_one_cpu(&net)?;
    if let Some(process) = receiver.process() {
        timing::pin_thread(i32::try_from(process.id())?, SERVER_CPU)?;
    }
    let flow = flood.map(|flood| start(&net, flood)).transpose()?;
    let wire = Wire::open(&net.client);
    let mut successes = 0;
    for _ in 0..SEQUENCES {
        let source = net.new_source(Family::V4);
        for knock in receiver.knocks(&source)? {
            // A full link loses packets, as a wire would.
            let _lost = wire.try_send(&knock);
            // The pace of a client; it waits for no condition.
            thread::sleep(PAUSE);
        }
        let deadline = Instant::now() + patience;
        let mut connected = false;
        while !connected && Instant::now() < deadline {
            connected = source.connect(PORT, ATTEMPT).is_ok();
        }
        successes += u32::from(connected);
    }
    if let Some(flow) = flow {
        flow.stop()?;
    }
    Ok(successes)
}

fn start(net: &Net, flood: Flood) -> Result<FrameStream> {
    let (frame, plan) = spoofed_syns(flood.port);
    let before = ReceivedFrames::by(&net.server, SERVER_LINK);
    let flow = Generator::load()?.flow(net, CLIENT_CPU, frame, plan, flood.rate)?;
    wait::until("the flood arrives", || {
        let received = ReceivedFrames::by(&net.server, SERVER_LINK).since(before);
        received.frames > u64::from(flood.rate / 100)
    });
    Ok(flow)
}
