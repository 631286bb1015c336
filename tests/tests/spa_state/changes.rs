//! Users and their used packets over reloads on trial, and over upgrades.

use std::{
    fs,
    path::Path,
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use knock_sequence::spa::{Channel, DoorId, PrivateKey};
use knock_tests::{
    binary::binaries,
    daemon::{self, config_file},
    namespace::Namespace,
    net::{self, Family, SERVER_LINK},
    pins::{self, attached_programs},
    process::Process,
    server::Server,
    ssh::SSH,
    wait,
};
use nix::sys::signal::Signal::SIGTERM;
use serde_json::Value;

use crate::keys::{DOORS, KeyedHost, gets_in, is_refused, packet, send, start, user_table};

/// Enough for every check before the end of a trial, on a busy machine.
const TRIAL: &str = "8s";
const PAUSE: Duration = Duration::from_millis(5);

/// Users of the trial get in until its end, the others from then on, and no packet twice.
#[test]
fn an_unconfirmed_change_of_users_is_rolled_back() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let keys = KeyedHost::new();
        let [other, host] = [(); 2].map(|()| PrivateKey::generate().unwrap());
        keys.write("new-host.key", &host);
        let before = keys.config("alice", &keys.text());
        let others = format!("\"{}\"", other.public());
        // The client, another client, and the client of another key of the host.
        let channels = [
            (&keys.client, keys.host.public()),
            (&other, keys.host.public()),
            (&keys.client, host.public()),
        ]
        .map(|(client, host)| Channel::new(client, host).unwrap());
        let rows = [
            (
                "a user is added",
                format!("{before}{}", user_table("bob", &others)),
                [true, true, false],
            ),
            (
                "a key is replaced",
                keys.config("alice", &others),
                [false, true, false],
            ),
            (
                "the host's key is replaced",
                before.replace("/host.key", "/new-host.key"),
                [false, false, true],
            ),
            (
                "all users are removed",
                format!("protect = [\"tcp/22\"]\n{}", without_users()),
                [false; 3],
            ),
        ];
        let daemon = start(net, &before);
        let mut used = vec![gets_in(net, &channels[0], "before")];
        for (row, config, opens) in rows {
            daemon.rewrite(&config);
            let (code, answer) = daemon::ask(&net.server, &["reload", "--confirm", TRIAL]);
            assert_eq!(code, Some(0), "{row}: {answer}");
            for (channel, opens) in channels.iter().zip(opens) {
                if opens {
                    used.push(gets_in(net, channel, row));
                } else {
                    let source = net.new_source(Family::V4);
                    send(&source, &packet(channel, DoorId::FIRST));
                    source.finds_closed(SSH, row);
                }
            }
            let on_trial = shortfalls(&net.server);
            assert!(on_trial.contains(&"on-trial".to_owned()), "{row}: slow");
            wait::until("the trial is rolled back", || {
                shortfalls(&net.server) == ["config-changed"]
            });
            for packet in &used {
                let source = net.new_source(Family::V4);
                send(&source, packet);
                source.finds_closed(SSH, &format!("{row}: used before"));
            }
            used = vec![gets_in(net, &channels[0], row)];
            for channel in &channels[1..] {
                let source = net.new_source(Family::V4);
                send(&source, &packet(channel, DoorId::FIRST));
                source.finds_closed(SSH, &format!("{row}: as before"));
            }
        }
        daemon.stop();
    });
}

/// Packets that arrive during an upgrade count once, too, whichever program judges them.
#[test]
fn used_packets_stay_used_over_upgrades() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let keys = KeyedHost::new();
        let channel = keys.channel();
        let users = keys.config("alice", &keys.text());
        let fwknop = keys.path("bob.fwknop");
        fs::write(&fwknop, "KEY a passphrase\nHMAC_KEY an HMAC key\n").unwrap();
        let both =
            format!("{users}[[user]]\nname = \"bob\"\nfwknop = {fwknop:?}\ndoors = [\"ssh\"]\n");
        let others =
            format!("trust = [\"10.0.0.0/8\"]\nlockout.failures = 3\ndecoys.count = 9\n{users}");
        let nobody = format!("protect = [\"tcp/22\"]\n{}", without_users());
        let copy = keys.path("knock-user");
        fs::copy(&binaries().user, &copy).unwrap();
        let user = &binaries().user;
        let rows: [(&str, &Path, &str, &[&str]); 8] = [
            ("a first start", user, &users, &[]),
            ("the same", user, &users, &[]),
            ("another binary", &copy, &users, &[]),
            ("another program", user, &users, &["-v"]),
            ("other features", &copy, &others, &["-vv"]),
            ("users of fwknop too", user, &both, &[]),
            ("no users", &copy, &nobody, &[]),
            ("users again", user, &users, &[]),
        ];
        let mut used: Vec<Vec<u8>> = Vec::new();
        let mut programs = Vec::new();
        for (row, binary, config, arguments) in rows {
            let file = config_file(config.as_bytes());
            let mut command = Command::new(binary);
            command.args(["--json", "--config"]).arg(file.path());
            command.args(["--iface", SERVER_LINK, "--on-exit", "keep"]);
            command.args(arguments);
            let is_protecting = AtomicBool::new(false);
            let source = net.new_source(Family::V6);
            let (process, sent) = thread::scope(|scope| {
                let sender = scope.spawn(|| {
                    let mut sent = Vec::new();
                    while !is_protecting.load(Ordering::Relaxed) {
                        let packet = packet(&channel, DoorId::FIRST);
                        send(&source, &packet);
                        sent.push(packet);
                        thread::sleep(PAUSE);
                    }
                    sent
                });
                let process = Process::start(&net.server, &mut command);
                let protecting = wait::poll(wait::PATIENCE, || {
                    process
                        .stdout()
                        .iter()
                        .any(|line| line.contains("\"protecting\""))
                        .then_some(())
                });
                is_protecting.store(true, Ordering::Relaxed);
                let sent = sender.join().unwrap();
                assert!(protecting.is_some(), "{row}: {}", process.printed());
                (process, sent)
            });
            // Before the first start nothing judged them.
            if !programs.is_empty() {
                used.extend(sent);
            }
            let source = net.new_source(Family::V6);
            used.iter().for_each(|packet| send(&source, packet));
            source.finds_closed(SSH, row);
            let [program] = attached_programs(&net.server)[..] else {
                panic!("{row}: not one program");
            };
            assert!(!programs.contains(&program), "{row}: it was not replaced");
            programs.push(program);
            let has_users = row != "no users";
            let next = || has_users.then(|| gets_in(net, &channel, row));
            used.extend(next());
            let ended = process.stop(SIGTERM);
            assert!(ended.status.success(), "{row}: {ended:?}");
            used.extend(next());
            for packet in used.iter().rev().take(2) {
                is_refused(net, packet, &format!("{row}: no process"));
            }
        }
        daemon::detach(&net.server);
        pins::nothing_is_left(&net.server, &programs);
    });
}

/// Returns the doors that need no user.
fn without_users() -> &'static str {
    DOORS.split_at(DOORS.rfind("[[door]]").unwrap()).1
}

/// Returns the kinds of shortfalls in the status.
#[track_caller]
fn shortfalls(server: &Namespace) -> Vec<String> {
    let user = binaries().user.display().to_string();
    let output = server.try_run(&user, &["status", "--json"]);
    let status: Value = serde_json::from_slice(&output.stdout).unwrap();
    let all = status["shortfalls"].as_array().unwrap().iter();
    all.map(|one| one["kind"].as_str().unwrap().to_owned())
        .collect()
}
