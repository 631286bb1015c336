//! A configuration of several files while it is in force: a file for each person.

#![expect(
    clippy::unwrap_used,
    reason = "what a test can't do, it says by a panic"
)]

use std::{
    fs,
    os::unix::fs::symlink,
    path::PathBuf,
    process::{Command, Stdio},
};

use knock_tests::{
    binary::binaries,
    daemon,
    net::{self, Family, Net},
    process::Process,
    server::Server,
    source::echoes,
    wait,
};
use nix::sys::signal::Signal::SIGTERM;
use serde_json::Value;
use tempfile::TempDir;

const MAIN: &str = "include = [\"seq.d/*.toml\"]\ninterfaces = [\"b0\"]\n";
const ALICE: (u16, &str) = (22, "tcp/7000 udp/8000 tcp/9000");
const BOB: (u16, &str) = (80, "tcp/7100 udp/8100 tcp/9100");
const CAROL: (u16, &str) = (443, "tcp/7200 udp/8200 tcp/9200");

#[test]
fn a_file_for_each_person_is_added_corrected_and_removed_by_reloads() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[ALICE.0, BOB.0, CAROL.0]);
        let files = Files::new();
        files.write("seq.d/alice.toml", &door("alice", ALICE));
        files.write("seq.d/bob.toml", &door("bob", BOB));
        let process = files.start(net);
        opens(net, ALICE, "at the start");
        opens(net, BOB, "at the start");
        // Whatever the directory is in which the command runs.
        assert_eq!(shortfalls(net), [] as [&str; 0], "{}", process.printed());

        let typo = door("bob", BOB).replace("open =", "opne =");
        files.write("seq.d/bob.toml", &typo);
        let output = reload(net, 2);
        assert!(
            output.contains("seq.d/bob.toml:4: opne: unknown key: did you mean open?"),
            "{output}"
        );
        assert_eq!(shortfalls(net), ["config-changed", "reload-failed"]);
        opens(net, ALICE, "after a typo");
        opens(net, BOB, "after a typo");

        files.write("seq.d/bob.toml", &door("bob", BOB));
        reload(net, 0);
        assert_eq!(shortfalls(net), [] as [&str; 0]);

        files.write("seq.d/alice-2.toml", &door("alice", CAROL));
        let output = reload(net, 2);
        assert!(
            output.contains("seq.d/alice.toml:2: name: door \"alice\" on line 1 of ")
                && output.contains("seq.d/alice-2.toml has the same name"),
            "{output}"
        );
        files.remove("seq.d/alice-2.toml");

        symlink("none.toml", files.path("seq.d/carol.toml")).unwrap();
        let output = reload(net, 2);
        assert!(
            output.contains("seq.toml:1: include: ")
                && output
                    .contains("seq.d/carol.toml is a symbolic link to a file that does not exist"),
            "{output}"
        );
        // A link to a file elsewhere is followed.
        files.write("seq.d/none.toml", "");
        fs::rename(files.path("seq.d/none.toml"), files.path("carol.toml")).unwrap();
        files.remove("seq.d/carol.toml");
        symlink("../carol.toml", files.path("seq.d/carol.toml")).unwrap();
        files.write("carol.toml", &door("carol", CAROL));
        reload(net, 0);
        opens(net, CAROL, "through a link");

        let bob = net.new_source(Family::V4);
        let mut connection = bob.knock_and_connect(BOB.1, BOB.0).unwrap();
        files.remove("seq.d/alice.toml");
        assert_eq!(shortfalls(net), ["config-changed"]);
        reload(net, 0);
        assert_eq!(shortfalls(net), [] as [&str; 0]);
        net.new_source(Family::V4)
            .finds(true, ALICE.0, "no door protects it");
        opens(net, BOB, "after another file was removed");
        assert!(echoes(&mut connection));

        // Without any file, nothing would be protected.
        files.remove("seq.d/bob.toml");
        files.remove("seq.d/carol.toml");
        let output = reload(net, 2);
        assert!(output.contains("protects no port"), "{output}");
        opens(net, BOB, "after all files were removed");
        process.stop(SIGTERM);
        daemon::detach(&net.server);
    });
}

/// What was on trial is rolled back from the text that was kept, and not from the files.
#[test]
fn a_trial_of_a_further_file_is_rolled_back() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[ALICE.0, BOB.0]);
        let files = Files::new();
        files.write("seq.d/alice.toml", &door("alice", ALICE));
        let process = files.start(net);
        files.remove("seq.d/alice.toml");
        files.write("seq.d/bob.toml", &door("bob", BOB));
        let (code, output) = daemon::ask(&net.server, &["reload", "--confirm", "2s"]);
        assert_eq!(code, Some(0), "{output}");
        wait::until("the trial is rolled back", || {
            shortfalls(net) == ["config-changed"]
        });
        opens(net, ALICE, "as before");
        net.new_source(Family::V4).finds(true, BOB.0, "as before");
        process.stop(SIGTERM);
        daemon::detach(&net.server);
    });
}

/// A directory with `seq.toml` and the files that it includes.
struct Files(TempDir);

impl Files {
    fn new() -> Self {
        let files = Self(TempDir::new().unwrap());
        fs::create_dir(files.path("seq.d")).unwrap();
        files.write("seq.toml", MAIN);
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    fn remove(&self, name: &str) {
        fs::remove_file(self.path(name)).unwrap();
    }

    /// Starts the program in the directory of the files.
    fn start(&self, net: &Net) -> Process {
        let mut command = Command::new(&binaries().user);
        command
            .args(["--config", "seq.toml", "--json"])
            .current_dir(self.0.path())
            .stdin(Stdio::null());
        let process = Process::start(&net.server, &mut command);
        wait::until("it protects", || {
            let lines = process.stdout();
            lines.iter().any(|line| line.contains("\"protecting\""))
        });
        process
    }
}

fn door(name: &str, (port, knocks): (u16, &str)) -> String {
    let knocks: Vec<_> = knocks.split(' ').collect();
    format!("[[door]]\nname = \"{name}\"\nknock = {knocks:?}\nopen = [\"tcp/{port}\"]\n")
}

#[track_caller]
fn opens(net: &Net, (port, knocks): (u16, &str), what: &str) {
    let source = net.new_source(Family::V4);
    source.finds_closed(port, what);
    source.knock(knocks);
    source.finds(true, port, what);
}

#[track_caller]
fn reload(net: &Net, expected: i32) -> String {
    let (code, output) = daemon::ask(&net.server, &["reload"]);
    assert_eq!(code, Some(expected), "{output}");
    output
}

#[track_caller]
fn shortfalls(net: &Net) -> Vec<String> {
    let (_, text) = daemon::ask(&net.server, &["status", "--json"]);
    let answer: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}"));
    let all = answer["shortfalls"].as_array().unwrap();
    let kinds = all
        .iter()
        .map(|one| one["kind"].as_str().unwrap().to_owned());
    kinds.collect()
}
