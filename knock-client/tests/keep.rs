//! `--keep`: renewals, failures in between, commands, and the end.

#![cfg(unix)]
#![expect(clippy::expect_used, reason = "a test stops at what it did not expect")]

mod peers;

use knock_common::reason::Reason;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use peers::machine::{ClientMachine, content_of, outcome};
use peers::spa::AnswerContent;
use peers::{KnockPort, LOOPBACKS, OpenPort, ReservedPort};
use std::fs;
use std::io::{BufRead as _, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(20);

#[test]
fn a_packet_is_sent_again_before_the_grant_expires() {
    for ip in LOOPBACKS {
        let machine = ClientMachine::new(ip);
        let client = RunningClient::new(machine.start(&["--keep"]));
        let mut stamps = Vec::new();
        for _ in 0..3 {
            let packet = machine.host.receive();
            machine.host.answer(&packet, content_of(&packet, opened()));
            stamps.push(packet.stamp);
        }
        // The next packet shows that the answer has arrived.
        machine.host.receive();
        assert!(stamps.is_sorted_by(|one, other| one < other), "{stamps:?}");
        client.signal(Signal::SIGINT);
        let (_, out, err) = client.ends();
        let expected = [
            format!("the door on {ip} is open for 1s for {ip}"),
            "sending another packet each 666ms until Ctrl-C".to_owned(),
        ];
        assert_eq!(out[..2], expected, "{out:?}");
        assert!(out.len() == 3 && out[2].starts_with("ended: "), "{out:?}");
        assert_eq!(err, [""; 0]);
    }
}

#[test]
fn the_exit_code_reports_whether_the_grant_still_lasts() {
    let machine = ClientMachine::new(LOOPBACKS[0]);
    let (valid, expired) = (
        "ended: the grant expires within 1h",
        "ended: the last success was ",
    );
    for (name, end, seconds, code, text) in [
        ("Ctrl-C", Signal::SIGINT, 3600, 0, valid),
        ("SIGTERM", Signal::SIGTERM, 3600, 0, valid),
        ("expired", Signal::SIGINT, 0, 1, expired),
    ] {
        let mut client = RunningClient::new(machine.start(&["--keep", "--timeout", "5s"]));
        answers(&machine, outcome(Reason::Opened, 0, seconds));
        if seconds == 0 {
            // The renewal, which is not answered.
            machine.host.receive();
        }
        client.waits_for("sending another packet each ");
        client.signal(end);
        let (status, out, err) = client.ends();
        assert_eq!((status, err.len()), (Some(code), 0), "{name}: {err:?}");
        assert!(
            out.iter().any(|line| line.starts_with(text)),
            "{name}: {out:?}"
        );
    }
}

#[test]
fn a_renewal_without_an_answer_is_tried_again() {
    let machine = ClientMachine::new(LOOPBACKS[0]);
    let mut client = RunningClient::new(machine.start(&["--keep", "-v", "--timeout", "2s"]));
    answers(&machine, opened());
    machine.host.receive();
    client.waits_for("not renewed: no answer from udp/");
    client.waits_for("; next try in 1s");
    answers(&machine, outcome(Reason::Opened, 0, 3600));
    client.waits_for("is open for 1h for ");
    client.waits_for("next renewal in 59m");
    client.signal(Signal::SIGINT);
    assert_eq!(client.ends().0, Some(0));
}

#[test]
fn a_refusal_that_lasts_ends_the_run() {
    let machine = ClientMachine::new(LOOPBACKS[0]);
    let lasting = [
        (
            "not allowed",
            Reason::SpaNotAllowed,
            "does not open the door for this key",
        ),
        (
            "expired",
            Reason::SpaExpired,
            "this key or its user has expired",
        ),
    ];
    for (name, reason, text) in lasting {
        for renewals in [0, 1] {
            let client = RunningClient::new(machine.start(&["--keep"]));
            for _ in 0..renewals {
                answers(&machine, opened());
            }
            answers(&machine, outcome(reason, 0, 0));
            let (code, out, err) = client.ends();
            assert_eq!(code, Some(1), "{name} after {renewals}: {out:?}");
            assert!(
                err.iter().any(|line| line.contains(text)),
                "{name}: {err:?}"
            );
        }
    }
    let passing = [
        ("no room", Reason::GrantsFull),
        ("cut off", Reason::CutOff),
        ("used", Reason::SpaReplayed),
        ("a clock", Reason::SpaStale),
        ("another address", Reason::SpaElsewhere),
    ];
    for (name, reason) in passing {
        let mut client = RunningClient::new(machine.start(&["--keep", "-v"]));
        answers(&machine, opened());
        answers(&machine, outcome(reason, 0, 0));
        client.waits_for("not renewed: ");
        answers(&machine, outcome(Reason::Opened, 0, 3600));
        client.waits_for("next renewal in 59m");
        client.signal(Signal::SIGINT);
        assert_eq!(client.ends().0, Some(0), "{name}");
    }
}

#[test]
fn a_run_gives_up_after_the_given_time() {
    let machine = ClientMachine::new(LOOPBACKS[0]);
    let words = ["--keep", "--timeout", "2s", "--give-up-after", "1ms"];
    let client = RunningClient::new(machine.start(&words));
    answers(&machine, opened());
    let (code, _, err) = client.ends();
    assert_eq!(code, Some(1));
    let text = "knock-client: gave up after 1ms without success: no answer from udp/";
    assert!(err[0].starts_with(text), "{err:?}");
}

#[test]
fn knocks_are_sent_again_twice_in_the_time_of_a_grant() {
    let knock = KnockPort::bind(LOOPBACKS[0]);
    let port = format!("udp/{}", knock.port());
    let words = ["127.0.0.1", &port, "--keep", "--open-for", "2s"];
    let mut client = RunningClient::knocking(&words);
    for _ in 0..3 {
        knock.receive();
    }
    client.waits_for("knocking again each 800ms until Ctrl-C");
    client.signal(Signal::SIGINT);
    assert_eq!(client.ends().0, Some(0));
}

/// Nothing answers knocks, so their client must not report a grant as a fact.
#[test]
fn a_grant_that_nothing_confirmed_is_not_reported_as_one() {
    let (knock, service) = (KnockPort::bind(LOOPBACKS[0]), OpenPort::new(LOOPBACKS[0]));
    let (port, tcp) = (format!("udp/{}", knock.port()), service.port().to_string());
    let connecting = ["--then-connect", tcp.as_str()];
    for (name, more, expected) in [
        (
            "knocks alone",
            &[][..],
            "ended: if the door opened, the grant expires within ",
        ),
        (
            "a connection",
            &connecting,
            "ended: the grant expires within ",
        ),
    ] {
        let words = ["127.0.0.1", &port, "--keep", "--open-for", "1h"];
        let words: Vec<&str> = words.iter().chain(more).copied().collect();
        let mut client = RunningClient::knocking(&words);
        knock.receive();
        client.waits_for("knocking again each ");
        client.signal(Signal::SIGINT);
        let (_, out, _) = client.ends();
        assert!(
            out.iter().any(|line| line.starts_with(expected)),
            "{name}: {out:?}"
        );
    }
}

/// A connection for each renewal would fill the log of the service.
#[test]
fn a_connection_is_made_once() {
    let (knock, service) = (KnockPort::bind(LOOPBACKS[0]), OpenPort::new(LOOPBACKS[0]));
    let (port, tcp) = (format!("udp/{}", knock.port()), service.port().to_string());
    let words = [
        "127.0.0.1",
        &port,
        "--keep",
        "--open-for",
        "1s",
        "--then-connect",
        &tcp,
    ];
    let mut client = RunningClient::knocking(&words);
    for _ in 0..4 {
        knock.receive();
    }
    client.waits_for("connected to tcp/");
    client.waits_for("knocking again each ");
    client.signal(Signal::SIGINT);
    let (_, out, _) = client.ends();
    let connections = out
        .iter()
        .filter(|line| line.contains("connected to"))
        .count();
    assert_eq!(connections, 1, "{out:?}");
    assert!(service.accepts_within(LIMIT));
    assert!(!service.accepts_within(Duration::ZERO));
}

#[test]
fn a_door_that_does_not_open_starts_no_command() {
    let directory = tempfile::tempdir().expect("a directory");
    let mark = directory.path().join("mark");
    let mark = mark.to_str().expect("text");
    let closed = ReservedPort::new(LOOPBACKS[0]).port().to_string();
    let words = [
        "127.0.0.1",
        "udp/9",
        "--keep",
        "--then-connect",
        &closed,
        "--timeout",
        "10ms",
        "--",
        "touch",
        mark,
    ];
    let (code, _, err) = RunningClient::knocking(&words).ends();
    assert_eq!(code, Some(1), "{err:?}");
    assert!(
        err[0].starts_with("knock-client: cannot connect to tcp/"),
        "{err:?}"
    );
    assert!(!fs::exists(mark).expect("a path"));
}

#[test]
fn the_exit_code_is_that_of_the_command() {
    let base = ["127.0.0.1", "udp/9", "--keep", "--"];
    for (name, command, code, out, err) in [
        ("success", &["echo", "in"][..], 0, "in", ""),
        ("failure", &["sh", "-c", "exit 7"], 7, "", ""),
        ("a signal", &["sh", "-c", "kill -9 $$"], 137, "", ""),
        (
            "no program",
            &["/nonexistent/program"],
            1,
            "",
            "knock-client: cannot run /nonexistent/program: no such file or directory; check its name and PATH",
        ),
    ] {
        let words = [&base[..], command].concat();
        let (status, printed, errors) = RunningClient::knocking(&words).ends();
        assert_eq!(status, Some(code), "{name}: {errors:?}");
        assert_eq!(printed.join("\n"), out, "{name}: its standard output alone");
        assert!(errors.join("\n").contains(err), "{name}: {errors:?}");
    }
}

#[test]
fn signals_reach_the_command() {
    for (name, signal, script, code) in [
        // Ctrl-C of a terminal has reached the command already.
        (
            "Ctrl-C",
            Signal::SIGINT,
            "echo ready; read line <\"$0\"; exit 5",
            5,
        ),
        (
            "SIGTERM",
            Signal::SIGTERM,
            "trap 'exit 6' TERM; echo ready; while :; do sleep 0.1; done",
            6,
        ),
    ] {
        let directory = tempfile::tempdir().expect("a directory");
        let pipe = directory.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
        let pipe = pipe.to_str().expect("text");
        let words = [
            "127.0.0.1",
            "udp/9",
            "--keep",
            "--",
            "sh",
            "-c",
            script,
            pipe,
        ];
        let mut client = RunningClient::knocking(&words);
        client.waits_for("ready");
        client.signal(signal);
        if signal == Signal::SIGINT {
            fs::write(pipe, "line\n").expect("the command reads");
        }
        let (status, out, err) = client.ends();
        assert_eq!(status, Some(code), "{name}: {out:?} {err:?}");
    }
}

#[test]
fn options_that_would_waste_sequences_are_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let once = directory.path().join("once");
    fs::write(&once, " 7000,8000:udp\n 7001,8001:udp\n").expect("a file");
    let secret = directory.path().join("secret");
    fs::write(&secret, "AAgR%XXx30O$#\n").expect("a file");
    let [once, secret] = [&once, &secret].map(|path| path.to_str().expect("text"));
    let once_text = |every: &str, open_for: &str| {
        format!(
            "knock-client: --keep would use a line of {once} every {every}, since the door opens for {open_for}: have \
             the host open it for 10m or longer (open_for) and name that time with --open-for, or use --spa"
        )
    };
    let otp_text = |open_for: &str, period: &str, least: &str| {
        format!(
            "knock-client: --keep needs a sequence of its own for each renewal, and a period of {period} has one, but \
             the door opens for {open_for}: have the host open it for {least} or longer (open_for) and name that time \
             with --open-for"
        )
    };
    for (name, words, text) in [
        (
            "one-time lines",
            &["--one-time", once][..],
            once_text("20s", "30s"),
        ),
        (
            "one-time lines, for longer",
            &["--one-time", once, "--open-for", "9m"],
            once_text("8m", "9m"),
        ),
        (
            "a period",
            &["--otp", secret],
            otp_text("30s", "45s", "1m8s"),
        ),
        (
            "a period, for longer",
            &["--otp", secret, "--open-for", "5m", "--otp-period", "5m"],
            otp_text("5m", "5m", "6m"),
        ),
    ] {
        let words = [&["127.0.0.1", "--keep"], words].concat();
        let (code, out, mut err) = RunningClient::knocking(&words).ends();
        err.retain(|line| line.starts_with("knock-client: ") && !line.contains("waiting"));
        assert_eq!((code, out.len()), (Some(2), 0), "{name}: {out:?}");
        assert_eq!(err, [text], "{name}");
    }
    let text = fs::read_to_string(once).expect("a file");
    assert_eq!(
        text, " 7000,8000:udp\n 7001,8001:udp\n",
        "no line was taken"
    );
}

#[test]
fn wrong_usage_exits_with_2() {
    let machine = ClientMachine::new(LOOPBACKS[0]);
    for (name, words, text) in [
        (
            "a command alone",
            &["127.0.0.1", "udp/9", "--", "true"][..],
            "--keep",
        ),
        (
            "a time alone",
            &["127.0.0.1", "udp/9", "--open-for", "1m"],
            "--keep",
        ),
        (
            "to close",
            &[
                "127.0.0.1",
                "--spa",
                &machine.host.key(),
                "--close",
                "--keep",
            ],
            "--close closes the door",
        ),
    ] {
        let child = machine.command(words).spawn().expect("the command runs");
        let (code, _, err) = RunningClient::new(child).ends();
        assert_eq!(code, Some(2), "{name}: {err:?}");
        assert!(err.join("\n").contains(text), "{name}: {err:?}");
    }
    assert!(machine.host.is_silent());
}

#[test]
fn the_profile_names_the_time() {
    let directory = tempfile::tempdir().expect("a directory");
    let config = directory.path().join("config.toml");
    let knock = KnockPort::bind(LOOPBACKS[0]);
    let text = format!(
        "[profile.home]\nhost = \"127.0.0.1\"\nknock = [\"udp/{}\"]\nopen_for = \"50s\"\n",
        knock.port()
    );
    fs::write(&config, text).expect("a file");
    let config = config.to_str().expect("text");
    let mut client = RunningClient::knocking(&["home", "-c", config, "--keep", "--json"]);
    client.waits_for(r#"{"event":"kept","seconds":50,"next_ms":20000}"#);
    client.signal(Signal::SIGINT);
    client.waits_for(r#"{"event":"ended","seconds":"#);
    assert_eq!(client.ends().0, Some(0));
}

/// Returns an answer after which a renewal is due in two thirds of a second.
fn opened() -> AnswerContent {
    outcome(Reason::Opened, 0, 1)
}

/// A client that runs, with its lines as they arrive.
struct RunningClient {
    child: Child,
    out: Receiver<String>,
    err: Receiver<String>,
    printed: Vec<String>,
}

impl RunningClient {
    fn new(mut child: Child) -> Self {
        Self {
            out: lines(child.stdout.take().expect("a pipe")),
            err: lines(child.stderr.take().expect("a pipe")),
            child,
            printed: Vec::new(),
        }
    }

    /// Starts a client with knocks.
    fn knocking(words: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_knock-client"));
        command.args(words).stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        Self::new(command.spawn().expect("the command runs"))
    }

    /// Waits for a line of standard output with this text.
    #[track_caller]
    fn waits_for(&mut self, text: &str) {
        let deadline = Instant::now() + LIMIT;
        while !self.printed.iter().any(|line| line.contains(text)) {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.out.recv_timeout(left) {
                Ok(line) => self.printed.push(line),
                Err(_) => panic!("no {text:?} in {:?}", self.printed),
            }
        }
    }

    fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.child.id()).expect("an id");
        kill(Pid::from_raw(id), signal).expect("the process runs");
    }

    /// Waits for the end; returns the exit code, standard output and standard error.
    #[track_caller]
    fn ends(mut self) -> (Option<i32>, Vec<String>, Vec<String>) {
        let deadline = Instant::now() + LIMIT;
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                break status;
            }
            if Instant::now() > deadline {
                let _gone = self.child.kill();
                panic!("it does not end: {:?}", self.printed);
            }
            thread::sleep(Duration::from_millis(10));
        };
        self.printed.extend(self.out.iter());
        (status.code(), self.printed, self.err.iter().collect())
    }
}

fn lines(from: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, received) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    received
}

/// Answers the next packet.
fn answers(machine: &ClientMachine, content: AnswerContent) {
    let packet = machine.host.receive();
    machine.host.answer(&packet, content_of(&packet, content));
}
