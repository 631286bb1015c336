//! The move from knockd: its files, as read by knockd and by the importer.

#![expect(
    clippy::unwrap_used,
    reason = "clippy.toml's exception does not reach helpers of tests"
)]

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use knock_tests::{
    binary::binaries,
    daemon::{Daemon, config_file},
    namespace::{Namespace, text},
    net::{self, Family},
    process::Process,
    server::Server,
    source::Source,
    wait::{self, PATIENCE},
};
use nix::sys::signal::Signal;
use serde_json::json;
use tempfile::tempdir;

const SSH: u16 = 22;

const WEB: u16 = 80;

const ROWS: &[Row] = &[
    only_knockd("nothing", ""),
    both("the least", "[a]\nsequence=7000\n"),
    both(
        "an indented comment",
        "  # comment\n[a]\n\tsequence = 7000\n",
    ),
    both(
        "upper and lower case",
        "[options]\nusesyslog\n[a]\nSeQuence=7000:UDP, 8000:Tcp\n",
    ),
    both("Windows line ends", "[a]\r\nsequence=7000\r\n"),
    both(
        "a door called Options",
        "[Options]\nUseSyslog\nsequence=7000\n",
    ),
    both("blanks in a name", "[ a b ]\nsequence=7000\n"),
    both("a name twice", "[a]\nsequence=7000\n[a]\nsequence=8000\n"),
    both("flags", "[a]\nsequence=7000\ntcpflags=SYN,!Ack\n"),
    both(
        "an empty command",
        "[a]\nsequence=7000\ncommand=\ncommand_6=\n",
    ),
    both("an = in a value", "[a]\nsequence=7000\ncommand=A=B true\n"),
    both("no command", "[a]\nsequence=7000\nstop_command=true\n"),
    neither("a key before the sections", "sequence=7000\n"),
    neither("a bracket that is not closed", "[a\nsequence=7000\n"),
    neither("a section without a name", "[]\nsequence=7000\n"),
    neither("a door without a sequence", "[a]\ncommand=true\n"),
    neither("a key without a value", "[a]\nsequence\n"),
    Row {
        name: "a fork's key",
        conf: "[a]\nsequence=7000\nseq_cooldown=60\ncommand=true\n",
        knockd: false,
        ours: true,
    },
    neither("an unknown key", "[a]\nsequence=7000\nports=22\n"),
    neither(
        "a door's key among the options",
        "[options]\ntcpflags=syn\n",
    ),
    neither("a value for UseSyslog", "[options]\nUseSyslog=yes\n"),
    neither("a port that is too high", "[a]\nsequence=70000\n"),
    neither("an unknown protocol", "[a]\nsequence=7000:icmp\n"),
    only_knockd("no knocks", "[a]\nsequence=\n"),
    neither(
        "a blank between flags",
        "[a]\nsequence=7000\ntcpflags=syn, ack\n",
    ),
    neither("an unknown flag", "[a]\nsequence=7000\ntcpflags=sun\n"),
    neither("no flag", "[a]\nsequence=7000\ntcpflags=\n"),
    neither(
        "one-time sequences from nowhere",
        "[a]\none_time_sequences=\n",
    ),
    only_knockd("port 0", "[a]\nsequence=0\n"),
    only_knockd("a negative port", "[a]\nsequence=-1\n"),
    only_knockd("a word as a port", "[a]\nsequence=abc\n"),
    only_knockd("a comma at the end", "[a]\nsequence=7000,\n"),
    only_knockd("a comment behind a value", "[a]\nsequence=7000 # first\n"),
    only_knockd("a word as a time", "[a]\nsequence=7000\nseq_timeout=5s\n"),
    only_knockd("a sequence twice", "[a]\nsequence=7000\nsequence=8000\n"),
    only_knockd(
        "a command twice",
        "[a]\nsequence=7000\ncommand=a\ncommand=b\n",
    ),
];

/// A door with commands alone, which knockd and knock-user run alike.
const LOGGED: &str = "
    [options]
    Interface = b0
    [gate]
    Sequence = 7000,8000:udp,9000
    TCPFlags = syn
    Seq_Timeout = 20
    Start_Command = /bin/true in %IP%
    Cmd_Timeout = 1
    Stop_Command = /bin/true out %IP%
    [slow]
    Sequence = 7100:udp,8100:udp,7101:udp
    Seq_Timeout = 2
    Command = /bin/true slow %IP%
";

#[test]
fn an_imported_file_opens_and_closes_like_knockd() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH, WEB]);
        let directory = tempdir().unwrap();
        let woken = directory.path().join("woken");
        let conf = format!(
            "[options]
            UseSyslog
            Interface = b0
            [SSH]
            Sequence = 7000,8000:udp,9000
            TCPFlags = syn
            Start_Command = /sbin/iptables -I INPUT -s %IP% -p tcp --dport 22 -j ACCEPT
            Cmd_Timeout = 3
            Stop_Command = /sbin/iptables -D INPUT -s %IP% -p tcp --dport 22 -j ACCEPT
            [web]
            Sequence = 7100:udp,8100,7101
            Command = /usr/sbin/ufw allow from %IP% to any port 80 proto tcp
            [web off]
            Sequence = 7101,8100,7100:udp
            Command = /usr/sbin/ufw delete allow from %IP% to any port 80 proto tcp
            [wake]
            Sequence = 7200:udp,8200:udp,7201:udp
            Command = echo \"%IP%\" 'and %IP%' | tr n N >> {woken}
            ",
            woken = woken.display()
        );
        let (toml, notes) = import(&conf).unwrap();
        assert!(
            notes.contains("UseSyslog") || notes.contains("usesyslog"),
            "{notes}"
        );

        // The interface is in the file.
        let daemon = Daemon::start_with(&net.server, &toml, &[]);
        for family in Family::ALL {
            let row = &family.to_string();
            let source = net.new_source(family);
            let name = source.name();
            source.finds_closed(SSH, row);
            source.knock("tcp/7000 udp/8000 tcp/9000");
            drop(source.finds_open(SSH, row));
            daemon.wait_for_event(&json!({"event": "closed", "source": name, "door": "SSH"}));
            source.finds_closed(SSH, row);

            source.finds_closed(WEB, row);
            source.knock("udp/7100 tcp/8100 tcp/7101");
            drop(source.finds_open(WEB, row));
            source.knock("tcp/7101 tcp/8100 udp/7100");
            source.finds_closed(WEB, row);

            source.knock("udp/7200 udp/8200 udp/7201");
            let line = format!("{name} aNd {name}");
            wait::until(&format!("{row}: the command ran"), || {
                let woken = fs::read_to_string(&woken).unwrap_or_default();
                woken.lines().any(|woken| woken == line)
            });
        }
        daemon.stop();
    });
}

#[test]
fn the_importer_reads_the_grammar_like_knockd() {
    net::test(|net| {
        let directory = tempdir().unwrap();
        let conf = directory.path().join("knockd.conf");
        for row in ROWS {
            let name = row.name;
            fs::write(&conf, row.conf).unwrap();
            let starts = knockd_starts(&net.server, &conf, directory.path());
            assert_eq!(starts, row.knockd, "{name}: knockd\n{}", row.conf);
            let imported = import(row.conf);
            assert_eq!(
                imported.is_ok(),
                row.ours,
                "{name}: {imported:?}\n{}",
                row.conf
            );
        }
    });
}

/// The file that the package knockd brings, which may have been changed.
#[test]
fn the_file_that_debian_installs_is_imported() {
    let conf = fs::read_to_string("/etc/knockd.conf").unwrap();
    let (toml, notes) = import(&conf).unwrap_or_else(|notes| panic!("{notes}"));
    let file = config_file(toml.as_bytes());
    let mut check = Command::new(&binaries().user);
    let output = check
        .arg("check")
        .arg("--config")
        .arg(file.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{notes}{toml}{}", text(&output));
    let doors = conf
        .lines()
        .filter(|line| line.trim_start().starts_with('['))
        .count()
        - 1;
    let kept = toml.matches("[[door]]").count();
    assert_eq!(kept, doors, "{notes}{toml}");
}

#[test]
fn imported_log_lines_are_those_of_knockd() {
    net::test(|net| {
        let directory = tempdir().unwrap();
        let (conf, log) = (directory.path().join("conf"), directory.path().join("log"));
        fs::write(&conf, LOGGED).unwrap();
        let (toml, _) = import(LOGGED).unwrap();
        let toml = config_file(toml.as_bytes());
        for family in Family::ALL {
            let read = || fs::read_to_string(&log).unwrap_or_default();
            let mut command = Command::new("knockd");
            command.args(["-i", "b0", "-c"]).arg(&conf);
            command.arg("-p").arg(directory.path().join("pid"));
            command.arg("-g").arg(&log);
            let knockd = Process::start(&net.server, &mut command);
            wait::until("knockd listens", || {
                read().contains("starting up, listening on b0")
            });
            let theirs = logged(&net.new_source(family), read);
            knockd.stop(Signal::SIGTERM);
            assert!(read().ends_with("shutting down\n"), "{}", read());
            fs::remove_file(&log).unwrap();

            let mut command = knock_tests::daemon::command(&toml);
            command.args(["--log-format", "knockd"]);
            let daemon = Process::start(&net.server, &mut command);
            let read = || daemon.stdout().join("\n");
            wait::until("we listen", || {
                read().contains("starting up, listening on b0")
            });
            let ours = logged(&net.new_source(family), read);
            let ended = daemon.stop(Signal::SIGINT);
            assert_eq!(ours, theirs, "{family}");
            let last = ended.stdout.last().unwrap();
            assert!(last.ends_with("] shutting down"), "{last}");
        }
    });
}

/// A file that is not there, or no text.
#[test]
fn unreadable_files_are_reported() {
    let refused = |path: &Path| {
        let mut command = Command::new(&binaries().user);
        let output = command.arg("import-knockd").arg(path).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{}", text(&output));
        String::from_utf8(output.stderr).unwrap()
    };
    let directory = tempdir().unwrap();
    let path = directory.path().join("knockd.conf");
    let notes = refused(&path);
    assert!(notes.contains("can't be read: no such file"), "{notes}");
    fs::write(&path, b"[\xff]\n").unwrap();
    let notes = refused(&path);
    assert!(notes.contains("knockd.conf:1: not UTF-8"), "{notes}");
    let notes = refused(directory.path());
    assert!(notes.contains("can't be read"), "{notes}");
}

/// Runs `knock-user import-knockd` on a file: returns the configuration, and its messages.
fn import(conf: &str) -> Result<(String, String), String> {
    let file = config_file(conf.as_bytes());
    let mut command = Command::new(&binaries().user);
    command.arg("import-knockd").arg(file.path());
    let output = command.output().unwrap();
    let notes = String::from_utf8(output.stderr.clone()).unwrap();
    match output.status.code() {
        Some(0) => Ok((String::from_utf8(output.stdout).unwrap(), notes)),
        Some(2) => {
            assert!(output.stdout.is_empty(), "{}", text(&output));
            Err(notes)
        }
        _ => panic!("{}", text(&output)),
    }
}

/// A file, whether Debian's knockd starts with it, and whether we take it.
struct Row {
    name: &'static str,
    conf: &'static str,
    knockd: bool,
    ours: bool,
}

const fn both(name: &'static str, conf: &'static str) -> Row {
    Row {
        name,
        conf,
        knockd: true,
        ours: true,
    }
}

const fn neither(name: &'static str, conf: &'static str) -> Row {
    Row {
        name,
        conf,
        knockd: false,
        ours: false,
    }
}

/// Returns a file that knockd alone accepts, with another meaning than was intended.
const fn only_knockd(name: &'static str, conf: &'static str) -> Row {
    Row {
        name,
        conf,
        knockd: true,
        ours: false,
    }
}

/// Returns whether Debian's knockd starts with a file.
fn knockd_starts(namespace: &Namespace, conf: &Path, directory: &Path) -> bool {
    let mut command = Command::new("knockd");
    command.args(["-D", "-i", "lo", "-c"]).arg(conf);
    command.arg("-p").arg(directory.join("pid"));
    // It writes to a pipe, so its lines would come when it ends.
    let mut unbuffered = Command::new("stdbuf");
    unbuffered.arg("-oL").arg(command.get_program());
    unbuffered.args(command.get_args()).stdin(Stdio::null());
    let mut process = Process::start(namespace, &mut unbuffered);
    let started = wait::poll(PATIENCE, || {
        let is_listening = |line: &String| line.starts_with("local IP");
        let listens = process.stdout().iter().any(is_listening);
        (listens || !process.is_running()).then_some(listens)
    });
    if started == Some(true) {
        process.stop(Signal::SIGTERM);
    }
    started.unwrap_or_else(|| panic!("knockd neither starts nor ends"))
}

/// Returns the lines of a log about these sources, without times and with a name for each source.
fn lines_about(lines: &str, source: &Source<'_>) -> Vec<String> {
    // knockd begins its file with an empty line.
    let lines = lines.lines().filter(|line| !line.is_empty());
    lines
        .map(|line| {
            let (time, rest) = line
                .split_once("] ")
                .unwrap_or_else(|| panic!("no time: {line}"));
            assert_eq!(time.len(), "[2026-11-21 15:01".len(), "{line}");
            rest.replace(&source.name(), "IP")
        })
        .filter(|line| line.contains("IP"))
        .collect()
}

/// Knocks correctly, then too slowly, and returns what the log says about both.
fn logged(source: &Source<'_>, log: impl Fn() -> String) -> Vec<String> {
    source.knock("tcp/7000 udp/8000 tcp/9000");
    let has = |text: &str| {
        lines_about(&log(), source)
            .iter()
            .any(|line| line.contains(text))
    };
    wait::until("the commands ran", || has("running command: /bin/true out"));
    source.knock("udp/7100 udp/8100");
    wait::until("both knocks are logged", || has("slow: Stage 2"));
    // Late by knockd's clock, which counts whole seconds, and by ours; but not too late for every
    // door, when we would have forgotten it.
    thread::sleep(Duration::from_millis(3_100));
    source.knock("udp/7101");
    wait::until("it was too late", || has("slow: sequence timeout"));
    lines_about(&log(), source)
}
