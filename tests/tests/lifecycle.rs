//! From the start of knock-user to its end: how it attaches, what it runs, what it leaves.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails with the test")]

use std::{
    collections::HashMap,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use knock_tests::{
    daemon::{self, Daemon, config_file},
    net::{self, Family, SERVER_LINK, SERVER_LINK_2},
    pins::attached_programs,
    process::Process,
    server::Server,
    source::echoes,
    ssh::{DOOR, KNOCKS, SSH},
    wait,
};
use nix::sys::signal::Signal;
use serde_json::json;
use tempfile::TempDir;

#[test]
fn a_stop_detaches_and_names_the_open_ports() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        net::test(|net| {
            let _server = Server::tcp(&net.server, &[SSH]);
            let daemon = Daemon::start(&net.server, DOOR);
            net.new_source(Family::V4).finds_closed(SSH, "protected");
            let ended = daemon.stop_by(signal);
            let last = daemon::events(&ended.stdout).pop().unwrap();
            let expected =
                json!({"event": "detached", "interface": SERVER_LINK, "ports": ["tcp/22"]});
            assert!(daemon::has(&last, &expected), "{signal}: {last}");
            assert_eq!(attached_programs(&net.server), [] as [u32; 0], "{signal}");
            net.new_source(Family::V4)
                .finds(true, SSH, "no longer protected");
        });
    }
}

#[test]
fn lines_for_people_name_ports_doors_and_sources() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let config = config_file(DOOR.as_bytes());
        let mut command = daemon::command(&config);
        let process = Process::start(&net.server, command.args(["--iface", SERVER_LINK]));
        let prints = |words: &[&str]| {
            wait::until(&format!("a line with {words:?}"), || {
                let lines = process.stdout();
                lines
                    .iter()
                    .any(|line| words.iter().all(|word| line.contains(word)))
            });
        };
        prints(&["fallback to tc on b0 because native XDP on veth"]);
        prints(&["protecting tcp/22 on b0 (tc), 1 door"]);
        let source = net.new_source(Family::V4);
        source.finds_closed(SSH, "protected");
        prints(&["denied", &source.name(), "tcp/22"]);
        source.knock(KNOCKS);
        prints(&["opened", &source.name(), "ssh", "tcp/22 for 30s"]);
        let ended = process.stop(Signal::SIGINT);
        assert!(ended.status.success(), "{ended:?}");
        let last = ended.stdout.last().map_or("", String::as_str);
        assert!(
            last.ends_with(" detached: tcp/22 is no longer protected on b0"),
            "{last}"
        );
    });
}

#[test]
fn each_level_of_verbosity_logs_its_packets() {
    let rows: [(&str, &[&str], bool, bool); 3] = [
        ("quiet", &[], false, false),
        ("decisions", &["-v"], true, false),
        ("every packet", &["-vv"], true, true),
    ];
    for (name, arguments, decisions, packets) in rows {
        net::test(|net| {
            let _server = Server::tcp(&net.server, &[SSH, 80]);
            let arguments = [&["--iface", SERVER_LINK], arguments].concat();
            let daemon = Daemon::start_with(&net.server, DOOR, &arguments);
            let source = net.new_source(Family::V4);
            source.finds(true, 80, name);
            source.finds_closed(SSH, name);
            daemon.wait_for_event(&json!({"event": "denied", "source": source.name()}));
            let ended = daemon.stop();
            let prints = |word: &str| ended.stderr.contains(word);
            assert_eq!(prints("no-grant"), decisions, "{name}: {}", ended.stderr);
            assert_eq!(prints("the verifier walked"), decisions, "{name}");
            assert_eq!(prints("ordinary"), packets, "{name}: {}", ended.stderr);
        });
    }
}

#[test]
fn the_mode_is_the_one_asked_for() {
    let rows: [(&str, &[&str], &str); 5] = [
        ("default", &[], "tc"),
        ("auto", &["--mode", "auto"], "tc"),
        ("native", &["--mode", "native"], "native"),
        ("skb", &["--mode", "skb"], "skb"),
        ("tc", &["--mode", "tc"], "tc"),
    ];
    for (name, arguments, mode) in rows {
        net::test(|net| {
            let server = Server::tcp(&net.server, &[SSH]);
            let arguments = [&["--iface", SERVER_LINK], arguments].concat();
            let daemon = Daemon::start_with(&net.server, DOOR, &arguments);
            daemon.wait_for_event(
                &json!({"event": "protecting", "mode": mode, "interface": SERVER_LINK,
                "ports": ["tcp/22"], "doors": 1}),
            );
            for family in Family::ALL {
                let row = format!("{name}, {family}");
                let [source, unauthorized] = [net.new_source(family), net.new_source(family)];
                source.finds_closed(SSH, &row);
                let mut stream = source
                    .knock_and_connect(KNOCKS, SSH)
                    .unwrap_or_else(|error| panic!("{row}: {error}"));
                assert!(echoes(&mut stream), "{row}");
                unauthorized.finds_closed(SSH, &row);
                assert!(!server.met(unauthorized.from, SSH), "{row}");
            }
            daemon.stop();
        });
    }
}

#[test]
fn interfaces_share_knocks_and_grants() {
    net::test(|net| {
        net.add_second_link();
        let _server = Server::tcp(&net.server, &[SSH]);
        let interfaces = ["--iface", SERVER_LINK_2, "--iface", SERVER_LINK];
        let daemon = Daemon::start_with(&net.server, DOOR, &interfaces);
        for link in [SERVER_LINK, SERVER_LINK_2] {
            daemon.wait_for_event(&json!({"event": "protecting", "interface": link}));
        }
        for family in Family::ALL {
            let row = &family.to_string();
            let here = net.new_source(family);
            // The answers go through the first link: the client takes them from there as well.
            let there = here.to(family.second_server());
            here.finds_closed(SSH, row);
            there.finds_closed(SSH, row);
            here.knock("tcp/7000");
            there.knock("udp/8000");
            here.knock("tcp/9000");
            here.finds(true, SSH, row);
            there.finds(true, SSH, row);
        }
        let ended = daemon.stop();
        for link in [SERVER_LINK, SERVER_LINK_2] {
            let stopped = json!({"event": "detached", "interface": link});
            let events = daemon::events(&ended.stdout);
            assert!(
                events.iter().any(|event| daemon::has(event, &stopped)),
                "{link}"
            );
        }
    });
}

#[test]
fn a_dry_run_drops_nothing_and_logs_what_it_would() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH, 7000]);
        let config = config_file(DOOR.as_bytes());
        let mut command = daemon::command(&config);
        command.args(["--iface", SERVER_LINK, "--dry-run"]);
        let process = Process::start(&net.server, &mut command);
        let prints = |words: &[&str]| {
            wait::until(&format!("a line with {words:?}"), || {
                let lines = process.stdout();
                lines
                    .iter()
                    .any(|line| words.iter().all(|word| line.contains(word)))
            });
        };
        prints(&["would protect tcp/22 on b0"]);
        for family in Family::ALL {
            let source = net.new_source(family);
            source.finds(true, SSH, "a protected port");
            prints(&["would drop", &source.name(), "tcp/22"]);
            source.finds(true, 7000, "a knock port");
            source.knock("udp/8000 tcp/9000");
            prints(&["opened", &source.name()]);
        }
        let ended = process.stop(Signal::SIGINT);
        assert!(ended.status.success(), "{ended:?}");

        let arguments = ["--iface", SERVER_LINK, "--dry-run"];
        let directory = TempDir::new().unwrap();
        let (on_open, opened) = recorder(&directory, "on-open");
        let config = format!("{DOOR}\non_open = [\"{on_open}\"]");
        let daemon = Daemon::start_with(&net.server, &config, &arguments);
        let source = net.new_source(Family::V4);
        source.finds(true, SSH, "a protected port");
        daemon
            .wait_for_event(&json!({"event": "denied", "source": source.name(), "dry_run": true}));
        source.knock(KNOCKS);
        daemon.wait_for_event(&json!({"event": "opened", "source": source.name()}));
        // A stop waits for the commands that run.
        daemon.stop();
        assert!(records(&opened).is_empty(), "a dry run ran on_open");
    });
}

#[test]
fn an_interface_that_is_down_is_protected_when_it_comes_up() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        net.server.ip("link set b0 down");
        let daemon = Daemon::start(&net.server, DOOR);
        let warning = "b0 is down: it is protected";
        wait::until("a warning", || daemon.process().stderr().contains(warning));
        net.server.ip_batch(
            "link set b0 up
             address replace 2001:db8::2/64 dev b0 nodad
             route replace 198.51.100.0/24 via 192.0.2.1
             neighbour replace 192.0.2.1 lladdr 02:00:00:00:00:a0 dev b0 nud permanent",
        );
        let source = net.new_source(Family::V4);
        wait::until("the link carries packets", || {
            source
                .connect(81, std::time::Duration::from_millis(50))
                .is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
        });
        source.finds_closed(SSH, "up again");
        source.knock(KNOCKS);
        source.finds(true, SSH, "knocked");
        daemon.stop();
    });
}

#[test]
fn a_link_that_goes_down_keeps_its_protection_and_its_grants() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let daemon = Daemon::start(&net.server, DOOR);
        let [source, unauthorized] = [net.new_source(Family::V4), net.new_source(Family::V4)];
        source.knock(KNOCKS);
        source.finds(true, SSH, "knocked");
        net.client.ip("link set a0 down");
        net.client.ip("link set a0 up");
        net.client
            .ip("neighbour replace 192.0.2.2 lladdr 02:00:00:00:00:b0 dev a0 nud permanent");
        wait::until("the link carries packets", || {
            source
                .connect(81, std::time::Duration::from_millis(50))
                .is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
        });
        source.finds(true, SSH, "still open");
        unauthorized.finds_closed(SSH, "still closed");
        daemon.stop();
    });
}

#[test]
fn commands_run_once_with_their_arguments_and_environment() {
    let directory = TempDir::new().unwrap();
    let (on_open, opened) = recorder(&directory, "on-open");
    let (on_close, closed) = recorder(&directory, "on-close");
    net::test(|net| {
        let config = format!(
            r#"{DOOR}
            open_for = "1s"
            on_open = ["{on_open}", "{{source}}", "{{door}} {{port}}", "$(id);`id`"]
            on_close = ["{on_close}", "{{family}}"]
            "#
        );
        let daemon = Daemon::start(&net.server, &config);
        let mut sources = Vec::new();
        for (family, number) in [(Family::V4, "4"), (Family::V6, "6")] {
            let source = net.new_source(family);
            source.knock(KNOCKS);
            sources.push((source.name(), number));
        }
        for (path, arguments) in [(&opened, true), (&closed, false)] {
            let of = |name: &str| -> Vec<_> {
                let mine = |run: &HashMap<_, _>| run.get("KNOCK_SOURCE").is_some_and(|s| s == name);
                records(path).into_iter().filter(mine).collect()
            };
            for (name, family) in &sources {
                wait::until(&format!("{} for {name}", path.display()), || {
                    !of(name).is_empty()
                });
                let runs = of(name);
                let [run] = runs.as_slice() else {
                    panic!("more than once: {runs:?}");
                };
                let value = |key: &str| run.get(key).map(String::as_str).unwrap_or_default();
                assert_eq!(value("KNOCK_DOOR"), "ssh", "{run:?}");
                assert_eq!(value("KNOCK_PORT"), "22", "{run:?}");
                assert!(value("KNOCK_FAMILY").ends_with(family), "{run:?}");
                if arguments {
                    assert_eq!(
                        value("args"),
                        format!("{name} ssh 22 $(id);`id`"),
                        "{run:?}"
                    );
                } else {
                    assert_eq!(value("args"), value("KNOCK_FAMILY"), "{run:?}");
                }
            }
        }
        daemon.stop();
        assert_eq!(
            records(&opened).len(),
            sources.len(),
            "on_open ran once for each"
        );
        assert_eq!(
            records(&closed).len(),
            sources.len(),
            "on_close ran once for each"
        );
    });
}

#[test]
fn a_stop_undoes_what_on_open_did() {
    let directory = TempDir::new().unwrap();
    let (on_close, closed) = recorder(&directory, "on-close");
    net::test(|net| {
        let config = format!("{DOOR}\non_close = [\"{on_close}\", \"{{source}}\"]");
        let daemon = Daemon::start(&net.server, &config);
        let source = net.new_source(Family::V4);
        source.knock(KNOCKS);
        daemon.wait_for_event(&json!({"event": "opened", "source": source.name()}));
        assert_eq!(records(&closed), []);
        daemon.stop();
        let runs = records(&closed);
        assert_eq!(runs.len(), 1, "{runs:?}");
        assert_eq!(runs[0].get("args"), Some(&source.name()), "{runs:?}");
    });
}

#[test]
fn failing_commands_are_logged_and_change_nothing() {
    let rows = [
        (
            "exit status and output",
            r#"["/bin/sh", "-c", "echo out; echo rules are locked >&2; exit 7"]"#,
            vec!["on_open", "exit status 7", "rules are locked"],
        ),
        (
            "no such program",
            r#"["/no/such/program"]"#,
            vec!["on_open", "/no/such/program"],
        ),
        (
            "time limit",
            r#"["/bin/sh", "-c", "echo waiting; sleep 60"]"#,
            vec!["on_open", "stopped after 1s", "waiting"],
        ),
    ];
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        for (name, command, words) in rows {
            let config = format!("{DOOR}\ncommand_timeout = \"1s\"\non_open = {command}");
            let daemon = Daemon::start(&net.server, &config);
            let source = net.new_source(Family::V4);
            source.knock(KNOCKS);
            source.finds(true, SSH, name);
            let words = [words, vec![source.from.to_string().leak()]].concat();
            wait::until(&format!("{name}: a line with {words:?}"), || {
                let stderr = daemon.process().stderr();
                stderr
                    .lines()
                    .any(|line| words.iter().all(|word| line.contains(word)))
            });
            daemon.stop();
        }
    });
}

/// Packets need no user space: a daemon that is stopped (SIGSTOP) changes nothing for them.
#[test]
fn packets_are_judged_while_the_daemon_is_suspended() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let config = config_file(format!("{DOOR}\nopen_for = \"1s\"").as_bytes());
        let mut command = daemon::command(&config);
        command.args(["--json", "--iface", SERVER_LINK]);
        let mut process = Process::start(&net.server, command.stdin(Stdio::null()));
        wait::until("it protects", || {
            process
                .stdout()
                .iter()
                .any(|line| line.contains("\"protecting\""))
        });
        process.signal(Signal::SIGSTOP);
        for family in Family::ALL {
            let row = &family.to_string();
            let source = net.new_source(family);
            source.finds_closed(SSH, row);
            let connected = source.knock_and_connect(KNOCKS, SSH);
            assert!(connected.is_ok(), "{row}: {connected:?}");
            // The grant has to expire.
            std::thread::sleep(std::time::Duration::from_millis(1_100));
            source.finds_closed(SSH, row);
        }
        process.signal(Signal::SIGCONT);
        wait::until("it reports everything afterwards", || {
            let events = daemon::events(&process.stdout());
            let count = |what: &str| events.iter().filter(|event| event["event"] == what).count();
            count("opened") == 2 && count("closed") == 2
        });
        let ended = process.stop(Signal::SIGINT);
        assert!(ended.status.success(), "{ended:?}");
    });
}

/// The reader of the console may end; the protection continues.
#[test]
fn a_closed_output_stops_nothing() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let config = config_file(DOOR.as_bytes());
        let mut command = daemon::command(&config);
        command.args(["--iface", SERVER_LINK]);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut child = net.server.enter(|| command.spawn()).unwrap();
        wait::until("it is attached", || {
            !attached_programs(&net.server).is_empty()
        });
        drop(child.stdout.take());
        let source = net.new_source(Family::V4);
        for _ in 0..3 {
            source.finds_closed(SSH, "without a reader");
        }
        source.knock(KNOCKS);
        source.finds(true, SSH, "knocked");
        assert!(matches!(child.try_wait(), Ok(None)), "it continues");
        let id = nix::unistd::Pid::from_raw(child.id().cast_signed());
        nix::sys::signal::kill(id, Signal::SIGINT).unwrap();
        let status = wait::poll(wait::PATIENCE, || child.try_wait().unwrap());
        assert!(status.is_some_and(|status| status.success()), "{status:?}");
    });
}

#[test]
fn check_touches_nothing() {
    net::test(|net| {
        let config = config_file(DOOR.as_bytes());
        let path = config.path().display().to_string();
        let user = &knock_tests::binary::binaries().user;
        let mut command = Command::new(user);
        command.args(["check", "--config", &path]);
        let output = net.server.enter(|| command.output()).unwrap();
        assert!(output.status.success(), "{output:?}");
        let printed = String::from_utf8_lossy(&output.stdout);
        assert!(printed.contains("tcp/22"), "{printed}");
        assert_eq!(attached_programs(&net.server), [] as [u32; 0]);
    });
}

/// Returns a script that writes its arguments and variables to a new file, and the directory of these files.
fn recorder(directory: &TempDir, name: &str) -> (String, PathBuf) {
    let script = directory.path().join(name);
    let records = directory.path().join(format!("{name}.d"));
    fs::create_dir(&records).unwrap();
    // Several may run at once, and none is read before it is whole.
    let text = format!(
        "#!/bin/sh\nnew=$(mktemp {0}/XXXXXX)\n{{ echo \"args=$*\"; env; }} > $new\nmv $new $new.whole\n",
        records.display()
    );
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    (script.display().to_string(), records)
}

/// Returns the records of the script: the variables of each run, and its arguments as `args`.
fn records(directory: &Path) -> Vec<HashMap<String, String>> {
    let files = fs::read_dir(directory)
        .unwrap()
        .flatten()
        .map(|entry| entry.path());
    let whole = files.filter(|path| path.extension().is_some_and(|end| end == "whole"));
    whole
        .map(|path| {
            let text = fs::read_to_string(path).unwrap();
            let lines = text.lines().filter_map(|line| line.split_once('='));
            lines
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect()
        })
        .collect()
}
