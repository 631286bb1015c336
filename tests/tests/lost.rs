//! The pins of the program are removed while knock-user runs: it attaches the program again and
//! reports that.

use std::{fs, process::Command};

use knock_tests::{
    binary::binaries,
    daemon::{self, Daemon, config_file},
    net::{self, Family, SERVER_LINK},
    pins::{self, attached_programs},
    process::Process,
    server::Server,
    ssh::{DOOR, KNOCKS, SSH},
    wait,
};
use nix::sys::signal::Signal;
use serde_json::json;

#[test]
fn a_removed_pin_is_replaced_and_reported() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let mut daemon = Daemon::start(&net.server, DOOR);
        let client = net.new_source(Family::V4);
        client.knock(KNOCKS);
        client.finds(true, SSH, "knocked");
        let instance = pins::instance(&net.server);
        let [link, program, map] = [
            instance.link(SERVER_LINK),
            pins::program(&instance),
            instance.maps().join("ALLOW"),
        ];
        let rows = [
            ("the link", vec![&link]),
            ("all", vec![&link, &program, &map]),
        ];
        for (count, (row, paths)) in (1..).zip(rows) {
            for path in paths {
                fs::remove_file(path).unwrap_or_else(|error| panic!("{row}: {error}"));
            }
            let lost = json!({"event": "lost", "interface": SERVER_LINK});
            wait::until(&format!("{row}: it is reported"), || {
                daemon.events_like(&lost).len() == count
            });
            wait::until(&format!("{row}: it is attached again"), || {
                daemon.events_like(&json!({"event": "protecting"})).len() == count + 1
            });
            net.new_source(Family::V4).finds_closed(SSH, row);
            client.finds(true, SSH, &format!("{row}: grants continue"));
            assert!(
                [&link, &program, &map].iter().all(|path| path.exists()),
                "{row}"
            );
            daemon.reload(&DOOR.replace("7000", &format!("75{count}0")));
            net.new_source(Family::V4)
                .finds_closed(SSH, &format!("{row}: reloaded"));
            client.finds(
                true,
                SSH,
                &format!("{row}: grants continue after the reload"),
            );
        }
        daemon.stop();
    });
}

/// In a mount namespace of its own, as that of a service: `umount` takes all pins with it.
#[test]
fn an_unmounted_bpffs_is_reported_and_ports_stay_closed() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let config = config_file(DOOR.as_bytes());
        let script = "while umount /sys/fs/bpf 2>&-; do :; done; mount -t bpf bpf /sys/fs/bpf && \
                      exec \"$@\"";
        let mut command = Command::new("unshare");
        command.args([
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-c",
            script,
            "sh",
        ]);
        command.arg(&binaries().user);
        command
            .args(["--json", "--iface", SERVER_LINK, "--config"])
            .arg(config.path());
        let process = Process::start(&net.server, &mut command);
        let count = |event: &str| {
            let events = daemon::events(&process.stdout());
            events.iter().filter(|one| one["event"] == event).count()
        };
        wait::until("it protects", || count("protecting") == 1);
        let inside = |words: &[&str]| {
            let mounts = format!("--mount=/proc/{}/ns/mnt", process.id());
            let arguments = [&[mounts.as_str()], words].concat();
            net.server.run("nsenter", &arguments)
        };
        let client = net.new_source(Family::V4);
        client.knock(KNOCKS);
        client.finds(true, SSH, "knocked");

        inside(&["umount", "/sys/fs/bpf"]);
        wait::until("it is reported", || count("lost") == 1);
        wait::until("it is attached again", || count("protecting") == 2);
        wait::until("the warning that nothing is pinned", || {
            process.stderr().contains("nothing can be pinned")
        });
        net.new_source(Family::V4)
            .finds_closed(SSH, "without a bpffs");
        client.finds(true, SSH, "grants continue");
        let user = binaries().user.display().to_string();
        let mounts = format!("--mount=/proc/{}/ns/mnt", process.id());
        let reload = net.server.try_run("nsenter", &[&mounts, &user, "reload"]);
        assert!(!reload.status.success(), "{reload:?}");
        assert!(
            String::from_utf8_lossy(&reload.stderr).contains("mount -t bpf"),
            "{reload:?}"
        );
        net.new_source(Family::V4)
            .finds_closed(SSH, "the reload changes nothing");

        inside(&["mount", "-t", "bpf", "bpf", "/sys/fs/bpf"]);
        wait::until("everything is pinned again", || {
            process.stderr().contains("everything is pinned again")
        });
        inside(&[&user, "reload"]);
        net.new_source(Family::V4).finds_closed(SSH, "reloaded");
        client.finds(true, SSH, "grants continue after the reload");
        assert_eq!(attached_programs(&net.server).len(), 1);
        let ended = process.stop(Signal::SIGTERM);
        assert!(ended.status.success(), "{ended:?}");
        wait::until("nothing is attached", || {
            attached_programs(&net.server).is_empty()
        });
    });
}
