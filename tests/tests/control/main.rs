//! The commands of an administrator to a running knock-user, and their effect on packets.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails with the test")]

mod colors;
mod explain;
mod socket;

use std::{path::PathBuf, process::Command};

use knock_tests::{
    binary::binaries,
    daemon::{Daemon, config_file, has},
    namespace::Namespace,
    net::{self, Family, SERVER_LINK, SERVER_LINK_2},
    pins::attached_programs,
    process::Process,
    server::Server,
    source::echoes,
    ssh::{DOOR, KNOCKS, SSH},
    wait::{self},
};
use knock_user::kernel::instance::Instance;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

/// The exit code of a command that failed.
const COULD_NOT: Option<i32> = Some(1);
/// The exit code of bad usage or a bad configuration.
const MISUSE: Option<i32> = Some(2);

/// A door that closes what [`DOOR`] opens.
const SHUT: &str = r#"
    [[door]]
    name = "shut"
    knock = ["tcp/9000", "udp/8500", "tcp/3000"]
    close = ["tcp/22"]
"#;

#[test]
fn grant_and_revoke_change_what_packets_find() {
    for family in Family::ALL {
        net::test(|net| {
            let _server = Server::tcp(&net.server, &[SSH]);
            let daemon = Daemon::start(&net.server, DOOR);
            let [client, other] = [net.new_source(family), net.new_source(family)];
            let name = client.name();
            client.finds_closed(SSH, "before");

            let granted = answer(&net.server, &format!("grant {name} --door ssh --for 10m"));
            let expected = json!({"source": name, "door": "ssh", "ports": ["tcp/22"]});
            assert!(has(&granted, &expected), "{granted}");
            let seconds = granted["seconds"].as_f64().unwrap();
            assert!((500.0..=600.0).contains(&seconds), "{granted}");
            let mut connection = client.finds_open(SSH, "granted");
            other.finds_closed(SSH, "granted to another");
            daemon.wait_for_event(&json!({
                "event": "opened", "source": name, "door": "ssh", "ports": ["tcp/22"],
                "reason": "granted", "by": "uid 0",
            }));
            let listed = &answer(&net.server, "list")["grants"];
            assert_eq!(listed.as_array().unwrap().len(), 1, "{listed}");
            let expected = json!({
                "source": name, "door": "ssh", "ports": ["tcp/22"], "by": "uid 0",
            });
            assert!(has(&listed[0], &expected), "{listed}");

            assert!(echoes(&mut connection));
            let revoked = answer(&net.server, &format!("revoke {name}"));
            let expected = json!({"source": name, "doors": ["ssh"], "covered": [name], "flows": 1});
            assert_eq!(revoked, expected);
            client.finds_closed(SSH, "revoked");
            assert!(echoes(&mut connection), "connections continue");
            daemon.wait_for_event(&json!({
                "event": "closed", "source": name, "door": "ssh", "reason": "revoked", "by": "uid 0",
            }));
            assert_eq!(answer(&net.server, "list"), json!({"grants": []}));
            let again = answer(&net.server, &format!("revoke {name} --door ssh"));
            assert_eq!(again["doors"], json!([]), "{again}");

            client.knock(KNOCKS);
            client.finds_open(SSH, "knocked after that");
            wait::until("it is reported again", || {
                let opened = json!({"event": "opened", "source": name});
                daemon.events_like(&opened).len() == 2
            });
            daemon.stop();
        });
    }
}

#[test]
fn grants_of_knocks_are_listed_and_revoked() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let daemon = Daemon::start(&net.server, DOOR);
        let client = net.new_source(Family::V4);
        client.knock(KNOCKS);
        client.finds_open(SSH, "knocked");
        daemon.wait_for_event(&json!({"event": "opened", "source": client.name()}));
        let listed = &answer(&net.server, "list")["grants"][0];
        let expected = json!({"source": client.name(), "door": "ssh", "by": "knock"});
        assert!(has(listed, &expected), "{listed}");
        let seconds = listed["seconds"].as_f64().unwrap();
        assert!((0.0..=30.0).contains(&seconds), "{listed}");
        let text = ask(&net.server, "list").out;
        let lines: Vec<Vec<&str>> = text
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(lines[0], ["SOURCE", "DOOR", "PORTS", "LEFT", "SINCE", "BY"]);
        assert_eq!(lines[1][..3], [client.name().as_str(), "ssh", "tcp/22"]);
        assert_eq!(lines[1][5], "knock");

        let revoked = ask(&net.server, &format!("revoke {} --door ssh", client.name()));
        assert!(revoked.out.contains("may no longer use ssh"), "{revoked:?}");
        client.finds_closed(SSH, "revoked");
        daemon.stop();
    });
}

#[test]
fn wrong_requests_are_refused_with_the_cure() {
    net::test(|net| {
        let daemon = Daemon::start(&net.server, &format!("{DOOR}{SHUT}"));
        for (words, code, reason) in [
            (
                "grant 203.0.113.9 --door web",
                MISUSE,
                "no door is named web: the doors are ssh, shut",
            ),
            (
                "grant 203.0.113.9 --door shut",
                MISUSE,
                "ends grants and gives none",
            ),
            (
                "grant 203.0.113.9 --door ssh --for 10ms",
                MISUSE,
                "use 1s to 30d",
            ),
            (
                "grant 203.0.113.9 --door ssh --for 31d",
                MISUSE,
                "use 1s to 30d",
            ),
            (
                "grant ::ffff:203.0.113.9 --door ssh",
                MISUSE,
                "write \"203.0.113.9\"",
            ),
            ("grant 203.0.113.9", MISUSE, "--door"),
            ("revoke somebody", MISUSE, "is not an IP address"),
            (
                "revoke 203.0.113.9 --door web",
                MISUSE,
                "no door is named web",
            ),
            ("explain 203.0.113.9 22", MISUSE, "write the protocol first"),
            (
                "explain 203.0.113.9 tcp/22 --to ::1",
                COULD_NOT,
                "two families",
            ),
            (
                "status --iface eth9",
                COULD_NOT,
                "no knock-user protects eth9",
            ),
        ] {
            ask(&net.server, words).fails(code, reason);
        }
        daemon.stop();
    });
}

#[test]
fn status_reports_the_state() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let arguments = ["--iface", SERVER_LINK, "--mode", "skb"];
        let daemon = Daemon::start_with(&net.server, DOOR, &arguments);
        let client = net.new_source(Family::V4);
        net.new_source(Family::V4)
            .finds_closed(SSH, "an unauthorized source");
        client.knock(KNOCKS);
        let mut connection = client.finds_open(SSH, "knocked");
        assert!(echoes(&mut connection));
        daemon.wait_for_event(&json!({"event": "opened", "source": client.name()}));
        let status = answer(&net.server, "status");
        let expected = json!({
            "pid": daemon.process().id(),
            "version": env!("CARGO_PKG_VERSION"),
            "interfaces": [{
                "name": SERVER_LINK, "state": "protected", "attached": true, "mode": "skb",
            }],
            "ports": ["tcp/22"],
            "dry_run": false,
            "trial_seconds": null,
            "doors": 1,
            "grants": 1,
            "flows": 1,
            "watchers": 0,
        });
        assert!(has(&status, &expected), "{status}");
        let counters = status["counters"].as_array().unwrap();
        let counter = |name: &str| counters.iter().find(|counter| counter["name"] == name);
        for name in [
            "no-grant",
            "first-knock",
            "next-knock",
            "opened",
            "granted",
            "flow",
        ] {
            assert!(counter(name).is_some(), "{name}: {status}");
        }
        assert!(counter("decoy").is_none(), "{status}");

        let text = ask(&net.server, "status").out;
        let row = |name: &str| {
            text.lines()
                .find(|line| line.starts_with(name))
                .unwrap_or("")
        };
        let pid = daemon.process().id().to_string();
        assert!(row("process").contains(&pid), "{text}");
        assert!(row("interfaces").ends_with("b0 skb"), "{text}");
        assert!(row("protected").ends_with("tcp/22"), "{text}");
        daemon.stop();
    });
}

#[test]
fn without_a_daemon_commands_read_the_pins() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let arguments = ["--iface", SERVER_LINK, "--mode", "skb", "--on-exit", "keep"];
        let daemon = Daemon::start_with(&net.server, DOOR, &arguments);
        let client = net.new_source(Family::V4);
        client.knock(KNOCKS);
        client.finds_open(SSH, "knocked");
        daemon.wait_for_event(&json!({"event": "opened", "source": client.name()}));
        // Not `stop`, which asserts that the program is unloaded.
        drop(daemon);

        let status = answer(&net.server, "status");
        let expected = json!({
            "pid": null,
            "since": null,
            "interfaces": [{
                "name": SERVER_LINK, "state": "protected", "attached": true, "mode": "skb",
            }],
            "ports": ["tcp/22"],
            "doors": 1,
            "grants": 1,
        });
        assert!(has(&status, &expected), "{status}");
        assert!(
            status["counters"]
                .as_array()
                .is_some_and(|all| !all.is_empty()),
            "{status}"
        );
        let listed = &answer(&net.server, "list")["grants"];
        let expected = json!({
            "source": client.name(), "door": "ssh", "ports": ["tcp/22"], "since": null, "by": null,
        });
        assert!(has(&listed[0], &expected), "{listed}");
        for words in [
            "watch",
            "grant 203.0.113.9 --door ssh",
            "revoke 203.0.113.9",
            "explain 203.0.113.9 tcp/22",
            "reload",
        ] {
            ask(&net.server, words).fails(COULD_NOT, "no process runs for b0");
        }
        ask(&net.server, "confirm").fails(COULD_NOT, "there is nothing to confirm");
        net.new_source(Family::V4)
            .finds_closed(SSH, "still protected");

        let detached = answer(&net.server, "detach");
        assert_eq!(
            detached,
            json!({"interfaces": [SERVER_LINK], "ports": ["tcp/22"]})
        );
        assert_eq!(attached_programs(&net.server), [] as [u32; 0]);
        net.new_source(Family::V4).finds(true, SSH, "detached");
        let again = ask(&net.server, "detach");
        assert_eq!(
            (again.code, again.out.as_str()),
            (Some(0), "nothing is attached\n")
        );
        ask(&net.server, "status")
            .fails(COULD_NOT, "nothing is protected in this network namespace");
    });
}

#[test]
fn detach_ends_a_running_daemon() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let daemon = Daemon::start(&net.server, DOOR);
        let detached = answer(&net.server, "detach");
        assert_eq!(
            detached,
            json!({"interfaces": [SERVER_LINK], "ports": ["tcp/22"]})
        );
        net.new_source(Family::V4).finds(true, SSH, "detached");
        assert_eq!(sockets(&net.server), [] as [PathBuf; 0]);
        daemon.wait_for_event(&json!({"event": "detached", "interface": SERVER_LINK}));
    });
}

#[test]
fn a_command_selects_one_of_several_instances() {
    net::test(|net| {
        net.add_second_link();
        ask(&net.server, "status")
            .fails(COULD_NOT, "nothing is protected in this network namespace");
        let one = Daemon::start(&net.server, DOOR);
        let status = answer(&net.server, "status");
        assert_eq!(status["pid"], one.process().id(), "{status}");
        let two = Daemon::start_with(&net.server, DOOR, &["--iface", SERVER_LINK_2]);
        let status = answer(&net.server, "status");
        assert_eq!(status["in_force"], true, "{status}");
        let pids = status["instances"].as_array().unwrap();
        let pids: Vec<_> = pids.iter().map(|one| &one["pid"]).collect();
        assert_eq!(pids, [one.process().id(), two.process().id()]);
        for daemon in [&one, &two] {
            let pid = daemon.process().id();
            let status = answer(&net.server, &format!("status --pid {pid}"));
            assert_eq!(status["pid"], pid, "{status}");
        }
        ask(&net.server, "reload --pid 1")
            .fails(COULD_NOT, "nothing is protected in this network namespace");
        for words in ["list", "detach", "grant 203.0.113.9 --door ssh"] {
            let reason = "choose one with --iface: several instances of knock-user run here, which protect b0; b1";
            ask(&net.server, words).fails(MISUSE, reason);
        }
        for (link, daemon) in [(SERVER_LINK, &one), (SERVER_LINK_2, &two)] {
            let status = answer(&net.server, &format!("status --iface {link}"));
            assert_eq!(status["pid"], daemon.process().id(), "{status}");
        }
        assert_eq!(
            answer(&net.server, "detach --iface b1")["interfaces"],
            json!(["b1"])
        );
        drop(two);
        answer(&net.server, "list");
        one.stop();
    });
}

#[test]
fn a_bad_configuration_changes_nothing() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let config = config_file(DOOR.as_bytes());
        let mut command = Command::new(&binaries().user);
        command.args(["--json", "--iface", SERVER_LINK, "--config"]);
        let daemon = Process::start(&net.server, command.arg(config.path()));
        wait::until("it protects", || {
            daemon
                .stdout()
                .iter()
                .any(|line| line.contains("\"protecting\""))
        });
        let client = net.new_source(Family::V4);
        client.knock(KNOCKS);
        client.finds_open(SSH, "knocked");
        std::fs::write(
            config.path(),
            "[[door]]\nname = \"ssh\"\nnock = []\nopen = [\"22\"]\n",
        )
        .unwrap();
        let refused = ask(&net.server, "reload");
        refused.fails(MISUSE, ":3: nock: unknown key: did you mean knock?");
        refused.fails(MISUSE, ":4: open: \"22\" is not a port");
        client.finds_open(SSH, "still let in");
        net.new_source(Family::V4)
            .finds_closed(SSH, "still protected");
        std::fs::write(config.path(), format!("{DOOR}{SHUT}")).unwrap();
        let reloaded = answer(&net.server, "reload");
        assert_eq!(reloaded["changes"], json!(["new door: shut"]));
        client.finds_open(SSH, "grants continue");
        assert!(daemon.stop(Signal::SIGINT).status.success());
    });
}

/// The result of a command of an administrator.
#[derive(Debug)]
struct AskResult {
    code: Option<i32>,
    out: String,
    error: String,
}

impl AskResult {
    /// Returns its answer, if it has one.
    #[track_caller]
    fn answer(&self) -> Value {
        assert_eq!(self.code, Some(0), "{self:?}");
        match serde_json::from_str(&self.out) {
            Ok(answer) => answer,
            Err(error) => panic!("{error}: {self:?}"),
        }
    }

    #[track_caller]
    fn fails(&self, code: Option<i32>, reason: &str) {
        assert_eq!(self.code, code, "{self:?}");
        assert!(self.error.contains(reason), "{self:?}");
        assert_eq!(self.out, "");
    }
}

/// Runs `knock-user` with arguments, which are split at blanks.
fn ask(namespace: &Namespace, words: &str) -> AskResult {
    let words: Vec<_> = words.split_whitespace().collect();
    ran(namespace, binaries().user.to_str().unwrap(), &words)
}

fn ran(namespace: &Namespace, program: &str, arguments: &[&str]) -> AskResult {
    let output = namespace.try_run(program, arguments);
    AskResult {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).unwrap(),
        error: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Runs it with `--json`, and returns the answer.
#[track_caller]
fn answer(namespace: &Namespace, words: &str) -> Value {
    ask(namespace, &format!("{words} --json")).answer()
}

/// Returns the control sockets.
fn sockets(namespace: &Namespace) -> Vec<PathBuf> {
    let all = namespace.enter(Instance::all_here).unwrap();
    all.iter().map(Instance::socket).collect()
}
