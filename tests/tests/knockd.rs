//! `docs/knockd.md` says where we differ from knockd. This reads its table and sends its packets.

#![expect(
    clippy::expect_used,
    reason = "what a test can't do, it says by a panic"
)]

use std::{thread, time::Duration};

use knock_tests::{
    daemon::Daemon,
    net::{self, Family, Net},
    server::Server,
    source::Source,
    wire::{Wire, datagram, segment, whole},
};
use serde_json::json;

const PAGE: &str = include_str!("../../docs/knockd.md");
const COLUMNS: &str = "| packets | knockd | knock-user | why |";

const A: (&str, u16) = ("A", 22);
const B: (&str, u16) = ("B", 443);
const C: (&str, u16) = ("C", 5432);

/// The doors that stand above the table.
fn config() -> String {
    let doors = [
        (A, r#"["tcp/7000", "tcp/8000", "tcp/9000"]"#),
        (B, r#"["tcp/7000", "udp/8500", "tcp/9500"]"#),
        (C, r#"["tcp/3333"]"#),
    ];
    let door = |((name, port), knock): ((&str, u16), &str)| {
        format!(
            "[[door]]\nname = \"{name}\"\nknock = {knock}\nopen = [\"tcp/{port}\"]\n\
             within = \"5s\"\n"
        )
    };
    doors.map(door).concat()
}

#[derive(Debug)]
struct Row {
    packets: String,
    knockd: String,
    ours: String,
    why: String,
}

fn table() -> Vec<Row> {
    let (_, table) = PAGE.split_once(COLUMNS).expect("the page has the table");
    let lines = table.lines().skip(2);
    let rows = lines.map_while(|line| line.strip_prefix('|')?.strip_suffix('|'));
    rows.map(|line| {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        let [packets, knockd, ours, why] = cells[..] else {
            panic!("not four columns: {line}");
        };
        Row {
            packets: packets.trim_matches('`').to_owned(),
            knockd: knockd.to_owned(),
            ours: ours.to_owned(),
            why: why.to_owned(),
        }
    })
    .collect()
}

/// `opens A` → 22; `opens nothing` → nothing.
fn opened(cell: &str) -> Option<(&'static str, u16)> {
    match cell
        .strip_prefix("opens ")
        .map(|rest| rest.split(' ').next())
    {
        Some(Some("nothing")) => None,
        Some(Some(word)) => {
            let door = [A, B, C].into_iter().find(|(name, _)| *name == word);
            Some(door.unwrap_or_else(|| panic!("no such door: {cell}")))
        }
        _ => panic!("not an outcome: {cell}"),
    }
}

#[test]
fn every_difference_has_a_reason() {
    let rows = table();
    assert!(rows.len() >= 14, "rows were lost: {rows:?}");
    for row in rows {
        let differs = opened(&row.knockd) != opened(&row.ours);
        assert!(!differs || !row.why.is_empty(), "no reason: {row:?}");
    }
}

fn flags(names: &str) -> u8 {
    let flag = |name| match name {
        "syn" => 0x02,
        "rst" => 0x04,
        "ack" => 0x10,
        other => panic!("no such flag: {other}"),
    };
    names.split(',').map(flag).fold(0, |all, flag| all | flag)
}

fn number(word: &str) -> u16 {
    match word.parse() {
        Ok(number) => number,
        Err(error) => panic!("{word} is not a number: {error}"),
    }
}

/// Sends one word of a row.
fn send(wire: &Wire, source: &Source<'_>, other: &Source<'_>, word: &str) {
    if let Some(time) = word.strip_prefix("wait/") {
        // Time is what these rows are about.
        thread::sleep(match time.strip_suffix("ms") {
            Some(millis) => Duration::from_millis(number(millis).into()),
            None => Duration::from_secs(number(time.trim_end_matches('s')).into()),
        });
        return;
    }
    if let Some((first, last)) = word.split_once('-') {
        for port in number(first)..=number(last) {
            wire.send(&whole(
                source.path(),
                &segment(source.path(), 40_000, port, 0x02),
            ));
        }
        return;
    }
    let (path, word) = match word.strip_prefix(".9:") {
        Some(word) => (other.path(), word),
        None => (source.path(), word),
    };
    let payload = match word.strip_suffix("/udp") {
        Some(word) => datagram(path, 40_000, number(word), &[0]),
        None => {
            let (port, names) = match word.split_once('[') {
                Some((port, names)) => (port, names.trim_end_matches(']')),
                None => (word, "syn"),
            };
            segment(path, 40_000, number(port), flags(names))
        }
    };
    wire.send(&whole(path, &payload));
}

/// Sends a row's packets; then this door must be open to the source and no other.
fn run(net: &Net, source: Source<'_>, other: Source<'_>, packets: &str, opens: &str) {
    let name = format!("{packets} from {}", source.from);
    let wire = Wire::open(&net.client);
    for word in packets.split(' ') {
        send(&wire, &source, &other, word);
    }
    let expected = opened(opens);
    for door in [A, B, C] {
        source.finds(Some(door) == expected, door.1, &name);
        other.finds_closed(door.1, &name);
    }
}

#[test]
fn the_table_is_true() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[A.1, B.1, C.1]);
        let daemon = Daemon::start(&net.server, &config());
        let rows = table();
        let with_sources = |family: Family| {
            let sources = move |row| (row, net.stranger(family), net.stranger(family));
            rows.iter().map(sources)
        };
        let rows: Vec<_> = Family::ALL.into_iter().flat_map(with_sources).collect();
        // A scan can fill the queue of the link, and what another row sends meanwhile is lost.
        let is_scan = |row: &Row| row.packets.contains('-');
        let (scans, others): (Vec<_>, Vec<_>) = rows.iter().partition(|(row, ..)| is_scan(row));
        // All at once: some rows take seconds.
        thread::scope(|scope| {
            for &(row, source, other) in others {
                scope.spawn(move || run(net, source, other, &row.packets, &row.ours));
            }
        });
        for &(row, source, other) in scans {
            run(net, source, other, &row.packets, &row.ours);
        }
        daemon.catches_up(&net.stranger(Family::V4), A.1);
        for (row, source, _) in rows {
            let opened = daemon.told(&json!({"event": "opened", "source": source.name()}));
            let count = usize::from(self::opened(&row.ours).is_some());
            assert_eq!(opened.len(), count, "{row:?}: {opened:?}");
        }
        daemon.stop();
    });
}
