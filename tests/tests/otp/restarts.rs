//! Used time-based sequences stay used, whatever happens to the process and its files.

use std::fs;

use knock_tests::{
    daemon::{self, Daemon},
    namespace::STATE_FILE,
    net::{self, Family, Net, SERVER_LINK},
    otp::{Otp, unix},
    server::Server,
    ssh::SSH,
    wait,
};
use nix::sys::signal::Signal;
use serde_json::json;

use crate::{OTHER, door, has_opened, knock, named, opens};

/// The events after which a process might forget used sequences.
type Forget = fn(Daemon, &Net, &str) -> Daemon;

/// A used sequence opens nothing in its period, whatever happens to the daemon meanwhile.
#[test]
fn used_sequences_stay_used_across_restarts() {
    let rows: [(&str, Forget); 11] = [
        ("SIGTERM and a start", |daemon, net, config| {
            daemon.leave(Signal::SIGTERM);
            restart(net, config)
        }),
        ("kill -9 and a start", |daemon, net, config| {
            daemon.kill();
            restart(net, config)
        }),
        ("kill -9, detach and a start", |daemon, net, config| {
            daemon.kill();
            detach(net);
            restart(net, config)
        }),
        ("detach and a start", |daemon, net, config| {
            detach(net);
            daemon.wait();
            restart(net, config)
        }),
        ("kept and started", |daemon, net, config| {
            daemon.leave(Signal::SIGTERM);
            let kept = keep(net, config);
            kept.leave(Signal::SIGTERM);
            restart(net, config)
        }),
        ("another name", |mut daemon, _, config| {
            daemon.reload(&config.replace("\"ssh\"", "\"login\""));
            daemon
        }),
        ("another name after kill -9", |daemon, net, config| {
            daemon.kill();
            restart(net, &config.replace("\"ssh\"", "\"login\""))
        }),
        ("another name after SIGTERM", |daemon, net, config| {
            daemon.leave(Signal::SIGTERM);
            restart(net, &config.replace("\"ssh\"", "\"login\""))
        }),
        ("taken out and back", |mut daemon, _, config| {
            daemon.reload(OTHER);
            daemon.reload(config);
            daemon
        }),
        (
            "taken out, restarted and back",
            |mut daemon, net, config| {
                daemon.reload(OTHER);
                daemon.leave(Signal::SIGTERM);
                let mut daemon = restart(net, OTHER);
                daemon.reload(config);
                daemon
            },
        ),
        ("behind another door", |mut daemon, _, config| {
            daemon.reload(&format!("{OTHER}{config}"));
            daemon
        }),
    ];
    let otp = Otp::steady("a secret");
    let config = format!("{}open_for = \"1s\"\n", door(&otp));
    for (name, forget) in rows {
        net::test(|net| {
            let _server = Server::tcp(&net.server, &[SSH]);
            let source = net.new_source(Family::V4);
            let daemon = Daemon::start(&net.server, &config);
            let period = otp.now();
            knock(&source, &otp, period);
            opens(&daemon, &source, "ssh");
            wait::until("the grant has ended", || {
                !daemon
                    .events_like(&json!({"event": "closed", "source": source.name()}))
                    .is_empty()
            });
            let daemon = forget(daemon, net, &config);
            let opened = json!({"event": "opened", "source": source.name()});
            let before = daemon.events_like(&opened).len();
            knock(&source, &otp, period);
            source.finds_closed(SSH, name);
            assert_eq!(daemon.events_like(&opened).len(), before, "{name}");
            daemon.stop();
            net.server.forget_used();
        });
    }
}

/// If the record of used sequences is lost, only later periods are accepted.
#[test]
fn time_based_doors_wait_while_used_sequences_are_unknown() {
    let rows: [(&str, Option<&str>); 5] = [
        ("no file", None),
        (
            "another instance of this boot that no process serves",
            Some(r#"{"open": {"b0@ns9": "BOOT"}, "unknown_before_ms": 0, "used": []}"#),
        ),
        ("a file that can't be read", Some("{")),
        (
            "another boot that did not end in order",
            Some(r#"{"open": {"b0@ns9": "another boot"}, "unknown_before_ms": 0, "used": []}"#),
        ),
        (
            "it was not known before either",
            Some(r#"{"open": {}, "unknown_before_ms": NOW, "used": []}"#),
        ),
    ];
    for (name, file) in rows {
        net::test(|net| {
            let _server = Server::tcp(&net.server, &[SSH]);
            let otp = Otp {
                skew: 0,
                ..Otp::every(8, "a secret")
            };
            // Early in a period, so that the next one does not begin meanwhile.
            wait::until("a period begins", || unix().is_multiple_of(otp.period));
            let path = net.server.state().join(STATE_FILE);
            match file {
                Some(text) => {
                    let now = format!("{}", unix() * 1_000);
                    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
                    let text = text.replace("NOW", &now).replace("BOOT", boot.trim());
                    fs::write(&path, text).unwrap();
                }
                None => fs::remove_file(&path).unwrap(),
            }
            let daemon = Daemon::start(&net.server, &door(&otp));
            let source = net.new_source(Family::V4);
            let first = otp.now();
            knock(&source, &otp, first);
            source.finds_closed(SSH, name);
            assert_eq!(
                otp.now(),
                first,
                "{name}: the machine is too slow for this test"
            );
            assert!(!has_opened(&daemon, &source), "{name}");
            assert!(
                daemon
                    .process()
                    .stderr()
                    .contains("time-based doors can be opened in")
            );
            wait::until("the next period", || otp.now() > first);
            let later = net.new_source(Family::V4);
            wait::until("the next sequence opens", || {
                knock(&later, &otp, otp.now());
                has_opened(&daemon, &later)
            });
            daemon.stop();
            net.server.forget_used();
        });
    }
}

/// The two doors have one secret, so a recorded sequence is known for both.
#[test]
fn doors_that_share_a_secret_share_used_sequences() {
    let otp = Otp::steady("a secret");
    let other = Otp {
        base: 30_000,
        ..otp.clone()
    };
    let config = format!("{}{}", door(&otp), named("other", &other));
    net::test(|net| {
        let daemon = Daemon::start(&net.server, &config);
        let source = net.new_source(Family::V4);
        let period = otp.now();
        knock(&source, &otp, period);
        opens(&daemon, &source, "ssh");
        knock(&source, &other, period);
        let second = net.new_source(Family::V4);
        knock(&second, &other, period + 1);
        opens(&daemon, &second, "other");
        let by_other = json!({"event": "opened", "source": source.name(), "door": "other"});
        assert!(daemon.events_like(&by_other).is_empty());
        daemon.stop();
    });
}

/// Starts a daemon that detaches when it ends.
fn restart(net: &Net, config: &str) -> Daemon {
    Daemon::start(&net.server, config)
}

fn keep(net: &Net, config: &str) -> Daemon {
    Daemon::start_with(
        &net.server,
        config,
        &["--iface", SERVER_LINK, "--on-exit", "keep"],
    )
}

fn detach(net: &Net) {
    let (code, output) = daemon::ask(&net.server, &["detach"]);
    assert_eq!(code, Some(0), "{output}");
}
