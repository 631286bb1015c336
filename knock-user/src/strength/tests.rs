use super::*;
use crate::config;

/// A door, what it takes to guess its sequence knowing nothing, and after a scan.
struct Row {
    name: &'static str,
    /// Before the door.
    file: &'static str,
    door: &'static str,
    counted: usize,
    /// Each knock for those who know nothing, and the power of two of all.
    blind: (u32, f64),
    /// Ports that stand out, and sequences of them; `None` if a scan does not help.
    scanned: Option<(usize, f64)>,
}

const THREE: &str = "knock = [\"tcp/7000\", \"udp/9000\", \"tcp/8000\"]";

const ROWS: &[Row] = &[
    Row {
        name: "three silent knocks",
        file: "",
        door: THREE,
        counted: 3,
        blind: (131_070, 51.0),
        scanned: Some((3, 6.0)),
    },
    Row {
        name: "ten drawn decoys beside them",
        file: "[decoys]\ncount = 10\n",
        door: THREE,
        counted: 3,
        blind: (131_070, 51.0),
        scanned: Some((13, 13.0 * 12.0 * 11.0)),
    },
    Row {
        name: "listed decoys of both protocols",
        file: "[decoys]\nports = [\"tcp/7001-7002\", \"udp/7001\"]\n",
        door: THREE,
        counted: 3,
        blind: (131_070, 51.0),
        scanned: Some((6, 120.0)),
    },
    Row {
        name: "another door's knocks look the same",
        file: "[[door]]\nname = \"other\"\nknock = [\"tcp/1\", \"tcp/9\", \"tcp/8000\"]\n\
               open = [\"tcp/80\"]\n",
        door: THREE,
        counted: 3,
        blind: (131_070, 51.0),
        scanned: Some((5, 60.0)),
    },
    Row {
        name: "handshakes and five decoys",
        file: "[decoys]\ncount = 5\n",
        door: "verify = \"handshake\"\nknock = [\"tcp/7000\", \"tcp/9000\", \"tcp/8000\"]",
        counted: 3,
        blind: (65_535, 48.0),
        scanned: Some((8, 336.0)),
    },
    Row {
        name: "decoys over UDP don't answer",
        file: "[decoys]\nports = [\"udp/1\", \"tcp/2\"]\n",
        door: "verify = \"handshake\"\nknock = [\"tcp/7000\", \"tcp/9000\", \"tcp/8000\"]",
        counted: 3,
        blind: (65_535, 48.0),
        scanned: Some((4, 24.0)),
    },
    Row {
        name: "silent knocks beside handshakes",
        file: "[decoys]\ncount = 5\n[[door]]\nname = \"other\"\nverify = \"handshake\"\n\
               knock = [\"tcp/1\", \"tcp/9\", \"tcp/5\"]\nopen = [\"tcp/80\"]\n",
        door: THREE,
        counted: 3,
        blind: (131_070, 51.0),
        scanned: Some((3, 6.0)),
    },
    Row {
        name: "time-based, six knocks",
        file: "",
        door: "otp = { secret = \"0123456789abc\", protocols = [\"tcp\", \"udp\", \"tcp\"] }",
        counted: 6,
        blind: (256, 48.0),
        scanned: None,
    },
    Row {
        name: "time-based, not bound to the source",
        file: "",
        door: "otp = { secret = \"0123456789abc\", bind_source = false, protocols = [\"tcp\"] }",
        counted: 1,
        blind: (256, 8.0),
        scanned: None,
    },
    Row {
        name: "one knock",
        file: "",
        door: "knock = [\"udp/7000\"]",
        counted: 1,
        blind: (131_070, 17.0),
        scanned: Some((1, 1.0)),
    },
    Row {
        name: "one TCP port three times",
        file: "",
        door: "knock = [\"tcp/7000\", \"tcp/7000\", \"tcp/7000\"]",
        counted: 1,
        blind: (131_070, 17.0),
        scanned: Some((1, 1.0)),
    },
    Row {
        name: "one UDP port three times",
        file: "",
        door: "knock = [\"udp/7000\", \"udp/7000\", \"udp/7000\"]",
        counted: 1,
        blind: (131_070, 17.0),
        scanned: Some((1, 1.0)),
    },
    Row {
        name: "a run before another knock",
        file: "",
        door: "knock = [\"tcp/7000\", \"tcp/7000\", \"udp/8000\"]",
        counted: 2,
        blind: (131_070, 34.0),
        scanned: Some((2, 2.0)),
    },
    Row {
        name: "runs at both ends",
        file: "",
        door: "knock = [\"udp/9\", \"udp/9\", \"tcp/5\", \"udp/7\", \"udp/7\"]",
        counted: 3,
        blind: (131_070, 51.0),
        scanned: Some((3, 6.0)),
    },
    Row {
        name: "two ports in turn",
        file: "",
        door: "knock = [\"tcp/9\", \"udp/8\", \"tcp/9\", \"udp/8\", \"tcp/9\"]",
        counted: 2,
        blind: (131_070, 34.0),
        scanned: Some((2, 2.0)),
    },
    Row {
        name: "the first part again",
        file: "",
        door: "knock = [\"tcp/9\", \"udp/8\", \"tcp/3\", \"tcp/9\", \"udp/8\"]",
        counted: 3,
        blind: (131_070, 51.0),
        scanned: Some((3, 6.0)),
    },
    Row {
        name: "runs in turn",
        file: "",
        door: "knock = [\"tcp/9\", \"tcp/9\", \"udp/8\", \"udp/8\", \"tcp/9\"]",
        counted: 2,
        blind: (131_070, 34.0),
        scanned: Some((2, 2.0)),
    },
    Row {
        name: "a port that comes again later",
        file: "",
        door: "knock = [\"tcp/9\", \"udp/8\", \"tcp/9\", \"tcp/3\"]",
        counted: 4,
        blind: (131_070, 68.0),
        scanned: Some((3, 3.0 * 2.0 * 2.0 * 2.0)),
    },
    Row {
        name: "knocks that pass",
        file: "",
        door: "knock = [\"tcp/7000\", \"udp/9000\", \"tcp/8000\"]\nknock_pass = true\n\
               on_open = [\"/bin/true\"]",
        counted: 3,
        blind: (131_070, 51.0),
        scanned: None,
    },
];

#[test]
fn a_scan_narrows_down_the_sequences_of_a_door() {
    for row in ROWS {
        let name = row.name;
        let open = match row.door.contains("on_open") {
            true => "",
            false => "open = [\"tcp/22\"]",
        };
        let text = format!("{}[[door]]\nname = \"d\"\n{}\n{open}\n", row.file, row.door);
        let checked = config::parse(&text, "seq.toml").unwrap_or_else(|e| panic!("{name}: {e}"));
        let door = checked.settings.doors.last().unwrap();
        let view = View::of(&checked.settings, []);
        let strength =
            Strength::timed(door).unwrap_or_else(|| Strength::of(door, &door.knock, &view));
        assert_eq!(strength.counted, row.counted, "{name}");
        let (symbols, bits) = row.blind;
        assert_eq!(strength.symbols, symbols, "{name}");
        assert!((strength.bits - bits).abs() < 0.01, "{name}: {strength:?}");
        let scanned = match strength.scanned {
            Scanned::Nothing | Scanned::Range => None,
            Scanned::Silent(candidates) | Scanned::Answering(candidates) => {
                Some((candidates.ports, candidates.bits.exp2().round()))
            }
        };
        assert_eq!(scanned, row.scanned, "{name}");
    }
}

#[test]
fn one_connection_attempt_completes_repeated_knocks() {
    let rows = [
        ("one SYN", 1, "", true),
        ("sent again three times", 3, "", true),
        ("as often as in 25 s", 9, "", true),
        ("more often than in 25 s", 10, "", false),
        ("in less time", 4, "sequence_timeout = \"2s\"", false),
        (
            "with less time between",
            3,
            "step_timeout = \"500ms\"",
            false,
        ),
        ("with time enough between", 3, "step_timeout = \"1s\"", true),
        ("a gap that is too long", 8, "step_timeout = \"2s\"", false),
        ("each proved", 3, "verify = \"handshake\"", false),
        ("not by SYN", 3, "tcp_flags = \"fin\"", false),
    ];
    for (name, times, keys, expected) in rows {
        let knocks = vec!["\"tcp/7000\""; times].join(", ");
        let text =
            format!("[[door]]\nname = \"d\"\nknock = [{knocks}]\nopen = [\"tcp/22\"]\n{keys}\n");
        let checked = config::parse(&text, "seq.toml").unwrap_or_else(|e| panic!("{name}: {e}"));
        let door = &checked.settings.doors[0];
        let found = repetition(door, &door.knock);
        let Repetition::One { one_attempt, .. } = found else {
            panic!("{name}: {found:?}");
        };
        assert_eq!(one_attempt, expected, "{name}");
    }
}

#[test]
fn numbers_and_times_are_written_in_words() {
    for (bits, words) in [
        (0.0, "1"),
        (8.392, "336"),
        (19.9, "978356"),
        (48.0, "about 2^48"),
    ] {
        assert_eq!(number(bits), words);
    }
    for (seconds, words) in [
        (0.3, "less than a second"),
        (90.0, "90 seconds"),
        (7200.0, "2 hours"),
        (7140.0, "120 minutes"),
        (99.6 * 86_400.0, "100 days"),
        (35_676.0 * 365.25 * 86_400.0, "36000 years"),
        (1e20, "millions of years"),
    ] {
        assert_eq!(span(seconds), words);
    }
}
