//! Messages and exit codes of knock-user, as far as they need no root.

use std::{
    fs, io,
    path::PathBuf,
    process::{Command, Output, Stdio},
};

use tempfile::TempDir;

const CONFIG: &str = "\
                      interfaces = [\"eth0\"]
exempt = [\"tcp/443\"]

[[door]]
name  = \"ssh\"
knock = [\"tcp/7000\", \"udp/9000\", \"tcp/8000\"]
open  = [\"tcp/22\"]
";

const KNOCKD: &str = "\
                      [ssh]
sequence = 7000,8000,9000
command = /sbin/iptables -A INPUT -s %IP% -p tcp --dport 22 -j ACCEPT
";

#[test]
fn a_reader_that_ends_early_is_not_an_error() {
    let directory = directory();
    let config = file(&directory, "seq.toml", CONFIG);
    let knockd = file(&directory, "knockd.conf", KNOCKD);
    for words in [
        vec!["check", "--config", &config],
        vec!["generate"],
        vec!["import-knockd", &knockd],
        vec!["--help"],
        vec!["status", "--help"],
    ] {
        let printed = output(knock_user().args(&words).stdout(unread()));
        let errors = String::from_utf8_lossy(&printed.stderr);
        assert!(!errors.contains("pipe"), "{words:?}: {errors}");
        assert!(!errors.contains("panicked"), "{words:?}: {errors}");
        assert_eq!(printed.status.code(), Some(0), "{words:?}: {errors}");
    }
}

#[test]
fn words_of_the_command_line_end_no_line() {
    for words in [
        ["--a\n\u{1b}[31mb", "--iface"],
        ["--log-format", "a\n\u{1b}[31mb"],
        ["grant", "a\n\u{1b}[31mb"],
    ] {
        let printed = output(knock_user().args(words));
        let errors = String::from_utf8_lossy(&printed.stderr);
        assert!(errors.contains("a\\n\\u{1b}[31mb"), "{words:?}: {errors}");
        assert!(!errors.contains('\u{1b}'), "{words:?}: {errors}");
        assert_eq!(printed.status.code(), Some(2), "{words:?}: {errors}");
    }
}

#[test]
fn a_failure_without_a_reader_is_still_a_failure() {
    let directory = directory();
    let config = file(&directory, "seq.toml", "what is this");
    let mut check = knock_user();
    check.args(["check", "--config", &config]);
    let printed = output(check.stdout(unread()).stderr(unread()));
    assert_eq!(printed.status.code(), Some(2), "{printed:?}");
}

/// An empty file is an error. A shell that redirects into the configuration empties it before the program runs.
#[test]
fn check_refuses_a_file_without_an_effect() {
    let directory = directory();
    for (name, text, code, word) in [
        ("empty", "", 2, "has no effect"),
        ("blank", "\n\n", 2, "has no effect"),
        (
            "interfaces",
            "interfaces = [\"eth0\"]\n",
            2,
            "has no effect",
        ),
        (
            "protects",
            "interfaces = [\"eth0\"]\nprotect = [\"tcp/22\"]\n",
            0,
            "protected: tcp/22",
        ),
        (
            "names none",
            "protect = [\"tcp/22\"]\n",
            0,
            "warning: interfaces: not set",
        ),
        ("missing", "-", 2, "can't be read"),
    ] {
        let config = match text {
            "-" => directory.path().join("missing").display().to_string(),
            text => file(&directory, name, text),
        };
        let printed = output(knock_user().args(["check", "--config", &config]));
        let text = [printed.stdout, printed.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        assert_eq!(printed.status.code(), Some(code), "{name}: {text}");
        assert!(text.contains(word), "{name}: no {word:?} in {text}");
    }
}

#[test]
fn a_failed_import_prints_nothing() {
    let directory = directory();
    for (name, text) in [
        ("empty", ""),
        ("no doors", "[options]\nUseSyslog\n"),
        ("nonsense", "what is this\n"),
        ("missing", "-"),
    ] {
        let path = match text {
            "-" => directory.path().join("missing").display().to_string(),
            text => file(&directory, name, text),
        };
        let printed = output(knock_user().args(["import-knockd", &path]));
        assert_eq!(printed.status.code(), Some(2), "{name}: {printed:?}");
        assert_eq!(printed.stdout, b"", "{name}");
        assert!(!printed.stderr.is_empty(), "{name}");
    }
}

fn knock_user() -> Command {
    Command::new(env!("CARGO_BIN_EXE_knock-user"))
}

/// Returns a file in a directory that lives as long as the test.
fn file(directory: &TempDir, name: &str, text: &str) -> String {
    let path: PathBuf = directory.path().join(name);
    match fs::write(&path, text) {
        Ok(()) => path.display().to_string(),
        Err(error) => panic!("writing {}: {error}", path.display()),
    }
}

fn directory() -> TempDir {
    match TempDir::new() {
        Ok(directory) => directory,
        Err(error) => panic!("making a directory: {error}"),
    }
}

#[track_caller]
fn output(command: &mut Command) -> Output {
    match command.output() {
        Ok(output) => output,
        Err(error) => panic!("running knock-user: {error}"),
    }
}

/// Returns a pipe whose reader has ended, as after `| head -1`.
fn unread() -> Stdio {
    match io::pipe() {
        Ok((_, writer)) => writer.into(),
        Err(error) => panic!("making a pipe: {error}"),
    }
}
