//! The differences to knockd in `docs/knockd.md`: these tests read its table and send its packets.

#![expect(clippy::expect_used, reason = "a helper of a test fails with the test")]

use std::{fs, process::Command, thread, time::Duration};

use knock_tests::{
    daemon::Daemon,
    net::{self, Family, Net},
    process::Process,
    server::Server,
    source::Source,
    wait,
    wire::{Wire, datagram, segment, whole},
};
use nix::sys::signal::Signal;
use serde_json::json;
use tempfile::{TempDir, tempdir};

const PAGE: &str = include_str!("../../docs/knockd.md");
const COLUMNS: &str = "| packets | knockd | knock-user | why |";

const A: (&str, u16) = ("A", 22);
const B: (&str, u16) = ("B", 443);
const C: (&str, u16) = ("C", 5432);

/// The doors above the table.
const DOORS: [((&str, u16), &str); 3] = [
    (A, "tcp/7000 tcp/8000 tcp/9000"),
    (B, "tcp/7000 udp/8500 tcp/9500"),
    (C, "tcp/3333"),
];

#[test]
fn every_difference_has_a_reason() {
    let rows = table();
    assert!(rows.len() >= 14, "rows were lost: {rows:?}");
    for row in rows {
        let differs = opened(&row.knockd) != opened(&row.ours);
        assert!(!differs || !row.why.is_empty(), "no reason: {row:?}");
    }
}

#[test]
fn our_column_of_the_table_is_true() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[A.1, B.1, C.1]);
        let daemon = Daemon::start(&net.server, &config());
        let rows = table();
        let with_sources = |family: Family| {
            let sources = move |row| (row, net.new_source(family), net.new_source(family));
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
        daemon.catches_up(&net.new_source(Family::V4), A.1);
        for (row, source, _) in rows {
            let opened = daemon.events_like(&json!({"event": "opened", "source": source.name()}));
            let count = usize::from(self::opened(&row.ours).is_some());
            assert_eq!(opened.len(), count, "{row:?}: {opened:?}");
        }
        daemon.stop();
    });
}

#[test]
fn knockds_column_of_the_table_is_true() {
    net::test(|net| {
        for row in table() {
            // A new knockd for each row, because a packet of one source can end the attempt of another.
            let knockd = Knockd::start(net, &knockds_config());
            let [source, other, last] = [(); 3].map(|()| net.new_source(Family::V4));
            send_all(net, source, other, &row.packets);
            send_all(net, last, other, "7000 8000 9000");
            let opens = |source: &Source<'_>, door: &str| {
                knockd.count_lines(&format!(" {}: {door}: OPEN SESAME", source.name()))
            };
            wait::until("what came last is reported", || opens(&last, A.0) > 0);
            for (name, _) in [A, B, C] {
                let is_meant = opened(&row.knockd).is_some_and(|(door, _)| door == name);
                let expected = if is_meant { times(&row.knockd) } else { 0 };
                assert_eq!(opens(&source, name), expected, "door {name}: {row:?}");
                assert_eq!(opens(&other, name), 0, "door {name}, the other: {row:?}");
            }
            knockd.process.stop(Signal::SIGTERM);
        }
    });
}

#[test]
fn knockd_ends_with_its_last_one_time_sequence() {
    net::test(|net| {
        let directory = tempdir().expect("a directory");
        let sequences = directory.path().join("once");
        fs::write(&sequences, " 7000,8000,9000\n").expect("the file is written");
        let conf = format!("[once]\none_time_sequences = {}\n", sequences.display());
        let mut knockd = Knockd::start(net, &conf);
        net.new_source(Family::V4)
            .knock("tcp/7000 tcp/8000 tcp/9000");
        wait::until("knockd has ended", || !knockd.process.is_running());
        assert_eq!(knockd.count_lines("shutting down"), 0);
    });
}

/// Returns the doors in the format of knock-user.
fn config() -> String {
    let door = |((name, port), knocks): ((&str, u16), &str)| {
        let knocks: Vec<_> = knocks.split(' ').collect();
        format!(
            "[[door]]\nname = \"{name}\"\nknock = {knocks:?}\nopen = [\"tcp/{port}\"]\n\
             sequence_timeout = \"5s\"\n"
        )
    };
    DOORS.map(door).concat()
}

/// Returns the doors in the format of knockd.
fn knockds_config() -> String {
    let door = |((name, _), knocks): ((&str, u16), &str)| {
        let knock = |knock: &str| {
            let (protocol, port) = knock.split_once('/').expect("a protocol and a port");
            format!("{port}:{protocol}")
        };
        let knocks: Vec<_> = knocks.split(' ').map(knock).collect();
        let sequence = knocks.join(",");
        format!("[{name}]\nsequence = {sequence}\nseq_timeout = 5\ntcpflags = syn\n")
    };
    DOORS.map(door).concat()
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

/// Parses `opens A` as 22, and `opens nothing` as nothing.
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

/// Sends the packet of one word of a row.
fn send(wire: &Wire, source: &Source<'_>, other: &Source<'_>, word: &str) {
    if let Some(time) = word.strip_prefix("wait/") {
        // These rows depend on time.
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

fn send_all(net: &Net, source: Source<'_>, other: Source<'_>, packets: &str) {
    let wire = Wire::open(&net.client);
    for word in packets.split(' ') {
        send(&wire, &source, &other, word);
    }
}

/// Sends a row's packets, and asserts that this door is then open to the source and no other.
fn run(net: &Net, source: Source<'_>, other: Source<'_>, packets: &str, opens: &str) {
    let name = format!("{packets} from {}", source.from);
    send_all(net, source, other, packets);
    let expected = opened(opens);
    for door in [A, B, C] {
        source.finds(Some(door) == expected, door.1, &name);
        other.finds_closed(door.1, &name);
    }
}

/// Debian's knockd in the server's namespace, and its output.
struct Knockd {
    process: Process,
    directory: TempDir,
}

impl Knockd {
    fn start(net: &Net, conf: &str) -> Self {
        let directory = tempdir().expect("a directory");
        let path = directory.path();
        fs::write(path.join("conf"), conf).expect("the file is written");
        let mut command = Command::new("knockd");
        command.args(["-i", "b0", "-c"]).arg(path.join("conf"));
        command.arg("-p").arg(path.join("pid"));
        command.arg("-g").arg(path.join("log"));
        let knockd = Self {
            process: Process::start(&net.server, &mut command),
            directory,
        };
        wait::until("knockd listens", || {
            knockd.count_lines("starting up, listening on b0") > 0
        });
        knockd
    }

    /// Returns how often it has printed a text.
    fn count_lines(&self, text: &str) -> usize {
        let log = fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
        log.lines().filter(|line| line.contains(text)).count()
    }
}

/// Parses `opens C three times` as 3.
fn times(cell: &str) -> usize {
    match (opened(cell), cell.contains("three times")) {
        (None, _) => 0,
        (Some(_), false) => 1,
        (Some(_), true) => 3,
    }
}
