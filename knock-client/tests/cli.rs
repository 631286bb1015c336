//! The command as people run it: arguments, exact output and exit codes.

#![expect(clippy::expect_used, reason = "a test stops at what it did not expect")]

mod peers;

use peers::{KnockPort, LOOPBACKS, OpenPort, ReservedPort, SilentPort};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

#[test]
fn wrong_usage_is_reported_and_exits_with_2() {
    const TRY: &str = "\n\nFor more information, try '--help'.\n";
    let rows: [(&str, &[&str], &str); 16] = [
        (
            "port 0",
            &["h", "tcp/0"],
            "error: invalid value 'tcp/0' for '[KNOCK]...': \
             \"tcp/0\" names the port \"0\": a port is a whole number from 1 to 65535",
        ),
        (
            "the third knock",
            &["h", "tcp/1", "2", "icmp/3"],
            "error: invalid value 'icmp/3' for '[KNOCK]...': \
             \"icmp/3\" names the protocol \"icmp\": write tcp/PORT or udp/PORT",
        ),
        (
            "not a knock",
            &["h", "ssh"],
            "error: invalid value 'ssh' for '[KNOCK]...': \
             \"ssh\" is not a knock: write tcp/PORT or udp/PORT, such as tcp/7000",
        ),
        (
            "no host",
            &["tcp/7000", "udp/8000"],
            "error: invalid value 'tcp/7000' for '<HOST>': \
             'tcp/7000' is not a host: the host comes first, then the knocks",
        ),
        (
            "a host with a line end",
            &["h\nx", "tcp/7000"],
            "error: invalid value 'h\\nx' for '<HOST>': \
             'h\\nx' is not a host: the host comes first, then the knocks",
        ),
        (
            "an escape sequence in a value",
            &["h", "1", "--delay=\u{1b}[2J\n"],
            "error: invalid value '\\u{1b}[2J\\n' for '--delay <DURATION>': \
             \"\\u{1b}[2J\\n\" is not a duration: write numbers with the units us, ms, s, m, h or d, as in \"30s\" or \"1h30m\"",
        ),
        (
            "a text direction in a host",
            &["h\u{202e}x"],
            "error: invalid value 'h\\u{202e}x' for '<HOST>': \
             'h\\u{202e}x' is not a host: the host comes first, then the knocks",
        ),
        (
            "delay without unit",
            &["h", "1", "--delay", "5"],
            "error: invalid value '5' for '--delay <DURATION>': \
             \"5\" is not a duration: write a unit too, as in \"5s\"",
        ),
        (
            "timeout without unit",
            &["h", "1", "--timeout", "5"],
            "error: invalid value '5' for '--timeout <DURATION>': \
             \"5\" is not a duration: write a unit too, as in \"5s\"",
        ),
        (
            "no timeout",
            &["h", "1", "--timeout", "0s"],
            "error: invalid value '0s' for '--timeout <DURATION>': \
             '0s' leaves no time to connect: write 1ms or more",
        ),
        (
            "connect to udp",
            &["h", "1", "--then-connect", "udp/53"],
            "error: invalid value 'udp/53' for '--then-connect <PORT>': \
             'udp/53' cannot be connected to: write a TCP port, such as 22 or tcp/22",
        ),
        (
            "connect to port 0",
            &["h", "1", "--then-connect", "0"],
            "error: invalid value '0' for '--then-connect <PORT>': \
             '0' is not a TCP port from 1 to 65535, such as 22 or tcp/22",
        ),
        (
            "no host",
            &[],
            "error: the following required arguments were not provided:\n  <HOST>\n\n\
             Usage: knock-client <HOST> [KNOCK]... [-- <COMMAND>...]",
        ),
        (
            "both families",
            &["h", "1", "-4", "-6"],
            "error: the argument '-4' cannot be used with '-6'\n\n\
             Usage: knock-client -4 <HOST> <KNOCK>... [-- <COMMAND>...]",
        ),
        (
            "one family, and both",
            &["h", "1", "-4", "--dual-stack"],
            "error: the argument '-4' cannot be used with '--dual-stack'\n\n\
             Usage: knock-client -4 <HOST> <KNOCK>... [-- <COMMAND>...]",
        ),
        (
            "knocks from two places",
            &["h", "1", "--file", "x"],
            "error: the argument '[KNOCK]...' cannot be used with '--file <FILE>'\n\n\
             Usage: knock-client <HOST> <KNOCK>... [-- <COMMAND>...]",
        ),
    ];
    for (name, words, error) in rows {
        let outcome = knock_client(words);
        assert_eq!(outcome.err, format!("{error}{TRY}"), "{name}");
        assert_eq!(outcome.out, "", "{name}");
        assert_eq!(outcome.code, Some(2), "{name}");
    }
}

/// A file of another user may contain control characters.
#[test]
fn an_error_about_a_file_moves_no_cursor() {
    let directory = tempfile::tempdir().expect("a path");
    let path = directory.path().join("once");
    std::fs::write(&path, "tcp/7000 \u{1b}[2J\u{7}\n").expect("a path");
    let outcome = knock_client(&["127.0.0.1", "--one-time", path.to_str().expect("a path")]);
    assert_eq!(outcome.code, Some(2), "{}", outcome.err);
    assert!(outcome.err.contains("\\u{1b}[2J\\u{7}"), "{}", outcome.err);
    assert!(!outcome.err.contains('\u{1b}'), "{:?}", outcome.err);
}

#[test]
fn a_long_wait_is_explained() {
    let silent = SilentPort::new(LOOPBACKS[0]);
    let port = silent.port().to_string();
    let words = [
        "127.0.0.1",
        "udp/9",
        "--then-connect",
        &port,
        "--timeout",
        "3s",
    ];
    let outcome = knock_client(&words);
    let expected = format!("knock-client: waiting for tcp/{port} on 127.0.0.1 to open, up to 3s");
    assert_eq!(
        outcome.err.lines().next(),
        Some(&*expected),
        "{}",
        outcome.err
    );
    assert_eq!(outcome.code, Some(1));
    let outcome = knock_client(&[&words[..], &["--json"]].concat());
    assert_eq!(outcome.err, "", "a program reads only the events");
}

#[test]
fn help_has_examples() {
    let outcome = knock_client(&["--help"]);
    assert!(
        outcome
            .out
            .contains("knock-client example.org tcp/7000 udp/8000 tcp/9000 ")
    );
    assert!(outcome.out.contains("PORT:udp"));
    assert_eq!((outcome.err.as_str(), outcome.code), ("", Some(0)));
}

#[test]
fn each_style_prints_its_knocks() {
    for ip in LOOPBACKS {
        let (tcp, udp) = (ReservedPort::new(ip), KnockPort::bind(ip));
        let (tcp, port) = (tcp.port(), udp.port());
        let host = ip.to_string();
        let rows: [(&str, &[&str], String); 3] = [
            ("quiet", &[], String::new()),
            (
                "verbose",
                &["-v"],
                format!(
                    "knocking on {ip}\nknock 1 of 3: tcp/{tcp}\nknock 2 of 3: udp/{port}\n\
                     knock 3 of 3: tcp/{tcp}\n"
                ),
            ),
            (
                "json",
                &["--json", "--delay", "1ms"],
                [(1, "tcp", tcp), (2, "udp", port), (3, "tcp", tcp)]
                    .map(|(number, protocol, port)| {
                        format!(
                            "{{\"event\":\"knock\",\"number\":{number},\"of\":3,\
                             \"protocol\":\"{protocol}\",\"port\":{port},\"address\":\"{ip}\"}}\n"
                        )
                    })
                    .concat(),
            ),
        ];
        for (name, options, out) in rows {
            let knocks = [tcp.to_string(), format!("{port}:udp"), format!("tcp/{tcp}")];
            let words = [
                &[host.as_str()],
                &knocks.each_ref().map(String::as_str)[..],
                options,
            ];
            let outcome = knock_client(&words.concat());

            assert_eq!(outcome.err, "", "{ip} {name}");
            assert_eq!(outcome.out, out, "{ip} {name}");
            assert_eq!(outcome.code, Some(0), "{ip} {name}");
            assert_eq!(udp.receive(), [0], "{ip} {name}");
            assert!(udp.is_silent(), "{ip} {name}: one datagram per knock");
        }
    }
}

#[test]
fn the_connection_is_reported() {
    for ip in LOOPBACKS {
        let (knock_port, listener) = (KnockPort::bind(ip), OpenPort::new(ip));
        let (host, knock) = (ip.to_string(), format!("udp/{}", knock_port.port()));
        let port = listener.port();

        let bare = port.to_string();
        let outcome = knock_client(&[&host, &knock, "--then-connect", &bare]);
        assert_eq!(
            masked(&outcome.out, &format!("{ip} "), " ms", "MS"),
            format!("connected to tcp/{port} on {ip} MS ms after the last knock (attempt 1)\n")
        );
        assert_eq!((outcome.err.as_str(), outcome.code), ("", Some(0)));

        let full = format!("tcp/{port}");
        let outcome = knock_client(&[&host, &knock, "--then-connect", &full, "--json"]);
        let last = outcome.out.lines().last().expect("a line");
        assert_eq!(
            masked(last, "\"after_us\":", "}", "US"),
            format!("{{\"event\":\"connected\",\"port\":{port},\"attempt\":1,\"after_us\":US}}")
        );
        assert_eq!(outcome.out.lines().count(), 2);
        assert_eq!((outcome.err.as_str(), outcome.code), ("", Some(0)));
    }
}

#[test]
fn a_port_that_opens_300_ms_after_the_knock_is_found() {
    let ip = LOOPBACKS[0];
    let (knock_port, port) = (KnockPort::bind(ip), ReservedPort::new(ip));
    let number = port.port().to_string();
    let knock = format!("udp/{}", knock_port.port());
    let opener = thread::spawn(move || {
        knock_port.receive();
        thread::sleep(Duration::from_millis(300));
        port.open()
    });

    let outcome = knock_client(&[&ip.to_string(), &knock, "--then-connect", &number, "--json"]);
    drop(opener.join().expect("it opened"));

    let last = outcome.out.lines().last().expect("a line");
    let masked = masked(last, "\"attempt\":", ",", "N");
    let after_us = last
        .rsplit_once(':')
        .map(|(_, us)| us.trim_end_matches('}'));
    let after_us: u64 = after_us
        .expect("a number at the end")
        .parse()
        .expect("a number");
    assert!(after_us >= 300_000, "{last}");
    assert_eq!(
        masked,
        format!(
            "{{\"event\":\"connected\",\"port\":{number},\"attempt\":N,\"after_us\":{after_us}}}"
        )
    );
    assert_eq!((outcome.err.as_str(), outcome.code), ("", Some(0)));
}

#[test]
fn a_port_that_never_opens_is_reported_within_the_limit() {
    let ip = LOOPBACKS[0];
    let (knock_port, nobody) = (KnockPort::bind(ip), ReservedPort::new(ip));
    let (knock, port) = (
        format!("udp/{}", knock_port.port()),
        nobody.port().to_string(),
    );
    let words = [
        "127.0.0.1",
        &knock,
        "--then-connect",
        &port,
        "--timeout",
        "400ms",
    ];
    let message = format!(
        "cannot connect to tcp/{port} on 127.0.0.1 within 400ms: refused: \
         the port is open but nothing listens; start the service, or check its port"
    );

    let begin = Instant::now();
    let outcome = knock_client(&words);
    assert!(begin.elapsed() >= Duration::from_millis(400));
    assert_eq!(outcome.err, format!("knock-client: {message}\n"));
    assert_eq!((outcome.out.as_str(), outcome.code), ("", Some(1)));

    let outcome = knock_client(&[&words[..], &["--json"]].concat());
    let last = outcome.out.lines().last().expect("a line");
    let last = masked(last, "\"attempts\":", ",", "N");
    assert_eq!(
        masked(&last, "\"after_us\":", ",", "US"),
        format!(
            "{{\"event\":\"failed\",\"reason\":\"refused\",\"port\":{port},\"attempts\":N,\
             \"after_us\":US,\"message\":\"{message}\"}}"
        )
    );
    assert_eq!((outcome.err.as_str(), outcome.code), ("", Some(1)));
}

#[cfg(target_os = "linux")]
#[test]
fn a_port_that_stays_silent_is_reported_as_closed() {
    let ip = LOOPBACKS[0];
    let (knock_port, silent) = (KnockPort::bind(ip), SilentPort::new(ip));
    let (knock, port) = (
        format!("udp/{}", knock_port.port()),
        silent.port().to_string(),
    );
    let outcome = knock_client(&[
        "127.0.0.1",
        &knock,
        "--then-connect",
        &port,
        "--timeout",
        "300ms",
    ]);
    assert_eq!(
        outcome.err,
        format!(
            "knock-client: cannot connect to tcp/{port} on 127.0.0.1 within 300ms: no answer: the \
             port is still closed; check the knocks, and try --delay 50ms in case they overtake each other\n"
        )
    );
    assert_eq!((outcome.out.as_str(), outcome.code), ("", Some(1)));
}

#[test]
fn the_advice_fits_what_was_sent() {
    let ip = LOOPBACKS[0];
    let silent = SilentPort::new(ip);
    let port = silent.port().to_string();
    let directory = tempfile::tempdir().expect("a directory");
    let once = directory.path().join("once");
    std::fs::write(&once, " 7000:udp,8000:udp\n").expect("a file");
    let once = once.display().to_string();
    let otp = [
        "--otp-secret",
        "a secret of a door",
        "--otp-protocols",
        "udp",
    ];
    for (name, words, advice) in [
        (
            "time-based",
            otp.as_slice(),
            "check the clocks of both machines",
        ),
        (
            "one-time",
            &["--one-time", &once],
            "check that the host has the same file",
        ),
    ] {
        let rest = ["--then-connect", &port, "--timeout", "200ms"];
        let outcome = knock_client(&[&["127.0.0.1"], words, &rest].concat());
        assert!(outcome.err.contains(advice), "{name}: {}", outcome.err);
        assert_eq!(outcome.code, Some(1), "{name}");
    }
}

#[test]
fn an_address_that_is_none_is_refused_with_the_cure() {
    let outcome = knock_client(&["127.0.0.1", "udp/7000", "--source", "999.1.1.1"]);
    let expected = "is not an IP address: write one such as 203.0.113.7";
    assert!(outcome.err.contains(expected), "{}", outcome.err);
    assert_eq!(outcome.code, Some(2));
}

#[test]
fn a_key_is_not_written_where_no_file_can_be() {
    if !std::path::Path::new("/proc/self").exists() {
        return;
    }
    let outcome = knock_client(&["keygen", "--out", "/proc/x"]);
    assert_eq!(
        outcome.err,
        "knock-client: no file can be created in /proc: name a file in another directory\n"
    );
    assert_eq!(outcome.code, Some(1));
}

#[test]
fn an_address_of_the_other_family_is_refused() {
    let rows = [
        (
            "127.0.0.1",
            "-6",
            "'127.0.0.1' has no IPv6 address, only 127.0.0.1; leave out -6 or use -4",
        ),
        (
            "::1",
            "-4",
            "'::1' has no IPv4 address, only ::1; leave out -4 or use -6",
        ),
    ];
    for (host, option, message) in rows {
        let outcome = knock_client(&[host, "tcp/7000", option]);
        assert_eq!(outcome.err, format!("knock-client: {message}\n"));
        assert_eq!((outcome.out.as_str(), outcome.code), ("", Some(1)));

        let outcome = knock_client(&[host, "tcp/7000", option, "--json"]);
        assert_eq!(
            outcome.out,
            format!(
                "{{\"event\":\"failed\",\"reason\":\"unresolved\",\"message\":\"{message}\"}}\n"
            )
        );
        assert_eq!((outcome.err.as_str(), outcome.code), ("", Some(1)));
    }
}

/// The names under `.invalid` never exist (RFC 6761); the resolver's own words differ by system.
#[test]
fn an_unknown_name_is_reported() {
    let outcome = knock_client(&["host.invalid", "tcp/7000"]);
    assert!(
        outcome
            .err
            .starts_with("knock-client: cannot find 'host.invalid': "),
        "{}",
        outcome.err
    );
    assert!(
        outcome
            .err
            .ends_with("; check the spelling, or give the address instead\n"),
        "{}",
        outcome.err
    );
    assert_eq!((outcome.out.as_str(), outcome.code), ("", Some(1)));
}

/// `-v` shows the progress of a long sequence.
#[test]
fn a_knock_is_printed_before_the_delay() {
    let knock_port = KnockPort::bind(LOOPBACKS[0]);
    let knock = format!("udp/{}", knock_port.port());
    let mut child = command(&["127.0.0.1", &knock, &knock, "-v", "--delay", "2s"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the command runs");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();

    assert_eq!(
        lines.next().expect("a line").expect("text"),
        "knocking on 127.0.0.1"
    );
    assert_eq!(
        lines.next().expect("a line").expect("text"),
        format!("knock 1 of 2: {knock}")
    );
    knock_port.receive();
    assert!(
        knock_port.is_silent(),
        "the second knock was sent before the first was message"
    );

    child.kill().expect("its own child");
    child.wait().expect("its own child");
}

/// Knocks are sent even if standard output fails.
#[cfg(target_os = "linux")]
#[test]
fn output_that_cannot_be_written_fails_after_the_knocks() {
    let knock_port = KnockPort::bind(LOOPBACKS[0]);
    let knock = format!("udp/{}", knock_port.port());
    for delay in ["0ms", "1ms"] {
        let full = std::fs::File::options()
            .write(true)
            .open("/dev/full")
            .expect("/dev/full");
        let output = command(&["127.0.0.1", &knock, &knock, "-v", "--delay", delay])
            .stdout(full)
            .output()
            .expect("the command runs");

        assert_eq!(
            String::from_utf8_lossy(&output.stderr),
            "knock-client: cannot write to standard output: no space left on device; \
             some lines are missing\n",
            "{delay}"
        );
        assert_eq!(output.status.code(), Some(1), "{delay}");
        assert_eq!(
            (knock_port.receive(), knock_port.receive()),
            (vec![0], vec![0]),
            "{delay}"
        );
    }
}

struct ClientRun {
    code: Option<i32>,
    out: String,
    err: String,
}

fn knock_client(words: &[&str]) -> ClientRun {
    let output = command(words).output().expect("the command runs");
    ClientRun {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).expect("text"),
        err: String::from_utf8(output.stderr).expect("text"),
    }
}

fn command(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_knock-client"));
    command.args(words).stdin(Stdio::null());
    // The profiles of the user who runs the tests do not count.
    command.env("XDG_CONFIG_HOME", "/nonexistent");
    command
}

/// Replaces text that differs between runs by a placeholder.
fn masked(text: &str, before: &str, after: &str, name: &str) -> String {
    let (head, rest) = text
        .split_once(before)
        .unwrap_or_else(|| panic!("{before} in {text}"));
    let (value, tail) = rest
        .split_once(after)
        .unwrap_or_else(|| panic!("{after} in {rest}"));
    assert!(
        value.bytes().all(|b| b.is_ascii_digit() || b == b'.'),
        "{value} is a number"
    );
    format!("{head}{before}{name}{after}{tail}")
}
