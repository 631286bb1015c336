//! Wrong certificates, and what others write into the engine.

use etcd_client::{Client, Txn, TxnOp};
use knock_wire::{Open, Report, Request};

use crate::{
    certificates::Authority,
    cluster::Cluster,
    host::{GROUP, Host, open, write},
};

#[test]
fn a_link_that_certificates_prevent_is_reported_with_its_cause() {
    let cluster = Cluster::new(&[21]);
    let directory = tempfile::tempdir().unwrap();
    let other = Authority::new(directory.path(), "other");
    other.sign("web-1", &[]);
    let good = || open(&cluster, "web-1");
    for (name, line, part) in [
        (
            "another authority of the members",
            Open {
                ca: Some(other.path("ca.pem").into()),
                ..good()
            },
            "check `ca`, `cert` and `key`",
        ),
        (
            "another authority of the host",
            Open {
                cert: Some(other.path("web-1.pem").into()),
                key: Some(other.path("web-1.key").into()),
                ..good()
            },
            "check `ca`, `cert` and `key`",
        ),
        (
            "no certificate",
            Open {
                cert: None,
                key: None,
                ..good()
            },
            "check `ca`, `cert` and `key`",
        ),
        (
            "the key of another certificate",
            Open {
                key: Some(cluster.authority.path("db-1.key").into()),
                ..good()
            },
            "check `ca`, `cert` and `key`",
        ),
        (
            "a file that is missing",
            Open {
                key: Some("/nowhere/web-1.key".into()),
                ..good()
            },
            "reading /nowhere/web-1.key: No such file or directory (os error 2); check `key`",
        ),
        (
            "no TLS",
            Open {
                servers: vec![cluster.url(0).replace("https", "http")],
                ..good()
            },
            "10.77.0.11:2379",
        ),
        (
            "nothing that listens",
            Open {
                servers: vec![cluster.url(0).replace("2379", "9")],
                ..good()
            },
            "the member can't be reached",
        ),
    ] {
        let mut host = Host::bare(Some(&cluster.network.place(21).name));
        host.send(&Request::Open(line));
        host.watch(None);
        let reason = host.wait_for(name, |host| {
            host.seen.iter().find_map(|report| match report {
                Report::Lost { reason } => Some(reason.clone()),
                _ => None,
            })
        });
        assert!(reason.contains(part), "{name}: {reason}");
        assert!(
            !host.has(|report| matches!(report, Report::Linked { .. })),
            "{name}"
        );
    }
}

#[test]
fn certificates_that_were_replaced_are_used() {
    let cluster = Cluster::new(&[21]);
    let directory = tempfile::tempdir().unwrap();
    let place = |file: &str| directory.path().join(file);
    let mut host = Host::bare(Some(&cluster.network.place(21).name));
    host.send(&Request::Open(Open {
        cert: Some(place("web-1.pem")),
        key: Some(place("web-1.key")),
        ..open(&cluster, "web-1")
    }));
    host.watch(None);
    host.wait_for("the loss", |host| {
        host.has(|report| matches!(report, Report::Lost { .. }))
            .then_some(())
    });
    for file in ["web-1.pem", "web-1.key"] {
        std::fs::copy(cluster.authority.path(file), place(file)).unwrap();
    }
    host.wait_until_current();
}

/// Writes into a group in the ways that a client of etcd has; returns which of them etcd permitted.
fn write_everywhere(cluster: &Cluster, client: &Client) -> Vec<String> {
    let put = |key: &str| TxnOp::put(key, "forged", None);
    let (plain, txn, nested) = ["plain", "txn", "nested"]
        .map(|name| format!("{GROUP}r/{name}"))
        .into();
    let mut kv = client.kv_client();
    let inner = Txn::new().and_then([put(&nested)]);
    let done = cluster.wait(async {
        [
            kv.put(plain.as_str(), "forged", None).await.is_ok(),
            kv.txn(Txn::new().and_then([put(&txn)])).await.is_ok(),
            kv.txn(Txn::new().and_then([TxnOp::txn(inner)]))
                .await
                .is_ok(),
        ]
    });
    let names = [plain, txn, nested].into_iter().zip(done);
    names
        .filter(|(_, is_done)| *is_done)
        .map(|(name, _)| name)
        .collect()
}

#[test]
fn writes_of_another_group_arrive_as_they_are() {
    let cluster = Cluster::new(&[21]);
    cluster.enable_roles();
    let mut host = Host::start(&cluster, 21);
    host.wait_until_current();
    let id = host.put(None, vec![write("/knock/1/db/r/x", "forged", None)]);
    match host.answer(id) {
        Report::Failed {
            may_be_written,
            reason,
            ..
        } => {
            assert!(!may_be_written);
            assert!(
                reason.contains("etcd denies this to the user in `cert`"),
                "{reason}"
            );
        }
        other => panic!("{other:?}"),
    }
    let id = host.put(None, vec![write(&format!("{GROUP}c"), "own", None)]);
    assert!(matches!(host.answer(id), Report::Written { .. }));
    // A version of etcd with the fault permits nested transactions: what they write is reported like all else.
    for key in write_everywhere(&cluster, &cluster.client(&[0], "db-1")) {
        assert!(key.ends_with("nested"), "etcd permitted {key}");
        host.wait_for_record(&key, "forged");
    }
    check(&cluster, &mut host);
}

#[test]
fn records_of_any_octets_are_reported_and_end_nothing() {
    let cluster = Cluster::new(&[21]);
    let mut host = Host::start(&cluster, 21);
    host.wait_until_current();
    let long = vec![b'x'; 1_400_000];
    let mut longest_key = GROUP.as_bytes().to_vec();
    longest_key.extend(vec![b'k'; 100_000]);
    let rows: [(&str, Vec<u8>, Vec<u8>); 7] = [
        ("an empty value", format!("{GROUP}empty").into(), vec![]),
        (
            "octets that are no text",
            format!("{GROUP}binary").into(),
            vec![0xff, 0, 0xfe],
        ),
        (
            "a line end",
            format!("{GROUP}\n{{}}").into(),
            b"\n\n".to_vec(),
        ),
        (
            "a key that is no text",
            [GROUP.as_bytes(), &[0xff, 0xfe]].concat(),
            b"x".to_vec(),
        ),
        ("a long key", longest_key, b"x".to_vec()),
        ("a long value", format!("{GROUP}long").into(), long.clone()),
        ("the prefix itself", GROUP.into(), b"x".to_vec()),
    ];
    for (name, key, value) in &rows {
        let before = host.records.len();
        cluster.admin(|mut client| {
            let (key, value) = (key.clone(), value.clone());
            async move { client.put(key, value, None).await }
        });
        host.wait_for(name, |host| (host.records.len() > before).then_some(()));
        let expected = if value.len() > 1_000_000 {
            &[]
        } else {
            value.as_slice()
        };
        let newest = host.records.values().max_by_key(|(_, revision)| *revision);
        assert_eq!(newest.unwrap().0, expected, "{name}");
    }
    // A list has them, too.
    let mut other = Host::start(&cluster, 21);
    other.wait_until_current();
    assert_eq!(other.records, host.records);
    assert_eq!(other.records.len(), rows.len());
    cluster.put(&format!("{GROUP}c"), "after all of them");
    for host in [&mut host, &mut other] {
        host.wait_for_record(&format!("{GROUP}c"), "after all of them");
    }
}

/// Checks that the host still follows.
fn check(cluster: &Cluster, host: &mut Host) {
    cluster.put(&format!("{GROUP}c"), "after");
    host.wait_for_record(&format!("{GROUP}c"), "after");
}
