//! What a start over SSH reports about that connection.

use knock_tests::{
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
    let rows: [(&str, &str, bool, Option<&str>); 5] = [
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
