//! The warnings of `check` and a start about the host.

use std::process::Command;

use knock_tests::{
    binary::binaries,
    daemon::{self, Daemon, config_file},
    namespace::text,
    net::{self, Family, SERVER_LINK, SERVER_LINK_2},
    ssh::{DOOR, KNOCKS},
    wait,
};
use serde_json::json;

#[test]
fn check_names_interfaces_that_a_configuration_leaves_open() {
    net::test(|net| {
        net.server.ip("link add br9 type bridge");
        net.server.ip("link add p9 type veth peer name q9");
        net.server.ip("link set p9 master br9");
        net.server.ip("link add t9 type veth peer name u9");
        net.server
            .ip("link property add dev t9 altname other-name-of-t9");
        net.server.ip("tuntap add w9 mode tun");
        let rows: [(&str, &str, &[&str], &[&str]); 5] = [
            (
                "another interface is open",
                "\"t9\"",
                &[
                    "not protected: b0 (192.0.2.2, ",
                    "clients need no knock there",
                ],
                &["there is no interface"],
            ),
            (
                "no such interface",
                "\"b0\", \"etho\"",
                &["there is no interface etho now; this host has ", "b0"],
                &[],
            ),
            (
                "another name of an interface",
                "\"b0\", \"other-name-of-t9\"",
                &[],
                &["there is no interface", "can't", "b0 (192.0.2.2"],
            ),
            (
                "no Ethernet",
                "\"b0\", \"w9\"",
                &["`auto` takes tc on w9 because it has no Ethernet frames"],
                &["w9 is a tap", "not protected: w9"],
            ),
            (
                "the port of a bridge",
                "\"b0\", \"p9\"",
                &["p9 is a port of the bridge br9"],
                &[],
            ),
        ];
        for (name, interfaces, present, absent) in rows {
            let file = config_file(
                format!("interfaces = [{interfaces}]\n{DOOR}\ntarget = \"192.0.2.99\"").as_bytes(),
            );
            let mut command = Command::new(&binaries().user);
            command.args(["check", "--config"]).arg(file.path());
            let output = net.server.enter(|| command.output()).unwrap();
            let output_text = text(&output);
            assert_eq!(output.status.code(), Some(0), "{name}: {output_text}");
            let always = [
                "this host does not have the address 192.0.2.99",
                "no service of this host listens on these protected ports now: tcp/22",
            ];
            for words in present.iter().chain(&always) {
                assert!(
                    output_text.contains(words),
                    "{name}: no {words:?} in\n{output_text}"
                );
            }
            for words in absent {
                assert!(
                    !output_text.contains(words),
                    "{name}: {words:?} in\n{output_text}"
                );
            }
        }
    });
}

#[test]
fn check_notes_the_mode_also_where_the_program_runs() {
    net::test(|net| {
        let file = config_file(format!("interfaces = [\"b0\"]\n{DOOR}").as_bytes());
        let path = file.path().to_str().unwrap();
        let is_noted = |row: &str| {
            let (code, output) = daemon::ask(&net.server, &["check", "--config", path]);
            assert_eq!(code, Some(0), "{row}: {output}");
            let note = "`auto` takes tc on b0 because ";
            assert!(output.contains(note), "{row}: {output}");
        };
        is_noted("before the start");
        let daemon = Daemon::start(&net.server, DOOR);
        is_noted("protected");
        daemon.stop();
    });
}

#[test]
fn a_gateway_that_opens_a_door_is_named() {
    net::test(|net| {
        let gateway = Family::V4.client();
        net.server.ip(&format!(
            "route add default via {gateway} dev {SERVER_LINK}"
        ));
        let daemon = Daemon::start(&net.server, DOOR);
        let warning = format!("warning: {gateway} is a gateway of this host");
        let other = net.new_source(Family::V4);
        other.knock(KNOCKS);
        daemon.wait_for_event(&json!({"event": "opened", "source": other.name()}));
        assert!(!daemon.process().stderr().contains("is a gateway"));
        net.source(gateway, Family::V4.server()).knock(KNOCKS);
        daemon.wait_for_event(&json!({"event": "opened", "source": gateway.to_string()}));
        wait::until("the warning", || {
            daemon.process().stderr().contains(&warning)
        });
        daemon.stop();
    });
}

/// At boot, addresses come after the start.
#[test]
fn an_interface_that_gets_an_address_later_is_named() {
    net::test(|net| {
        let daemon = Daemon::start(&net.server, DOOR);
        let notes = || {
            let (_, output) = daemon::ask(&net.server, &["status"]);
            output
        };
        let note = "not protected: t9 (198.51.100.9)";
        assert!(!notes().contains("not protected: t9"));
        net.server.ip("link add t9 type veth peer name u9");
        net.server.ip("address add 198.51.100.9/24 dev t9");
        net.server.ip("link set t9 up");
        wait::until("the warning", || daemon.process().stderr().contains(note));
        let text = notes();
        assert!(text.contains(note), "{text}");
        net.server.ip("link set t9 down");
        let text = notes();
        assert!(!text.contains("not protected: t9"), "{text}");
        daemon.stop();
    });
}

/// Several knock-user may share a namespace: what another one protects is protected.
#[test]
fn an_interface_of_another_instance_is_not_named() {
    net::test(|net| {
        net.add_second_link();
        let other = Daemon::start_with(&net.server, DOOR, &["--iface", SERVER_LINK_2]);
        let daemon = Daemon::start(&net.server, DOOR);
        let status = || daemon::ask(&net.server, &["status", "--iface", SERVER_LINK]).1;
        assert!(!status().contains("not protected: "), "{}", status());
        let output_text = daemon.process().stderr();
        assert!(!output_text.contains("not protected: "), "{output_text}");
        other.stop();
        let open = format!("not protected: {SERVER_LINK_2} (");
        assert!(status().contains(&open), "{}", status());
        daemon.stop();

        // A dry run protects nothing.
        let arguments = ["--iface", SERVER_LINK_2, "--dry-run"];
        let other = Daemon::start_with(&net.server, DOOR, &arguments);
        let daemon = Daemon::start(&net.server, DOOR);
        let output_text = daemon.process().stderr();
        assert!(output_text.contains(&open), "{output_text}");
        // The second one counts the programs of both as its own.
        other.stop();
        daemon.stop();
    });
}
