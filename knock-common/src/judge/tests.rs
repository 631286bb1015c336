use std::{rc::Rc, vec::Vec};

use proptest::prelude::*;

use super::*;
use crate::{
    Address, Env,
    env::{Bucket as _, Table as _, Word as _},
    layout::{
        Config, DoorEntry, EdgeKey, FlagClass, FlowKey, GrantKey, Node, PortRule, ProgressKey,
        Symbol,
    },
    packet::{Protocol, flag},
    presence::ALWAYS,
    sim::Sim,
};

const NODES: u32 = 6;

fn protocol() -> impl Strategy<Value = Protocol> {
    prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp)]
}

fn node() -> impl Strategy<Value = Node> {
    (
        protocol(),
        0..4_u16,
        any::<[u32; 2]>(),
        any::<[u8; 2]>(),
        any::<[u8; 4]>(),
    )
        .prop_map(
            |(
                protocol,
                port,
                [sequence_timeout_ticks, step_timeout_ticks],
                [depth, via_door],
                completes,
            )| Node {
                symbol: Symbol::new(protocol, port),
                sequence_timeout_ticks,
                step_timeout_ticks,
                depth: depth % 4,
                via_door: via_door.into(),
                completes: completes.map(|door| u16::from(door % 4)),
                ..Node::default()
            },
        )
}

fn door() -> impl Strategy<Value = DoorEntry> {
    any::<(u64, u32, bool, bool, u16, u32, [u16; 16])>().prop_map(
        |(
            open_for_ms,
            sequence_timeout_ticks,
            target_id,
            closes,
            port_group_count,
            sequence_id,
            port_groups,
        )| DoorEntry {
            open_for_ms: open_for_ms >> 24,
            good_until_ms: open_for_ms,
            sequence_id: sequence_id % 3,
            sequence_timeout_ticks,
            target_id: target_id.into(),
            closes: closes.into(),
            is_shared: port_group_count & 1,
            port_group_count,
            port_groups,
            ..DoorEntry::default()
        },
    )
}

fn rule() -> impl Strategy<Value = PortRule> {
    prop_oneof![
        Just(PortRule::default()),
        Just(PortRule::EXEMPT),
        Just(PortRule::DECOY),
        any::<u16>().prop_map(PortRule::protected),
        any::<(u8, u32)>().prop_map(|(class, first)| PortRule::knock(class, first % NODES)),
        (0..NODES).prop_map(|first| PortRule::knock(0, first).with_handshake()),
        Just(PortRule::DECOY.with_handshake()),
        (0..NODES).prop_map(|first| PortRule::knock(0, first).passing_knocks()),
    ]
}

/// Maps with anything in them, whether user space would write it or not.
fn env() -> impl Strategy<Value = Sim> {
    let rules = prop::collection::vec(rule(), 8);
    let nodes = prop::collection::vec(node(), NODES as usize);
    let edges = prop::collection::vec((0..NODES, 0..8_u16, 0..NODES + 2), 0..20);
    let doors = prop::collection::vec(door(), 3);
    let words = any::<([u64; 4], [u64; 8], bool)>();
    let numbers = any::<(u32, u64, [u64; 12], u32, u32)>();
    (rules, nodes, edges, doors, words, numbers).prop_map(
        |(
            rules,
            nodes,
            edges,
            doors,
            (words, cells, looks),
            (features, now, cell_key, failures, attempt_max),
        )| {
            let ports = (0..).zip(rules);
            let symbol = |port: u16| match port {
                0..4 => Symbol::new(Protocol::Tcp, port),
                _ => Symbol::new(Protocol::Udp, port - 4),
            };
            let sim = Sim {
                features: Features(features),
                config: Config {
                    confirm_by_ms: words[1],
                    fleet_until_ms: words[0],
                    cell_key,
                    cookie_keys: [[words[0], words[1]], [words[2], words[3]]],
                    spa_window_ns: words[2],
                    lockout_failures: failures,
                    lockout_ms: words[3],
                    flow_idle_ms: [words[2], words[0]],
                    attempt_max_ticks: attempt_max,
                    flag_classes: [FlagClass::SYN; 16],
                    first_knocks_shift: failures >> 8,
                    lockouts_shift: attempt_max >> 8,
                },
                ports: ports
                    .map(|(port, rule): (u32, _)| ((port & 4) << 14 | port & 3, rule))
                    .collect(),
                nodes,
                edges: edges
                    .into_iter()
                    .map(|(from, port, to)| (EdgeKey::from_node(from, symbol(port)), to))
                    .collect(),
                doors,
                ..Sim::default()
            };
            sim.now.set(now);
            let source = Address::from_v4([198, 51, 100, 1]);
            let [progress, grant, flow, failed] = words;
            sim.progress.insert(
                &ProgressKey {
                    source,
                    target_id: 0,
                    padding: 0,
                },
                progress,
            );
            for bucket in [0, 1] {
                let bucket = Env::lockouts(&sim, bucket).unwrap();
                for (way, cell) in cells.iter().enumerate() {
                    bucket.cell(way).unwrap().store(cell ^ failed);
                }
            }
            for port_group in 0..2 {
                sim.allow.insert(
                    &GrantKey {
                        source,
                        port_group,
                        target_id: 0,
                    },
                    grant,
                );
            }
            for (port, protocol) in (0..8).zip([0, 0, 0, 0, 1, 1, 1, 1]) {
                let key = FlowKey {
                    source,
                    source_port: 40_000,
                    port: port % 4,
                    target_id: 0,
                    protocol,
                };
                sim.flows.insert(&key, flow);
            }
            for bucket in 0..4 {
                let bucket = sim.bucket(bucket).unwrap();
                for (way, cell) in cells.iter().enumerate() {
                    bucket.cell(way).unwrap().store(*cell);
                }
            }
            if looks {
                sim.presence(crate::presence::slot(source))
                    .unwrap()
                    .store(ALWAYS);
            }
            sim
        },
    )
}

/// Returns a packet of the one source to one of the ports 0 to 3.
fn frame(protocol: Protocol, port: u8, flags: u8) -> Vec<u8> {
    let frame = knock_frame::eth().ip4("198.51.100.1", "192.0.2.1");
    match protocol {
        Protocol::Tcp => frame.tcp(40_000, port.into(), flags),
        Protocol::Udp => frame.udp(40_000, port.into()),
    }
    .bytes()
}

#[test]
fn knocks_pass_where_their_doors_say_so() {
    let on = Features::KNOCK_PASS;
    let knock = PortRule::knock(0, 0);
    for (name, features, rule, passes) in [
        ("knock_pass", on, knock.passing_knocks(), true),
        ("another port's door has it", on, knock, false),
        (
            "no door has it",
            Features::default(),
            knock.passing_knocks(),
            false,
        ),
        ("a decoy", on, PortRule::DECOY, false),
        ("a protected port", on, PortRule::protected(0), false),
    ] {
        let sim = Sim {
            features,
            ports: [(2, rule)].into(),
            config: Config {
                flag_classes: [FlagClass::SYN; 16],
                ..Config::default()
            },
            ..Sim::default()
        };
        let judgement = decide(&frame(Protocol::Tcp, 2, flag::SYN)[..], &sim);
        let expected = match passes {
            true => Verdict::Pass,
            false => Verdict::Drop,
        };
        assert_eq!(judgement.verdict(), expected, "{name}");
        assert_eq!(judgement.reason.verdict(), Verdict::Drop, "{name}");
    }
}

#[test]
fn without_a_confirmation_everything_passes() {
    let on_trial = Features::CONFIRM;
    let others = Features::default();
    for (name, features, now_ms, confirm_by_ms, expected) in [
        ("in time", on_trial, 59_999, 60_000, Reason::NoGrant),
        ("too late", on_trial, 60_000, 60_000, Reason::TrialExpired),
        ("confirmed", on_trial, 60_000, u64::MAX, Reason::NoGrant),
        ("not awaited", others, 60_000, 60_000, Reason::NoGrant),
    ] {
        let sim = Sim {
            features,
            config: Config {
                confirm_by_ms,
                ..Config::default()
            },
            ports: [(2, PortRule::protected(0))].into(),
            ..Sim::default()
        };
        sim.now.set(now_ms * 1_000_000);
        let frame = frame(Protocol::Tcp, 2, flag::SYN);
        assert_eq!(judge(&frame[..], &sim), expected, "{name}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(5_000))]

    /// No panic, no overflow, and an event only where one may be.
    #[test]
    fn any_packets_in_any_world(
        env in env(),
        packets in prop::collection::vec((protocol(), 0..4_u8, any::<u8>(), 0_u64..1 << 40), 1..12),
    ) {
        for (protocol, port, flags, later) in packets {
            env.now.set(env.now.get().wrapping_add(later));
            for flags in [flags, flag::SYN] {
                env.events.take();
                let reason = judge(&frame(protocol, port, flags)[..], &env);
                if reason.reporting() == Reporting::Never {
                    prop_assert!(env.events.borrow().is_empty());
                }
            }
        }
    }

    #[test]
    fn any_frame_is_judged_without_a_panic(env in env(), bytes in prop::collection::vec(any::<u8>(), 0..120)) {
        let env = Rc::new(env);
        judge(&bytes[..], &*env);
        // Bytes at random are rarely IP.
        let ethernet = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45];
        judge(&[&ethernet[..], &bytes].concat()[..], &*env);
    }
}
