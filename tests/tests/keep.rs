//! `knock-client --keep` against a real door: renewals, and changes of the client's address.

#![expect(
    clippy::unwrap_used,
    reason = "clippy.toml's exception does not reach helpers of tests"
)]

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, process::Command};

use knock_tests::{
    binary::binaries,
    daemon::Daemon,
    namespace::run,
    net::{self, Family, Net},
    process::Process,
    server::Server,
    ssh::{KNOCKS, SSH},
    wait,
};
use nix::sys::signal::Signal;
use serde_json::json;
use tempfile::tempdir;

/// The first address of the client, and the one after a move.
const MOVED: u8 = 77;

#[test]
fn the_door_stays_open_while_the_client_runs() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let door = "[[door]]\nname = \"ssh\"\nknock = [\"tcp/7000\", \"udp/8000\", \"tcp/9000\"]\n\
                    open = [\"tcp/22\"]\nopen_for = \"5s\"\n";
        let daemon = Daemon::start(&net.server, door);
        for family in Family::ALL {
            let host = family.server().to_string();
            let source = net.native(family);
            let words = format!("{KNOCKS} --open-for 2s --then-connect 22");
            let client = keep(net, &host, &words);
            // Together longer than a grant: each renewal moves the end.
            let refreshed = json!({"event": "refreshed", "source": source.name(), "door": "ssh"});
            wait::until("nine renewals", || {
                daemon.events_like(&refreshed).len() >= 9
            });
            source.finds_open(SSH, &host);
            let closed = json!({"event": "closed", "source": source.name()});
            assert_eq!(daemon.events_like(&closed), [json!(null); 0], "{family}");
            ends(client, &host);
            daemon.wait_for_event(&closed);
        }
        daemon.stop();
    });
}

#[test]
fn a_client_that_moves_opens_the_door_from_its_new_address() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let directory = tempdir().unwrap();
        let [user_key, host_key] = ["user", "host"].map(|name| directory.path().join(name));
        let user = public(Command::new(&binaries().client).arg("keygen"), &user_key);
        let host_public = public(Command::new(&binaries().user).arg("keygen"), &host_key);
        let once = directory.path().join("once");
        let config = format!(
            "[spa]\nkey = {host_key:?}\n\n[[user]]\nname = \"alice\"\nkeys = [\"{user}\"]\ndoors = [\"ssh\"]\n\n\
             [[door]]\nname = \"ssh\"\nknock = [\"tcp/7000\", \"udp/8000\", \"tcp/9000\"]\nopen = [\"tcp/22\"]\n\
             open_for = \"10m\"\n\n[[door]]\nname = \"other\"\nknock = [\"tcp/7001\", \"udp/8001\", \
             \"tcp/9001\"]\nopen = [\"tcp/22\"]\nopen_for = \"10m\"\n"
        );
        let daemon = Daemon::start(&net.server, &config);
        let packet = format!("--spa {host_public} --key {}", user_key.display());
        let lines = format!("--one-time {} --open-for 10m", once.display());
        for family in Family::ALL {
            let host = family.server().to_string();
            let (here, there) = (
                family.client().to_string(),
                family.source(MOVED).to_string(),
            );
            for (row, words) in [
                ("knocks", format!("{KNOCKS} --open-for 10m")),
                ("a packet", packet.clone()),
                ("one-time lines", lines.clone()),
            ] {
                let row = &format!("{family}, {row}");
                fs::write(&once, " 7000,8000:udp,9000\n 7001,8001:udp,9001\n").unwrap();
                fs::set_permissions(&once, fs::Permissions::from_mode(0o600)).unwrap();
                let before = daemon.events().len();
                let opened = |source: &str| {
                    let events = daemon.events().split_off(before);
                    let is_this = |event: &&serde_json::Value| {
                        let kind = &event["event"];
                        (kind == "opened" || kind == "refreshed") && event["source"] == source
                    };
                    events.iter().filter(is_this).count()
                };
                let client = keep(net, &host, &format!("{words} --then-connect 22"));
                prints(&client, "until Ctrl-C", row);
                wait::until(row, || opened(&here) == 1);
                moves(net, family);
                let moved = format!("this machine's address is {there} now, not {here}: renewing");
                prints(&client, &moved, row);
                wait::until(row, || opened(&there) == 1);
                wait::until(row, || {
                    let connected = client.stdout();
                    connected
                        .iter()
                        .filter(|line| line.starts_with("connected"))
                        .count()
                        == 2
                });
                ends(client, row);
                returns(net, family);
            }
        }
        daemon.stop();
    });
}

/// Lines are not taken while nothing can be sent.
#[test]
fn a_client_without_a_network_waits_for_it() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let door = "[[door]]\nname = \"ssh\"\nknock = [\"tcp/7000\", \"udp/8000\", \"tcp/9000\"]\n\
                    open = [\"tcp/22\"]\n";
        let daemon = Daemon::start(&net.server, door);
        for family in Family::ALL {
            let (host, here) = (family.server().to_string(), family.client().to_string());
            let client = keep(net, &host, &format!("{KNOCKS} --open-for 1h"));
            prints(&client, "until Ctrl-C", &host);
            net.client.ip(&format!("route add unreachable {host}"));
            let lost = format!("this machine has no route to {host}: waiting for the network");
            prints(&client, &lost, &host);
            let sent = |client: &Process| {
                let lines = client.stdout();
                lines
                    .iter()
                    .filter(|line| line.starts_with("knock 1 of"))
                    .count()
            };
            assert_eq!(sent(&client), 1, "{host}");
            net.client.ip(&format!("route del unreachable {host}"));
            let back = format!("the network is back, with the address {here}: renewing");
            prints(&client, &back, &host);
            wait::until(&host, || sent(&client) == 2);
            ends(client, &host);
        }
        daemon.stop();
    });
}

/// Starts a client that keeps the door open.
fn keep(net: &Net, host: &str, words: &str) -> Process {
    let mut client = Command::new(&binaries().client);
    client.arg(host).args(words.split_whitespace());
    client.args(["--keep", "-v"]);
    Process::start(&net.client, &mut client)
}

fn prints(client: &Process, text: &str, row: &str) {
    wait::until(&format!("{row}: {text}"), || {
        client.stdout().iter().any(|line| line.contains(text))
    });
}

fn ends(client: Process, row: &str) {
    let ended = client.stop(Signal::SIGINT);
    assert_eq!(ended.status.code(), Some(0), "{row}: {ended:?}");
}

/// Makes the client's packets to the server come from another address, as in another network.
fn moves(net: &Net, family: Family) {
    let (server, source) = (family.server(), family.source(MOVED));
    if family == Family::V6 {
        // A route takes only a configured address.
        net.client
            .ip(&format!("addr replace {source}/128 dev lo nodad"));
    }
    net.client
        .ip(&format!("route add {server} dev a0 src {source}"));
}

fn returns(net: &Net, family: Family) {
    net.client
        .ip(&format!("route del {} dev a0", family.server()));
}

/// Makes a key and returns its public key.
fn public(keygen: &mut Command, path: &Path) -> String {
    let printed = run(keygen.arg("--out").arg(path));
    let found = printed
        .split(['"', '\n', ' '])
        .find(|word| word.starts_with("knock1:"));
    found.unwrap().to_owned()
}
