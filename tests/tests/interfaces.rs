//! Interfaces come, go and change their names while knock-user runs.

use std::{io::ErrorKind, time::Duration};

use knock_tests::{
    daemon::{self, Daemon, config_file},
    namespace::Namespace,
    net::{self, Family, Net, SERVER_LINK, SERVER_LINK_2},
    pins,
    process::Process,
    server::Server,
    source::Source,
    ssh::{DOOR, KNOCKS, SSH},
    stream::Stream,
    wait,
};
use nix::sys::signal::Signal;
use serde_json::json;

const BOTH: [&str; 4] = ["--iface", SERVER_LINK, "--iface", SERVER_LINK_2];

#[test]
fn an_interface_that_goes_down_and_up_stays_protected() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let daemon = Daemon::start(&net.server, DOOR);
        let source = net.new_source(Family::V4);
        source.knock(KNOCKS);
        source.finds(true, SSH, "knocked");
        for _ in 0..3 {
            net.server.ip_batch(&format!(
                "link set {SERVER_LINK} down
                 link set {SERVER_LINK} up
                 route replace 198.51.100.0/24 via 192.0.2.1
                 neighbour replace 192.0.2.1 lladdr 02:00:00:00:00:a0 dev {SERVER_LINK} nud permanent"
            ));
            carries_packets(source);
            source.finds(true, SSH, "still open");
            net.new_source(Family::V4).finds_closed(SSH, "still closed");
        }
        let late = net.new_source(Family::V4);
        late.knock(KNOCKS);
        late.finds(true, SSH, "knocked");
        daemon.wait_for_event(&json!({"event": "opened", "source": late.name()}));
        assert!(daemon.events_like(&json!({"event": "absent"})).is_empty());
        assert_eq!(daemon.events_like(&json!({"event": "protecting"})).len(), 1);
        daemon.stop();
    });
}

#[test]
fn a_deleted_interface_that_is_made_again_is_protected_again() {
    net::test(|net| {
        net.add_second_link();
        let _server = Server::tcp(&net.server, &[SSH]);
        let daemon = Daemon::start_with(&net.server, DOOR, &BOTH);
        let (client, stream) = connected_client(net);
        let protecting = json!({"event": "protecting", "interface": SERVER_LINK_2});
        let gone = json!({"event": "absent", "interface": SERVER_LINK_2});
        for count in 1..=3 {
            net.server.ip(&format!("link delete {SERVER_LINK_2}"));
            wait::until("it is reported", || {
                daemon.events_like(&gone).len() == count
            });
            stream.continues("the other one");
            net.new_source(Family::V4)
                .finds_closed(SSH, "the other one");
            net.add_second_link();
            wait::until("it is protected again", || {
                daemon.events_like(&protecting).len() == count + 1
            });
            carries_packets(elsewhere(net));
            elsewhere(net).finds_closed(SSH, "made again");
            client
                .to(Family::V4.second_server())
                .finds(true, SSH, "grants are shared");
            stream.continues("the other one");
        }
        stream.end();
        daemon.stop();
    });
}

/// Without a process, a new interface has no protection until the next start.
#[test]
fn an_interface_made_again_without_a_daemon_is_protected_by_the_next_start() {
    net::test(|net| {
        net.add_second_link();
        let _server = Server::tcp(&net.server, &[SSH]);
        let first = Daemon::start_with(&net.server, DOOR, &BOTH);
        let (client, stream) = connected_client(net);
        first.kill();
        net.server.ip(&format!("link delete {SERVER_LINK_2}"));
        stream.continues("the other one");

        // It existed before, so its absence is not an error of this start.
        let second = Daemon::start_with(&net.server, DOOR, &BOTH);
        second.wait_for_event(&json!({"event": "absent", "interface": SERVER_LINK_2}));
        second.kill();
        net.add_second_link();
        let third = Daemon::start_with(&net.server, DOOR, &BOTH);
        third.wait_for_event(&json!({"event": "protecting", "interface": SERVER_LINK_2}));
        carries_packets(elsewhere(net));
        elsewhere(net).finds_closed(SSH, "protected again");
        client
            .to(Family::V4.second_server())
            .finds(true, SSH, "grants are shared");
        stream.continues("the other one");
        stream.end();
        third.stop();
    });
}

#[test]
fn an_awaited_interface_is_protected_when_it_appears() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let arguments = [&BOTH[..], &["--wait-for-interfaces"]].concat();
        let daemon = Daemon::start_with(&net.server, DOOR, &arguments);
        daemon.wait_for_event(&json!({"event": "absent", "interface": SERVER_LINK_2}));
        let (client, stream) = connected_client(net);
        net.add_second_link();
        daemon.wait_for_event(&json!({"event": "protecting", "interface": SERVER_LINK_2}));
        carries_packets(elsewhere(net));
        elsewhere(net).finds_closed(SSH, "protected as soon as it appeared");
        client
            .to(Family::V4.second_server())
            .finds(true, SSH, "grants are shared");
        stream.continues("the first one");
        daemon.stop();
    });
}

/// A machine that starts before its network.
#[test]
fn a_start_waits_for_its_only_interface() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let config = config_file(DOOR.as_bytes());
        let mut command = daemon::command(&config);
        command.args(["--json", "--iface", SERVER_LINK_2, "--wait-for-interfaces"]);
        let process = Process::start(&net.server, &mut command);
        daemon::wait_for_event(
            &process,
            &json!({"event": "absent", "interface": SERVER_LINK_2}),
        );
        let (code, output) = daemon::ask(&net.server, &["status"]);
        assert_eq!(code, Some(1), "it is waited for: {output}");
        net.add_second_link();
        daemon::wait_for_event(
            &process,
            &json!({"event": "protecting", "interface": SERVER_LINK_2}),
        );
        carries_packets(elsewhere(net));
        elsewhere(net).finds_closed(SSH, "protected as soon as it appeared");
        let ended = process.stop(Signal::SIGINT);
        assert!(ended.status.success(), "{ended:?}");
        pins::nothing_is_left(&net.server, &[]);
    });
}

/// A renamed interface stays protected, and the new name is reported.
#[test]
fn a_renamed_interface_stays_protected() {
    let on = |names: &str, door: &str| format!("interfaces = [{names}]\n{door}");
    let both = |door: &str| on("\"b0\", \"b1\"", door);
    net::test(|net| {
        net.add_second_link();
        let _server = Server::tcp(&net.server, &[SSH]);
        let mut daemon = Daemon::start_with(&net.server, &both(DOOR), &[]);
        let (client, stream) = connected_client(net);
        let there = client.to(Family::V4.second_server());
        let stays = |row: &str| {
            carries_packets(elsewhere(net));
            elsewhere(net).finds_closed(SSH, row);
            there.finds(true, SSH, row);
        };
        rename(net, SERVER_LINK_2, "wan");
        wait_for_line(&daemon, &["b1 was renamed to wan"]);
        stays("another name");

        // A reload reaches it, also if it does not know the name.
        let other = DOOR.replace("7000", "7500");
        daemon.reload(&both(&other));
        stays("reloaded under the old name");
        let (_, status) = daemon::ask(&net.server, &["status"]);
        assert!(!status.contains("not protected: "), "{status}");
        let log = daemon.process().printed();
        assert!(!log.contains("not protected: wan"), "{log}");
        for (knocks, opens) in [(KNOCKS, false), ("tcp/7500 udp/8000 tcp/9000", true)] {
            let source = elsewhere(net);
            source.knock(knocks);
            source.finds(opens, SSH, knocks);
        }
        daemon.reload(&on("\"b0\", \"wan\"", &other));
        stays("reloaded under the new name");

        rename(net, "wan", SERVER_LINK_2);
        wait_for_line(&daemon, &["wan was renamed to b1"]);
        stays("the old name again");
        daemon.reload(&both(DOOR));
        stays("unchanged");
        assert!(daemon.events_like(&json!({"event": "absent"})).is_empty());
        assert!(daemon.events_like(&json!({"event": "detached"})).is_empty());
        stream.continues("the other one");
        stream.end();
        daemon.stop();
    });
}

/// The configuration has the name, so the interface that gets the name is protected.
#[test]
fn another_interface_that_gets_the_name_is_protected() {
    net::test(|net| {
        net.add_second_link();
        let _server = Server::tcp(&net.server, &[SSH]);
        let daemon = Daemon::start_with(&net.server, DOOR, &BOTH);
        rename(net, SERVER_LINK_2, "wan");
        wait_for_line(&daemon, &["b1 was renamed to wan"]);
        net.server
            .ip(&format!("link add {SERVER_LINK_2} type veth peer name x1"));
        daemon.wait_for_event(&json!({"event": "detached", "interface": "wan"}));
        let protecting = json!({"event": "protecting", "interface": SERVER_LINK_2});
        wait::until("it is protected", || {
            daemon.events_like(&protecting).len() == 2
        });
        carries_packets(elsewhere(net));
        elsewhere(net).finds(true, SSH, "as reported");
        daemon.stop();
    });
}

/// At a start the interface that has got the name is protected, and the one that lost it is reported as released.
#[test]
fn names_exchanged_without_a_daemon_are_followed_by_the_next_start() {
    net::test(|net| {
        net.add_second_link();
        let _server = Server::tcp(&net.server, &[SSH]);
        let arguments = ["--iface", SERVER_LINK_2, "--on-exit", "keep"];
        Daemon::start_with(&net.server, DOOR, &arguments).leave(Signal::SIGTERM);
        elsewhere(net).finds_closed(SSH, "kept");
        rename(net, SERVER_LINK_2, "wan");
        net.server
            .ip(&format!("link add {SERVER_LINK_2} type veth peer name x1"));
        let daemon = Daemon::start_with(&net.server, DOOR, &arguments);
        let protecting = daemon.wait_for_event(&json!({"event": "protecting"}));
        assert_eq!(protecting["interface"], SERVER_LINK_2, "{protecting}");
        assert!(protecting["current_name"].is_null(), "{protecting}");
        daemon.wait_for_event(&json!({"event": "detached", "interface": "wan"}));
        assert_eq!(pins::instance(&net.server).linked(), [SERVER_LINK_2]);
        elsewhere(net).finds(true, SSH, "as reported");
        daemon.leave(Signal::SIGTERM);
        let (code, output) = daemon::ask(&net.server, &["detach"]);
        assert_eq!(code, Some(0), "{output}");
    });
}

/// Kept protection under the old name is taken over under the new one, without a gap.
#[test]
fn an_interface_renamed_without_a_daemon_is_found_by_the_next_start() {
    net::test(|net| {
        net.add_second_link();
        let _server = Server::tcp(&net.server, &[SSH]);
        let named = |name| ["--iface", name, "--on-exit", "keep"];
        let daemon = Daemon::start_with(&net.server, DOOR, &named(SERVER_LINK_2));
        let client = elsewhere(net);
        client.knock(KNOCKS);
        client.finds(true, SSH, "before");
        daemon.leave(Signal::SIGTERM);
        rename(net, SERVER_LINK_2, "wan");
        let daemon = Daemon::start_with(&net.server, DOOR, &named("wan"));
        let protecting = daemon.wait_for_event(&json!({"event": "protecting"}));
        assert_eq!(protecting["interface"], "wan", "{protecting}");
        assert_eq!(pins::instance(&net.server).linked(), ["wan"]);
        elsewhere(net).finds_closed(SSH, "taken over");
        client.finds(true, SSH, "and the grant with it");
        daemon.leave(Signal::SIGTERM);
        elsewhere(net).finds_closed(SSH, "kept again");
        let (code, answer) = daemon::ask(&net.server, &["detach"]);
        assert_eq!(code, Some(0), "{answer}");
    });
}

/// One that may have either name, as before and after udev.
#[test]
fn a_rename_between_two_configured_names_keeps_the_protection() {
    net::test(|net| {
        net.add_second_link();
        let _server = Server::tcp(&net.server, &[SSH]);
        let arguments = [&BOTH[..], &["--iface", "wan", "--wait-for-interfaces"]].concat();
        let daemon = Daemon::start_with(&net.server, DOOR, &arguments);
        daemon.wait_for_event(&json!({"event": "absent", "interface": "wan"}));
        rename(net, SERVER_LINK_2, "wan");
        wait_for_line(&daemon, &["b1 was renamed to wan"]);
        net.server
            .ip(&format!("link add {SERVER_LINK_2} type veth peer name x1"));
        let protecting = json!({"event": "protecting", "interface": SERVER_LINK_2});
        wait::until("it is protected", || {
            daemon.events_like(&protecting).len() == 2
        });
        carries_packets(elsewhere(net));
        elsewhere(net).finds_closed(SSH, "under its new name");
        let mut linked = pins::instance(&net.server).linked();
        linked.sort();
        assert_eq!(linked, [SERVER_LINK, SERVER_LINK_2, "wan"]);
        assert!(daemon.events_like(&json!({"event": "detached"})).is_empty());
        daemon.stop();
    });
}

#[test]
fn an_interface_that_returns_from_another_namespace_is_protected_again() {
    net::test(|net| {
        net.add_second_link();
        let _server = Server::tcp(&net.server, &[SSH]);
        let daemon = Daemon::start_with(&net.server, DOOR, &BOTH);
        let (_, stream) = connected_client(net);
        let away = Namespace::new("away");
        net.server
            .ip(&format!("link set {SERVER_LINK_2} netns {}", away.name()));
        let absent = json!({"event": "absent", "interface": SERVER_LINK_2, "reason": "moved"});
        let event = daemon.wait_for_event(&absent);
        assert_eq!(event["ports"], json!(["tcp/22"]));
        stream.continues("the other one");
        away.ip(&format!(
            "link set {SERVER_LINK_2} netns {}",
            net.server.name()
        ));
        let protecting = json!({"event": "protecting", "interface": SERVER_LINK_2});
        wait::until("it is protected again", || {
            daemon.events_like(&protecting).len() == 2
        });
        stream.continues("the other one");
        daemon.stop();
    });
}

/// Returns a source that has not knocked, on the second link. Answers take the first link, and the client accepts them
/// there.
fn elsewhere(net: &Net) -> Source<'_> {
    net.new_source(Family::V4).to(Family::V4.second_server())
}

/// Waits until the server answers: an unused port refuses.
#[track_caller]
fn carries_packets(source: Source<'_>) {
    wait::until("the link carries packets", || {
        source
            .connect(81, Duration::from_millis(50))
            .is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
    });
}

/// Returns a source with a grant through the first link, and its connection.
#[track_caller]
fn connected_client(net: &Net) -> (Source<'_>, Stream) {
    let client = net.new_source(Family::V4);
    let connected = client.knock_and_connect(KNOCKS, SSH);
    let stream = Stream::begin(connected.unwrap_or_else(|error| panic!("{error}")));
    (client, stream)
}

/// Renames an interface of the server.
#[track_caller]
fn rename(net: &Net, from: &str, to: &str) {
    net.server.ip_batch(&format!(
        "link set {from} down
         link set {from} name {to}
         link set {to} up
         neighbour replace 192.0.2.129 lladdr 02:00:00:00:00:a1 dev {to} nud permanent"
    ));
}

#[track_caller]
fn wait_for_line(daemon: &Daemon, words: &[&str]) {
    wait::until(&format!("a line with {words:?}"), || {
        let output = daemon.process().printed();
        output
            .lines()
            .any(|line| words.iter().all(|word| line.contains(word)))
    });
}
