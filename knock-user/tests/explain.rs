//! `explain` returns the verdict of the judge for a packet, in these sentences.
#![expect(
    clippy::unwrap_used,
    reason = "what a helper of a test unwraps is the test's finding"
)]

use std::net::IpAddr;

use bytemuck::Pod;
use knock_common::{
    Address, Env as _, Verdict,
    env::{Bucket as _, Table as _, Word as _},
    judge,
    layout::{EdgeKey, Features, FlowKey, GrantKey, ProgressKey, WAYS},
    packet::flag,
    presence,
    sim::Sim,
    time::Moment,
};
use knock_user::{
    compile::{Input, Tables, compile, grant_keys, stable_ids::StableIds},
    config,
    explain::{Known, Live, Query, explain},
    host::Host,
    model::settings::Settings,
};

mod frame;
use frame::Frame;

const CONFIG: &str = r#"
protect = ["tcp/3306"]
trust = ["192.0.2.0/24", "2001:db8:1::/48"]
exempt = ["tcp/443"]

[established]
idle = "1h"

[lockout]
failures = 2
for = "60s"

[decoys]
ports = ["tcp/7001"]

[[door]]
name = "ssh"
knock = ["tcp/7000", "udp/8000", "tcp/9000"]
open = ["tcp/22"]

[[door]]
name = "wide"
knock = ["udp/8000", "tcp/6000", "udp/5000"]
open = ["tcp/22", "udp/60000-61000"]
step_timeout = "5s"

[[door]]
name = "bell"
knock = ["tcp/9500", "udp/5500", "tcp/6500"]
on_open = ["true"]

[[door]]
name = "shut"
knock = ["tcp/4000", "udp/8500", "tcp/3000"]
close = ["tcp/22", "udp/60000-61000"]

[[door]]
name = "inner"
knock = ["tcp/9100", "udp/5100", "tcp/6100"]
open = ["tcp/22"]
target = "198.51.100.1"
"#;

const A: &str = "203.0.113.7";
const SIX: &str = "2001:db8::7";
/// The address of this host that the door `inner` is for.
const INNER: &str = "198.51.100.1";
const OTHER: &str = "198.51.100.2";
/// A minute after boot.
const START_MS: u64 = 60_000;

use ExplainStep::*;

/// The whole sequence of ssh.
const SSH: [ExplainStep; 3] = [Knock("tcp/7000"), Knock("udp/8000"), Knock("tcp/9000")];

const PLAIN: Row = Row {
    name: "",
    source: A,
    steps: &[],
    port: "tcp/22",
    to: None,
    chain: &[],
};

const PROTECTED: &str = "tcp/22 is protected; opened by ssh, wide, inner (to 198.51.100.1)";
const UNTRUSTED: &str = "203.0.113.7 is not trusted";
const IDLE: &str = "no attempt is under way";
const NO_GRANT: &str = "a new connection would be dropped: no grant";
const GRANTED: &str = "a new connection would pass: source has a grant";

const ROWS: &[Row] = &[
    Row {
        name: "an unauthorized source",
        chain: &[PROTECTED, UNTRUSTED, "no grant", IDLE, NO_GRANT],
        ..PLAIN
    },
    Row {
        name: "an unauthorized source, IPv6",
        source: SIX,
        chain: &[
            PROTECTED,
            "2001:db8::7 is not trusted",
            "no grant",
            IDLE,
            NO_GRANT,
        ],
        ..PLAIN
    },
    Row {
        name: "trusted",
        source: "192.0.2.9",
        chain: &[
            PROTECTED,
            "192.0.2.9 is trusted",
            "no grant",
            IDLE,
            "a new connection would pass: trusted source",
        ],
        ..PLAIN
    },
    Row {
        name: "trusted, IPv6",
        source: "2001:db8:1::9",
        chain: &[
            PROTECTED,
            "2001:db8:1::9 is trusted",
            "no grant",
            IDLE,
            "a new connection would pass: trusted source",
        ],
        ..PLAIN
    },
    Row {
        name: "a port that no door opens",
        port: "tcp/3306",
        chain: &[
            "tcp/3306 is protected; no door opens it",
            UNTRUSTED,
            "no grant",
            IDLE,
            NO_GRANT,
        ],
        ..PLAIN
    },
    Row {
        name: "let in",
        steps: &[SSH[0], SSH[1], SSH[2], Wait(18_000)],
        chain: &[
            PROTECTED,
            UNTRUSTED,
            "it has a grant for ssh, 12s left",
            IDLE,
            GRANTED,
        ],
        ..PLAIN
    },
    Row {
        name: "let in by hand, IPv6",
        source: SIX,
        steps: &[Grant("wide", 600_000)],
        chain: &[
            PROTECTED,
            "2001:db8::7 is not trusted",
            "it has a grant for wide, 10m left",
            IDLE,
            GRANTED,
        ],
        ..PLAIN
    },
    Row {
        name: "let in, another port",
        steps: &[SSH[0], SSH[1], SSH[2]],
        port: "udp/60500",
        chain: &[
            "udp/60500 is protected; opened by wide",
            UNTRUSTED,
            "no grant",
            IDLE,
            "a datagram would be dropped: no grant",
        ],
        ..PLAIN
    },
    Row {
        name: "no longer let in",
        steps: &[SSH[0], SSH[1], SSH[2], Wait(42_000)],
        chain: &[
            PROTECTED,
            UNTRUSTED,
            "no grant (the last ended 12s ago)",
            IDLE,
            NO_GRANT,
        ],
        ..PLAIN
    },
    Row {
        name: "connected",
        steps: &[Flow(22, 0), Flow(60_500, 1)],
        chain: &[
            PROTECTED,
            UNTRUSTED,
            "no grant",
            "1 connection from it continues",
            IDLE,
            NO_GRANT,
        ],
        ..PLAIN
    },
    Row {
        name: "connected by UDP",
        steps: &[Flow(22, 0), Flow(60_500, 1)],
        port: "udp/60500",
        chain: &[
            "udp/60500 is protected; opened by wide",
            UNTRUSTED,
            "no grant",
            "1 connection from it continues",
            IDLE,
            "a datagram would be dropped: no grant",
        ],
        ..PLAIN
    },
    Row {
        name: "long idle",
        steps: &[Flow(22, 0), Wait(3_600_000)],
        chain: &[PROTECTED, UNTRUSTED, "no grant", IDLE, NO_GRANT],
        ..PLAIN
    },
    Row {
        name: "one knock made",
        steps: &[SSH[0], Wait(5_000)],
        chain: &[
            PROTECTED,
            UNTRUSTED,
            "no grant",
            "1 of 3 knocks of ssh made, 20s left for the rest",
            NO_GRANT,
        ],
        ..PLAIN
    },
    Row {
        name: "two knocks made",
        steps: &[SSH[0], Wait(7_000), SSH[1], Wait(7_000)],
        port: "tcp/9000",
        chain: &[
            "tcp/9000 is knock 3 of 3 of ssh",
            "2 of 3 knocks of ssh made, 11s left for the rest",
            "a new connection would be dropped: door opened (ssh opens tcp/22 for 30s)",
        ],
        ..PLAIN
    },
    Row {
        name: "too late",
        steps: &[Knock("udp/8000"), Knock("tcp/6000"), Wait(6_000)],
        port: "udp/5000",
        chain: &[
            "udp/5000 is knock 3 of 3 of wide",
            IDLE,
            "a datagram would be dropped: knock came too late (after 2 of 3 of wide)",
        ],
        ..PLAIN
    },
    Row {
        name: "long over",
        steps: &[SSH[0], SSH[1], Wait(60_000)],
        port: "tcp/9000",
        chain: &[
            "tcp/9000 is knock 3 of 3 of ssh",
            IDLE,
            "a new connection would be dropped: knock out of sequence",
        ],
        ..PLAIN
    },
    Row {
        name: "a limit from knock to knock",
        steps: &[Knock("udp/8000"), Knock("tcp/6000"), Wait(2_000)],
        port: "udp/5000",
        chain: &[
            "udp/5000 is knock 3 of 3 of wide",
            "2 of 3 knocks of wide made, 3s left for the next",
            "a datagram would be dropped: door opened (wide opens tcp/22, udp/60000-61000 for 30s)",
        ],
        ..PLAIN
    },
    Row {
        name: "a first knock",
        port: "udp/8000",
        chain: &[
            "udp/8000 is knock 2 of 3 of ssh, 1 of 3 of wide",
            IDLE,
            "a datagram would be dropped: first knock (1 of 3 of wide)",
        ],
        ..PLAIN
    },
    Row {
        name: "a wrong knock",
        steps: &[SSH[0]],
        port: "tcp/6000",
        chain: &[
            "tcp/6000 is knock 2 of 3 of wide",
            "1 of 3 knocks of ssh made, 25s left for the rest",
            "a new connection would be dropped: wrong knock (after 1 of 3 of ssh)",
        ],
        ..PLAIN
    },
    Row {
        name: "a knock out of sequence",
        port: "tcp/9000",
        chain: &[
            "tcp/9000 is knock 3 of 3 of ssh",
            IDLE,
            "a new connection would be dropped: knock out of sequence",
        ],
        ..PLAIN
    },
    Row {
        name: "the last knock of a door that only runs a command",
        steps: &[Knock("tcp/9500"), Knock("udp/5500")],
        port: "tcp/6500",
        chain: &[
            "tcp/6500 is knock 3 of 3 of bell",
            "2 of 3 knocks of bell made, 25s left for the rest",
            "a new connection would be dropped: door opened (bell runs its command)",
        ],
        ..PLAIN
    },
    Row {
        name: "the last knock of a door that closes",
        steps: &[SSH[0], SSH[1], SSH[2], Knock("tcp/4000"), Knock("udp/8500")],
        port: "tcp/3000",
        chain: &[
            "tcp/3000 is knock 3 of 3 of shut",
            "2 of 3 knocks of shut made, 25s left for the rest",
            "a new connection would be dropped: door closed (shut closes tcp/22, udp/60000-61000)",
        ],
        ..PLAIN
    },
    Row {
        name: "a decoy while knocking",
        steps: &[SSH[0]],
        port: "tcp/7001",
        chain: &[
            "tcp/7001 is a decoy",
            "1 of 3 knocks of ssh made, 25s left for the rest",
            "a new connection would be dropped: decoy port (after 1 of 3 of ssh)",
        ],
        ..PLAIN
    },
    Row {
        name: "another port while knocking",
        steps: &[SSH[0]],
        port: "tcp/5555",
        chain: &[
            "tcp/5555 is an unused port: packets pass, and a new connection to it resets an attempt",
            "1 of 3 knocks of ssh made, 25s left for the rest",
            "a new connection would pass: unrelated port during an attempt (after 1 of 3 of ssh)",
        ],
        ..PLAIN
    },
    Row {
        name: "another port",
        port: "tcp/5555",
        chain: &[
            "tcp/5555 is an unused port: packets pass, and a new connection to it resets an attempt",
            "a new connection would pass: port not configured",
        ],
        ..PLAIN
    },
    Row {
        name: "an exempt port",
        steps: &[SSH[0]],
        port: "tcp/443",
        chain: &[
            "tcp/443 is exempt: packets pass, and reset no attempt",
            "1 of 3 knocks of ssh made, 25s left for the rest",
            "a new connection would pass: the port is exempt",
        ],
        ..PLAIN
    },
    Row {
        name: "one failed attempt",
        steps: &[SSH[0], Knock("tcp/6000")],
        chain: &[
            PROTECTED,
            UNTRUSTED,
            "no grant",
            IDLE,
            "1 of 2 failed attempts before a lockout",
            NO_GRANT,
        ],
        ..PLAIN
    },
    Row {
        name: "locked out",
        steps: &[
            SSH[0],
            Knock("tcp/6000"),
            SSH[0],
            Knock("tcp/6000"),
            Wait(20_000),
        ],
        port: "tcp/7000",
        chain: &[
            "tcp/7000 is knock 1 of 3 of ssh",
            IDLE,
            "locked out for 40s more: knocks are ignored",
            "a new connection would be dropped: locked out",
        ],
        ..PLAIN
    },
    Row {
        name: "no longer locked out",
        steps: &[
            SSH[0],
            Knock("tcp/6000"),
            SSH[0],
            Knock("tcp/6000"),
            Wait(60_000),
        ],
        port: "tcp/7000",
        chain: &[
            "tcp/7000 is knock 1 of 3 of ssh",
            IDLE,
            "a new connection would be dropped: first knock (1 of 3 of ssh)",
        ],
        ..PLAIN
    },
    Row {
        name: "let in at one address",
        steps: &[Inner("tcp/9100"), Inner("udp/5100"), Inner("tcp/6100")],
        to: Some(INNER),
        chain: &[
            PROTECTED,
            UNTRUSTED,
            "it has a grant for inner, 30s left",
            IDLE,
            GRANTED,
        ],
        ..PLAIN
    },
    Row {
        name: "not let in at the others",
        steps: &[Inner("tcp/9100"), Inner("udp/5100"), Inner("tcp/6100")],
        to: Some(OTHER),
        chain: &[PROTECTED, UNTRUSTED, "no grant", IDLE, NO_GRANT],
        ..PLAIN
    },
    Row {
        name: "let in at any address",
        steps: &SSH,
        to: Some(INNER),
        chain: &[
            PROTECTED,
            UNTRUSTED,
            "it has a grant for ssh, 30s left",
            IDLE,
            GRANTED,
        ],
        ..PLAIN
    },
    Row {
        name: "knocking at one address",
        steps: &[Inner("tcp/9100"), Inner("udp/5100")],
        to: Some(INNER),
        port: "tcp/6100",
        chain: &[
            "tcp/6100 is knock 3 of 3 of inner (to 198.51.100.1)",
            "2 of 3 knocks of inner made, 25s left for the rest",
            "a new connection would be dropped: door opened (inner opens tcp/22 for 30s)",
        ],
        ..PLAIN
    },
];

#[test]
fn every_situation_has_its_words_and_verdict() {
    let no_features = Features::default();
    for row in ROWS {
        let name = row.name;
        let mut host = ExplainedKernel::new(no_features);
        host.do_all(row.source, row.steps);
        let query = Query {
            source: row.source.parse().unwrap(),
            port: row.port.parse().unwrap(),
            destination: row.to.map(|to| to.parse().unwrap()),
        };
        let before = state(&host.sim);
        let explained = explain(&query, &host.known(), &host).unwrap();
        assert_eq!(explained.steps, row.chain, "{name}");
        assert_eq!(state(&host.sim), before, "{name}: nothing changes");

        let reason = judge(&frame(row.source, row.port, row.to)[..], &host.sim);
        assert_eq!(explained.reason, reason.name(), "{name}");
        let verdict = match reason.verdict() {
            Verdict::Pass => "pass",
            Verdict::Drop => "drop",
            Verdict::Answer => "answer",
        };
        assert_eq!(explained.verdict, verdict, "{name}");
    }
}

/// `explain` judges a SYN, which is not a knock of such a door.
#[test]
fn knocks_with_a_handshake_are_explained() {
    const PROVED: &str = r#"
        [decoys]
        ports = ["tcp/7001", "udp/7001"]
        [[door]]
        name = "ssh"
        verify = "handshake"
        knock = ["tcp/7000", "tcp/9000", "tcp/8000"]
        open = ["tcp/22"]
    "#;
    const COUNTS: &str = "it counts once a TCP handshake has verified the source";
    let host = ExplainedKernel::with(PROVED, Features::default());
    for source in [A, SIX] {
        for (port, what, last, verdict) in [
            (
                "tcp/9000",
                format!("tcp/9000 is knock 2 of 3 of ssh; {COUNTS}"),
                "a new connection would be answered: SYN answered with a SYN cookie",
                "answer",
            ),
            (
                "tcp/7001",
                format!("tcp/7001 is a decoy; {COUNTS}"),
                "a new connection would be answered: SYN answered with a SYN cookie",
                "answer",
            ),
            (
                "udp/7001",
                "udp/7001 is a decoy".to_owned(),
                "a datagram would be dropped: decoy port",
                "drop",
            ),
        ] {
            let query = Query {
                source: source.parse().unwrap(),
                port: port.parse().unwrap(),
                destination: None,
            };
            let explained = explain(&query, &host.known(), &host).unwrap();
            assert_eq!(explained.steps.first().unwrap(), &what);
            assert_eq!(explained.steps.last().unwrap(), last, "{port}");
            assert_eq!(explained.verdict, verdict, "{port}");
        }
    }
}

/// A datagram without a seal is judged by the other use of the port.
#[test]
fn ports_of_spa_packets_are_explained() {
    const ACCEPTS: &str = "accepts single packet authorization";
    let spa = |lines: &str| {
        format!(
            "[spa]\n{lines}[[user]]\nname = \"alice\"\nkeys = \
             [\"knock1:AwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwM\"]\ndoors = [\"vpn\"]\n[[door]]\nname = \
             \"vpn\"\nopen = [\"udp/1194\"]\n"
        )
    };
    let both = "ports = [\"udp/443\", \"udp/1194\"]\notherwise = \"pass\"\n";
    for (lines, port, steps) in [
        (
            "",
            "udp/62201",
            &[
                &*format!("udp/62201 {ACCEPTS}; other packets are dropped"),
                "a datagram would be dropped: no SPA packet",
            ][..],
        ),
        (
            both,
            "udp/443",
            &[
                &format!("udp/443 {ACCEPTS}; other packets pass"),
                "a datagram would pass: it is not a SPA packet, and others pass",
            ],
        ),
        (
            both,
            "udp/1194",
            &[
                &format!("udp/1194 {ACCEPTS}; it is protected for other packets"),
                "203.0.113.9 is not trusted",
                "no grant",
                "a datagram would be dropped: no grant",
            ],
        ),
    ] {
        let host = ExplainedKernel::with(&spa(lines), Features::SPA);
        let query = Query {
            source: "203.0.113.9".parse().unwrap(),
            port: port.parse().unwrap(),
            destination: None,
        };
        let explained = explain(&query, &host.known(), &host).unwrap();
        assert_eq!(explained.steps, steps, "{port}");
    }
}

#[test]
fn a_trial_and_a_dry_run_are_explained() {
    let query = Query {
        source: A.parse().unwrap(),
        port: "tcp/22".parse().unwrap(),
        destination: None,
    };
    for (name, features, wait_ms, first, last, verdict) in [
        (
            "a dry run",
            Features::DRY_RUN,
            0,
            "this is a dry run: nothing is dropped",
            "a new connection would be dropped if this were not a dry run: no grant",
            "pass",
        ),
        (
            "not confirmed yet",
            Features::CONFIRM,
            0,
            "on trial: everything passes in 40s unless `knock-user confirm` is run",
            NO_GRANT,
            "drop",
        ),
        (
            "not confirmed in time",
            Features::CONFIRM,
            40_000,
            "no confirmation came in time: everything passes",
            "a new connection would pass: configuration not confirmed in time",
            "pass",
        ),
    ] {
        let mut host = ExplainedKernel::new(features);
        host.do_all(A, &[Wait(wait_ms)]);
        let explained = explain(&query, &host.known(), &host).unwrap();
        assert_eq!(explained.steps.first().unwrap(), first, "{name}");
        assert_eq!(explained.steps.last().unwrap(), last, "{name}");
        assert_eq!(explained.verdict, verdict, "{name}");
    }
}

#[test]
fn the_daemon_supplies_the_end_of_the_last_grant() {
    let host = ExplainedKernel::new(Features::default());
    let query = Query {
        source: A.parse().unwrap(),
        port: "tcp/22".parse().unwrap(),
        destination: None,
    };
    let known = Known {
        ended_ms: Some(START_MS - 7_300),
        ..host.known()
    };
    let explained = explain(&query, &known, &host).unwrap();
    assert_eq!(explained.steps[2], "no grant (the last ended 7s ago)");
}

#[test]
fn the_daemon_supplies_how_the_host_is_cut_off() {
    const CUT_OFF: &str =
        "cut off from the group web since noon, so no knock opens a door of the group: no route";
    let host = ExplainedKernel::new(Features::default());
    let mut settings = host.settings.clone();
    let fleet = "[fleet]\nservers = [\"http://127.0.0.1:1\"]\ngroup = \"web\"\nhost = \"a\"\nseal = [\"s\"]\n";
    settings.fleet = config::parse(fleet, "seq.toml").unwrap().settings.fleet;
    for (name, port, is_shared, expected) in [
        ("a protected port", "tcp/22", true, true),
        ("a knock", "tcp/7000", true, true),
        ("an unused port", "tcp/5", true, false),
        ("doors of this host alone", "tcp/22", false, false),
    ] {
        for door in &mut settings.doors {
            door.group = (!is_shared).then(String::new);
        }
        let query = Query {
            source: A.parse().unwrap(),
            port: port.parse().unwrap(),
            destination: None,
        };
        let known = Known {
            cut_off: Some(CUT_OFF),
            settings: &settings,
            ..host.known()
        };
        let explained = explain(&query, &known, &host).unwrap();
        let step = format!("this host is {CUT_OFF}");
        assert_eq!(
            explained.steps.contains(&step),
            expected,
            "{name}: {:?}",
            explained.steps
        );
    }
}

#[test]
fn addresses_of_two_families_are_refused() {
    let host = ExplainedKernel::new(Features::default());
    let query = Query {
        source: A.parse().unwrap(),
        port: "tcp/22".parse().unwrap(),
        destination: Some(SIX.parse().unwrap()),
    };
    let error = explain(&query, &host.known(), &host).unwrap_err();
    assert!(error.to_string().contains("two families"), "{error}");
}

#[test]
fn an_unreadable_map_is_an_error() {
    struct Broken<'a>(&'a ExplainedKernel, &'static str);

    impl Live for Broken<'_> {
        fn element<V: Pod>(&self, map: &'static str, index: u32) -> anyhow::Result<Option<V>> {
            anyhow::ensure!(map != self.1, "reading map {map}: no");
            self.0.element(map, index)
        }

        fn entry<K: Pod, V: Pod>(&self, map: &'static str, key: K) -> anyhow::Result<Option<V>> {
            anyhow::ensure!(map != self.1, "reading map {map}: no");
            self.0.entry(map, key)
        }

        fn has_prefix_of(&self, map: &'static str, address: Address) -> anyhow::Result<bool> {
            anyhow::ensure!(map != self.1, "reading map {map}: no");
            self.0.has_prefix_of(map, address)
        }

        fn longest_prefix<K: Pod, V: Pod>(
            &self,
            map: &'static str,
            key: K,
        ) -> anyhow::Result<Option<V>> {
            anyhow::ensure!(map != self.1, "reading map {map}: no");
            self.0.longest_prefix(map, key)
        }

        fn flows(&self) -> anyhow::Result<Vec<(FlowKey, u64)>> {
            anyhow::ensure!(self.1 != "FLOWS", "reading map FLOWS: no");
            self.0.flows()
        }
    }

    let mut host = ExplainedKernel::new(Features::default());
    host.do_all(A, &[SSH[0], SSH[1]]);
    let ask_at = |destination: &str, port: &str, map| {
        let query = Query {
            source: A.parse().unwrap(),
            port: port.parse().unwrap(),
            destination: Some(destination.parse().unwrap()),
        };
        explain(&query, &host.known(), &Broken(&host, map))
    };
    let ask = |port: &str, map| ask_at(OTHER, port, map);
    for map in [
        "PORTS", "PRESENCE", "TARGETS", "TRUST", "ALLOW", "FLOWS", "LOCKOUTS",
    ] {
        let error = ask("tcp/22", map).unwrap_err().to_string();
        assert_eq!(error, format!("reading map {map}: no"));
    }
    for map in [
        "CONFIG",
        "NODES",
        "EDGES",
        "DOORS",
        "FIRST_KNOCKS",
        "PROGRESS",
    ] {
        let found = ask("tcp/9000", map).map_err(|error| error.to_string());
        match map {
            "FIRST_KNOCKS" => assert!(
                found.is_ok(),
                "who is past the first knock is not looked for there"
            ),
            "EDGES" => assert!(found.is_ok(), "the node has its next knock itself"),
            _ => assert_eq!(found.unwrap_err(), format!("reading map {map}: no")),
        }
    }
    let first = ask_at(INNER, "tcp/7000", "EDGES").unwrap_err();
    assert_eq!(first.to_string(), "reading map EDGES: no");
}

/// A step before the question.
#[derive(Clone, Copy, Debug)]
enum ExplainStep {
    /// A packet of the source, to the address `OTHER`.
    Knock(&'static str),
    /// The same, to the address `INNER`.
    Inner(&'static str),
    /// Time passes, in milliseconds.
    Wait(u64),
    /// A connection from port 40 000 to one here is kept.
    Flow(u16, u16),
    /// A grant given by hand, for this many milliseconds.
    Grant(&'static str, u64),
}

/// The maps of a configuration, and a kernel side.
struct ExplainedKernel {
    settings: Settings,
    tables: Tables,
    sim: Sim,
    now_ms: u64,
}

impl ExplainedKernel {
    fn new(features: Features) -> Self {
        Self::with(CONFIG, features)
    }

    fn with(config: &str, features: Features) -> Self {
        let settings = config::parse(config, "test.toml").unwrap().settings;
        let mut given = Input {
            host: &Host::default(),
            cell_key: std::array::from_fn(|i| 0x9e37_79b9_7f4a_7c15 ^ (i as u64) << 17),
            known: &StableIds::default(),
            draw: &mut || 0,
            sequences: &knock_user::model::settings::Sequences::new(),
            before: None,
        };
        let tables = compile(&settings, &mut given).unwrap();
        let mut sim = tables.simulate();
        sim.features = sim.features.with(features);
        sim.config.confirm_by_ms = 100_000;
        let host = Self {
            settings,
            tables,
            sim,
            now_ms: START_MS,
        };
        host.set_clock();
        host
    }

    fn set_clock(&self) {
        self.sim
            .set_now(Moment::from_nanos(self.now_ms * 1_000_000));
    }

    fn do_all(&mut self, source: &str, steps: &[ExplainStep]) {
        for step in steps {
            match *step {
                Knock(port) => _ = judge(&frame(source, port, None)[..], &self.sim),
                Inner(port) => _ = judge(&frame(source, port, Some(INNER))[..], &self.sim),
                Wait(millis) => self.now_ms += millis,
                Flow(port, protocol) => {
                    let key = FlowKey {
                        source: address(source),
                        source_port: 40_000,
                        port,
                        target_id: 0,
                        protocol,
                    };
                    self.sim.flows.insert(&key, self.now_ms);
                }
                Grant(door, lasts_ms) => {
                    let number = self.tables.numbers.doors[door];
                    let source = address(source);
                    self.sim
                        .presence(presence::slot(source))
                        .unwrap()
                        .store(presence::ALWAYS);
                    let grant = knock_common::grant::Grant {
                        until_ms: self.now_ms + lasts_ms,
                        door: number,
                    };
                    for key in grant_keys(&self.tables.doors[usize::from(number)], source) {
                        self.sim.allow.insert(&key, grant.to_word());
                    }
                }
            }
            self.set_clock();
        }
    }

    fn known(&self) -> Known<'_> {
        Known {
            settings: &self.settings,
            numbers: &self.tables.numbers.doors,
            features: self.sim.features,
            now: self.sim.now(),
            ended_ms: None,
            cut_off: None,
        }
    }
}

/// Returns the bytes of a value, as they are in a map.
fn value<V: Pod, T: Pod>(value: T) -> V {
    bytemuck::pod_read_unaligned(bytemuck::bytes_of(&value))
}

fn key<T: Pod, K: Pod>(key: &K) -> T {
    bytemuck::pod_read_unaligned(bytemuck::bytes_of(key))
}

/// The maps of the simulated kernel side.
impl Live for ExplainedKernel {
    fn element<V: Pod>(&self, map: &'static str, index: u32) -> anyhow::Result<Option<V>> {
        let sim = &self.sim;
        Ok(match map {
            "CONFIG" => Some(value(sim.config)),
            "PORTS" => Some(value(sim.port(index))),
            "NODES" => sim.node(index).copied().map(value),
            "DOORS" => sim.door(index).copied().map(value),
            "PRESENCE" => sim.presence(index).map(|word| value(word.load())),
            "FIRST_KNOCKS" => {
                let bucket = sim.bucket(index).unwrap();
                let cells: [u64; WAYS] =
                    std::array::from_fn(|way| bucket.cell(way).unwrap().load());
                Some(value(cells))
            }
            "LOCKOUTS" if index == knock_common::layout::LOCKOUT_BUCKETS => {
                sim.lockout_key().copied().map(value)
            }
            "LOCKOUTS" => {
                let bucket = knock_common::Env::lockouts(sim, index).unwrap();
                let cells: [u64; WAYS] =
                    std::array::from_fn(|way| bucket.cell(way).unwrap().load());
                Some(value(cells))
            }
            other => panic!("no array {other}"),
        })
    }

    fn entry<K: Pod, V: Pod>(&self, map: &'static str, k: K) -> anyhow::Result<Option<V>> {
        let sim = &self.sim;
        Ok(match map {
            "EDGES" => sim.edge(&key::<EdgeKey, K>(&k)).map(value),
            "TARGETS" => match sim.target(key(&k)) {
                0 => None,
                target_id => Some(value(u32::from(target_id))),
            },
            "PROGRESS" => sim.progress.value(&key::<ProgressKey, K>(&k)).map(value),
            "ALLOW" => sim.allow.value(&key::<GrantKey, K>(&k)).map(value),
            "FLOWS" => sim.flows.value(&key::<FlowKey, K>(&k)).map(value),
            other => panic!("no table {other}"),
        })
    }

    fn has_prefix_of(&self, map: &'static str, address: Address) -> anyhow::Result<bool> {
        Ok(match map {
            "TRUST" => self.sim.is_trusted(address),
            "BLOCK" => self.sim.is_in_block_list(address),
            other => panic!("no list {other}"),
        })
    }

    fn longest_prefix<K: Pod, V: Pod>(&self, map: &'static str, k: K) -> anyhow::Result<Option<V>> {
        Ok(match map {
            "BLOCKED" => self.sim.blocked(key(&k)).map(value),
            "FROM" => self.sim.is_from(&key(&k)).then_some(value(1_u32)),
            other => panic!("no trie {other}"),
        })
    }

    fn flows(&self) -> anyhow::Result<Vec<(FlowKey, u64)>> {
        let flows = self.sim.flows.entries.borrow();
        Ok(flows.iter().map(|(key, word)| (*key, word.get())).collect())
    }
}

fn address(text: &str) -> Address {
    text.parse::<IpAddr>().unwrap().into()
}

/// Returns a packet that opens a connection.
fn frame(source: &str, port: &str, to: Option<&str>) -> Vec<u8> {
    let source: IpAddr = source.parse().unwrap();
    let other = if source.is_ipv4() {
        OTHER
    } else {
        "2001:db8::2"
    };
    let frame = Frame {
        source,
        destination: to.unwrap_or(other).parse().unwrap(),
        to: port.parse().unwrap(),
        flags: flag::SYN,
        group: false,
    };
    frame.bytes()
}

/// Returns the content of all maps as one text.
fn state(sim: &Sim) -> String {
    let mut lines: Vec<String> = Vec::new();
    lines.extend(
        sim.progress
            .entries
            .borrow()
            .iter()
            .map(|entry| format!("{entry:?}")),
    );
    lines.extend(
        sim.allow
            .entries
            .borrow()
            .iter()
            .map(|entry| format!("{entry:?}")),
    );
    lines.extend(
        sim.flows
            .entries
            .borrow()
            .iter()
            .map(|entry| format!("{entry:?}")),
    );
    let full = |cells: &&knock_common::sim::Cells| cells.iter().any(|cell| cell.get() != 0);
    for (map, buckets) in [("FIRST_KNOCKS", &sim.buckets), ("LOCKOUTS", &sim.lockouts)] {
        let buckets = buckets.borrow();
        let buckets = buckets.iter().filter(|(_, cells)| full(cells));
        lines.extend(buckets.map(|bucket| format!("{map} {bucket:?}")));
    }
    lines.push(format!("{} events", sim.events.borrow().len()));
    lines.sort();
    lines.join("\n")
}

struct Row {
    name: &'static str,
    source: &'static str,
    steps: &'static [ExplainStep],
    port: &'static str,
    to: Option<&'static str>,
    chain: &'static [&'static str],
}
