//! Sources that are blocked, and doors that only some sources may use.

use std::net::IpAddr;

use knock_common::{
    Address,
    Reason::{
        Blocked, FirstKnock, Granted, NextKnock, NoGrant, Opened, Ordinary, SourceNotAllowed,
        Trusted,
    },
    Verdict, blocked,
    layout::Features,
    spa::{layout::SpaKey, port::Otherwise, seal::Content},
};
use knock_tests::{
    frame::{Frame, SYN, eth},
    kernel::{Kernel, compile, now},
    spa,
};
use knock_user::{
    compile::Tables,
    kernel::program::LoadOptions,
    ledger::{BlockChange, Blocks},
    model::settings::Prefix,
};

use crate::table::{ack, check, row, syn, udp};

/// The sources of rows are in these prefixes, and their neighbours are not.
const SOURCES: &str = r#""198.18.0.0/18", "2001:db8:18::/50""#;

const DOORS: &str = r#"
    strict = false
    [[door]]
    name = "ssh"
    knock = ["tcp/7000", "tcp/9000", "tcp/8000"]
    open = ["tcp/22"]
"#;

#[test]
fn a_listed_prefix_reaches_nothing() {
    let text = format!("protect = [\"tcp/3306\"]\n{DOORS}\n[block]\nprefixes = [{SOURCES}]\n");
    check(
        &text,
        &[
            row("a protected port", [syn(22).is(Blocked)]),
            row("a protected port of no door", [syn(3306).is(Blocked)]),
            row("an unused port", [syn(80).is(Blocked), udp(53).is(Blocked)]),
            row("a connection", [ack(22).is(Blocked), ack(80).is(Blocked)]),
            row("knocks", [syn(7000).is(Blocked), syn(8000).is(Blocked)]),
            row(
                "another source",
                [
                    syn(80).neighbour().is(Ordinary),
                    syn(22).neighbour().is(NoGrant),
                    syn(7000).neighbour().is(FirstKnock).reported("ssh", 1),
                    syn(9000).neighbour().is(NextKnock).reported("ssh", 2),
                    syn(8000).neighbour().is(Opened).reported("ssh", 3),
                    syn(22).neighbour().is(Granted),
                ],
            ),
        ],
    );
}

#[test]
fn trust_wins_over_a_block() {
    let text =
        format!("trust = [{SOURCES}]\n{DOORS}\n[block]\nprefixes = [\"0.0.0.0/0\", \"::/0\"]\n");
    check(
        &text,
        &[row(
            "trusted and listed",
            [
                syn(22).is(Trusted),
                syn(80).is(Ordinary),
                syn(22).neighbour().is(Blocked),
            ],
        )],
    );
}

#[test]
fn a_dry_run_drops_no_packet_of_a_blocked_source() {
    let tables = compile(&format!(
        "{DOORS}\n[block]\nprefixes = [\"203.0.113.0/24\"]\n"
    ))
    .unwrap();
    let options = LoadOptions {
        dry_run: true,
        ..LoadOptions::default()
    };
    let mut kernel = Kernel::with(&tables, options).unwrap();
    let judged = kernel.judge(&v4().tcp(40_000, 22, SYN).bytes()).unwrap();
    assert_eq!((judged.reason, judged.verdict), (Blocked, Verdict::Pass));
}

/// The program without users: a packet of any protocol, in each kind of frame.
#[test]
fn a_block_by_a_command_lasts_until_its_end() {
    let tables = compile(DOORS).unwrap();
    assert!(!tables.features.has(Features::BLOCK));
    let mut kernel = Kernel::with(&tables, LoadOptions::default()).unwrap();
    let mut blocks = Blocks::default();
    let later = now().unwrap().millis() + 3_600_000;
    let past = now().unwrap().millis();
    let frames = [
        ("IPv4", v4()),
        ("VLAN", eth().vlan(7).ip4("203.0.113.7", "192.0.2.2")),
        (
            "two tags",
            eth().qinq(8).vlan(7).ip4("203.0.113.7", "192.0.2.2"),
        ),
        ("options", v4().options(10)),
        ("a later fragment", v4().fragment(100, false)),
    ];
    let is_blocked = |kernel: &mut Kernel, name: &str, expected: bool| {
        for (kind, frame) in frames.clone() {
            kernel.reset_event_limits().unwrap();
            let judged = kernel.judge(&frame.tcp(40_000, 80, SYN).bytes()).unwrap();
            let verdict = if expected {
                Verdict::Drop
            } else {
                Verdict::Pass
            };
            assert_eq!(judged.reason == Blocked, expected, "{name}, {kind}");
            assert_eq!(judged.verdict, verdict, "{name}, {kind}");
            let is_fragment = kind == "a later fragment";
            let reported = usize::from(expected && !is_fragment);
            assert_eq!(judged.events.len(), reported, "{name}, {kind}");
            for event in judged.events {
                let source: IpAddr = event.source.into();
                assert_eq!(source.to_string(), "203.0.113.7", "{name}, {kind}");
                assert_eq!(
                    (event.port, event.source_port),
                    (80, 40_000),
                    "{name}, {kind}"
                );
            }
        }
    };
    is_blocked(&mut kernel, "before", false);
    for (name, prefix, until_ms, expected) in [
        ("another source", "203.0.113.8", later, false),
        ("the source, which has expired", "203.0.113.7", past, false),
        ("the source's network", "203.0.113.0/24", later, true),
    ] {
        let change = blocks.block(self::prefix(prefix), until_ms, 0);
        carry_out(&mut kernel, &mut blocks, &change);
        is_blocked(&mut kernel, name, expected);
    }
    let change = blocks.expired(now().unwrap().millis());
    assert_eq!(change.remove.len(), 1);
    carry_out(&mut kernel, &mut blocks, &change);
    is_blocked(&mut kernel, "the expired one is removed", true);
    for prefix in ["203.0.113.0/24", "203.0.113.8"] {
        let change = blocks.unblock(self::prefix(prefix));
        carry_out(&mut kernel, &mut blocks, &change);
        is_blocked(&mut kernel, "unblocked", false);
    }
    assert_eq!(kernel.program().blocks().unwrap(), []);
}

#[test]
fn blocks_without_end_and_of_ipv6_are_found() {
    let mut kernel = Kernel::with(&compile(DOORS).unwrap(), LoadOptions::default()).unwrap();
    let mut blocks = Blocks::default();
    let change = blocks.block(prefix("2001:db8:7::/48"), blocked::Blocked::NEVER, 0);
    carry_out(&mut kernel, &mut blocks, &change);
    for (source, expected) in [
        ("2001:db8:7::1", Blocked),
        ("2001:db8:7:ffff::1", Blocked),
        ("2001:db8:8::1", Ordinary),
    ] {
        let frame = eth().ip6(source, "2001:db8::2").tcp(40_000, 80, SYN);
        let judged = kernel.judge(&frame.bytes()).unwrap();
        assert_eq!(judged.reason, expected, "{source}");
    }
    let judged = kernel.judge(&v4().tcp(40_000, 80, SYN).bytes()).unwrap();
    assert_eq!(judged.reason, Ordinary);
}

/// What the watchdog reads of frames is the same with and without blocks.
#[test]
fn the_record_of_frames_does_not_depend_on_blocks() {
    let mut kernel = Kernel::with(&compile(DOORS).unwrap(), LoadOptions::default()).unwrap();
    let mut blocks = Blocks::default();
    let seen = |kernel: &mut Kernel| -> Vec<u64> {
        let slots = (0..knock_common::seen::SLOTS).map(|slot| kernel.program().take_seen(slot));
        slots.map(|seen| seen.unwrap().arrived).collect()
    };
    let frame = eth()
        .ip4("203.0.113.9", "192.0.2.2")
        .tcp(40_000, 80, SYN)
        .bytes();
    for is_blocking in [false, true] {
        if is_blocking {
            let change = blocks.block(prefix("203.0.113.7"), blocked::Blocked::NEVER, 0);
            carry_out(&mut kernel, &mut blocks, &change);
        }
        seen(&mut kernel);
        assert_eq!(seen(&mut kernel).iter().sum::<u64>(), 0, "{is_blocking}");
        kernel.judge(&frame).unwrap();
        assert_eq!(seen(&mut kernel).iter().sum::<u64>(), 1, "{is_blocking}");
        let judged = kernel.judge(&v4().tcp(40_000, 80, SYN).bytes()).unwrap();
        let expected = if is_blocking { Blocked } else { Ordinary };
        assert_eq!(judged.reason, expected);
    }
}

#[test]
fn a_door_opens_for_sources_in_its_from() {
    let text = |from: &str| {
        format!(
            "strict = false\ndoor = [\
             {{ name = \"here\", knock = [\"tcp/7000\", \"tcp/9000\", \"tcp/8000\"], open = [\"tcp/22\"], from = [{from}] }},\
             {{ name = \"all\", knock = [\"tcp/7001\", \"tcp/9000\", \"tcp/8000\"], open = [\"tcp/22\"] }},\
             ]"
        )
    };
    check(
        &text(SOURCES),
        &[
            row(
                "in from",
                [
                    syn(7000).is(FirstKnock).reported("here", 1),
                    syn(9000).is(NextKnock).reported("here", 2),
                    syn(8000).is(Opened).reported("here", 3),
                    syn(22).is(Granted),
                ],
            ),
            row(
                "from elsewhere",
                [
                    syn(7000).neighbour().is(FirstKnock).reported("here", 1),
                    syn(9000).neighbour().is(NextKnock).reported("here", 2),
                    syn(8000)
                        .neighbour()
                        .is(SourceNotAllowed)
                        .reported("here", 3),
                    syn(22).neighbour().is(NoGrant),
                ],
            ),
            row(
                "another door, from elsewhere",
                [
                    syn(7001).neighbour().is(FirstKnock).reported("all", 1),
                    syn(9000).neighbour().is(NextKnock).reported("all", 2),
                    syn(8000).neighbour().is(Opened).reported("all", 3),
                    syn(22).neighbour().is(Granted),
                ],
            ),
        ],
    );
    assert!(!compile(DOORS).unwrap().features.has(Features::FROM));
}

#[test]
fn a_spa_packet_opens_from_and_for_sources_in_from() {
    const HERE: &str = "203.0.113.7";
    const ELSEWHERE: &str = "198.51.100.9";
    let mut tables = compile(
        "[[door]]\nname = \"ssh\"\nknock = [\"tcp/7000\", \"tcp/9000\", \"tcp/8000\"]\n\
         open = [\"tcp/22\"]\nfrom = [\"203.0.113.0/24\"]\n",
    )
    .unwrap();
    spa::add_port(&mut tables, 62_201, spa::port(Otherwise::Drop));
    spa::add_user(&mut tables, 1, SpaKey::FOR_OTHERS, &["ssh"]);
    for (name, from, wanted, expected) in [
        ("from there", HERE, None, Opened),
        ("from elsewhere", ELSEWHERE, None, SourceNotAllowed),
        (
            "from there, for elsewhere",
            HERE,
            Some(ELSEWHERE),
            SourceNotAllowed,
        ),
        (
            "from elsewhere, for there",
            ELSEWHERE,
            Some(HERE),
            SourceNotAllowed,
        ),
        (
            "from there, for a neighbour",
            HERE,
            Some("203.0.113.8"),
            Opened,
        ),
    ] {
        let mut kernel = started(&tables);
        let content = spa::content(spa::door("ssh")).unwrap();
        let source = wanted.map_or(Address::ANY, address);
        let packet = spa::client(1).seal(&Content { source, ..content });
        let frame = eth().ip4(from, "192.0.2.2");
        let frame = frame.datagram(40_000, 62_201, &packet).bytes();
        let (reason, answer) = kernel.answer(&frame).unwrap();
        assert_eq!(reason, expected, "{name}");
        if expected == SourceNotAllowed {
            assert_eq!(answer, None, "{name}: it is silent");
        }
        let opened = wanted.unwrap_or(from);
        let syn = eth().ip4(opened, "192.0.2.2").tcp(40_000, 22, SYN).bytes();
        let access = kernel.judge(&syn).unwrap().reason;
        let granted = if expected == Opened { Granted } else { NoGrant };
        assert_eq!(access, granted, "{name}");
    }
}

fn started(tables: &Tables) -> Kernel {
    let mut kernel = Kernel::with(tables, LoadOptions::default()).unwrap();
    spa::start(&mut kernel, tables).unwrap();
    kernel
}

fn v4() -> Frame {
    eth().ip4("203.0.113.7", "192.0.2.2")
}

fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

fn address(text: &str) -> Address {
    text.parse::<IpAddr>().unwrap().into()
}

fn carry_out(kernel: &mut Kernel, blocks: &mut Blocks, change: &BlockChange) {
    let program = kernel.program();
    program
        .change_blocks(&change.write, &change.remove)
        .unwrap();
    blocks.apply(change);
}
