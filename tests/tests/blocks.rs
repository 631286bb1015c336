//! Sources that commands and configurations block, from the command to the packet.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails with the test")]

use std::{fs, net::TcpStream, path::Path, process::Command};

use knock_tests::{
    binary::binaries,
    daemon::{self, Daemon},
    namespace::{Namespace, text},
    net::{self, Family},
    server::Server,
    source::{echoes, is_cut},
    ssh::{DOOR, KNOCKS, SSH},
    wait,
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

/// A port that is not protected.
const OTHER: u16 = 8080;

#[test]
fn a_blocked_source_reaches_no_port_until_it_is_unblocked() {
    for family in Family::ALL {
        net::test(|net| {
            let _server = Server::tcp(&net.server, &[SSH, OTHER]);
            let daemon = Daemon::start(&net.server, DOOR);
            let [client, other] = [net.new_source(family), net.new_source(family)];
            let name = client.name();
            client.knock(KNOCKS);
            let mut connection = client.finds_open(SSH, "before");

            let blocked = answer(&net.server, &["block", &name]);
            assert_eq!(blocked["source"], name, "{blocked}");
            assert_eq!(blocked["until"], Value::Null, "{blocked}");
            assert!(is_cut(&mut connection), "{family}: connections are cut");
            client.finds_closed(SSH, "blocked, with a grant");
            client.finds_closed(OTHER, "blocked");
            other.finds_open(OTHER, "another source");
            daemon.wait_for_event(&json!({"event": "blocked", "source": name, "by": "uid 0"}));
            daemon.wait_for_event(&json!({
                "event": "denied", "source": name, "port": OTHER, "reason": "source-blocked",
            }));
            let listed = &answer(&net.server, &["list", "--blocked"])["blocked"];
            assert_eq!(
                listed,
                &json!([{"source": name, "until": null, "seconds": null, "by": "uid 0"}])
            );
            assert_eq!(answer(&net.server, &["status"])["blocked"], 1);
            let explained = answer(&net.server, &["explain", &name, "tcp/8080"]);
            assert_eq!(explained["verdict"], "drop", "{explained}");
            assert_eq!(explained["reason"], "source-blocked", "{explained}");
            let steps = explained["steps"].to_string();
            let sentence = format!("{name} is blocked by a command: all its packets are dropped");
            assert!(steps.contains(&sentence), "{explained}");
            let (_, metrics) = daemon::ask(&net.server, &["metrics"]);
            assert!(
                metrics.contains("\nknock_blocked_prefixes 1\n"),
                "{metrics}"
            );

            let unblocked = answer(&net.server, &["unblock", &name]);
            let expected = json!({"source": name, "was_blocked": true, "still": null});
            assert_eq!(unblocked, expected);
            drop(client.finds_open(OTHER, "unblocked"));
            assert!(echoes(&mut connection), "{family}: it continues");
            daemon.wait_for_event(&json!({
                "event": "unblocked", "source": name, "by": "uid 0", "reason": "unblocked",
            }));
            // Blocks that have ended are not an error.
            let again = answer(&net.server, &["unblock", &name]);
            assert_eq!(again["was_blocked"], false, "{again}");
            assert_eq!(answer(&net.server, &["status"])["blocked"], 0);
            daemon.stop();
        });
    }
}

#[test]
fn a_block_ends_in_the_kernel_with_and_without_a_process() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[OTHER]);
        let daemon = Daemon::start_with(
            &net.server,
            DOOR,
            &["--iface", net::SERVER_LINK, "--on-exit", "keep"],
        );
        let client = net.new_source(Family::V4);
        let name = client.name();
        answer(&net.server, &["block", &name, "--for", "1s"]);
        client.finds_closed(OTHER, "blocked");
        daemon.wait_for_event(&json!({
            "event": "unblocked", "source": name, "reason": "expired",
        }));
        drop(client.finds_open(OTHER, "expired"));
        assert_eq!(
            answer(&net.server, &["list", "--blocked"])["blocked"],
            json!([])
        );

        answer(&net.server, &["block", &name, "--for", "2s"]);
        daemon.kill();
        wait::until("the kernel ends the block", || {
            client
                .connect(OTHER, std::time::Duration::from_millis(300))
                .is_ok()
        });
        daemon::detach(&net.server);
    });
}

#[test]
fn blocks_survive_a_reload_a_restart_and_a_crash() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[OTHER]);
        let keep = ["--iface", net::SERVER_LINK, "--on-exit", "keep"];
        let mut daemon = Daemon::start_with(&net.server, DOOR, &keep);
        let client = net.new_source(Family::V4);
        let network = "198.51.100.0/24";
        let name = client.name();
        answer(&net.server, &["block", &name, "--for", "1h"]);
        answer(&net.server, &["block", network]);
        answer(&net.server, &["unblock", network]);
        let is_blocked = |moment: &str| {
            client.finds_closed(OTHER, moment);
            let listed = answer(&net.server, &["list", "--blocked"]);
            assert_eq!(listed["blocked"][0]["source"], name, "{moment}: {listed}");
            assert_eq!(listed["blocked"][1], Value::Null, "{moment}: {listed}");
        };
        is_blocked("before");
        daemon.reload(&format!("trust = [\"192.0.2.77\"]\n{DOOR}"));
        is_blocked("reloaded");
        daemon.kill();
        is_blocked("without a process");
        let (_, printed) = daemon::ask(&net.server, &["status"]);
        assert!(printed.contains("1 prefix by a command"), "{printed}");
        let daemon = Daemon::start_with(&net.server, DOOR, &keep);
        is_blocked("started again");
        daemon.leave(Signal::SIGTERM);
        is_blocked("stopped");
        let daemon = Daemon::start(&net.server, DOOR);
        is_blocked("started once more");
        // A block that another program made, found by its own start.
        answer(&net.server, &["unblock", &name]);
        drop(client.finds_open(OTHER, "unblocked"));
        daemon.stop();
    });
}

#[test]
fn a_configuration_blocks_until_a_reload_removes_it() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[OTHER]);
        let client = net.new_source(Family::V4);
        let name = client.name();
        let with = |key: &str| format!("{key}\n{DOOR}\n[block]\nprefixes = [\"{name}/32\"]\n");
        let mut daemon = Daemon::start(&net.server, &with(""));
        client.finds_closed(OTHER, "in [block]");
        let listed = &answer(&net.server, &["list", "--blocked"])["blocked"];
        assert_eq!(listed[0]["by"], "configuration", "{listed}");
        let unblocked = answer(&net.server, &["unblock", &name]);
        assert_eq!(unblocked["was_blocked"], false);
        let still = unblocked["still"].as_str().unwrap();
        assert!(
            still.contains("[block] of the configuration has"),
            "{still}"
        );
        client.finds_closed(OTHER, "no command ends that");

        daemon.reload(&with(&format!("trust = [\"{name}\"]")));
        drop(client.finds_open(OTHER, "trusted"));
        daemon.reload(&with(""));
        client.finds_closed(OTHER, "no longer trusted");
        let reloaded = daemon.reload(DOOR);
        assert_eq!(
            reloaded["changes"],
            json!(["changed: [block]"]),
            "{reloaded}"
        );
        drop(client.finds_open(OTHER, "no longer in [block]"));
        daemon.stop();
    });
}

#[test]
fn the_source_of_ones_own_session_is_spared() {
    for family in Family::ALL {
        net::test(|net| {
            let _server = Server::tcp(&net.server, &[OTHER]);
            let daemon = Daemon::start(&net.server, DOOR);
            let client = net.new_source(family);
            let name = client.name();
            let network = match family {
                Family::V4 => "198.51.100.0/24",
                Family::V6 => "2001:db8:a::/64",
            };
            let connection = client.finds_open(OTHER, "before");
            for prefix in [name.as_str(), network] {
                let (code, printed) = block_in(&net.server, &connection, &[prefix]);
                assert_eq!(code, Some(2), "{prefix}: {printed}");
                let reason = format!("your SSH session comes from {name}");
                assert!(printed.contains(&reason), "{prefix}: {printed}");
                drop(client.finds_open(OTHER, "spared"));
            }
            let (code, printed) = block_in(&net.server, &connection, &[&name, "--force"]);
            assert_eq!(code, Some(0), "{printed}");
            client.finds_closed(OTHER, "with --force");
            daemon.stop();
        });
    }
}

#[test]
fn bad_requests_change_nothing() {
    net::test(|net| {
        let daemon = Daemon::start(&net.server, DOOR);
        for (name, arguments, code, reason) in [
            (
                "no address",
                &["block", "nobody"][..],
                2,
                "is not an IP address",
            ),
            (
                "host bits",
                &["block", "192.0.2.1/24"],
                2,
                "has bits set after its first 24",
            ),
            (
                "too short",
                &["block", "192.0.2.1", "--for", "1ms"],
                2,
                "1s",
            ),
            ("no unit", &["block", "192.0.2.1", "--for", "60"], 2, "60s"),
            (
                "unblock host bits",
                &["unblock", "192.0.2.1/24"],
                2,
                "has bits set",
            ),
        ] {
            let (found, printed) = daemon::ask(&net.server, arguments);
            assert_eq!(found, Some(code), "{name}: {printed}");
            assert!(printed.contains(reason), "{name}: {printed}");
        }
        assert_eq!(
            answer(&net.server, &["list", "--blocked"])["blocked"],
            json!([])
        );
        daemon.stop();
    });
}

/// Debian's fail2ban, with the filter and the action of `dist/fail2ban`.
#[test]
fn fail2ban_blocks_and_unblocks_a_source() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH, OTHER]);
        for format in ["json", "text"] {
            let directory = TempDir::new().unwrap();
            let log = directory.path().join("events");
            let arguments = ["--iface", net::SERVER_LINK];
            let daemon = Daemon::start_with(&net.server, DOOR, &arguments);
            // What a daemon without --json prints.
            let watch = match format {
                "json" => &["watch", "--json"][..],
                _ => &["watch"],
            };
            let mut watching = Command::new(&binaries().user);
            watching.args(watch).stdout(fs::File::create(&log).unwrap());
            let mut watching = net.server.enter(|| watching.spawn()).unwrap();
            wait::until("it watches", || {
                answer(&net.server, &["status"])["watchers"] == 1
            });
            // Text has one line for equal refusals.
            let refusals = if format == "json" { 3 } else { 1 };
            let fail2ban = Fail2ban::start(&net.server, directory.path(), &log, refusals);
            let [client, other] = [net.new_source(Family::V4), net.new_source(Family::V4)];
            for row in 0..refusals {
                client.finds_closed(SSH, &format!("{format}, {row}"));
            }
            let event = json!({"event": "blocked", "source": client.name()});
            daemon.wait_for_event(&event);
            client.finds_closed(OTHER, "banned");
            drop(other.finds_open(OTHER, "another source"));
            fail2ban.run(&["set", "knock", "unbanip", &client.name()]);
            let event = json!({"event": "unblocked", "source": client.name()});
            daemon.wait_for_event(&event);
            drop(client.finds_open(OTHER, "unbanned"));
            fail2ban.run(&["set", "knock", "banip", "203.0.113.99"]);
            wait::until("a ban by hand", || {
                let listed = answer(&net.server, &["list", "--blocked"]);
                listed["blocked"].to_string().contains("203.0.113.99")
            });
            drop(fail2ban);
            watching.kill().unwrap();
            watching.wait().unwrap();
            daemon.stop();
        }
    });
}

/// What Debian's crowdsec-custom-bouncer runs.
#[test]
fn decisions_of_crowdsec_become_blocks() {
    net::test(|net| {
        let daemon = Daemon::start(&net.server, DOOR);
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dist/crowdsec/knock-bouncer");
        let run = |arguments: &[&str]| {
            let mut command = Command::new(&script);
            command
                .args(arguments)
                .env("KNOCK_USER", &binaries().user)
                .env("KNOCK_OPTIONS", format!("--iface {}", net::SERVER_LINK));
            let output = net.server.enter(|| command.output()).unwrap();
            (output.status.code(), text(&output))
        };
        let listed = || -> Vec<String> {
            let listed = answer(&net.server, &["list", "--blocked"]);
            let all = listed["blocked"].as_array().unwrap().iter();
            all.map(|one| one["source"].as_str().unwrap().to_owned())
                .collect()
        };
        for (name, arguments, code, expected) in [
            (
                "an address",
                ["add", "203.0.113.7", "14400", "manual", "{}"],
                0,
                &["203.0.113.7"][..],
            ),
            (
                "a range",
                ["add", "198.51.100.0/24", "60", "manual", "{}"],
                0,
                &["198.51.100.0/24", "203.0.113.7"],
            ),
            (
                "deleted",
                ["del", "203.0.113.7", "-1", "manual", "{}"],
                0,
                &["198.51.100.0/24"],
            ),
            (
                "deleted again",
                ["del", "203.0.113.7", "-1", "manual", "{}"],
                0,
                &["198.51.100.0/24"],
            ),
            (
                "a country",
                ["add", "FR", "60", "manual", "{}"],
                2,
                &["198.51.100.0/24"],
            ),
            (
                "another action",
                ["flush", "", "", "", ""],
                2,
                &["198.51.100.0/24"],
            ),
        ] {
            let (found, printed) = run(&arguments);
            assert_eq!(found, Some(code), "{name}: {printed}");
            assert_eq!(listed(), expected, "{name}");
        }
        daemon.stop();
    });
}

/// A fail2ban of its own directory; its end ends the bans.
struct Fail2ban<'n> {
    namespace: &'n Namespace,
    directory: std::path::PathBuf,
}

impl<'n> Fail2ban<'n> {
    fn start(namespace: &'n Namespace, directory: &Path, log: &Path, refusals: usize) -> Self {
        let dist = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dist/fail2ban");
        let at = directory.join("fail2ban");
        for part in ["filter.d", "action.d", "jail.d"] {
            fs::create_dir_all(at.join(part)).unwrap();
        }
        for part in ["filter.d/knock.conf", "action.d/knock.conf"] {
            fs::copy(dist.join(part), at.join(part)).unwrap();
        }
        let user = binaries().user.display().to_string();
        let files = [
            (
                "fail2ban.conf",
                format!(
                    "[Definition]\nloglevel = INFO\nlogtarget = {}\nsyslogsocket = auto\ndbfile = None\n\
                     dbmaxmatches = 10\ndbpurgeage = 1d\n",
                    at.join("log").display()
                ),
            ),
            (
                "jail.conf",
                format!(
                    "[DEFAULT]\nignoreself = false\nusedns = no\nbackend = polling\n\
                     [knock]\nenabled = true\nfilter = knock\n\
                     action = knock[knock_user=\"{user}\", options=\"--iface {}\"]\n\
                     logpath = {}\nmaxretry = {refusals}\nfindtime = 10m\nbantime = 1h\n",
                    net::SERVER_LINK,
                    log.display()
                ),
            ),
        ];
        for (name, text) in files {
            fs::write(at.join(name), text).unwrap();
        }
        let fail2ban = Self {
            namespace,
            directory: at,
        };
        fail2ban.run(&["start"]);
        fail2ban
    }

    fn ask(&self, arguments: &[&str]) -> (bool, String) {
        let at = |name: &str| self.directory.join(name).display().to_string();
        let (configuration, socket, pid) = (at(""), at("socket"), at("pid"));
        let options = ["-c", &configuration, "-s", &socket, "-p", &pid];
        let arguments = [&options[..], arguments].concat();
        let output = self.namespace.try_run("fail2ban-client", &arguments);
        (output.status.success(), text(&output))
    }

    #[track_caller]
    fn run(&self, arguments: &[&str]) {
        let (succeeds, printed) = self.ask(arguments);
        let log = fs::read_to_string(self.directory.join("log")).unwrap_or_default();
        assert!(succeeds, "{arguments:?}: {printed}\n{log}");
    }
}

impl Drop for Fail2ban<'_> {
    fn drop(&mut self) {
        let _ended = self.ask(&["stop"]);
    }
}

/// Blocks over an SSH session: that of an existing connection.
fn block_in(
    namespace: &Namespace,
    connection: &TcpStream,
    arguments: &[&str],
) -> (Option<i32>, String) {
    let (peer, local) = (
        connection.local_addr().unwrap(),
        connection.peer_addr().unwrap(),
    );
    let session = format!(
        "{} {} {} {}",
        peer.ip(),
        peer.port(),
        local.ip(),
        local.port()
    );
    let mut command = Command::new(&binaries().user);
    command
        .arg("block")
        .args(arguments)
        .env("SSH_CONNECTION", session);
    let output = namespace.enter(|| command.output()).unwrap();
    (output.status.code(), text(&output))
}

/// Runs a subcommand with `--json`, and returns the answer.
#[track_caller]
fn answer(namespace: &Namespace, arguments: &[&str]) -> Value {
    let (code, printed) = daemon::ask(namespace, &[arguments, &["--json"]].concat());
    assert_eq!(code, Some(0), "{arguments:?}: {printed}");
    match serde_json::from_str(&printed) {
        Ok(answer) => answer,
        Err(error) => panic!("{arguments:?}: {error}: {printed}"),
    }
}
