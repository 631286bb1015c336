//! How claims end, on lines and with sealed records.

use knock_user::fleet::{
    Claim, Denial, Exchange, FleetAction, GroupKey, Mark, Now, Step, Use, UsedBy,
};
use knock_wire::{Put, Report, Request};

use super::store::{NOW, Store, host, pass};

fn line(line: u32) -> Use {
    Use {
        of: "once".to_owned(),
        mark: Mark::Line { line, check: 7 },
    }
}

fn period(mark: u64) -> Use {
    Use {
        of: "otp 1f".to_owned(),
        mark: Mark::Once {
            mark: [0, mark],
            keep_ms: 120_000,
        },
    }
}

fn claim(id: u64, used: Use) -> Claim {
    Claim {
        id,
        used,
        door: "ssh".to_owned(),
        source: format!("192.0.2.{id}").parse().unwrap(),
        at_ms: NOW.boot_ms,
        until_ms: NOW.boot_ms + 30_000,
    }
}

fn at(ms: u64) -> Now {
    Now {
        boot_ms: NOW.boot_ms + ms,
        wall_ms: NOW.wall_ms + ms,
    }
}

/// Takes the writes out of steps; returns the names of the actions.
fn split(steps: Vec<Step>, puts: &mut Vec<Put>) -> Vec<String> {
    let mut names = Vec::new();
    for step in steps {
        names.push(match step {
            Step::Send(Request::Put(put)) => {
                puts.push(put);
                continue;
            }
            Step::Act(FleetAction::Claimed { claim }) => format!("claimed {}", claim.id),
            Step::Act(FleetAction::Denied { claim, because }) => {
                let because = match because {
                    Denial::Used {
                        by: UsedBy { host, source },
                    } => format!("used at {host} by {}", source.unwrap()),
                    Denial::CutOff => "cut off".to_owned(),
                    Denial::Unreadable => "unreadable".to_owned(),
                    Denial::Revoked => "revoked".to_owned(),
                    Denial::Late => "late".to_owned(),
                };
                format!("denied {}: {because}", claim.id)
            }
            Step::Act(FleetAction::UsedTwice { claim, by }) => {
                format!("twice {}: {}", claim.id, by.host)
            }
            Step::Act(FleetAction::Close { source, cuts, .. }) => format!("close {source} {cuts}"),
            Step::Act(FleetAction::Open { source, by, .. }) => {
                format!("open {source} by {}", by.host)
            }
            Step::Act(FleetAction::Spend { by, .. }) => format!("spend by {}", by.host),
            Step::Act(_) | Step::Send(_) => panic!("{step:?}"),
        });
    }
    names
}

/// Returns an engine, and two hosts that follow it.
fn two() -> (Store, Exchange, Exchange) {
    let key = GroupKey::generate().unwrap();
    let mut store = Store::default();
    let [mut first, mut second] = ["web-1", "web-2"].map(|name| host(name, &key));
    for host in [&mut first, &mut second] {
        let list = store.list();
        pass(host, &mut store, list);
    }
    (store, first, second)
}

/// Reports all that the engine has to a host; returns the names of the actions.
fn follow(host: &mut Exchange, store: &Store, now: Now) -> Vec<String> {
    let mut keys: Vec<_> = store.records.keys().collect();
    // The use comes before the grant of its transaction.
    keys.sort_by_key(|key| (store.records[*key].1, key.contains("/g/")));
    let records = keys.into_iter().map(|key| store.record(key));
    let reports = records.chain([store.current()]);
    let steps = reports.flat_map(|report| host.take(report, now)).collect();
    split(steps, &mut Vec::new())
}

#[test]
fn of_two_claims_the_first_one_opens_the_door_at_all_hosts() {
    for (name, used, other, expected) in [
        (
            "the same line",
            line(3),
            line(3),
            "denied 2: used at web-1 by 192.0.2.1",
        ),
        (
            "an earlier line",
            line(3),
            line(2),
            "denied 2: used at web-1 by 192.0.2.1",
        ),
        ("a later line", line(3), line(4), "claimed 2"),
        (
            "the same period",
            period(3),
            period(3),
            "denied 2: used at web-1 by 192.0.2.1",
        ),
        ("an earlier period", period(3), period(2), "claimed 2"),
    ] {
        let (mut store, mut first, mut second) = two();
        let mut puts = Vec::new();
        let steps = first.act(|group| group.claim(claim(1, used), NOW));
        assert_eq!(split(steps, &mut puts), [""; 0], "{name}");
        // Neither host knows of the other.
        let steps = second.act(|group| group.claim(claim(2, other), NOW));
        assert_eq!(split(steps, &mut puts), [""; 0], "{name}");
        let [one, two] = puts.as_slice() else {
            panic!("{name}: {puts:?}");
        };
        assert_eq!((one.writes.len(), two.writes.len()), (2, 2), "{name}");
        let mut more = Vec::new();
        let won = first.take(store.put(one), NOW);
        assert_eq!(split(won, &mut more), ["claimed 1"], "{name}");
        let mut decided = Vec::new();
        let mut answer = Some(store.put(two));
        for _ in 0..3 {
            let Some(report) = answer.take() else { break };
            decided.extend(split(second.take(report, NOW), &mut more));
            answer = more.pop().map(|put| store.put(&put));
        }
        decided.retain(|action| !action.starts_with("spend"));
        assert_eq!(decided, [expected], "{name}");
        let opened = follow(&mut second, &store, NOW);
        assert!(
            opened.contains(&"open 192.0.2.1 by web-1".to_owned()),
            "{name}: {opened:?}"
        );
        let opened = follow(&mut first, &store, NOW);
        let is_open = opened.contains(&"open 192.0.2.2 by web-2".to_owned());
        assert_eq!(is_open, expected == "claimed 2", "{name}: {opened:?}");
    }
}

#[test]
fn what_is_known_as_used_is_not_claimed_again() {
    let (mut store, mut first, mut second) = two();
    let mut puts = Vec::new();
    split(
        first.act(|group| group.claim(claim(1, line(3)), NOW)),
        &mut puts,
    );
    first.take(store.put(&puts[0]), NOW);
    assert_eq!(
        follow(&mut second, &store, NOW),
        ["spend by web-1", "open 192.0.2.1 by web-1"]
    );
    // The engine has lost it.
    store.records.retain(|key, _| !key.contains("/o/"));
    let mut puts = Vec::new();
    let steps = second.act(|group| group.claim(claim(2, line(3)), NOW));
    assert_eq!(
        split(steps, &mut puts),
        ["denied 2: used at web-1 by 192.0.2.1"]
    );
    assert_eq!(puts, []);
}

#[test]
fn a_claim_whose_answer_was_lost_is_settled() {
    for (name, is_done, other, expected) in [
        ("it was not done", false, None, "claimed 1"),
        ("it was done", true, None, "claimed 1"),
        (
            "it was done, and a later line followed",
            true,
            Some(4),
            "claimed 1",
        ),
        (
            "another one was first",
            false,
            Some(3),
            "denied 1: used at web-2 by 192.0.2.2",
        ),
        (
            "a later line was first",
            false,
            Some(4),
            "denied 1: used at web-2 by 192.0.2.2",
        ),
    ] {
        let (mut store, mut first, mut second) = two();
        let mut puts = Vec::new();
        split(
            first.act(|group| group.claim(claim(1, line(3)), NOW)),
            &mut puts,
        );
        let put = puts.remove(0);
        if is_done {
            store.put(&put);
        }
        if let Some(other) = other {
            follow(&mut second, &store, NOW);
            split(
                second.act(|group| group.claim(claim(2, line(other)), NOW)),
                &mut puts,
            );
            second.take(store.put(&puts.remove(0)), NOW);
        }
        let failed = Report::Failed {
            id: put.id,
            may_be_written: true,
            reason: String::new(),
        };
        assert_eq!(split(first.take(failed, NOW), &mut puts), [""; 0], "{name}");
        let mut decided = Vec::new();
        let mut answer = Some(store.current());
        for _ in 0..3 {
            let Some(report) = answer.take() else { break };
            decided.extend(split(first.take(report, at(1_000)), &mut puts));
            answer = puts.pop().map(|put| store.put(&put));
        }
        decided.retain(|action| !action.starts_with("spend"));
        assert_eq!(decided, [expected], "{name}");
    }
}

#[test]
fn a_claim_that_is_not_decided_in_time_opens_nothing() {
    let cut_off = ["denied 1: cut off"];
    // Without an answer.
    let (_, mut first, _) = two();
    let mut puts = Vec::new();
    split(
        first.act(|group| group.claim(claim(1, line(3)), NOW)),
        &mut puts,
    );
    assert_eq!(
        split(first.act(|group| group.expire(at(14_999))), &mut puts),
        [""; 0]
    );
    assert_eq!(
        split(first.act(|group| group.expire(at(15_000))), &mut puts),
        cut_off
    );
    // While the host is cut off.
    let steps = first.act(|group| group.claim(claim(1, line(3)), at(15_000)));
    assert_eq!(split(steps, &mut puts), cut_off);
}

#[test]
fn a_claim_opens_nothing_for_a_source_that_was_revoked_since() {
    let (mut store, mut first, mut second) = two();
    let mut puts = Vec::new();
    split(
        first.act(|group| group.claim(claim(1, line(3)), NOW)),
        &mut puts,
    );
    let put = puts.remove(0);
    let source = claim(1, line(3)).source;
    split(
        second.act(|group| group.revoke(Some("ssh"), source, 9, Some(0), NOW)),
        &mut puts,
    );
    let revocation = puts.remove(0);
    store.put(&revocation);
    assert_eq!(follow(&mut first, &store, NOW), [""; 0]);
    let steps = first.take(store.put(&put), NOW);
    assert_eq!(split(steps, &mut puts), ["denied 1: revoked"]);
    assert_eq!(follow(&mut second, &store, NOW)[1..], [""; 0]);
}

#[test]
fn a_claim_opens_nothing_where_the_engine_has_garbage() {
    let (mut store, mut first, _) = two();
    let mut puts = Vec::new();
    split(
        first.act(|group| group.claim(claim(1, line(3)), NOW)),
        &mut puts,
    );
    let put = puts.remove(0);
    store.write(&put.writes[0].key, put.writes[1].value.clone());
    let steps = first.take(store.put(&put), NOW);
    assert_eq!(split(steps, &mut puts), ["denied 1: unreadable"]);
    assert_eq!(puts, []);
}

#[test]
fn an_open_door_closes_when_another_host_was_first() {
    for (name, is_first, expected) in [
        (
            "it was",
            true,
            ["twice 1: web-2", "close 192.0.2.1 true"].as_slice(),
        ),
        ("it was not", false, &[]),
    ] {
        let (mut store, mut first, mut second) = two();
        let mut puts = Vec::new();
        split(
            first.act(|group| group.used(claim(1, line(3)), NOW)),
            &mut puts,
        );
        let put = puts.remove(0);
        if is_first {
            split(
                second.act(|group| group.used(claim(2, line(3)), NOW)),
                &mut puts,
            );
            second.take(store.put(&puts.remove(0)), NOW);
        }
        let mut actions = split(first.take(store.put(&put), NOW), &mut puts);
        actions.retain(|action| !action.starts_with("spend"));
        assert_eq!(actions, expected, "{name}");
        let is_open_elsewhere = follow(&mut second, &store, NOW)
            .iter()
            .any(|action| action == "open 192.0.2.1 by web-1");
        assert_eq!(is_open_elsewhere, !is_first, "{name}");
    }
}

#[test]
fn a_use_that_the_engine_lost_is_written_by_the_host_that_made_it() {
    let (mut store, mut first, mut second) = two();
    let mut puts = Vec::new();
    split(
        first.act(|group| group.claim(claim(1, line(3)), NOW)),
        &mut puts,
    );
    first.take(store.put(&puts.remove(0)), NOW);
    for host in [&mut first, &mut second] {
        follow(host, &store, NOW);
    }
    let key = store
        .records
        .keys()
        .find(|key| key.contains("/o/"))
        .unwrap()
        .clone();
    store.records.remove(&key);
    store.revision += 1;
    let deleted = Report::Deleted {
        key: key.clone(),
        revision: store.revision,
    };
    split(second.take(deleted.clone(), NOW), &mut puts);
    assert_eq!(puts, []);
    split(first.take(deleted, NOW), &mut puts);
    let [put] = puts.as_slice() else {
        panic!("{puts:?}");
    };
    assert_eq!((&put.writes[0].key, put.writes.len()), (&key, 1));
}
