//! Hosts that come back: to the changes that they missed, to a compacted history, and to another one.

use knock_wire::{Cause, Octets, Point, Report};

use crate::{
    check_records,
    cluster::Cluster,
    host::{GROUP, Host},
};

/// Returns the point of a record that a host knows.
fn point(host: &Host, key: &str) -> Point {
    let (value, revision) = &host.records[key];
    Point {
        cluster: host.cluster.clone(),
        key: key.to_owned(),
        value: Octets(value.clone()),
        revision: *revision,
    }
}

fn is_lost(host: &Host) -> Option<()> {
    host.has(|report| matches!(report, Report::Lost { .. }))
        .then_some(())
}

#[test]
fn a_host_that_was_cut_off_receives_what_it_missed() {
    for (name, is_compacted, expected) in [
        ("changes", false, &[Cause::Asked][..]),
        (
            "a compacted history",
            true,
            &[Cause::Asked, Cause::Compacted],
        ),
    ] {
        let cluster = Cluster::new(&[21]);
        cluster.put(&format!("{GROUP}c"), "before");
        let mut host = Host::start(&cluster, 21);
        host.wait_for_record(&format!("{GROUP}c"), "before");
        cluster.network.set_link(21, false);
        host.wait_for("the loss of the link", is_lost);
        cluster.admin(|mut client| async move { client.delete(format!("{GROUP}c"), None).await });
        let mut last = 0;
        for number in 0..40 {
            last = cluster.put(
                &format!("{GROUP}r/{}", number % 7),
                &format!("value {number}"),
            );
        }
        if is_compacted {
            let last = i64::try_from(last).unwrap();
            cluster.admin(|mut client| async move {
                match client.compact(last, None).await {
                    // The answer to an earlier attempt was lost.
                    Err(error) if error.to_string().contains("compacted") => Ok(()),
                    other => other.map(drop),
                }
            });
        }
        cluster.network.set_link(21, true);
        host.wait_for_record(&format!("{GROUP}r/4"), "value 39");
        check_records(&cluster, &mut host);
        assert_eq!(host.lists, expected, "{name}");
    }
}

#[test]
fn a_point_continues_only_in_its_own_history() {
    let mut cluster = Cluster::new(&[21, 22, 23, 24]);
    let key = format!("{GROUP}c");
    cluster.put(&key, "first");
    let mut host = Host::start(&cluster, 21);
    host.wait_for_record(&key, "first");
    let backup = cluster.back_up();
    cluster.put(&format!("{GROUP}r/1"), "known to the host alone");
    cluster.put(&key, "second");
    host.wait_for_record(&key, "second");
    let old = point(&host, &key);
    let mut same = Host::start_after(&cluster, 22, Some(old.clone()));
    cluster.put(&key, "third");
    same.wait_for_record(&key, "third");
    assert_eq!(same.lists, []);
    host.wait_for_record(&key, "third");
    cluster.restore(&backup);
    // The restored engine passes the old revision, with other records.
    for number in 0..20 {
        cluster.put(&format!("{GROUP}r/{number}"), "of the other history");
    }
    assert!(cluster.put(&key, "last") > old.revision);
    let mut later = Host::start_after(&cluster, 23, Some(old.clone()));
    let ahead = Point {
        revision: 99_999_999,
        ..old
    };
    let mut far = Host::start_after(&cluster, 24, Some(ahead));
    for (name, host, lists) in [
        (
            "a host that was connected",
            &mut host,
            &[Cause::Asked, Cause::History][..],
        ),
        ("one that followed a point", &mut same, &[Cause::History]),
        ("one that comes back", &mut later, &[Cause::History]),
        (
            "one whose revision is not reached",
            &mut far,
            &[Cause::History],
        ),
    ] {
        host.wait_for_record(&key, "last");
        check_records(&cluster, host);
        assert_eq!(host.lists, lists, "{name}");
    }
}
