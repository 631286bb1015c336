//! What knock-user reads of its host: interfaces, clocks, sockets.

use std::{
    net::{IpAddr, TcpListener},
    process::Command,
    time::Duration,
};

use knock_tests::{
    binary::binaries,
    daemon::{Daemon, ask, config_file},
    namespace::{Namespace, text},
    net::{self, Family, SERVER_LINK},
    pins::attached_programs,
    process::Process,
    server::Server,
    source::Source,
    ssh::{DOOR, KNOCKS, SSH},
    wait,
};
use knock_user::host::{self, addresses::Link};

#[test]
fn interfaces_are_listed_with_kind_state_and_addresses() {
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

#[test]
fn a_shifted_boot_clock_is_refused() {
    let config = config_file(DOOR.as_bytes());
    let path = config.path().display().to_string();
    let start = ["--config", &path, "--iface", SERVER_LINK];
    for (boottime, expected) in [
        (
            "86400",
            "this time namespace's boot clock is 86400 s ahead of the host's",
        ),
        (
            "-1",
            "this time namespace's boot clock is 1 s behind the host's",
        ),
    ] {
        for confirm in [&[][..], &["--confirm", "60s"]] {
            net::test(|net| {
                let arguments = [&start, confirm].concat();
                let mut command = in_time_namespace("0", boottime, &arguments);
                let ended = Process::start(&net.server, &mut command).wait();
                let output = ended.stderr;
                assert_eq!(ended.status.code(), Some(1), "{boottime}: {output}");
                for words in [expected, "nsenter --time=/proc/1/ns/time"] {
                    assert!(
                        output.contains(words),
                        "{boottime}: no {words:?} in {output}"
                    );
                }
                assert!(attached_programs(&net.server).is_empty(), "{boottime}");
            });
        }
    }
}

#[test]
fn a_shifted_monotonic_clock_does_no_harm() {
    let config = config_file(DOOR.as_bytes());
    let path = config.path().display().to_string();
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let arguments = ["--config", &path, "--iface", SERVER_LINK];
        let process = Process::start(
            &net.server,
            &mut in_time_namespace("86400", "0", &arguments),
        );
        let source = net.new_source(Family::V4);
        wait::until("tcp/22 is protected", || {
            process
                .stdout()
                .iter()
                .any(|line| line.contains("protecting"))
        });
        source.finds_closed(SSH, "before the knocks");
        source.knock(KNOCKS);
        source.finds_open(SSH, "after the knocks");
        // unshare(1) passes no signals on.
        let (code, output) = ask(&net.server, &["detach"]);
        assert_eq!(code, Some(0), "{output}");
        process.wait();
    });
}

#[test]
fn grants_are_not_shown_by_a_shifted_boot_clock() {
    net::test(|net| {
        let daemon = Daemon::start(&net.server, DOOR);
        daemon.kill();
        for ask in ["status", "list"] {
            let mut command = in_time_namespace("0", "86400", &[ask]);
            let output = net.server.enter(|| command.output()).unwrap();
            let printed = text(&output);
            assert_eq!(output.status.code(), Some(1), "{ask}: {printed}");
            assert!(
                printed.contains("86400 s ahead of the host's"),
                "{ask}: {printed}"
            );
        }
        let mut command = in_time_namespace("0", "86400", &["detach"]);
        let output = net.server.enter(|| command.output()).unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", text(&output));
        assert!(attached_programs(&net.server).is_empty());
    });
}

/// A service that begins later, and one that ends.
#[test]
fn ports_that_start_or_stop_being_served_are_followed() {
    const SERVED: &str = "tcp/7000 tcp/8443 udp/8000 tcp/9000";
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let daemon = Daemon::start(&net.server, &format!("{DOOR}\nopen_for = \"1s\"\n"));
        let source = net.new_source(Family::V4);
        let gets_in = |source: &Source<'_>| {
            source.knock(SERVED);
            source.connect(SSH, Duration::from_millis(200)).is_ok()
        };
        assert!(!gets_in(&source), "nothing listens on tcp/8443");
        let listen = |port| {
            net.server
                .enter(|| TcpListener::bind(("0.0.0.0", port)))
                .unwrap()
        };
        let service = listen(8443);
        wait::until("tcp/8443 is exempt", || gets_in(&source));
        // Knock ports and protected ports stay so.
        let _knock = listen(7000);
        drop(service);
        wait::until("tcp/8443 is not exempt", || !gets_in(&source));
        net.new_source(Family::V4).finds_closed(SSH, "protected");
        net.new_source(Family::V4)
            .finds_closed(7000, "a knock port");
        let last = net.new_source(Family::V4);
        last.knock(KNOCKS);
        last.finds_open(SSH, "after the knocks");
        daemon.stop();
    });
}

fn links(namespace: &Namespace) -> Vec<Link> {
    match namespace.enter(host::links) {
        Ok(links) => links,
        Err(error) => panic!("listing interfaces: {error:#}"),
    }
}

/// Returns a command in a time namespace whose clocks differ from the host's by this many seconds.
fn in_time_namespace(monotonic: &str, boottime: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new("unshare");
    command
        .args(["--time", "--fork", "--kill-child"])
        .args([
            format!("--monotonic={monotonic}"),
            format!("--boottime={boottime}"),
        ])
        .arg(&binaries().user)
        .args(arguments);
    command
}
