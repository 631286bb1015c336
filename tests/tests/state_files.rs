//! The files in /run/knock: their owners and modes, foreign files in their place, and a start while the previous
//! process is still ending.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails with the test")]

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
    path::Path,
    process::Command,
};

use knock_tests::{
    binary::binaries,
    daemon::{self, Daemon, config_file},
    net::{self, Family, SERVER_LINK},
    pins,
    process::Process,
    server::Server,
    ssh::{DOOR, SSH},
    wait,
};
use knock_user::host::paths::RUN;
use nix::sys::signal::Signal::{SIGKILL, SIGTERM};

#[test]
fn only_the_daemon_may_write_its_state_files() {
    net::test(|net| {
        let config = config_file(DOOR.as_bytes());
        // Another instance of these tests may use the directory, so it is not removed.
        fs::create_dir_all(RUN).unwrap();
        fs::set_permissions(RUN, fs::Permissions::from_mode(0o777)).unwrap();
        let process = Process::start(&net.server, &mut careless(config.path()));
        wait::until("it protects", || {
            let protecting = |line: &String| line.contains("\"protecting\"");
            process.stdout().iter().any(protecting)
        });
        let instance = pins::instance(&net.server);
        let run = Path::new(RUN);
        assert_eq!(mode(run), 0o755);
        for end in ["json", "lock", "sock"] {
            let path = run.join(format!("{}.{end}", instance.name()));
            assert_eq!(mode(&path), 0o600, "{}", path.display());
        }
        for directory in [instance.pins(), instance.maps(), instance.links()] {
            assert_eq!(mode(&directory), 0o700, "{}", directory.display());
        }
        assert!(process.stop(SIGTERM).status.success());
    });
}

#[test]
fn a_planted_symbolic_link_is_not_followed() {
    net::test(|net| {
        let precious = config_file(b"precious");
        let daemon = Daemon::start_with(
            &net.server,
            DOOR,
            &["--iface", SERVER_LINK, "--on-exit", "keep"],
        );
        let instance = pins::instance(&net.server);
        daemon.leave(SIGTERM);
        let at = |end: &str| Path::new(RUN).join(format!("{}.{end}", instance.name()));
        symlink(precious.path(), at("new")).unwrap();
        Daemon::start_with(
            &net.server,
            DOOR,
            &["--iface", SERVER_LINK, "--on-exit", "keep"],
        )
        .leave(SIGTERM);
        assert!(!at("new").is_symlink());

        fs::remove_file(at("lock")).unwrap();
        symlink(precious.path(), at("lock")).unwrap();
        let config = config_file(DOOR.as_bytes());
        let config = config.path().display().to_string();
        let start = ["--iface", SERVER_LINK, "--config", &config];
        let (code, output) = daemon::ask(&net.server, &start);
        assert_eq!(code, Some(1), "{output}");
        assert!(
            output.contains("it is a symbolic link: remove it"),
            "{output}"
        );
        fs::remove_file(at("lock")).unwrap();
        assert_eq!(fs::read(precious.path()).unwrap(), b"precious");
        let (code, output) = daemon::ask(&net.server, &["detach"]);
        assert_eq!(code, Some(0), "{output}");
    });
}

/// The error of a refused user has the reason, and names who has access.
#[test]
fn a_refused_user_learns_who_may_read_the_state() {
    net::test(|net| {
        let keep = ["--iface", SERVER_LINK, "--on-exit", "keep"];
        Daemon::start_with(&net.server, DOOR, &keep).leave(SIGTERM);
        let user = binaries().user.display().to_string();
        for command in ["status", "list", "detach"] {
            let nobody = ["--reuid=65534", "--regid=65534", "--clear-groups"];
            let arguments = [&nobody[..], &[&user, command]].concat();
            let output = net.server.try_run("setpriv", &arguments);
            let printed = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{command}: {printed}");
            for words in ["knock-user: ", "permission denied; only root", "use sudo"] {
                assert!(
                    printed.contains(words),
                    "{command}: no {words} in {printed}"
                );
            }
            assert!(!printed.contains("os error"), "{command}: {printed}");
        }
        let (code, printed) = daemon::ask(&net.server, &["detach"]);
        assert_eq!(code, Some(0), "{printed}");
    });
}

/// The kernel may still be ending a killed process at the next start.
#[test]
fn a_start_right_after_a_kill_protects() {
    const TIMES: usize = 20;
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let start = || Daemon::start(&net.server, DOOR);
        let mut daemon = start();
        for time in 0..TIMES {
            daemon.process_mut().signal(SIGKILL);
            // Not waited for.
            let next = start();
            drop(std::mem::replace(&mut daemon, next));
            net.new_source(Family::V4)
                .finds_closed(SSH, &format!("after {time} kills"));
        }
        daemon.stop();
    });
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

/// Returns a start with a umask of 0.
fn careless(config: &Path) -> Command {
    let mut command = Command::new("sh");
    command.args(["-ec", "umask 0; exec \"$@\"", "sh"]);
    command.arg(&binaries().user);
    command.args(["--json", "--iface", SERVER_LINK, "--config"]);
    command.arg(config);
    command
}
