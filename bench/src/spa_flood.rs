//! Measures whether clients get in with one packet during a flood of packets to the same port, beside fwknopd.

use std::time::{Duration, Instant};

use anyhow::{Error, Result};
use knock_sequence::spa::PORT;
use knock_tests::{
    net::{Family, Net, SERVER_LINK},
    server::Server,
    wait,
    wire::Wire,
};

use crate::{
    drop_cost::spoofed_datagrams,
    fwknop::FwknopdMode,
    generator::{FrameStream, Generator, ReceivedFrames},
    link::{SERVER_CPU, one_queue, receive_on_one_cpu},
    receiver::ReceiverKind,
    report::{Goal, ReportSection, Row, Unit},
    scale::Scale,
    spa_host::{ATTEMPT, Format, Host, Kind, PAUSE, SSH, gets_in},
    timing, usage,
};

/// The title of the section.
pub const TITLE: &str = "getting in with one packet during a flood";

/// The number of packets that are sent in each format; the goal is that all open.
const PACKETS: u32 = 20;
/// The CPU of the sender.
const CLIENT_CPU: usize = 0;
const MILLION: u32 = 1_000_000;

/// A flood: its packets, and how many a second.
#[derive(Clone, Copy, Debug)]
struct Flood {
    name: &'static str,
    kind: Kind,
    rate: u32,
    /// Whether one CPU judges packets faster than they come: only then does each right packet find room in the queue.
    fits: bool,
}

const FLOODS: &[Option<Flood>] = &[
    None,
    Some(Flood {
        name: "1 M packets of noise a second",
        kind: Kind::Noise,
        rate: MILLION,
        fits: true,
    }),
    Some(Flood {
        name: "1 M copies of a used packet a second",
        kind: Kind::Copy(Format::Knock),
        rate: MILLION,
        fits: true,
    }),
    Some(Flood {
        name: "500 k forgeries with the host's public key a second",
        kind: Kind::Forgery(Format::Knock),
        rate: 500_000,
        fits: true,
    }),
    Some(Flood {
        name: "400 k copies of a used packet of fwknop a second",
        kind: Kind::Copy(Format::Fwknop),
        rate: 400_000,
        fits: true,
    }),
    Some(Flood {
        name: "400 k forgeries of fwknop a second",
        kind: Kind::Forgery(Format::Fwknop),
        rate: 400_000,
        fits: true,
    }),
    Some(Flood {
        name: "1 M forgeries with the host's public key a second",
        kind: Kind::Forgery(Format::Knock),
        rate: MILLION,
        fits: false,
    }),
    Some(Flood {
        name: "1 M copies of a used packet of fwknop a second",
        kind: Kind::Copy(Format::Fwknop),
        rate: MILLION,
        fits: false,
    }),
    Some(Flood {
        name: "1 M forgeries of fwknop a second",
        kind: Kind::Forgery(Format::Fwknop),
        rate: MILLION,
        fits: false,
    }),
];

/// Measures every receiver during each flood.
pub fn measure(scale: Scale) -> Result<ReportSection> {
    let mut admitted = Vec::new();
    let mut costs = Vec::new();
    let floods = FLOODS
        .iter()
        .filter(|flood| !scale.quick || flood.is_none_or(|flood| flood.fits));
    for flood in floods {
        let ours = Siege::of(None, *flood, scale.patience)?;
        let what = flood.map_or("no flood", |flood| flood.name);
        let [knock, fwknop] = [ours.knock, ours.fwknop].map(f64::from);
        let mut row = Row::new(
            format!("of {PACKETS} packets, admitted: {what}"),
            knock,
            Unit::Count,
        );
        if flood.is_none_or(|flood| flood.fits) {
            row = row
                .goal(Goal::at_least(knock, PACKETS.into(), Unit::Count))
                .goal(Goal::at_least(fwknop, PACKETS.into(), Unit::Count));
        }
        row = row.beside("knock-user, packets of fwknop", fwknop);
        let mut cost = Row::new(
            format!("CPU of the receiver: {what}"),
            ours.cpu,
            Unit::Percent,
        );
        let mut rate = Row::new(format!("received a second: {what}"), ours.rate, Unit::Mpps);
        for mode in [FwknopdMode::Udp, FwknopdMode::Pcap] {
            let kind = ReceiverKind::Fwknopd(mode);
            let theirs = match (kind.missing(), flood.map(|flood| flood.kind)) {
                // A receiver that loses every packet takes longer.
                (None, _) if scale.quick => Err("not with --quick".to_owned()),
                (Some(why), _) => Err(why),
                (None, Some(Kind::Copy(Format::Knock) | Kind::Forgery(Format::Knock))) => {
                    Err("not its format".to_owned())
                }
                (None, _) => Ok(Siege::of(Some(mode), *flood, scale.patience)?),
            };
            let figure = |of: fn(&Siege) -> f64| theirs.as_ref().map(of).map_err(String::clone);
            row = row.beside_or(kind.name(), figure(|siege| siege.fwknop.into()));
            cost = cost.beside_or(kind.name(), figure(|siege| siege.cpu));
            rate = rate.beside_or(kind.name(), figure(|siege| siege.rate));
        }
        admitted.push(row);
        costs.push(cost);
        if flood.is_some() {
            costs.push(rate);
        }
    }
    let method = format!(
        "{PACKETS} packets in each format, each sent once from a new source, and {} ms later a TCP connection (a SYN \
         each {} ms, for {:.1} s), over a link of one queue. The flood to the same port comes from 65 536 spoofed \
         sources and is sent by CPU {CLIENT_CPU}; CPU {SERVER_CPU} receives (threaded NAPI) and has the server's \
         daemon. CPU is that of the receiving thread and the daemon, without the programs that fwknopd starts. One \
         user has a key of each format. Packets share the queue's 256 places with the flood: where CPU {SERVER_CPU} \
         receives less than is sent, the queue is full, and what is lost there no program sees.",
        PAUSE.as_millis(),
        ATTEMPT.as_millis(),
        scale.patience.as_secs_f64()
    );
    Ok(ReportSection {
        title: TITLE,
        method,
        rows: admitted.into_iter().chain(costs).collect(),
    })
}

/// The result of a flood.
#[derive(Clone, Copy, Debug)]
struct Siege {
    /// Packets of knock-client that opened the door.
    knock: u32,
    /// Packets of fwknop that opened the door.
    fwknop: u32,
    /// The share of a CPU that receiving took, in percent.
    cpu: f64,
    /// Millions of packets received a second.
    rate: f64,
}

impl Siege {
    /// Floods fwknopd in a mode, or `knock-user`.
    fn of(peer: Option<FwknopdMode>, flood: Option<Flood>, patience: Duration) -> Result<Self> {
        let net = one_queue();
        let _server = Server::tcp(&net.server, &[SSH]);
        let host = Host::start(&net, peer)?;
        let receiver = u32::try_from(receive_on_one_cpu(&net)?)?;
        let daemon = host.process().id();
        timing::pin_thread(i32::try_from(daemon)?, SERVER_CPU)?;
        let wire = Wire::open(&net.client);
        let flow = flood
            .map(|flood| start(&net, flood, &host.flood(&wire, flood.kind, patience)?))
            .transpose()?;
        let spent = || Ok::<_, Error>(usage::cpu_time(receiver)? + usage::cpu_time(daemon)?);
        let received = || ReceivedFrames::by(&net.server, SERVER_LINK);
        let (began, spent_before, received_before) = (Instant::now(), spent()?, received());
        let admits = |format| -> Result<u32> {
            let source = net.new_source(Family::V4);
            let packet = host.packet(&source, format)?;
            Ok(gets_in(&wire, &source, &packet, patience).into())
        };
        let [mut knock, mut fwknop] = [0; 2];
        for _ in 0..PACKETS {
            if peer.is_none() {
                knock += admits(Format::Knock)?;
            }
            fwknop += admits(Format::Fwknop)?;
        }
        let wall = began.elapsed().as_secs_f64();
        // The time of a thread of the daemon that has ended meanwhile is no longer in the sum.
        let spent = spent()?.saturating_sub(spent_before);
        let cpu = spent.as_secs_f64() / wall * 100.0;
        let rate = received().since(received_before).frames as f64 / wall / 1e6;
        if let Some(flow) = flow {
            flow.stop()?;
        }
        Ok(Self {
            knock,
            fwknop,
            cpu,
            rate,
        })
    }
}

fn start(net: &Net, flood: Flood, content: &[u8]) -> Result<FrameStream> {
    let (frame, plan) = spoofed_datagrams(PORT, content);
    let before = ReceivedFrames::by(&net.server, SERVER_LINK);
    let flow = Generator::load()?.flow(net, CLIENT_CPU, frame, plan, flood.rate)?;
    wait::until("the flood arrives", || {
        let received = ReceivedFrames::by(&net.server, SERVER_LINK).since(before);
        received.frames > u64::from(flood.rate / 100)
    });
    Ok(flow)
}
