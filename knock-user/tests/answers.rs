//! The exact answers of commands, as text and as JSON.
#![expect(
    clippy::unwrap_used,
    reason = "what a helper of a test unwraps is the test's finding"
)]

use std::{collections::BTreeMap, net::IpAddr};

use jiff::{
    Timestamp,
    tz::{self, TimeZone},
};
use knock_common::{Address, Reason, Stat, layout::GrantKey, reason::COUNTERS_MAX};
use knock_user::{
    admin::{
        command::Command,
        confirm, detach, explain,
        facts::{DoorFacts, Doors, HeldGrant},
        grant, list, reload, revoke,
        status::{
            self, InterfaceAnswer, OneTimeStatus,
            facts::{DaemonProcess, MapContent},
            health::{self, HealthInput},
        },
        text::{self, LocalTime},
    },
    explain::Explanation,
    host::clock::Clock,
    kernel::registry::Registry,
    ledger::{Giver, HostId},
    model::settings::Prefix,
};
use serde::Serialize;

const V4: &str = "203.0.113.9";
const V6: &str = "2001:db8::9";
/// Two hours after boot.
const NOW_MS: u64 = 7_200_000;

#[test]
fn the_status_of_a_running_daemon_is_shown() {
    let process = DaemonProcess {
        pid: 1234,
        since_ms: 60_000,
        watchers: 1,
    };
    let one_time = |door: &str, next, because: Option<&str>| OneTimeStatus {
        door: door.to_owned(),
        next_line: next,
        sequences_left: next.map_or(0, |_| 988),
        because: because.map(str::to_owned),
    };
    let plain = status::Answer {
        one_time: vec![
            one_time("ssh", Some(12), None),
            one_time("web", None, Some("no sequence is left")),
        ],
        ..status(&registry(), Some(process))
    };
    let circumstances = HealthInput {
        under_way: Some("a reload is under way".to_owned()),
        ..HealthInput::default()
    };
    let answer = health::judged(plain, &registry(), &circumstances);
    assert_text::<status::Args>(
        &answer,
        &[
            "instance       eth0@ns1",
            "in force       NO: 2 shortfalls",
            "shortfalls     wan is not protected: not attached",
            "               nobody can open door web: no sequence is left",
            "notes          a reload is under way",
            "process        1234, since 10:01:00 (1h59m)",
            "configuration  /etc/knock/seq.toml, 2 doors",
            "interfaces     eth0 native",
            "               eth1 skb",
            "               wan NOT protected",
            "protected      tcp/22, tcp/80, tcp/443",
            "one-time       ssh: line 12 is next, 988 left",
            "               web: nobody can open it: no sequence is left",
            "grants         2",
            "connections    1",
            "tables         16.0 MB in the kernel, room for 1048576 first knocks, 16384 attempts, 8192 grants, \
             16384 connections, 524288 sources with failed attempts",
            "watching       1",
            "counted        123456  port not configured",
            "                   78  no grant",
            "                    9  events not reported: too many at once",
        ],
    );
    assert_json(
        &answer,
        concat!(
            r#"{"instance":"eth0@ns1","pid":1234,"version":""#,
            env!("CARGO_PKG_VERSION"),
            r#"","config":"/etc/knock/seq.toml","since":"2026-03-01T08:01:00.000Z","#,
            r#""interfaces":[{"name":"eth0","state":"protected","attached":true,"mode":"native"},"#,
            r#"{"name":"eth1","state":"protected","attached":true,"mode":"skb"},"#,
            r#"{"name":"wan","state":"missing","attached":false,"mode":null}],"#,
            r#""ports":["tcp/22","tcp/80","tcp/443"],"dry_run":false,"trial_seconds":null,"#,
            r#""doors":2,"one_time":[{"door":"ssh","next_line":12,"sequences_left":988,"because":null},"#,
            r#"{"door":"web","next_line":null,"sequences_left":0,"because":"no sequence is left"}],"#,
            r#""grants":2,"flows":1,"blocked":0,"#,
            r#""tables":{"memory":15900001,"first_knocks":1048576,"attempts":16384,"grants":8192,"flows":16384,"failures":524288},"#,
            r#""watchers":1,"counters":["#,
            r#"{"name":"ordinary","text":"port not configured","verdict":"pass","count":123456},"#,
            r#"{"name":"no-grant","text":"no grant","verdict":"drop","count":78},"#,
            r#"{"name":"events-suppressed","text":"events not reported: too many at once","verdict":null,"count":9}],"#,
            r#""in_force":false,"shortfalls":[{"kind":"missing","interface":"wan","#,
            r#""text":"wan is not protected: not attached"},{"kind":"door-unusable","interface":null,"#,
            r#""text":"nobody can open door web: no sequence is left"}],"#,
            r#""notes":["a reload is under way"]}"#,
        ),
    );
}

#[test]
fn the_status_shows_a_missing_process_a_trial_and_a_dry_run() {
    let registry = Registry {
        dry_run: true,
        confirm_by_ms: Some(NOW_MS + 34_500),
        needs_process: vec!["commands of door ssh are not run".to_owned()],
        ..registry()
    };
    let status = status(&registry, None);
    let mut status = health::judged(status, &registry, &HealthInput::default());
    status.counters.clear();
    assert_text::<status::Args>(
        &status,
        &[
            "instance       eth0@ns1",
            "in force       NO: 4 shortfalls",
            "shortfalls     wan is not protected: not attached",
            "               this is a dry run: nothing is dropped",
            "               on trial: everything passes in 35s, and no process can take a confirmation; \
             start knock-user, which continues the trial",
            "               no process runs: commands of door ssh are not run",
            "process        none; the kernel still judges knocks and grants, but events are not reported and commands not run",
            "configuration  /etc/knock/seq.toml, 2 doors",
            "interfaces     eth0 native",
            "               eth1 skb",
            "               wan NOT protected",
            "protected      tcp/22, tcp/80, tcp/443",
            "dry run        nothing is dropped",
            "on trial       35s left, and no process can take a confirmation",
            "grants         2",
            "connections    1",
        ],
    );
    assert_eq!(
        (status.pid, status.since, status.version),
        (None, None, None)
    );
}

#[test]
fn the_status_shows_a_trial_that_ended_unconfirmed() {
    let registry = Registry {
        confirm_by_ms: Some(NOW_MS - 1),
        ..registry()
    };
    let text = text_of::<status::Args>(&status(&registry, None), &local_time());
    assert!(
        text.contains("on trial       no confirmation came in time\n"),
        "{text}"
    );
}

/// The end of a trial depends on what was in force before, and on whether a process runs.
#[test]
fn the_status_shows_how_a_trial_will_end() {
    let running = DaemonProcess {
        pid: 7,
        since_ms: 0,
        watchers: 0,
    };
    let left = Some(NOW_MS + 34_500);
    let over = Some(NOW_MS - 1);
    let rows = [
        (
            "it runs",
            left,
            Some(running),
            true,
            false,
            "rolled back in 35s unless",
        ),
        (
            "it hangs",
            left,
            Some(running),
            true,
            true,
            "no process can roll back",
        ),
        (
            "none runs",
            left,
            None,
            true,
            false,
            "no process can roll back",
        ),
        (
            "none runs, nothing before",
            left,
            None,
            false,
            false,
            "everything passes in 35s",
        ),
        ("over", over, Some(running), true, false, "being restored"),
        (
            "over, none runs",
            over,
            None,
            true,
            false,
            "no process rolls back",
        ),
        (
            "over, it hangs",
            over,
            Some(running),
            true,
            true,
            "no process rolls back",
        ),
        (
            "over, nothing before",
            over,
            None,
            false,
            false,
            "so everything passes",
        ),
    ];
    for (name, confirm_by_ms, process, has_fallback, is_hanging, expected) in rows {
        let registry = Registry {
            confirm_by_ms,
            fallback: has_fallback.then(Box::default),
            ..registry()
        };
        let circumstances = HealthInput {
            is_hanging,
            ..HealthInput::default()
        };
        let status = health::judged(status(&registry, process), &registry, &circumstances);
        let mut trials = status.shortfalls.iter();
        let trial = trials
            .find(|shortfall| shortfall.kind == "on-trial")
            .unwrap();
        assert!(trial.text.contains(expected), "{name}: {}", trial.text);
    }
}

#[test]
fn a_grant_is_listed_with_what_gave_it() {
    for (name, giver, expected) in [
        ("a user", Some(Giver::User(3)), Some("user alice")),
        ("another user", Some(Giver::User(4)), Some("user ?")),
        ("knocks", Some(Giver::Knocks), Some("knock")),
        ("by hand", Some(Giver::Hand(0)), Some("uid 0")),
        (
            "another host",
            Some(Giver::Host(HostId(1))),
            Some("host web-17"),
        ),
        (
            "an unknown host",
            Some(Giver::Host(HostId(2))),
            Some("host ?"),
        ),
        ("found in the map", None, None),
    ] {
        let grant = grant(V4, 0, 500, giver.map(|giver| (NOW_MS, giver)));
        let answer = list::answer([grant], &doors(), &users(), clock());
        assert_eq!(answer.grants[0].by.as_deref(), expected, "{name}");
        assert_eq!(answer.grants[0].since.is_some(), giver.is_some(), "{name}");
    }
}

#[test]
fn the_list_shows_the_grants_of_the_daemon() {
    let grants = [
        grant(V6, 0, 12_345, Some((NOW_MS - 20_000, Giver::Knocks))),
        grant(V4, 1, 599_999, Some((60_000, Giver::Hand(1000)))),
        grant(V4, 0, 500, Some((NOW_MS - 29_500, Giver::Knocks))),
        grant("192.0.2.1", 0, 0, Some((0, Giver::Knocks))),
    ];
    let answer = list::answer(grants, &doors(), &users(), clock());
    assert_text::<list::Args>(
        &answer,
        &[
            "SOURCE       DOOR  PORTS           LEFT   SINCE     BY",
            "203.0.113.9  ssh   tcp/22          500ms  11:59:30  knock",
            "203.0.113.9  web   tcp/80,tcp/443  10m    10:01:00  uid 1000",
            "2001:db8::9  ssh   tcp/22          12s    11:59:40  knock",
        ],
    );
    assert_json(
        &list::answer(grants.into_iter().take(1), &doors(), &users(), clock()),
        r#"{"grants":[{"source":"2001:db8::9","door":"ssh","ports":["tcp/22"],"until":"2026-03-01T10:00:12.345Z","seconds":12.345,"since":"2026-03-01T09:59:40.000Z","by":"knock"}]}"#,
    );
}

#[test]
fn the_list_without_a_daemon_shows_the_map() {
    // Two port groups of one door, one of which another door refreshed; and a door that was removed.
    let entry = |port_group, until_ms, door| {
        let key = GrantKey {
            source: Address::from(ip(V4)),
            port_group,
            target_id: 0,
        };
        let grant = knock_common::grant::Grant { until_ms, door };
        HeldGrant::of_entry((key, grant), &BTreeMap::new())
    };
    let grants = [
        entry(1, NOW_MS + 10_000, 1),
        entry(2, NOW_MS + 30_000, 1),
        entry(3, NOW_MS + 20_000, 7),
        entry(4, NOW_MS - 1, 0),
    ];
    assert_text::<list::Args>(
        &list::answer(grants, &doors(), &users(), clock()),
        &[
            "SOURCE       DOOR      PORTS           LEFT  SINCE  BY",
            "203.0.113.9  number 7                  20s   -      -",
            "203.0.113.9  web       tcp/80,tcp/443  30s   -      -",
        ],
    );
    let nobody = list::answer([], &doors(), &users(), clock());
    assert_text::<list::Args>(&nobody, &["no grants"]);
    assert_json(&nobody, r#"{"grants":[]}"#);
}

#[test]
fn moments_of_other_days_have_a_date() {
    let mut time = local_time();
    time.now = "2026-03-02T10:00:00Z".parse().unwrap();
    let given = Some((NOW_MS, Giver::Knocks));
    let grants = list::answer([grant(V4, 0, 1_000, given)], &doors(), &users(), clock());
    let text = text_of::<list::Args>(&grants, &time);
    assert!(text.contains("2026-03-01 12:00:00  knock"), "{text}");
}

#[test]
fn every_other_answer_has_its_text_and_its_json() {
    let granted = grant::Answer {
        source: Prefix::of(ip(V4)),
        door: "ssh".to_owned(),
        ports: ports(&["tcp/22"]),
        until: "2026-03-01T10:10:00.000Z".to_owned(),
        seconds: 599.9,
        group: None,
        because: None,
    };
    let granted_to_group = grant::Answer {
        group: Some("web".to_owned()),
        ..granted.clone()
    };
    let granted_alone = grant::Answer {
        because: Some("no member answers".to_owned()),
        ..granted_to_group.clone()
    };
    let revoked = |doors: &[(&str, &str)], flows| {
        row::<revoke::Args>(&revoke::Answer {
            source: ip(V4),
            doors: doors.iter().map(|(door, _)| (*door).to_owned()).collect(),
            covered: doors
                .iter()
                .map(|(_, covered)| covered.parse().unwrap())
                .collect(),
            flows,
            group: None,
        })
    };
    let revoked_in_group = revoke::Answer {
        source: ip(V4),
        doors: Vec::new(),
        covered: Vec::new(),
        flows: 0,
        group: Some(revoke::OfGroup {
            name: "web".to_owned(),
            is_written: true,
            confirmed: 2,
            of: 3,
            missing: vec!["web-3".to_owned()],
            because: None,
        }),
    };
    let detached = |interfaces: &[&str], opened: &[&str]| {
        row::<detach::Args>(&detach::Answer {
            interfaces: ports(interfaces),
            ports: ports(opened),
        })
    };
    let explained = Explanation {
        source: ip(V4),
        port: "tcp/22".to_owned(),
        destination: None,
        verdict: "drop".to_owned(),
        reason: "no-grant".to_owned(),
        steps: ports(&["tcp/22 is protected; opened by ssh", "no grant"]),
    };
    let reloaded = reload::Answer {
        config: "/etc/knock/seq.toml".to_owned(),
        changes: ports(&["new door: web", "no longer protected: tcp/3306"]),
        warnings: ports(&["seq.toml:3: warning"]),
    };
    let confirmed = |was_on_trial| row::<confirm::Args>(&confirm::Answer { was_on_trial });
    #[rustfmt::skip]
    let rows: [((String, String), &[&str], &str); 14] = [
        (row::<grant::Args>(&granted), &["203.0.113.9 may use ssh (tcp/22) for 10m"],
            r#"{"source":"203.0.113.9","door":"ssh","ports":["tcp/22"],"until":"2026-03-01T10:10:00.000Z","seconds":599.9}"#),
        (row::<grant::Args>(&granted_to_group), &["203.0.113.9 may use ssh (tcp/22) for 10m here; the other hosts of the group web follow"],
            r#"{"source":"203.0.113.9","door":"ssh","ports":["tcp/22"],"until":"2026-03-01T10:10:00.000Z","seconds":599.9,"group":"web"}"#),
        (row::<grant::Args>(&granted_alone),
            &["203.0.113.9 may use ssh (tcp/22) for 10m here; the group web learns of it when this host is no longer cut off: no member answers"],
            r#"{"source":"203.0.113.9","door":"ssh","ports":["tcp/22"],"until":"2026-03-01T10:10:00.000Z","seconds":599.9,"group":"web","because":"no member answers"}"#),
        (row::<revoke::Args>(&revoked_in_group),
            &["203.0.113.9 has no such grant", "confirmed by 2 of 3 hosts of the group web, and not yet by web-3"],
            r#"{"source":"203.0.113.9","doors":[],"covered":[],"flows":0,"group":{"name":"web","is_written":true,"confirmed":2,"of":3,"missing":["web-3"]}}"#),
        (revoked(&[("ssh", V4), ("web", V4)], 0), &["203.0.113.9 may no longer use ssh, web"],
            r#"{"source":"203.0.113.9","doors":["ssh","web"],"covered":["203.0.113.9","203.0.113.9"],"flows":0}"#),
        (revoked(&[("ssh", "203.0.113.8/30"), ("web", V4), ("wiki", "203.0.113.8/30")], 0),
            &["203.0.113.8/30 may no longer use ssh, wiki; 203.0.113.9 may no longer use web"],
            r#"{"source":"203.0.113.9","doors":["ssh","web","wiki"],"covered":["203.0.113.8/30","203.0.113.9","203.0.113.8/30"],"flows":0}"#),
        (revoked(&[("ssh", V4)], 2), &["203.0.113.9 may no longer use ssh; 2 connections from it continue"],
            r#"{"source":"203.0.113.9","doors":["ssh"],"covered":["203.0.113.9"],"flows":2}"#),
        (revoked(&[], 1), &["203.0.113.9 has no such grant; 1 connection from it continues"],
            r#"{"source":"203.0.113.9","doors":[],"covered":[],"flows":1}"#),
        (row::<explain::Args>(&explained), &["tcp/22 is protected; opened by ssh", "no grant"],
            r#"{"source":"203.0.113.9","port":"tcp/22","destination":null,"verdict":"drop","reason":"no-grant","steps":["tcp/22 is protected; opened by ssh","no grant"]}"#),
        (row::<reload::Args>(&reloaded), &["reloaded /etc/knock/seq.toml", "  new door: web", "  no longer protected: tcp/3306"],
            r#"{"config":"/etc/knock/seq.toml","changes":["new door: web","no longer protected: tcp/3306"],"warnings":["seq.toml:3: warning"]}"#),
        (confirmed(true), &["confirmed: the configuration stays in force"], r#"{"was_on_trial":true}"#),
        (confirmed(false), &["there is nothing to confirm"], r#"{"was_on_trial":false}"#),
        (detached(&["eth0", "eth1"], &["tcp/22"]), &["tcp/22 is no longer protected on eth0", "tcp/22 is no longer protected on eth1"],
            r#"{"interfaces":["eth0","eth1"],"ports":["tcp/22"]}"#),
        (detached(&[], &[]), &["nothing is attached"], r#"{"interfaces":[],"ports":[]}"#),
    ];
    for ((text, answer), lines, json) in rows {
        assert_eq!(text.lines().collect::<Vec<_>>(), lines);
        assert_eq!(answer, json);
    }
}

#[test]
fn answers_do_nothing_to_a_terminal() {
    let answer = reload::Answer {
        config: "evil\u{1b}[2J".to_owned(),
        ..reload::Answer::default()
    };
    let lines = ["reloaded evil\\u{1b}[2J", "  no changes"];
    assert_text::<reload::Args>(&answer, &lines);
}

/// Returns the clock of a machine that started at 8:00 UTC, which is 10:00 in the tests' time zone.
fn clock() -> Clock {
    Clock {
        now_ms: NOW_MS,
        boot: "2026-03-01T08:00:00Z".parse().unwrap(),
    }
}

fn local_time() -> LocalTime {
    LocalTime {
        zone: TimeZone::fixed(tz::offset(2)),
        now: "2026-03-01T10:00:00Z".parse::<Timestamp>().unwrap(),
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn ports(ports: &[&str]) -> Vec<String> {
    ports.iter().map(ToString::to_string).collect()
}

fn registry() -> Registry {
    Registry {
        config: "/etc/knock/seq.toml".into(),
        ports: [
            ("ssh".to_owned(), ports(&["tcp/22"])),
            ("web".to_owned(), ports(&["tcp/80", "tcp/443"])),
        ]
        .into(),
        protected: ports(&["tcp/22", "tcp/80", "tcp/443"]),
        ..Registry::default()
    }
}

fn interfaces() -> Vec<InterfaceAnswer> {
    let interface = |name: &str, mode: Option<&str>| InterfaceAnswer {
        name: name.to_owned(),
        state: if mode.is_some() {
            "protected"
        } else {
            "missing"
        }
        .to_owned(),
        attached: mode.is_some(),
        mode: mode.map(str::to_owned),
        ..InterfaceAnswer::default()
    };
    vec![
        interface("eth0", Some("native")),
        interface("eth1", Some("skb")),
        interface("wan", None),
    ]
}

fn counts() -> Vec<u64> {
    let mut counts = vec![0; COUNTERS_MAX as usize];
    counts[Reason::Ordinary as usize] = 123_456;
    counts[Reason::NoGrant as usize] = 78;
    counts[Stat::EventsSuppressed as usize] = 9;
    counts
}

fn tables(has_process: bool) -> status::TablesAnswer {
    let known = |size| Some(size).filter(|_| has_process);
    status::TablesAnswer {
        memory: has_process.then_some(15_900_001),
        first_knocks: known(1_048_576),
        attempts: known(16_384),
        grants: 8_192,
        flows: 16_384,
        failures: known(524_288),
    }
}

fn status(registry: &Registry, process: Option<DaemonProcess>) -> status::Answer {
    let found = MapContent {
        grants: 2,
        flows: 1,
        blocked: 0,
        counts: counts(),
        tables: tables(process.is_some()),
    };
    let name = "eth0@ns1";
    status::facts::status(name, registry, interfaces(), process, &found, clock())
}

fn text_of<C: Command>(answer: &C::Answer, time: &LocalTime) -> String {
    text::lines(C::render(answer, time))
}

#[track_caller]
fn assert_text<C: Command>(answer: &C::Answer, lines: &[&str]) {
    let text = text_of::<C>(answer, &local_time());
    assert!(text.ends_with('\n') || text.is_empty());
    assert_eq!(text.lines().collect::<Vec<_>>(), lines);
}

#[track_caller]
fn assert_json(answer: &impl Serialize, json: &str) {
    assert_eq!(serde_json::to_string(answer).unwrap(), json);
}

fn doors() -> Doors {
    let door = |name: &str, opens: &[&str]| DoorFacts {
        name: name.to_owned(),
        ports: ports(opens),
    };
    [
        (0, door("ssh", &["tcp/22"])),
        (1, door("web", &["tcp/80", "tcp/443"])),
    ]
    .into()
}

fn grant(source: &str, door: u16, left_ms: u64, given: Option<(u64, Giver)>) -> HeldGrant {
    HeldGrant {
        source: Prefix::of(ip(source)),
        door,
        until_ms: NOW_MS + left_ms,
        given,
    }
}

fn users() -> list::Names<'static> {
    list::Names {
        users: [(3, "alice")].into(),
        hosts: [(HostId(1), "web-17")].into(),
    }
}

/// Returns the text and the JSON of an answer.
fn row<C: Command>(answer: &C::Answer) -> (String, String) {
    (
        text_of::<C>(answer, &local_time()),
        serde_json::to_string(answer).unwrap(),
    )
}
