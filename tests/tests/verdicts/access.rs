//! Access to protected ports: grants and flows.

use knock_common::{
    Address,
    Reason::{
        self, Closed, FirstKnock, Flow, Granted, GrantsFull, NoGrant, Opened, OutOfSequence,
        Refreshed,
    },
    Verdict,
    grant::Grant,
    layout::{ALLOW_MAX, GrantKey},
};
use knock_tests::{
    frame::{ACK, FIN, PSH, RST, SYN_ACK},
    kernel::now,
};
use knock_user::kernel::program::LoadOptions;

use crate::table::{
    FrameFamily, Place, Row,
    RowStep::{self, Flows, Later},
    Table, ack, check, row, syn, tcp, udp,
};

pub(crate) const GRANTS: &str = r#"
    established = { idle = "80s", idle_udp = "80s" }
    door = [
        { name = "ssh", knock = ["tcp/7000", "udp/8000"], open = ["tcp/22", "udp/1194"], open_for = "1m" },
        { name = "long", knock = ["tcp/7001", "udp/8000"], open = ["tcp/22", "udp/1194"], open_for = "1h" },
        { name = "bye", knock = ["tcp/7002", "udp/8000"], close = ["tcp/22", "udp/1194"] },
        { name = "both", knock = ["tcp/7003", "udp/8000"], open = ["tcp/22", "udp/1194", "tcp/23"], open_for = "1m" },
        { name = "command", knock = ["tcp/7004", "udp/8000"], on_open = ["true"], open_for = "1m" },
    ]
"#;

#[test]
fn a_grant_admits_its_source_until_it_expires() {
    let [again_first, again] = knock("ssh", Refreshed);
    let [anew_first, anew] = knock("ssh", Opened);
    let [long_first, long] = knock("long", Refreshed);
    let [long_alone_first, long_alone] = knock("long", Opened);
    let [bye_first, bye] = knock("bye", Closed);
    let [command_first, command] = knock("command", Opened);
    let [command_again_first, command_again] = knock("command", Refreshed);
    check(
        GRANTS,
        &[
            opened(
                "valid and over",
                [
                    RowStep::Grant(60, "ssh"),
                    Later(45),
                    syn(22).is(Granted),
                    Later(15),
                    syn(22).is(NoGrant),
                    udp(1194).is(NoGrant),
                ],
            ),
            opened(
                "refreshed while valid",
                [
                    Later(30),
                    again_first.clone(),
                    again.clone(),
                    RowStep::Grant(60, "ssh"),
                ],
            ),
            opened(
                "opened again when expired",
                [Later(60), anew_first, anew, RowStep::Grant(60, "ssh")],
            ),
            opened(
                "a longer grant takes over",
                [long_first, long, RowStep::Grant(3600, "long")],
            ),
            row(
                "a shorter grant does not",
                [
                    long_alone_first,
                    long_alone,
                    again_first,
                    again,
                    RowStep::Grant(3600, "long"),
                ],
            ),
            opened(
                "closed",
                [
                    bye_first.clone(),
                    bye.clone(),
                    syn(22).is(NoGrant),
                    udp(1194).is(NoGrant),
                ],
            ),
            opened(
                "closing cuts no connection",
                [
                    ack(22).is(Granted),
                    bye_first.clone(),
                    bye.clone(),
                    ack(22).is(Flow),
                    syn(22).is(NoGrant),
                ],
            ),
            row("nothing to close", [bye_first, bye, syn(22).is(NoGrant)]),
            row(
                "a door without ports",
                [
                    command_first,
                    command,
                    syn(22).is(NoGrant),
                    command_again_first,
                    command_again,
                    RowStep::Grant(60, "command"),
                ],
            ),
        ],
    );
}

/// A door that shares some of its ports with others.
#[test]
fn a_door_grants_all_its_port_groups() {
    let [first, last] = knock("both", Opened);
    let [first_again, last_again] = knock("both", Refreshed);
    check(
        GRANTS,
        &[
            row(
                "all of its ports",
                [
                    first,
                    last,
                    syn(22).is(Granted),
                    syn(23).is(Granted),
                    udp(1194).is(Granted),
                ],
            ),
            opened(
                "some were open before",
                [
                    syn(23).is(NoGrant),
                    first_again,
                    last_again,
                    syn(23).is(Granted),
                ],
            ),
        ],
    );
}

#[test]
fn a_flow_keeps_a_connection_open_after_its_grant() {
    check(
        GRANTS,
        &[
            opened(
                "recorded by the packet after the SYN",
                [
                    syn(22).is(Granted),
                    Flows(0),
                    ack(22).is(Granted),
                    Flows(1),
                    ack(22).is(Flow),
                    Flows(1),
                ],
            ),
            opened(
                "outlives its grant",
                [
                    ack(22).is(Granted),
                    Later(61),
                    ack(22).is(Flow),
                    tcp(22, PSH | ACK).is(Flow),
                    tcp(22, SYN_ACK).is(Flow),
                ],
            ),
            opened(
                "a SYN is a new connection",
                [
                    ack(22).is(Granted),
                    syn(22).is(Granted),
                    Later(61),
                    syn(22).is(NoGrant),
                    ack(22).is(Flow),
                ],
            ),
            opened(
                "a SYN alone is not a flow",
                [syn(22).is(Granted), Later(61), ack(22).is(NoGrant)],
            ),
            opened(
                "a SYN at the last moment is one",
                [
                    // Less than a handshake takes is left.
                    Later(57),
                    syn(22).is(Granted),
                    Flows(1),
                    Later(4),
                    ack(22).is(Flow),
                ],
            ),
            opened(
                "another port of the source",
                [
                    ack(22).is(Granted),
                    Later(61),
                    ack(22).over_port(40_001).is(NoGrant),
                    ack(22).neighbour().is(NoGrant),
                ],
            ),
            opened(
                "idle for as long as it may be",
                [
                    ack(22).is(Granted),
                    Later(70),
                    ack(22).is(Flow),
                    Later(70),
                    ack(22).is(Flow),
                    Later(80),
                    ack(22).is(NoGrant),
                ],
            ),
            opened(
                "a FIN or RST, which can be forged, does not shorten it",
                [
                    ack(22).is(Granted),
                    tcp(22, FIN | ACK).is(Flow),
                    tcp(22, RST).is(Flow),
                    Later(70),
                    ack(22).is(Flow),
                ],
            ),
            opened(
                "a RST begins none",
                [tcp(22, RST).is(Granted), tcp(22, FIN).is(Granted), Flows(0)],
            ),
            opened(
                "a flow that is over begins again with a grant",
                [
                    ack(22).is(Granted),
                    Later(81),
                    ack(22).is(NoGrant),
                    syn(7000).is(FirstKnock).reported("ssh", 1),
                    udp(8000).is(Opened).reported("ssh", 2),
                    ack(22).is(Granted),
                    ack(22).is(Flow),
                    Flows(1),
                ],
            ),
            opened(
                "UDP",
                [
                    udp(1194).is(Granted),
                    Flows(1),
                    Later(61),
                    udp(1194).is(Flow),
                    udp(1194).over_port(40_001).is(NoGrant),
                    Later(80),
                    udp(1194).is(NoGrant),
                ],
            ),
        ],
    );
}

#[test]
fn keep_false_cuts_connections() {
    let text = GRANTS.replace("idle = \"80s\", idle_udp = \"80s\"", "keep = false");
    check(
        &text,
        &[opened(
            "ends with its grant",
            [
                syn(22).is(Granted),
                ack(22).is(Granted),
                ack(22).is(Granted),
                udp(1194).is(Granted),
                Flows(0),
                Later(60),
                ack(22).is(NoGrant),
                udp(1194).is(NoGrant),
            ],
        )],
    );
}

const PREFIXES: &str = r#"
    established = { idle = "80s", idle_udp = "80s" }
    door = [
        { name = "ssh", knock = ["tcp/7000", "udp/8000"], open = ["tcp/22", "udp/1194"], open_for = "1m", grant_prefix = { ipv4 = 24, ipv6 = 64 } },
        { name = "bye", knock = ["tcp/7002", "udp/8000"], close = ["tcp/22", "udp/1194"] },
        { name = "both", knock = ["tcp/7003", "udp/8000"], open = ["tcp/80"], open_for = "1m" },
    ]
"#;

#[test]
fn a_grant_for_a_prefix_admits_its_addresses_and_no_others() {
    let [bye_first, bye] = knock("bye", Closed);
    let [again_first, again] = knock("ssh", Refreshed);
    let mut table = Table::new(PREFIXES, LoadOptions::default());
    table.run(
        &[FrameFamily::V6],
        &[
            opened(
                "new connections",
                [
                    syn(22).is(Granted),
                    syn(22).same_network().is(Granted),
                    udp(1194).same_network().is(Granted),
                    syn(22).neighbour().is(NoGrant),
                    udp(1194).neighbour().is(NoGrant),
                ],
            ),
            opened(
                "until it expires",
                [
                    Later(61),
                    syn(22).is(NoGrant),
                    syn(22).same_network().is(NoGrant),
                ],
            ),
            opened(
                "flows belong to one address",
                [
                    syn(22).same_network().is(Granted),
                    ack(22).same_network().is(Granted),
                    Later(61),
                    ack(22).same_network().is(Flow),
                    syn(22).same_network().is(NoGrant),
                    ack(22).is(NoGrant),
                    ack(22).neighbour().is(NoGrant),
                ],
            ),
            opened(
                "a closing sequence ends it for all",
                [
                    bye_first,
                    bye,
                    syn(22).is(NoGrant),
                    syn(22).same_network().is(NoGrant),
                ],
            ),
            opened(
                "knocks are of one address",
                [
                    again_first,
                    udp(8000).same_network().is(OutOfSequence),
                    again,
                ],
            ),
            row(
                "another door without a prefix",
                [
                    syn(7003).is(FirstKnock).reported("both", 1),
                    udp(8000).is(Opened).reported("both", 2),
                    syn(80).is(Granted),
                    syn(80).same_network().is(NoGrant),
                    syn(22).is(NoGrant),
                ],
            ),
        ],
    );
}

/// A word that user space wrote, or that outlived its time, is judged by the clock alone.
#[test]
fn grants_written_by_user_space_are_in_force() {
    let mut table = Table::new(GRANTS, LoadOptions::default());
    let port_group = *table.tables.port_groups.keys().next().unwrap();
    let now_ms = now().unwrap().millis();
    for (name, seconds, reason) in [
        ("in the past", -1, NoGrant),
        ("in the future", 60, Granted),
        ("at the beginning of time", i64::MIN / 1000, NoGrant),
    ] {
        table.number += 1;
        let source = table.address();
        let until_ms = now_ms.saturating_add_signed(seconds * 1000);
        let key = GrantKey {
            source,
            port_group,
            target_id: 0,
        };
        let word = Grant { until_ms, door: 0 }.to_word();
        table.kernel.write("ALLOW", [(key, word)]).unwrap();
        // Without an entry in the presence filter nothing is looked up.
        table.packet(syn(22), NoGrant, &[("", 0)], name);
        table.kernel.raise_presence(source).unwrap();
        let reported: &[Place] = match reason.verdict() {
            Verdict::Drop => &[("", 0)],
            Verdict::Pass | Verdict::Answer => &[],
        };
        table.packet(syn(22), reason, reported, name);
    }
}

#[test]
fn a_full_allow_map_takes_no_new_grants() {
    let mut table = Table::new(GRANTS, LoadOptions::default());
    let [first, last] = knock("ssh", Opened);
    let [first_again, last_again] = knock("ssh", Refreshed);
    table.run(&[FrameFamily::V4], &[row("in time", [first.clone(), last])]);
    let others = (0..ALLOW_MAX).map(|number| {
        let key = GrantKey {
            source: Address::from_v4(number.to_be_bytes()),
            port_group: u16::MAX,
            target_id: 0,
        };
        (key, u64::MAX)
    });
    // The map is full before the last of them.
    table.kernel.write("ALLOW", others).unwrap_err();
    let held = table.number;
    table.run(
        &[FrameFamily::V4],
        &[row(
            "too late",
            [
                first,
                udp(8000).is(GrantsFull).reported("ssh", 2),
                syn(22).is(NoGrant),
            ],
        )],
    );
    table.number = held - 1;
    table.run(
        &[FrameFamily::V4],
        &[row(
            "who has one keeps it",
            [first_again, last_again, syn(22).is(Granted)],
        )],
    );
}

/// Returns the knocks of a door of [`GRANTS`].
fn knock(door: &'static str, reason: Reason) -> [RowStep; 2] {
    let first = match door {
        "ssh" => 7000,
        "long" => 7001,
        "bye" => 7002,
        "both" => 7003,
        _ => 7004,
    };
    [
        syn(first).is(FirstKnock).reported(door, 1),
        udp(8000).is(reason).reported(door, 2),
    ]
}

/// Returns a row that begins with an open door.
fn opened<const N: usize>(name: &'static str, steps: [RowStep; N]) -> Row {
    row(name, [&knock("ssh", Opened)[..], &steps[..]].concat())
}
