//! The ends of knock-user, and what is protected afterwards.

use std::{
    thread,
    time::{Duration, Instant},
};

use knock_tests::{
    daemon::{self, Daemon, config_file},
    net::{self, Family, SERVER_LINK},
    pins::{self, attached_programs},
    process::Process,
    record::CommandLog,
    server::Server,
    source::echoes,
    ssh::{DOOR, KNOCKS, SSH},
    wait,
};
use nix::sys::signal::Signal::{self, SIGCONT, SIGINT, SIGSTOP, SIGTERM};
use serde_json::json;

const KEEP: [&str; 4] = ["--iface", SERVER_LINK, "--on-exit", "keep"];

#[test]
fn a_stop_detaches_unless_on_exit_is_keep() {
    let rows: [(&str, &[&str], Signal); 3] = [
        ("by default", &[], SIGINT),
        ("by default, of a service", &[], SIGTERM),
        ("as wished", &["--on-exit", "detach"], SIGTERM),
    ];
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        for (row, arguments, signal) in rows {
            let record = CommandLog::new();
            let config = format!("{DOOR}\n{}", record.keys());
            let arguments = [&["--iface", SERVER_LINK], arguments].concat();
            let daemon = Daemon::start_with(&net.server, &config, &arguments);
            let programs = daemon.programs().to_vec();
            let source = net.new_source(Family::V4);
            source.knock(KNOCKS);
            record.gets(&format!("open ssh {}", source.name()));
            let ended = daemon.stop_by(signal);
            let last = daemon::events(&ended.stdout).pop().unwrap();
            let stopped =
                json!({"event": "detached", "interface": SERVER_LINK, "ports": ["tcp/22"]});
            assert!(daemon::has(&last, &stopped), "{row}: {last}");
            pins::nothing_is_left(&net.server, &programs);
            net.new_source(Family::V4).finds(true, SSH, row);
            // It has waited for the commands.
            assert_eq!(record.count(&format!("close ssh {}", source.name())), 1);
        }
    });
}

#[test]
fn with_on_exit_keep_a_stop_leaves_ports_protected() {
    for signal in [SIGINT, SIGTERM] {
        net::test(|net| {
            let row = signal.as_str();
            let _server = Server::tcp(&net.server, &[SSH]);
            let record = CommandLog::new();
            let config = format!("{DOOR}\n{}", record.keys());
            let daemon = Daemon::start_with(&net.server, &config, &KEEP);
            let programs = attached_programs(&net.server);
            let source = net.new_source(Family::V4);
            source.knock(KNOCKS);
            record.gets(&format!("open ssh {}", source.name()));
            let mut connection = source.finds_open(SSH, row);

            let ended = daemon.leave(signal);
            let events = daemon::events(&ended.stdout);
            let left = json!({"event": "left-on", "interface": SERVER_LINK, "ports": ["tcp/22"]});
            assert!(
                daemon::has(events.last().unwrap(), &left),
                "{row}: {events:?}"
            );
            let stopped = json!({"event": "detached"});
            assert!(!events.iter().any(|event| daemon::has(event, &stopped)));

            assert_eq!(attached_programs(&net.server), programs, "{row}");
            assert!(echoes(&mut connection), "{row}: a connection");
            source.finds(true, SSH, "let in before");
            net.new_source(Family::V4).finds_closed(SSH, row);
            for family in Family::ALL {
                let connected = net.new_source(family).knock_and_connect(KNOCKS, SSH);
                assert!(connected.is_ok(), "{row}, {family}: {connected:?}");
            }
            assert_eq!(record.count(&format!("close ssh {}", source.name())), 0);
        });
    }
}

#[test]
fn a_stop_prints_what_stays_protected() {
    net::test(|net| {
        let config = config_file(DOOR.as_bytes());
        let mut command = daemon::command(&config);
        let process = Process::start(&net.server, command.args(KEEP));
        wait::until("it protects", || !process.stdout().is_empty());
        let ended = process.stop(SIGTERM);
        let last = ended.stdout.last().unwrap();
        for words in ["tcp/22 stays protected on b0", "`knock-user detach`"] {
            assert!(last.contains(words), "{last}");
        }
    });
}

/// The process is suspended, so the events and the signal reach it at the same moment.
#[test]
fn a_stop_reports_what_happened_before_it() {
    let rows: [(&str, &[&str]); 2] = [("detached", &[]), ("left-on", &["--on-exit", "keep"])];
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        for (end, arguments) in rows {
            // The loop looks at its sources in random order.
            for round in 0..2 {
                let record = CommandLog::new();
                let config = format!("{DOOR}\n{}", record.keys());
                let arguments = [&["--iface", SERVER_LINK], arguments].concat();
                let mut daemon = Daemon::start_with(&net.server, &config, &arguments);
                daemon.process_mut().signal(SIGSTOP);
                let source = net.new_source(Family::V4);
                source.knock(KNOCKS);
                source.finds(true, SSH, end);
                daemon.process_mut().signal(SIGTERM);
                let ended = daemon.leave(SIGCONT);
                let events = daemon::events(&ended.stdout);
                let opened = json!({"event": "opened", "source": source.name(), "door": "ssh"});
                let is_reported = events.iter().any(|event| daemon::has(event, &opened));
                assert!(is_reported, "{end}, round {round}: {events:?}");
                assert!(daemon::has(events.last().unwrap(), &json!({"event": end})));
                assert_eq!(record.count(&format!("open ssh {}", source.name())), 1);
                if end == "left-on" {
                    daemon::detach(&net.server);
                }
            }
        }
    });
}

/// A grant lasts for its time, whichever process runs.
#[test]
fn the_next_start_takes_over_kept_grants() {
    const OPEN_FOR: Duration = Duration::from_secs(8);
    const BRIEF: Duration = Duration::from_secs(1);
    const BRIEF_DOOR: &str = r#"
        [[door]]
        name = "brief"
        knock = ["tcp/7100", "udp/8100", "tcp/9100"]
        open = ["tcp/22"]
        open_for = "1s"
    "#;
    net::test(|net| {
        let server = Server::tcp(&net.server, &[SSH]);
        let record = CommandLog::new();
        let keys = record.keys();
        let config = format!("{DOOR}\nopen_for = \"8s\"\n{keys}\n{BRIEF_DOOR}\n{keys}");
        let first = Daemon::start_with(&net.server, &config, &KEEP);
        let [early, late] = [net.new_source(Family::V4), net.new_source(Family::V6)];
        early.knock(KNOCKS);
        let knocked = Instant::now();
        record.gets(&format!("open ssh {}", early.name()));
        let mut connection = early.finds_open(SSH, "knocked");
        first.leave(SIGTERM);
        // No process runs now.
        late.knock(KNOCKS);
        assert!(
            knocked.elapsed() < OPEN_FOR,
            "too slow a machine for this test"
        );

        let second = Daemon::start_with(&net.server, &config, &KEEP);
        let kept =
            second.wait_for_event(&json!({"event": "kept", "source": early.name(), "door": "ssh"}));
        let seconds = kept["seconds"].as_f64().unwrap();
        assert!(seconds < OPEN_FOR.as_secs_f64(), "{kept}");
        second.wait_for_event(&json!({"event": "opened", "source": late.name(), "door": "ssh"}));
        record.gets(&format!("open ssh {}", late.name()));
        for source in [early, late] {
            let closed = json!({"event": "closed", "source": source.name(), "reason": "expired"});
            second.wait_for_event(&closed);
            source.finds_closed(SSH, "its time is over");
            record.gets(&format!("close ssh {}", source.name()));
            // Each opening was reported and closed once, by one of the two.
            assert_eq!(record.count(&format!("open ssh {}", source.name())), 1);
            assert_eq!(second.events_like(&closed).len(), 1);
        }
        assert!(echoes(&mut connection), "the connection continues");

        // Grants also expire without a process.
        let last = net.new_source(Family::V4);
        second.leave(SIGINT);
        let connected = last.knock_and_connect("tcp/7100 udp/8100 tcp/9100", SSH);
        assert!(connected.is_ok(), "no daemon runs: {connected:?}");
        let end = Instant::now() + BRIEF + Duration::from_millis(50);
        thread::sleep(end.saturating_duration_since(Instant::now()));
        last.finds_closed(SSH, "it has expired and no daemon runs");
        assert!(server.met(early.from, SSH));

        let third = Daemon::start(&net.server, &config);
        third.wait_for_event(
            &json!({"event": "closed", "source": last.name(), "reason": "expired"}),
        );
        record.gets(&format!("close brief {}", last.name()));
        let programs = third.programs().to_vec();
        third.stop();
        pins::nothing_is_left(&net.server, &programs);
    });
}
