//! Events as entries of a real systemd-journald, which runs here without systemd.

#![expect(
    clippy::unwrap_used,
    reason = "clippy.toml's exception does not reach helpers of tests"
)]

use std::{fs, process::Command};

use knock_tests::{
    daemon,
    net::{self, Family, Net, SERVER_LINK},
    process::Process,
    server::Server,
    ssh::{DOOR, KNOCKS, SSH},
    wait,
};
use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::{NamedTempFile, TempDir, tempdir};

/// Starts journald, which keeps its files in the directory `$1`, and then a command that takes its standard output for
/// the journal's stream.
///
/// Everything is mounted for this process and its children only.
const SCRIPT: &str = r#"
set -e
mkdir -p /run/systemd /run/log/journal
mount --make-rprivate /
mount -t tmpfs tmpfs /run/systemd
mount --bind "$1" /run/log/journal
mount --bind "$2" /etc/machine-id
# journald looks for its own control group.
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir /run/systemd/journal
/lib/systemd/systemd-journald >/dev/null 2>&1 &
journald=$!
trap 'kill $journald' EXIT
for i in $(seq 300); do
    if [ -e "$1"/*/system.journal ]; then break; fi
    sleep 0.1
done
shift 2
JOURNAL_STREAM=$(stat -L -c %d:%i /proc/$$/fd/1) "$@" &
program=$!
trap 'kill -INT $program' TERM
while kill -0 $program 2>/dev/null; do wait $program || true; done
"#;

#[test]
fn events_are_entries_with_fields() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let journaled = Journaled::start(net, &[]);
        journaled.wait_for(&["KNOCK_EVENT=protecting"]);
        for family in Family::ALL {
            let source = net.native(family);
            let name = format!("KNOCK_SOURCE={}", source.name());
            source.finds_closed(SSH, &family.to_string());
            journaled.wait_for(&["KNOCK_EVENT=denied", &name, "KNOCK_PORT=22"]);
            source.knock(KNOCKS);
            let opened = journaled.wait_for(&["KNOCK_EVENT=opened", &name, "KNOCK_DOOR=ssh"]);
            for (field, expected) in [
                ("KNOCK_PORTS", "tcp/22"),
                ("KNOCK_SECONDS", "30.0"),
                ("KNOCK_INTERFACE", SERVER_LINK),
                ("PRIORITY", "6"),
                ("SYSLOG_IDENTIFIER", "knock-user"),
            ] {
                assert_eq!(opened[field], expected, "{family}: {opened}");
            }
            let message = opened["MESSAGE"].as_str().unwrap();
            assert!(message.starts_with("opened "), "{family}: {message}");
            assert_eq!(
                opened["KNOCK_TIME"],
                Value::Null,
                "the journal has the time"
            );
        }
        assert_eq!(
            journaled.process.stdout(),
            [""; 0],
            "no line is there twice"
        );
        stop(journaled);
    });
}

/// Programs read these forms from the stream.
#[test]
fn other_forms_stay_lines() {
    net::test(|net| {
        for (options, line) in [
            (&["--json"][..], "\"event\":\"protecting\""),
            (&["--log-format", "knockd"], "listening on"),
        ] {
            let journaled = Journaled::start(net, options);
            wait::until(&format!("{options:?}"), || {
                journaled
                    .process
                    .stdout()
                    .iter()
                    .any(|printed| printed.contains(line))
            });
            assert_eq!(
                journaled.entries(&["KNOCK_EVENT=protecting"]),
                [Value::Null; 0]
            );
            stop(journaled);
        }
    });
}

/// Without journald, the lines go to standard output.
#[test]
fn no_line_is_lost_without_journald() {
    net::test(|net| {
        let journald = "/lib/systemd/systemd-journald";
        let script = SCRIPT.replace(
            journald,
            "mkdir \"$1\"/x; touch \"$1\"/x/system.journal; sleep 1000",
        );
        let config = daemon::config_file(DOOR.as_bytes());
        let machine = NamedTempFile::new().unwrap();
        let directory = tempdir().unwrap();
        let knock_user = daemon::command(&config);
        let mut command = Command::new("unshare");
        command.args(["--mount", "bash", "-c", &script, "bash"]);
        command.args([directory.path(), machine.path()]);
        command
            .arg(knock_user.get_program())
            .args(knock_user.get_args());
        command.args(["--iface", SERVER_LINK]);
        let process = Process::start(&net.server, &mut command);
        wait::until("a line", || {
            process
                .stdout()
                .iter()
                .any(|line| line.starts_with("protecting "))
        });
        process.stop(Signal::SIGTERM);
    });
}

/// journald and knock-user.
struct Journaled {
    process: Process,
    directory: TempDir,
    _config: NamedTempFile,
    _machine: NamedTempFile,
}

impl Journaled {
    fn start(net: &Net, options: &[&str]) -> Self {
        let directory = tempdir().unwrap();
        let machine = NamedTempFile::new().unwrap();
        fs::write(&machine, "0123456789abcdef0123456789abcdef\n").unwrap();
        let config = daemon::config_file(DOOR.as_bytes());
        let knock_user = daemon::command(&config);
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "bash", "-c", SCRIPT, "bash"])
            .args([directory.path(), machine.path()]);
        command
            .arg(knock_user.get_program())
            .args(knock_user.get_args());
        command.args(["--iface", SERVER_LINK]).args(options);
        Self {
            process: Process::start(&net.server, &mut command),
            directory,
            _config: config,
            _machine: machine,
        }
    }

    /// Returns the entries with these fields.
    fn entries(&self, fields: &[&str]) -> Vec<Value> {
        let mut journalctl = Command::new("journalctl");
        journalctl.args(["--output", "json", "--no-pager", "--directory"]);
        journalctl.arg(self.directory.path()).args(fields);
        let output = journalctl.output().unwrap();
        // Without files there are no entries.
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    #[track_caller]
    fn wait_for(&self, fields: &[&str]) -> Value {
        let mut found = None;
        wait::until(&format!("{fields:?}\n{}", self.process.printed()), || {
            found = self.entries(fields).into_iter().next();
            found.is_some()
        });
        found.unwrap()
    }
}

fn stop(journaled: Journaled) {
    journaled.process.stop(Signal::SIGTERM);
}
