//! Starting knock-user while the host is in use.

use std::{
    fs,
    io::Write as _,
    os::unix::{fs::OpenOptionsExt as _, process::ExitStatusExt as _},
    process::Command,
};

use knock_tests::{
    binary::binaries,
    daemon::Daemon,
    net::{self, Family, SERVER_LINK},
    pins,
    process::Process,
    server::Server,
    source::{echoes, is_cut},
    ssh::{DOOR, SSH},
    wait,
};
use nix::{
    fcntl::OFlag,
    sys::{signal::Signal, stat::Mode},
    unistd::mkfifo,
};
use serde_json::json;

#[test]
fn existing_connections_continue_after_a_start() {
    for family in Family::ALL {
        net::test(|net| {
            let _server = Server::tcp(&net.server, &[SSH]);
            let source = net.new_source(family);
            let mut connection = source.finds_open(SSH, "not protected yet");
            assert!(echoes(&mut connection), "{family:?}: before");
            let daemon = Daemon::start(&net.server, DOOR);
            daemon.wait_for_event(&json!({
                "event": "kept",
                "source": source.name(),
                "protocol": "tcp",
                "port": SSH,
                "source_port": connection.local_addr().unwrap().port(),
            }));
            source.finds_closed(SSH, "a new connection");
            assert!(echoes(&mut connection), "{family:?}: after");
        });
    }
}

#[test]
fn with_keep_false_a_start_cuts_connections_and_warns() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let source = net.new_source(Family::V4);
        let mut connection = source.finds_open(SSH, "not protected yet");
        let config = format!("[established]\nkeep = false\n{DOOR}");
        let daemon = Daemon::start(&net.server, &config);
        assert!(is_cut(&mut connection));
        let warning = daemon.process().stderr();
        assert!(warning.contains("keep = false"), "{warning}");
    });
}

/// A service manager, or a rotation of log files, may signal a process in its first moments: here while it waits for
/// its configuration, before it has an event loop.
#[test]
fn signals_in_the_first_moments_are_handled() {
    for (signal, continues) in [
        (Signal::SIGHUP, true),
        (Signal::SIGTERM, false),
        (Signal::SIGINT, false),
    ] {
        net::test(|net| {
            let directory = tempfile::tempdir().unwrap();
            let pipe = directory.path().join("seq.toml");
            mkfifo(&pipe, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
            let mut command = Command::new(&binaries().user);
            command
                .args(["--iface", SERVER_LINK, "--config"])
                .arg(&pipe);
            let mut daemon = Process::start(&net.server, &mut command);
            let mut writer = None;
            wait::until("it reads the pipe", || {
                let mut open = fs::OpenOptions::new();
                let open = open.write(true).custom_flags(OFlag::O_NONBLOCK.bits());
                writer = open.open(&pipe).ok();
                writer.is_some()
            });
            daemon.signal(signal);
            if !continues {
                let ended = daemon.wait();
                assert_eq!(ended.status.signal(), Some(signal as i32), "{ended:?}");
                assert!(pins::attached_programs(&net.server).is_empty(), "{signal}");
                assert!(pins::instances(&net.server).is_empty(), "{signal}");
                return;
            }
            writer.unwrap().write_all(DOOR.as_bytes()).unwrap();
            wait::until("it protects", || {
                daemon
                    .stdout()
                    .iter()
                    .any(|line| line.contains("protecting tcp/22"))
            });
            // A pipe can't be read again.
            wait::until("the reload follows the start", || {
                daemon
                    .stderr()
                    .contains("the configuration is not reloaded")
            });
            net.new_source(Family::V4).finds_closed(SSH, "protected");
            assert!(daemon.stop(Signal::SIGINT).status.success());
        });
    }
}
