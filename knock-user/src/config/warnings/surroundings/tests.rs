//! Tests of warnings about the surroundings of a host.

use knock_common::packet::Protocol;

use super::*;
use crate::{config, host::Reading};

fn link(name: &str, index: u32, addresses: &[&str]) -> Link {
    Link {
        name: name.to_owned(),
        index,
        up: true,
        ethernet: true,
        addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
        ..Link::default()
    }
}

fn of_kind(kind: &str, link: Link) -> Link {
    Link {
        kind: Some(kind.to_owned()),
        ..link
    }
}

fn tcp(port: u16) -> Knock {
    Knock {
        protocol: Protocol::Tcp,
        port,
    }
}

fn translation(from: u16, to: Option<&str>, port: u16) -> Translation {
    Translation {
        from: Ports::tcp(from),
        to: to.map(|to| to.parse().unwrap()),
        port: Some((port, port)),
    }
}

/// Returns a host with a bridge, a bond, a VLAN, a tap and translated ports.
fn host() -> Host {
    Host {
        served: BTreeSet::from([tcp(22), tcp(443)]),
        links: vec![
            link("eth0", 1, &["192.0.2.1"]),
            link("eth1", 2, &["198.51.100.1", "2001:db8::1"]),
            Link {
                carrier: Some(1),
                ..of_kind("vlan", link("eth0.7", 3, &["203.0.113.1"]))
            },
            of_kind("bridge", link("br0", 4, &["10.0.0.1"])),
            Link {
                master: Some(4),
                ..link("eth2", 5, &[])
            },
            Link {
                master: Some(7),
                ..link("eth3", 6, &[])
            },
            of_kind("bond", link("bond0", 7, &[])),
            of_kind("tun", link("tap0", 8, &[])),
        ],
        rules: Reading::of(vec![
            translation(8080, Some("172.17.0.2"), 80),
            translation(2222, None, 22),
            translation(8443, Some("172.17.0.3"), 443),
            Translation {
                from: Ports {
                    protocol: Protocol::Tcp,
                    first: 9000,
                    last: 9010,
                },
                to: None,
                port: Some((7070, 7080)),
            },
            Translation {
                from: Ports::tcp(7071),
                to: Some("172.17.0.4".parse().unwrap()),
                port: None,
            },
        ]),
        ..Host::default()
    }
}

#[test]
fn a_host_gets_the_warnings_that_apply_to_it() {
    let door = |keys: &str| {
        format!(
            "[[door]]\nname = \"d\"\nknock = [\"tcp/7000\", \"tcp/9000\", \"tcp/8000\"]\n{keys}"
        )
    };
    let ssh = door("open = [\"tcp/5432\"]");
    let all = ["eth0", "eth1", "br0"];
    let rows: [(&str, String, &[&str], &[&str]); 12] = [
        ("all is protected", ssh.clone(), &all, &[]),
        ("no interface is named", ssh.clone(), &[], &[]),
        (
            "one interface",
            ssh.clone(),
            &["eth0"],
            &[
                "not protected: eth1 (198.51.100.1, 2001:db8::1), br0 (10.0.0.1); clients need no \
                 knock there",
            ],
        ),
        (
            "a VLAN without what carries it",
            ssh.clone(),
            &["eth1", "br0"],
            &[
                "not protected: eth0 (192.0.2.1), eth0.7 (203.0.113.1); clients need no \
                 knock there",
            ],
        ),
        (
            "the port of a bridge",
            ssh.clone(),
            &["eth0", "eth1", "eth2"],
            &["eth2 is a port of the bridge br0, so packets that it only forwards"],
        ),
        (
            "the port of a bond",
            ssh.clone(),
            &["eth0", "eth1", "br0", "eth3"],
            &["eth3 is a port of bond0, and packets that arrive on its other ports"],
        ),
        (
            "a tap",
            ssh.clone(),
            &["eth0", "eth1", "br0", "tap0"],
            &["tap0 is a tap, usually the network card of a virtual machine"],
        ),
        (
            "a target of another host",
            door("open = [\"tcp/5432\"]\ntarget = \"192.0.2.9\""),
            &all,
            &[
                "this host does not have the address 192.0.2.9, so no client can open the \
                 door: name",
            ],
        ),
        (
            "a target of this host",
            door("open = [\"tcp/5432\"]\ntarget = \"192.0.2.1\""),
            &all,
            &[],
        ),
        (
            "a container's port",
            door("open = [\"tcp/80\"]"),
            &all,
            &[
                "no service listens on tcp/80 here; tcp/8080 is translated to tcp/80 of \
                 172.17.0.2, after packets were filtered, so tcp/8080 is open: protect that \
                 port",
            ],
        ),
        (
            "a port of this host that has another number outside, and one of the same number \
             in a container",
            door("open = [\"tcp/22\", \"tcp/443\"]"),
            &all,
            &["tcp/2222 is translated to tcp/22, after packets were filtered"],
        ),
        (
            "a range of ports",
            door("open = [\"tcp/7071\", \"tcp/9005\"]"),
            &all,
            &[
                "tcp/9000-9004 are translated to tcp/7070-7080, after packets were filtered, \
                 so tcp/9000-9004 are open: protect those ports",
                "tcp/9006-9010 are translated to tcp/7070-7080, after packets",
            ],
        ),
    ];
    for (name, text, interfaces, expected) in rows {
        let checked = config::parse(&text, "seq.toml").unwrap();
        let interfaces: Vec<String> = interfaces.iter().map(ToString::to_string).collect();
        let found = checked.surroundings(&host(), &interfaces);
        let found: Vec<&str> = found
            .iter()
            .map(|problem| problem.reason.as_str())
            .collect();
        assert_eq!(found.len(), expected.len(), "{name}: {found:#?}");
        for expected in expected {
            assert!(
                found.iter().any(|found| found.starts_with(expected)),
                "{name}: no {expected:?} in {found:#?}"
            );
        }
    }
}

#[test]
fn protected_ports_without_a_service_are_noted() {
    let rows = [
        ("\"tcp/22\"", None),
        ("\"tcp/20-30\"", None),
        (
            "\"tcp/22\", \"tcp/80\", \"udp/22\"",
            Some(
                "no service of this host listens on these protected ports now: tcp/80, \
                 udp/22",
            ),
        ),
    ];
    for (open, expected) in rows {
        let text = format!(
            "[[door]]\nname = \"d\"\nknock = [\"tcp/7000\", \"tcp/9000\", \"tcp/8000\"]\n\
             open = [{open}]\n"
        );
        let checked = config::parse(&text, "seq.toml").unwrap();
        let found = checked.unserved(&host()).map(|note| note.reason);
        let fits = match (&found, expected) {
            (Some(found), Some(expected)) => found.starts_with(expected),
            (found, expected) => found.is_none() && expected.is_none(),
        };
        assert!(fits, "{open}: {found:?}");
    }
}
