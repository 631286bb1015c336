//! Colours of lines, on a terminal and elsewhere: of the daemon's console and of `watch`.

use std::{path::Path, process::Command};

use knock_tests::{
    binary::binaries,
    daemon::config_file,
    net::{self, SERVER_LINK},
    process::Process,
    ssh::DOOR,
    wait,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::answer;

/// A row: its name, whether standard output is a terminal, the environment, the options, and whether there are colours.
type Row = (
    &'static str,
    bool,
    &'static [(&'static str, &'static str)],
    &'static str,
    bool,
);

const ROWS: [Row; 8] = [
    ("a terminal", true, &[], "", true),
    (
        "a terminal without colours",
        true,
        &[("TERM", "dumb")],
        "",
        false,
    ),
    ("NO_COLOR", true, &[("NO_COLOR", "1")], "", false),
    ("NO_COLOR, empty", true, &[("NO_COLOR", "")], "", true),
    ("never", true, &[], "--color never", false),
    ("a pipe", false, &[], "", false),
    ("always into a pipe", false, &[], "--color always", true),
    (
        "always with NO_COLOR",
        false,
        &[("NO_COLOR", "1")],
        "--color always",
        true,
    ),
];

/// Returns knock-user with its output to a terminal, or to a pipe.
fn command(words: &str, (_, terminal, environment, options, _): Row) -> Command {
    let line = format!("exec {} {words} {options}", binaries().user.display());
    let mut command = if terminal {
        let mut script = Command::new("script");
        script.args(["--quiet", "--return", "--flush", "--command", &line]);
        script.arg("/dev/null");
        script
    } else {
        let mut shell = Command::new("sh");
        shell.args(["-c", &line]);
        shell
    };
    for name in ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "COLORTERM", "CI"] {
        command.env_remove(name);
    }
    command
        .env("TERM", "xterm")
        .envs(environment.iter().copied());
    command
}

/// Waits for a line with a word, and asserts that the word is green or is not.
#[track_caller]
fn assert_colour(process: &Process, word: &str, row: Row) {
    let (name, .., colored) = row;
    let line = wait::poll(wait::PATIENCE, || {
        let lines = process.stdout();
        lines.into_iter().find(|line| line.contains(word))
    });
    let line = line.unwrap_or_else(|| panic!("{name}: no {word}: {}", process.printed()));
    let is_green = line.contains(&format!("\u{1b}[32m{word}\u{1b}[0m"));
    assert_eq!(is_green, colored, "{name}: {line:?}");
    assert_eq!(line.contains('\u{1b}'), colored, "{name}: {line:?}");
}

#[test]
fn lines_have_colours_on_a_terminal_unless_they_shall_not() {
    net::test(|net| {
        let config = config_file(DOOR.as_bytes());
        for row in ROWS {
            let (name, ..) = row;
            let path: &Path = config.path();
            let words = format!("--iface {SERVER_LINK} --config {}", path.display());
            let daemon = Process::start(&net.server, &mut command(&words, row));
            assert_colour(&daemon, "protecting", row);
            let watch = Process::start(&net.server, &mut command("watch", row));
            let opened = wait::poll(wait::PATIENCE, || {
                answer(&net.server, "grant 192.0.2.9 --door ssh --for 1h");
                let line = watch.stdout().iter().any(|line| line.contains("opened"));
                answer(&net.server, "revoke 192.0.2.9");
                line.then_some(())
            });
            assert!(opened.is_some(), "{name}: {}", watch.printed());
            assert_colour(&watch, "opened", row);
            assert_colour(&daemon, "opened", row);

            let pid = answer(&net.server, "status")["pid"].as_i64().unwrap();
            let pid = Pid::from_raw(pid.try_into().unwrap());
            kill(pid, Signal::SIGTERM).unwrap();
            let ended = daemon.wait();
            assert!(ended.status.success(), "{name}: {ended:?}");
            watch.wait();
        }
    });
}
