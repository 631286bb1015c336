//! What is printed about profiles: lists, blocks for ssh, and what would be sent. No secret is.

#![expect(clippy::expect_used, reason = "a test stops at what it did not expect")]

mod peers;

use peers::machine::{ClientMachine, ended};
use peers::{KnockPort, LOOPBACKS};
use std::fs;
use std::process::Output;

const PROFILES: &str = r#"
    [profile.home]
    host = "127.0.0.1"
    spa = "knock1:e06Qm75__kTEZaIgA31gjuNYl9Me-XLwf3SJLLD3PxM"
    door = "ssh"
    for = "10m"
    then_connect = 2222

    [profile.work]
    host = "127.0.0.1"
    knock = ["tcp/7001", "udp/7002"]

    [profile.once]
    host = "127.0.0.1"
    one_time = "lines"
    then_connect = "reply"

    [profile."127.0.0.1"]
    otp = { secret = "AAgR%XXx30O$#" }
"#;

/// Texts that open doors.
const SECRETS: [&str; 4] = ["7001", "7002", "7003", "AAgR"];

#[test]
fn profiles_are_listed_without_secrets() {
    let machine = machine();
    let lines = machine.home.path().join("knock/lines");
    let lines = lines.display();
    let long = format!("one-time lines in {lines}");
    let pad = |text: &str| format!("{text:width$}", width = long.len());
    let printed = printed(&machine, &["profiles"]);
    let expected = [
        format!("PROFILE    HOST       {}  CONNECTS TO", pad("OPENS BY")),
        "127.0.0.1  127.0.0.1  time-based knocks".to_owned(),
        format!(
            "home       127.0.0.1  {}  tcp/2222",
            pad("one packet, door ssh, for 10m")
        ),
        format!("once       127.0.0.1  {long}  the port that the host names"),
        "work       127.0.0.1  2 knocks".to_owned(),
    ];
    assert_eq!(
        printed.out.lines().collect::<Vec<_>>(),
        expected,
        "{}",
        printed.out
    );
    assert_eq!((printed.code, printed.err.as_str()), (Some(0), ""));
    for secret in SECRETS {
        assert!(!printed.out.contains(secret), "{}", printed.out);
    }
}

#[test]
fn profiles_that_do_not_exist_are_reported() {
    let machine = ClientMachine::new(LOOPBACKS[0]);
    let config = machine.home.path().join("knock/config.toml");
    let config = config.display();
    let none = format!("no profiles in {config}; docs/client.md shows how to write one\n");
    for (name, words, code, err) in [
        ("no file", &["profiles"][..], 0, none),
        (
            "a file that must be there",
            &["profiles", "-c", "/nonexistent/config.toml"],
            2,
            "knock-client: cannot read /nonexistent/config.toml: no such file or directory; check the path: a \
             relative one starts at the current directory\n"
                .to_owned(),
        ),
        (
            "no profile for ssh",
            &["ssh-config", "home"],
            2,
            format!(
                "knock-client: cannot read {config}: no such file or directory; check the path: a relative one \
                 starts at the current directory\n"
            ),
        ),
    ] {
        let printed = printed(&machine, words);
        assert_eq!((printed.code, printed.out.as_str()), (Some(code), ""), "{name}");
        assert_eq!(printed.err, err, "{name}");
    }
}

#[test]
fn a_profile_becomes_a_block_for_ssh() {
    let machine = machine();
    let config = machine.home.path().join("knock/config.toml");
    let missing = format!(
        "knock-client: {} has no [profile.elsewhere]: `knock-client profiles` lists those that it has\n",
        config.display()
    );
    for (name, words, code, out, err) in [
        (
            "a relay",
            &["ssh-config", "home"][..],
            0,
            "Host home\n    HostName 127.0.0.1\n    Port 2222\n    ProxyCommand knock-client proxy home %p\n",
            "",
        ),
        (
            "a command before the connection",
            &["ssh-config", "work", "--exec"],
            0,
            "Match originalhost work exec \"knock-client work\"\n    HostName 127.0.0.1\n",
            "",
        ),
        ("no profile", &["ssh-config", "elsewhere"], 2, "", &missing),
    ] {
        let printed = printed(&machine, words);
        assert_eq!(
            (printed.out.as_str(), printed.err.as_str()),
            (out, err),
            "{name}"
        );
        assert_eq!(printed.code, Some(code), "{name}");
    }
}

#[test]
fn a_preview_prints_no_secret() {
    let machine = machine();
    let place = |name: &str| {
        machine
            .home
            .path()
            .join("knock")
            .join(name)
            .display()
            .to_string()
    };
    let (key, lines) = (place("key"), place("lines"));
    for (name, words, expected) in [
        (
            "a packet",
            &["home", "--print"][..],
            format!(
                "would send a packet to udp/62201 on 127.0.0.1: open the door ssh for 10m, for whichever address it \
                 comes from\nwith the private key in {key}\nwould then connect to tcp/2222, for up to 10s\n"
            ),
        ),
        (
            "a packet for an address",
            &["home", "--print", "--source", "203.0.113.7", "--door", "wiki", "--close"],
            format!(
                "would send a packet to udp/62201 on 127.0.0.1: close the door wiki, for 203.0.113.7\n\
                 with the private key in {key}\n"
            ),
        ),
        (
            "knocks of a profile",
            &["work", "--print"],
            "would send 2 knocks to 127.0.0.1, 5ms apart\n".to_owned(),
        ),
        (
            "a line",
            &["once", "--print"],
            format!(
                "would mark line 3 of {lines} as used, 1 left\nwould send its knocks to 127.0.0.1, 5ms apart\n\
                 would then connect to the port that the host names, for up to 10s\n"
            ),
        ),
        (
            "time-based knocks",
            &["127.0.0.1", "--print", "--handshake"],
            "would send the time-based knocks of the current period of 45s with handshakes to 127.0.0.1, 5ms apart\n"
                .to_owned(),
        ),
    ] {
        let printed = printed(&machine, words);
        assert_eq!(printed.out, expected + "nothing was sent\n", "{name}: {}", printed.err);
        assert_eq!((printed.code, printed.err.as_str()), (Some(0), ""), "{name}");
        for secret in SECRETS {
            assert!(!printed.out.contains(secret), "{name}: {}", printed.out);
        }
    }
    let text = fs::read_to_string(&lines).expect("a file");
    assert!(text.contains("\n 7003,"), "the line is unused: {text}");

    let knock = KnockPort::bind(LOOPBACKS[0]);
    let port = format!("udp/{}", knock.port());
    let printed = printed(&machine, &["127.0.0.1", "tcp/9", &port, "--print"]);
    let expected =
        format!("would send 2 knocks to 127.0.0.1, 5ms apart: tcp/9 {port}\nnothing was sent\n");
    assert_eq!(printed.out, expected, "the command line has them, too");
    let host = machine.start(&["--print"]);
    assert_eq!(ended(host).code, Some(0));
    assert!(
        knock.is_silent() && machine.host.is_silent(),
        "nothing was sent"
    );
}

struct Printed {
    code: Option<i32>,
    out: String,
    err: String,
}

fn printed(machine: &ClientMachine, words: &[&str]) -> Printed {
    let output: Output = machine.command(words).output().expect("the command runs");
    Printed {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).expect("text"),
        err: String::from_utf8(output.stderr).expect("text"),
    }
}

/// Makes a machine with profiles.
fn machine() -> ClientMachine {
    let machine = ClientMachine::new(LOOPBACKS[0]);
    let directory = machine.home.path().join("knock");
    for (name, text) in [
        ("config.toml", PROFILES),
        ("lines", "# mine\n#7004\n 7003,8003:udp\n 7005\n"),
    ] {
        let path = directory.join(name);
        fs::write(&path, text).expect("a file");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("a mode");
        }
    }
    machine
}
