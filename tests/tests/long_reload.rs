//! A reload that takes long: everything else goes on meanwhile.

#![expect(
    clippy::unwrap_used,
    reason = "what a test can't do, it says by a panic"
)]

use std::{fs, io::ErrorKind, path::PathBuf, process::Command, time::Duration};

use knock_tests::{
    binary::binaries,
    daemon::{self, Daemon},
    net::{self, Family, Net, SERVER_LINK, SERVER_LINK_2},
    pins,
    process::Process,
    server::Server,
    ssh::{DOOR, KNOCKS, SSH},
    wait,
};
use nix::{
    sys::{
        signal::Signal::{SIGHUP, SIGTERM},
        stat::Mode,
    },
    unistd::mkfifo,
};
use serde_json::json;
use tempfile::TempDir;

const UNDER_WAY: &str = "a reload is under way";

/// A secret whose reader waits for as long as the test wants.
struct Secret {
    directory: TempDir,
}

impl Secret {
    fn new() -> Self {
        let secret = Self {
            directory: TempDir::new().unwrap(),
        };
        fs::write(secret.path(), "correct horse battery\n").unwrap();
        secret
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("secret")
    }

    /// From now on whoever reads it waits.
    fn hold(&self) {
        fs::remove_file(self.path()).unwrap();
        mkfifo(&self.path(), Mode::from_bits_truncate(0o600)).unwrap();
    }

    /// Lets the reader go on, and all later ones.
    fn release(&self) {
        let held = self.directory.path().join("held");
        fs::rename(self.path(), &held).unwrap();
        fs::write(self.path(), "correct horse battery\n").unwrap();
        fs::write(held, "correct horse battery\n").unwrap();
    }

    fn config(&self) -> String {
        format!(
            "{DOOR}\n[[door]]\nname = \"timed\"\nopen = [\"tcp/8080\"]\n\
             otp = {{ secret_file = {:?}, protocols = [\"tcp\", \"udp\", \"tcp\"] }}\n",
            self.path().display().to_string()
        )
    }
}

fn reload(net: &Net) -> Process {
    let mut command = Command::new(&binaries().user);
    Process::start(&net.server, command.arg("reload"))
}

#[track_caller]
fn is_under_way(net: &Net) {
    wait::until(UNDER_WAY, || {
        let (_, told) = daemon::ask(&net.server, &["confirm"]);
        told.contains(UNDER_WAY)
    });
}

#[test]
fn interfaces_are_protected_and_requests_answered_meanwhile() {
    const BOTH: [&str; 4] = ["--iface", SERVER_LINK, "--iface", SERVER_LINK_2];
    net::test(|net| {
        net.add_second_link();
        let _server = Server::tcp(&net.server, &[SSH]);
        let secret = Secret::new();
        let mut daemon = Daemon::start_with(&net.server, &secret.config(), &BOTH);
        let protecting = json!({"event": "protecting", "interface": SERVER_LINK_2});
        let reloaded = json!({"event": "reloaded"});
        wait::until("both are protected", || {
            !daemon.told(&protecting).is_empty()
        });
        secret.hold();
        let reloading = reload(net);
        is_under_way(net);

        net.server.ip(&format!("link delete {SERVER_LINK_2}"));
        net.add_second_link();
        wait::until("the new one is protected", || {
            daemon.told(&protecting).len() == 2
        });
        let elsewhere = || net.stranger(Family::V4).to(Family::V4.second_server());
        let source = elsewhere();
        wait::until("the link carries packets", || {
            source
                .connect(81, Duration::from_millis(50))
                .is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
        });
        elsewhere().finds_closed(SSH, "while the reload is under way");
        let guest = net.stranger(Family::V4);
        guest.knock(KNOCKS);
        guest.finds(true, SSH, "doors open");
        daemon.tells(&json!({"event": "opened", "source": guest.name()}));

        for (words, code, told) in [
            (&["status"][..], None, "process"),
            (&["list"], Some(0), "ssh"),
            (
                &["grant", "203.0.113.9", "--door", "ssh"],
                Some(0),
                "203.0.113.9",
            ),
            (&["reload"], Some(1), UNDER_WAY),
            (&["confirm"], Some(1), UNDER_WAY),
        ] {
            let (status, answer) = daemon::ask(&net.server, words);
            assert!(code.is_none() || status == code, "{words:?}: {answer}");
            assert!(answer.contains(told), "{words:?}: {answer}");
        }
        // What a signal asks for is not forgotten.
        daemon.process_mut().signal(SIGHUP);
        assert!(daemon.told(&reloaded).is_empty());
        secret.release();
        let ended = reloading.wait();
        assert!(ended.status.success(), "{ended:?}");
        wait::until("it is reloaded again", || daemon.told(&reloaded).len() == 2);
        guest.finds(true, SSH, "grants go on");
        elsewhere().finds_closed(SSH, "after the reload");
        daemon.stop();
    });
}

/// Nobody waits for a file that can't be read.
#[test]
fn an_end_meanwhile() {
    net::test(|net| {
        let secret = Secret::new();
        let daemon = Daemon::start(&net.server, &secret.config());
        let programs = daemon.programs().to_vec();
        secret.hold();
        let reloading = reload(net);
        is_under_way(net);
        let ended = daemon.end_by(SIGTERM);
        assert!(ended.status.success(), "{ended:?}");
        let reload = reloading.wait();
        assert_eq!(reload.status.code(), Some(1), "{reload:?}");
        assert!(reload.stderr.contains("the daemon is ending"), "{reload:?}");
        pins::nothing_is_left(&net.server, &programs);
    });
}
