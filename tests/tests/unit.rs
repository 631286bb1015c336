//! The systemd unit, and what knock-user reports to the service manager.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails with the test")]

use std::{
    fs,
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    process::Command,
    sync::mpsc,
    thread,
    time::Duration,
};

use clap::Parser as _;
use knock_tests::{
    binary::binaries,
    daemon::{self, config_file},
    namespace::run,
    net::{self, Family, Net, SERVER_LINK},
    pins::attached_programs,
    process::Process,
    ssh::{DOOR, KNOCKS},
    wait::{self, PATIENCE},
};
use knock_user::cli::Cli;
use nix::sys::signal::Signal;
use tempfile::{NamedTempFile, TempDir};

const INSTALLED: &str = "/usr/local/bin/knock-user";
/// The greatest accepted exposure, in tenths; systemd rates up to 20 as OK.
const EXPOSURE_MOST: &str = "20";

#[test]
fn systemd_verifies_the_unit_without_a_complaint() {
    let (_directory, path) = installed();
    let output = run(Command::new("systemd-analyze").arg("verify").arg(&path));
    assert_eq!(output, "");
}

#[test]
fn systemd_rates_the_exposure_of_the_unit_as_ok() {
    let (_directory, path) = installed();
    let mut command = Command::new("systemd-analyze");
    command.args(["security", "--no-pager", "--offline=true"]);
    command.arg(format!("--threshold={EXPOSURE_MOST}"));
    let output = run(command.arg(&path));
    println!("{}", output.lines().last().unwrap_or_default());
}

#[test]
fn the_unit_starts_before_the_network_and_keeps_its_state() {
    let rows: [(&str, &str, &str); 12] = [
        (
            "a bad configuration is a failure, and no reason to try again",
            "RestartPreventExitStatus",
            "2",
        ),
        ("no event is left out", "LogRateLimitIntervalSec", "0"),
        (
            "a reload asks its own process",
            "ExecReload",
            "/usr/local/bin/knock-user reload --pid $MAINPID",
        ),
        ("the network waits for it", "Before", "network-pre.target"),
        ("and the unit asks for that", "Wants", "network-pre.target"),
        (
            "which services before that need",
            "DefaultDependencies",
            "no",
        ),
        ("it reports when it is ready", "Type", "notify"),
        (
            "names of doors outlive it",
            "RuntimeDirectoryPreserve",
            "yes",
        ),
        ("it comes again", "Restart", "on-failure"),
        ("always", "StartLimitIntervalSec", "0"),
        (
            "it has no more than it needs",
            "CapabilityBoundingSet",
            "CAP_BPF CAP_NET_ADMIN CAP_PERFMON",
        ),
        ("and is not root", "User", "knock"),
    ];
    let unit = unit();
    for (row, key, value) in rows {
        let found = values(&unit, key);
        assert!(found.contains(&value), "{row}: {key}={found:?}");
    }
}

#[test]
fn the_commands_of_the_unit_are_valid() {
    let unit = unit();
    for key in ["ExecStart", "ExecReload"] {
        for command in values(&unit, key) {
            let words = command.split_whitespace();
            // systemd replaces this by the number of the process.
            let words = words.map(|word| if word == "$MAINPID" { "1" } else { word });
            if let Err(error) = Cli::try_parse_from(words) {
                panic!("{key}={command}: {error}");
            }
        }
    }
    let [start] = values(&unit, "ExecStart")[..] else {
        panic!("not one ExecStart");
    };
    // Ports stay closed when it ends, and it is ready before there are interfaces.
    for option in ["--on-exit keep", "--wait-for-interfaces"] {
        assert!(start.contains(option), "no {option}: {start}");
    }
}

#[test]
fn the_daemon_notifies_the_service_manager_of_its_state() {
    net::test(|net| {
        let manager = Manager::new();
        let config = config_file(DOOR.as_bytes());
        let mut process = manager.start(net, &config, "200000");
        let manager = manager.listens();

        let ready = manager.next_message();
        assert_eq!(ready[0], "READY=1", "{ready:?}");
        assert!(ready[1].contains("tcp/22 on b0"), "{ready:?}");
        assert_eq!(
            attached_programs(&net.server).len(),
            1,
            "before it is ready"
        );
        for _ in 0..3 {
            assert_eq!(manager.next(), ["WATCHDOG=1"]);
        }

        process.signal(Signal::SIGHUP);
        let reloading = manager.next_message();
        assert_eq!(reloading[0], "RELOADING=1", "{reloading:?}");
        let since: Duration = clock(&reloading[1]);
        assert!(since < PATIENCE, "{since:?} ago: {reloading:?}");
        assert_eq!(manager.next_message()[0], "READY=1", "reloaded");

        let ended = process.stop(Signal::SIGTERM);
        assert!(ended.status.success(), "{ended:?}");
        let stopping = manager.next_message();
        assert_eq!(stopping[0], "STOPPING=1", "{stopping:?}");
    });
}

/// With a service manager that hangs, events are reported and the daemon ends without delay.
#[test]
fn a_service_manager_that_does_not_listen_stops_nothing() {
    net::test(|net| {
        let manager = Manager::new();
        let config = config_file(DOOR.as_bytes());
        let process = manager.start(net, &config, "2000");
        wait::until("without a reader", || {
            let output = process.stderr();
            output.contains("the service manager: it does not read its messages")
        });
        let source = net.new_source(Family::V4);
        source.knock(KNOCKS);
        wait::until("an opening is reported", || {
            let output = process.stdout();
            output
                .iter()
                .any(|line| line.contains("opened") && line.contains(&source.name()))
        });
        let ended = process.stop(Signal::SIGTERM);
        assert!(ended.status.success(), "{ended:?}");
    });
}

#[test]
fn a_failed_reload_is_notified_as_ended() {
    net::test(|net| {
        let manager = Manager::new();
        let config = config_file(DOOR.as_bytes());
        let mut process = manager.start(net, &config, "200000");
        let manager = manager.listens();
        assert_eq!(manager.next_message()[0], "READY=1");
        fs::write(config.path(), "what is this").unwrap();
        process.signal(Signal::SIGHUP);
        assert_eq!(manager.next_message()[0], "RELOADING=1");
        assert_eq!(manager.next_message()[0], "READY=1", "it continues");
        assert!(process.stop(Signal::SIGTERM).status.success());
    });
}

/// The journal adds times to lines, and takes their priorities.
#[test]
fn journal_lines_have_priorities() {
    for (row, descriptor) in [
        ("standard output", 1),
        ("standard error", 2),
        ("neither", 0),
    ] {
        net::test(|net| {
            // A knock port that the host may use itself is worth a warning.
            let config = config_file(DOOR.replace("tcp/9000", "tcp/40000").as_bytes());
            let user = &binaries().user;
            // Without the socket of a journald, whose entries tests/journal.rs has, lines stay lines.
            let script = format!(
                "mkdir -p /run/systemd; mount -t tmpfs tmpfs /run/systemd; \
                 JOURNAL_STREAM=$(stat -Lc %d:%i /proc/$$/fd/{descriptor}) exec \"$@\""
            );
            let mut command = Command::new("unshare");
            command
                .args(["--mount", "sh", "-ec", &script, "sh"])
                .arg(user);
            command
                .args(["--iface", SERVER_LINK, "--config"])
                .arg(config.path());
            let process = Process::start(&net.server, &mut command);
            wait::until("it protects", || {
                process
                    .stdout()
                    .iter()
                    .any(|line| line.contains("protecting"))
            });
            let source = net.new_source(Family::V4);
            source.finds_closed(knock_tests::ssh::SSH, row);
            let mut denied = None;
            wait::until("it is reported", || {
                denied = process
                    .stdout()
                    .into_iter()
                    .find(|line| line.contains("denied"));
                denied.is_some()
            });
            let denied = denied.unwrap();
            assert_eq!(
                denied.starts_with("denied"),
                descriptor == 1,
                "{row}: {denied}"
            );
            let ended = process.stop(Signal::SIGTERM);
            let warning = ended.stderr.lines().find(|line| line.contains("40000"));
            let warning = warning.unwrap_or_else(|| panic!("{row}: {ended:?}"));
            assert_eq!(
                warning.starts_with("<4>"),
                descriptor == 2,
                "{row}: {warning}"
            );
        });
    }
}

fn unit() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dist/knock-user.service");
    fs::read_to_string(path).unwrap()
}

/// Returns the values of a key in the unit.
fn values<'a>(unit: &'a str, key: &str) -> Vec<&'a str> {
    let lines = unit.lines().filter_map(|line| line.split_once('='));
    lines
        .filter_map(|(name, value)| (name == key).then_some(value))
        .collect()
}

/// Returns the unit with the path of the built program, since systemd checks that it exists.
fn installed() -> (TempDir, PathBuf) {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("knock-user.service");
    let program = binaries().user.display().to_string();
    fs::write(&path, unit().replace(INSTALLED, &program)).unwrap();
    (directory, path)
}

/// A service manager.
struct Manager {
    socket: UnixDatagram,
    directory: TempDir,
}

impl Manager {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let socket = UnixDatagram::bind(directory.path().join("notify")).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { socket, directory }
    }

    /// Starts the daemon with this interval of the service manager's watchdog.
    fn start(&self, net: &Net, config: &NamedTempFile, alive_us: &str) -> Process {
        let mut command = daemon::command(config);
        command.args(["--iface", SERVER_LINK]);
        command.env("NOTIFY_SOCKET", self.directory.path().join("notify"));
        command.env("WATCHDOG_USEC", alive_us);
        Process::start(&net.server, &mut command)
    }

    /// Reads messages without a pause, because the kernel queues at most ten.
    fn listens(&self) -> Messages {
        let socket = self.socket.try_clone().unwrap();
        let (sender, messages) = mpsc::channel();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length) = socket.recv(&mut buffer) {
                let text = String::from_utf8_lossy(&buffer[..length]);
                if sender
                    .send(text.lines().map(str::to_owned).collect())
                    .is_err()
                {
                    break;
                }
            }
        });
        Messages(messages)
    }
}

/// The messages that a service manager received.
struct Messages(mpsc::Receiver<Vec<String>>);

impl Messages {
    fn next(&self) -> Vec<String> {
        self.0.recv_timeout(PATIENCE).unwrap()
    }

    /// Returns the next message that is more than a keep-alive.
    fn next_message(&self) -> Vec<String> {
        loop {
            let message = self.next();
            if message != ["WATCHDOG=1"] {
                return message;
            }
        }
    }
}

/// Returns the time since a `MONOTONIC_USEC`.
fn clock(text: &str) -> Duration {
    let micros = text.strip_prefix("MONOTONIC_USEC=").unwrap();
    let then = Duration::from_micros(micros.parse().unwrap());
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).unwrap();
    Duration::from(now) - then
}
