//! The import of knockd's files: each `knockd/*.conf` has beside it the resulting `.toml`, unless knockd
//! rejects the file too, and a `.txt` with the notes.
//!
//! `KNOCK_BLESS=1 cargo test -p knock-user --test import` writes them.

#![expect(
    clippy::unwrap_used,
    reason = "clippy.toml's exception does not reach helpers of tests"
)]

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use knock_user::{
    config,
    model::settings::Effect,
    tools::import::{self, ImportedConf},
};
use proptest::prelude::*;

#[test]
fn imports_have_the_recorded_results() {
    let bless = env::var_os("KNOCK_BLESS").is_some();
    let mut different = String::new();
    for path in files() {
        let file = path.file_name().unwrap().to_str().unwrap();
        let (toml, notes) = imported(&fs::read_to_string(&path).unwrap(), file);
        for (extension, found) in [("toml", toml), ("txt", notes)] {
            let golden = path.with_extension(extension);
            if bless && found.is_empty() {
                let _was_not_there = fs::remove_file(&golden);
            } else if bless {
                fs::write(&golden, &found).unwrap();
            }
            let wanted = fs::read_to_string(&golden).unwrap_or_default();
            if wanted != found {
                different += &format!("{}: now\n{found}", golden.display());
            }
        }
    }
    assert!(
        different.is_empty(),
        "not as in the golden files:\n{different}"
    );
}

/// Comments may be in an older encoding; an error elsewhere names its line.
#[test]
fn comments_of_imported_files_may_be_latin_1() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("knockd.conf");
    let run = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        let (mut out, mut notes) = (Vec::new(), Vec::new());
        let result = import::run(&path, &mut out, &mut notes);
        (result, String::from_utf8(out).unwrap())
    };
    let (result, toml) = run(
        b"# f\xfcr den Server\n[a]\nsequence = 7000,9000,8000\n\t#\xa0 \x80\n\
        command = ufw allow from %IP% to any port 22 proto tcp\n",
    );
    result.unwrap();
    assert!(toml.contains("open = [\"tcp/22\"]"), "{toml}");

    let (result, toml) = run(b"# f\xfcr\n[a]\nsequence = 7000\ncommand = echo f\xfcr\n");
    let notes = result.unwrap_err().to_string();
    assert!(
        notes.contains("knockd.conf:4: not UTF-8: convert the file"),
        "{notes}"
    );
    assert_eq!(toml, "");
}

/// The imported doors have the knocks, ports and commands that the file means.
#[test]
fn the_doors_of_an_example_are_imported() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/knockd/example.conf");
    let (toml, _) = imported(&fs::read_to_string(path).unwrap(), "knockd.conf");
    let checked = config::parse(&toml, "seq.toml").unwrap();
    let doors = checked.settings.doors;
    let notes: Vec<String> = doors
        .iter()
        .map(|door| {
            let knocks: Vec<String> = door.knock.iter().map(ToString::to_string).collect();
            let effect = match &door.effect {
                Effect::Open(ports) => format!("opens {ports:?}"),
                Effect::Close(ports) => format!("closes {ports:?}"),
            };
            let effect = effect.replace("[Ports { protocol: Tcp, first: 22, last: 22 }]", "tcp/22");
            let program = door.on_open.as_ref().map(|command| &command.arguments);
            format!("{}: {} {effect} {program:?}", door.name, knocks.join(" "))
        })
        .collect();
    assert_eq!(
        notes,
        [
            "sshIn: tcp/7421 tcp/8532 tcp/6310 opens tcp/22 None",
            "sshOut: tcp/6310 tcp/8532 tcp/7421 closes tcp/22 None",
            "webIn: tcp/11234 tcp/4321 tcp/21345 tcp/3210 opens [] Some([\"-c\", \
             \"/usr/local/sbin/let-in -p tcp -d 443 {source}\"])",
        ]
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// An import either fails or results in a configuration without errors.
    #[test]
    fn an_imported_configuration_is_accepted(doors in prop::collection::vec(door(), 0..4)) {
        let text = doors.concat().join("\n");
        if let Ok(ImportedConf { toml, .. }) = import::import(&text, "knockd.conf") {
            let checked = config::parse(&toml, "seq.toml");
            prop_assert!(checked.is_ok(), "{}\nof\n{text}\nis\n{toml}", checked.unwrap_err());
        }
    }

    #[test]
    fn no_text_makes_the_import_panic(text in any::<String>()) {
        let _result = import::import(&text, "knockd.conf");
    }
}

/// Returns the configuration, if there is one, and the notes.
fn imported(text: &str, file: &str) -> (String, String) {
    match import::import(text, file) {
        Ok(ImportedConf { toml, notes }) => {
            let notes = notes.iter().map(|note| note.render("note", file) + "\n");
            (toml, notes.collect())
        }
        Err(problems) => (String::new(), format!("{problems}\n")),
    }
}

fn files() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/knockd");
    let mut files: Vec<PathBuf> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "conf")
        })
        .collect();
    files.sort();
    assert!(!files.is_empty());
    files
}

/// Lines that are more often valid than not.
fn line() -> impl Strategy<Value = String> {
    let known = prop::sample::select(vec![
        "sequence",
        "One_Time_Sequences",
        "otp",
        "Seq_Timeout",
        "tcpflags",
        "Target",
        "command",
        "start_command_6",
        "stop_command",
        "Stop_Command_6",
        "CMD_TIMEOUT",
        "interface",
        "LogFile",
    ]);
    let key = prop_oneof![9 => known.prop_map(str::to_owned), 1 => "[a-z_]{1,8}"];
    let value = prop_oneof![
        "[0-9]{1,5}(:udp|:tcp)?(, ?[0-9]{1,5}(:udp|:tcp)?){0,3}",
        "[0-9]{1,4}",
        "(syn|!ack|fin|urg)(,(syn|!ack|fin|psh)){0,2}",
        Just("/sbin/iptables -I INPUT -s %IP% -p tcp --dport 22 -j ACCEPT".to_owned()),
        Just("iptables -D INPUT -s %IP% -p tcp --dport 22 -j ACCEPT".to_owned()),
        Just("ufw allow from %IP% to any port 80; sleep 5; logger {door}".to_owned()),
        "(nft|iptables|ufw|sleep|logger)( [-a-zA-Z0-9%{};&|'\"$/.]{1,8}){0,8}",
        "(192\\.0\\.2\\.[0-9]|2001:db8::[0-9]|eth[0-9])",
        "secret, 45, 20000, (on|off), tcp, udp, tcp",
        "\\PC{0,30}",
        any::<String>(),
    ];
    prop_oneof![
        8 => (key, value).prop_map(|(key, value)| format!("{key} = {value}")),
        2 => "\\[[ a-zA-Z0-9.]{1,9}\\]",
        1 => Just("[options]".to_owned()),
        1 => Just("UseSyslog".to_owned()),
        1 => any::<String>(),
    ]
}

/// Returns a valid door with further lines, so that most files have some.
fn door() -> impl Strategy<Value = Vec<String>> {
    let sequence = "sequence = [0-9]{4}(:udp)?(,[0-9]{4}(:udp)?){1,3}";
    ("\\[[a-c]\\]", sequence, prop::collection::vec(line(), 0..5)).prop_map(
        |(name, sequence, lines)| {
            let mut door = vec![name, sequence];
            door.extend(lines);
            door
        },
    )
}
