//! A long reload delays neither interfaces nor requests nor an end.

use std::{io::ErrorKind, process::Command, time::Duration};

use knock_tests::{
    binary::binaries,
    daemon::{self, Daemon, config_file},
    net::{self, Family, Net, SERVER_LINK, SERVER_LINK_2},
    pins::{self, attached_programs},
    process::Process,
    server::Server,
    source::Source,
    ssh::{DOOR, KNOCKS, SSH},
    wait,
};
use nix::sys::signal::Signal::{SIGHUP, SIGTERM};
use serde_json::json;

const UNDER_WAY: &str = "a reload is under way";
/// A process that starts to use time-based doors waits for it.
const LOCK: &str = "used-sequences.lock";

#[test]
fn a_long_reload_delays_no_interface_and_no_request() {
    const BOTH: [&str; 4] = ["--iface", SERVER_LINK, "--iface", SERVER_LINK_2];
    net::test(|net| {
        net.add_second_link();
        let _server = Server::tcp(&net.server, &[SSH]);
        let mut daemon = Daemon::start_with(&net.server, DOOR, &BOTH);
        let protecting = json!({"event": "protecting", "interface": SERVER_LINK_2});
        let reloaded = json!({"event": "reloaded"});
        wait::until("both are protected", || {
            !daemon.events_like(&protecting).is_empty()
        });
        let held = net.server.hold(LOCK);
        daemon.rewrite(&config());
        let reloading = reload(net);
        is_under_way(net);

        net.server.ip(&format!("link delete {SERVER_LINK_2}"));
        net.add_second_link();
        wait::until("the new one is protected", || {
            daemon.events_like(&protecting).len() == 2
        });
        carries_packets(net);
        elsewhere(net).finds_closed(SSH, "while the reload is under way");
        let client = net.new_source(Family::V4);
        client.knock(KNOCKS);
        client.finds(true, SSH, "doors open");
        daemon.wait_for_event(&json!({"event": "opened", "source": client.name()}));

        for (words, code, expected) in [
            (&["status"][..], None, UNDER_WAY),
            (&["list"], Some(0), "ssh"),
            (
                &["grant", "203.0.113.9", "--door", "ssh"],
                Some(0),
                "203.0.113.9",
            ),
            (&["reload"], Some(1), UNDER_WAY),
            (&["confirm"], Some(1), UNDER_WAY),
        ] {
            let (status, answer) = daemon::ask(&net.server, words);
            assert!(code.is_none() || status == code, "{words:?}: {answer}");
            assert!(answer.contains(expected), "{words:?}: {answer}");
        }
        // A signal during a reload causes another reload.
        daemon.process_mut().signal(SIGHUP);
        assert!(daemon.events_like(&reloaded).is_empty());
        drop(held);
        let ended = reloading.wait();
        assert!(ended.status.success(), "{ended:?}");
        wait::until("it is reloaded again", || {
            daemon.events_like(&reloaded).len() == 2
        });
        client.finds(true, SSH, "grants continue");
        elsewhere(net).finds_closed(SSH, "after the reload");
        daemon.stop();
    });
}

/// An end waits for no lock that another process holds.
#[test]
fn a_stop_does_not_wait_for_a_long_reload() {
    net::test(|net| {
        let daemon = Daemon::start(&net.server, DOOR);
        let programs = daemon.programs().to_vec();
        let _held = net.server.hold(LOCK);
        daemon.rewrite(&config());
        let reloading = reload(net);
        is_under_way(net);
        let ended = daemon.end_by(SIGTERM);
        assert!(ended.status.success(), "{ended:?}");
        let reload = reloading.wait();
        assert_eq!(reload.status.code(), Some(1), "{reload:?}");
        assert!(reload.stderr.contains("the daemon is ending"), "{reload:?}");
        pins::nothing_is_left(&net.server, &programs);
    });
}

/// As above, with the work itself instead of a lock: a configuration that takes long to compile and to load.
#[test]
fn a_large_reload_delays_no_request_and_no_end() {
    net::test(|net| {
        let daemon = Daemon::start(&net.server, DOOR);
        let programs = daemon.programs().to_vec();
        daemon.rewrite(&large());
        let reloading = reload(net);
        is_under_way(net);
        for words in [&["status"][..], &["list"], &["reload"], &["status"]] {
            let (_, answer) = daemon::ask(&net.server, words);
            let is_known = answer.contains(UNDER_WAY) || answer.contains("no grants");
            assert!(is_known, "{words:?}: {answer}");
        }
        let ended = daemon.end_by(SIGTERM);
        assert!(ended.status.success(), "{ended:?}");
        let reload = reloading.wait();
        assert_eq!(reload.status.code(), Some(1), "{reload:?}");
        assert!(reload.stderr.contains("the daemon is ending"), "{reload:?}");
        pins::nothing_is_left(&net.server, &programs);
    });
}

/// Kept protection covers an interface that appears while the next start compiles.
#[test]
fn a_long_restart_delays_no_interface() {
    const BOTH: [&str; 6] = [
        "--iface",
        SERVER_LINK,
        "--iface",
        SERVER_LINK_2,
        "--on-exit",
        "keep",
    ];
    net::test(|net| {
        net.add_second_link();
        let _server = Server::tcp(&net.server, &[SSH]);
        Daemon::start_with(&net.server, DOOR, &BOTH).leave(SIGTERM);
        net.server.ip(&format!("link delete {SERVER_LINK_2}"));

        let held = net.server.hold(LOCK);
        let file = config_file(config().as_bytes());
        let mut command = daemon::command(&file);
        command.args(BOTH).args(["--json", "--wait-for-interfaces"]);
        let starting = Process::start(&net.server, &mut command);
        net.add_second_link();
        wait::until("both have a program", || {
            attached_programs(&net.server).len() == 2
        });
        carries_packets(net);
        elsewhere(net).finds_closed(SSH, "while the start prepares");
        let events = daemon::events(&starting.stdout());
        assert!(events.is_empty(), "it is not ready: {events:?}");
        drop(held);
        daemon::wait_for_event(
            &starting,
            &json!({"event": "protecting", "interface": SERVER_LINK_2}),
        );
        elsewhere(net).finds_closed(SSH, "after the start");
        assert!(starting.stop(SIGTERM).status.success());
    });
}

/// Returns a time-based door, whose first start reads which sequences were used.
fn config() -> String {
    format!(
        "{DOOR}\n[[door]]\nname = \"timed\"\nopen = [\"tcp/8080\"]\n\
         otp = {{ secret = \"correct horse battery\", protocols = [\"tcp\", \"udp\", \"tcp\"] }}\n"
    )
}

/// Returns a configuration with many doors and knocks.
fn large() -> String {
    let mut doors = DOOR.to_owned();
    for door in 0..3_000 {
        let knocks = (0..40).map(|knock: u32| {
            // A permutation for each door: no port twice in a row, and no scan completes it.
            let port = 20_000 + (door * 7_919 + knock * 104_729) % 39_989;
            format!("\"udp/{port}\"")
        });
        let knocks = knocks.collect::<Vec<_>>().join(", ");
        doors += &format!(
            "[[door]]\nname = \"d{door}\"\nknock = [{knocks}]\nopen = [\"tcp/{}\"]\n",
            1 + door % 1_000
        );
    }
    doors
}

fn reload(net: &Net) -> Process {
    let mut command = Command::new(&binaries().user);
    Process::start(&net.server, command.arg("reload"))
}

#[track_caller]
fn is_under_way(net: &Net) {
    wait::until(UNDER_WAY, || {
        let (_, output) = daemon::ask(&net.server, &["confirm"]);
        output.contains(UNDER_WAY)
    });
}

/// Returns a source without a grant, behind the second link.
fn elsewhere(net: &Net) -> Source<'_> {
    net.new_source(Family::V4).to(Family::V4.second_server())
}

/// Waits until the second link carries packets: an unused port refuses.
#[track_caller]
fn carries_packets(net: &Net) {
    let source = elsewhere(net);
    wait::until("the link carries packets", || {
        source
            .connect(81, Duration::from_millis(50))
            .is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
    });
}
