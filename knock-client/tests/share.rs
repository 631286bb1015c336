//! `share` and `add`: a profile on another machine.

#![cfg(unix)]
#![expect(clippy::expect_used, reason = "a test stops at what it did not expect")]

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

const HOST: &str = "knock1:e06Qm75__kTEZaIgA31gjuNYl9Me-XLwf3SJLLD3PxM";

#[test]
fn a_profile_arrives_on_another_machine() {
    let spa = format!(
        "host = \"example.org\"\nspa = \"{HOST}\"\ndoor = \"ssh\"\nfor = \"10m\"\nthen_connect = 22\n"
    );
    let knock = "knock = [\"tcp/7000\", \"udp/8000\"]\nhandshake = true\nopen_for = \"50s\"\ndelay = \"20ms\"\n";
    for (name, profile, words, has_key) in [
        ("a packet", spa.as_str(), &["share", "home"][..], false),
        (
            "a packet, with a key",
            &spa,
            &["share", "home", "--with-secret"],
            true,
        ),
        ("knocks", knock, &["share", "home", "--with-secret"], false),
    ] {
        let [here, there] = [(); 2].map(|()| tempfile::tempdir().expect("a directory"));
        write(here.path(), &format!("[profile.home]\n{profile}"));
        let (code, uri, err) = client(here.path(), words, "");
        assert_eq!(code, Some(0), "{name}: {err}");
        assert_eq!(uri.lines().count(), 1, "{name}: no code without a terminal");
        assert_eq!(uri.contains("private"), has_key, "{name}: {uri}");
        let (code, out, err) = client(there.path(), &["add", "-"], &uri);
        assert_eq!((code, out.as_str()), (Some(0), ""), "{name}: {err}");
        let key = there.path().join("knock/home.key");
        assert_eq!(key.exists(), has_key, "{name}");
        for file in [key, there.path().join("knock/config.toml")]
            .iter()
            .filter(|file| file.exists())
        {
            let mode = fs::metadata(file).expect("a file").permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}: {file:?}");
        }
        // Both machines describe the profile alike.
        let [mine, other] = [&here, &there].map(|home| client(home.path(), &["profiles"], "").1);
        assert_eq!(mine, other, "{name}");
        let again = client(there.path(), &["add", "-"], &uri);
        assert_eq!(again.0, Some(2), "{name}");
        assert!(
            again
                .2
                .contains("has [profile.home] already: choose another name with --name"),
            "{}",
            again.2
        );
        assert_eq!(
            client(there.path(), &["add", "-", "--name", "other"], &uri).0,
            Some(0),
            "{name}"
        );
    }
}

#[test]
fn secrets_need_a_request() {
    let home = tempfile::tempdir().expect("a directory");
    write(
        home.path(),
        "[profile.home]\nknock = [\"tcp/7001\"]\n[profile.once]\none_time = \"lines\"\n[profile.\"my home\"]\n\
         knock = [\"tcp/7001\"]\n",
    );
    for (name, words, text) in [
        (
            "knocks",
            &["share", "home"][..],
            "the knocks of [profile.home] are its secret: give --with-secret",
        ),
        (
            "a file",
            &["share", "once", "--with-secret"],
            "[profile.once] opens by one-time lines in ",
        ),
        (
            "a name",
            &["share", "my home", "--with-secret"],
            "\"my home\" can't be shared: ",
        ),
        ("no profile", &["share", "work"], "has no [profile.work]"),
    ] {
        let (code, out, err) = client(home.path(), words, "");
        assert_eq!((code, out.as_str()), (Some(2), ""), "{name}: {err}");
        assert!(err.contains(text) && !err.contains("7001"), "{name}: {err}");
    }
    let (_, out, _) = client(home.path(), &["share", "home", "--with-secret", "--qr"], "");
    assert!(
        out.lines().count() > 10 && out.contains('█'),
        "a QR code: {out}"
    );
}

#[test]
fn a_wrong_uri_changes_nothing() {
    for (name, uri, text) in [
        (
            "another scheme",
            "https://home?host=h",
            "it does not begin with knock://",
        ),
        ("no query", "knock://home", "it has no settings"),
        (
            "a path as the name",
            "knock://../x?host=h&knock=tcp/1",
            "can't be shared",
        ),
        (
            "an unknown key",
            "knock://home?host=h&knock=tcp/1&log=x",
            "a setting that this version does not know",
        ),
        (
            "a key twice",
            "knock://home?host=h&knock=tcp/1&knock=tcp/2",
            "a setting twice",
        ),
        (
            "no knock",
            "knock://home?host=h&knock=ssh",
            "is not a knock",
        ),
        (
            "nothing that opens",
            "knock://home?host=h",
            "needs exactly one of",
        ),
        (
            "a bad key",
            "knock://home?host=h&spa=knock1:abc&private=zzz",
            "this is not a URI of",
        ),
        (
            "a quote",
            "knock://home?host=a%22%0Aknock&knock=tcp/1%22",
            "names the port",
        ),
    ] {
        let home = tempfile::tempdir().expect("a directory");
        let (code, out, err) = client(home.path(), &["add", uri], "");
        assert_eq!((code, out.as_str()), (Some(2), ""), "{name}: {err}");
        assert!(err.contains(text), "{name}: {err}");
        assert_eq!(config(home.path()), "", "{name}");
    }
}

fn client(home: &Path, words: &[&str], input: &str) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_knock-client"));
    command.args(words).env("XDG_CONFIG_HOME", home);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("the command runs");
    let mut stdin = child.stdin.take().expect("a pipe");
    // The command may not read it.
    let _unread = stdin.write_all(input.as_bytes());
    drop(stdin);
    let Output {
        status,
        stdout,
        stderr,
    } = child.wait_with_output().expect("it ends");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (status.code(), text(stdout), text(stderr))
}

fn write(home: &Path, text: &str) {
    fs::create_dir_all(home.join("knock")).expect("a directory");
    let config = home.join("knock/config.toml");
    fs::write(&config, text).expect("a file");
    fs::set_permissions(config, fs::Permissions::from_mode(0o600)).expect("a mode");
}

fn config(home: &Path) -> String {
    fs::read_to_string(home.join("knock/config.toml")).unwrap_or_default()
}
