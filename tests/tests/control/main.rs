//! The commands of an administrator to a running knock-user, and their effect on packets.

#![expect(
    clippy::unwrap_used,
    reason = "what a test can't do, it says by a panic"
)]

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv6Addr},
    os::unix::net::UnixStream,
    path::PathBuf,
    process::Command,
    thread,
};

use knock_tests::{
    binary::binaries,
    daemon::{Daemon, config_file, events, has},
    namespace::Namespace,
    net::{self, Family, Net, SERVER_LINK, SERVER_LINK_2},
    pins::attached_programs,
    process::Process,
    server::Server,
    source::{Source, echoes},
    ssh::{DOOR, KNOCKS, SSH},
    wait::{self, PATIENCE},
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

/// Doors, and every other setting that affects a verdict.
const HOUSE: &str = r#"
    protect = ["tcp/3306"]
    trust = ["192.0.2.1", "2001:db8::1"]
    exempt = ["tcp/443"]

    [lockout]
    failures = 2
    for = "60s"

    [decoys]
    ports = ["tcp/7001"]

    [[door]]
    name = "ssh"
    knock = ["tcp/7000", "udp/8000", "tcp/9000"]
    open = ["tcp/22", "udp/5353"]
    open_for = "10m"
"#;

use Step::{Ask, Knock};

/// The history of a source, the port in question, and the last sentence of the answer.
type Situation = (&'static str, &'static [Step], &'static str, &'static str);

#[rustfmt::skip]
const SITUATIONS: &[Situation] = &[
    ("an unauthorized source", &[], "tcp/22", "a new connection would be dropped: no grant"),
    ("a port that no door opens", &[Knock(KNOCKS)], "tcp/3306", "a new connection would be dropped: no grant"),
    ("by UDP", &[], "udp/5353", "a datagram would be dropped: no grant"),
    ("let in", &[Knock(KNOCKS)], "tcp/22", "a new connection would pass: source has a grant"),
    ("let in by UDP", &[Knock(KNOCKS)], "udp/5353", "a datagram would pass: source has a grant"),
    ("let in by hand", &[Ask("grant SOURCE --door ssh")], "tcp/22", "a new connection would pass: source has a grant"),
    ("revoked", &[Knock(KNOCKS), Ask("revoke SOURCE")], "tcp/22", "a new connection would be dropped: no grant"),
    ("a first knock", &[], "tcp/7000", "a new connection would be dropped: first knock (1 of 3 of ssh)"),
    ("a next knock", &[Knock("tcp/7000")], "udp/8000", "a datagram would be dropped: correct knock (2 of 3 of ssh)"),
    ("a last knock", &[Knock("tcp/7000 udp/8000")], "tcp/9000", "a new connection would be dropped: door opened (ssh opens tcp/22, udp/5353 for 10m)"),
    ("half way", &[Knock("tcp/7000 udp/8000")], "tcp/22", "a new connection would be dropped: no grant"),
    ("a wrong knock", &[Knock("tcp/7000")], "tcp/9000", "a new connection would be dropped: wrong knock (after 1 of 3 of ssh)"),
    ("a knock out of sequence", &[], "udp/8000", "a datagram would be dropped: knock out of sequence"),
    ("a decoy", &[Knock("tcp/7000")], "tcp/7001", "a new connection would be dropped: decoy port (after 1 of 3 of ssh)"),
    ("another port", &[Knock("tcp/7000")], "tcp/5555", "a new connection would pass: unrelated port during an attempt (after 1 of 3 of ssh)"),
    ("another port, not knocking", &[], "tcp/5555", "a new connection would pass: port not configured"),
    ("an exempt port", &[Knock("tcp/7000")], "tcp/443", "a new connection would pass: the port is exempt"),
    ("locked out", &[Knock("tcp/7000 tcp/9000 tcp/7000 tcp/9000")], "tcp/7000", "a new connection would be dropped: locked out"),
];

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
fn explain_agrees_with_what_a_packet_meets() {
    for family in Family::ALL {
        net::test(|net| {
            let _server = Server::tcp(&net.server, &[SSH, 443, 3306, 5555]);
            let _echo = Server::tcp(&net.server, &[]).and_udp(&net.server, 5353);
            let daemon = Daemon::start(&net.server, HOUSE);
            for (number, &(name, steps, port, outcome)) in (1_u128..).zip(SITUATIONS) {
                // Lockouts of IPv6 are for a /64, so each row has one of its own.
                let source = match family {
                    Family::V4 => net.new_source(family),
                    Family::V6 => {
                        let from = (0x2001_0db8_000a << 80) | (number << 64) | 9;
                        net.source(Ipv6Addr::from(from).into(), family.server())
                    }
                };
                happens(net, &source, steps);
                let explained = explained(net, source.from, port);
                assert_eq!(last_sentence(&explained), outcome, "{family}: {name}");
                meets(&daemon, &source, port, &explained, name);
            }
            // Trusted from its own address.
            let trusted = net.native(family);
            let explained = explained(net, trusted.from, "tcp/22");
            assert_eq!(
                last_sentence(&explained),
                "a new connection would pass: trusted source"
            );
            trusted.finds_open(SSH, "trusted");
            daemon.stop();
        });
    }
}

#[test]
fn explain_prints_the_chain_of_reasons() {
    net::test(|net| {
        let daemon = Daemon::start(&net.server, HOUSE);
        let source = net.new_source(Family::V4);
        let name = source.name();
        source.knock("tcp/7000 udp/8000");
        let text = ask(&net.server, &format!("explain {name} tcp/22")).out;
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 5, "{text}");
        assert_eq!(lines[0], "tcp/22 is protected; opened by ssh");
        assert_eq!(lines[1], format!("{name} is not trusted"));
        assert_eq!(lines[2], "no grant");
        let left = lines[3]
            .strip_prefix("2 of 3 knocks of ssh made, ")
            .unwrap();
        assert!(left.ends_with("s left for the rest"), "{text}");
        assert_eq!(lines[4], "a new connection would be dropped: no grant");
        // Explaining is no knock.
        source.knock("tcp/9000");
        daemon.wait_for_event(&json!({"event": "opened", "source": name}));
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
fn every_watcher_receives_every_event() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let daemon = Daemon::start(&net.server, DOOR);
        let watch = |more: &[&str]| {
            let mut command = Command::new(&binaries().user);
            Process::start(&net.server, command.arg("watch").args(more))
        };
        let (text, json) = (watch(&[]), watch(&["--json"]));
        wait::until("both watch", || {
            answer(&net.server, "status")["watchers"] == 2
        });
        let client = net.new_source(Family::V6);
        client.knock(KNOCKS);
        let name = client.name();
        wait::until("the text has it", || {
            let opened = |line: &String| {
                line.contains(" opened ") && line.contains(&name) && line.contains("tcp/22 for 30s")
            };
            text.stdout().iter().any(opened)
        });
        wait::until("the objects have it", || {
            let pattern = json!({"event": "opened", "source": name, "door": "ssh"});
            events(&json.stdout())
                .iter()
                .any(|event| has(event, &pattern))
        });
        daemon.stop();
        for watching in [text, json] {
            let ended = watching.wait();
            assert_eq!(ended.status.code(), COULD_NOT);
            assert!(ended.stderr.contains("the process has ended"), "{ended:?}");
            assert!(
                ended.stdout.last().unwrap().contains("detached"),
                "the last line comes through: {ended:?}"
            );
        }
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

#[test]
fn clients_that_hang_or_send_nonsense_disturb_no_other() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let daemon = Daemon::start(&net.server, DOOR);
        let path = sockets(&net.server).pop().unwrap();
        let connect = || UnixStream::connect(&path).unwrap();
        let hanging: Vec<_> = (0..10).map(|_| connect()).collect();
        // Asks for the list, and never reads it.
        let mut deaf = connect();
        deaf.write_all(b"{\"protocol\":1,\"command\":\"list\"}\n")
            .unwrap();
        let mut watching = connect();
        watching
            .write_all(b"{\"protocol\":1,\"command\":\"watch\"}\n")
            .unwrap();
        for nonsense in [
            &b"\0\xff\n"[..],
            &[b'x'; 100_000],
            b"{}\n",
            b"{\"protocol\":1}\n",
        ] {
            let mut stream = connect();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let _refused = stream.write_all(nonsense);
            let mut reply = String::new();
            let _reset = stream.read_to_string(&mut reply);
            assert!(reply.contains("\"failed\""), "{reply}");
        }
        thread::scope(|scope| {
            let asking: Vec<_> = (0..10)
                .map(|_| scope.spawn(|| answer(&net.server, "status")))
                .collect();
            let client = net.new_source(Family::V4);
            client.knock(KNOCKS);
            client.finds_open(SSH, "meanwhile");
            for asked in asking {
                let status = asked.join().unwrap();
                assert_eq!(status["pid"], daemon.process().id());
            }
        });
        daemon.wait_for_event(&json!({"event": "opened"}));
        // They don't hold it when it ends, either.
        daemon.stop();
        drop((hanging, deaf, watching));
    });
}

#[test]
fn only_root_and_the_group_may_use_the_socket() {
    const NOBODY: u32 = 65_534;
    const ADM: u32 = 4;
    net::test(|net| {
        let user = binaries().user.to_str().unwrap();
        let ask_as = |group: u32, groups: &str| {
            let uid = format!("--reuid={NOBODY}");
            let gid = format!("--regid={group}");
            ran(
                &net.server,
                "setpriv",
                &[&uid, &gid, groups, user, "list", "--json"],
            )
        };
        let daemon = Daemon::start(&net.server, DOOR);
        ask_as(NOBODY, "--clear-groups").fails(COULD_NOT, "is for root: try `sudo`");
        daemon.stop();
        let daemon = Daemon::start(&net.server, &format!("[control]\ngroup = \"adm\"\n{DOOR}"));
        ask_as(NOBODY, "--clear-groups").fails(COULD_NOT, "is for root: try `sudo`");
        let listed = ask_as(ADM, "--clear-groups").answer();
        assert_eq!(listed, json!({"grants": []}));
        // The file's mode admits this user, who is not a member.
        ask_as(NOBODY, "--groups=4").fails(
            COULD_NOT,
            "uid 65534 is not let in, only root and the group adm",
        );
        daemon.stop();
    });
}

#[test]
fn a_reload_changes_the_group_that_may_use_the_socket() {
    net::test(|net| {
        let with_adm = format!("[control]\ngroup = \"adm\"\n{DOOR}");
        let mut daemon = Daemon::start(&net.server, &with_adm);
        list_as_adm(net).answer();
        let user = binaries().user.to_str().unwrap();
        let mut watch = Command::new("setpriv");
        watch.args([
            "--reuid=65534",
            "--regid=4",
            "--clear-groups",
            user,
            "watch",
        ]);
        let watching = Process::start(&net.server, &mut watch);
        let client = net.new_source(Family::V4);
        wait::until("it watches", || {
            client.knock(KNOCKS);
            !watching.stdout().is_empty()
        });

        daemon.rewrite(DOOR);
        let reloaded = ask(&net.server, "reload --confirm 1s");
        assert_eq!(reloaded.code, Some(0), "{reloaded:?}");
        list_as_adm(net).fails(COULD_NOT, "is for root: try `sudo`");
        watching.wait();
        wait::until("the previous configuration is restored", || {
            list_as_adm(net).code == Some(0)
        });

        // A signal would not apply what was not confirmed.
        let reloaded = ask(&net.server, "reload");
        assert_eq!(reloaded.code, Some(0), "{reloaded:?}");
        list_as_adm(net).fails(COULD_NOT, "is for root: try `sudo`");
        daemon.reload(&with_adm);
        list_as_adm(net).answer();

        // That takes a capability that the daemon has given up.
        daemon.rewrite(&format!("[control]\ngroup = \"daemon\"\n{DOOR}"));
        ask(&net.server, "reload").fails(COULD_NOT, "restart it for that");
        list_as_adm(net).answer();
        daemon.stop();
    });
}

/// The result of a command of an administrator.
#[derive(Debug)]
struct Asked {
    code: Option<i32>,
    out: String,
    error: String,
}

impl Asked {
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
fn ask(namespace: &Namespace, words: &str) -> Asked {
    let words: Vec<_> = words.split_whitespace().collect();
    ran(namespace, binaries().user.to_str().unwrap(), &words)
}

fn ran(namespace: &Namespace, program: &str, arguments: &[&str]) -> Asked {
    let output = namespace.try_run(program, arguments);
    Asked {
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

/// A packet, or an action of an administrator.
enum Step {
    Knock(&'static str),
    Ask(&'static str),
}

fn happens(net: &Net, source: &Source<'_>, steps: &[Step]) {
    for step in steps {
        match step {
            Knock(knocks) => source.knock(knocks),
            Ask(words) => {
                let asked = ask(&net.server, &words.replace("SOURCE", &source.name()));
                assert_eq!(asked.code, Some(0), "{asked:?}");
            }
        }
    }
}

#[track_caller]
fn explained(net: &Net, source: IpAddr, port: &str) -> Value {
    answer(&net.server, &format!("explain {source} {port}"))
}

fn last_sentence(explained: &Value) -> &str {
    explained["steps"]
        .as_array()
        .unwrap()
        .last()
        .unwrap()
        .as_str()
        .unwrap()
}

/// Sends the packet that was explained, and compares.
#[track_caller]
fn meets(daemon: &Daemon, source: &Source<'_>, port: &str, explained: &Value, name: &str) {
    let (protocol, number) = port.split_once('/').unwrap();
    let number: u16 = number.parse().unwrap();
    let passes = explained["verdict"] == "pass";
    if protocol == "tcp" {
        source.finds(passes, number, name);
    } else {
        // A knock has no echo, whether or not it passes: its event shows it.
        assert_eq!(source.has_udp_echo(number), passes, "{name}");
    }
    let reason = explained["reason"].as_str().unwrap();
    // Packets pass without an event by default, and openings are reported by the ledger.
    let pattern = match reason {
        "granted" | "trusted" | "ordinary" => return,
        "opened" => json!({"event": "opened", "source": source.name()}),
        _ => json!({"source": source.name(), "port": number, "reason": reason}),
    };
    daemon.wait_for_event(&pattern);
}

/// Runs `list` as a user of the group adm.
fn list_as_adm(net: &Net) -> Asked {
    let user = binaries().user.to_str().unwrap();
    let words = ["--reuid=65534", "--regid=4", "--clear-groups", user];
    let words = [&words[..], &["list", "--json"]].concat();
    ran(&net.server, "setpriv", &words)
}
