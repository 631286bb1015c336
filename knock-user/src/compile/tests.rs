//! Tests of the compiler's output.

use std::time::Duration;

use knock_common::{
    GrantPrefix,
    layout::{DOORS_PER_NODE, EdgeKey, FlagClass, PortKind, Symbol},
    packet::Protocol,
};
use knock_sequence::{Knock, Ports};

use super::{ticks::ticks, *};
use crate::{
    config,
    host::Host,
    model::settings::{Effect, Verify},
};

pub(super) fn settings(text: &str) -> Settings {
    config::parse(text, "test.toml")
        .unwrap_or_else(|problems| panic!("{problems}"))
        .settings
}

fn tables_on(settings: &Settings, host: &Host) -> Tables {
    let mut drawn = 0;
    compile(
        settings,
        &mut Input {
            host,
            cell_key: [3; 12],
            known: &StableIds::default(),
            draw: &mut || {
                drawn += 1;
                drawn * 7919
            },
            sequences: &Sequences::new(),
            before: None,
        },
    )
    .unwrap()
}

fn tables(text: &str) -> Tables {
    tables_on(&settings(text), &Host::default())
}

fn knock(text: &str) -> Knock {
    text.parse().unwrap()
}

/// Returns the node at the end of a path, as the kernel side follows it: from a first knock, edge
/// by edge.
fn walk(tables: &Tables, path: &[&str]) -> u32 {
    let mut node = 0;
    for (index, step) in path.iter().enumerate() {
        let Knock { protocol, port } = knock(step);
        let symbol = Symbol::new(protocol, port);
        let inner = tables.nodes[node as usize].next_node();
        let has_knock = tables.nodes[inner as usize].symbol == symbol;
        let next = match inner {
            1.. if has_knock => Some(inner),
            _ => (tables.edge_entries())
                .find(|(key, _)| *key == EdgeKey::from_node(node, symbol))
                .map(|(_, next)| next),
        };
        node = match next {
            Some(next) if index > 0 => next,
            _ => tables.ports[&(protocol, port)].first,
        };
    }
    node
}

fn completed(tables: &Tables, path: &[&str]) -> Vec<String> {
    let node = tables.nodes[walk(tables, path) as usize];
    let doors = node.completes.iter().filter(|one_based| **one_based > 0);
    doors
        .map(|one_based| tables.names[usize::from(*one_based) - 1].clone())
        .collect()
}

const OVERLAPS: &str = r#"
[[door]]
name = "long"
knock = ["tcp/9", "udp/20", "tcp/3", "tcp/4"]
open = ["tcp/22"]
sequence_timeout = "10s"
[[door]]
name = "inner"
knock = ["udp/20", "tcp/3"]
open = ["tcp/22"]
sequence_timeout = "20s"
[[door]]
name = "branch"
knock = ["udp/20", "tcp/5", "tcp/1"]
open = ["tcp/23"]
sequence_timeout = "5s"
"#;

#[test]
fn overlapping_sequences_need_one_lookup_a_step() {
    let tables = tables(OVERLAPS);
    for (name, path, doors) in [
        (
            "whole",
            &["tcp/9", "udp/20", "tcp/3", "tcp/4"][..],
            &["long"][..],
        ),
        (
            "one inside another",
            &["tcp/9", "udp/20", "tcp/3"],
            &["inner"],
        ),
        (
            "out of one into another",
            &["tcp/9", "udp/20", "tcp/5", "tcp/1"],
            &["branch"],
        ),
        (
            "after a wrong knock",
            &["tcp/4", "udp/20", "tcp/3"],
            &["inner"],
        ),
        ("not yet", &["tcp/9", "udp/20"], &[]),
    ] {
        assert_eq!(completed(&tables, path), doors, "{name}");
    }
}

#[test]
fn a_repeated_knock_leads_on_only_in_a_sequence_that_repeats_it() {
    let tables = tables(
        r#"
[[door]]
name = "four"
knock = ["udp/9", "udp/2", "udp/2", "udp/2"]
open = ["tcp/22"]
[[door]]
name = "two"
knock = ["udp/2", "udp/2"]
open = ["tcp/23"]
[[door]]
name = "other"
knock = ["tcp/9", "udp/2", "tcp/3"]
open = ["tcp/24"]
"#,
    );
    let four = ["udp/9", "udp/2", "udp/2", "udp/2"];
    assert_eq!(completed(&tables, &four), ["four", "two"]);
    // A retransmitted SYN or datagram must not lead from "other" into "two".
    let other = walk(&tables, &["tcp/9", "udp/2"]);
    let away = |(from, symbol, _): &&(EdgeFrom, Symbol, u32)| {
        (*from, *symbol) == (EdgeFrom::Node(other), Symbol::new(Protocol::Udp, 2))
    };
    assert_eq!(tables.edges.iter().find(away), None);
}

#[test]
fn an_attempt_lasts_as_long_as_the_slowest_door_that_it_may_open() {
    let tables = tables(OVERLAPS);
    let longest = |path: &[&str]| tables.nodes[walk(&tables, path) as usize].sequence_timeout_ticks;
    let seconds = |seconds| ticks(Duration::from_secs(seconds));
    assert_eq!(longest(&["tcp/9"]), seconds(10));
    assert_eq!(longest(&["tcp/9", "udp/20"]), seconds(20));
    assert_eq!(longest(&["udp/20", "tcp/5"]), seconds(5));
    assert_eq!(longest(&["udp/20"]), seconds(20));
    assert_eq!(tables.config.attempt_max_ticks, seconds(20));
}

#[test]
fn ports_of_the_same_doors_form_one_port_group() {
    let tables = tables(
        r#"
protect = ["tcp/3306", "udp/5000-5009"]
[[door]]
name = "a"
knock = ["tcp/9", "udp/2", "tcp/3"]
open = ["tcp/22", "tcp/100-200"]
[[door]]
name = "b"
knock = ["tcp/9", "udp/2", "tcp/4"]
open = ["tcp/150-160"]
[[door]]
name = "c"
knock = ["tcp/9", "udp/2", "tcp/5"]
close = ["tcp/22", "tcp/140-170"]
[[door]]
name = "run"
knock = ["tcp/9", "udp/2", "tcp/6"]
open = []
on_open = ["true"]
"#,
    );
    let of = |door: usize| {
        let door = &tables.doors[door];
        let mut ports: Vec<String> = door.port_groups[..door.port_group_count as usize]
            .iter()
            .flat_map(|port_group| &tables.port_groups[port_group])
            .map(ToString::to_string)
            .collect();
        ports.sort();
        ports
    };
    let a = [
        "tcp/100-139",
        "tcp/140-149",
        "tcp/150-160",
        "tcp/161-170",
        "tcp/171-200",
        "tcp/22",
    ];
    assert_eq!(of(0), a);
    assert_eq!(of(1), ["tcp/150-160"]);
    assert_eq!(
        of(2),
        ["tcp/140-149", "tcp/150-160", "tcp/161-170", "tcp/22"]
    );
    assert_eq!(of(3), [""; 0]);
    assert_eq!(tables.doors[3].port_group_count, 1, "a grant of its own");
    // a alone, a+c, a+b+c, protect alone, run.
    assert_eq!(tables.port_groups.len(), 5);
    for (ports, kind) in [
        ("tcp/22", PortKind::Protected),
        ("udp/5009", PortKind::Protected),
        ("tcp/9", PortKind::Knock),
    ] {
        let Knock { protocol, port } = knock(ports);
        assert_eq!(tables.ports[&(protocol, port)].kind(), kind, "{ports}");
    }
    for (&(protocol, port), rule) in &tables.ports {
        let only: Ports = Knock { protocol, port }.into();
        if rule.kind() == PortKind::Protected {
            let ports = &tables.port_groups[&rule.port_group];
            assert!(ports.iter().any(|ports| ports.overlaps(only)), "{only}");
        }
    }
}

#[test]
fn listening_ports_are_exempt_unless_they_have_another_rule() {
    let text = r#"
[decoys]
count = 20
range = "40000-40040"
[next_line]
listen = "[::]:7001"
[[door]]
name = "ssh"
knock = ["tcp/9", "udp/2", "tcp/3"]
open = ["tcp/22"]
"#;
    let host = Host {
        ephemeral: 40_000..=40_020,
        served: ["tcp/22", "tcp/80", "tcp/9", "tcp/40030"].map(knock).into(),
        // A protected port stays protected, whatever it is translated to.
        rules: crate::host::Reading::of(
            ["tcp/8080", "tcp/22", "tcp/8100-8110", "tcp/10000-20000"]
                .map(|from| crate::host::Translation {
                    from: from.parse().unwrap(),
                    to: None,
                    port: Some((80, 80)),
                })
                .into(),
        ),
        ..Host::default()
    };
    let tables = tables_on(&settings(text), &host);
    let kind = |port| {
        tables
            .ports
            .get(&(Protocol::Tcp, port))
            .map(|rule| rule.kind())
    };
    assert_eq!(kind(22), Some(PortKind::Protected));
    assert_eq!(kind(80), Some(PortKind::Exempt));
    assert_eq!(kind(9), Some(PortKind::Knock));
    assert_eq!(kind(8080), Some(PortKind::Exempt), "a published port");
    assert_eq!(kind(8105), Some(PortKind::Exempt), "one of several");
    assert_eq!(kind(10_500), None, "one of too many");
    assert_eq!(kind(81), None);
    // 19 ports are free outside the ephemeral range, so it has to be used too.
    let decoys = (40_000..=40_040).filter(|&port| kind(port) == Some(PortKind::Decoy));
    assert_eq!(decoys.count(), 20);
    assert_eq!(kind(40_030), Some(PortKind::Exempt));
    assert_eq!(kind(7001), Some(PortKind::Exempt), "the central port");
}

/// Returns ten thousand doors of six knocks, each opening a range that ten others open too.
fn ten_thousand_doors(ports: impl Fn(u64) -> u16) -> Settings {
    let mut settings = settings("protect = [\"tcp/1\"]");
    let mut random = 1_u64;
    let mut next = || {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        random >> 33
    };
    settings.doors = (0..10_000)
        .map(|index: u16| Door {
            name: format!("door{index}"),
            dynamic: None,
            knock: (0..6)
                .map(|_| Knock {
                    protocol: if next() % 2 == 0 {
                        Protocol::Tcp
                    } else {
                        Protocol::Udp
                    },
                    port: 2000 + ports(next()),
                })
                .collect(),
            effect: Effect::Open(vec![Ports {
                protocol: Protocol::Tcp,
                first: 1 + index / 10,
                last: 1 + index / 10,
            }]),
            open_for: Duration::from_secs(30),
            open_for_max: Duration::from_secs(30),
            grant_prefix: GrantPrefix::SINGLE,
            sequence_timeout: Duration::from_secs(25),
            step_timeout: None,
            tcp_flags: FlagClass::SYN,
            on_open: None,
            on_close: None,
            target: None,
            verify: Verify::Packet,
            reply: false,
            knock_pass: false,
            group: None,
            from: Vec::new(),
        })
        .collect();
    settings
}

#[test]
fn ten_thousand_doors_compile() {
    // `cargo xtask bench user` measures the start with this many doors.
    let settings = ten_thousand_doors(|random| (random % 60_000) as u16);
    let tables = tables_on(&settings, &Host::default());
    assert!(tables.nodes.len() > 50_000, "{}", tables.nodes.len());
}

#[test]
fn sequences_with_too_many_transitions_are_refused() {
    // All begin with the same knock, and have it again and again.
    let mut settings = ten_thousand_doors(|random| (random % 3000) as u16);
    for door in &mut settings.doors {
        for index in [0, 2, 4] {
            door.knock[index] = knock("tcp/1999");
        }
    }
    let conflicts = check(&settings).unwrap_err();
    assert!(
        conflicts[0].reason.contains("share too many of them"),
        "{conflicts:?}"
    );
}

#[test]
fn the_limits_of_groups_per_door_and_doors_per_node_hold() {
    let mut text = String::new();
    for port in 1..=17 {
        text += &format!(
            "[[door]]\nname = \"d{port}\"\nknock = [\"tcp/{}\", \"udp/7\", \"tcp/8\"]\n\
             open = [\"tcp/{port}\"]\n",
            5000 + port
        );
    }
    text += "[[door]]\nname = \"all\"\nknock = [\"tcp/6000\", \"udp/7\", \"tcp/8\"]\n\
             open = [\"tcp/1-17\"]\n";
    let problems = config::parse(&text, "test.toml").unwrap_err().to_string();
    assert!(problems.contains("more than 16 groups"), "{problems}");
    assert_eq!(DOORS_PER_NODE, 4, "golden/endings.toml has one more");
}
