//! Interfaces whose packets begin with the IP header, such as tunnels: knocks, connections, and a
//! link-layer type that changes.

#![expect(
    clippy::unwrap_used,
    reason = "what a test can't do, it says by a panic"
)]

use std::{io::ErrorKind, time::Duration};

use knock_tests::{
    daemon::{self, Daemon, config_file},
    namespace::Namespace,
    net::{self, Family, Net},
    pins::{self, attached_programs},
    process::Process,
    server::Server,
    source::{Source, echoes},
    ssh::{DOOR, KNOCKS, SSH},
    tun::{TUN_LINK, TunLink},
    wait,
};
use serde_json::{Value, json};

/// The configured modes, and where the program then runs.
const MODES: [(&str, &str); 3] = [("skb", "skb"), ("tc", "tc"), ("auto", "tc")];

#[test]
fn a_tun_interface_is_protected_in_each_mode() {
    for (mode, expected) in MODES {
        net::test(|net| {
            let _link = TunLink::of(net);
            let server = Server::tcp(&net.server, &[SSH]);
            let daemon = Daemon::start_with(&net.server, &with_mode(mode), &[]);
            daemon.wait_for_event(
                &json!({"event": "protecting", "interface": TUN_LINK, "mode": expected}),
            );
            assert_eq!(status(&net.server)["mode"], expected, "{mode}");
            let mut streams: Vec<_> = Family::ALL
                .map(|family| {
                    let row = format!("mode {mode}, {family}");
                    let source = through(net, family);
                    source.finds_closed(SSH, &row);
                    let refused = source.connect(81, Duration::from_secs(5)).unwrap_err();
                    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "{row}");
                    source.knock(KNOCKS);
                    let stream = source.finds_open(SSH, &row);
                    through(net, family).finds_closed(SSH, &format!("{row}, another source"));
                    stream
                })
                .into();
            daemon.kill();
            for family in Family::ALL {
                through(net, family).finds_closed(SSH, "without a process");
            }
            let second = Daemon::start_with(&net.server, &with_mode(mode), &[]);
            assert_eq!(status(&net.server)["mode"], expected, "{mode}, taken over");
            for stream in &mut streams {
                assert!(echoes(stream), "{mode}: a connection from before continues");
            }
            let source = through(net, Family::V4);
            source.finds_closed(SSH, "taken over");
            source.knock(KNOCKS);
            source.finds(true, SSH, "taken over");
            let unauthorized = through(net, Family::V4);
            unauthorized.finds_closed(SSH, "until the end");
            assert!(!server.met(unauthorized.from, SSH));
            let programs = second.programs().to_vec();
            second.stop();
            pins::nothing_is_left(&net.server, &programs);
        });
    }
}

#[test]
fn the_driver_of_a_tun_interface_is_refused() {
    net::test(|net| {
        let _link = TunLink::of(net);
        let config = config_file(with_mode("native").as_bytes());
        let ended = Process::start(&net.server, &mut daemon::command(&config)).wait();
        assert_eq!(ended.status.code(), Some(1), "{ended:?}");
        for words in [
            "t0 has no Ethernet frames (tun, link layer none)",
            "a program in the driver reads no others; take `mode = \"auto\"`",
        ] {
            assert!(ended.stderr.contains(words), "no {words:?} in {ended:?}");
        }
        assert_eq!(pins::instances(&net.server), []);
    });
}

/// The type is compared at each link event, and no interface is reported as protected whose packets
/// can't be judged.
#[test]
fn a_link_layer_type_that_changes_is_followed() {
    for (mode, _) in MODES {
        net::test(|net| {
            let _server = Server::tcp(&net.server, &[SSH]);
            let config = with_mode(mode).replace("\"t0\"", "\"b0\", \"t0\"");
            let daemon = Daemon::start_with(&net.server, &config, &["--wait-for-interfaces"]);
            let refused =
                json!({"event": "refused", "interface": TUN_LINK, "reason": "not-ethernet"});
            let protecting = json!({"event": "protecting", "interface": TUN_LINK});
            // It gets its name with a type that no program reads.
            let mut link = TunLink::named(net, "x0");
            link.set_readable(false);
            wait::until("the type is set", || {
                layer(&net.server, "x0") == "infiniband"
            });
            net.server.ip("link set x0 name t0");
            net.client.ip("link set x0 name t0");
            daemon.wait_for_event(&refused);
            assert_eq!(status(&net.server)["attached"], false, "{mode}");
            assert_eq!(daemon.events_like(&protecting).len(), 0, "{mode}");
            assert_eq!(attached_programs(&net.server), daemon.programs(), "{mode}");
            link.set_readable(true);
            daemon.wait_for_event(&protecting);
            TunLink::address(net);
            let source = through(net, Family::V4);
            source.finds_closed(SSH, mode);
            source.knock(KNOCKS);
            source.finds(true, SSH, mode);
            net.server.ip("link set t0 down");
            link.set_readable(false);
            wait::until("it is refused again", || {
                status(&net.server)["state"] == "refused" && daemon.events_like(&refused).len() == 2
            });
            assert_eq!(attached_programs(&net.server), daemon.programs(), "{mode}");
            link.set_readable(true);
            wait::until("it is protected again", || {
                daemon.events_like(&protecting).len() == 2
            });
            net.server.ip("link set t0 up");
            through(net, Family::V4).finds_closed(SSH, "up again");
            daemon.stop();
        });
    }
}

/// A new interface with the same name gets the program.
#[test]
fn a_tun_interface_that_is_made_again_is_protected() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let link = TunLink::of(net);
        let daemon = Daemon::start_with(&net.server, &with_mode("auto"), &[]);
        through(net, Family::V4).finds_closed(SSH, "the first one");
        drop(link);
        daemon.wait_for_event(&json!({"event": "absent", "interface": TUN_LINK}));
        let _link = TunLink::of(net);
        wait::until("it is protected again", || {
            let protecting = json!({"event": "protecting", "interface": TUN_LINK});
            daemon.events_like(&protecting).len() == 2
        });
        for family in Family::ALL {
            let source = through(net, family);
            source.finds_closed(SSH, "the second one");
            source.knock(KNOCKS);
            source.finds(true, SSH, "the second one");
        }
        daemon.stop();
    });
}

fn with_mode(mode: &str) -> String {
    format!("interfaces = [\"{TUN_LINK}\"]\nmode = \"{mode}\"\n{DOOR}")
}

/// Returns a source that was never used, whose packets take the tun interfaces.
fn through(net: &Net, family: Family) -> Source<'_> {
    net.new_source(family).to(family.second_server())
}

/// Returns the link-layer type of an interface, as `ip` prints it.
fn layer(namespace: &Namespace, name: &str) -> String {
    let printed = namespace.run("ip", &["-json", "link", "show", name]);
    let links: Value = serde_json::from_str(&printed).unwrap();
    links[0]["link_type"].as_str().unwrap().to_owned()
}

/// Returns the entry of the interface in `status --json`.
#[track_caller]
fn status(namespace: &Namespace) -> Value {
    let (_, output) = daemon::ask(namespace, &["status", "--json"]);
    let line = output.lines().find(|line| line.starts_with('{'));
    let status: Value = serde_json::from_str(line.unwrap_or(&output)).unwrap();
    let interfaces = status["interfaces"].as_array().unwrap().iter();
    let mut named = interfaces.filter(|one| one["name"] == TUN_LINK);
    named.next().cloned().unwrap()
}
