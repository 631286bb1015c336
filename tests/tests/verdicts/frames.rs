//! Verdicts that depend on the frame and its port alone.

use knock_common::{
    Reason::{BadHeader, Decoy, FirstKnock, Granted, NoGrant, Ordinary, OtherFlags, Trusted},
    Verdict,
};
use knock_tests::{
    frame::{ACK, PSH, RST, SYN, SYN_ACK, URG, eth},
    kernel::Kernel,
    shapes,
};
use knock_user::kernel::program::LoadOptions;

use crate::{
    knocks::opens_ssh,
    table::{BOTH, Table, ack, check, row, syn, tcp, udp},
};

#[test]
fn the_shape_of_a_frame_decides_its_reason() {
    let mut kernel = Kernel::load(r#"protect = ["tcp/22", "udp/22"]"#).unwrap();
    for shape in shapes::all() {
        let frame = shape.frame.bytes();
        if !kernel.can_judge(&frame) {
            kernel.judge(&frame).unwrap_err();
            continue;
        }
        kernel.reset_event_limits().unwrap();
        let judged = kernel.judge(&frame).unwrap();
        let (reason, source) = match shape.read {
            Ok(_) => (NoGrant, 40_000),
            Err(reason) => (reason, 0),
        };
        assert_eq!(judged.reason, reason, "{}: {frame:02x?}", shape.name);
        assert_eq!(judged.verdict, reason.verdict(), "{}", shape.name);
        let reported: Vec<_> = judged
            .events
            .iter()
            .map(|event| (event.reason(), event.source_port))
            .collect();
        match reason.verdict() {
            Verdict::Drop => assert_eq!(reported, [(Some(reason), source)], "{}", shape.name),
            Verdict::Pass | Verdict::Answer => assert_eq!(reported, [], "{}", shape.name),
        }
    }
}

const PORTS: &str = r#"
    protect = ["tcp/3306", "udp/161", "udp/60000-60100"]
    exempt = ["tcp/80", "udp/443"]
    decoys = { ports = ["tcp/2222", "udp/2223"] }
    [[door]]
    name = "ssh"
    knock = ["tcp/7000", "udp/8000", "tcp/9000"]
    open = ["tcp/22"]
"#;

#[test]
fn the_kind_of_a_port_decides_its_reason() {
    check(
        PORTS,
        &[
            row(
                "protected",
                [
                    syn(22).is(NoGrant),
                    ack(22).is(NoGrant),
                    tcp(22, SYN_ACK).is(NoGrant),
                    tcp(22, RST).is(NoGrant),
                    tcp(22, 0).is(NoGrant),
                    syn(3306).is(NoGrant),
                    udp(161).is(NoGrant),
                    udp(60_000).is(NoGrant),
                    udp(60_100).is(NoGrant),
                    syn(22).group().is(NoGrant),
                ],
            ),
            row(
                "the other protocol's port",
                [
                    udp(22).is(Ordinary),
                    udp(3306).is(Ordinary),
                    syn(161).is(Ordinary),
                    udp(7000).is(Ordinary),
                    udp(2222).is(Ordinary),
                ],
            ),
            row(
                "ordinary",
                [
                    syn(1).is(Ordinary),
                    ack(65_535).is(Ordinary),
                    udp(0).is(Ordinary),
                    udp(60_101).is(Ordinary),
                ],
            ),
            row("exempt", [syn(80).is(Ordinary), udp(443).is(Ordinary)]),
            row(
                "decoy",
                [
                    syn(2222).is(Decoy),
                    udp(2223).is(Decoy),
                    ack(2222).is(OtherFlags),
                    udp(2223).group().is(Ordinary),
                ],
            ),
            row(
                "knock with other flags",
                [
                    ack(7000).is(OtherFlags),
                    tcp(7000, SYN_ACK).is(OtherFlags),
                    tcp(7000, RST).is(OtherFlags),
                    tcp(7000, 0).is(OtherFlags),
                    tcp(7000, SYN | PSH | URG).is(FirstKnock).reported("ssh", 1),
                ],
            ),
        ],
    );
}

#[test]
fn trusted_sources_reach_protected_ports() {
    let text = r#"
        protect = ["tcp/22"]
        trust = ["10.0.0.0/8", "203.0.113.7", "198.18.0.0/15", "fd00::/8", "2001:db8::1"]
    "#;
    let mut kernel = Kernel::load(text).unwrap();
    for (source, reason) in [
        ("10.0.0.0", Trusted),
        ("10.255.255.255", Trusted),
        ("9.255.255.255", NoGrant),
        ("11.0.0.0", NoGrant),
        ("203.0.113.7", Trusted),
        ("203.0.113.6", NoGrant),
        ("198.19.255.255", Trusted),
        ("198.20.0.0", NoGrant),
        ("fd00::1", Trusted),
        ("fdff:ffff::1", Trusted),
        ("fe00::1", NoGrant),
        ("2001:db8::1", Trusted),
        ("2001:db8::2", NoGrant),
        // The words of 10.0.0.1, but an address of its own.
        ("::a00:1", NoGrant),
    ] {
        let frame = match source.contains(':') {
            true => eth().ip6(source, "2001:db8::2"),
            false => eth().ip4(source, "192.0.2.2"),
        };
        for flags in [SYN, ACK] {
            let judged = kernel
                .judge(&frame.clone().tcp(1, 22, flags).bytes())
                .unwrap();
            assert_eq!(judged.reason, reason, "{source}");
        }
    }
}

#[test]
fn no_source_is_trusted_by_default() {
    check(
        r#"protect = ["tcp/22"]"#,
        &[row("an unauthorized source", [syn(22).is(NoGrant)])],
    );
}

/// On the wire such an address could be taken for the IPv4 source that it names.
#[test]
fn ipv4_mapped_addresses_are_bad_headers() {
    let mut kernel = Kernel::load(PORTS).unwrap();
    let mapped = "::ffff:198.51.100.1";
    for (name, port, flags, reason) in [
        ("protected", 22, SYN, BadHeader),
        ("knock", 7000, SYN, BadHeader),
        ("decoy", 2222, SYN, BadHeader),
        ("new connection elsewhere", 1234, SYN, BadHeader),
        ("exempt", 80, SYN, Ordinary),
        ("not for knocking", 1234, ACK, Ordinary),
    ] {
        let frame = eth().ip6(mapped, "2001:db8::2").tcp(1, port, flags);
        let judged = kernel.judge(&frame.bytes()).unwrap();
        assert_eq!(judged.reason, reason, "{name}");
    }
    assert_eq!(kernel.progress().unwrap(), []);
}

#[test]
fn a_dry_run_passes_what_would_be_dropped() {
    let options = LoadOptions {
        dry_run: true,
        ..LoadOptions::default()
    };
    let [a, b, c] = opens_ssh();
    Table::new(PORTS, options).run(
        BOTH,
        &[row(
            "counted and reported, but passed",
            [
                syn(22).is(NoGrant),
                syn(2222).is(Decoy),
                a,
                b,
                c,
                syn(22).is(Granted),
                syn(1234).is(Ordinary),
            ],
        )],
    );
}
