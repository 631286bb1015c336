//! The process: its lines, its privileges and its end. No member is needed.

use std::{fs, os::unix::net::UnixStream, process::Command};

use knock_wire::{Open, PROTOCOL, Report, Request};

use crate::{
    command::until,
    host::{Host, write},
};

fn open(protocol: u32, servers: &[&str]) -> Request {
    Request::Open(Open {
        protocol,
        servers: servers.iter().map(|server| (*server).to_owned()).collect(),
        ca: None,
        cert: None,
        key: None,
        watches: 2,
    })
}

const NOBODY: &str = "http://127.0.0.1:9";

#[test]
fn a_line_that_can_not_be_followed_is_reported_with_its_number_and_ends_the_process() {
    let good = knock_wire::to_line(&open(PROTOCOL, &[NOBODY])).unwrap();
    let watch = "{\"verb\":\"watch\",\"prefix\":\"/knock/1/web/\",\"after\":null}\n";
    for (name, lines, expected) in [
        (
            "garbage",
            "garbage\n".to_owned(),
            "line 1: a line of 8 octets can't be read: expected value",
        ),
        (
            "garbage after lines",
            format!("{good}{watch}[]\n"),
            "line 3: a line of 3 octets can't be read",
        ),
        (
            "an unknown verb",
            format!("{good}{{\"verb\":\"steal\"}}\n"),
            "line 2: ",
        ),
        (
            "no first line",
            watch.to_owned(),
            "line 1: the first line is not `open`",
        ),
        (
            "two first lines",
            format!("{good}{good}"),
            "line 2: a second `open`",
        ),
        (
            "another version",
            knock_wire::to_line(&open(PROTOCOL + 1, &[NOBODY])).unwrap(),
            "line 1: the lines are of version 2, not 1",
        ),
        (
            "no member",
            knock_wire::to_line(&open(PROTOCOL, &[])).unwrap(),
            "line 1: `servers` has no member",
        ),
        (
            "a prefix twice",
            format!("{good}{watch}{watch}"),
            "line 3: `/knock/1/web/` can't be watched",
        ),
        (
            "a line without an end",
            "x".repeat(1 << 20),
            "line 1: it has no end",
        ),
    ] {
        let mut host = Host::bare(None);
        host.send_line(&lines);
        let reason = host.wait_for(name, |host| {
            host.seen.iter().find_map(|report| match report {
                Report::Lost { reason } if reason.contains("standard input") => {
                    Some(reason.clone())
                }
                _ => None,
            })
        });
        assert!(reason.contains(expected), "{name}: {reason}");
        assert_eq!(host.wait().code(), Some(1), "{name}");
    }
}

#[test]
fn the_end_of_the_daemon_ends_the_process() {
    for (name, lines) in [
        ("before a line", ""),
        ("in the middle of a line", "{\"verb\""),
    ] {
        let mut host = Host::bare(None);
        host.send_line(lines);
        assert_eq!(host.close().code(), Some(0), "{name}");
    }
    let mut host = Host::bare(None);
    host.send(&open(PROTOCOL, &[NOBODY]));
    host.watch(None);
    for number in 0..200 {
        host.put(
            None,
            vec![write(&format!("/knock/1/web/{number}"), "x", Some(60))],
        );
    }
    host.wait_for("the loss", |host| {
        host.has(|report| matches!(report, Report::Lost { .. }))
            .then_some(())
    });
    assert_eq!(host.close().code(), Some(0));
}

#[test]
fn each_write_is_answered_while_no_member_is_there() {
    let mut host = Host::bare(None);
    host.send(&open(PROTOCOL, &[NOBODY]));
    let ids: Vec<_> = (0..5_000)
        .map(|number| {
            host.put(
                None,
                vec![write(&format!("/knock/1/web/{}", number % 100), "x", None)],
            )
        })
        .collect();
    // Those that do not fit into the queue, at once; one of the others after its time.
    let refused = host.wait_for("those for which there is no room", |host| {
        let count = host
            .seen
            .iter()
            .filter(|report| matches!(report, Report::Failed { .. }))
            .count();
        (count > 100).then_some(count)
    });
    assert!(refused <= ids.len());
    let answer = host.answer(ids[0]);
    assert!(
        matches!(
            answer,
            Report::Failed {
                may_be_written: false,
                ..
            }
        ),
        "{answer:?}"
    );
    assert_eq!(host.close().code(), Some(0));
}

#[test]
fn the_process_has_no_capability() {
    let mut host = Host::bare(None);
    host.send(&open(PROTOCOL, &[NOBODY]));
    host.watch(None);
    host.wait_for("the loss", |host| {
        host.has(|report| matches!(report, Report::Lost { .. }))
            .then_some(())
    });
    let status = fs::read_to_string(format!("/proc/{}/status", host.id())).unwrap();
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        let line = status.lines().find(|line| line.starts_with(set)).unwrap();
        assert!(line.ends_with("\t0000000000000000"), "{line}");
    }
    assert!(status.contains("NoNewPrivs:\t1"), "{status}");
}

#[test]
fn standard_input_has_to_be_a_socket() {
    let output = Command::new(env!("CARGO_BIN_EXE_knock-fleet"))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(
        text,
        "knock-fleet: error: standard input is no connected socket; a daemon starts this program, \
         which is not started by hand\n"
    );
}

#[test]
fn a_daemon_that_does_not_read_blocks_no_end() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_knock-fleet"))
        .stdin(std::os::fd::OwnedFd::from(theirs))
        .spawn()
        .unwrap();
    {
        use std::io::Write as _;
        (&ours)
            .write_all(
                knock_wire::to_line(&open(PROTOCOL, &[NOBODY]))
                    .unwrap()
                    .as_bytes(),
            )
            .unwrap();
    }
    drop(ours);
    let status = until("the end", || child.try_wait().unwrap());
    assert_eq!(status.code(), Some(0));
}
