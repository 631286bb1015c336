//! Which interfaces are taken: asked at the start, and of whatever appears, changes or is tried
//! again later. No interface through which packets pass unjudged is reported as protected.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails with the test")]

use std::process::Command;

use aya::programs::XdpMode;
use knock_tests::{
    daemon::{self, Daemon, config_file},
    kernel,
    namespace::Namespace,
    net::{self, Family, Net, SERVER_LINK, SERVER_LINK_2},
    pins::{self, attached_programs},
    process::Process,
    server::Server,
    source::Source,
    ssh::{DOOR, KNOCKS, SSH},
    wait,
};
use knock_user::{
    host::interface,
    kernel::{
        program::{LoadOptions, XdpProgram},
        tcx,
    },
};
use nix::sys::signal::Signal::SIGTERM;
use serde_json::{Value, json};

/// Kinds of interfaces, the command that creates one named t0, the reason if it is refused, and whether
/// every kernel has the kind.
const KINDS: [(&str, &str, Option<&str>, bool); 19] = [
    ("tun", "tuntap add t0 mode tun", None, true),
    ("tap", "tuntap add t0 mode tap", None, true),
    ("veth", "link add t0 type veth peer name p0", None, true),
    ("bridge", "link add t0 type bridge", None, true),
    ("vlan", "link add t0 link b1 type vlan id 5", None, false),
    ("macvlan", "link add t0 link b1 type macvlan", None, false),
    (
        "vxlan",
        "link add t0 type vxlan id 5 dstport 4789 remote 192.0.2.1",
        None,
        true,
    ),
    ("ifb", "link add t0 type ifb", Some("behind-xdp"), true),
    (
        "vrf",
        "link add t0 type vrf table 5",
        Some("behind-xdp"),
        false,
    ),
    (
        "ipvlan l2",
        "link add t0 link b1 type ipvlan mode l2",
        None,
        false,
    ),
    (
        "ipvlan l3s",
        "link add t0 link b1 type ipvlan mode l3s",
        Some("behind-xdp"),
        false,
    ),
    ("dummy", "link add t0 type dummy", None, false),
    ("bond", "link add t0 type bond", None, false),
    ("wireguard", "link add t0 type wireguard", None, false),
    (
        "ipip",
        "link add t0 type ipip local 192.0.2.2 remote 192.0.2.1",
        None,
        false,
    ),
    (
        "sit",
        "link add t0 type sit local 192.0.2.2 remote 192.0.2.1",
        None,
        false,
    ),
    (
        "gre",
        "link add t0 type gre local 192.0.2.2 remote 192.0.2.1",
        None,
        false,
    ),
    (
        "gretap",
        "link add t0 type gretap local 192.0.2.2 remote 192.0.2.1",
        None,
        false,
    ),
    ("xfrm", "link add t0 type xfrm dev b1 if_id 5", None, false),
];

#[test]
fn an_interface_that_appears_is_checked() {
    net::test(|net| {
        net.add_second_link();
        let _server = Server::tcp(&net.server, &[SSH]);
        let arguments = [
            "--iface",
            SERVER_LINK,
            "--iface",
            "t0",
            "--wait-for-interfaces",
        ];
        let daemon = Daemon::start_with(&net.server, DOOR, &arguments);
        let refused = json!({"event": "refused", "interface": "t0"});
        let protecting = json!({"event": "protecting", "interface": "t0"});
        for (kind, make, refusal, must_be_there) in KINDS {
            let words: Vec<_> = ["-n", net.server.name()]
                .into_iter()
                .chain(make.split(' '))
                .collect();
            let made = Command::new("ip").args(&words).output().unwrap();
            if !made.status.success() {
                let why = String::from_utf8_lossy(&made.stderr);
                assert!(!must_be_there, "{kind}: {why}");
                eprintln!("this kernel has no {kind}: {why}");
                continue;
            }
            net.server.ip("link set t0 up");
            let pattern = if refusal.is_some() {
                &refused
            } else {
                &protecting
            };
            let before = daemon.events_like(pattern).len();
            let is_first = before == 0;
            wait_for_events(&daemon, pattern, if is_first { 1 } else { before });
            wait::until(&format!("{kind} is judged"), || {
                let status = status(&net.server, "t0");
                status["attached"] == refusal.is_none()
                    && status.get("because").is_some() == refusal.is_some()
            });
            let status = status(&net.server, "t0");
            if let Some(reason) = refusal {
                let last = daemon.events_like(&refused).pop().unwrap();
                assert_eq!(last["reason"], reason, "{kind}: {last}");
                assert_eq!(last["because"], status["because"], "{kind}");
                assert_eq!(attached_programs(&net.server).len(), 1, "{kind}");
            } else {
                assert_eq!(attached_programs(&net.server).len(), 2, "{kind}");
            }
            net.new_source(Family::V4)
                .finds_closed(SSH, &format!("beside {kind}"));
            let gone = daemon
                .events_like(&json!({"event": "absent", "interface": "t0"}))
                .len();
            net.server.ip("link delete t0");
            if refusal.is_none() {
                wait_for_events(
                    &daemon,
                    &json!({"event": "absent", "interface": "t0"}),
                    gone + 1,
                );
            }
            wait::until(&format!("{kind} is gone"), || {
                crate::status(&net.server, "t0")["because"] == "there is no such interface"
            });
        }
        daemon.stop();
    });
}

/// A start fails with an error that names all of them, and attaches nothing.
#[test]
fn a_start_names_every_interface_it_cannot_protect() {
    net::test(|net| {
        net.add_second_link();
        net.server.ip("link add t0 type ifb");
        let others = foreign(&net.server, SERVER_LINK_2, XdpMode::Skb);
        let config = config_file(DOOR.as_bytes());
        let mut command = daemon::command(&config);
        for name in [SERVER_LINK, SERVER_LINK_2, "t0", "etho"] {
            command.args(["--iface", name]);
        }
        let ended = Process::start(&net.server, &mut command).wait();
        assert_eq!(ended.status.code(), Some(1), "{ended:?}");
        for line in [
            "b1 has the program of another knock-user",
            "t0 is of kind ifb: packets get to it behind XDP",
            "there is no interface etho",
        ] {
            assert!(ended.stderr.contains(line), "no {line:?} in {ended:?}");
        }
        assert_eq!(
            attached_programs(&net.server).len(),
            1,
            "only the other one"
        );
        assert_eq!(pins::instances(&net.server), []);
        drop(others);
    });
}

/// The interface appears late with a foreign program in any mode. The kernel does not report when that program is
/// removed.
#[test]
fn an_interface_is_protected_when_its_foreign_program_is_gone() {
    for mode in [XdpMode::Skb, XdpMode::Driver] {
        net::test(|net| {
            let _server = Server::tcp(&net.server, &[SSH]);
            // `auto` would attach behind the foreign program.
            let arguments = ["--iface", "b0", "--iface", "b1", "--wait-for-interfaces"];
            let config = format!("mode = \"skb\"\n{DOOR}");
            let daemon = Daemon::start_with(&net.server, &config, &arguments);
            net.add_second_link();
            let protecting = json!({"event": "protecting", "interface": "b1"});
            wait_for_events(&daemon, &protecting, 1);
            // It is renamed once it has the program.
            net.server.ip_batch("link set b1 down\nlink set b1 name x1");
            daemon.process();
            net.server.ip("link delete x1");
            daemon.wait_for_event(&json!({"event": "absent", "interface": "b1"}));
            net.client.ip(&format!(
                "link add a1 address 02:00:00:00:00:a1 type veth \
                 peer name x1 address 02:00:00:00:00:b1 netns {}",
                net.server.name()
            ));
            let others = foreign(&net.server, "x1", mode);
            net.server.ip_batch(
                "link set x1 name b1
                 address add 192.0.2.130/25 dev b1
                 link set b1 up
                 neighbour replace 192.0.2.129 lladdr 02:00:00:00:00:a1 dev b1 nud permanent",
            );
            net.client.ip_batch(
                "address add 192.0.2.129/25 dev a1
                 link set a1 up
                 neighbour replace 192.0.2.130 lladdr 02:00:00:00:00:b1 dev a1 nud permanent",
            );
            let refused = json!({"event": "refused", "interface": "b1", "reason": "occupied"});
            daemon.wait_for_event(&refused);
            let because = status(&net.server, "b1")["because"].to_string();
            assert!(because.contains("another XDP program"), "{because}");
            net.new_source(Family::V4)
                .finds_closed(SSH, "the other one");
            drop(others);
            wait_for_events(&daemon, &protecting, 2);
            let source = elsewhere(net);
            source.finds_closed(SSH, "taken");
            assert_eq!(daemon.events_like(&refused).len(), 1, "reported once");
            daemon.stop();
        });
    }
}

/// Its neighbour is protected, and a reload can be made, while one is refused.
#[test]
fn a_reload_succeeds_while_one_interface_is_refused() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let named = |names: &str, door: &str| format!("interfaces = [{names}]\n{door}");
        let config = named("\"b0\", \"t0\"", DOOR);
        let mut daemon = Daemon::start_with(&net.server, &config, &["--wait-for-interfaces"]);
        net.server.ip("link add t0 type ifb");
        daemon.wait_for_event(&json!({"event": "refused", "interface": "t0"}));
        let other = DOOR.replace("7000", "7500");
        daemon.reload(&named("\"b0\", \"t0\"", &other));
        let source = net.new_source(Family::V4);
        source.knock("tcp/7500 udp/8000 tcp/9000");
        source.finds(true, SSH, "reloaded");
        assert_eq!(status(&net.server, "t0")["attached"], false);
        daemon.stop();
    });
}

/// No interface was protected, so no end is reported, however the process ends.
#[test]
fn the_end_of_a_refused_interface_is_not_reported() {
    for on_exit in ["detach", "keep"] {
        net::test(|net| {
            net.server.ip("link add t0 type ifb");
            let config = format!("interfaces = [\"b0\", \"t0\"]\n{DOOR}");
            let arguments = ["--wait-for-interfaces", "--on-exit", on_exit];
            let daemon = Daemon::start_with(&net.server, &config, &arguments);
            daemon.wait_for_event(&json!({"event": "refused", "interface": "t0"}));
            let ended = daemon.leave(SIGTERM);
            let ends = daemon::events(&ended.stdout).into_iter().filter(|event| {
                ["detached", "left-on"]
                    .iter()
                    .any(|name| event["event"] == *name)
            });
            let interfaces: Vec<_> = ends.map(|event| event["interface"].clone()).collect();
            assert_eq!(interfaces, ["b0"], "{on_exit}");
        });
    }
}

/// The order in which a bridge and its port are named makes no difference.
#[test]
fn a_bridge_and_its_port_are_not_both_protected() {
    for names in [["br0", "b0"], ["b0", "br0"]] {
        net::test(|net| {
            net.server.ip_batch(
                "link add br0 type bridge
                 link set br0 address 02:00:00:00:00:b0 up
                 address flush dev b0
                 link set b0 master br0
                 address add 192.0.2.2/25 dev br0
                 route replace 198.51.100.0/24 via 192.0.2.1
                 neighbour replace 192.0.2.1 lladdr 02:00:00:00:00:a0 dev br0 nud permanent",
            );
            let _server = Server::tcp(&net.server, &[SSH]);
            let [one, other] = names;
            let daemon = Daemon::start_with(&net.server, DOOR, &["--iface", one, "--iface", other]);
            wait::until("both are attached", || {
                attached_programs(&net.server).len() == 2
            });
            let source = net.new_source(Family::V4);
            source.finds_closed(SSH, "at both");
            source.knock(KNOCKS);
            source.finds(true, SSH, "at both");
            daemon.stop();
        });
    }
}

/// The kernel attaches nothing to a port of a bridge that has a program. The error reports that, and
/// where the port's frames are judged.
#[test]
fn a_port_of_a_protected_bridge_is_refused() {
    net::test(|net| {
        net.add_second_link();
        net.server
            .ip_batch("link add br0 type bridge\nlink set br0 up\nlink set b1 master br0");
        let _server = Server::tcp(&net.server, &[SSH]);
        let config = |names: &str| format!("interfaces = [{names}]\nmode = \"skb\"\n{DOOR}");
        let daemon = Daemon::start_with(&net.server, &config("\"b0\", \"br0\""), &[]);
        daemon.rewrite(&config("\"b0\", \"br0\", \"b1\""));
        let (code, output) = daemon::ask(&net.server, &["reload"]);
        assert_eq!(code, Some(1), "{output}");
        for word in ["b1 is a port of br0", "protect br0 alone"] {
            assert!(output.contains(word), "no {word:?} in: {output}");
        }
        net.new_source(Family::V4)
            .finds_closed(SSH, "nothing was changed");
        daemon.stop();
    });
}

/// An alternative name is as good as the name.
#[test]
fn an_alternative_name_is_resolved() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        net.server
            .ip("link property add dev b0 altname enp6s18-with-a-long-name");
        let config = |name: &str| format!("interfaces = [\"{name}\"]\n{DOOR}");
        let alternative = "enp6s18-with-a-long-name";
        let mut daemon = Daemon::start_with(
            &net.server,
            &config(alternative),
            &["--wait-for-interfaces"],
        );
        let protecting =
            json!({"event": "protecting", "interface": alternative, "current_name": "b0"});
        daemon.wait_for_event(&protecting);
        net.new_source(Family::V4)
            .finds_closed(SSH, "under the other name");
        let known = status(&net.server, alternative);
        assert_eq!(known["current_name"], "b0", "{known}");
        assert_eq!(known["attached"], true, "{known}");
        for name in ["b0", alternative] {
            let (code, output) = daemon::ask(&net.server, &["status", "--iface", name]);
            assert_eq!(code, Some(0), "{output}");
        }
        daemon.reload(&config("b0"));
        net.new_source(Family::V4)
            .finds_closed(SSH, "under its name");
        assert_eq!(pins::instance(&net.server).linked(), ["b0"]);
        daemon.reload(&config(alternative));
        net.new_source(Family::V4)
            .finds_closed(SSH, "the other name again");
        assert!(daemon.events_like(&json!({"event": "detached"})).is_empty());
        daemon.stop();
    });
}

/// Each name gets the configuration that it has, whichever interface has the name.
#[test]
fn exchanged_names_are_followed() {
    net::test(|net| {
        net.add_second_link();
        let _server = Server::tcp(&net.server, &[SSH]);
        let config = |names: &str| format!("interfaces = [{names}]\n{DOOR}");
        let mut daemon = Daemon::start_with(&net.server, &config("\"b0\", \"b1\""), &[]);
        net.server.ip_batch(
            "link set b0 down\nlink set b1 down\nlink set b0 name x0\nlink set b1 name b0\n\
             link set x0 name b1\nlink set b0 up\nlink set b1 up",
        );
        wait::until("both are attached", || {
            attached_programs(&net.server).len() == 2
                && ["b0", "b1"]
                    .iter()
                    .all(|name| status(&net.server, name)["attached"] == true)
        });
        daemon.reload(&config("\"b1\""));
        // The kernel lets go of a program a moment after its link is gone.
        wait::until("only b1 is attached", || {
            net.server.enter(|| {
                let all = interface::list().unwrap();
                ["b0", "b1"].map(|name| {
                    let found = interface::named(name, &all).unwrap();
                    found.program.is_some() || !tcx::ingress(found.index).unwrap().is_empty()
                })
            }) == [false, true]
        });
        daemon.stop();
    });
}

/// Returns a source that has not knocked, on the second link.
fn elsewhere(net: &Net) -> Source<'_> {
    net.new_source(Family::V4).to(Family::V4.second_server())
}

/// Returns the entry of an interface in `status --json`.
#[track_caller]
fn status(namespace: &Namespace, name: &str) -> Value {
    let (_, output) = daemon::ask(namespace, &["status", "--json"]);
    let line = output.lines().find(|line| line.starts_with('{'));
    let status: Value = serde_json::from_str(line.unwrap_or(&output)).unwrap();
    let interfaces = status["interfaces"].as_array().unwrap();
    let mut named = interfaces.iter().filter(|one| one["name"] == name);
    named
        .next()
        .cloned()
        .unwrap_or_else(|| panic!("no {name} in {output}"))
}

/// Waits until an event was reported this many times.
#[track_caller]
fn wait_for_events(daemon: &Daemon, pattern: &Value, times: usize) {
    wait::until(&format!("{pattern} {times} times"), || {
        daemon.events_like(pattern).len() >= times
    });
}

/// Returns a foreign XDP program, attached until this is dropped.
fn foreign(namespace: &Namespace, link: &str, mode: XdpMode) -> XdpProgram {
    let tables = kernel::compile(DOOR).unwrap();
    namespace.enter(|| {
        let mut loaded = XdpProgram::load(&tables, LoadOptions::default()).unwrap();
        loaded.xdp().unwrap().attach(link, mode).unwrap();
        loaded
    })
}
