//! What `knock-user generate` prints and writes.

#![expect(
    clippy::unwrap_used,
    reason = "clippy.toml's exception does not reach helpers of tests"
)]

use std::{collections::HashSet, fs, os::unix::fs::PermissionsExt as _};

use clap::Parser;
use knock_common::packet::Protocol;
use knock_sequence::Knock;
use knock_user::{
    config,
    host::Host,
    tools::generate::{self, GenerateOptions, GeneratedDoor, Unsuitable},
};
use rand::{SeedableRng as _, rngs::StdRng};

#[test]
fn doors_pass_check_without_a_warning() {
    for words in [
        "",
        "--knocks 3",
        "--knocks 128",
        "--knocks 10..100 --range 1025-2024",
        "--knocks 4 --protocol udp --open udp/1194 --name vpn",
        "--knocks 4 --protocol tcp --open tcp/22 --open tcp/8000-9000",
        "--knocks 3 --range 1025-1028",
    ] {
        for seed in 0..10 {
            let text = generated(words, seed).unwrap().door;
            let checked = config::parse(&text, "seq.toml")
                .unwrap_or_else(|problems| panic!("{words}\n{text}\n{problems}"));
            let warnings = checked.warnings(&Host::default());
            assert!(warnings.is_empty(), "{words}\n{text}\n{warnings:?}");
        }
    }
}

#[test]
fn the_number_of_knocks_is_drawn_from_the_range() {
    let mut lengths = HashSet::new();
    for seed in 0..60 {
        let text = generated("--knocks 10..12 --range 1025-2024 --protocol udp", seed);
        let checked = config::parse(&text.unwrap().door, "seq.toml").unwrap();
        let knocks = &checked.settings.doors[0].knock;
        assert!(knocks.iter().all(|knock| knock.protocol == Protocol::Udp));
        assert!(
            knocks
                .iter()
                .all(|knock| (1025..=2024).contains(&knock.port))
        );
        lengths.insert(knocks.len());
    }
    assert_eq!(lengths, HashSet::from([10, 11, 12]));
}

#[test]
fn keys_are_recommended_and_the_key_space_is_printed() {
    for (words, expected) in [
        (
            "--knocks 6 --range 1-100 --protocol udp --open tcp/22222",
            "# Key space: 39.6 bits, 6 knocks on UDP ports from 1 to 100.\n# After a scan, 6 ports stand \
             out, because they send no reset as closed ports do: 720 orders, ",
        ),
        (
            "",
            "# Key space: 95.7 bits, 6 knocks on TCP and UDP ports from 1024 to 32767.\n",
        ),
    ] {
        let text = generated(words, 1).unwrap().door;
        let recommendation = "# Anyone who records this sequence can repeat it. Where clients can run knock-client, use keys\n\
                              # instead: knock-user keygen, and docs/guides/spa.md.\n";
        let rest = text.strip_prefix(recommendation);
        assert!(
            rest.is_some_and(|rest| rest.starts_with(expected)),
            "{words}\n{text}"
        );
    }
}

#[test]
fn a_door_of_a_user_is_printed() {
    const KEY: &str = "knock1:D6poSU7Yi2e5bNRqLV3uic6XTna3AY4_IqHEz3xXDyA";
    let words = format!("--user alice --key {KEY} --open tcp/22 --open udp/1194");
    let text = generated(&words, 1).unwrap().door;
    let tables = format!(
        "[[user]]\nname = \"alice\"\nkeys = [\"{KEY}\"]\ndoors = [\"ssh\"]\n\n[[door]]\nname = \
         \"ssh\"\nopen = [\"tcp/22\", \"udp/1194\"]\n"
    );
    assert!(text.ends_with(&tables), "{text}");
    let checked = config::parse(&text, "seq.toml").unwrap();
    assert_eq!(checked.warnings(&Host::default()), []);
    let error = generated(&words.replace("alice", "al/ice"), 1).unwrap_err();
    assert!(error.to_string().contains("is not a name"), "{error}");
}

#[test]
fn a_sequence_is_written_in_the_clients_format() {
    let read = |text: &str, prefix: &str| -> Vec<Knock> {
        text.lines()
            .map(|line| format!("{prefix}{line}").parse().unwrap())
            .collect()
    };
    for (words, prefix) in [("--protocol udp", "udp/"), ("--protocol tcp", ""), ("", "")] {
        let words = format!("--knocks 10..100 --range 1025-2024 --export x {words}");
        let GeneratedDoor { door, export } = generated(&words, 1).unwrap();
        let checked = config::parse(&door, "seq.toml").unwrap();
        let written = read(&export.unwrap(), prefix);
        assert_eq!(written, checked.settings.doors[0].knock, "{words}");
    }
}

#[test]
fn one_time_files_have_different_usable_sequences() {
    const COUNT: usize = 1000;
    let words = "--one-time 1000 --knocks 6";
    let printed = generated(words, 1).unwrap();
    assert_eq!(printed.export, None);
    let GeneratedDoor { door, export } = generated(&format!("{words} --export once"), 1).unwrap();
    let file = std::env::current_dir().unwrap().join("once");
    let key = format!("one_time = \"{}\"", file.display());
    assert!(door.contains(&key), "{door}");
    let checked = config::parse(&door, "seq.toml").unwrap();
    assert_eq!(checked.settings.doors.len(), 1);
    for text in [printed.door, export.unwrap()] {
        let (comments, lines): (Vec<&str>, Vec<&str>) =
            text.lines().partition(|line| line.starts_with('#'));
        assert!(comments[0].contains("1000 sequences"), "{comments:?}");
        let sequences: Vec<Vec<Knock>> = lines.into_iter().map(one_time).collect();
        let different: HashSet<&Vec<Knock>> = sequences.iter().collect();
        assert_eq!(different.len(), COUNT);
        // Each would be a door of its own.
        let doors = sequences.iter().enumerate().map(|(index, knocks)| {
            let knocks: Vec<String> = knocks.iter().map(|knock| format!("\"{knock}\"")).collect();
            assert_eq!(knocks.len(), 6);
            format!(
                "[[door]]\nname = \"{index}\"\nknock = [{}]\nopen = [\"tcp/22\"]\n",
                knocks.join(", ")
            )
        });
        let problems = config::parse(&doors.collect::<String>(), "seq.toml").err();
        assert_eq!(problems, None);
    }
}

#[test]
fn files_are_new_and_readable_by_their_owner_only() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("port_sequence.txt");
    let words = format!("--export {}", path.display());
    let mut out = Vec::new();
    generate::run(&options(&words), &mut out).unwrap();
    assert!(config::parse(&String::from_utf8(out).unwrap(), "seq.toml").is_ok());
    let written = fs::read_to_string(&path).unwrap();
    assert_eq!(written.lines().count(), 6);
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );

    let error = generate::run(&options(&words), &mut Vec::new()).unwrap_err();
    let error_text = knock_user::host::os_error::describe(&error);
    assert!(
        error_text.ends_with("name another file with --export, or remove it"),
        "{error_text}"
    );
    assert_eq!(fs::read_to_string(&path).unwrap(), written);
}

/// An observer must not be able to distinguish them.
#[test]
fn every_run_draws_another_sequence() {
    let draw = || {
        let mut out = Vec::new();
        generate::run(&options(""), &mut out).unwrap();
        out
    };
    assert_ne!(draw(), draw());
}

#[test]
fn an_impossible_draw_is_reported() {
    for (words, expected) in [
        (
            "--knocks 6 --range 1025-1029",
            "6 knocks need as many ports, and there are 5",
        ),
        (
            "--knocks 3 --range 21-23",
            "3 knocks need as many ports, and there are 2",
        ),
        (
            "--one-time 100 --knocks 3 --range 1025-1027",
            "no further usable sequence was found",
        ),
    ] {
        let error = generated(words, 1).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{words}: {error}");
    }
}

#[test]
fn bad_usage_is_reported() {
    for (words, expected) in [
        (
            "--knocks 2",
            "write a number from 3 to 128, or two as in 10..100",
        ),
        ("--knocks 129", "write a number from 3 to 128"),
        ("--knocks x", "write a number from 3 to 128"),
        ("--knocks 9..6", "runs backwards: write 6..9"),
        ("--range 9", "is not a range of ports"),
        ("--range 9-6", "runs backwards: write \"6-9\""),
        ("--one-time 0", "write a number from 1 to 100000"),
        ("--open 22", "write the protocol first, as in \"tcp/22\""),
        ("--protocol icmp", "possible values: tcp, udp, both"),
    ] {
        let arguments = ["generate"].into_iter().chain(words.split_whitespace());
        let error = Cli::try_parse_from(arguments).err().unwrap().to_string();
        assert!(error.contains(expected), "{words}: {error}");
    }
}

#[test]
fn a_door_that_check_refuses_is_reported() {
    let error_text = generated("--name a/b", 1).unwrap_err().to_string();
    assert!(
        error_text.starts_with("door:2: name: \"a/b\" is not a name"),
        "{error_text}"
    );
}

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    options: GenerateOptions,
}

/// The profile is what `knock-client` reads, and the whole stays a configuration.
#[test]
fn the_clients_profile_is_printed_beside_the_door() {
    let key = "knock1:D6poSU7Yi2e5bNRqLV3uic6XTna3AY4_IqHEz3xXDyA";
    for (name, words, opens, goal) in [
        (
            "knocks",
            String::new(),
            "knock = [\"",
            "\nthen_connect = 22\n",
        ),
        (
            "no TCP port",
            "--open udp/53".to_owned(),
            "knock = [\"",
            "\"]\n",
        ),
        (
            "one-time",
            "--one-time 2 --export dir/once".to_owned(),
            "one_time = \"once\"",
            "\nthen_connect = 22\n",
        ),
        (
            "a user",
            format!("--user alice --key {key}"),
            "spa = \"KEY\"\ndoor = \"ssh\"",
            "\nthen_connect = 22\n",
        ),
    ] {
        let without = generated(&words, 1).unwrap().door;
        let door = generated(&format!("{words} --client example.org"), 1)
            .unwrap()
            .door;
        let profile = door
            .strip_prefix(&without)
            .unwrap_or_else(|| panic!("{name}: {door}"));
        config::parse(&door, "door").unwrap();
        let uncommented: Vec<_> = profile
            .lines()
            .filter_map(|line| line.strip_prefix("# "))
            .collect();
        let (place, toml) = uncommented.join("\n").split_once("[profile").map_or_else(
            || panic!("{name}: {profile}"),
            |(place, toml)| (place.to_owned(), format!("[profile{toml}\n")),
        );
        assert!(
            place.starts_with("For the client, in ~/.config/knock/config.toml"),
            "{name}: {place}"
        );
        let head = format!("[profile.ssh]\nhost = \"example.org\"\n{opens}");
        assert!(toml.starts_with(&head), "{name}: {toml}");
        assert!(toml.ends_with(goal), "{name}: {toml}");
        toml.parse::<toml::Table>().unwrap();
    }
}

fn options(words: &str) -> GenerateOptions {
    Cli::parse_from(["generate"].into_iter().chain(words.split_whitespace())).options
}

fn generated(words: &str, seed: u64) -> Result<GeneratedDoor, Unsuitable> {
    generate::generate(&options(words), &mut StdRng::seed_from_u64(seed))
}

/// Returns a line of a one-time file.
fn one_time(line: &str) -> Vec<Knock> {
    let line = line
        .strip_prefix(' ')
        .unwrap_or_else(|| panic!("no blank before {line}"));
    line.split(',')
        .map(|word| {
            let (port, protocol) = word.split_once(':').unwrap();
            format!("{protocol}/{port}").parse().unwrap()
        })
        .collect()
}
