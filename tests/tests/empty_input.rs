//! Missing or empty input never opens a port: a reload, a signal and a restart over kept
//! protection change nothing, and report it.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails with the test")]

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, chown},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use knock_tests::{
    binary::binaries,
    daemon,
    net::{self, Family, Net, SERVER_LINK, SERVER_LINK_2},
    pins::{self, attached_programs},
    process::Process,
    server::Server,
    ssh::{DOOR, KNOCKS, SSH},
    wait,
};
use nix::{
    sys::{
        signal::Signal::{SIGHUP, SIGTERM},
        stat::Mode,
    },
    unistd::mkfifo,
};
use tempfile::TempDir;

const RUNS: &str = "interfaces = [\"b0\"]\n[[door]]\nname = \"ssh\"\n\
    knock = [\"tcp/7000\", \"udp/8000\", \"tcp/9000\"]\nopen = []\non_open = [\"/bin/true\"]\n";

/// The input, and a part of the error.
const INPUTS: &[(&str, ConfigInput, &str)] = &[
    ("empty", ConfigInput::Text(""), "has no effect"),
    ("blank", ConfigInput::Text(" \n\t\n"), "has no effect"),
    (
        "comments",
        ConfigInput::Text("# nothing\n"),
        "has no effect",
    ),
    (
        "interfaces alone",
        ConfigInput::Text("interfaces = [\"b0\"]\n"),
        "has no effect",
    ),
    (
        "runs a command, and closes nothing",
        ConfigInput::Text(RUNS),
        "tcp/22 would be open to everybody",
    ),
    (
        "no interface is left",
        ConfigInput::Text("interfaces = []\nprotect = [\"tcp/22\"]\n"),
        "no interface to protect",
    ),
    (
        "half a line",
        ConfigInput::Text("interfaces = [\"b0\"]\n[[door]]\nname = \"ssh\"\nkno"),
        ":4",
    ),
    ("zeros", ConfigInput::Text("\0\0\0\0\0\0\0\0"), "not TOML"),
    ("missing", ConfigInput::Missing, "can't be read"),
    ("a directory", ConfigInput::Directory, "can't be read"),
];

/// Inputs that a start can read and a running process can't.
const AGAIN: &[(&str, ConfigInput, &str)] = &[
    (
        "a drained pipe",
        ConfigInput::Pipe,
        "a pipe can be read only once",
    ),
    ("unreadable", ConfigInput::Unreadable, "can't be read"),
];

#[test]
fn a_reload_of_empty_input_changes_nothing() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let (_directory, path, mut process) = protected(net, &config(), &[]);
        let programs = attached_programs(&net.server);
        for (row, input, word) in INPUTS.iter().chain(AGAIN) {
            input.put(&path);
            let (code, output) = daemon::ask(&net.server, &["reload"]);
            assert_eq!(code, Some(2), "{row}: {output}");
            assert!(output.contains(word), "{row}: no {word:?} in {output}");
            let before = process.stderr().len();
            process.signal(SIGHUP);
            wait::until(&format!("{row}: a warning"), || {
                let stderr = process.stderr();
                let since = &stderr[before..];
                since.contains("warning: the configuration is not reloaded") && since.contains(word)
            });
            is_closed(net, row);
            assert_eq!(attached_programs(&net.server), programs, "{row}");
        }
        let ended = process.stop(SIGTERM);
        let events = daemon::events(&ended.stdout);
        assert!(!events.iter().any(|event| event["event"] == "reloaded"));
        daemon::detach(&net.server);
    });
}

#[test]
fn a_restart_with_empty_input_changes_nothing() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let (_directory, path, process) = protected(net, &config(), &[]);
        assert!(process.stop(SIGTERM).status.success());
        let programs = attached_programs(&net.server);
        for (row, input, word) in INPUTS {
            input.put(&path);
            let ended = start(net, &path, &[]).wait();
            assert_eq!(ended.status.code(), Some(2), "{row}: {ended:?}");
            assert!(ended.stderr.contains(word), "{row}: {ended:?}");
            is_closed(net, row);
            assert_eq!(attached_programs(&net.server), programs, "{row}");
        }
        // Standard input is empty.
        let ended = start(net, Path::new("/dev/stdin"), &["--iface", SERVER_LINK]).wait();
        assert_eq!(ended.status.code(), Some(2), "{ended:?}");
        is_closed(net, "a drained pipe");
        daemon::detach(&net.server);
        net.new_source(Family::V4).finds(true, SSH, "detached");
    });
}

/// Without the registry, the port table of the program names the closed ports; if that can't be read
/// either, none of them is opened.
#[test]
fn without_a_readable_registry_the_program_names_the_closed_ports() {
    /// A file, more arguments, whether the port table is pinned, the exit code of a start that is
    /// refused, and a part of its error.
    type Row = (
        &'static str,
        String,
        &'static [&'static str],
        bool,
        Option<i32>,
        &'static [&'static str],
    );
    let other = format!("interfaces = [\"{SERVER_LINK}\"]\nprotect = [\"tcp/80\"]\n");
    let rows: [Row; 6] = [
        (
            "nothing is closed",
            RUNS.to_owned(),
            &[],
            true,
            Some(2),
            &["protects no port", "tcp/22 would be open", "detach"],
        ),
        (
            "a dry run",
            config(),
            &["--dry-run"],
            true,
            Some(1),
            &[
                "a dry run protects nothing",
                "tcp/22 would be open",
                "detach",
            ],
        ),
        (
            "another port",
            other.clone(),
            &[],
            true,
            None,
            &["warning: no longer protected: tcp/22"],
        ),
        (
            "the same",
            config(),
            &[],
            true,
            None,
            &["existing grants end"],
        ),
        (
            "another port, and no port table",
            other,
            &[],
            false,
            Some(2),
            &["can't be read from", "may open some of them", "detach"],
        ),
        (
            "a dry run, and no port table",
            config(),
            &["--dry-run"],
            false,
            Some(2),
            &["can't be read from", "detach"],
        ),
    ];
    for (damage, registry) in [("damaged", Some("garbage")), ("missing", None)] {
        for (row, text, arguments, has_ports, code, words) in &rows {
            let row = format!("{damage}, {row}");
            net::test(|net| {
                let _server = Server::tcp(&net.server, &[SSH]);
                let (_directory, path, process) = protected(net, &config(), &[]);
                assert!(process.stop(SIGTERM).status.success());
                let programs = attached_programs(&net.server);
                let kept = pins::instance(&net.server);
                match registry {
                    Some(text) => fs::write(kept.registry(), text).unwrap(),
                    None => fs::remove_file(kept.registry()).unwrap(),
                }
                if !has_ports {
                    fs::remove_file(kept.ports()).unwrap();
                }
                fs::write(&path, text).unwrap();
                let process = start(net, &path, arguments);
                if code.is_none() {
                    protects(&process);
                }
                let ended = match code {
                    Some(_) => process.wait(),
                    None => process.stop(SIGTERM),
                };
                assert_eq!(ended.status.code(), code.or(Some(0)), "{row}: {ended:?}");
                // A registry that is only missing causes no warning.
                let is_said =
                    |words: &&&str| !(registry.is_none() && words.starts_with("existing grants"));
                for words in words.iter().filter(is_said) {
                    assert!(ended.stderr.contains(words), "{row}: {words}: {ended:?}");
                }
                let is_open = ended.stderr.contains("no longer protected: tcp/22");
                net.new_source(Family::V4).finds(is_open, SSH, &row);
                if code.is_some() {
                    assert_eq!(attached_programs(&net.server), programs, "{row}");
                }
                daemon::detach(&net.server);
            });
        }
    }
}

/// Existing interfaces keep their protection if the new ones are absent.
#[test]
fn a_reload_that_names_only_absent_interfaces_is_refused() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let (_directory, path, process) = protected(net, &config(), &["--wait-for-interfaces"]);
        fs::write(&path, format!("interfaces = [\"etho\"]\n{DOOR}")).unwrap();
        let (code, output) = daemon::ask(&net.server, &["reload"]);
        assert_eq!(code, Some(1), "{output}");
        for words in [
            "can be protected now (etho)",
            "b0 would no longer be protected",
        ] {
            assert!(output.contains(words), "no {words} in {output}");
        }
        is_closed(net, "nothing was changed");
        assert!(process.stop(SIGTERM).status.success());
        daemon::detach(&net.server);
    });
}

/// A removal is a change like any other, and is reported.
#[test]
fn ports_and_interfaces_that_are_no_longer_protected_are_reported() {
    net::test(|net| {
        net.add_second_link();
        let _server = Server::tcp(&net.server, &[SSH, 80]);
        let both = format!("interfaces = [\"{SERVER_LINK}\", \"{SERVER_LINK_2}\"]\n");
        let text = format!("{both}protect = [\"tcp/80\"]\n{DOOR}");
        let (_directory, path, process) = protected(net, &text, &[]);
        fs::write(&path, format!("{both}protect = [\"tcp/80\"]\n")).unwrap();
        let (code, output) = daemon::ask(&net.server, &["reload"]);
        assert_eq!(code, Some(0), "{output}");
        for words in ["removed door: ssh", "no longer protected: tcp/22"] {
            assert!(output.contains(words), "no {words} in {output}");
        }
        assert!(process.stop(SIGTERM).status.success());

        // And by a restart.
        fs::write(
            &path,
            format!("interfaces = [\"{SERVER_LINK}\"]\nprotect = [\"tcp/22\"]\n"),
        )
        .unwrap();
        let process = start(net, &path, &[]);
        wait::until("ports are announced", || {
            process
                .stderr()
                .contains("warning: no longer protected: tcp/80")
        });
        let stopped = serde_json::json!({"event": "detached", "interface": SERVER_LINK_2});
        daemon::wait_for_event(&process, &stopped);
        net.new_source(Family::V4).finds_closed(SSH, "protected");
        net.new_source(Family::V4).finds(true, 80, "announced");
        assert!(process.stop(SIGTERM).status.success());
        daemon::detach(&net.server);
    });
}

/// What is found in place of the configuration.
enum ConfigInput {
    Text(&'static str),
    Missing,
    Directory,
    Pipe,
    /// Of another user, and for nobody else: root that gave up its capabilities can't read it.
    Unreadable,
}

impl ConfigInput {
    fn put(&self, path: &Path) {
        let _file = fs::remove_file(path);
        let _directory = fs::remove_dir(path);
        match self {
            Self::Text(text) => fs::write(path, text).unwrap(),
            Self::Missing => {}
            Self::Directory => fs::create_dir(path).unwrap(),
            Self::Pipe => mkfifo(path, Mode::from_bits_truncate(0o600)).unwrap(),
            Self::Unreadable => {
                fs::write(path, "").unwrap();
                fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
                chown(path, Some(65_534), None).unwrap();
            }
        }
    }
}

fn config() -> String {
    format!("interfaces = [\"{SERVER_LINK}\"]\n{DOOR}")
}

fn start(net: &Net, path: &Path, arguments: &[&str]) -> Process {
    let mut command = Command::new(&binaries().user);
    command.args(["--json", "--on-exit", "keep", "--config"]);
    let command = command.arg(path).args(arguments).stdin(Stdio::null());
    Process::start(&net.server, command)
}

#[track_caller]
fn protects(process: &Process) {
    wait::until("it protects", || {
        let protecting = |line: &String| line.contains("\"protecting\"");
        process.stdout().iter().any(protecting)
    });
}

/// Checks that nothing changed: unauthorized sources stay outside, and clients that knock get in.
#[track_caller]
fn is_closed(net: &Net, row: &str) {
    net.new_source(Family::V4).finds_closed(SSH, row);
    let client = net.new_source(Family::V6);
    client.knock(KNOCKS);
    client.finds(true, SSH, row);
}

/// Writes a configuration to a directory, and starts a daemon with it that protects.
#[track_caller]
fn protected(net: &Net, text: &str, arguments: &[&str]) -> (TempDir, PathBuf, Process) {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("live.toml");
    fs::write(&path, text).unwrap();
    let process = start(net, &path, arguments);
    protects(&process);
    (directory, path, process)
}
