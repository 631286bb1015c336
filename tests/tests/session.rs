//! What a start over SSH reports about that connection.

use std::{net::IpAddr, process::Command};

use knock_tests::{
    binary::binaries,
    daemon::{self, config_file},
    net::{self, Family, SERVER_LINK},
    process::Process,
    server::Server,
    ssh::{DOOR, SSH},
    wait,
};
use nix::sys::signal::Signal;

/// The beginning of the warning about the connection.
const YOURS: &str = "your SSH connection from";

#[test]
fn a_start_reports_what_happens_to_its_own_ssh_connection() {
    let rows: [(&str, &str, bool, Option<&str>); 8] = [
        (
            "kept",
            "",
            true,
            Some("continues, and a new one needs a knock at door \"ssh\""),
        ),
        (
            "cut",
            "[established]\nkeep = false",
            true,
            Some("will be cut, because of [established] keep = false"),
        ),
        (
            "trusted",
            "trust = [\"198.51.100.0/24\", \"2001:db8:a::/64\"]",
            true,
            None,
        ),
        ("not protected", "", false, None),
        (
            "on the block list",
            "[block]\nprefixes = [\"0.0.0.0/1\", \"128.0.0.0/1\", \"::/0\"]",
            true,
            Some("will be cut, because [block] has "),
        ),
        (
            "on the block list, to another port",
            "[block]\nprefixes = [\"0.0.0.0/1\", \"128.0.0.0/1\", \"::/0\"]",
            false,
            Some("will be cut, because [block] has "),
        ),
        (
            "on the block list and trusted",
            "trust = [\"0.0.0.0/1\", \"128.0.0.0/1\", \"::/0\"]\n\
             [block]\nprefixes = [\"0.0.0.0/1\", \"128.0.0.0/1\", \"::/0\"]",
            true,
            None,
        ),
        (
            "kept without a door",
            "protect = [\"tcp/80\"]",
            false,
            Some("no door opens tcp/80"),
        ),
    ];
    for (name, before, is_ssh, expected) in rows {
        for family in Family::ALL {
            net::test(|net| {
                let row = format!("{name}, {family}");
                let port = if is_ssh { SSH } else { 80 };
                let _server = Server::tcp(&net.server, &[SSH, 80]);
                let source = net.new_source(family);
                let stream = source.finds_open(port, &row);
                let at = stream.local_addr().unwrap().port();
                let text = format!("{before}\n{DOOR}");
                let warnings_text = warnings(
                    net,
                    &text,
                    &format!("{} {at} {} {port}", source.from, source.to),
                );
                match expected {
                    Some(words) => {
                        let yours = warnings_text.lines().find(|line| line.contains(YOURS));
                        let yours = yours.unwrap_or_else(|| panic!("{row}: {warnings_text}"));
                        assert!(yours.contains(words), "{row}: {yours}");
                        assert!(yours.contains(&source.name()), "{row}: {yours}");
                    }
                    None => assert!(!warnings_text.contains(YOURS), "{row}: {warnings_text}"),
                }
            });
        }
    }
}

#[test]
fn an_ended_ssh_connection_is_not_mentioned() {
    net::test(|net| {
        let warnings_text = warnings(net, DOOR, "198.51.100.1 50022 192.0.2.2 22");
        assert!(!warnings_text.contains(YOURS), "{warnings_text}");
    });
}

#[test]
fn check_warns_of_a_block_list_that_has_the_source_of_its_session() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let source = net.new_source(Family::V4);
        let stream = source.finds_open(SSH, "before");
        let at = stream.local_addr().unwrap().port();
        for (prefix, is_warned) in [("128.0.0.0/1", true), ("0.0.0.0/1", true), ("::/0", false)] {
            let prefixes = format!("[block]\nprefixes = [\"{prefix}\"]\n{DOOR}");
            let config = config_file(prefixes.as_bytes());
            let mut command = Command::new(&binaries().user);
            command.args(["check", "--config"]).arg(config.path());
            let connection = format!("{} {at} {} {SSH}", source.from, source.to);
            command.env("SSH_CONNECTION", connection);
            let output = net.server.enter(|| command.output()).unwrap();
            let text = String::from_utf8_lossy(&output.stdout);
            let found = text.lines().find(|line| line.contains(YOURS));
            assert!(
                found.is_none_or(|line| line.contains(":1: warning: block: ")),
                "{prefix}: {text}"
            );
            let has_source = match source.from {
                IpAddr::V4(v4) => (v4.octets()[0] >= 128) == (prefix == "128.0.0.0/1"),
                IpAddr::V6(_) => false,
            };
            assert_eq!(found.is_some(), is_warned && has_source, "{prefix}: {text}");
        }
    });
}

/// Returns the warnings on standard error before it protects.
#[track_caller]
fn warnings(net: &net::Net, config: &str, connection: &str) -> String {
    let config = config_file(config.as_bytes());
    let mut command = daemon::command(&config);
    command.args(["--iface", SERVER_LINK]);
    command.env("SSH_CONNECTION", connection);
    let process = Process::start(&net.server, &mut command);
    wait::until("it protects", || {
        process
            .stdout()
            .iter()
            .any(|line| line.contains("protecting"))
    });
    let ended = process.stop(Signal::SIGTERM);
    assert!(ended.status.success(), "{ended:?}");
    ended.stderr
}
