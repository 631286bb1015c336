//! What knock-user finds out about the host that it runs on.

use std::net::IpAddr;

use knock_tests::namespace::Namespace;
use knock_user::host::{self, Link};

fn links(namespace: &Namespace) -> Vec<Link> {
    match namespace.enter(host::links) {
        Ok(links) => links,
        Err(error) => panic!("listing interfaces: {error:#}"),
    }
}

#[test]
fn interfaces_with_their_addresses() {
    struct Row {
        name: &'static str,
        kind: &'static str,
        up: bool,
        ethernet: bool,
        is_exposed: bool,
        master: Option<&'static str>,
        altnames: &'static [&'static str],
        addresses: &'static [&'static str],
    }
    let namespace = Namespace::new("facts");
    namespace.sysctl("ipv6/conf/default/addr_gen_mode", "1");
    namespace.ip_batch(
        "link add up0 type veth peer name up1
         link set up1 up
         link property add dev up0 altname enp6s18
         link set up0 up
         address add 192.0.2.1/24 dev up0
         address add 2001:db8::1/64 dev up0 nodad
         link add down0 type veth peer name down1
         address add 198.51.100.1/24 dev down0
         link add bridge0 type bridge
         link set bridge0 up
         address add 203.0.113.1/24 dev bridge0
         link add port0 type veth peer name port1
         link set port0 master bridge0 up
         tuntap add tun0 mode tun
         link set tun0 up
         address add 10.0.0.1 peer 10.0.0.2 dev tun0",
    );
    let rows = [
        Row {
            name: "up0",
            kind: "veth",
            up: true,
            ethernet: true,
            is_exposed: true,
            master: None,
            altnames: &["enp6s18"],
            addresses: &["192.0.2.1", "2001:db8::1"],
        },
        Row {
            name: "down0",
            kind: "veth",
            up: false,
            ethernet: true,
            is_exposed: false,
            master: None,
            altnames: &[],
            addresses: &["198.51.100.1"],
        },
        Row {
            name: "bridge0",
            kind: "bridge",
            up: true,
            ethernet: true,
            is_exposed: true,
            master: None,
            altnames: &[],
            addresses: &["203.0.113.1"],
        },
        Row {
            name: "port0",
            kind: "veth",
            up: true,
            ethernet: true,
            is_exposed: false,
            master: Some("bridge0"),
            altnames: &[],
            addresses: &[],
        },
        Row {
            name: "tun0",
            kind: "tun",
            up: true,
            ethernet: false,
            is_exposed: true,
            master: None,
            altnames: &[],
            // This host's end, not the other one.
            addresses: &["10.0.0.1"],
        },
    ];
    let links = links(&namespace);
    for row in rows {
        let Some(link) = links.iter().find(|link| link.is_called(row.name)) else {
            panic!("no {} in {links:?}", row.name);
        };
        let master = link.master.and_then(|index| {
            let master = links.iter().find(|link| link.index == index);
            master.map(|master| master.name.as_str())
        });
        let name = row.name;
        assert_eq!(link.kind.as_deref(), Some(row.kind), "{name}");
        assert_eq!(link.up, row.up, "{name}");
        assert_eq!(link.ethernet, row.ethernet, "{name}");
        assert_eq!(link.is_exposed(), row.is_exposed, "{name}: {link:?}");
        assert_eq!(master, row.master, "{name}");
        assert_eq!(link.altnames, row.altnames, "{name}");
        let addresses = row.addresses.iter().map(|address| address.parse());
        let addresses: Result<Vec<IpAddr>, _> = addresses.collect();
        assert_eq!(Ok(&link.addresses), addresses.as_ref(), "{name}");
    }
}
