//! Claims: one of many claimants wins, whatever happens to members.

use std::env;

use knock_wire::Report;

use crate::{
    cluster::Cluster,
    host::{GROUP, Host, write},
};

/// Hosts that claim the same at the same time.
const CLAIMANTS: u8 = 10;

#[test]
fn a_line_is_used_once_while_members_are_killed() {
    let lines: usize = env::var("KNOCK_CLAIMS").map_or(60, |number| number.parse().unwrap());
    let octets: Vec<_> = (21..21 + CLAIMANTS).collect();
    let mut cluster = Cluster::new(&octets);
    let mut hosts: Vec<_> = octets
        .iter()
        .map(|octet| Host::start(&cluster, *octet))
        .collect();
    for host in &mut hosts {
        host.wait_until_current();
    }
    let key = format!("{GROUP}o/door");
    let (mut revision, mut used, mut unclear) = (0, 0, 0);
    let mut killed = None;
    for line in 0..lines {
        let values: Vec<_> = (0..hosts.len())
            .map(|host| format!("{line} {host}"))
            .collect();
        let ids: Vec<_> = hosts
            .iter_mut()
            .zip(&values)
            .map(|(host, value)| {
                let grant = write(&format!("{GROUP}h/{value}"), value, Some(600));
                host.put(
                    Some((&key, revision)),
                    vec![write(&key, value, None), grant],
                )
            })
            .collect();
        // While the claims are under way.
        if line % 10 == 3 {
            let leader = cluster.wait_for_leader();
            let member = if line % 20 == 3 {
                leader
            } else {
                (leader + 1) % 3
            };
            cluster.kill(member);
            killed = Some(member);
        }
        let answers: Vec<_> = hosts
            .iter_mut()
            .zip(ids)
            .map(|(host, id)| host.answer(id))
            .collect();
        if line % 10 == 8
            && let Some(member) = killed.take()
        {
            cluster.start(member);
        }
        let winners: Vec<_> = answers
            .iter()
            .enumerate()
            .filter_map(|(host, answer)| match answer {
                Report::Written { revision, .. } => Some((host, *revision)),
                _ => None,
            })
            .collect();
        assert!(
            winners.len() <= 1,
            "line {line} was used by {winners:?}: {answers:#?}"
        );
        let there = cluster.records(&key);
        match winners.first() {
            Some((winner, at)) => {
                assert_eq!(there[0].1, values[*winner].as_bytes(), "line {line}");
                revision = *at;
                used += 1;
            }
            None => {
                let is_refused = |answer: &Report| matches!(answer, Report::Refused { .. });
                assert!(
                    !answers.iter().all(is_refused),
                    "line {line} was used by no one: {answers:#?}"
                );
                unclear += 1;
                // It may have been written, or may still be: the next line has another condition in either case.
                revision = cluster.put(&key, &format!("{line} settled"));
            }
        }
    }
    assert_eq!(used + unclear, lines);
    // A busy machine elects slowly, and claims end without an answer meanwhile.
    assert!(
        used * 2 >= lines,
        "{used} used, {unclear} unclear of {lines}"
    );
}

#[test]
fn a_claim_that_is_asked_again_belongs_to_the_same_claimant() {
    let cluster = Cluster::new(&[21, 22]);
    let mut first = Host::start(&cluster, 21);
    let mut second = Host::start(&cluster, 22);
    let key = format!("{GROUP}o/door");
    let claim = |host: &mut Host, value: &str| {
        let id = host.put(Some((&key, 0)), vec![write(&key, value, None)]);
        host.answer(id)
    };
    let Report::Written { revision, .. } = claim(&mut first, "first") else {
        panic!("the first claim failed");
    };
    for (name, host, value, is_written) in [
        ("another claimant", &mut second, "second", false),
        ("the same one", &mut first, "first", true),
    ] {
        match claim(host, value) {
            Report::Written { revision: at, .. } => {
                assert!(is_written, "{name}");
                assert_eq!(at, revision, "{name}");
            }
            Report::Refused { found, .. } => {
                assert!(!is_written, "{name}");
                let found = found.unwrap();
                assert_eq!(
                    (found.value.0.as_slice(), found.revision),
                    (&b"first"[..], revision),
                    "{name}"
                );
            }
            other => panic!("{name}: {other:?}"),
        }
    }
}
