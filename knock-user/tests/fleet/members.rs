//! What hosts of a group know of each other, and what they refuse from each other.

use std::collections::BTreeMap;

use knock_common::GrantPrefix;
use knock_user::fleet::{
    Confirmed, Exchange, Facts, FleetAction, GroupKey, Now, Origin, Step, state_file,
};
use knock_wire::{Beat, Cause, Octets, Report, Request, Write};

use super::store::{NOW, PREFIX, Store, carry_out, host, pass};

/// Puts the records and signs of life of steps into an engine; returns the other actions.
fn keep(host: &mut Exchange, store: &mut Store, steps: Vec<Step>) -> Vec<FleetAction> {
    let mut actions = Vec::new();
    for step in steps {
        match step {
            Step::Send(Request::Beat(Beat { key, value, .. })) => store.write(&key, value),
            Step::Send(Request::Put(put)) => {
                let more = host.take(store.put(&put), NOW);
                actions.extend(keep(host, store, more));
            }
            Step::Act(action) => actions.push(action),
            Step::Send(other) => panic!("{other:?}"),
        }
    }
    actions
}

fn follow(host: &mut Exchange, store: &mut Store, reports: Vec<Report>) -> Vec<FleetAction> {
    let steps = reports
        .into_iter()
        .flat_map(|report| host.take(report, NOW))
        .collect();
    keep(host, store, steps)
}

fn joined(store: &mut Store, key: &GroupKey, name: &str) -> Exchange {
    let mut host = host(name, key);
    let steps = host.act(|group| group.describe(Facts::default(), NOW));
    assert_eq!(steps, [], "it has not reached the engine");
    let list = store.list();
    follow(&mut host, store, list);
    host
}

fn changes(store: &Store) -> Vec<Report> {
    let records = store.records.keys().map(|key| store.record(key));
    records.chain([store.current()]).collect()
}

#[test]
fn hosts_confirm_a_revocation_by_hand() {
    let key = GroupKey::generate().unwrap();
    let mut store = Store::default();
    let names = ["web-1", "web-2", "web-3"];
    let mut hosts: Vec<_> = names.map(|name| joined(&mut store, &key, name)).into();
    let source = "203.0.113.7".parse().unwrap();
    let steps = hosts[0].act(|group| group.revoke(None, source, 77, Some(0), NOW));
    keep(&mut hosts[0], &mut store, steps);
    // The third one is cut off.
    for _ in 0..2 {
        for host in &mut hosts[..2] {
            let reports = changes(&store);
            follow(host, &mut store, reports);
        }
    }
    let expected = Confirmed {
        by: 2,
        of: 3,
        missing: vec!["web-3".to_owned()],
    };
    assert_eq!(hosts[0].group().confirmations(77), expected);
    assert_eq!(hosts[0].group().confirmations(78).by, 0);
    let gone = Report::Deleted {
        key: format!("{PREFIX}p/web-3"),
        revision: store.revision,
    };
    follow(&mut hosts[0], &mut store, vec![gone]);
    let states = hosts[0].group().hosts().into_iter();
    let here: Vec<_> = states.map(|state| (state.host, state.is_here)).collect();
    let expected = [true, true, false].into_iter().zip(names);
    let expected: Vec<_> = expected
        .map(|(is_here, name)| (name.to_owned(), is_here))
        .collect();
    assert_eq!(here, expected);
}

#[test]
fn a_lockout_reaches_the_other_hosts_once() {
    let key = GroupKey::generate().unwrap();
    let mut store = Store::default();
    let mut first = joined(&mut store, &key, "web-1");
    let mut second = joined(&mut store, &key, "web-2");
    let source = "203.0.113.7".parse().unwrap();
    let until_ms = NOW.boot_ms + 600_000;
    let steps = first.act(|group| group.locked_out(source, until_ms, NOW));
    assert_eq!(keep(&mut first, &mut store, steps), []);
    let lock_out = FleetAction::LockOut {
        source,
        until_ms,
        host: "web-1".to_owned(),
    };
    for expected in [vec![lock_out], Vec::new()] {
        let reports = changes(&store);
        assert_eq!(follow(&mut second, &mut store, reports), expected);
        // That it is locked out there, too, is nothing new.
        let steps = second.act(|group| group.locked_out(source, until_ms, NOW));
        assert_eq!(steps, []);
    }
    let reports = changes(&store);
    assert_eq!(follow(&mut first, &mut store, reports), []);
}

#[test]
fn a_grant_that_covers_something_else_than_the_door_is_reported() {
    let single = ("ssh".to_owned(), GrantPrefix::SINGLE);
    let wide = ("ssh".to_owned(), GrantPrefix::new(24, 64));
    let open = |source: &str| FleetAction::Open {
        door: "ssh".to_owned(),
        source: source.parse().unwrap(),
        until_ms: NOW.boot_ms + 30_000,
        by: Origin {
            host: "web-1".to_owned(),
            user: None,
        },
    };
    let mismatch = |source: &str| FleetAction::Mismatch {
        door: "ssh".to_owned(),
        source: source.parse().unwrap(),
        host: "web-1".to_owned(),
    };
    for (name, door, source, expected) in [
        ("a single address", &single, "10.1.2.3", open("10.1.2.3")),
        ("a wider one", &single, "10.0.0.0/8", mismatch("10.0.0.0/8")),
        ("all", &single, "0.0.0.0/0", mismatch("0.0.0.0/0")),
        ("the door's", &wide, "10.1.2.0/24", open("10.1.2.0/24")),
        ("a narrower one", &wide, "10.1.2.3", mismatch("10.1.2.3")),
        (
            "the door's for IPv6",
            &wide,
            "fd00:0:0:1::/64",
            open("fd00:0:0:1::/64"),
        ),
        (
            "a wider one for IPv6",
            &wide,
            "fd00::/8",
            mismatch("fd00::/8"),
        ),
    ] {
        let key = GroupKey::generate().unwrap();
        let mut store = Store::default();
        let mut first = joined(&mut store, &key, "web-1");
        let mut second = joined(&mut store, &key, "web-2");
        second.act(|group| {
            group.set_doors(BTreeMap::from([door.clone()]));
            Vec::new()
        });
        let source = source.parse().unwrap();
        let until_ms = NOW.boot_ms + 30_000;
        let steps = first.act(|group| group.given("ssh", source, NOW.boot_ms, until_ms, None, NOW));
        keep(&mut first, &mut store, steps);
        let reports = changes(&store);
        let actions = follow(&mut second, &mut store, reports);
        assert_eq!(actions, std::slice::from_ref(&expected), "{name}");
        // A door of a new configuration gets no more.
        let is_open = matches!(expected, FleetAction::Open { .. });
        assert_eq!(
            second.group().open(NOW).len(),
            usize::from(is_open),
            "{name}"
        );
        let steps = first.act(|group| group.revoke(Some("ssh"), source, 7, None, NOW));
        keep(&mut first, &mut store, steps);
        let reports = changes(&store);
        let closed = follow(&mut second, &mut store, reports);
        assert_eq!(closed.len(), usize::from(is_open), "{name}: {closed:?}");
    }
}

#[test]
fn a_host_that_is_cut_off_reports_since_when_and_why() {
    let key = GroupKey::generate().unwrap();
    let mut store = Store::default();
    let mut host = host("web-1", &key);
    let later = Now {
        boot_ms: NOW.boot_ms + 15_000,
        ..NOW
    };
    let cut_off = host.cut_off(NOW).unwrap();
    assert_eq!(cut_off.since_ms, None);
    assert!(cut_off.reason.contains("not reached"), "{cut_off:?}");
    let list = store.list();
    follow(&mut host, &mut store, list);
    assert_eq!(host.cut_off(NOW), None);
    for (name, report, expected) in [
        (
            "no majority",
            Report::Linked {
                member: "https://a".to_owned(),
                version: "3.5.33".to_owned(),
            },
            "https://a answers, but no majority",
        ),
        (
            "no link",
            Report::Lost {
                reason: "https://a: connection refused".to_owned(),
            },
            "connection refused",
        ),
    ] {
        host.take(report, NOW);
        let cut_off = host.cut_off(later).unwrap();
        assert_eq!(cut_off.since_ms, Some(NOW.boot_ms), "{name}");
        assert!(cut_off.reason.contains(expected), "{name}: {cut_off:?}");
    }
}

#[test]
fn a_daemon_that_starts_again_writes_what_was_not_written() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("fleet-web");
    let key = GroupKey::generate().unwrap();
    let mut before = host("web-1", &key);
    assert_eq!(before.unsaved("boot"), None, "nothing has changed");
    let source = "203.0.113.7".parse().unwrap();
    before.act(|group| group.revoke(Some("ssh"), source, 7, None, NOW));
    let later = NOW.boot_ms + 1;
    before.act(|group| group.given("ssh", source, later, later + 30_000, None, NOW));
    state_file::write(&path, &before.unsaved("boot").unwrap()).unwrap();
    assert_eq!(before.unsaved("boot"), None, "it was saved");
    let text = state_file::read(&path).unwrap().unwrap();
    for (name, boot, group, text, is_error, kinds) in [
        ("the same boot", "boot", "web", text.clone(), false, "hr"),
        ("after a reboot", "other", "web", text.clone(), false, ""),
        ("damaged", "boot", "web", text.replace(".7", ".8"), true, ""),
        ("another group", "boot", "db", text.clone(), false, ""),
    ] {
        let mut store = Store::default();
        let mut after = Exchange::new(
            group,
            3,
            super::store::member("web-1"),
            knock_user::fleet::Keyring::new(vec![key.clone()]).unwrap(),
        );
        assert_eq!(after.restore(&text, boot).is_err(), is_error, "{name}");
        let list = store.list();
        let list = match group {
            "web" => list,
            _ => Vec::new(),
        };
        let acts = pass(&mut after, &mut store, list);
        assert_eq!(acts, [], "{name}");
        let written = store.records.keys();
        let written: String = written.map(|key| &key[PREFIX.len()..][..1]).collect();
        assert_eq!(written, kinds, "{name}");
        if kinds.is_empty() {
            continue;
        }
        // The grant was given after the revocation, which it knows.
        let mut other = host("web-2", &key);
        let list = store.list();
        let acts = pass(&mut other, &mut store, list);
        assert_eq!(acts, [("203.0.113.7".to_owned(), true)], "{name}");
    }
}

/// More than the queue of lines, and than the writes at a time.
#[test]
fn ten_thousand_grants_are_written_little_by_little_and_listed() {
    const GRANTS: usize = 10_000;
    let key = GroupKey::generate().unwrap();
    let mut store = Store::default();
    let mut first = host("web-1", &key);
    for number in 0..GRANTS {
        let source = format!("10.1.{}.{}", number / 250, number % 250)
            .parse()
            .unwrap();
        let until_ms = NOW.boot_ms + 30_000;
        let steps = first.act(|group| group.given("ssh", source, NOW.boot_ms, until_ms, None, NOW));
        assert_eq!(steps, []);
    }
    let list = store.list();
    let mut waiting: Vec<_> = list
        .into_iter()
        .flat_map(|report| first.take(report, NOW))
        .collect();
    assert_eq!(waiting.len(), 256, "at a time");
    let mut refused = 0;
    while let Some(step) = waiting.pop() {
        let Step::Send(Request::Put(put)) = step else {
            panic!("{step:?}");
        };
        // There is no room for some of them: they come again with the next sign of life.
        let answer = match refused < 100 {
            true => Report::Failed {
                id: put.id,
                may_be_written: false,
                reason: "4096 writes wait already".to_owned(),
            },
            false => store.put(&put),
        };
        refused += 1;
        waiting.extend(first.take(answer, NOW));
        assert!(waiting.len() <= 256);
        if waiting.is_empty() {
            waiting.extend(first.take(store.current(), NOW));
        }
    }
    assert_eq!(
        (store.records.len(), first.group().unwritten()),
        (GRANTS, 0)
    );
    // A list that begins again is complete nevertheless.
    let mut second = host("web-2", &key);
    let list = store.list();
    let half = list[..GRANTS / 2].to_vec();
    assert_eq!(pass(&mut second, &mut store, half), []);
    let again = Report::List {
        prefix: PREFIX.to_owned(),
        cause: Cause::Overflow,
        cluster: "c".to_owned(),
    };
    let list = [again]
        .into_iter()
        .chain(list.into_iter().skip(1))
        .collect();
    assert_eq!(pass(&mut second, &mut store, list).len(), GRANTS);
}

/// Whoever can write to the engine has no key, and can only move what there is.
#[test]
fn a_presence_and_a_lockout_count_in_their_places_only() {
    let key = GroupKey::generate().unwrap();
    let mut store = Store::default();
    let mut first = joined(&mut store, &key, "web-1");
    let source = "203.0.113.7".parse().unwrap();
    let until_ms = NOW.boot_ms + 600_000;
    let steps = first.act(|group| group.locked_out(source, until_ms, NOW));
    keep(&mut first, &mut store, steps);
    let paths: Vec<_> = store.records.keys().cloned().collect();
    let mut moved = Store::default();
    for (path, to) in paths.iter().zip(paths.iter().rev()) {
        let Write { key, value, .. } = Write {
            key: to.clone(),
            value: store.records[path].0.clone(),
            keep_s: None,
        };
        moved.write(&key, value);
        moved.write(&format!("{path}0"), Octets(b"garbage".to_vec()));
    }
    let mut second = host("web-2", &key);
    let list = moved.list();
    let mut steps: Vec<_> = list
        .into_iter()
        .flat_map(|report| second.take(report, NOW))
        .collect();
    steps.retain(|step| matches!(step, Step::Act(_)));
    let mut acts = Vec::new();
    carry_out(&mut second, &mut moved, steps, &mut acts);
    assert_eq!((acts.len(), second.group().hosts().len()), (0, 0));
    assert_eq!(second.unreadable(), 4);
}
