//! Files that are malformed, unusable, late or used up.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, chown, symlink},
    path::PathBuf,
};

use knock_tests::{
    daemon::{Daemon, ask},
    net::{self, Family},
    server::Server,
    ssh::{DOOR, KNOCKS, SSH},
    wait,
};
use serde_json::json;

use crate::{HostFile, ONCE, WEB, door, is_dead, marked, opens, unused, used};

#[test]
fn malformed_lines_are_skipped_and_named() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH, WEB]);
        let wrong = "# a comment\n\n 0,7000\n 70000\n 7000:icmp\n 7000,,8000\n 7000,22\n";
        let bytes = [wrong.as_bytes(), b" \xff7000\n", ONCE[0].1.as_bytes()].concat();
        let one_time_text = HostFile::new("");
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
    type Prepare = fn(&HostFile) -> PathBuf;
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
            "another user's",
            |one_time_text| {
                chown(&one_time_text.path, Some(12_345), None).unwrap();
                one_time_text.path.clone()
            },
            "sudo install",
        ),
        (
            "in another user's directory",
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
            let one_time_text = HostFile::of(2);
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
        let one_time_text = HostFile::new("");
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
        let one_time_text = HostFile::new(ONCE[0].1);
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
        let one_time_text = HostFile::of(3);
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
