//! The control socket: who may use it, and clients that hang or watch.

use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    process::Command,
    thread,
};

use knock_tests::{
    binary::binaries,
    daemon::{Daemon, events, has},
    net::{self, Family, Net},
    process::Process,
    server::Server,
    ssh::{DOOR, KNOCKS, SSH},
    wait::{self, PATIENCE},
};
use serde_json::json;

use crate::{AskResult, COULD_NOT, answer, ask, ran, sockets};

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

/// Runs `list` as a user of the group adm.
fn list_as_adm(net: &Net) -> AskResult {
    let user = binaries().user.to_str().unwrap();
    let words = ["--reuid=65534", "--regid=4", "--clear-groups", user];
    let words = [&words[..], &["list", "--json"]].concat();
    ran(&net.server, "setpriv", &words)
}
