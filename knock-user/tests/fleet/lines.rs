//! Hosts of a group follow each other through lines and sealed records, whatever the engine does to them.

use knock_user::fleet::{Exchange, FleetAction, GroupKey, LinkState, Now, Step};
use knock_wire::{Cause, Octets, Put, Report, Request};

use super::store::{NOW, Store, carry_out, granted, host, pass};

#[test]
fn a_grant_opens_the_door_at_another_host() {
    let (mut store, path, key) = granted();
    assert!(path.starts_with("/knock/1/web/h/web-1/g/"), "{path}");
    for word in ["ssh", "203.0.113.7"] {
        let value = &store.records[&path].0.0;
        let is_in_value = value
            .windows(word.len())
            .any(|part| part == word.as_bytes());
        assert!(!is_in_value && !path.contains(word), "{word}");
    }
    let mut other = host("web-2", &key);
    let list = store.list();
    let acts = pass(&mut other, &mut store, list);
    assert_eq!(acts, [("203.0.113.7".to_owned(), true)]);
    assert_eq!(other.unreadable(), 0);
    assert_eq!(other.group().good_until_ms(), NOW.boot_ms + 15_000);
    // The same record again, and its deletion, change nothing.
    let again = vec![store.record(&path), store.current()];
    assert_eq!(pass(&mut other, &mut store, again), []);
    let revision = 9;
    let deleted = vec![
        Report::Deleted {
            key: path,
            revision,
        },
        store.current(),
    ];
    assert_eq!(pass(&mut other, &mut store, deleted), []);
}

#[test]
fn what_the_engine_makes_of_a_record_opens_nothing_and_closes_nothing() {
    let foreign = GroupKey::generate().unwrap();
    for (name, change) in [
        ("garbage", 0),
        ("empty", 1),
        ("another octet", 2),
        ("moved to another host", 3),
        ("moved to another name", 4),
        ("moved to the revocations", 5),
        ("sealed by another group", 6),
    ] {
        let (mut store, path, key) = granted();
        let (value, _) = store.records.remove(&path).unwrap();
        let mut octets = value.0.clone();
        let (to, octets) = match change {
            0 => (path.clone(), b"{}".to_vec()),
            1 => (path.clone(), Vec::new()),
            2 => {
                octets[40] ^= 1;
                (path.clone(), octets)
            }
            3 => (path.replace("web-1", "web-9"), octets),
            4 => (format!("{path}0"), octets),
            5 => (path.replace("h/web-1/g/", "r/"), octets),
            _ => {
                let mut other = host("web-1", &foreign);
                let list = Store::default().list();
                list.into_iter()
                    .for_each(|report| drop(other.take(report, NOW)));
                let source = "203.0.113.7".parse().unwrap();
                let steps =
                    other.act(|group| group.given("ssh", source, 50_000, 80_000, None, NOW));
                let [Step::Send(Request::Put(put))] = steps.as_slice() else {
                    panic!("{steps:?}");
                };
                (path.clone(), put.writes[0].value.0.clone())
            }
        };
        store.write(&to, Octets(octets));
        let mut other = host("web-2", &key);
        let list = store.list();
        assert_eq!(pass(&mut other, &mut store, list), [], "{name}");
        assert_eq!(other.unreadable(), 1, "{name}");
        // Later records are read.
        store.write(&path, value);
        let next = vec![store.record(&path), store.current()];
        let acts = pass(&mut other, &mut store, next);
        assert_eq!(acts, [("203.0.113.7".to_owned(), true)], "{name}");
    }
}

#[test]
fn a_revocation_closes_the_door_and_an_old_record_opens_it_for_nobody() {
    let (mut store, path, key) = granted();
    let mut other = host("web-2", &key);
    let list = store.list();
    pass(&mut other, &mut store, list);
    let source = "203.0.113.7".parse().unwrap();
    let steps = other.act(|group| group.revoke(Some("ssh"), source, 77, Some(0), NOW));
    let mut acts = Vec::new();
    carry_out(&mut other, &mut store, steps, &mut acts);
    assert_eq!(acts, [("203.0.113.7".to_owned(), false)]);
    // Whoever holds the engine writes the old record again.
    let (value, _) = store.records[&path].clone();
    store.write(&path, value);
    let replayed = vec![store.record(&path), store.current()];
    assert_eq!(pass(&mut other, &mut store, replayed), []);
    let mut third = host("web-3", &key);
    let list = store.list();
    assert_eq!(pass(&mut third, &mut store, list), []);
    assert_eq!(third.unreadable(), 0);
}

#[test]
fn a_revocation_replaces_none_that_is_unknown() {
    let (mut store, _, key) = granted();
    let source = "203.0.113.7".parse().unwrap();
    let (mut first, mut second) = (host("web-2", &key), host("web-3", &key));
    for host in [&mut first, &mut second] {
        let list = store.list();
        pass(host, &mut store, list);
    }
    let steps = first.act(|group| group.revoke(Some("ssh"), source, 1, None, NOW));
    carry_out(&mut first, &mut store, steps, &mut Vec::new());
    // The second host does not receive it in time, so its write is refused.
    let steps = second.act(|group| group.revoke(Some("ssh"), source, 2, None, NOW));
    let refused = store.put(&only_put(&steps));
    assert!(matches!(refused, Report::Refused { .. }), "{refused:?}");
    let steps = second.take(refused, NOW);
    let written = store.put(&only_put(&steps));
    assert!(matches!(written, Report::Written { .. }), "{written:?}");
    let revocation = store.records.keys().find(|key| key.contains("/r/"));
    let written = store.record(revocation.unwrap());
    // A host that knows one of them gives a grant in ignorance of the other one.
    let later = Now {
        boot_ms: NOW.boot_ms + 10,
        wall_ms: NOW.wall_ms + 10,
    };
    first.act(|group| group.given("ssh", source, later.boot_ms, 90_000, None, later));
    let steps = first.take(written, later);
    let closes = |step: &Step| matches!(step, Step::Act(FleetAction::Close { is_own: true, .. }));
    assert!(steps.iter().any(closes), "{steps:?}");
}

/// Returns the write among steps.
fn only_put(steps: &[Step]) -> Put {
    let puts = steps.iter().filter_map(|step| match step {
        Step::Send(Request::Put(put)) => Some(put.clone()),
        Step::Send(Request::Open(_) | Request::Watch(_) | Request::Beat(_)) | Step::Act(_) => None,
    });
    let puts: Vec<_> = puts.collect();
    assert_eq!(puts.len(), 1, "{steps:?}");
    puts[0].clone()
}

#[test]
fn a_garbled_revocation_is_replaced() {
    let (mut store, _, key) = granted();
    let source = "203.0.113.7".parse().unwrap();
    let mut first = host("web-2", &key);
    let list = store.list();
    pass(&mut first, &mut store, list);
    let steps = first.act(|group| group.revoke(None, source, 1, None, NOW));
    carry_out(&mut first, &mut store, steps, &mut Vec::new());
    let path = store.records.keys().find(|key| key.contains("/r/"));
    let path = path.unwrap().clone();
    store.write(&path, Octets(b"garbage".to_vec()));
    let steps = first.act(|group| group.revoke(None, source, 2, None, NOW));
    carry_out(&mut first, &mut store, steps, &mut Vec::new());
    let mut third = host("web-4", &key);
    let list = store.list();
    pass(&mut third, &mut store, list);
    assert_eq!(third.unreadable(), 0);
}

#[test]
fn another_process_continues_after_what_was_complete() {
    let (mut store, path, key) = granted();
    let after = |host: &mut Exchange| {
        let Request::Watch(watch) = host.begin() else {
            panic!("it begins with something else than a watch");
        };
        watch.after.map(|point| point.revision)
    };
    let mut other = host("web-2", &key);
    assert_eq!(after(&mut other), None, "nothing was received");
    let list = store.list();
    let in_part = list.iter().take(2).cloned().collect();
    pass(&mut other, &mut store, in_part);
    assert_eq!(after(&mut other), None, "a list in part");
    pass(&mut other, &mut store, list);
    assert_eq!(after(&mut other), Some(1), "a list");
    let (value, _) = store.records[&path].clone();
    store.write(&path, value);
    let change = vec![store.record(&path)];
    pass(&mut other, &mut store, change);
    assert_eq!(
        after(&mut other),
        Some(1),
        "a change of which more may come"
    );
    let change = vec![store.record(&path), store.current()];
    pass(&mut other, &mut store, change);
    assert_eq!(after(&mut other), Some(2), "all changes");
}

#[test]
fn reports_about_another_group_change_nothing() {
    let (mut store, path, key) = granted();
    let mut other = host("web-2", &key);
    let value = store.records[&path].0.clone();
    let foreign = "/knock/1/db/".to_owned();
    let reports = vec![
        Report::List {
            prefix: foreign.clone(),
            cause: Cause::Asked,
            cluster: "c".to_owned(),
        },
        Report::Record {
            key: path.replace("/web/", "/db/"),
            value,
            revision: 1,
        },
        Report::Listed {
            prefix: foreign.clone(),
            revision: 1,
        },
        Report::Current {
            prefix: foreign,
            revision: 1,
            at_ms: NOW.boot_ms,
        },
        Report::Written { id: 1, revision: 1 },
        Report::Failed {
            id: 1,
            may_be_written: true,
            reason: String::new(),
        },
    ];
    assert_eq!(pass(&mut other, &mut store, reports), []);
    assert_eq!(other.group().good_until_ms(), 0);
    assert_eq!(other.unreadable(), 0);
    assert_eq!(*other.state(), LinkState::Starting);
}

#[test]
fn the_state_of_the_link_can_be_shown_in_a_terminal() {
    let mut host = host("web-2", &GroupKey::generate().unwrap());
    let text = "\u{1b}[2Jrefused".to_owned();
    for (name, report, expected) in [
        (
            "linked",
            Report::Linked {
                member: "https://a".to_owned(),
                version: text.clone(),
            },
            LinkState::Linked {
                member: "https://a".to_owned(),
                version: "\\u{1b}[2Jrefused".to_owned(),
            },
        ),
        (
            "lost",
            Report::Lost { reason: text },
            LinkState::Lost {
                reason: "\\u{1b}[2Jrefused".to_owned(),
            },
        ),
    ] {
        host.take(report, NOW);
        assert_eq!(*host.state(), expected, "{name}");
    }
}
