//! Texts of arguments and files in what the client prints: none ends a line or moves the cursor of a terminal.

use std::fs;
use std::process::{Command, Stdio};

/// Ends a line, colours the next one, and begins it with a claim.
const EVIL: &str = "a\n\u{1b}[31mFORGED\u{202e}";

const KEY: &str = "knock1:e06Qm75__kTEZaIgA31gjuNYl9Me-XLwf3SJLLD3PxM";

#[test]
fn no_text_of_an_argument_or_a_file_ends_a_line() {
    let directory = tempfile::tempdir().expect("a directory");
    let place = directory.path().join(EVIL);
    fs::create_dir(&place).expect("a directory with any name");
    let path = |name: &str| place.join(name).display().to_string();
    let escaped = EVIL.replace('\n', "\\n").replace('\u{1b}', "\\u001b");
    let escaped = escaped.replace('\u{202e}', "\\u202e");
    for (name, text) in [
        ("wrong.toml", "[profile.x]\nknocks = 1\n".to_owned()),
        (
            "host.toml",
            format!("[profile.x]\nhost = \"{escaped}\"\nknock = [\"tcp/7000\"]\n"),
        ),
        (
            "name.toml",
            format!("[profile.\"{escaped}\"]\nhost = \"h\"\none_time = \"{escaped}\"\n"),
        ),
        (
            "good.toml",
            format!(
                "[profile.x]\nhost = \"127.0.0.1\"\none_time = \"{escaped}\"\nthen_connect = 22\n"
            ),
        ),
        ("once", "1 7000\n".to_owned()),
        (
            "fwknoprc",
            format!("[{EVIL}]\nSPA_SERVER h\n[x]\nSPA_SERVER {EVIL}\n"),
        ),
        ("empty", String::new()),
    ] {
        fs::write(place.join(name), text).expect("a file");
    }
    let [wrong, host, named, good, once] =
        ["wrong.toml", "host.toml", "name.toml", "good.toml", "once"].map(path);
    let [missing, new, fwknop, empty] = ["missing", "new.key", "fwknoprc", "empty"].map(path);
    let uri = format!("knock://x?host={}&knock=7000", "h%0AFORGED");
    let value = format!("--delay={EVIL}");
    let rows: [(&str, &[&str]); 26] = [
        ("a host", &[EVIL, "tcp/7000"]),
        ("a host without knocks", &[EVIL]),
        ("a knock", &["h", EVIL]),
        ("an option", &[&format!("--{EVIL}")]),
        ("a value", &["h", "tcp/7000", &value]),
        ("a subcommand's name", &["share", EVIL]),
        ("a missing file", &["h", "--file", &missing]),
        ("an empty file", &["127.0.0.1", "--file", &empty]),
        ("a missing one-time file", &["h", "--one-time", &missing]),
        (
            "a one-time file",
            &["127.0.0.1", "--one-time", &once, "--print"],
        ),
        (
            "a missing key",
            &["127.0.0.1", "--spa", KEY, "--key", &missing],
        ),
        (
            "a wrong key",
            &["127.0.0.1", "--spa", KEY, "--key", &once, "--print"],
        ),
        ("a log", &["127.0.0.1", "9", "--log", &path("missing/log")]),
        ("a missing configuration", &["x", "--config", &missing]),
        ("a wrong configuration", &["x", "--config", &wrong]),
        ("a wrong host", &["x", "--config", &host]),
        (
            "a profile's one-time file",
            &["x", "--config", &good, "--print"],
        ),
        ("profiles", &["profiles", "--config", &named]),
        ("no profiles", &["profiles", "--config", &empty]),
        ("ssh's block", &["ssh-config", "x", "--config", &good]),
        (
            "ssh's block of a wrong host",
            &["ssh-config", "x", "--config", &host],
        ),
        ("a URI", &["add", &uri, "--config", &empty]),
        ("a foreign URI", &["add", EVIL, "--config", &empty]),
        ("a new key", &["keygen", "--out", &new]),
        ("a key that exists", &["keygen", "--out", &new]),
        ("fwknop's file", &["import-fwknop", &fwknop]),
    ];
    for (name, words) in rows {
        let output = Command::new(env!("CARGO_BIN_EXE_knock-client"))
            .args(words)
            .env("XDG_CONFIG_HOME", &place)
            .stdin(Stdio::null())
            .output()
            .expect("the client runs");
        for printed in [output.stdout, output.stderr] {
            let printed = String::from_utf8(printed).expect("text");
            let is_harmful = |c: char| c != '\n' && (c.is_control() || c == '\u{202e}');
            assert!(!printed.contains(is_harmful), "{name}: {printed:?}");
            let is_forged = |line: &str| line.trim_start().starts_with("FORGED");
            assert!(!printed.lines().any(is_forged), "{name}: {printed}");
        }
    }
    assert_eq!(fs::read(&empty).expect("a file"), b"", "nothing was added");
}
