//! Sequences: the order of knocks, their times, and packets between them.

use knock_common::Reason::{
    self, Decoy, Duplicate, FirstKnock, Granted, NextKnock, NoGrant, Opened, Ordinary, OtherFlags,
    OutOfSequence, Refreshed, Restarted, StrayPort, TooLate, WrongKnock,
};
use knock_tests::frame::{ACK, FIN, RST, SYN, SYN_ACK, URG};
use knock_user::kernel::program::LoadOptions;

use crate::table::{
    FrameFamily,
    RowStep::{self, Wait},
    Table, ack, check, row, syn, tcp, udp,
};

const DOORS: &str = r#"
    protect = ["tcp/3306"]
    exempt = ["tcp/80", "udp/443"]
    decoys = { ports = ["tcp/2222", "udp/2223"] }
    door = [
        { name = "ssh", knock = ["tcp/7000", "udp/8000", "tcp/9000"], open = ["tcp/22"] },
        { name = "vpn", knock = ["tcp/7000", "udp/8000", "tcp/9500"], open = ["udp/1194"] },
        { name = "twice", knock = ["tcp/7100", "tcp/7100", "udp/8100"], open = ["tcp/23"] },
        { name = "one", knock = ["udp/6000"], open = ["tcp/24"] },
        { name = "short", knock = ["tcp/5000", "tcp/4000"], open = ["tcp/25"] },
        { name = "longer", knock = ["tcp/5000", "tcp/4000", "tcp/3000"], open = ["tcp/26"] },
        { name = "whole", knock = ["tcp/2300", "udp/2200", "tcp/2100"], open = ["tcp/27"] },
        { name = "end", knock = ["udp/2200", "tcp/2100"], open = ["tcp/28"] },
    ]
"#;

#[test]
fn only_the_knocks_of_a_sequence_in_order_open_its_door() {
    let [a, b, c] = opens_ssh();
    check(
        DOORS,
        &[
            row(
                "the right order",
                [
                    syn(22).is(NoGrant),
                    a.clone(),
                    syn(22).is(NoGrant),
                    b.clone(),
                    syn(22).is(NoGrant),
                    c.clone(),
                    RowStep::Grant(30, "ssh"),
                    syn(22).is(Granted),
                    ack(22).is(Granted),
                    syn(23).is(NoGrant),
                    syn(3306).is(NoGrant),
                ],
            ),
            row(
                "backwards",
                [
                    syn(9000).is(OutOfSequence),
                    udp(8000).is(OutOfSequence),
                    a.clone(),
                    syn(22).is(NoGrant),
                ],
            ),
            row(
                "a wrong one between",
                [
                    a.clone(),
                    syn(9000).is(WrongKnock).reported("ssh", 1),
                    udp(8000).is(OutOfSequence),
                    syn(9000).is(OutOfSequence),
                    syn(22).is(NoGrant),
                ],
            ),
            row(
                "a wrong last one",
                [
                    a.clone(),
                    b.clone(),
                    syn(3000).is(WrongKnock).reported("ssh", 2),
                    syn(9000).is(OutOfSequence),
                ],
            ),
            row(
                "one left out",
                [
                    a.clone(),
                    syn(9000).is(WrongKnock).reported("ssh", 1),
                    syn(22).is(NoGrant),
                ],
            ),
            row(
                "each doubled",
                [
                    a.clone(),
                    syn(7000).is(Duplicate),
                    b.clone(),
                    udp(8000).is(Duplicate),
                    udp(8000).over_port(50_000).is(Duplicate),
                    c.clone(),
                    syn(9000).is(Duplicate),
                    syn(22).is(Granted),
                ],
            ),
            row(
                "a wrong one that begins another sequence",
                [
                    a.clone(),
                    b.clone(),
                    syn(5000).is(Restarted).reported("short", 1),
                    syn(4000).is(Opened).reported("short", 2),
                ],
            ),
            row(
                "from the beginning again",
                [
                    a.clone(),
                    b.clone(),
                    syn(7000).is(Restarted).reported("ssh", 1),
                    b.clone(),
                    c.clone(),
                ],
            ),
            row(
                "a shared beginning",
                [
                    a.clone(),
                    b.clone(),
                    syn(9500).is(Opened).reported("vpn", 3),
                    udp(1194).is(Granted),
                    syn(22).is(NoGrant),
                ],
            ),
            row(
                "a port twice in the sequence",
                [
                    syn(7100).is(FirstKnock).reported("twice", 1),
                    syn(7100).is(NextKnock).reported("twice", 2),
                    syn(7100).is(Duplicate),
                    udp(8100).is(Opened).reported("twice", 3),
                ],
            ),
            row(
                "a single knock, again and again",
                [
                    udp(6000).is(Opened).reported("one", 1),
                    udp(6000).is(Refreshed).reported("one", 1),
                    udp(6000).is(Refreshed).reported("one", 1),
                    syn(24).is(Granted),
                ],
            ),
            row(
                "a door whose sequence begins another's",
                [
                    syn(5000).is(FirstKnock).reported("short", 1),
                    syn(4000).is(Opened).reported("short", 2),
                    syn(26).is(NoGrant),
                    syn(3000).is(Opened).reported("longer", 3),
                    syn(25).is(Granted),
                    syn(26).is(Granted),
                ],
            ),
            row(
                "a door whose sequence ends another's",
                [
                    syn(2300).is(FirstKnock).reported("whole", 1),
                    udp(2200).is(NextKnock).reported("whole", 2),
                    syn(2100)
                        .is(Opened)
                        .reported("whole", 3)
                        .and_reported("end", 3),
                    syn(27).is(Granted),
                    syn(28).is(Granted),
                ],
            ),
            row(
                "only that end",
                [
                    udp(2200).is(FirstKnock).reported("end", 1),
                    syn(2100).is(Opened).reported("end", 2),
                    syn(27).is(NoGrant),
                    syn(28).is(Granted),
                ],
            ),
            row(
                "another sequence after one",
                [
                    a.clone(),
                    b.clone(),
                    c.clone(),
                    syn(5000).is(FirstKnock).reported("short", 1),
                    syn(4000).is(Opened).reported("short", 2),
                ],
            ),
            row(
                "the same sequence after itself",
                [
                    a.clone(),
                    b.clone(),
                    c.clone(),
                    a.clone(),
                    b.clone(),
                    syn(9000).is(Refreshed).reported("ssh", 3),
                ],
            ),
            row(
                "each from another port and to another address",
                [
                    syn(7000).over_port(1).is(FirstKnock).reported("ssh", 1),
                    udp(8000)
                        .over_port(2)
                        .elsewhere()
                        .is(NextKnock)
                        .reported("ssh", 2),
                    c.clone(),
                    syn(22).elsewhere().is(Granted),
                ],
            ),
            row(
                "two sources between each other",
                [
                    a.clone(),
                    udp(8000).neighbour().is(OutOfSequence),
                    b.clone(),
                    syn(9000).neighbour().is(OutOfSequence),
                    syn(7000).neighbour().is(FirstKnock).reported("ssh", 1),
                    c.clone(),
                    syn(22).neighbour().is(NoGrant),
                    syn(22).is(Granted),
                    udp(8000).neighbour().is(NextKnock).reported("ssh", 2),
                ],
            ),
        ],
    );
}

#[test]
fn strict_mode_counts_packets_to_unused_ports_as_wrong() {
    let [a, b, c] = opens_ssh();
    let rest = [b.clone(), c.clone()];
    let undisturbed = |name, step: RowStep| {
        let [b, c] = rest.clone();
        row(name, [a.clone(), step.clone(), b, step, c])
    };
    check(
        DOORS,
        &[
            row(
                "a SYN to another port",
                [
                    a.clone(),
                    syn(1234).is(StrayPort).reported("ssh", 1),
                    syn(1234).is(Ordinary),
                    udp(8000).is(OutOfSequence),
                ],
            ),
            row(
                "a datagram to another port",
                [
                    a.clone(),
                    b.clone(),
                    udp(1234).is(StrayPort).reported("ssh", 2),
                    syn(9000).is(OutOfSequence),
                ],
            ),
            row(
                "a knock's port with the other protocol",
                [a.clone(), syn(8000).is(StrayPort).reported("ssh", 1)],
            ),
            row(
                "a decoy",
                [
                    a.clone(),
                    syn(2222).is(Decoy).reported("ssh", 1),
                    udp(8000).is(OutOfSequence),
                ],
            ),
            row(
                "a UDP decoy",
                [
                    a.clone(),
                    b.clone(),
                    udp(2223).is(Decoy).reported("ssh", 2),
                    syn(9000).is(OutOfSequence),
                ],
            ),
            row(
                "after the door is open",
                [
                    a.clone(),
                    b.clone(),
                    c.clone(),
                    syn(1234).is(Ordinary),
                    syn(22).is(Granted),
                ],
            ),
            undisturbed("ACK to another port", ack(1234).is(Ordinary)),
            undisturbed("SYN, ACK to another port", tcp(1234, SYN_ACK).is(Ordinary)),
            undisturbed("RST to another port", tcp(1234, RST).is(Ordinary)),
            undisturbed("FIN to another port", tcp(1234, FIN).is(Ordinary)),
            undisturbed("SYN to an exempt port", syn(80).is(Ordinary)),
            undisturbed("datagram to an exempt port", udp(443).is(Ordinary)),
            undisturbed("SYN to a protected port", syn(3306).is(NoGrant)),
            undisturbed("SYN to the door's port", syn(22).is(NoGrant)),
            undisturbed("datagram to a group", udp(1234).group().is(Ordinary)),
            undisturbed("SYN to a group", syn(1234).group().is(Ordinary)),
            undisturbed("knock to a group", syn(5000).group().is(Ordinary)),
            undisturbed("decoy to a group", syn(2222).group().is(Ordinary)),
            undisturbed(
                "datagram to a multicast address",
                udp(1234).multicast().is(Ordinary),
            ),
            undisturbed(
                "SYN to a multicast address",
                syn(1234).multicast().is(Ordinary),
            ),
            undisturbed(
                "knock to a multicast address",
                syn(5000).multicast().is(Ordinary),
            ),
            undisturbed(
                "the next knock to a multicast address",
                udp(8000).multicast().is(Ordinary),
            ),
            undisturbed(
                "decoy to a multicast address",
                syn(2222).multicast().is(Ordinary),
            ),
            undisturbed("knock with other flags", ack(5000).is(OtherFlags)),
            undisturbed("decoy with other flags", ack(2222).is(OtherFlags)),
            undisturbed("another source", syn(1234).neighbour().is(Ordinary)),
        ],
    );
}

#[test]
fn without_strict_mode_unused_ports_end_no_attempt() {
    let text = r#"
        strict = false
        [[door]]
        name = "ssh"
        knock = ["tcp/7000", "udp/9000", "tcp/6000"]
        open = ["tcp/22"]
    "#;
    check(
        text,
        &[row(
            "other ports between the knocks",
            [
                syn(7000).is(FirstKnock).reported("ssh", 1),
                syn(1234).is(Ordinary),
                udp(9000).is(NextKnock).reported("ssh", 2),
                udp(1234).is(Ordinary),
                syn(6000).is(Opened).reported("ssh", 3),
            ],
        )],
    );
}

#[test]
fn late_knocks_end_an_attempt() {
    let text = r#"
        door = [
            { name = "total", knock = ["udp/8000", "tcp/7000", "udp/6000"], open = ["tcp/22"], sequence_timeout = "500ms" },
            { name = "step", knock = ["udp/8001", "tcp/7001", "udp/6001"], open = ["tcp/23"], step_timeout = "300ms" },
            { name = "quick", knock = ["udp/8002", "tcp/7002"], open = ["tcp/24"], sequence_timeout = "300ms" },
            { name = "slow", knock = ["udp/8002", "tcp/7002", "udp/6002"], open = ["tcp/25"], sequence_timeout = "10s" },
        ]
    "#;
    // One family is enough for what takes real time.
    Table::new(text, LoadOptions::default()).run(
        &[FrameFamily::V4],
        &[
            row(
                "in time",
                [
                    udp(8000).is(FirstKnock).reported("total", 1),
                    syn(7000).is(NextKnock).reported("total", 2),
                    udp(6000).is(Opened).reported("total", 3),
                ],
            ),
            row(
                "second knock too late",
                [
                    udp(8000).is(FirstKnock).reported("total", 1),
                    Wait(550),
                    syn(7000).is(TooLate).reported("total", 1),
                    syn(7000).is(OutOfSequence),
                ],
            ),
            row(
                "the time runs from the first knock on",
                [
                    udp(8000).is(FirstKnock).reported("total", 1),
                    Wait(300),
                    syn(7000).is(NextKnock).reported("total", 2),
                    Wait(300),
                    udp(6000).is(TooLate).reported("total", 2),
                    udp(6000).is(OutOfSequence),
                ],
            ),
            row(
                "a first knock after the timeout starts a new attempt",
                [
                    udp(8000).is(FirstKnock).reported("total", 1),
                    Wait(550),
                    udp(8000).is(FirstKnock).reported("total", 1),
                    syn(7000).is(NextKnock).reported("total", 2),
                    Wait(550),
                    udp(8000).is(FirstKnock).reported("total", 1),
                ],
            ),
            row(
                "each step in time",
                [
                    udp(8001).is(FirstKnock).reported("step", 1),
                    Wait(200),
                    syn(7001).is(NextKnock).reported("step", 2),
                    Wait(200),
                    udp(6001).is(Opened).reported("step", 3),
                ],
            ),
            row(
                "a duplicate does not give more time",
                [
                    udp(8001).is(FirstKnock).reported("step", 1),
                    Wait(200),
                    udp(8001).is(Duplicate),
                    Wait(200),
                    syn(7001).is(TooLate).reported("step", 1),
                ],
            ),
            row(
                "last step too late",
                [
                    udp(8001).is(FirstKnock).reported("step", 1),
                    syn(7001).is(NextKnock).reported("step", 2),
                    Wait(350),
                    udp(6001).is(TooLate).reported("step", 2),
                    syn(23).is(NoGrant),
                ],
            ),
            row(
                "too late for the one door, not for the other",
                [
                    udp(8002).is(FirstKnock).reported("quick", 1),
                    Wait(350),
                    syn(7002).is(TooLate).reported("quick", 2),
                    syn(24).is(NoGrant),
                    udp(6002).is(Opened).reported("slow", 3),
                    syn(25).is(Granted),
                ],
            ),
            row(
                "a scan after its time ends nothing",
                [
                    udp(8000).is(FirstKnock).reported("total", 1),
                    Wait(550),
                    syn(1234).is(Ordinary),
                    syn(7000).is(OutOfSequence),
                ],
            ),
        ],
    );
}

#[test]
fn only_the_configured_flags_make_a_knock() {
    let text = r#"
        door = [
            { name = "fin", knock = ["tcp/7000", "udp/8000", "tcp/6000"], open = ["tcp/22"], tcp_flags = "fin,!syn" },
            { name = "syn", knock = ["tcp/7001", "udp/8000"], open = ["tcp/23"] },
            { name = "urg", knock = ["tcp/7002", "udp/8000"], open = ["tcp/24"], tcp_flags = "urg" },
        ]
    "#;
    check(
        text,
        &[
            row(
                "fin,!syn",
                [
                    syn(7000).is(OtherFlags),
                    ack(7000).is(OtherFlags),
                    tcp(7000, SYN | FIN).is(OtherFlags),
                    tcp(7000, FIN | ACK).is(FirstKnock).reported("fin", 1),
                    udp(8000).is(NextKnock).reported("fin", 2),
                    tcp(6000, FIN).is(Opened).reported("fin", 3),
                ],
            ),
            row(
                "other flags are not wrong knocks",
                [
                    tcp(7000, FIN).is(FirstKnock).reported("fin", 1),
                    syn(6000).is(OtherFlags),
                    udp(8000).is(NextKnock).reported("fin", 2),
                ],
            ),
            row(
                "the default",
                [
                    tcp(7001, FIN).is(OtherFlags),
                    syn(7001).is(FirstKnock).reported("syn", 1),
                    udp(8000).is(Opened).reported("syn", 2),
                ],
            ),
            row(
                "urg, with any other flags",
                [
                    syn(7002).is(OtherFlags),
                    tcp(7002, SYN | URG).is(FirstKnock).reported("urg", 1),
                    tcp(7002, URG | ACK).is(Duplicate),
                ],
            ),
        ],
    );
}

#[test]
fn a_door_with_a_target_opens_at_that_address_only() {
    for (family, target) in [
        (FrameFamily::V4, "192.0.2.3"),
        (FrameFamily::V6, "2001:db8::3"),
    ] {
        let text = format!(
            r#"door = [
                {{ name = "there", knock = ["tcp/7000", "udp/8000"], open = ["tcp/22"], target = "{target}" }},
                {{ name = "any", knock = ["tcp/7000", "tcp/6000"], open = ["tcp/22", "tcp/23"] }},
            ]"#
        );
        Table::new(&text, LoadOptions::default()).run(
            &[family],
            &[
                row(
                    "knocked and opened there",
                    [
                        syn(7000).elsewhere().is(FirstKnock).reported("there", 1),
                        udp(8000).elsewhere().is(Opened).reported("there", 2),
                        syn(22).elsewhere().is(Granted),
                        syn(22).is(NoGrant),
                        syn(23).elsewhere().is(NoGrant),
                    ],
                ),
                row(
                    "not knocked there",
                    [
                        syn(7000).is(FirstKnock).reported("any", 1),
                        udp(8000).is(WrongKnock).reported("any", 1),
                    ],
                ),
                row(
                    "half of it there",
                    [
                        syn(7000).elsewhere().is(FirstKnock).reported("there", 1),
                        udp(8000).is(OutOfSequence),
                        udp(8000).elsewhere().is(Opened).reported("there", 2),
                    ],
                ),
                row(
                    "a door for any address, knocked there",
                    [
                        syn(7000).elsewhere().is(FirstKnock).reported("there", 1),
                        syn(6000).elsewhere().is(Opened).reported("any", 2),
                        syn(22).elsewhere().is(Granted),
                        syn(22).is(Granted),
                    ],
                ),
                row(
                    "a connection belongs to its address",
                    [
                        syn(7000).elsewhere().is(FirstKnock).reported("there", 1),
                        udp(8000).elsewhere().is(Opened).reported("there", 2),
                        ack(22).elsewhere().is(Granted),
                        ack(22).elsewhere().is(Reason::Flow),
                        ack(22).is(NoGrant),
                    ],
                ),
                row(
                    "a scan of one address leaves the other alone",
                    [
                        syn(7000).elsewhere().is(FirstKnock).reported("there", 1),
                        syn(1234).is(Ordinary),
                        udp(8000).elsewhere().is(Opened).reported("there", 2),
                    ],
                ),
            ],
        );
    }
}

pub(crate) fn opens_ssh() -> [RowStep; 3] {
    [
        syn(7000).is(FirstKnock).reported("ssh", 1),
        udp(8000).is(NextKnock).reported("ssh", 2),
        syn(9000).is(Opened).reported("ssh", 3),
    ]
}
