//! Errors and warnings of configurations: each `golden/*.toml` has its expected output in a `.txt`.
//!
//! `KNOCK_BLESS=1 cargo test -p knock-user --test config` writes the expected output.

#![expect(
    clippy::unwrap_used,
    reason = "clippy.toml's exception does not reach helpers of tests"
)]

use std::{
    env, fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use knock_sequence::spa::PrivateKey;
use knock_user::{
    compile::{Input, compile, stable_ids::StableIds},
    config,
    host::Host,
    tools::check,
};

#[test]
fn every_file_has_the_recorded_output() {
    let bless = env::var_os("KNOCK_BLESS").is_some();
    let mut different = String::new();
    for path in files("tests/golden") {
        let found = output(&path);
        let golden = path.with_extension("txt");
        if bless {
            fs::write(&golden, &found).unwrap();
        }
        let wanted = fs::read_to_string(&golden).unwrap_or_default();
        if wanted != found {
            different += &format!("{}:\n{}", path.display(), diff(&wanted, &found));
        }
    }
    assert!(
        different.is_empty(),
        "not as in the golden texts:\n{different}"
    );
}

#[test]
fn examples_are_accepted() {
    for path in files("../examples") {
        let file = path.file_name().unwrap().to_str().unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let checked = config::parse(&text, file).unwrap_or_else(|problems| panic!("{problems}"));
        let mut random = 0_u64;
        let tables = compile(
            &checked.settings,
            &mut Input {
                host: &Host::default(),
                cell_key: [1; 12],
                known: &StableIds::default(),
                draw: &mut || {
                    random += 1;
                    random.wrapping_mul(0x9e37_79b9_7f4a_7c15)
                },
                sequences: &knock_user::model::settings::Sequences::new(),
                before: None,
            },
        );
        assert!(tables.is_ok(), "{file}: {:?}", tables.err());
    }
}

/// The file of packages has no door, is refused with a user whose key was not put in, and right once it is.
#[test]
fn the_installed_file_protects_nothing_until_it_is_edited() {
    const NO_KEY: &str = "knock1:…";
    const KEY: &str = "knock1:D6poSU7Yi2e5bNRqLV3uic6XTna3AY4_IqHEz3xXDyA";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dist/seq.toml");
    let installed = fs::read_to_string(path).unwrap();
    assert!(installed.contains(NO_KEY), "{installed}");
    // Comments are sentences behind "# "; settings have no space there, and "#:" is for editors.
    let settings: Vec<_> = installed
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(setting) if !setting.starts_with([' ', ':']) => setting,
            _ => line,
        })
        .collect();
    let edited = settings.join("\n");
    for (name, text, doors) in [
        ("as installed", installed, Some(vec![])),
        ("without a key", edited.clone(), None),
        ("with a key", edited.replace(NO_KEY, KEY), Some(vec!["ssh"])),
    ] {
        let found = config::parse(&text, "seq.toml")
            .ok()
            .map(|checked| checked.settings.doors);
        let found: Option<Vec<_>> = found
            .as_ref()
            .map(|doors| doors.iter().map(|door| door.name.as_str()).collect());
        assert_eq!(found, doors, "{name}");
    }
}

#[test]
fn check_prints_the_meaning_of_a_file() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/two-doors.toml");
    let text = fs::read_to_string(path).unwrap();
    let checked = config::parse(&text, "two-doors.toml").unwrap();
    let mut out = Vec::new();
    check::check(&checked, &Host::default(), &mut out).unwrap();
    let wanted = "\
                  door ssh
  knock    udp/7431 tcp/2290 udp/19112 tcp/3085
  timeout  25s
  effect   opens tcp/22 for 30s
  guessing 4 knocks on 131070 ports: about 2^68 sequences; one is found after about 2^67 tries, \
millions of years at a thousand a second
  scanned  6 ports stand out, because they send no reset as closed ports do: 360 orders, less than a second at a \
thousand tries a second; none stands out if the host resets no connections
door admin
  knock    udp/7431 tcp/2290 udp/1844 tcp/12007
  timeout  25s
  effect   opens tcp/8443 tcp/9090 for 10m
  guessing 4 knocks on 131070 ports: about 2^68 sequences; one is found after about 2^67 tries, \
millions of years at a thousand a second
  scanned  6 ports stand out, because they send no reset as closed ports do: 360 orders, less than a second at a \
thousand tries a second; none stands out if the host resets no connections
protected: tcp/22 tcp/5432 tcp/8443 tcp/9090
without knocking: 198.51.100.0/24 2001:db8:77::/48
";
    assert_eq!(String::from_utf8(out).unwrap(), wanted);
}

/// Strengths as they are printed, for an attacker who knows nothing and for one who has scanned.
#[test]
fn check_prints_how_hard_doors_are_to_guess() {
    let rows: [(&str, &str, &[&str]); 5] = [
        (
            "time-based",
            "otp = { secret = \"0123456789abc\", protocols = [\"tcp\", \"udp\", \"tcp\"] }",
            &[
                "guessing 6 knocks on 256 ports: about 2^48 sequences, 3 of them valid at a \
                 time; one is found after about 2^46 tries",
                "scanned  a scan shows only the range",
            ],
        ),
        (
            "handshakes",
            "verify = \"handshake\"\nknock = [\"tcp/7000\", \"tcp/9000\", \"tcp/8000\"]",
            &[
                "guessing 3 knocks on 65535 ports: about 2^48 sequences",
                "scanned  8 ports stand out, because they complete handshakes: 336 orders, less \
                 than a second",
            ],
        ),
        (
            "one TCP port",
            "knock = [\"tcp/7000\", \"tcp/7000\", \"tcp/7000\"]",
            &[
                "warning: knock: tcp/7000 3 times: one connection attempt opens this door, \
                 because a client that gets no reply retransmits its SYN",
                "guessing 3 knocks, of which repetition makes all but 1 useless: 1 knock on \
                 131070 ports: 131070 \
                 sequences; one is found after 65535 tries, 66 seconds",
                "scanned  6 ports stand out, because they send no reset as closed ports do: 6 \
                 orders",
            ],
        ),
        (
            "one UDP port",
            "knock = [\"udp/7000\", \"udp/7000\"]",
            &["udp/7000 twice: repeated packets to this one port open this door"],
        ),
        (
            "two ports in turn",
            "knock = [\"tcp/7000\", \"udp/7000\", \"tcp/7000\", \"udp/7000\"]",
            &[
                "the sequence repeats its first 2 knocks, so it is no harder to guess than those",
                "2 different knocks are guessed in about 2^33 tries",
            ],
        ),
    ];
    for (name, keys, output) in rows {
        let text =
            format!("decoys.count = 5\n[[door]]\nname = \"d\"\n{keys}\nopen = [\"tcp/22\"]\n");
        let checked = config::parse(&text, "seq.toml").unwrap_or_else(|e| panic!("{name}: {e}"));
        let mut out = Vec::new();
        check::check(&checked, &Host::default(), &mut out).unwrap();
        let shown = String::from_utf8(out).unwrap();
        for output in output {
            assert!(shown.contains(output), "{name}: no {output:?} in:\n{shown}");
        }
    }
}

/// The file is found beside the configuration, and its lines are checked.
#[test]
fn check_prints_the_state_of_a_one_time_file() {
    let directory = tempfile::tempdir().unwrap();
    let [seq, once] = ["seq.toml", "once"].map(|name| directory.path().join(name));
    fs::write(
        &seq,
        "[next_line]\nlisten = \"[::]:7001\"\n[[door]]\nname = \"ssh\"\none_time = \"once\"\n\
         lookahead = 2\nopen = [\"tcp/22\"]\n",
    )
    .unwrap();
    let shown = || {
        let checked = config::read(&seq).unwrap();
        let mut out = Vec::new();
        check::check(&checked, &Host::default(), &mut out).unwrap();
        let output = String::from_utf8(out).unwrap();
        let place = format!("{}/", directory.path().display());
        output.replace(&place, "")
    };
    let used = "#1000,3000,2000\n";
    let rows: [(&str, u32, &[&str]); 4] = [
        (
            " 7000,9000:udp,8000\n 7001,9000,8000\n 7000,22,8000\n 7000,80000\n",
            0o600,
            &[
                "seq.toml:5: warning: one_time: once:3: tcp/7001 is where [next_line] listens",
                "seq.toml:5: warning: one_time: once:4: tcp/22 is protected",
                "seq.toml:5: warning: one_time: once:5: \"80000\" names the port \"80000\"",
                "knock    one-time sequences of once: 1 left, line 2 opens",
                "guessing 3 knocks on 131070 ports: about 2^51 sequences, 2 of them valid at a \
                 time; \
                 one is found after about 2^49 tries, 24000 years at a thousand a second",
                "scanned  3 ports stand out, because they send no reset as closed ports do: 6 \
                 orders, less than",
                "next_line: every client may ask [::]:7001 which line",
            ],
        ),
        (
            " 7000,9000,8000\n 7000,9000,7500\n 6000,9000,7500\n",
            0o644,
            &[
                "every user of this host may read once, which is all that it takes to get in: \
                 chmod 600 once",
                "3 left, any of lines 2, 3 opens",
            ],
        ),
        (
            "",
            0o600,
            &[
                "seq.toml:5: warning: one_time: the door can't be opened: no sequence is left in \
                 once",
                "none is left",
            ],
        ),
        (" 7000,9000,8000\n", 0o600, &["1 left, line 2 opens"]),
    ];
    for (lines, mode, output) in rows {
        fs::write(&once, format!("{used}{lines}")).unwrap();
        fs::set_permissions(&once, fs::Permissions::from_mode(mode)).unwrap();
        let shown = shown();
        for output in output {
            assert!(shown.contains(output), "no {output:?} in:\n{shown}");
        }
    }
    fs::remove_file(&once).unwrap();
    let shown = shown();
    assert!(
        shown.contains("the door can't be opened: cannot read once"),
        "{shown}"
    );
    assert!(shown.contains("none can be read"), "{shown}");
}

#[test]
fn named_files_are_relative_to_the_configuration() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path();
    let host_key = PrivateKey::from_octets([9; 32]);
    let user_key = PrivateKey::from_octets([7; 32]);
    for (name, text) in [
        ("secret", "a secret of sixteen\n".to_owned()),
        ("once", " 7000,9000,8000\n".to_owned()),
        ("host.key", host_key.line().to_string()),
        ("bob.fwknop", "KEY abc\nHMAC_KEY def\n".to_owned()),
        ("hook", "#!/bin/sh\n".to_owned()),
    ] {
        fs::write(place.join(name), text).unwrap();
        fs::set_permissions(place.join(name), fs::Permissions::from_mode(0o700)).unwrap();
    }
    let seq = place.join("seq.toml");
    let text = format!(
        "[spa]\nkey = \"host.key\"\n[[door]]\nname = \"a\"\none_time = \"once\"\nopen = [\"tcp/22\"]\n\
         on_open = [\"./hook\"]\n[[door]]\nname = \"b\"\notp = {{ secret_file = \"secret\" }}\nopen = \
         [\"tcp/23\"]\n[[user]]\nname = \"alice\"\nkeys = [\"{}\"]\ndoors = [\"a\"]\n[[user]]\nname = \
         \"bob\"\nfwknop = \"bob.fwknop\"\ndoors = [\"a\"]\n",
        user_key.public()
    );
    fs::write(&seq, text).unwrap();
    let checked = config::read(&seq).unwrap();
    let warnings = checked.file_warnings();
    assert!(warnings.is_empty(), "{warnings:?}");
    assert_eq!(
        checked.other_secrets(),
        [],
        "the secret is read again there"
    );
    let door = &checked.settings.doors[0];
    let program = &door.on_open.as_ref().unwrap().program;
    assert_eq!(program, &place.join("./hook"));
}

#[test]
fn every_missing_file_is_reported() {
    let directory = tempfile::tempdir().unwrap();
    let seq = directory.path().join("seq.toml");
    let user_key = PrivateKey::from_octets([7; 32]);
    let text = format!(
        "[spa]\nkey = \"host.key\"\n[[door]]\nname = \"a\"\none_time = \"once\"\nopen = [\"tcp/22\"]\n\
         on_open = [\"hooks/in\"]\non_close = [\"no-such-program\"]\n[[door]]\nname = \"b\"\notp = {{ \
         secret_file = \"secret\" }}\nopen = [\"tcp/23\"]\n[[user]]\nname = \"alice\"\nkeys = [\"{}\"]\n\
         doors = [\"a\"]\n[[user]]\nname = \"bob\"\nfwknop = \"bob.fwknop\"\ndoors = [\"a\"]\n",
        user_key.public()
    );
    fs::write(&seq, text).unwrap();
    let mut out = Vec::new();
    let error = check::run(&seq, &mut out).unwrap_err().to_string();
    let printed = String::from_utf8(out).unwrap() + &error;
    for expected in [
        "seq.toml:2: key: there is no file ",
        "seq.toml:5: warning: one_time: the door can't be opened: cannot read ",
        "seq.toml:7: warning: on_open: there is no program ",
        "seq.toml:8: warning: on_close: there is no program no-such-program in ",
        "seq.toml:11: secret_file: ",
        "seq.toml:19: fwknop: ",
        "relative one starts at the directory of the configuration",
        "make the file with `knock-user generate --one-time`",
    ] {
        assert!(printed.contains(expected), "no {expected:?} in:\n{printed}");
    }
}

#[test]
fn one_mistake_is_one_error() {
    const DOOR: &str = "[[door]]\nname = \"wiki\"\nopen = [\"tcp/81\"]\n";
    let key = PrivateKey::from_octets([7; 32]).public().to_string();
    let user = |header: &str, more: &str| {
        format!("{header}\nname = \"alice\"\nkeys = [\"{key}\"]\n{more}\n")
    };
    for (name, text, expected) in [
        (
            "a misspelt door of a user",
            format!("{DOOR}{}", user("[[user]]", "doors = [\"wikki\"]")),
            "seq.toml:7: doors: there is no door \"wikki\": did you mean \"wiki\"?",
        ),
        (
            "[[users]]",
            format!("{DOOR}{}", user("[[users]]", "doors = [\"wiki\"]")),
            "seq.toml:4: users: unknown key: did you mean user?",
        ),
        (
            "[[doors]]",
            format!(
                "{}{}",
                DOOR.replace("[[door]]", "[[doors]]"),
                user("[[user]]", "doors = [\"wiki\"]")
            ),
            "seq.toml:1: doors: unknown key: did you mean door?",
        ),
        (
            "a month that does not exist",
            format!(
                "{DOOR}{}",
                user("[[user]]", "doors = [\"wiki\"]\nuntil = 2027-13-31")
            ),
            "seq.toml:8: until: 2027-13-31 is not a date or time that exists: write year, month and day, as \
             in 2027-01-31, or a time with its offset, as in 2027-01-31T18:00:00Z",
        ),
        (
            "an hour that does not exist",
            format!(
                "{DOOR}{}",
                user(
                    "[[user]]",
                    "doors = [\"wiki\"]\nuntil = 2027-01-31T25:00:00Z"
                )
            ),
            "seq.toml:8: until: 2027-01-31T25:00:00Z is not a date or time that exists: write year, month \
             and day, as in 2027-01-31, or a time with its offset, as in 2027-01-31T18:00:00Z",
        ),
    ] {
        let problems = config::parse(&text, "seq.toml").unwrap_err();
        assert_eq!(problems.to_string(), expected, "{name}");
    }
}

#[test]
fn a_missing_file_is_a_problem() {
    let problems = config::read(Path::new("/nonexistent/seq.toml")).unwrap_err();
    assert_eq!(
        problems.to_string(),
        "/nonexistent/seq.toml: can't be read: no such file or directory; check the path: a relative \
         one starts at the current directory"
    );
}

/// Returns the errors or warnings of a file.
fn output(path: &Path) -> String {
    let file = path.file_name().unwrap().to_str().unwrap();
    let text = fs::read_to_string(path).unwrap();
    let mut output = String::new();
    match config::parse(&text, file) {
        Err(problems) => output += &format!("{problems}\n"),
        Ok(checked) => {
            for warning in checked.warnings(&Host::default()) {
                output += &format!("{}\n", warning.render("warning", file));
            }
        }
    }
    output
}

fn files(directory: &str) -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join(directory);
    let mut files: Vec<PathBuf> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "toml")
        })
        .collect();
    files.sort();
    assert!(!files.is_empty());
    files
}

/// Returns the lines of two texts, with `-` before those only in the first and `+` before those only in the
/// second.
fn diff(wanted: &str, found: &str) -> String {
    let only = |these: &str, others: &str, sign: &str| -> String {
        let others: Vec<&str> = others.lines().collect();
        let only = these.lines().filter(|line| !others.contains(line));
        only.map(|line| format!("  {sign} {line}\n")).collect()
    };
    only(wanted, found, "-") + &only(found, wanted, "+")
}
