//! The documentation agrees with the code.

use std::{fs, mem::size_of, path::Path};

use knock_common::{
    Address, Reason, Stat, Verdict,
    blocked::Blocked,
    event::Event,
    fwknop,
    hmac::HmacScratch,
    layout::{
        ALLOW_MAX, BLOCK_MAX, BLOCKED_MAX, BUCKETS, CLAIMS, Config, DOORS_MAX, DoorEntry,
        EVENTS_BYTES, EdgeKey, FLOWS_MAX, FROM_MAX, FlowKey, FromKey, GrantKey, LOCKOUTS_MAX, MAPS,
        Node, OtpEntry, PORT_RULES, PRESENCE_SLOTS, PROGRESS_MAX, PortRule, ProgressKey,
        TARGETS_MAX, TRUST_MAX, USED_MAX, UsedKey, VERSION, WAYS,
    },
    reason::{COUNTERS_MAX, Reporting},
    seen::{self, FramesSeen},
    spa::layout::{
        FWKNOP_KEYS_MAX, FwknopKey, GATES, Gate, LAST_MAX, SEEN_MAX, SpaKey, SpaKeyId, SpaKeyName,
        SpaMay, SpaMayKey, SpaScratch, SpaTag,
    },
};

const PAGE: &str = include_str!("../../docs/maps.md");

const INDEX: usize = size_of::<u32>();
const WORD: usize = size_of::<u64>();
/// The length in bits, before the data of a prefix.
const PREFIX_LENGTH: usize = size_of::<u32>();

#[test]
fn every_reason_is_on_the_page() {
    let expected: Vec<Vec<String>> = Reason::ALL
        .iter()
        .map(|&reason| {
            let verdict = match reason.verdict() {
                Verdict::Pass => "pass",
                Verdict::Drop => "drop",
                Verdict::Answer => "answer",
            };
            let reported = match reason.reporting() {
                Reporting::Never => "",
                Reporting::Drops => "drops",
                Reporting::Knocks => "knocks",
                Reporting::Always => "always",
            };
            let name = format!("`{}`", reason.name());
            let code = (reason as u8).to_string();
            vec![
                code,
                name,
                reason.text().into(),
                verdict.into(),
                reported.into(),
            ]
        })
        .collect();
    assert_eq!(rows("Reasons"), expected);
}

#[test]
fn every_counter_is_on_the_page() {
    let found: Vec<_> = rows("Tallies")
        .into_iter()
        .map(|row| [row[0], row[1]])
        .collect();
    let expected: Vec<_> = Stat::ALL
        .iter()
        .map(|&stat| [(stat as u8).to_string(), format!("`{}`", stat.name())])
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn every_map_is_on_the_page() {
    let maps = maps();
    let names: Vec<_> = maps.iter().map(|map| map.name).collect();
    assert_eq!(names, MAPS);
    let found = rows("All maps");
    assert_eq!(found.len(), maps.len());
    for (row, map) in found.iter().zip(&maps) {
        let bytes = |size: usize| match size {
            0 => String::new(),
            size => format!("{size} B"),
        };
        let expected = [
            format!("`{}`", map.name),
            bytes(map.key),
            bytes(map.value),
            map.entries.clone(),
        ];
        assert_eq!([row[0], row[2], row[3], row[4]], expected);
    }
    let mut explained: Vec<_> = rows("What is in them").iter().map(|row| row[0]).collect();
    // The ring buffer's events have a table of their own.
    explained.push("`EVENTS`");
    explained.sort_unstable();
    let mut quoted: Vec<_> = MAPS.iter().map(|name| format!("`{name}`")).collect();
    quoted.sort_unstable();
    assert_eq!(explained, quoted);
}

#[test]
fn the_version_is_on_the_page() {
    let words = format!("**Map layout version: {VERSION}**");
    assert!(PAGE.contains(&words), "{words}");
}

/// `SECURITY.md` and `docs/lessons.md` name tests, as `file::function`; `::function` is one of the file
/// that was named before in the same line.
#[test]
fn tests_that_are_named_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut count = 0;
    for page in ["SECURITY.md", "docs/lessons.md"] {
        let text = fs::read_to_string(root.join(page)).unwrap();
        for line in text.lines() {
            let mut file = "";
            // Every second part lies between backquotes.
            for name in line.split('`').skip(1).step_by(2) {
                let Some((before, function)) = name.split_once("::") else {
                    continue;
                };
                if before.ends_with(".rs") {
                    file = before;
                } else if !before.is_empty() {
                    continue;
                }
                let source = fs::read_to_string(root.join(file)).unwrap_or_default();
                let test = format!("fn {function}(");
                assert!(source.contains(&test), "{page}: {file}::{function}");
                count += 1;
            }
        }
    }
    assert!(count > 30, "{count} tests found in the pages");
}

/// A map as the page's table has it.
struct Map {
    name: &'static str,
    key: usize,
    value: usize,
    /// As text, because some have a unit or depend on the configuration.
    entries: String,
}

fn map(name: &'static str, key: usize, value: usize, entries: u32) -> Map {
    Map {
        name,
        key,
        value,
        entries: entries.to_string(),
    }
}

fn maps() -> Vec<Map> {
    let as_needed = |name, key, value| Map {
        entries: "as needed".to_owned(),
        ..map(name, key, value, 0)
    };
    vec![
        map("ALLOW", size_of::<GrantKey>(), WORD, ALLOW_MAX),
        map("ANSWER", INDEX, 2 * WORD, 1),
        map(
            "BLOCK",
            PREFIX_LENGTH + size_of::<Address>(),
            INDEX,
            BLOCK_MAX,
        ),
        map(
            "BLOCKED",
            PREFIX_LENGTH + size_of::<Address>(),
            size_of::<Blocked>(),
            BLOCKED_MAX,
        ),
        map("CLAIMS", INDEX, WORD, CLAIMS),
        map("CLOCK", INDEX, 2 * WORD, 1),
        map("CONFIG", INDEX, size_of::<Config>(), 1),
        map("COUNTERS", INDEX, WORD, COUNTERS_MAX),
        as_needed("DOORS", INDEX, size_of::<DoorEntry>()),
        as_needed("EDGES", size_of::<EdgeKey>(), INDEX),
        Map {
            entries: format!("{EVENTS_BYTES} B"),
            ..map("EVENTS", 0, size_of::<Event>(), 0)
        },
        map("EVENT_LIMITS", INDEX, WORD, 2),
        map("FIRST_KNOCKS", INDEX, WAYS * WORD, BUCKETS),
        map("FLOWS", size_of::<FlowKey>(), WORD, FLOWS_MAX),
        map("FRAMES_SEEN", INDEX, size_of::<FramesSeen>(), seen::SLOTS),
        map(
            "FROM",
            PREFIX_LENGTH + size_of::<FromKey>(),
            INDEX,
            FROM_MAX,
        ),
        map(
            "FWKNOP_KEYS",
            INDEX,
            size_of::<FwknopKey>(),
            FWKNOP_KEYS_MAX,
        ),
        map(
            "FWKNOP_SCRATCH",
            INDEX,
            size_of::<fwknop::FwknopScratch>(),
            1,
        ),
        map("LOCKOUTS", INDEX, WAYS * WORD, LOCKOUTS_MAX),
        as_needed("NODES", INDEX, size_of::<Node>()),
        map("OTP", INDEX, size_of::<OtpEntry>(), DOORS_MAX),
        map("PORTS", INDEX, size_of::<PortRule>(), PORT_RULES),
        map("PRESENCE", INDEX, WORD, PRESENCE_SLOTS),
        map("PROGRESS", size_of::<ProgressKey>(), WORD, PROGRESS_MAX),
        map("SCRATCH", INDEX, size_of::<HmacScratch>(), 1),
        map("SPA_GATES", INDEX, size_of::<Gate>(), GATES),
        as_needed("SPA_KEYS", size_of::<SpaKeyName>(), size_of::<SpaKey>()),
        map("SPA_LAST", size_of::<SpaKeyId>(), WORD, LAST_MAX),
        as_needed("SPA_MAY", size_of::<SpaMayKey>(), size_of::<SpaMay>()),
        map("SPA_OTHER", INDEX, size_of::<Address>(), 1),
        map("SPA_SCRATCH", INDEX, size_of::<SpaScratch>(), 1),
        map("SPA_SEEN", size_of::<SpaTag>(), WORD, SEEN_MAX),
        map("TARGETS", size_of::<Address>(), INDEX, TARGETS_MAX),
        map(
            "TRUST",
            PREFIX_LENGTH + size_of::<Address>(),
            INDEX,
            TRUST_MAX,
        ),
        map("USED", size_of::<UsedKey>(), WORD, USED_MAX),
        map("WALL_CLOCK", INDEX, WORD, 1),
    ]
}

/// Returns the cells of each row of the tables under a heading.
fn rows(heading: &str) -> Vec<Vec<&'static str>> {
    let (_, section) = PAGE
        .split_once(&format!("\n## {heading}\n"))
        .unwrap_or_else(|| panic!("docs/maps.md has no section {heading}"));
    let section = section
        .split_once("\n## ")
        .map_or(section, |(section, _)| section);
    let lines = section.lines().filter_map(|line| line.strip_prefix("| "));
    // The first row is the head of the table.
    lines
        .skip(1)
        .map(|line| {
            line.trim_end_matches('|')
                .split('|')
                .map(str::trim)
                .collect()
        })
        .collect()
}
