//! `knock-fleet` and three real members of etcd, which are killed, cut off and restored.
//!
//! `cargo xtask fleet` installs etcd and runs these tests with a network of their own.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::wildcard_enum_match_arm,
    reason = "clippy.toml's exceptions do not reach helpers of tests"
)]

mod certificates;
mod claims;
mod cluster;
mod command;
mod host;
mod hostile;
mod network;
mod process;
mod rejoin;

use std::collections::BTreeMap;

use etcd_client::GetOptions;
use knock_wire::{Beat, Cause, Octets, Report, Request};

use crate::{
    cluster::{Cluster, MEMBERS},
    command::until,
    host::{GROUP, Host, write},
};

/// Checks that a host knows what the engine has.
#[track_caller]
fn check_records(cluster: &Cluster, host: &mut Host) {
    host.wait_until_current();
    let known: BTreeMap<_, _> = host
        .records
        .iter()
        .map(|(key, (value, _))| (key.clone(), value.clone()))
        .collect();
    let there: BTreeMap<_, _> = cluster.records(GROUP).into_iter().collect();
    assert_eq!(known, there);
}

#[test]
fn a_list_of_many_pages_and_then_changes_arrive_in_order() {
    let cluster = Cluster::new(&[21, 22]);
    let mut first = Host::start(&cluster, 21);
    first.wait_until_current();
    assert_eq!(first.lists[0], Cause::Asked);
    let puts: Vec<_> = (0..1_234)
        .map(|number| {
            let key = format!("{GROUP}h/web-1/g/{number:04}");
            first.put(None, vec![write(&key, "granted", None)])
        })
        .collect();
    for id in puts {
        let answer = first.answer(id);
        assert!(matches!(answer, Report::Written { .. }), "{answer:?}");
    }
    let mut second = Host::start(&cluster, 22);
    second.wait_until_current();
    assert_eq!(second.records.len(), 1_234);
    for number in 0..20 {
        let key = format!("{GROUP}c");
        cluster.put(&key, &format!("value {number}"));
        cluster.put("/knock/1/db/c", "another group's");
        if number % 5 == 0 {
            let deleted = format!("{GROUP}h/web-1/g/{number:04}");
            cluster.admin(|mut client| {
                let key = deleted.clone();
                async move { client.delete(key, None).await }
            });
        }
    }
    for host in [&mut first, &mut second] {
        host.wait_for_record(&format!("{GROUP}c"), "value 19");
        check_records(&cluster, host);
        assert_eq!(host.records.len(), 1_231);
    }
    assert_eq!(second.lists, [Cause::Asked]);
}

#[test]
fn a_member_that_is_cut_off_from_the_others_holds_nothing_back() {
    let cluster = Cluster::new(&[21, 22, 23, 24]);
    let mut hosts: Vec<_> = (21..=24)
        .map(|octet| Host::start(&cluster, octet))
        .collect();
    for host in &mut hosts {
        host.wait_until_current();
    }
    let leader = cluster.wait_for_leader();
    let cut = (leader + 1) % 3;
    let others: Vec<_> = MEMBERS
        .into_iter()
        .filter(|octet| *octet != MEMBERS[cut])
        .collect();
    cluster.network.set_route(MEMBERS[cut], &others, false);
    let key = format!("{GROUP}c");
    for number in 0..50 {
        let value = format!("value {number}");
        let mut client = cluster.client(&[leader], "root");
        cluster
            .wait(client.put(key.as_str(), value.as_str(), None))
            .unwrap();
        for host in &mut hosts {
            host.wait_for_record(&key, &value);
        }
    }
    // The watch of the member that was cut off was never the only one, unless another member was too slow.
    for host in &hosts {
        let mut reasons = host.seen.iter().filter_map(|report| match report {
            Report::Lost { reason } => Some(reason),
            _ => None,
        });
        let (url, first) = (cluster.url(cut), reasons.next());
        assert!(
            first.is_none_or(|reason| !reason.starts_with(&url)),
            "{first:?}"
        );
    }
    cluster.network.set_route(MEMBERS[cut], &others, true);
    for host in &mut hosts {
        check_records(&cluster, host);
    }
}

#[test]
fn no_acknowledged_put_is_lost_when_members_are_killed() {
    let mut cluster = Cluster::new(&[21, 22]);
    let mut writer = Host::start(&cluster, 21);
    let mut reader = Host::start(&cluster, 22);
    writer.wait_until_current();
    reader.wait_until_current();
    let mut written: Vec<String> = Vec::new();
    let mut failed = 0;
    let mut number = 0;
    let mut next = |writer: &mut Host| {
        number += 1;
        let key = format!("{GROUP}h/web-1/g/{number}");
        let id = writer.put(None, vec![write(&key, "granted", Some(600))]);
        (id, key)
    };
    for (name, killed) in [
        ("a follower", vec![1]),
        ("the leader", vec![0]),
        ("the majority", vec![0, 1]),
    ] {
        let leader = cluster.wait_for_leader();
        let killed: Vec<_> = killed.iter().map(|step| (leader + step) % 3).collect();
        let mut open: Vec<_> = (0..20).map(|_| next(&mut writer)).collect();
        for member in &killed {
            cluster.kill(*member);
        }
        open.extend((0..20).map(|_| next(&mut writer)));
        let mut take = |writer: &mut Host, open: Vec<(u64, String)>| {
            for (id, key) in open {
                match writer.answer(id) {
                    Report::Written { .. } => written.push(key),
                    Report::Failed { .. } => failed += 1,
                    other => panic!("{name}: {other:?}"),
                }
            }
        };
        take(&mut writer, open);
        for member in &killed {
            cluster.start(*member);
        }
        cluster.wait_for_leader();
        // Writes are possible again.
        let key = format!("{GROUP}c");
        until(name, || {
            let id = writer.put(None, vec![write(&key, name, None)]);
            matches!(writer.answer(id), Report::Written { .. }).then_some(())
        });
        reader.wait_for_record(&key, name);
        for host in [&mut writer, &mut reader] {
            check_records(&cluster, host);
        }
        for key in &written {
            assert!(reader.records.contains_key(key), "{name}: {key} was lost");
        }
    }
    assert!(
        written.len() >= 40,
        "{} written, {failed} failed",
        written.len()
    );
    // What was missed came as changes.
    assert_eq!(reader.lists, [Cause::Asked]);
}

#[test]
fn keys_that_end_in_the_same_minute_share_a_lease() {
    let cluster = Cluster::new(&[21]);
    let mut host = Host::start(&cluster, 21);
    let ids: Vec<_> = ["a", "b", "c", "d"]
        .map(|key| format!("{GROUP}{key}"))
        .into_iter()
        .map(|key| host.put(None, vec![write(&key, "x", Some(300))]))
        .collect();
    for id in ids {
        let answer = host.answer(id);
        assert!(matches!(answer, Report::Written { .. }), "{answer:?}");
    }
    let options = || GetOptions::new().with_prefix();
    let answer =
        cluster.admin(|mut client| async move { client.get(GROUP, Some(options())).await });
    let leases: std::collections::BTreeSet<_> =
        answer.kvs().iter().map(|record| record.lease()).collect();
    // The minute may have ended in between, and the first writes go side by side.
    assert!(!leases.contains(&0), "{leases:?}");
    let later = host.put(None, vec![write(&format!("{GROUP}e"), "x", Some(300))]);
    host.answer(later);
    let answer = cluster.admin(|mut client| async move { client.leases().await });
    assert!(
        answer.leases().len() <= 5,
        "{} leases",
        answer.leases().len()
    );
    for lease in leases {
        let left =
            cluster.admin(|mut client| async move { client.lease_time_to_live(lease, None).await });
        assert!(
            (290..=361).contains(&left.granted_ttl()),
            "{} s",
            left.granted_ttl()
        );
    }
}

#[test]
fn a_sign_of_life_is_written_again_and_ends_with_the_host() {
    let cluster = Cluster::new(&[21, 22]);
    let mut alive = Host::start(&cluster, 21);
    let mut other = Host::start(&cluster, 22);
    let key = format!("{GROUP}p/web-1");
    let beat = |value: &str| {
        Request::Beat(Beat {
            key: key.clone(),
            value: Octets(value.as_bytes().to_vec()),
            keep_s: 6,
        })
    };
    alive.send(&beat("first"));
    other.wait_for_record(&key, "first");
    alive.send(&beat("second"));
    other.wait_for_record(&key, "second");
    let written = other.records[&key].1;
    cluster.admin(|mut client| {
        let key = key.clone();
        async move { client.delete(key, None).await }
    });
    other.wait_for("the key is there again", |host| {
        (host.records.get(&key)?.1 > written).then_some(())
    });
    let lists = other.lists.len();
    drop(alive);
    other.wait_for("the key has ended", |host| {
        (!host.records.contains_key(&key)).then_some(())
    });
    assert_eq!(other.lists.len(), lists);
}
