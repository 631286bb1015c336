//! The host's answer, as knock-client prints it.

use std::{
    fs,
    net::{IpAddr, UdpSocket},
    time::Duration,
};

use knock_common::reason::Reason;
use knock_sequence::spa::{Channel, DoorAction, DoorId, Request, with_noise};
use knock_tests::{
    binary::binaries,
    daemon::Daemon,
    namespace::text,
    net::{self, Family, Net},
    server::Server,
    ssh::SSH,
};

use crate::{
    paths::now,
    users::{DOORS, Users},
};

const PORT: u16 = 62_201;

const USERS: &[(&str, &str)] = &[
    ("alice", "doors = [\"ssh\"]"),
    ("bob", "doors = [\"wiki\"]"),
    ("carol", "doors = [\"ssh\"]\nuntil = 2026-01-01"),
    ("dave", "doors = [\"ssh\"]\nbind = true"),
];

#[test]
fn the_client_prints_what_the_host_did() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let users = Users::new();
        let daemon = Daemon::start(&net.server, &users.config("", USERS, DOORS));
        for family in Family::ALL {
            let (host, own) = (family.server().to_string(), family.client().to_string());
            let other = net.new_source(family).name();
            let source = net.native(family);
            for (row, user, words, code, expected) in [
                (
                    "open",
                    "alice",
                    &["--door", "ssh"][..],
                    0,
                    format!("the door ssh on {host} is open for 30s for {own} (tcp/22)"),
                ),
                (
                    "open again",
                    "alice",
                    &["--for", "5s"],
                    0,
                    format!("the door on {host} is open for 5s for {own} (tcp/22)"),
                ),
                (
                    "close",
                    "alice",
                    &["--close", "--door", "ssh"],
                    0,
                    format!("the door ssh on {host} is closed for {own}"),
                ),
                (
                    "another user's door",
                    "bob",
                    &["--door", "ssh"],
                    1,
                    format!("{host} does not open the door ssh for this key: "),
                ),
                (
                    "a door that does not exist",
                    "bob",
                    &["--door", "attic"],
                    1,
                    format!("{host} does not open the door attic for this key: "),
                ),
                (
                    "another address",
                    "alice",
                    &["--source", &other],
                    1,
                    format!(
                        "{host} opens the door only for the address that the packet comes from, which is {own} \
                         there and not {other}: send it again with --source {own}"
                    ),
                ),
                (
                    "an expired user",
                    "carol",
                    &[],
                    1,
                    format!("this key or its user has expired on {host}: "),
                ),
                (
                    "no address, where one is needed",
                    "dave",
                    &["--source", "::"],
                    1,
                    format!("{host} opens the door only for an address that the packet names: "),
                ),
                (
                    "an address",
                    "dave",
                    &["--source", &own],
                    0,
                    "the door on ".to_owned(),
                ),
                (
                    "and close it",
                    "dave",
                    &["--close"],
                    0,
                    "the door on ".to_owned(),
                ),
            ] {
                let output = users.client(&net.client, user, &[&[host.as_str()], words].concat());
                assert_eq!(output.status.code(), Some(code), "{row}: {}", text(&output));
                let printed = match code {
                    0 => &output.stdout,
                    _ => &output.stderr,
                };
                let printed = String::from_utf8_lossy(printed);
                let printed = printed.trim_start_matches("knock-client: ");
                assert!(printed.starts_with(&expected), "{row}: {printed}");
                source.finds(row.starts_with("open") || row == "an address", SSH, row);
            }
        }
        daemon.stop();
    });
}

#[test]
fn the_answer_names_the_port_to_connect_to() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let users = Users::new();
        let daemon = Daemon::start(&net.server, &users.config("", USERS, DOORS));
        for family in Family::ALL {
            let host = family.server().to_string();
            let printed = users.opens(&net.client, "alice", &[&host, "--then-connect", "reply"]);
            assert!(
                printed.contains(&format!("connected to tcp/22 on {host} ")),
                "{printed}"
            );
        }
        daemon.stop();
    });
}

/// A host opens for an address, and the next program may choose either family.
#[test]
fn dual_stack_opens_for_both_families() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let users = Users::new();
        let daemon = Daemon::start(&net.server, &users.config("", USERS, DOORS));
        let hosts = users.file("hosts");
        let lines = Family::ALL.map(|family| format!("{} gate.example\n", family.server()));
        fs::write(&hosts, lines.concat()).unwrap();
        // A name with two addresses, for this process alone.
        let script = format!(
            "mount -t tmpfs hosts /etc && echo hosts: files >/etc/nsswitch.conf && echo multi on >/etc/host.conf \
             && cp {} /etc/hosts && exec {} gate.example --dual-stack --spa {} --key {}",
            hosts.display(),
            binaries().client.display(),
            users.host,
            users.file("alice").display()
        );
        let output = net
            .client
            .try_run("unshare", &["--mount", "sh", "-c", &script]);
        assert!(output.status.success(), "{}", text(&output));
        for family in Family::ALL {
            let (host, own) = (family.server(), family.client());
            let line = format!("the door on {host} is open for 30s for {own} (tcp/22)");
            assert!(text(&output).contains(&line), "{}", text(&output));
            drop(net.native(family).finds_open(SSH, &family.to_string()));
        }
        daemon.stop();
    });
}

/// A packet under a key that the host does not know gets no answer, like noise.
#[test]
fn only_users_are_answered() {
    net::test(|net| {
        let users = Users::new();
        let daemon = Daemon::start(&net.server, &users.config("", USERS, DOORS));
        users.keygen("unknown");
        for family in Family::ALL {
            let host = family.server().to_string();
            let words = [&host, "--timeout", "300ms"];
            let output = users.client(&net.client, "unknown", &words);
            assert_eq!(output.status.code(), Some(1), "{}", text(&output));
            let expected = format!("no answer from udp/62201 on {host} within 300ms: ");
            assert!(text(&output).contains(&expected), "{}", text(&output));
        }
        daemon.stop();
    });
}

#[test]
fn a_packet_is_answered_once_with_the_hosts_time() {
    net::test(|net| {
        let users = Users::new();
        let daemon = Daemon::start(&net.server, &users.config("", USERS, DOORS));
        for family in Family::ALL {
            // A late packet is answered only if its stamp is greater than all earlier ones.
            let user = family.pick("alice", "bob");
            let private = users.private(user).parse().unwrap();
            let channel = Channel::new(&private, &users.host.parse().unwrap()).unwrap();
            let source = net.new_source(family);
            for (row, seconds, reason) in [
                ("200 s late", -200, Reason::SpaStale),
                ("now", 0, Reason::Opened),
            ] {
                let packet = channel.seal(&Request {
                    stamp: now().wrapping_add_signed(seconds * 1_000_000_000),
                    source: None,
                    door: DoorId::FIRST,
                    seconds: 0,
                    action: DoorAction::Open,
                    answer: true,
                });
                let datagram = with_noise(&packet);
                let answer = exchange(net, source.from, source.to, &datagram);
                let answer = answer.unwrap_or_else(|| panic!("{row}: no answer"));
                assert!(answer.len() <= datagram.len(), "{row}");
                let answer = channel.open_answer(&packet, &answer).unwrap();
                assert_eq!(answer.outcome, Some(reason), "{row}");
                assert_eq!(answer.source, source.from, "{row}");
                let ago = now().saturating_sub(answer.host_time);
                assert!(
                    ago < 60_000_000_000,
                    "{row}: the host's time is {ago} ns ago"
                );
                let copy = exchange(net, source.from, source.to, &datagram);
                assert_eq!(copy, None, "{row}: a copy");
            }
        }
        daemon.stop();
    });
}

/// Sends a datagram, and returns what comes back within a short time.
fn exchange(net: &Net, from: IpAddr, to: IpAddr, datagram: &[u8]) -> Option<Vec<u8>> {
    net.client.enter(|| {
        let socket = UdpSocket::bind((from, 0)).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(200)))
            .unwrap();
        socket.send_to(datagram, (to, PORT)).unwrap();
        let mut buffer = [0; 512];
        let length = socket.recv(&mut buffer).ok()?;
        Some(buffer[..length].to_vec())
    })
}
