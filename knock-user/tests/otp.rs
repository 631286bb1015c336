//! Time-based sequences in a configuration: sources of secrets, and accepted periods.

#![expect(
    clippy::unwrap_used,
    reason = "clippy.toml's exception does not reach helpers of tests"
)]

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, process::Command, time::Duration};

use knock_common::{Address, Reason, event::Event};
use knock_sequence::Knock;
use knock_user::{
    compile::{Input, Previous, Tables, compile, stable_ids::StableIds},
    config,
    host::Host,
    model::settings::{Dynamic, Sequences},
    sequences::{
        clock_skew::{SkewDetector, SkewedKnock},
        time_based::{Clocks, TimeBasedDoor},
    },
};
use nix::{sys::stat::Mode, unistd::mkfifo};
use tempfile::tempdir;

const BOOTED: u64 = 1_700_000_000_000;

#[test]
fn secrets_are_read_from_files() {
    let directory = tempdir().unwrap();
    let long = "x".repeat(5_000);
    for (name, text, expected) in [
        ("a line", "correct horse\n", ""),
        ("without its end", "correct horse", ""),
        ("with that of Windows", "correct horse\r\n", ""),
        ("any bytes", "\u{fc}=#\"$`\\,", ""),
        ("the longest", "0123456789012345678901234567890\n", ""),
        (
            "one byte more",
            "01234567890123456789012345678901\n",
            "has 32 bytes, and there may be 31",
        ),
        ("nothing", "", "the secret is empty"),
        ("an empty line", "\n", "the secret is empty"),
        ("two lines", "correct\nhorse\n", "more than one line"),
        ("a zero byte", "correct\0horse", "zero byte"),
        ("something else", &long, "it is too long for a secret"),
    ] {
        let path = directory.path().join("secret");
        fs::write(&path, text).unwrap();
        let error = wrong(&format!("secret_file = {path:?}"));
        match expected {
            "" => assert_eq!(error, "", "{name}"),
            _ => assert!(error.contains(expected), "{name}: {error}"),
        }
        assert!(
            !error.contains("correct") && !error.contains("0123"),
            "{name}: {error}"
        );
    }
    let pipe = directory.path().join("pipe");
    mkfifo(&pipe, Mode::from_bits_truncate(0o600)).unwrap();
    for (name, path) in [
        ("none", directory.path().join("nowhere")),
        ("a pipe that nobody writes to", pipe),
        ("a directory", directory.path().to_owned()),
        ("endless", "/dev/zero".into()),
    ] {
        let error = wrong(&format!("secret_file = {path:?}"));
        assert!(
            error.starts_with("seq.toml:4: secret_file: "),
            "{name}: {error}"
        );
        assert!(error.contains(path.to_str().unwrap()), "{name}: {error}");
    }
}

#[test]
fn secrets_are_read_from_the_environment() {
    let directory = tempdir().unwrap();
    let config = directory.path().join("seq.toml");
    fs::write(&config, door("secret_env = \"KNOCK_TEST_SECRET\"")).unwrap();
    for (name, value, expected) in [
        ("there", Some("battery staple"), ""),
        ("empty", Some(""), "KNOCK_TEST_SECRET: the secret is empty"),
        (
            "long",
            Some("battery staple battery staple battery"),
            "has 37 bytes",
        ),
        (
            "not there",
            None,
            "no environment variable \"KNOCK_TEST_SECRET\": set it",
        ),
    ] {
        let (is_good, output) = check(&config, value);
        assert_eq!(is_good, expected.is_empty(), "{name}: {output}");
        assert!(output.contains(expected), "{name}: {output}");
        assert!(!output.contains("battery"), "{name}: {output}");
    }
}

#[test]
fn a_secret_that_every_user_can_read_draws_a_warning() {
    let directory = tempdir().unwrap();
    let [secret, config] = ["secret", "seq.toml"].map(|name| directory.path().join(name));
    fs::write(&secret, "correct horse battery\n").unwrap();
    let inside = "secret = \"correct horse battery\"".to_owned();
    let beside = format!("secret_file = {secret:?}");
    for (name, otp, modes, expected) in [
        ("the configuration", &inside, (0o600, 0o644), true),
        ("nobody", &inside, (0o600, 0o640), false),
        ("the file", &beside, (0o644, 0o600), true),
        ("not the file", &beside, (0o600, 0o644), false),
    ] {
        fs::write(&config, door(otp)).unwrap();
        for (path, mode) in [(&secret, modes.0), (&config, modes.1)] {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        }
        let (is_good, output) = check(&config, None);
        assert!(is_good, "{name}: {output}");
        let warned = output.contains("every user of this host can read the secret in");
        assert_eq!(warned, expected, "{name}: {output}");
    }
}

#[test]
fn the_sequences_within_the_skew_are_accepted() {
    let first = u32::try_from(BOOTED / 10_000).unwrap();
    for (name, skew, ms, periods, next_ms) in [
        // Until 25 s after the end of a period an attempt may still continue.
        ("in the middle", 0, 104_000, 7..=10, 105_000),
        ("one is over", 0, 105_000, 8..=10, 107_000),
        ("a period begins", 0, 110_000, 8..=11, 112_000),
        ("another before and after", 1, 104_000, 6..=11, 105_000),
        ("many", 3, 104_000, 4..=13, 105_000),
    ] {
        let timed = timed(skew);
        let sequences = timed.sequences(at(ms));
        let marks: Vec<u32> = sequences.iter().map(|s| s.sequence_id - first).collect();
        assert_eq!(marks, periods.collect::<Vec<u32>>(), "{name}");
        for sequence in &sequences {
            let end = u64::from(sequence.sequence_id - first + 1 + u32::from(skew)) * 10_000;
            assert_eq!(sequence.good_until_ms, end, "{name}");
            assert_eq!(
                (sequence.knocks.len(), sequence.per_source.len()),
                (3, 3),
                "{name}"
            );
        }
        // Half a period passes at most before a changed clock is detected.
        assert_eq!(timed.changes_ms(at(ms)), next_ms, "{name}");
    }
}

#[test]
fn a_clock_that_is_set_is_followed() {
    let timed = timed(1);
    let before = timed.sequences(at(500_000));
    for (name, seconds) in [
        ("an hour later", 3_600),
        ("an hour earlier", -3_600),
        ("1970", -1_700_000_500),
    ] {
        let now = Clocks {
            unix_ms: (BOOTED + 500_000).saturating_add_signed(seconds * 1_000),
            boot_ms: 500_000,
        };
        let sequences = timed.sequences(now);
        assert_ne!(sequences, before, "{name}");
        // Sequences that may be started now end within two periods, independent of the wall clock.
        let ahead = |until: u64| until.saturating_sub(now.boot_ms);
        assert!(
            sequences.iter().all(|s| ahead(s.good_until_ms) <= 30_000),
            "{name}: {sequences:?}"
        );
    }
    // One clock is read a little after the other.
    let late = Clocks {
        unix_ms: BOOTED + 500_003,
        boot_ms: 500_000,
    };
    assert_eq!(timed.sequences(late), before);
}

#[test]
fn used_sequences_are_remembered_for_an_hour() {
    let timed = timed(1);
    let period = u32::try_from(BOOTED / 10_000).unwrap();
    let hour = Duration::from_secs(3_600).as_millis() as u64;
    // The period, the next one, and 25 s for attempts in progress.
    let end = 20_000 + 25_000;
    for (name, ms, is_over) in [
        ("now", 0, false),
        ("nobody listens to it", end, false),
        ("the clock might be set back", end + hour, false),
        ("long ago", end + hour + 1, true),
    ] {
        assert_eq!(timed.is_over(period, at(ms)), is_over, "{name}");
    }
}

#[test]
fn a_wrong_clock_is_recognised() {
    let text = door("secret = \"correct horse battery\"") + &door("secret = \"another one\"");
    let text = text.replacen("\"ssh\"", "\"first\"", 1);
    let checked = config::parse(&text, "seq.toml").unwrap();
    let doors = &checked.settings.doors;
    let half = |place: usize, away: i64| {
        let Some(Dynamic::Otp(otp)) = &doors[place].dynamic else {
            panic!("{:?}", doors[place]);
        };
        let period = (BOOTED / 45_000).saturating_add_signed(away);
        otp.sequences.half(None, period).unwrap()
    };
    let mut skew_detector = SkewDetector::new(&checked.settings);
    for (name, place, away, behind_s) in [
        ("now", 0, 0, None),
        ("within the skew", 0, -1, None),
        ("a little behind", 0, -2, Some(90)),
        ("another door", 1, -16, Some(720)),
        ("ahead", 1, 4, Some(-180)),
        ("an hour behind", 0, -80, Some(3_600)),
        ("more than an hour", 0, -81, None),
    ] {
        let expected = behind_s.map(|behind_s| SkewedKnock { place, behind_s });
        assert_eq!(
            observe(&mut skew_detector, 1, &half(place, away)),
            expected,
            "{name}"
        );
    }
    // Knocks of several sources are not one sequence, nor are others between.
    let half = half(0, -16);
    for (source, knock) in (2..).zip(&half) {
        assert_eq!(observe(&mut skew_detector, source, &[*knock]), None);
    }
    let between = [half[0], half[1], half[0], half[2]];
    assert_eq!(observe(&mut skew_detector, 9, &between), None);
    assert!(observe(&mut skew_detector, 9, &half).is_some());
}

/// Sequences change for hours, with the longest attempts that the rules allow: the next ones always
/// have room, and a sequence that continues keeps its number.
#[test]
fn sequences_change_without_running_out_of_numbers() {
    let slow = "[[door]]\nname = \"slow\"\nopen = [\"tcp/22\"]\nsequence_timeout = \"30m\"\n\
                knock = [\"tcp/7000\", \"udp/8000\", \"tcp/9000\"]\n";
    for (period_s, skew, doors) in [(40, 1, 5), (120, 0, 5), (6, 10, 2)] {
        let mut text = slow.to_owned();
        for number in 0..doors {
            let otp =
                format!("secret = \"of door {number}\", period = \"{period_s}s\", skew = {skew}");
            text += &door(&otp).replace("\"ssh\"", &format!("\"door{number}\""));
        }
        let checked = config::parse(&text, "seq.toml").unwrap();
        let timed: Vec<(usize, TimeBasedDoor)> = (checked.settings.doors.iter().enumerate())
            .filter_map(|(place, door)| match &door.dynamic {
                Some(Dynamic::Otp(otp)) => {
                    Some((place, TimeBasedDoor::new(otp, door.sequence_timeout)))
                }
                _ => None,
            })
            .collect();
        let mut tables: Option<Tables> = None;
        let mut room = None;
        let mut now = at(0);
        for change in 0..300 {
            let row = format!("period {period_s}, skew {skew}, change {change}");
            let sequences: Sequences = (timed.iter())
                .map(|(place, timed)| (*place, timed.sequences(now)))
                .collect();
            let made = compile(
                &checked.settings,
                &mut Input {
                    host: &Host::default(),
                    cell_key: [0; 12],
                    known: &StableIds::default(),
                    draw: &mut || 0,
                    sequences: &sequences,
                    before: tables.as_ref().map(|tables| Previous {
                        tables,
                        now_ms: now.boot_ms,
                    }),
                },
            );
            let made = made.unwrap_or_else(|conflicts| panic!("{row}: {conflicts:?}"));
            let room = *room.get_or_insert(made.room);
            let needed = [made.nodes.len(), made.edges.len(), made.doors.len()];
            let there = [room.nodes, room.edges, room.doors].map(|count| count as usize);
            let fits = needed
                .iter()
                .zip(&there)
                .all(|(needed, there)| needed <= there);
            assert!(fits, "{row}: {needed:?} in {there:?}");
            tables = Some(made);
            now = at(now.boot_ms + period_s * 500);
        }
    }
}

fn door(otp: &str) -> String {
    format!("[[door]]\nname = \"ssh\"\nopen = [\"tcp/22\"]\notp = {{ {otp} }}\n")
}

/// Returns the errors of a door; empty if there are none.
fn wrong(otp: &str) -> String {
    match config::parse(&door(otp), "seq.toml") {
        Ok(_) => String::new(),
        Err(problems) => problems.to_string(),
    }
}

fn check(config: &Path, variable: Option<&str>) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_knock-user"));
    command.args(["check", "--config"]).arg(config);
    match variable {
        Some(value) => command.env("KNOCK_TEST_SECRET", value),
        None => command.env_remove("KNOCK_TEST_SECRET"),
    };
    let output = command.output().unwrap();
    let printed = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(printed).unwrap())
}

/// Returns a door with periods of 10 s, on which knocking may take 25 s.
fn timed(skew: u16) -> TimeBasedDoor {
    let otp = format!("secret = \"when\", period = \"10s\", skew = {skew}");
    let checked = config::parse(&door(&otp), "seq.toml").unwrap();
    let door = &checked.settings.doors[0];
    let Some(Dynamic::Otp(otp)) = &door.dynamic else {
        panic!("{door:?}");
    };
    TimeBasedDoor::new(otp, door.sequence_timeout)
}

fn at(ms: u64) -> Clocks {
    Clocks {
        unix_ms: BOOTED + ms,
        boot_ms: ms,
    }
}

/// Knocks in order, and the result at the last one.
fn observe(skew_detector: &mut SkewDetector, source: u8, knocks: &[Knock]) -> Option<SkewedKnock> {
    let mut found = None;
    for knock in knocks {
        assert_eq!(found, None, "too early");
        let event = Event {
            source: Address::from_v4([198, 51, 100, source]),
            port: knock.port,
            protocol: knock.protocol as u8,
            reason: Reason::OutOfSequence as u8,
            ..Event::default()
        };
        found = skew_detector.observe(&event, BOOTED);
    }
    found
}
