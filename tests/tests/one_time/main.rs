//! One-time sequences open once, whichever source repeats them and whatever happens to the daemon.

#![expect(
    clippy::unwrap_used,
    reason = "what a test can't do, it says by a panic"
)]

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    os::unix::fs::{PermissionsExt as _, chown, symlink},
    path::{Path, PathBuf},
    process::{Command, Output},
    thread,
    time::Duration,
};

use knock_tests::{
    binary::binaries,
    daemon::{Daemon, ask},
    namespace::text,
    net::{self, Family, Net, SERVER_LINK},
    process::Process,
    random::{Random, number},
    server::Server,
    source::{FIRST_SYN, Source},
    ssh::{DOOR, KNOCKS, SSH},
    wait,
};
use nix::sys::signal::Signal;
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
const INDEX: u16 = 7001;

#[test]
fn each_line_opens_once() {
    for family in Family::ALL {
        net::test(|net| {
            let row = &family.to_string();
            let _server = Server::tcp(&net.server, &[SSH]);
            let one_time_text = OneTimeText::of(3);
            let daemon = Daemon::start(&net.server, &one_time_text.door(1));
            is_dead(&net.new_source(family), 2, "not its turn");

            opens(&net.new_source(family), 1, row);
            daemon.wait_for_event(&used(1));
            one_time_text.is_marked(1, 3);
            is_dead(&net.new_source(family), 1, "somebody else");
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
        let one_time_text = OneTimeText::of(2);
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
        let one_time_text = OneTimeText::of(4);
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

#[test]
fn a_kill_after_the_knock_does_not_revive_a_line() {
    for family in Family::ALL {
        net::test(|net| {
            let row = &family.to_string();
            let _server = Server::tcp(&net.server, &[SSH]);
            let one_time_text = OneTimeText::of(3);
            let daemon = Daemon::start(&net.server, &one_time_text.door(2));
            let source = net.new_source(family);
            source.knock(ONCE[0].0);
            daemon.kill();
            source.finds(true, SSH, row);
            is_dead(&net.new_source(family), 1, "nobody runs");
            let daemon = Daemon::start(&net.server, &one_time_text.door(2));
            one_time_text.is_marked(1, 3);
            is_dead(&net.new_source(family), 1, "somebody runs again");
            opens(&net.new_source(family), 2, row);
            daemon.wait_for_event(&used(2));
            daemon.stop();
        });
    }
}

/// The daemon has not received the event: only the kernel has recorded the use.
#[test]
fn a_kill_before_the_event_does_not_revive_a_line() {
    for family in Family::ALL {
        net::test(|net| {
            let row = &family.to_string();
            let _server = Server::tcp(&net.server, &[SSH]);
            let one_time_text = OneTimeText::of(3);
            let mut daemon = Daemon::start(&net.server, &one_time_text.door(2));
            let source = net.new_source(family);
            daemon.process_mut().signal(Signal::SIGSTOP);
            opens(&source, 1, row);
            is_dead(&net.new_source(family), 1, "it is held");
            daemon.kill();
            is_dead(&net.new_source(family), 1, "it is dead");
            one_time_text.is_marked(0, 3);
            let daemon = Daemon::start(&net.server, &one_time_text.door(2));
            daemon.wait_for_event(&opened(&source));
            daemon.wait_for_event(&used(1));
            one_time_text.is_marked(1, 3);
            is_dead(&net.new_source(family), 1, "it is back");
            // Another start finds the mark on the disk alone.
            daemon.stop();
            let daemon = Daemon::start(&net.server, &one_time_text.door(2));
            is_dead(&net.new_source(family), 1, "all was removed");
            opens(&net.new_source(family), 2, row);
            daemon.wait_for_event(&used(2));
            daemon.stop();
        });
    }
}

/// A crash of the host loses the map of used lines, so the accepted lines may have been used.
#[test]
fn a_power_cut_does_not_revive_a_line() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let one_time_text = OneTimeText::of(4);
        let live = one_time_text.directory.path().join(".once.live");
        let mut daemon = Daemon::start(&net.server, &one_time_text.door(2));
        daemon.process_mut().signal(Signal::SIGSTOP);
        opens(&net.new_source(Family::V4), 1, "nobody notes it");
        daemon.kill();
        let (code, output) = ask(&net.server, &["detach"]);
        assert_eq!(code, Some(0), "{output}");
        // The next boot of this host.
        let text = fs::read_to_string(&live).unwrap();
        let (_, rest) = text.split_once(' ').unwrap();
        fs::write(
            &live,
            format!("00000000-0000-4000-8000-000000000000 {rest}"),
        )
        .unwrap();
        one_time_text.is_marked(0, 4);
        let daemon = Daemon::start(&net.server, &one_time_text.door(2));
        one_time_text.is_marked(2, 4);
        let stderr = daemon.process().stderr();
        assert!(
            stderr.contains("the host went down while the lines up to 2"),
            "{stderr}"
        );
        is_dead(&net.new_source(Family::V4), 1, "it was used");
        is_dead(&net.new_source(Family::V4), 2, "who knows");
        opens(&net.new_source(Family::V6), 3, "nobody knew it");
        daemon.wait_for_event(&used(3));
        // A regular end withdraws the accepted lines, so none is lost.
        daemon.stop();
        assert!(!live.exists());
        let keep = ["--iface", SERVER_LINK, "--on-exit", "keep"];
        let daemon = Daemon::start_with(&net.server, &one_time_text.door(2), &keep);
        daemon.leave(Signal::SIGTERM);
        assert!(!live.exists());
        is_dead(&net.new_source(Family::V4), 4, "nobody would note it");
        let daemon = Daemon::start(&net.server, &one_time_text.door(2));
        opens(&net.new_source(Family::V4), 4, "it was not used");
        daemon.wait_for_event(&used(4));
        daemon.stop();
    });
}

/// The daemon is killed at random moments around the knock. No line opens twice, and each line that opened is marked
/// after the next start.
#[test]
fn repeated_kills_do_not_revive_a_line() {
    const KILLS: usize = 8;
    let seed = number("KNOCK_SEED").unwrap_or(1);
    eprintln!("KNOCK_SEED={seed}");
    let mut random = Random::new(seed);
    // Ports that neither ascend nor descend, and that no other line has.
    let knocks = |line: usize| {
        format!(
            "tcp/{} udp/{} tcp/{}",
            20_000 + line,
            30_000 + line,
            10_000 + line
        )
    };
    let text: String = (1..=KILLS + 1)
        .map(|line| format!(" {}\n", knocks(line)))
        .collect();
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let one_time_text = OneTimeText::new(&text);
        let marks = || {
            one_time_text
                .text()
                .lines()
                .filter(|line| line.starts_with('#'))
                .count()
        };
        let mut daemon = Daemon::start(&net.server, &one_time_text.door(1));
        for line in 1..=KILLS {
            let row = &format!("line {line}");
            let source = net.new_source(Family::ALL[line % 2]);
            source.knock(&knocks(line));
            // Before it receives the event, after it has marked the line, or between.
            thread::sleep(Duration::from_micros(random.below(20_000) as u64));
            daemon.kill();
            source.finds(true, SSH, row);
            let other = net.new_source(Family::V4);
            other.knock(&knocks(line));
            other.finds_closed(SSH, row);
            daemon = Daemon::start(&net.server, &one_time_text.door(1));
            wait::until("the line is marked", || marks() == line);
            let other = net.new_source(Family::V6);
            other.knock(&knocks(line));
            other.finds_closed(SSH, row);
            let next = format!("once: line {} is next", line + 1);
            wait::until("the next line is listened to", || {
                ask(&net.server, &["status"]).1.contains(&next)
            });
        }
        daemon.stop();
    });
}

#[test]
fn malformed_lines_are_skipped_and_named() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH, WEB]);
        let wrong = "# a comment\n\n 0,7000\n 70000\n 7000:icmp\n 7000,,8000\n 7000,22\n";
        let bytes = [wrong.as_bytes(), b" \xff7000\n", ONCE[0].1.as_bytes()].concat();
        let one_time_text = OneTimeText::new("");
        let text = [&bytes[..], ONCE[0].1.as_bytes(), b" 7400,84"].concat();
        fs::write(&one_time_text.path, &text).unwrap();
        let web = "[[door]]\nname = \"web\"\nknock = [\"tcp/7000\", \"udp/8000\", \"tcp/9000\"]\n\
                   open = [\"tcp/80\"]\n";
        let daemon = Daemon::start(&net.server, &format!("{}{web}", one_time_text.door(3)));
        let place = one_time_text.path.display();
        for words in [
            format!("{place}:3: \"0\" names the"),
            format!("{place}:4: \"70000\" names the"),
            format!("{place}:5: \"7000:icmp\" names the"),
            format!("{place}:6: nothing stands where a knock belongs"),
            format!("{place}:7: tcp/22 is protected"),
            "3 more lines are not used".to_owned(),
        ] {
            let stderr = daemon.process().stderr();
            assert!(stderr.contains(&words), "no {words:?} in {stderr}");
        }
        opens(&net.new_source(Family::V4), 1, "the only one");
        daemon.wait_for_event(&used(9));
        is_dead(&net.new_source(Family::V4), 1, "its double is void");
        daemon.wait_for_event(&json!({"event": "disabled", "door": "once"}));
        let mut expected = text;
        let skipped = wrong.len() - " 7000,22\n".len();
        for mark in [skipped, bytes.len() - ONCE[0].1.len()] {
            expected[mark] = b'#';
        }
        let after = fs::read(&one_time_text.path).unwrap();
        assert_eq!(after, expected, "nothing else is touched");
        let source = net.new_source(Family::V4);
        source.knock(KNOCKS);
        source.finds(true, WEB, "the other door");
        daemon.stop();
    });
}

/// The door is reported as unusable, and the daemon continues.
#[test]
fn unusable_files_are_reported() {
    type Prepare = fn(&OneTimeText) -> PathBuf;
    let rows: [(&str, Prepare, &str); 6] = [
        (
            "not there",
            |one_time_text| one_time_text.directory.path().join("none"),
            "cannot read",
        ),
        (
            "a directory",
            |one_time_text| one_time_text.directory.path().to_owned(),
            "cannot read",
        ),
        (
            "used up",
            |one_time_text| {
                fs::write(&one_time_text.path, marked(0..2)).unwrap();
                one_time_text.path.clone()
            },
            "no sequence is left",
        ),
        (
            "empty",
            |one_time_text| {
                fs::write(&one_time_text.path, "").unwrap();
                one_time_text.path.clone()
            },
            "no sequence is left",
        ),
        (
            "somebody else's",
            |one_time_text| {
                chown(&one_time_text.path, Some(12_345), None).unwrap();
                one_time_text.path.clone()
            },
            "sudo install",
        ),
        (
            "in somebody else's directory",
            |one_time_text| {
                chown(one_time_text.directory.path(), Some(12_345), None).unwrap();
                let open = fs::Permissions::from_mode(0o755);
                fs::set_permissions(one_time_text.directory.path(), open).unwrap();
                one_time_text.path.clone()
            },
            "cannot mark used lines",
        ),
    ];
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH, WEB]);
        let web = DOOR.replace("tcp/22", "tcp/80");
        for (row, prepare, expected) in rows {
            let one_time_text = OneTimeText::of(2);
            let path = prepare(&one_time_text);
            let daemon = Daemon::start(&net.server, &(door(&path, 1) + &web));
            let event = daemon.wait_for_event(&json!({"event": "disabled", "door": "once"}));
            let because = event["because"].as_str().unwrap();
            assert!(because.contains(expected), "{row}: {because}");
            is_dead(&net.new_source(Family::V4), 1, row);
            let source = net.new_source(Family::V4);
            source.knock(KNOCKS);
            source.finds(true, WEB, row);
            let (code, status) = ask(&net.server, &["status"]);
            assert_eq!(code, Some(1), "{row}: {status}");
            assert!(
                status.contains("once: nobody can open it"),
                "{row}: {status}"
            );
            daemon.stop();
        }
    });
}

#[test]
fn a_file_created_later_is_read_by_a_reload() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let one_time_text = OneTimeText::new("");
        let link = one_time_text.directory.path().join("link");
        symlink(&one_time_text.path, &link).unwrap();
        let config = door(&link, 1);
        let mut daemon = Daemon::start(&net.server, &config);
        daemon.wait_for_event(&json!({"event": "disabled", "door": "once"}));
        fs::write(&one_time_text.path, unused(0..2)).unwrap();
        daemon.reload(&config);
        let (_, status) = ask(&net.server, &["status"]);
        assert!(status.contains("once: line 1 is next, 2 left"), "{status}");
        opens(&net.new_source(Family::V4), 1, "read again");
        daemon.wait_for_event(&used(1));
        one_time_text.is_marked(1, 2);
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        daemon.reload(&config);
        is_dead(&net.new_source(Family::V4), 1, "reloaded");
        opens(&net.new_source(Family::V4), 2, "reloaded");
        daemon.stop();
    });
}

/// The kernel may still have an entry for a line of the previous file.
#[test]
fn a_new_file_after_the_last_line_is_read() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let one_time_text = OneTimeText::new(ONCE[0].1);
        let mut daemon = Daemon::start(&net.server, &one_time_text.door(1));
        opens(&net.new_source(Family::V4), 1, "the last one");
        daemon.wait_for_event(&json!({"event": "disabled", "door": "once"}));
        let fresh = unused(1..4);
        fs::write(&one_time_text.path, &fresh).unwrap();
        daemon.reload(&one_time_text.door(1));
        opens(&net.new_source(Family::V4), 2, "the first of the new file");
        let pattern = json!({"event": "used", "line": 1, "sequences_left": 2});
        daemon.wait_for_event(&pattern);
        let expected = marked(1..2) + &unused(2..4);
        wait::until("it alone is marked", || one_time_text.text() == expected);
        daemon.stop();
    });
}

/// A line that can't be marked stays in the map of used lines, no client gets in, and the line is marked as soon as
/// that is possible.
#[test]
fn a_file_that_cannot_be_marked_opens_nothing_more() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let one_time_text = OneTimeText::of(3);
        let mut daemon = Daemon::start(&net.server, &one_time_text.door(2));
        let directory = one_time_text.directory.path();
        chown(directory, Some(12_345), None).unwrap();
        fs::set_permissions(directory, fs::Permissions::from_mode(0o755)).unwrap();
        opens(&net.new_source(Family::V4), 1, "the packet is the kernel's");
        let event = daemon.wait_for_event(&json!({"event": "disabled", "door": "once"}));
        let because = event["because"].as_str().unwrap();
        assert!(because.contains("cannot mark used lines"), "{because}");
        is_dead(&net.new_source(Family::V4), 1, "noted");
        is_dead(
            &net.new_source(Family::V6),
            2,
            "what is used could not be marked",
        );
        one_time_text.is_marked(0, 3);
        chown(directory, Some(0), None).unwrap();
        daemon.reload(&one_time_text.door(2));
        daemon.wait_for_event(&used(1));
        one_time_text.is_marked(1, 3);
        is_dead(&net.new_source(Family::V4), 1, "marked");
        opens(&net.new_source(Family::V6), 2, "it works again");
        daemon.wait_for_event(&used(2));
        daemon.stop();
    });
}

/// An attempt on another sequence continues.
#[test]
fn other_attempts_are_not_disturbed() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH, WEB]);
        let one_time_text = OneTimeText::of(3);
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
        let one_time_text = OneTimeText::of(3);
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

#[test]
fn generated_files_open_for_knock_client() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let directory = tempfile::tempdir().unwrap();
        let [here, there] = ["host", "client"].map(|name| directory.path().join(name));
        let mut generate = Command::new(&binaries().user);
        generate.args(["generate", "--one-time", "3", "--knocks", "6", "--export"]);
        let output = generate.arg(&here).output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
        fs::copy(&here, &there).unwrap();
        let config = String::from_utf8(output.stdout).unwrap();
        let daemon = Daemon::start(&net.server, &config);
        for (number, family) in (1..).zip([Family::V4, Family::V6, Family::V4]) {
            let host = family.server().to_string();
            let there = there.to_str().unwrap();
            succeeds(net, &[&host, "--one-time", there, "--then-connect", "22"]);
            wait::until("both sides have marked the same", || {
                let [here, there] = [&here, Path::new(there)].map(fs::read);
                here.unwrap() == there.unwrap()
            });
            // The next line is accepted when this one is reported.
            let used = json!({"event": "used"});
            wait::until("it is reported", || {
                daemon.events_like(&used).len() == number
            });
        }
        daemon.wait_for_event(&json!({"event": "disabled", "door": "ssh"}));
        daemon.stop();
    });
}

/// Debian's knockd and knock-user treat the same file alike.
#[test]
fn knockd_runs_beside_knock_user() {
    const WEB_KNOCKS: &str = "tcp/7000 tcp/8000 tcp/9000";
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH, WEB]);
        let one_time_text = OneTimeText::of(2);
        let place = |name: &str| one_time_text.directory.path().join(name);
        let (conf, log, path) = (place("conf"), place("log"), one_time_text.path.display());
        let text = format!(
            "[once]\none_time_sequences = {path}\ntcpflags = syn\n\
             command = iptables -A INPUT -s %IP% -p tcp --dport 22 -j ACCEPT\n\
             [web]\nsequence = 7000,8000,9000\ntcpflags = syn\n\
             command = iptables -A INPUT -s %IP% -p tcp --dport 80 -j ACCEPT\n"
        );
        fs::write(&conf, &text).unwrap();
        let toml = knock_user::tools::import::import(&text, "knockd.conf")
            .unwrap()
            .toml;

        // knock-user, with a copy of the file under the same name.
        let daemon = Daemon::start(&net.server, &toml);
        let source = net.new_source(Family::V4);
        source.knock(ONCE[0].0);
        source.finds(true, SSH, "the first line");
        daemon.wait_for_event(&used(1));
        let ours = one_time_text.text();
        net.new_source(Family::V4).knock(ONCE[1].0);
        daemon.wait_for_event(&json!({"event": "disabled", "door": "once"}));
        one_time_text.is_marked(2, 2);
        let source = net.new_source(Family::V4);
        source.knock(WEB_KNOCKS);
        source.finds(true, WEB, "the other door, when the file is used up");
        daemon.stop();

        // knockd only logs: its commands need not do anything.
        fs::write(&one_time_text.path, unused(0..2)).unwrap();
        let quiet = text.replace("command = iptables", "command = /bin/true");
        fs::write(&conf, quiet).unwrap();
        let mut knockd = Command::new("knockd");
        knockd.args(["-i", "b0", "-c"]).arg(&conf);
        knockd.arg("-p").arg(place("pid")).arg("-g").arg(&log);
        let mut knockd = Process::start(&net.server, &mut knockd);
        let log_text = || fs::read_to_string(&log).unwrap_or_default();
        wait::until("knockd listens", || log_text().contains("listening on b0"));
        // knockd misses knocks without a pause between them.
        let slowly = |knocks: &str| knocks.replace(' ', " wait/50ms ");
        net.new_source(Family::V4).knock(&slowly(ONCE[0].0));
        wait::until("knockd opens", || log_text().contains("once: OPEN SESAME"));
        wait::until("knockd marks as we do", || one_time_text.text() == ours);
        // It accepts the next line a moment after it has marked the previous one.
        wait::until("knockd ends with its last line", || {
            net.new_source(Family::V4).knock(&slowly(ONCE[1].0));
            !knockd.is_running()
        });
    });
}

/// The knocks of a client were lost twice.
#[test]
fn a_client_within_the_lookahead_catches_up() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let nowhere = Family::V4.source(250).to_string();
        for (row, lookahead, index, expected) in [
            ("nothing helps", 1, false, false),
            ("later lines are listened to", 3, false, true),
            ("the client asks", 1, true, true),
        ] {
            for family in Family::ALL {
                let [one_time_text, own] = [OneTimeText::of(4), OneTimeText::of(4)];
                let daemon =
                    Daemon::start(&net.server, &(listen() + &one_time_text.door(lookahead)));
                let file = own.path.to_str().unwrap();
                for _ in 0..2 {
                    succeeds(net, &[&nowhere, "--one-time", file]);
                }
                let host = family.server().to_string();
                let port = format!("{INDEX}/once");
                let mut words = vec![host.as_str(), "--one-time", file];
                words.extend(["--then-connect", "22", "--timeout"]);
                words.push(if expected { "10s" } else { "300ms" });
                if index {
                    words.extend(["--next-line", &port]);
                }
                let output = client(net, &words);
                let row = format!("{row}, {family}: {}", text(&output));
                assert_eq!(output.status.success(), expected, "{row}");
                if expected {
                    let line = if index { 1 } else { 3 };
                    daemon.wait_for_event(&used(line));
                }
                daemon.stop();
            }
        }
    });
}

/// The next-line port answers each client, and a request during an attempt does not end the attempt.
#[test]
fn the_next_line_server_names_the_next_line() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let one_time_text = OneTimeText::of(3);
        let mut daemon = Daemon::start(&net.server, &(listen() + &one_time_text.door(1)));
        for family in Family::ALL {
            let line = family.pick(1, 2);
            let source = net.new_source(family);
            for (question, answer) in [
                ("once\n", format!("{line}\n")),
                ("\n", format!("{line}\n")),
                ("other\n", String::new()),
                ("GET / HTTP/1.1\r\n\r\n", String::new()),
                ("once", String::new()),
            ] {
                assert_eq!(asked(&source, question), answer, "{family}: {question:?}");
            }
            let (begins, last) = ONCE[line - 1].0.rsplit_once(' ').unwrap();
            source.knock(begins);
            asked(&source, "once\n");
            source.knock(last);
            source.finds(true, SSH, &format!("{family}: asked in between"));
            daemon.wait_for_event(&used(u32::try_from(line).unwrap()));
        }
        let source = net.new_source(Family::V4);
        assert_eq!(asked(&source, "once\n"), "3\n");
        daemon.reload(&one_time_text.door(1));
        wait::until("nobody listens", || {
            source.connect(INDEX, FIRST_SYN).is_err()
        });
        daemon.reload(&(listen() + &one_time_text.door(1)));
        assert_eq!(asked(&source, "once\n"), "3\n", "it listens again");
        daemon.stop();
    });
}

/// The file of the host.
struct OneTimeText {
    directory: TempDir,
    path: PathBuf,
}

impl OneTimeText {
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

/// Returns the client with these arguments, and without the profiles of the user who runs the tests.
fn client(net: &Net, words: &[&str]) -> Output {
    let mut command = Command::new(&binaries().client);
    command.args(words).env("XDG_CONFIG_HOME", "/nonexistent");
    net.client.enter(|| command.output()).unwrap()
}

fn succeeds(net: &Net, words: &[&str]) {
    let output = client(net, words);
    assert!(output.status.success(), "{words:?}: {}", text(&output));
}

fn listen() -> String {
    format!("[next_line]\nlisten = \"[::]:{INDEX}\"\n")
}

fn asked(source: &Source<'_>, question: &str) -> String {
    let ask = |mut stream: TcpStream| {
        stream.write_all(question.as_bytes())?;
        // A client that sends no request is not waited for.
        stream.shutdown(std::net::Shutdown::Write)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        let mut answer = String::new();
        // Unread octets reset the connection.
        let _reset = stream.read_to_string(&mut answer);
        Ok::<_, std::io::Error>(answer)
    };
    let stream = source.connect(INDEX, FIRST_SYN).unwrap();
    ask(stream).unwrap()
}
