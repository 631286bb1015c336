//! What the program itself does: its messages and exit codes, where no root is needed.

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

fn knock_user() -> Command {
    Command::new(env!("CARGO_BIN_EXE_knock-user"))
}

/// A file in a directory that lives as long as the test.
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

/// A pipe whose reader has gone, as after `| head -1`.
fn unread() -> Stdio {
    match io::pipe() {
        Ok((_, writer)) => writer.into(),
        Err(error) => panic!("making a pipe: {error}"),
    }
}

#[test]
fn a_reader_that_ends_early_is_no_error() {
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
        let told = output(knock_user().args(&words).stdout(unread()));
        let errors = String::from_utf8_lossy(&told.stderr);
        assert!(!errors.contains("pipe"), "{words:?}: {errors}");
        assert!(!errors.contains("panicked"), "{words:?}: {errors}");
        assert_eq!(told.status.code(), Some(0), "{words:?}: {errors}");
    }
}

#[test]
fn a_failure_stays_one_without_a_reader() {
    let directory = directory();
    let config = file(&directory, "seq.toml", "what is this");
    let mut check = knock_user();
    check.args(["check", "--config", &config]);
    let told = output(check.stdout(unread()).stderr(unread()));
    assert_eq!(told.status.code(), Some(2), "{told:?}");
}
