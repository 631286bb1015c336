//! A line that was used stays used after a kill or a power cut at any moment.

use std::{fs, thread, time::Duration};

use knock_tests::{
    daemon::{Daemon, ask},
    net::{self, Family, SERVER_LINK},
    random::{Random, number},
    server::Server,
    ssh::SSH,
    wait,
};
use nix::sys::signal::Signal;

use crate::{HostFile, ONCE, is_dead, opened, opens, used};

#[test]
fn a_kill_after_the_knock_does_not_revive_a_line() {
    for family in Family::ALL {
        net::test(|net| {
            let row = &family.to_string();
            let _server = Server::tcp(&net.server, &[SSH]);
            let one_time_text = HostFile::of(3);
            let daemon = Daemon::start(&net.server, &one_time_text.door(2));
            let source = net.new_source(family);
            source.knock(ONCE[0].0);
            daemon.kill();
            source.finds(true, SSH, row);
            is_dead(&net.new_source(family), 1, "no daemon runs");
            let daemon = Daemon::start(&net.server, &one_time_text.door(2));
            one_time_text.is_marked(1, 3);
            is_dead(&net.new_source(family), 1, "a daemon runs again");
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
            let one_time_text = HostFile::of(3);
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
        let one_time_text = HostFile::of(4);
        let live = one_time_text.directory.path().join(".once.live");
        let mut daemon = Daemon::start(&net.server, &one_time_text.door(2));
        daemon.process_mut().signal(Signal::SIGSTOP);
        opens(&net.new_source(Family::V4), 1, "no daemon records it");
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
        opens(&net.new_source(Family::V6), 3, "the line is new");
        daemon.wait_for_event(&used(3));
        // A regular end withdraws the accepted lines, so none is lost.
        daemon.stop();
        assert!(!live.exists());
        let keep = ["--iface", SERVER_LINK, "--on-exit", "keep"];
        let daemon = Daemon::start_with(&net.server, &one_time_text.door(2), &keep);
        daemon.leave(Signal::SIGTERM);
        assert!(!live.exists());
        is_dead(&net.new_source(Family::V4), 4, "no daemon would record it");
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
        let one_time_text = HostFile::new(&text);
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
