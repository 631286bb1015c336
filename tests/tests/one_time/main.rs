//! One-time sequences open once, whichever source repeats them and whatever happens to the daemon.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails with the test")]

mod clients;
mod files;
mod kills;

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use knock_tests::{
    daemon::Daemon,
    net::{self, Family},
    server::Server,
    source::Source,
    ssh::{DOOR, SSH},
    wait,
};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Sequences as a client knocks them, and as the lines of a file.
const ONCE: [(&str, &str); 4] = [
    (
        "tcp/7100 udp/8100 tcp/6100",
        " 7100:tcp,8100:udp,6100:tcp\n",
    ),
    ("udp/7200 tcp/8200 udp/6200", " 7200:udp,8200,6200:udp\n"),
    (
        "tcp/7300 udp/8300 tcp/6300",
        " tcp/7300 udp/8300 tcp/6300\n",
    ),
    ("tcp/7400 udp/8400 tcp/6400", " 7400,8400:udp,6400\n"),
];
const WEB: u16 = 80;
#[test]
fn each_line_opens_once() {
    for family in Family::ALL {
        net::test(|net| {
            let row = &family.to_string();
            let _server = Server::tcp(&net.server, &[SSH]);
            let one_time_text = HostFile::of(3);
            let daemon = Daemon::start(&net.server, &one_time_text.door(1));
            is_dead(&net.new_source(family), 2, "not its turn");

            opens(&net.new_source(family), 1, row);
            daemon.wait_for_event(&used(1));
            one_time_text.is_marked(1, 3);
            is_dead(&net.new_source(family), 1, "another source");
            let other_family = family.pick(Family::V6, Family::V4);
            is_dead(&net.new_source(other_family), 1, "the other family");

            opens(&net.new_source(family), 2, row);
            daemon.wait_for_event(&used(2));
            opens(&net.new_source(family), 3, row);
            daemon.wait_for_event(&used(3));
            daemon.wait_for_event(&json!({"event": "disabled", "door": "once"}));
            one_time_text.is_marked(3, 3);
            for line in 1..=3 {
                is_dead(&net.new_source(family), line, "all are used");
            }
            let count = daemon.events_like(&json!({"event": "opened"})).len();
            assert_eq!(count, 3, "{:?}", daemon.events());
            daemon.stop();
        });
    }
}

/// Many sources repeat it at once, and one gets in.
#[test]
fn a_burst_of_repetitions_opens_once() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let one_time_text = HostFile::of(2);
        let daemon = Daemon::start(&net.server, &one_time_text.door(1));
        let first = net.new_source(Family::V4);
        let others: Vec<_> = (0..20)
            .map(|number| net.new_source(Family::ALL[number % 2]))
            .collect();
        first.knock(ONCE[0].0);
        for other in &others {
            other.knock(ONCE[0].0);
        }
        first.finds(true, SSH, "the first");
        for other in &others {
            other.finds_closed(SSH, "a repetition");
        }
        daemon.wait_for_event(&used(1));
        one_time_text.is_marked(1, 2);
        assert_eq!(daemon.events_like(&json!({"event": "opened"})).len(), 1);
        opens(&others[0], 2, "its turn");
        daemon.stop();
    });
}

/// A client that has knocked without effect gets in with a later line, and skipped lines are void.
#[test]
fn lines_added_later_are_read() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let one_time_text = HostFile::of(4);
        let daemon = Daemon::start(&net.server, &one_time_text.door(3));
        is_dead(&net.new_source(Family::V4), 4, "too far ahead");
        opens(&net.new_source(Family::V4), 3, "two were lost");
        daemon.wait_for_event(&used(3));
        one_time_text.is_marked(3, 4);
        for line in 1..=3 {
            is_dead(&net.new_source(Family::V4), line, "skipped or used");
        }
        opens(&net.new_source(Family::V6), 4, "its turn");
        daemon.wait_for_event(&used(4));
        daemon.stop();
    });
}

/// An attempt on another sequence continues.
#[test]
fn other_attempts_are_not_disturbed() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH, WEB]);
        let one_time_text = HostFile::of(3);
        let web = DOOR.replace("tcp/22", "tcp/80");
        let daemon = Daemon::start(&net.server, &(one_time_text.door(2) + &web));
        let [slow, next] = [net.new_source(Family::V4), net.new_source(Family::V6)];
        slow.knock("tcp/7000 udp/8000");
        next.knock("udp/7200 tcp/8200");
        opens(&net.new_source(Family::V4), 1, "another one");
        daemon.wait_for_event(&used(1));
        slow.knock("tcp/9000");
        slow.finds(true, WEB, "who was at another door");
        next.knock("udp/6200");
        next.finds(true, SSH, "who was at the next line");
        daemon.wait_for_event(&used(2));
        daemon.stop();
    });
}

/// A repeated packet is one knock, and packets in another order are none, so the line remains usable.
#[test]
fn repeated_knocks_are_harmless_and_reordered_ones_are_wrong() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let one_time_text = HostFile::of(3);
        let daemon = Daemon::start(&net.server, &one_time_text.door(1));
        for family in Family::ALL {
            let line = family.pick(1, 2);
            let knocks: Vec<&str> = ONCE[line - 1].0.split(' ').collect();
            let [a, b, c] = knocks[..] else { panic!() };
            let source = net.new_source(family);
            source.knock(&format!("{a} {c} {b}"));
            source.finds_closed(SSH, "out of order");
            one_time_text.is_marked(line - 1, 3);
            source.knock(&format!("{a} {a} {b} {b} {c} {c}"));
            source.finds(true, SSH, "each twice");
            daemon.wait_for_event(&used(u32::try_from(line).unwrap()));
            one_time_text.is_marked(line, 3);
            let opened = daemon.events_like(&opened(&source));
            assert_eq!(opened.len(), 1, "{family}: {:?}", daemon.events());
        }
        daemon.stop();
    });
}

/// The file of the host.
struct HostFile {
    directory: TempDir,
    path: PathBuf,
}

impl HostFile {
    fn new(text: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("once");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        Self { directory, path }
    }

    /// Returns a file with this many of the sequences.
    fn of(count: usize) -> Self {
        Self::new(&unused(0..count))
    }

    fn text(&self) -> String {
        fs::read_to_string(&self.path).unwrap()
    }

    fn door(&self, lookahead: u16) -> String {
        door(&self.path, lookahead)
    }

    /// Waits until the first `used` of `count` sequences are marked, and no others.
    fn is_marked(&self, used: usize, count: usize) {
        let expected = marked(0..used) + &unused(used..count);
        wait::until(&format!("{used} of {count} lines are marked"), || {
            self.text() == expected
        });
    }
}

fn unused(which: std::ops::Range<usize>) -> String {
    ONCE[which].iter().map(|(_, line)| *line).collect()
}

fn marked(which: std::ops::Range<usize>) -> String {
    let lines = ONCE[which].iter();
    lines.map(|(_, line)| line.replacen(' ', "#", 1)).collect()
}

fn door(path: &Path, lookahead: u16) -> String {
    format!(
        "[[door]]\nname = \"once\"\none_time = \"{}\"\nlookahead = {lookahead}\n\
         open = [\"tcp/22\"]\n",
        path.display()
    )
}

fn used(line: u32) -> Value {
    json!({"event": "used", "door": "once", "line": line})
}

fn opened(source: &Source<'_>) -> Value {
    json!({"event": "opened", "source": source.name(), "door": "once"})
}

fn opens(source: &Source<'_>, line: usize, row: &str) {
    source.finds_closed(SSH, row);
    let connected = source.knock_and_connect(ONCE[line - 1].0, SSH);
    assert!(connected.is_ok(), "{row}: line {line}: {connected:?}");
}

fn is_dead(source: &Source<'_>, line: usize, row: &str) {
    source.knock(ONCE[line - 1].0);
    source.finds_closed(SSH, &format!("{row}: line {line}"));
}
