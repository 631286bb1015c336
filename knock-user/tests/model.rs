//! A second, trivial implementation of the rules of knocking: lists instead of an automaton, whole
//! ticks instead of packed words, a grant for each port instead of port groups. Random scripts must
//! have the same result there and in the kernel side's judge on compiled tables.

#![expect(
    clippy::unwrap_used,
    reason = "clippy.toml's exception does not reach helpers of tests"
)]

mod frame;
mod horrible;

use std::{net::IpAddr, time::Duration};

use knock_common::{
    GrantPrefix, Reason, judge,
    layout::FlagClass,
    packet::{Protocol, flag},
    sim::Sim,
    time::Moment,
};
use knock_sequence::{Knock, Ports};
use knock_user::{
    compile::{Input, compile, stable_ids::StableIds},
    host::Host,
    model::settings::{
        Control, Decoys, Door, Effect, Established, Exempt, Limits, Lockout, Mode, Scope, Settings,
        Verify,
    },
};
use proptest::prelude::*;

use self::{frame::Frame, horrible::Horrible};

const TICK_NS: u64 = 1 << 22;

/// Few enough that sequences share and overlap. Doors of the first kind need a SYN, of the second
/// a FIN; flags belong to the port.
const ALPHABETS: [[Knock; 4]; 2] = [
    [tcp(11), tcp(12), udp(11), udp(12)],
    [tcp(13), tcp(14), udp(11), udp(12)],
];
const FLAGS: [FlagClass; 2] = [
    FlagClass::SYN,
    FlagClass {
        mask: flag::FIN | flag::SYN,
        value: flag::FIN,
    },
];
const PROTECTED: [u16; 4] = [20, 21, 22, 23];
const DECOY: Knock = tcp(30);
const EXEMPT: Knock = tcp(40);
const ORDINARY: [Knock; 2] = [tcp(50), udp(50)];

const SOURCES: [&str; 3] = ["203.0.113.1", "203.0.113.2", "2001:db8::1"];
/// The first of each family is a target of doors.
const DESTINATIONS: [[&str; 2]; 2] = [
    ["192.0.2.1", "192.0.2.9"],
    ["2001:db8:1::1", "2001:db8:1::9"],
];

proptest! {
    #![proptest_config(config())]

    #[test]
    fn the_judge_agrees_with_the_horrible_model(
        settings in settings(),
        script in prop::collection::vec(packet(), 1..60),
        // Not in the first seconds after boot, when the presence filter is still empty; kept times wrap at 2^23.
        start in prop::sample::select(vec![1000_u64, 1 << 20, (1 << 23) - 300]),
        later in 0..6000_u64,
    ) {
        let Some(sim) = world(&settings) else {
            return Err(TestCaseError::reject("the doors contradict each other"));
        };
        let mut model = Horrible::new(&settings);
        let mut intents = [Intent::default(); 3];
        let mut tick = start;
        for (number, packet) in script.iter().enumerate() {
            tick += packet.after;
            at(&sim, tick);
            let source = address(SOURCES[packet.source]);
            let family = usize::from(source.is_ipv6());
            let destination = address(DESTINATIONS[family][usize::from(!packet.target)]);
            let (to, flags) = aim(packet.touch, &settings.doors, &mut intents[packet.source]);
            let group = matches!(packet.touch, PacketPurpose::Group);
            let frame = Frame { source, destination, to, flags, group };
            let wanted = model.judge(&frame, tick);
            let found = judge(frame.bytes().as_slice(), &sim);
            prop_assert!(
                wanted.contains(&found),
                "packet {}: {:?} at tick {}: {:?}, but the model expects {:?}",
                number, frame, tick, found, wanted
            );
            compare_access(&sim, &model, tick, 0)?;
        }
        compare_access(&sim, &model, tick, later)?;
    }
}

const fn tcp(port: u16) -> Knock {
    Knock {
        protocol: Protocol::Tcp,
        port,
    }
}

const fn udp(port: u16) -> Knock {
    Knock {
        protocol: Protocol::Udp,
        port,
    }
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn port(port: u16) -> Ports {
    tcp(port).into()
}

/// A door as proptest draws it.
#[derive(Clone, Debug)]
struct Sketch {
    alphabet: usize,
    knocks: Vec<usize>,
    opens: Vec<usize>,
    closes: bool,
    target: Option<usize>,
    sequence_timeout_ms: u64,
    open_for_s: u64,
    step_ms: Option<u64>,
}

fn sketch() -> impl Strategy<Value = Sketch> {
    (
        prop::sample::select(vec![0, 0, 0, 1]),
        prop::collection::vec(0..4_usize, 1..=4),
        prop::collection::vec(0..4_usize, 0..=2),
        prop::bool::weighted(0.15),
        prop::sample::select(vec![None, None, None, Some(0), Some(1)]),
        prop::sample::select(vec![500, 1000, 3000]),
        1..20_u64,
        prop::sample::select(vec![None, None, None, None, None, None, Some(200)]),
    )
        .prop_map(
            |(
                alphabet,
                knocks,
                opens,
                closes,
                target,
                sequence_timeout_ms,
                open_for_s,
                step_ms,
            )| Sketch {
                alphabet,
                knocks,
                opens,
                closes,
                target,
                sequence_timeout_ms,
                open_for_s,
                step_ms,
            },
        )
}

fn door(index: usize, sketch: &Sketch, everyones_step: Option<u64>) -> Door {
    let ports: Vec<Ports> = sketch.opens.iter().map(|&i| port(PROTECTED[i])).collect();
    let step = sketch.step_ms.or(everyones_step);
    Door {
        name: format!("door{index}"),
        dynamic: None,
        knock: sketch
            .knocks
            .iter()
            .map(|&i| ALPHABETS[sketch.alphabet][i])
            .collect(),
        effect: if sketch.closes && !ports.is_empty() {
            Effect::Close(ports)
        } else {
            Effect::Open(ports)
        },
        open_for: Duration::from_secs(sketch.open_for_s),
        grant_prefix: GrantPrefix::SINGLE,
        open_for_max: Duration::from_secs(sketch.open_for_s),
        sequence_timeout: Duration::from_millis(sketch.sequence_timeout_ms),
        step_timeout: step.map(Duration::from_millis),
        tcp_flags: FLAGS[sketch.alphabet],
        on_open: None,
        on_close: None,
        target: sketch.target.map(|i| address(DESTINATIONS[i][0])),
        verify: Verify::Packet,
        reply: false,
        knock_pass: false,
        group: None,
        from: Vec::new(),
    }
}

fn settings() -> impl Strategy<Value = Settings> {
    (
        prop::collection::vec(sketch(), 1..=6),
        prop::sample::select(vec![None, Some(200)]),
        prop::bool::weighted(0.8),
        prop::option::weighted(0.3, (1..4_u16, 1..4_u64, any::<bool>())),
        // Doors that open the same port agree on it.
        prop::sample::select(vec![GrantPrefix::SINGLE, GrantPrefix::new(24, 64)]),
    )
        .prop_map(|(sketches, step, strict, lockout, grant_prefix)| {
            let mut doors: Vec<Door> = Vec::new();
            for (index, sketch) in sketches.iter().enumerate() {
                let door = Door {
                    grant_prefix,
                    ..door(index, sketch, step)
                };
                let same = |other: &Door| {
                    other.knock == door.knock
                        && (other.target == door.target
                            || other.target.is_none()
                            || door.target.is_none())
                };
                if !doors.iter().any(same) {
                    doors.push(door);
                }
            }
            Settings {
                spa: None,
                users: Vec::new(),
                interfaces: Vec::new(),
                mode: Mode::Auto,
                protect: PROTECTED.map(port).to_vec(),
                trust: Vec::new(),
                block: Vec::new(),
                strict,
                exempt: Exempt::Listed(vec![EXEMPT.into()]),
                established: Established {
                    keep: true,
                    idle: Duration::from_secs(60),
                    idle_udp: Duration::from_secs(60),
                },
                lockout: lockout.map(|(failures, seconds, global)| Lockout {
                    failures,
                    duration: Duration::from_secs(seconds),
                    scope: if global { Scope::Global } else { Scope::Source },
                }),
                limits: Limits::default(),
                decoys: Decoys::Listed(vec![DECOY.into()]),
                control: Control::default(),
                next_line: None,
                metrics: None,
                fleet: None,
                doors,
            }
        })
}

/// The purpose of a packet; knocks are taken from the sequences, so that attempts get far.
#[derive(Clone, Copy, Debug)]
enum PacketPurpose {
    /// Knock `at` of a door.
    OfDoor {
        door: usize,
        at: usize,
    },
    /// The knock that comes after this source's last one in the door of that.
    Next,
    /// The last knock again.
    Again,
    /// A knock of an alphabet.
    Any {
        alphabet: usize,
        at: usize,
    },
    /// A knock port with the wrong flags.
    OtherFlags,
    Decoy,
    Exempt,
    Ordinary(usize),
    /// To an unused port, in the middle of a connection.
    OrdinaryAck,
    Protected(usize),
    /// A knock sent to a group of hosts.
    Group,
}

#[derive(Clone, Copy, Debug)]
struct ModelPacket {
    /// Ticks since the one before.
    after: u64,
    source: usize,
    /// Whether to the address that doors have as a target.
    target: bool,
    touch: PacketPurpose,
}

fn touch() -> impl Strategy<Value = PacketPurpose> {
    prop_oneof![
        8 => (0..6_usize, 0..4_usize).prop_map(|(door, at)| PacketPurpose::OfDoor { door, at }),
        24 => Just(PacketPurpose::Next),
        3 => Just(PacketPurpose::Again),
        4 => (0..2_usize, 0..4_usize).prop_map(|(alphabet, at)| PacketPurpose::Any { alphabet, at }),
        1 => Just(PacketPurpose::OtherFlags),
        1 => Just(PacketPurpose::Decoy),
        1 => Just(PacketPurpose::Exempt),
        1 => (0..2_usize).prop_map(PacketPurpose::Ordinary),
        1 => Just(PacketPurpose::OrdinaryAck),
        1 => (0..4_usize).prop_map(PacketPurpose::Protected),
        1 => Just(PacketPurpose::Group),
    ]
}

fn packet() -> impl Strategy<Value = ModelPacket> {
    let after = prop_oneof![
        10 => 0..20_u64,
        3 => 20..200_u64,
        // About step_timeout and within.
        2 => prop::sample::select(vec![47, 48, 49, 119, 120, 121, 238, 239, 240]),
        1 => 600..1500_u64,
    ];
    (
        after,
        prop::sample::select(vec![0, 0, 0, 1, 2]),
        prop::bool::weighted(0.6),
        touch(),
    )
        .prop_map(|(after, source, target, touch)| ModelPacket {
            after,
            source,
            target,
            touch,
        })
}

/// The script's way from drawn touches to ports: what each source last meant to do.
#[derive(Clone, Copy, Default)]
struct Intent {
    door: usize,
    at: usize,
    last: Option<Knock>,
}

/// Returns the port that a touch is at, and the flags if it is TCP.
fn aim(touch: PacketPurpose, doors: &[Door], intent: &mut Intent) -> (Knock, u8) {
    let flags = |knock: Knock| match knock.port {
        13 | 14 => flag::FIN,
        _ => flag::SYN,
    };
    let of_door = |intent: &mut Intent, door: usize, at: usize| {
        let door = door % doors.len();
        let sequence = &doors[door].knock;
        let at = at % sequence.len();
        let knock = sequence[at];
        *intent = Intent {
            door,
            at: at + 1,
            last: Some(knock),
        };
        (knock, flags(knock))
    };
    match touch {
        PacketPurpose::OfDoor { door, at } => of_door(intent, door, at),
        PacketPurpose::Next => {
            let Intent { door, at, .. } = *intent;
            of_door(intent, door, at)
        }
        PacketPurpose::Again => {
            let knock = intent.last.unwrap_or(ALPHABETS[0][0]);
            (knock, flags(knock))
        }
        PacketPurpose::Any { alphabet, at } => {
            let knock = ALPHABETS[alphabet][at];
            intent.last = Some(knock);
            (knock, flags(knock))
        }
        PacketPurpose::OtherFlags => (tcp(11), flag::SYN | flag::ACK),
        PacketPurpose::Decoy => (DECOY, flag::SYN),
        PacketPurpose::Exempt => (EXEMPT, flag::SYN),
        PacketPurpose::Ordinary(which) => (ORDINARY[which], flag::SYN),
        PacketPurpose::OrdinaryAck => (ORDINARY[0], flag::ACK),
        PacketPurpose::Protected(which) => (tcp(PROTECTED[which]), flag::SYN),
        PacketPurpose::Group => (udp(11), 0),
    }
}

/// Compiles settings into a world in memory; `None` if they contradict themselves.
fn world(settings: &Settings) -> Option<Sim> {
    let tables = compile(
        settings,
        &mut Input {
            host: &Host::default(),
            cell_key: std::array::from_fn(|i| (i as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)),
            known: &StableIds::default(),
            draw: &mut || 0,
            sequences: &knock_user::model::settings::Sequences::new(),
            before: None,
        },
    );
    tables.ok().map(|tables| tables.simulate())
}

fn at(sim: &Sim, tick: u64) {
    sim.set_now(Moment::from_nanos(tick * TICK_NS));
}

/// Checks that both sides admit the same sources some ticks later.
fn compare_access(
    sim: &Sim,
    model: &Horrible<'_>,
    tick: u64,
    later: u64,
) -> Result<(), TestCaseError> {
    at(sim, tick + later);
    let now_ms = (tick + later) * TICK_NS / 1_000_000;
    for source in SOURCES.map(address) {
        for destination in DESTINATIONS[usize::from(source.is_ipv6())].map(address) {
            for port in PROTECTED {
                let frame = Frame {
                    source,
                    destination,
                    to: tcp(port),
                    flags: flag::SYN,
                    group: false,
                };
                let wanted = match model.may_connect(source, destination, port, now_ms) {
                    true => Reason::Granted,
                    false => Reason::NoGrant,
                };
                let found = judge(frame.bytes().as_slice(), sim);
                prop_assert_eq!(found, wanted, "{} to {} tcp/{}", source, destination, port);
            }
        }
    }
    at(sim, tick);
    Ok(())
}

/// Returns the settings: more cases than by default, or as many as `PROPTEST_CASES` sets.
fn config() -> ProptestConfig {
    let default = ProptestConfig::default();
    ProptestConfig {
        cases: default.cases.max(2000),
        failure_persistence: None,
        max_global_rejects: u32::MAX,
        ..default
    }
}
