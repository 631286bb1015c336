//! Knocks from files, profiles and prompts, and retries.

#![expect(clippy::expect_used, reason = "a test stops at what it did not expect")]

mod peers;

use peers::{KnockPort, LOOPBACKS, ReservedPort};
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;
use tempfile::TempDir;

#[test]
fn udp_decides_the_protocol_of_bare_ports() {
    let home = Home::new();
    let (knock_ports, ports) = knock_ports(1);
    let port = ports[0].to_string();
    let message = home.knocks(&["127.0.0.1", &port, "-u", "-v"]);
    assert_eq!(message, verbose(&[format!("udp/{port}")]));
    received(&knock_ports, &[1]);
    let message = home.knocks(&["127.0.0.1", &format!("{port}:tcp"), &port, "--udp", "-v"]);
    assert_eq!(
        message,
        verbose(&[format!("tcp/{port}"), format!("udp/{port}")])
    );
    received(&knock_ports, &[1]);
}

#[test]
fn a_file_is_knocked_in_order() {
    let home = Home::new();
    let (knock_ports, ports) = knock_ports(3);
    let lines: String = ports.iter().map(|port| format!("{port}\n")).collect();
    let file = home.write("port_sequence.txt", &lines);
    let message = home.knocks(&["127.0.0.1", "--file", &file, "-v"]);
    let knocks: Vec<String> = ports.iter().map(|port| format!("udp/{port}")).collect();
    assert_eq!(message, verbose(&knocks));
    received(&knock_ports, &[1, 1, 1]);
}

#[test]
fn a_one_time_file_is_used_line_by_line() {
    let home = Home::new();
    let (knock_ports, ports) = knock_ports(2);
    let (a, b) = (ports[0], ports[1]);
    let file = home.write("once", &format!("# mine\n {a}:udp\n {b}:udp,{a}:udp\n"));
    let words = ["127.0.0.1", "--one-time", &file, "-v"];
    let message = home.knocks(&words);
    assert!(message.contains("took line 2, 1 left\n"), "{message}");
    received(&knock_ports, &[1, 0]);
    home.knocks(&words);
    received(&knock_ports, &[1, 1]);
    assert_eq!(
        home.read("once"),
        format!("# mine\n#{a}:udp\n#{b}:udp,{a}:udp\n")
    );
    let message = home.fails(&words, 1);
    assert!(
        message.starts_with(&format!("no sequence is left in {file}: ")),
        "{message}"
    );
    received(&knock_ports, &[0, 0]);
}

/// The host's answer decides, not the marks in the client's file.
#[test]
fn the_line_that_the_host_names_is_knocked() {
    let home = Home::new();
    let (knock_ports, ports) = knock_ports(3);
    let lines: String = ports.iter().map(|port| format!(" {port}:udp\n")).collect();
    let file = home.write("once", &lines);
    let host = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let port = host.local_addr().expect("its address").port();
    let answers = thread::spawn(move || {
        for answer in ["2\n", "1\n", "3\n", "4\n", ""] {
            let (mut stream, _) = host.accept().expect("a connection");
            let mut door = String::new();
            let mut reader = BufReader::new(stream.try_clone().expect("a reader"));
            reader.read_line(&mut door).expect("a question");
            assert_eq!(door, "ssh\n");
            stream.write_all(answer.as_bytes()).expect("an answer");
        }
    });
    home.profiles(&format!(
        "[profile.home]\nhost = \"127.0.0.1\"\none_time = \"../once\"\nnext_line = \"{port}/ssh\"\n"
    ));
    let message = home.knocks(&["home", "-v"]);
    assert!(message.contains("took line 2, 1 left\n"), "{message}");
    received(&knock_ports, &[0, 1, 0]);
    let [a, b, c] = [ports[0], ports[1], ports[2]];
    let marked = format!("#{a}:udp\n#{b}:udp\n {c}:udp\n");
    assert_eq!(home.read("once"), marked);
    home.knocks(&["home"]);
    received(&knock_ports, &[1, 0, 0]);
    assert_eq!(home.read("once"), marked, "gone back");
    let next_line = format!("127.0.0.1:{port}/ssh");
    let words = ["127.0.0.1", "--one-time", &file, "--next-line", &next_line];
    home.knocks(&words);
    received(&knock_ports, &[0, 0, 1]);
    let used = home.read("once");
    let message = home.fails(&words, 1);
    assert!(
        message.starts_with("the host expects line 4 next, but "),
        "{message}"
    );
    let message = home.fails(&words, 1);
    assert!(message.contains("names no next line"), "{message}");
    assert_eq!(home.read("once"), used);
    received(&knock_ports, &[0, 0, 0]);
    answers.join().expect("no panic");
}

/// A line that can't be marked could be used twice.
#[test]
fn a_line_that_cannot_be_marked_is_not_knocked() {
    let home = Home::new();
    let (knock_ports, ports) = knock_ports(1);
    let file = home.write("once", &format!(" {}:udp\n", ports[0]));
    fs::create_dir(home.path("once.lock")).expect("in the way");
    let message = home.fails(&["127.0.0.1", "--one-time", &file], 1);
    assert!(
        message.starts_with("cannot mark the next line of "),
        "{message}"
    );
    assert!(
        message.ends_with("nothing was sent, since a line must not be used twice"),
        "{message}"
    );
    received(&knock_ports, &[0]);
    assert_eq!(home.read("once"), format!(" {}:udp\n", ports[0]));
}

#[test]
fn a_profile_can_hold_every_setting() {
    let home = Home::new();
    let (knock_ports, ports) = knock_ports(2);
    let (a, b) = (ports[0], ports[1]);
    home.profiles(&format!(
        "[profile.home]\nhost = \"127.0.0.1\"\nknock = [\"udp/{a}\", \"{b}:udp\"]\ndelay = \"1ms\"\n\
         [profile.\"127.0.0.9\"]\nfile = \"seq.txt\"\n"
    ));
    home.write("knock/seq.txt", &format!("{b}\n"));
    let message = home.knocks(&["home", "-v"]);
    assert_eq!(message, verbose(&[format!("udp/{a}"), format!("udp/{b}")]));
    received(&knock_ports, &[1, 1]);
    // Found by its host; the command line overrides it.
    home.knocks(&["127.0.0.1"]);
    received(&knock_ports, &[1, 1]);
    let message = home.knocks(&["127.0.0.1", "-v", &format!("udp/{b}")]);
    assert_eq!(message, verbose(&[format!("udp/{b}")]));
    received(&knock_ports, &[0, 1]);
    // The profile's name is its host.
    let message = home.knocks(&["127.0.0.9", "-v"]);
    assert_eq!(
        message,
        format!("knocking on 127.0.0.9\nknock 1 of 1: udp/{b}\n")
    );
}

#[test]
fn a_profile_names_the_port_to_connect_to() {
    let home = Home::new();
    let (knock_ports, ports) = knock_ports(1);
    let open = peers::OpenPort::new(LOOPBACKS[0]);
    let port = open.port();
    home.profiles(&format!(
        "[profile.home]\nhost = \"127.0.0.1\"\nknock = [\"udp/{}\"]\nthen_connect = {port}\n",
        ports[0]
    ));
    let message = home.knocks(&["home"]);
    assert!(
        message.starts_with(&format!("connected to tcp/{port} on 127.0.0.1 ")),
        "{message}"
    );
    received(&knock_ports, &[1]);
}

#[test]
fn a_host_without_knocks_is_a_usage_error() {
    let home = Home::new();
    let message = home.fails(&["127.0.0.1"], 2);
    assert_eq!(
        message,
        "no knocks for '127.0.0.1': write them after the host, such as tcp/7000 udp/8000, or give \
         --spa, --file or --one-time, or make a profile [profile.127.0.0.1] in \
         ~/.config/knock/config.toml"
    );
    let message = home.fails(&["proxy", "127.0.0.1", "22"], 2);
    assert!(
        message.starts_with("no knocks for '127.0.0.1'"),
        "{message}"
    );
}

#[test]
fn errors_in_files_are_reported() {
    let home = Home::new();
    let empty = home.write("empty", "");
    let long = home.write("long", &"tcp/7000\n".repeat(129));
    let word = home.write("word", "tcp/7000\nssh\n");
    let cut = home.write("cut", " 7000:tcp,80");
    let line = home.write("line", " 7000\n");
    let rows: [(&[&str], i32, String); 10] = [
        (
            &["h", "tcp/7000", "--next-line", "7001"],
            2,
            "--next-line needs --one-time FILE: ".to_owned(),
        ),
        (
            &["127.0.0.1", "--one-time", &line, "--next-line", "1/ssh"],
            1,
            "cannot ask tcp/1 on 127.0.0.1 for the next line: ".to_owned(),
        ),
        (
            &["h", "--file", &empty],
            2,
            format!("{empty} has 0 knocks: "),
        ),
        (
            &["h", "--file", &long],
            2,
            format!("{long} has 129 knocks: "),
        ),
        (
            &["h", "--file", &word],
            2,
            format!("{word}:2: \"ssh\" is not a knock"),
        ),
        (
            &["h", "--file", "/nonexistent"],
            2,
            "cannot read /nonexistent: ".to_owned(),
        ),
        (
            &["127.0.0.1", "--one-time", &cut],
            2,
            format!("{cut}:1: the line has no end"),
        ),
        (
            &["127.0.0.1", "--one-time", &empty],
            1,
            format!("no sequence is left in {empty}"),
        ),
        (
            &["127.0.0.1", "--one-time", "/nonexistent"],
            1,
            "cannot read /nonexistent: ".to_owned(),
        ),
        (
            &["h", "--config", "/nonexistent"],
            2,
            "cannot read /nonexistent: ".to_owned(),
        ),
    ];
    for (words, code, message) in rows {
        let error = home.fails(words, code);
        assert!(error.starts_with(&message), "{words:?}: {error}");
    }
    assert_eq!(home.read("line"), " 7000\n", "no line number was obtained");
    home.profiles("[profile.home]\nknock = [\"ssh\"]\n");
    let message = home.fails(&["home"], 2);
    let place = home.path("knock/config.toml");
    assert!(
        message.starts_with(&format!("{}:2: \"ssh\" is not a knock", place.display())),
        "{message}"
    );
    // Knocks on the command line need no profile.
    let (knock_ports, ports) = knock_ports(1);
    home.knocks(&["127.0.0.1", &format!("udp/{}", ports[0])]);
    received(&knock_ports, &[1]);
}

#[test]
fn a_retry_repeats_the_whole_sequence() {
    let home = Home::new();
    let (knock_ports, ports) = knock_ports(2);
    let nobody = ReservedPort::new(LOOPBACKS[0]);
    let port = nobody.port().to_string();
    let knocks = ports
        .iter()
        .map(|port| format!("udp/{port}"))
        .collect::<Vec<_>>();
    let mut words = vec!["127.0.0.1"];
    words.extend(knocks.iter().map(String::as_str));
    words.extend([
        "--then-connect",
        &port,
        "--timeout",
        "50ms",
        "--retries",
        "2",
        "--json",
    ]);
    let output = home.command(&words).output().expect("the command runs");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    received(&knock_ports, &[3, 3]);
    let message = String::from_utf8(output.stdout).expect("text");
    let events: Vec<String> = message
        .lines()
        .map(|line| {
            let event: serde_json::Value = serde_json::from_str(line).expect("JSON");
            event["event"].as_str().expect("a word").to_owned()
        })
        .collect();
    assert_eq!(
        events,
        [
            "knock", "knock", "retry", "knock", "knock", "retry", "knock", "knock", "failed"
        ]
    );
}

/// Each attempt uses a sequence of its own, because the previous one may have been received.
#[test]
fn a_retry_takes_the_next_line() {
    let home = Home::new();
    let (knock_ports, ports) = knock_ports(3);
    let line = |port: &u16| format!(" {port}:udp\n");
    // Enough lines until a slow machine has opened the port.
    let lines = ports[..2].iter().map(line).collect::<String>() + &line(&ports[2]).repeat(90);
    let file = home.write("once", &lines);
    let port = ReservedPort::new(LOOPBACKS[0]);
    let number = port.port().to_string();
    let words = ["127.0.0.1", "--one-time", &file, "--then-connect", &number];
    let mut command = home.command(&words);
    command.args(["--timeout", "300ms", "--retries", "100"]);
    let opener = thread::spawn(move || {
        // The second sequence opens.
        assert_eq!(knock_ports[1].receive(), [0]);
        let listener = port.open();
        (listener, knock_ports)
    });
    let output = command.output().expect("the command runs");
    let (_listener, knock_ports) = opener.join().expect("no panic");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(knock_ports[0].receive(), [0]);
    assert!(
        home.read("once")
            .starts_with(&format!("#{}:udp\n#{}:udp\n", ports[0], ports[1]))
    );
}

#[test]
fn dual_stack_knocks_on_both_families() {
    let home = Home::new();
    let knock_ports = LOOPBACKS.map(KnockPort::bind);
    let knocks = knock_ports
        .each_ref()
        .map(|knock_port| format!("udp/{}", knock_port.port()));
    // No name has both addresses on every machine.
    let rows: [(&str, &[usize]); 2] = [("127.0.0.1", &[1, 0]), ("::1", &[0, 1])];
    for (host, times) in rows {
        home.knocks(&[host, &knocks[0], &knocks[1], "--dual-stack"]);
        received(&knock_ports, times);
    }
    let has_both = fs::read_to_string("/etc/hosts").is_ok_and(|hosts| {
        let lines = |address: &str| {
            hosts.lines().any(|line| {
                let mut words = line.split_whitespace();
                words.next() == Some(address) && words.any(|word| word == "localhost")
            })
        };
        lines("127.0.0.1") && lines("::1")
    });
    if has_both {
        let message = home.knocks(&["localhost", &knocks[0], &knocks[1], "--dual-stack", "-v"]);
        received(&knock_ports, &[1, 1]);
        assert!(
            message.contains(&format!("knock 1 of 2 on ::1: {}", knocks[0])),
            "{message}"
        );
        assert!(
            message.contains(&format!("knock 2 of 2 on 127.0.0.1: {}", knocks[1])),
            "{message}"
        );
    }
}

#[test]
fn the_log_has_each_step_with_its_time() {
    let home = Home::new();
    let (knock_ports, ports) = knock_ports(1);
    let log = home.path("knock.log").display().to_string();
    let nobody = ReservedPort::new(LOOPBACKS[0]);
    let (knock, port) = (format!("udp/{}", ports[0]), nobody.port().to_string());
    let words = ["127.0.0.1", &knock, "--log", &log];
    assert_eq!(home.knocks(&words), "", "nothing but the log");
    let more = ["--then-connect", &port, "--timeout", "50ms"];
    home.fails(&[&words[..], &more].concat(), 1);
    received(&knock_ports, &[2]);
    let message = home.read("knock.log");
    let lines: Vec<&str> = message
        .lines()
        .map(|line| {
            let (time, rest) = line.split_once(' ').expect("a time");
            assert!(time.parse::<jiff::Timestamp>().is_ok(), "{line}");
            rest
        })
        .collect();
    let refused = lines.last().expect("a line");
    assert!(refused.contains("refused: the port is open"), "{refused}");
    let knocking = "127.0.0.1: knocking on 127.0.0.1".to_owned();
    let knocked = format!("127.0.0.1: knock 1 of 1: {knock}");
    assert_eq!(
        lines[..4],
        [&knocking, &knocked, &knocking, &knocked].map(String::as_str)
    );
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = fs::metadata(&log).expect("the log").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "it has the knocks in it");
    }
    let message = home.fails(&["127.0.0.1", &knock, "--log", "/nonexistent/log"], 1);
    assert!(
        message.starts_with("cannot write the log /nonexistent/log: "),
        "{message}"
    );
    assert!(Path::new(&log).exists());
    received(&knock_ports, &[0]);
}

/// At a terminal the client prompts for missing knocks.
#[cfg(target_os = "linux")]
#[test]
fn knocks_are_read_from_the_prompt() {
    use std::io::Write as _;
    let home = Home::new();
    let (knock_ports, ports) = knock_ports(2);
    let terminal = nix::pty::openpty(None, None).expect("a terminal");
    let mut command = home.command(&["127.0.0.1", "-u", "-v"]);
    command
        .stdin(terminal.slave)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let child = command.spawn().expect("the command runs");
    let mut person = fs::File::from(terminal.master);
    writeln!(person, "ssh").expect("typed");
    writeln!(person, "{} udp/{}", ports[0], ports[1]).expect("typed");
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let knocks: Vec<String> = ports.iter().map(|port| format!("udp/{port}")).collect();
    assert_eq!(String::from_utf8_lossy(&output.stdout), verbose(&knocks));
    received(&knock_ports, &[1, 1]);
    let question = "Knocks for 127.0.0.1, such as tcp/7000 udp/8000: ";
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        message.starts_with(&format!("{question}\"ssh\" is not a knock")),
        "{message}"
    );
    assert!(message.ends_with(question), "{message}");
}

/// A home directory, with or without a file of profiles.
struct Home(TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
        fs::write(&path, text).expect("a file");
        only_for_this_user(&path);
        path.display().to_string()
    }

    fn profiles(&self, text: &str) {
        self.write("knock/config.toml", text);
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).expect("a file")
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_knock-client"));
        command.args(words).stdin(Stdio::null());
        command.env("XDG_CONFIG_HOME", self.0.path());
        command
    }

    /// Returns standard output of a run that must succeed.
    fn knocks(&self, words: &[&str]) -> String {
        let output = self.command(words).output().expect("the command runs");
        assert_eq!(output.status.code(), Some(0), "{words:?}: {output:?}");
        String::from_utf8(output.stdout).expect("text")
    }

    /// Returns the last line of standard error of a run that must fail.
    fn fails(&self, words: &[&str], code: i32) -> String {
        let output = self.command(words).output().expect("the command runs");
        assert_eq!(output.status.code(), Some(code), "{words:?}: {output:?}");
        error(&output)
    }
}

fn error(output: &Output) -> String {
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    let line = message.lines().last().unwrap_or_default();
    let line = line.strip_prefix("knock-client: ");
    line.unwrap_or_else(|| panic!("an error: {message}"))
        .to_owned()
}

/// Opens ports to knock on, and returns them with the knocks.
fn knock_ports(count: usize) -> (Vec<KnockPort>, Vec<u16>) {
    let knock_ports: Vec<KnockPort> = (0..count).map(|_| KnockPort::bind(LOOPBACKS[0])).collect();
    let ports = knock_ports.iter().map(KnockPort::port).collect();
    (knock_ports, ports)
}

/// Checks that each has received this many knocks and no more.
fn received(knock_ports: &[KnockPort], times: &[usize]) {
    for (number, (knock_port, &times)) in knock_ports.iter().zip(times).enumerate() {
        for _ in 0..times {
            assert_eq!(knock_port.receive(), [0], "knock_port {number}");
        }
        assert!(
            knock_port.is_silent(),
            "knock port {number} receives more than {times}"
        );
    }
}

fn verbose(knocks: &[String]) -> String {
    let of = knocks.len();
    let lines = (1..)
        .zip(knocks)
        .map(|(number, knock)| format!("knock {number} of {of}: {knock}\n"));
    format!("knocking on 127.0.0.1\n{}", lines.collect::<String>())
}

/// Makes a file readable for this user only; otherwise the program warns of it.
fn only_for_this_user(path: &Path) {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("a mode");
    }
    #[cfg(not(unix))]
    let _ = path;
}
