//! Tests of the search for tracked connections.

use knock_common::layout::FLOWS_MAX;

use super::*;
use crate::{
    compile::{self, Input, stable_ids::StableIds},
    config,
    model::settings::Sequences,
};

const MOST: usize = FLOWS_MAX as usize / 2;

const CONFIG: &str = r#"
    [[door]]
    name = "web"
    knock = ["tcp/7000", "udp/40100", "tcp/9000"]
    open = ["tcp/8080", "udp/53"]
    [[door]]
    name = "proved"
    knock = ["tcp/7100", "tcp/40200", "tcp/9100"]
    open = ["tcp/2222"]
    verify = "handshake"
"#;

fn tables() -> Tables {
    let checked = config::parse(CONFIG, "test.toml").unwrap();
    let mut input = Input {
        host: &Host::default(),
        cell_key: [1; 12],
        known: &StableIds::default(),
        draw: &mut || 0,
        sequences: &Sequences::new(),
        before: None,
    };
    compile::compile(&checked.settings, &mut input).unwrap()
}

/// Returns a router: eth0 with a VLAN, the bridge of containers with a port whose peer has the number of
/// eth0 in its namespace, and a network that is not protected.
fn host() -> Host {
    let link = |name: &str, index, kind: Option<&str>, networks: &[&str]| Link {
        name: name.to_owned(),
        index,
        up: true,
        kind: kind.map(str::to_owned),
        addresses: networks
            .iter()
            .map(|network| network.split_once('/').unwrap().0.parse().unwrap())
            .collect(),
        networks: networks
            .iter()
            .map(|network| {
                let (address, bits) = network.split_once('/').unwrap();
                let bits = bits.parse().unwrap();
                Prefix {
                    bits,
                    ..Prefix::of(address.parse().unwrap())
                }
                .cleared()
            })
            .collect(),
        ..Link::default()
    };
    let vlan = Link {
        carrier: Some(2),
        ..link("eth0.7", 3, Some("vlan"), &["203.0.113.1/26"])
    };
    let port = Link {
        carrier: Some(2),
        master: Some(4),
        ..link("veth1", 5, Some("veth"), &[])
    };
    let bridge = link("docker0", 4, Some("bridge"), &["172.17.0.1/16"]);
    let uplink = ["192.0.2.2/24", "2001:db8::2/64"];
    Host {
        links: vec![
            link("eth0", 2, None, &uplink),
            vlan,
            bridge,
            port,
            link("eth1", 6, None, &["203.0.113.65/26"]),
        ],
        forwards: true,
        ..Host::default()
    }
}

fn end(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn connection(protocol: Protocol, first: [&str; 2], reply: [&str; 2]) -> TrackedConnection {
    let packets = |[source, target]: [&str; 2]| Packets {
        protocol,
        source: end(source),
        target: end(target),
    };
    TrackedConnection {
        first: packets(first),
        reply: packets(reply),
    }
}

/// Returns the flows that are found in a connection, as text.
fn found(
    interfaces: &[&str],
    before: &Judged,
    sockets: &[[&str; 2]],
    connection: TrackedConnection,
) -> (Vec<String>, u64) {
    let interfaces: Vec<_> = interfaces.iter().map(|name| (*name).to_owned()).collect();
    let search = Search::new(&host(), &interfaces, before, FLOWS_MAX);
    let sockets = sockets.iter().map(|[local, peer]| TcpConnection {
        local: end(local),
        peer: end(peer),
    });
    let tables = tables();
    let mut found = TrackedFlows::default();
    for packets in search.arriving(&connection, &sockets.collect()) {
        found.take(packets, &tables, MOST);
    }
    let flows = found.flows.iter().map(|flow| {
        let source = SocketAddr::new(flow.source.into(), flow.source_port);
        format!("{source} {}/{}", flow.protocol, flow.port)
    });
    (flows.collect(), found.at_knock_ports)
}

#[test]
fn connections_whose_packets_would_be_dropped_are_found() {
    use Protocol::{Tcp, Udp};
    const CLIENT: &str = "198.51.100.1:40000";
    const HERE: &str = "192.0.2.2:8080";
    const CONTAINER: &str = "172.17.0.2:80";
    let none: &[[&str; 2]] = &[];
    let published = connection(Tcp, [CLIENT, HERE], [CONTAINER, CLIENT]);
    let in_tcp = format!("{CLIENT} {}/8080", Tcp as u16);
    let in_udp = format!("{CLIENT} {}/53", Udp as u16);
    let dns = ["192.0.2.2:53", "172.17.0.2:5353"];
    let own = connection(Tcp, [CLIENT, HERE], [HERE, CLIENT]);
    let redirected = connection(
        Tcp,
        [CLIENT, "192.0.2.2:2222"],
        ["192.0.2.2:22", "198.51.100.1:40000"],
    );
    // What a container sends to a server, whose replies come to a port of this host.
    let outward = |protocol, port: u16| {
        connection(
            protocol,
            ["172.17.0.2:5000", "198.51.100.1:443"],
            ["198.51.100.1:443", &format!("192.0.2.2:{port}")],
        )
    };
    for (name, sockets, connection, expected, at_knock_ports) in [
        ("published", none, published, Some(in_tcp.as_str()), 0),
        (
            "published, IPv6",
            none,
            connection(
                Tcp,
                ["[2001:db8:a::1]:40000", "[2001:db8::2]:8080"],
                ["[fd00::2]:80", "[2001:db8:a::1]:40000"],
            ),
            Some(&*format!("[2001:db8:a::1]:40000 {}/8080", Tcp as u16)),
            0,
        ),
        (
            "published datagrams",
            none,
            connection(Udp, [CLIENT, dns[0]], [dns[1], CLIENT]),
            Some(&in_udp),
            0,
        ),
        (
            "published, with the source masqueraded",
            none,
            connection(Tcp, [CLIENT, HERE], [CONTAINER, "172.17.0.1:50000"]),
            Some(&in_tcp),
            0,
        ),
        (
            "routed without translation",
            none,
            connection(Tcp, [CLIENT, "10.1.1.1:8080"], ["10.1.1.1:8080", CLIENT]),
            Some(&in_tcp),
            0,
        ),
        (
            "another port",
            none,
            connection(Tcp, [CLIENT, "192.0.2.2:80"], [CONTAINER, CLIENT]),
            None,
            0,
        ),
        (
            "another protocol",
            none,
            connection(Udp, [CLIENT, HERE], [CONTAINER, CLIENT]),
            None,
            0,
        ),
        (
            "of a VLAN on the interface",
            none,
            connection(
                Tcp,
                ["203.0.113.9:40000", HERE],
                [CONTAINER, "203.0.113.9:40000"],
            ),
            Some(&*format!("203.0.113.9:40000 {}/8080", Tcp as u16)),
            0,
        ),
        (
            "through another interface",
            none,
            connection(
                Tcp,
                ["203.0.113.99:40000", HERE],
                [CONTAINER, "203.0.113.99:40000"],
            ),
            None,
            0,
        ),
        (
            "from a container to a protected port elsewhere",
            none,
            connection(
                Tcp,
                ["172.17.0.2:5000", "198.51.100.1:8080"],
                ["198.51.100.1:8080", "192.0.2.2:5000"],
            ),
            None,
            0,
        ),
        (
            "from a container, with a protected port",
            none,
            outward(Tcp, 8080),
            Some(&*format!("198.51.100.1:443 {}/8080", Tcp as u16)),
            0,
        ),
        (
            "from a container, with a protected UDP port",
            none,
            outward(Udp, 53),
            Some(&*format!("198.51.100.1:443 {}/53", Udp as u16)),
            0,
        ),
        (
            "from a container, with a UDP knock port",
            none,
            outward(Udp, 40_100),
            None,
            1,
        ),
        (
            "from a container, with a TCP knock port",
            none,
            outward(Tcp, 7000),
            None,
            0,
        ),
        (
            "from a container, with a knock port that takes handshakes",
            none,
            outward(Tcp, 40_200),
            None,
            1,
        ),
        ("own, ended", none, own, None, 0),
        ("own, alive", &[[HERE, CLIENT]][..], own, Some(&in_tcp), 0),
        (
            "own datagrams",
            none,
            connection(Udp, [CLIENT, dns[0]], [dns[0], CLIENT]),
            Some(&in_udp),
            0,
        ),
        (
            "redirected to an own port",
            &[["192.0.2.2:22", CLIENT]][..],
            redirected,
            Some(&*format!("{CLIENT} {}/2222", Tcp as u16)),
            0,
        ),
        ("redirected, ended", none, redirected, None, 0),
        (
            "outward from this host, with a protected port",
            &[[HERE, "198.51.100.1:443"]][..],
            connection(Tcp, [HERE, "198.51.100.1:443"], ["198.51.100.1:443", HERE]),
            Some(&*format!("198.51.100.1:443 {}/8080", Tcp as u16)),
            0,
        ),
        (
            "of this host with its container",
            none,
            connection(
                Tcp,
                ["172.17.0.1:8080", CONTAINER],
                [CONTAINER, "172.17.0.1:8080"],
            ),
            None,
            0,
        ),
    ] {
        let expected = (
            expected.map(str::to_owned).into_iter().collect(),
            at_knock_ports,
        );
        let actual = found(&["eth0"], &Judged::default(), sockets, connection);
        assert_eq!(actual, expected, "{name}");
    }
}

/// A reload and a takeover record only what no program judged before: a flow that has expired does
/// not return.
#[test]
fn only_newly_judged_connections_are_found() {
    let ports = |ports: &[&str]| ports.iter().map(|ports| ports.parse().unwrap()).collect();
    let judged = |interfaces: &[&str], protected: &[&str]| Judged {
        interfaces: interfaces
            .iter()
            .map(|name| (if *name == "eth1" { 6 } else { 2 }, (*name).to_owned()))
            .collect(),
        ports: ports(protected),
    };
    let from = |source: &str| {
        let container = "172.17.0.2:80";
        let here = "192.0.2.2:8080";
        connection(Protocol::Tcp, [source, here], [container, source])
    };
    let near = "192.0.2.9:40000";
    let far = "203.0.113.99:40000";
    for (name, interfaces, before, source, is_found) in [
        ("a first start", &["eth0"][..], judged(&[], &[]), near, true),
        (
            "a restart",
            &["eth0"],
            judged(&["eth0"], &["tcp/8080", "udp/53"]),
            near,
            false,
        ),
        (
            "the port is new",
            &["eth0"],
            judged(&["eth0"], &["tcp/8079", "tcp/8081"]),
            near,
            true,
        ),
        (
            "another port is new",
            &["eth0"],
            judged(&["eth0"], &["tcp/8080"]),
            near,
            false,
        ),
        (
            "the interface is new",
            &["eth0", "eth1"],
            judged(&["eth0"], &["tcp/8080"]),
            far,
            true,
        ),
        (
            "another interface is new",
            &["eth0", "eth1"],
            judged(&["eth0"], &["tcp/8080"]),
            near,
            false,
        ),
        (
            "the interface was renamed",
            &["eth0"],
            judged(&["lan0"], &["tcp/8080"]),
            near,
            false,
        ),
        (
            "another interface has taken its name",
            &["eth0", "eth1"],
            Judged {
                interfaces: [(2, "eth1".to_owned())].into(),
                ports: ports(&["tcp/8080"]),
            },
            far,
            true,
        ),
        (
            "a port is new on an interface that was renamed",
            &["lan0"],
            judged(&["lan0"], &["tcp/8081"]),
            near,
            true,
        ),
        (
            "the program was lost",
            &["eth0"],
            judged(&[], &["tcp/8080"]),
            near,
            true,
        ),
    ] {
        let (flows, _) = found(interfaces, &before, &[], from(source));
        assert_eq!(!flows.is_empty(), is_found, "{name}: {flows:?}");
    }
}

#[test]
fn what_is_cut_is_reported() {
    let found = TrackedFlows {
        left_out: 1,
        at_knock_ports: 2,
        is_cut_short: true,
        ..TrackedFlows::default()
    };
    let warnings = found.warnings(MOST).join("\n");
    for words in [
        "1 connection to protected ports",
        "not all listed within 5 s",
        "packets of 2 existing connections arrive at knock ports",
    ] {
        assert!(warnings.contains(words), "no {words:?} in {warnings}");
    }
    assert_eq!(TrackedFlows::default().warnings(MOST), [] as [&str; 0]);
    let error = anyhow::anyhow!("the kernel refuses over netlink: no");
    for (tracked, words) in [
        (Some(12), "tracks 12 connections,"),
        (None, "tracks connections,"),
    ] {
        let warning = unreadable(&error, tracked);
        assert!(warning.contains(words), "no {words:?} in {warning}");
    }
    let warning = unreadable(&error, Some(1));
    for words in [
        "tracks 1 connection,",
        "netlink: no",
        "nf_conntrack_netlink",
    ] {
        assert!(warning.contains(words), "no {words:?} in {warning}");
    }
}

#[test]
fn no_more_are_recorded_than_half_of_the_table_holds() {
    let tables = tables();
    let mut found = TrackedFlows::default();
    let packets = Packets {
        protocol: Protocol::Tcp,
        source: end("198.51.100.1:40000"),
        target: end("192.0.2.2:8080"),
    };
    for _ in 0..MOST + 3 {
        found.take(packets, &tables, MOST);
    }
    assert_eq!((found.flows.len(), found.left_out), (MOST, 3));
}
