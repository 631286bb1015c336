//! The exact lines of the console.
#![expect(
    clippy::unwrap_used,
    reason = "what a helper of a test unwraps is the test's finding"
)]

use std::{
    io::{self, Write},
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use jiff::{
    Timestamp,
    tz::{self, TimeZone},
};
use knock_common::{
    GrantPrefix, Reason,
    event::{Event, NO_DOOR},
    grant::Grant,
    layout::{FlagClass, FlowKey, GrantKey},
    packet::Protocol::{self, Tcp, Udp},
};
use knock_sequence::{Knock, Ports};
use knock_user::{
    commands::{Job, Occasion},
    console::{AttachMode, Console, DoorText, LinePrefix, Style, watch::Form},
    ledger::{By, Ending, HostId, LedgerAction},
    model::settings::{Command, Door, Effect, Prefix, Verify},
};

const SECOND: u64 = 1_000_000_000;
const V4: &str = "203.0.113.9";
const V6: &str = "2001:db8::9";

#[test]
fn an_event_is_a_line() {
    #[rustfmt::skip]
    let rows = [
        ("opened", event(V4, Reason::Opened, 0, 3, Tcp, 9000), "12:00:01.123 opened  203.0.113.9  ssh  tcp/22 for 30s"),
        ("opened, IPv6, several ports", event(V6, Reason::Opened, 1, 2, Tcp, 9000), "12:00:01.123 opened  2001:db8::9  games  udp/60000-61000, tcp/80 for 30s"),
        ("opened, no port", event(V4, Reason::Opened, 3, 1, Tcp, 9000), "12:00:01.123 opened  203.0.113.9  bell  for 30s"),
        ("refreshed", event(V4, Reason::Refreshed, 0, 3, Tcp, 9000), "12:00:01.123 refreshed  203.0.113.9  ssh  tcp/22 for 30s"),
        ("closed", event(V4, Reason::Closed, 2, 2, Tcp, 9000), "12:00:01.123 closed  203.0.113.9  shut  tcp/22 door closed"),
        ("first knock", event(V4, Reason::FirstKnock, 0, 1, Tcp, 7000), "12:00:01.123 knock   203.0.113.9  ssh  1/3 tcp/7000"),
        ("next knock", event(V6, Reason::NextKnock, 0, 2, Udp, 8000), "12:00:01.123 knock   2001:db8::9  ssh  2/3 udp/8000"),
        ("begins a new attempt", event(V4, Reason::Restarted, 0, 1, Tcp, 7000), "12:00:01.123 knock   203.0.113.9  ssh  1/3 tcp/7000 begins a new attempt"),
        ("out of sequence", event(V4, Reason::OutOfSequence, NO_DOOR, 0, Tcp, 8000), "12:00:01.123 knock   203.0.113.9  -  tcp/8000 begins no sequence"),
        ("repeated", event(V4, Reason::Duplicate, 0, 1, Tcp, 7000), "12:00:01.123 knock   203.0.113.9  ssh  1/3 tcp/7000 again"),
        ("wrong knock", event(V4, Reason::WrongKnock, 0, 2, Tcp, 9001), "12:00:01.123 reset   203.0.113.9  ssh  tcp/9001 wrong knock after 2/3"),
        ("scan", event(V4, Reason::StrayPort, 0, 1, Tcp, 443), "12:00:01.123 reset   203.0.113.9  ssh  tcp/443 unrelated port during an attempt after 1/3"),
        ("late", event(V4, Reason::TooLate, 0, 2, Tcp, 9000), "12:00:01.123 late    203.0.113.9  ssh  tcp/9000 came too late after 2/3"),
        ("decoy", event(V4, Reason::Decoy, NO_DOOR, 0, Tcp, 4444), "12:00:01.123 decoy   203.0.113.9  -  tcp/4444 decoy port"),
        ("decoy on the way", event(V4, Reason::Decoy, 0, 2, Tcp, 4444), "12:00:01.123 decoy   203.0.113.9  ssh  tcp/4444 decoy port after 2/3"),
        ("locked", event(V4, Reason::LockedOut, NO_DOOR, 0, Tcp, 7000), "12:00:01.123 locked-out  203.0.113.9  -  tcp/7000 locked out"),
        ("denied", event(V6, Reason::NoGrant, NO_DOOR, 0, Tcp, 22), "12:00:01.123 denied  2001:db8::9  -  tcp/22 no grant"),
        ("full", event(V4, Reason::GrantsFull, 0, 3, Tcp, 9000), "12:00:01.123 full    203.0.113.9  ssh  tcp/22 no room for another grant"),
        ("contended", event(V4, Reason::Contended, NO_DOOR, 0, Tcp, 7000), "12:00:01.123 dropped  203.0.113.9  -  tcp/7000 attempt changed by another CPU"),
        ("unreadable", Event { source: Default::default(), ..event(V4, Reason::Truncated, NO_DOOR, 0, Tcp, 0) }, "12:00:01.123 dropped  -  -  frame ends inside a header"),
        ("passed", event(V4, Reason::Trusted, NO_DOOR, 0, Tcp, 22), "12:00:01.123 passed  203.0.113.9  -  tcp/22 trusted source"),
        ("a door that is not there", event(V4, Reason::FirstKnock, 77, 1, Tcp, 7000), "12:00:01.123 knock   203.0.113.9  -  tcp/7000"),
        ("a reason of another version", Event { reason: 250, ..event(V4, Reason::Opened, NO_DOOR, 0, Tcp, 22) }, "12:00:01.123 dropped  203.0.113.9  -  reason 250"),
        ("a name that does something", event(V4, Reason::Opened, 4, 1, Tcp, 22), "12:00:01.123 opened  203.0.113.9  e\\u{1b}[31mvil\\n  for 30s"),
    ];
    for (name, event, line) in rows {
        assert_eq!(
            printed(false, false, |console| console.event(&event)),
            format!("{line}\n"),
            "{name}"
        );
    }
}

#[test]
fn a_line_says_where_the_packet_arrived() {
    let denied = |interface, to| {
        let event = event(V4, Reason::NoGrant, NO_DOOR, 0, Tcp, 22);
        arrived(interface, to, event)
    };
    #[rustfmt::skip]
    let rows = [
        ("known", denied(2, "192.0.2.2"), "denied  203.0.113.9  -  tcp/22 no grant (192.0.2.2 on eth0)", Some("eth0"), Some("192.0.2.2")),
        ("IPv6", denied(2, "2001:db8::2"), "denied  203.0.113.9  -  tcp/22 no grant (2001:db8::2 on eth0)", Some("eth0"), Some("2001:db8::2")),
        ("an interface that is gone", denied(3, "192.0.2.2"), "denied  203.0.113.9  -  tcp/22 no grant (192.0.2.2)", None, Some("192.0.2.2")),
        ("unreadable", denied(2, "::"), "denied  203.0.113.9  -  tcp/22 no grant (on eth0)", Some("eth0"), None),
    ];
    for (name, event, text, interface, to) in rows {
        let names = [(2, "eth0".to_owned())];
        let print = |console: &mut Console<Vec<u8>>| {
            console.set_interfaces(names.clone().into());
            console.event(&event);
        };
        let line = printed(false, false, print);
        assert_eq!(line.trim_end().split_once(' ').unwrap().1, text, "{name}");
        let object: serde_json::Value = serde_json::from_str(&printed(true, false, print)).unwrap();
        assert_eq!(object["interface"].as_str(), interface, "{name}");
        assert_eq!(object["destination"].as_str(), to, "{name}");
    }
    let opened = LedgerAction::Opened {
        source: V4.parse::<IpAddr>().unwrap().into(),
        door: 0,
        until_ms: 7_231_123,
        by: None,
    };
    let last = arrived(2, "192.0.2.2", event(V4, Reason::Opened, 0, 3, Tcp, 9000));
    let line = printed(false, false, |console| {
        console.set_interfaces([(2, "eth0".to_owned())].into());
        console.action(&opened, Some(&last), last.at_ns);
    });
    assert_eq!(
        line,
        "12:00:01.123 opened  203.0.113.9  ssh  tcp/22 for 30s (192.0.2.2 on eth0)\n"
    );
}

#[test]
fn a_file_gets_dates_and_a_journal_no_time() {
    for (name, stamp, event_line, sentence) in [
        (
            "terminal",
            LinePrefix::Time,
            "12:00:01.123 denied",
            "eth0 is gone",
        ),
        (
            "file",
            LinePrefix::Date,
            "2026-03-01 12:00:01.123+02:00 denied",
            "2026-03-01 10:00:01.000+02:00 eth0 is gone",
        ),
        ("journal", LinePrefix::None, "denied", "eth0 is gone"),
    ] {
        let style = Style {
            json: false,
            stamp,
            dry_run: false,
            zone: TimeZone::fixed(tz::offset(2)),
        };
        let boot: Timestamp = "2026-03-01T08:00:00Z".parse().unwrap();
        let mut console = Console::new(Vec::new(), style, doors(), boot);
        console.event(&event(V4, Reason::NoGrant, NO_DOOR, 0, Tcp, 22));
        console.gone("eth0", SECOND);
        let text = String::from_utf8(console.into_inner()).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[0].starts_with(event_line), "{name}: {text}");
        assert!(lines[1].starts_with(sentence), "{name}: {text}");
    }
}

/// A packet of fwknop names ports. The event has the index of the one that was refused.
#[test]
fn a_refused_port_is_named_with_its_door() {
    let packet = |index| Event {
        until_ms: index,
        user: 7,
        ..event(V4, Reason::SpaNotAllowed, NO_DOOR, 0, Udp, 62_201)
    };
    let why = "udp/62201 SPA packet for a door that the user may not open, user number 7";
    #[rustfmt::skip]
    let rows = [
        ("a port of a door", packet(22), "ssh", ", asked for tcp/22"),
        ("a port of no door", packet(24), "-", ", asked for tcp/24"),
        ("UDP", packet(65_536 + 22), "-", ", asked for udp/22"),
        ("no port", packet(0), "-", ""),
        ("no port has this index", packet(1 << 40), "-", ""),
    ];
    for (name, event, door, asked_for) in rows {
        assert_eq!(
            printed(false, false, |console| console.event(&event)),
            format!("12:00:01.123 denied  203.0.113.9  {door}  {why}{asked_for}\n"),
            "{name}"
        );
    }
    let json = printed(true, false, |console| console.event(&packet(22)));
    assert!(json.contains(r#""ports":["tcp/22"]"#), "{json}");
    assert!(json.contains(r#""door":"ssh""#), "{json}");
}

#[test]
fn repeated_refusals_are_one_line_of_text_and_an_object_each() {
    let refused = |second: u64, port| Event {
        at_ns: 7_200 * SECOND + second * SECOND,
        ..event(V4, Reason::NoGrant, NO_DOOR, 0, Tcp, port)
    };
    let print = |console: &mut Console<Vec<u8>>| {
        for second in 0..18 {
            console.event(&refused(second, 22));
        }
        console.event(&refused(3, 80));
        console.sum_up(7_200 * SECOND + 20 * SECOND, false);
        console.sum_up(7_200 * SECOND + 27 * SECOND, false);
        console.event(&refused(30, 22));
        console.sum_up(7_200 * SECOND + 31 * SECOND, true);
    };
    assert_eq!(
        printed(false, false, print),
        "12:00:00.000 denied  203.0.113.9  -  tcp/22 no grant\n\
         12:00:03.000 denied  203.0.113.9  -  tcp/80 no grant\n\
         12:00:17.000 denied  203.0.113.9  -  tcp/22 no grant, 17 more times in 17s\n\
         12:00:30.000 denied  203.0.113.9  -  tcp/22 no grant\n"
    );
    assert_eq!(printed(true, false, print).lines().count(), 20);
}

/// A client that knows a sequence can forge any number of sources.
#[test]
fn too_many_lines_of_a_kind_are_summed_up() {
    let at_ns = 7_200 * SECOND;
    let until_ms = 7_230_000;
    let print = |console: &mut Console<Vec<u8>>| {
        for number in 0..1_000_u32 {
            let source: IpAddr = Ipv4Addr::from_bits(0x0a00_0000 + (number << 8)).into();
            let source = source.into();
            let opened = LedgerAction::Opened {
                source,
                door: 0,
                until_ms,
                by: None,
            };
            console.action(&opened, None, at_ns);
        }
        let source = V4.parse::<IpAddr>().unwrap().into();
        let ending = Ending::Expired;
        for door in [1, 0] {
            let opened = LedgerAction::Opened {
                source,
                door,
                until_ms,
                by: None,
            };
            console.action(&opened, None, at_ns);
            console.action(
                &LedgerAction::Closed {
                    source,
                    door,
                    ending,
                },
                None,
                at_ns,
            );
        }
        console.sum_up(at_ns + SECOND, false);
        console.sum_up(at_ns + 2 * SECOND, true);
    };
    let text = printed(false, false, print);
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[127].contains("opened  10.0.127.0"), "{text}");
    let rest: Vec<Vec<&str>> = lines[128..]
        .iter()
        .map(|line| line.split_whitespace().collect())
        .collect();
    let words = |line: &'static str| line.split_whitespace().collect::<Vec<_>>();
    assert_eq!(
        rest,
        [
            words("12:00:00.000 opened 203.0.113.9 games udp/60000-61000, tcp/80 for 30s"),
            words("12:00:00.000 closed 203.0.113.9 games udp/60000-61000, tcp/80 expired"),
            words("12:00:00.000 closed 203.0.113.9 ssh tcp/22 expired"),
            words(
                "12:00:01.000 suppressed - - 873 lines of opened (873 sources, 1 door): too many at once"
            ),
        ]
    );
    let objects = printed(true, false, print);
    assert_eq!(
        objects.lines().last(),
        Some(
            r#"{"time":"2026-03-01T10:00:01.000Z","event":"suppressed","doors":1,"events_suppressed":873,"kind":"opened","sources":873}"#
        )
    );
    assert_eq!(objects.lines().count(), 128 + 3 + 1);
}

#[test]
fn in_a_dry_run_packets_would_be_dropped() {
    for (name, reason, line) in [
        (
            "denied",
            Reason::NoGrant,
            "12:00:01.123 would drop  203.0.113.9  -  tcp/22 no grant\n",
        ),
        (
            "locked",
            Reason::LockedOut,
            "12:00:01.123 locked-out  203.0.113.9  -  tcp/22 locked out\n",
        ),
    ] {
        let event = event(V4, reason, NO_DOOR, 0, Tcp, 22);
        assert_eq!(
            printed(false, true, |console| console.event(&event)),
            line,
            "{name}"
        );
    }
}

#[test]
fn actions_of_the_ledger_are_written_as_lines() {
    let source = V4.parse::<IpAddr>().unwrap().into();
    let closed = |door, ending| LedgerAction::Closed {
        source,
        door,
        ending,
    };
    let key = GrantKey {
        source,
        port_group: 1,
        target_id: 0,
    };
    let until_ms = 7_291_123;
    #[rustfmt::skip]
    let rows = [
        ("opened", LedgerAction::Opened { source, door: 0, until_ms, by: None }, "12:00:01.123 opened  203.0.113.9  ssh  tcp/22 for 1m30s\n"),
        ("opened by hand", LedgerAction::Opened { source, door: 0, until_ms, by: Some(By::Hand(0)) }, "12:00:01.123 opened  203.0.113.9  ssh  tcp/22 for 1m30s granted by uid 0\n"),
        ("refreshed", LedgerAction::Refreshed { source, door: 0, until_ms, by: None }, "12:00:01.123 refreshed  203.0.113.9  ssh  tcp/22 for 1m30s\n"),
        ("refreshed by hand", LedgerAction::Refreshed { source, door: 0, until_ms, by: Some(By::Hand(1000)) }, "12:00:01.123 refreshed  203.0.113.9  ssh  tcp/22 for 1m30s granted by uid 1000\n"),
        ("opened by another host", LedgerAction::Opened { source, door: 0, until_ms, by: Some(By::Host(HostId(1))) }, "12:00:01.123 opened  203.0.113.9  ssh  tcp/22 for 1m30s granted by host web-17\n"),
        ("expired", closed(0, Ending::Expired), "12:00:01.123 closed  203.0.113.9  ssh  tcp/22 expired\n"),
        ("by a sequence", closed(0, Ending::Sequence { by: Some(2) }), "12:00:01.123 closed  203.0.113.9  ssh  tcp/22 by the closing sequence shut\n"),
        ("by a packet", closed(0, Ending::Packet), "12:00:01.123 closed  203.0.113.9  ssh  tcp/22 by a SPA packet\n"),
        ("by some sequence", closed(0, Ending::Sequence { by: None }), "12:00:01.123 closed  203.0.113.9  ssh  tcp/22 before its end, by a closing sequence or a SPA packet\n"),
        ("by hand", closed(0, Ending::Revoked { by: By::Hand(0) }), "12:00:01.123 closed  203.0.113.9  ssh  tcp/22 revoked by uid 0\n"),
        ("by another host", closed(0, Ending::Revoked { by: By::Host(HostId(1)) }), "12:00:01.123 closed  203.0.113.9  ssh  tcp/22 revoked by host web-17\n"),
        ("no longer configured", closed(0, Ending::Removed), "12:00:01.123 closed  203.0.113.9  ssh  tcp/22 removed from the configuration\n"),
        ("narrowed", closed(0, Ending::Narrowed), "12:00:01.123 closed  203.0.113.9  ssh  tcp/22 narrowed by the configuration\n"),
        ("a removal", LedgerAction::Remove { key, grant: Grant { until_ms, door: 0 } }, ""),
    ];
    for (name, action, line) in rows {
        let at_ns = 7_201 * SECOND + 123_000_000;
        assert_eq!(
            printed(false, false, |console| {
                console.name_host(HostId(1), "web-17".to_owned());
                console.action(&action, None, at_ns);
            }),
            line,
            "{name}"
        );
    }
}

#[test]
fn columns_grow_with_their_content() {
    let text = printed(false, false, |console| {
        console.event(&event("192.0.2.1", Reason::Opened, 0, 3, Tcp, 9000));
        console.event(&event(V4, Reason::Refreshed, 1, 2, Tcp, 9000));
        console.event(&event(
            "2001:db8:1111:2222:3333:4444:5555:6666",
            Reason::NoGrant,
            NO_DOOR,
            0,
            Tcp,
            22,
        ));
        console.event(&event("192.0.2.1", Reason::Opened, 0, 3, Tcp, 9000));
    });
    assert_eq!(
        text,
        "12:00:01.123 opened  192.0.2.1  ssh  tcp/22 for 30s\n\
         12:00:01.123 refreshed  203.0.113.9  games  udp/60000-61000, tcp/80 for 30s\n\
         12:00:01.123 denied     2001:db8:1111:2222:3333:4444:5555:6666  -      tcp/22 no grant\n\
         12:00:01.123 opened     192.0.2.1                 ssh    tcp/22 for 30s\n"
    );
}

#[test]
fn every_other_event_is_written_as_a_line() {
    let source = V4.parse::<IpAddr>().unwrap().into();
    let flow = FlowKey {
        source,
        source_port: 40_000,
        port: 22,
        target_id: 0,
        protocol: Tcp as u16,
    };
    let one = ["tcp/22".to_owned()];
    let two = ["tcp/22".to_owned(), "udp/60000-61000".to_owned()];
    type Tell<'a> = Box<dyn Fn(&mut Console<Vec<u8>>) + 'a>;
    let rows: [(&str, Tell<'_>, &str); 12] = [
        (
            "used",
            Box::new(|c| c.used("ssh", 12, 988, SECOND)),
            "10:00:01.000 used    -  ssh  line 12, 988 left\n",
        ),
        (
            "disabled",
            Box::new(|c| c.usable("ssh", Some("no\nsequence"), SECOND)),
            "10:00:01.000 disabled  -  ssh  no\\nsequence\n",
        ),
        (
            "enabled",
            Box::new(|c| c.usable("ssh", None, SECOND)),
            "10:00:01.000 enabled  -  ssh\n",
        ),
        (
            "flow",
            Box::new(|c| c.flow_closed(&flow, Duration::from_secs(7200), SECOND)),
            "10:00:01.000 closed  203.0.113.9  tcp/22  connection from port 40000 idle for 2h\n",
        ),
        (
            "left out",
            Box::new(|c| c.suppressed(120, 0, SECOND)),
            "10:00:01.000 suppressed  -  -  120 events: too many at once\n",
        ),
        (
            "lost, too",
            Box::new(|c| c.suppressed(120, 1, SECOND)),
            "10:00:01.000 suppressed  -  -  120 events: too many at once, 1 event: not read in time\n",
        ),
        (
            "none left out",
            Box::new(|c| c.suppressed(0, 0, SECOND)),
            "",
        ),
        (
            "protecting",
            Box::new(|c| {
                c.protecting(&one, "eth0", AttachMode::Native, SECOND);
            }),
            "protecting tcp/22 on eth0 (native), 5 doors\n",
        ),
        (
            "protecting much",
            Box::new(|c| c.protecting(&two, "eth0", AttachMode::Generic, SECOND)),
            "protecting tcp/22, udp/60000-61000 on eth0 (skb), 5 doors\n",
        ),
        (
            "attached",
            Box::new(|c| c.fallback("eth0", AttachMode::Generic, "the driver\nsaid no", SECOND)),
            "fallback to skb on eth0 because the driver\\nsaid no\n",
        ),
        (
            "stopped",
            Box::new(|c| c.detached(&one, "eth0", SECOND)),
            "detached: tcp/22 is no longer protected on eth0\n",
        ),
        (
            "stopped much",
            Box::new(|c| c.detached(&two, "eth0", SECOND)),
            "detached: tcp/22, udp/60000-61000 are no longer protected on eth0\n",
        ),
    ];
    for (name, print, line) in rows {
        assert_eq!(printed(false, false, print), line, "{name}");
    }
    let style = Style {
        json: false,
        stamp: LinePrefix::Time,
        dry_run: false,
        zone: TimeZone::UTC,
    };
    let only = doors().into_iter().take(1).collect();
    let mut console = Console::new(Vec::new(), style, only, Timestamp::UNIX_EPOCH);
    console.protecting(&one, "eth0", AttachMode::Native, SECOND);
    let line = String::from_utf8(console.into_inner()).unwrap();
    assert_eq!(line, "protecting tcp/22 on eth0 (native), 1 door\n");
}

#[test]
fn with_json_a_line_is_an_object() {
    let source = V6.parse::<IpAddr>().unwrap().into();
    let flow = FlowKey {
        source,
        source_port: 40_000,
        port: 53,
        target_id: 0,
        protocol: Udp as u16,
    };
    let ports = ["tcp/22".to_owned()];
    type Tell<'a> = Box<dyn Fn(&mut Console<Vec<u8>>) + 'a>;
    #[rustfmt::skip]
    let rows: [(&str, bool, Tell<'_>, &str); 14] = [
        ("opened by hand", false, Box::new(|c| c.action(&LedgerAction::Opened { source, door: 0, until_ms: 31_000, by: Some(By::Hand(0)) }, None, SECOND)),
            r#"{"time":"2026-03-01T08:00:01.000Z","event":"opened","source":"2001:db8::9","door":"ssh","reason":"granted","by":"uid 0","until":"2026-03-01T08:00:31.000Z","seconds":30.0,"ports":["tcp/22"]}"#),
        ("closed by hand", false, Box::new(|c| c.action(&LedgerAction::Closed { source, door: 0, ending: Ending::Revoked { by: By::Hand(1000) } }, None, SECOND)),
            r#"{"time":"2026-03-01T08:00:01.000Z","event":"closed","source":"2001:db8::9","door":"ssh","reason":"revoked","by":"uid 1000","ports":["tcp/22"]}"#),
        ("opened", false, Box::new(|c| c.event(&event(V4, Reason::Opened, 0, 3, Tcp, 9000))),
            r#"{"time":"2026-03-01T10:00:01.123Z","event":"opened","source":"203.0.113.9","door":"ssh","protocol":"tcp","port":9000,"source_port":40000,"stage":3,"stages":3,"reason":"opened","until":"2026-03-01T10:00:31.123Z","seconds":30.0,"ports":["tcp/22"]}"#),
        ("denied in a dry run", true, Box::new(|c| c.event(&event(V6, Reason::NoGrant, NO_DOOR, 0, Tcp, 22))),
            r#"{"time":"2026-03-01T10:00:01.123Z","event":"denied","source":"2001:db8::9","protocol":"tcp","port":22,"source_port":40000,"reason":"no-grant","dry_run":true}"#),
        ("unreadable", false, Box::new(|c| c.event(&Event { source: Default::default(), ..event(V4, Reason::BadHeader, NO_DOOR, 0, Tcp, 0) })),
            r#"{"time":"2026-03-01T10:00:01.123Z","event":"dropped","reason":"bad-header"}"#),
        ("closed", false, Box::new(|c| c.action(&LedgerAction::Closed { source, door: 0, ending: Ending::Sequence { by: Some(2) } }, None, SECOND)),
            r#"{"time":"2026-03-01T08:00:01.000Z","event":"closed","source":"2001:db8::9","door":"ssh","reason":"sequence","by":"shut","ports":["tcp/22"]}"#),
        ("flow", false, Box::new(|c| c.flow_closed(&flow, Duration::from_millis(1_500), SECOND)),
            r#"{"time":"2026-03-01T08:00:01.000Z","event":"closed","source":"2001:db8::9","protocol":"udp","port":53,"source_port":40000,"reason":"idle","seconds":1.5}"#),
        ("left out", false, Box::new(|c| c.suppressed(7, 8, SECOND)),
            r#"{"time":"2026-03-01T08:00:01.000Z","event":"suppressed","events_suppressed":7,"events_lost":8}"#),
        ("used", false, Box::new(|c| c.used("ssh", 12, 988, SECOND)),
            r#"{"time":"2026-03-01T08:00:01.000Z","event":"used","door":"ssh","line":12,"sequences_left":988}"#),
        ("disabled", false, Box::new(|c| c.usable("ssh", Some("no sequence is left"), SECOND)),
            r#"{"time":"2026-03-01T08:00:01.000Z","event":"disabled","door":"ssh","because":"no sequence is left"}"#),
        ("enabled", false, Box::new(|c| c.usable("ssh", None, SECOND)),
            r#"{"time":"2026-03-01T08:00:01.000Z","event":"enabled","door":"ssh"}"#),
        ("protecting", false, Box::new(|c| c.protecting(&ports, "eth0", AttachMode::Native, SECOND)),
            r#"{"time":"2026-03-01T08:00:01.000Z","event":"protecting","ports":["tcp/22"],"interface":"eth0","mode":"native","doors":5}"#),
        ("attached", false, Box::new(|c| c.fallback("eth0", AttachMode::Generic, "no", SECOND)),
            r#"{"time":"2026-03-01T08:00:01.000Z","event":"fallback","interface":"eth0","mode":"skb","because":"no"}"#),
        ("stopped", false, Box::new(|c| c.detached(&ports, "eth0", SECOND)),
            r#"{"time":"2026-03-01T08:00:01.000Z","event":"detached","ports":["tcp/22"],"interface":"eth0"}"#),
    ];
    for (name, dry_run, print, line) in rows {
        assert_eq!(printed(true, dry_run, print), format!("{line}\n"), "{name}");
    }
}

#[test]
fn lines_follow_a_change_of_the_wall_time() {
    let text = printed(false, false, |console| {
        console.suppressed(1, 0, SECOND);
        console.set_boot("2026-03-01T09:30:00Z".parse().unwrap());
        console.suppressed(1, 0, u64::MAX);
        console.suppressed(1, 0, SECOND);
    });
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("10:00:01.000 "), "{text}");
    assert!(lines[2].starts_with("11:30:01.000 "), "{text}");
}

#[test]
fn a_closed_pipe_does_not_panic() {
    struct Closed(usize);
    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            self.0 += 1;
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let style = Style {
        json: false,
        stamp: LinePrefix::Time,
        dry_run: false,
        zone: TimeZone::UTC,
    };
    let mut console = Console::new(Closed(0), style, doors(), Timestamp::UNIX_EPOCH);
    console.suppressed(1, 0, SECOND);
    console.suppressed(1, 0, SECOND);
    let failure = console.failure().map(io::Error::kind);
    assert_eq!(failure, Some(io::ErrorKind::BrokenPipe));
    assert_eq!(console.into_inner().0, 1, "not tried again");
}

#[test]
fn events_are_written_in_knockds_format() {
    let source = V4.parse::<IpAddr>().unwrap().into();
    let at_ns = 7_201 * SECOND;
    let mut console = console(false, false).in_knockds_words();
    console.protecting(&["tcp/22".to_owned()], "eth0", AttachMode::Native, at_ns);
    for (reason, stage) in [
        (Reason::FirstKnock, 1),
        (Reason::Duplicate, 1),
        (Reason::NextKnock, 2),
        (Reason::WrongKnock, 2),
        (Reason::OutOfSequence, 0),
        (Reason::Restarted, 1),
        (Reason::TooLate, 1),
        (Reason::NoGrant, 0),
    ] {
        console.event(&event(V4, reason, 0, stage, Tcp, 7000));
    }
    let (until_ms, closed) = (7_291_123, |ending| LedgerAction::Closed {
        source,
        door: 0,
        ending,
    });
    let opened = |by| LedgerAction::Opened {
        source,
        door: 0,
        until_ms,
        by,
    };
    for action in [
        opened(None),
        opened(Some(By::Hand(0))),
        closed(Ending::Sequence { by: Some(2) }),
        closed(Ending::Expired),
        closed(Ending::Removed),
        closed(Ending::Revoked { by: By::Hand(0) }),
    ] {
        console.action(&action, None, at_ns);
    }
    for (arguments, program) in [
        (vec!["{source}", "in"], "/bin/log"),
        (vec!["-c", "a; b {source}"], "/bin/sh"),
    ] {
        let command = Command {
            program: program.into(),
            arguments: arguments.into_iter().map(str::to_owned).collect(),
            timeout: Duration::from_secs(10),
        };
        let job = Job {
            occasion: Occasion::Open,
            source: Prefix::of(V4.parse().unwrap()),
            door: "ssh".to_owned(),
            user: None,
            port: Some(22),
            command,
        };
        console.running(&job, at_ns);
    }
    console.detached(&["tcp/22".to_owned()], "eth0", at_ns);
    let printed = String::from_utf8(console.into_inner()).unwrap();
    let lines: Vec<&str> = printed
        .lines()
        .map(|line| line.strip_prefix("[2026-03-01 12:00] ").unwrap())
        .collect();
    assert_eq!(
        lines,
        [
            "starting up, listening on eth0",
            "203.0.113.9: ssh: Stage 1",
            "203.0.113.9: ssh: Stage 2",
            "203.0.113.9: ssh: Stage 1",
            "203.0.113.9: ssh: sequence timeout (stage 1)",
            "203.0.113.9: ssh: Stage 3",
            "203.0.113.9: ssh: OPEN SESAME",
            "203.0.113.9: shut: Stage 2",
            "203.0.113.9: shut: OPEN SESAME",
            "203.0.113.9: ssh: command timeout",
            "ssh: running command: /bin/log 203.0.113.9 in",
            "ssh: running command: a; b 203.0.113.9",
            "shutting down",
        ]
    );
}

/// A watcher selects its own format.
#[test]
fn watchers_do_not_receive_knockds_format() {
    let console = console(false, false);
    let watchers = console.watchers();
    let (mut text, mut json) = (
        watchers.watch(Form::Text).unwrap(),
        watchers.watch(Form::Json).unwrap(),
    );
    let mut console = console.in_knockds_words();
    console.event(&event(V4, Reason::FirstKnock, 0, 1, Tcp, 7000));
    drop(console);
    watchers.end();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(async {
        let line = text.next().await.unwrap();
        assert_eq!(
            &*line,
            "12:00:01.123 knock   203.0.113.9  ssh  1/3 tcp/7000\n"
        );
        assert_eq!(text.next().await, None);
        assert!(json.next().await.unwrap().contains("\"first-knock\""));
    });
}

fn ports(protocol: Protocol, first: u16, last: u16) -> Ports {
    Ports {
        protocol,
        first,
        last,
    }
}

fn door(name: &str, knocks: usize, effect: Effect) -> DoorText {
    let knock = Knock {
        protocol: Tcp,
        port: 7000,
    };
    DoorText::from(&Door {
        name: name.to_owned(),
        knock: vec![knock; knocks],
        dynamic: None,
        effect,
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
}

fn doors() -> Vec<DoorText> {
    vec![
        door("ssh", 3, Effect::Open(vec![ports(Tcp, 22, 22)])),
        door(
            "games",
            2,
            Effect::Open(vec![ports(Udp, 60_000, 61_000), ports(Tcp, 80, 80)]),
        ),
        door("shut", 2, Effect::Close(vec![ports(Tcp, 22, 22)])),
        door("bell", 1, Effect::Open(vec![])),
        door("e\u{1b}[31mvil\n", 1, Effect::Open(vec![])),
    ]
}

fn console(json: bool, dry_run: bool) -> Console<Vec<u8>> {
    let style = Style {
        json,
        stamp: LinePrefix::Time,
        dry_run,
        zone: TimeZone::fixed(tz::offset(2)),
    };
    // The machine started at 10:00 in this zone.
    let boot: Timestamp = "2026-03-01T08:00:00Z".parse().unwrap();
    Console::new(Vec::new(), style, doors(), boot)
}

fn printed(json: bool, dry_run: bool, print: impl FnOnce(&mut Console<Vec<u8>>)) -> String {
    let mut console = console(json, dry_run);
    print(&mut console);
    assert!(console.failure().is_none());
    String::from_utf8(console.into_inner()).unwrap()
}

fn event(
    source: &str,
    reason: Reason,
    door: u16,
    stage: u8,
    protocol: Protocol,
    port: u16,
) -> Event {
    let source: IpAddr = source.parse().unwrap();
    Event {
        at_ns: 7_201 * SECOND + 123_456_789,
        until_ms: 7_231_123,
        source: source.into(),
        destination: Default::default(),
        door,
        source_port: 40_000,
        port,
        protocol: protocol as u8,
        reason: reason as u8,
        stage: stage.into(),
        ..Event::default()
    }
}

/// Returns an event of a packet to an address of this host, which came in by the interface with this index.
fn arrived(interface: u32, to: &str, event: Event) -> Event {
    Event {
        destination: to.parse::<IpAddr>().unwrap().into(),
        interface,
        ..event
    }
}
