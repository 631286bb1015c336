//! `knock-user status` as a health check: its exit code is 0 only if everything that the
//! configuration asks for is in force.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails with the test")]

use std::{fs, path::PathBuf, process::Command};

use knock_tests::{
    binary::binaries,
    daemon::{self, Daemon},
    net::{self, Family, Net, SERVER_LINK, SERVER_LINK_2},
    pins::{self, attached_programs},
    process::Process,
    server::Server,
    ssh::{DOOR, SSH},
    wait,
};
use knock_user::host::paths::MOUNT_POINT;
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::signal::Signal::{SIGCONT, SIGKILL, SIGSTOP, SIGTERM},
};
use serde_json::{Value, json};
use tempfile::TempDir;

const NONE: [&str; 0] = [];

#[test]
fn status_reports_each_shortfall_of_a_running_daemon() {
    net::test(|net| {
        assert_eq!(shortfalls(net), ["nothing"]);
        let daemon = start(net, DOOR, &["--dry-run"]);
        assert_eq!(shortfalls(net), ["dry-run"]);
        daemon.leave(SIGTERM);
        daemon::detach(&net.server);

        let daemon = start(net, DOOR, &["--confirm", "5m"]);
        assert_eq!(shortfalls(net), ["on-trial"]);
        let (code, output) = daemon::ask(&net.server, &["confirm"]);
        assert_eq!(code, Some(0), "{output}");
        assert_eq!(shortfalls(net), NONE);

        daemon.rewrite(&format!("{DOOR}# another text\n"));
        assert_eq!(shortfalls(net), ["config-changed"]);
        let reload = |expected| {
            let (code, output) = daemon::ask(&net.server, &["reload"]);
            assert_eq!(code, Some(expected), "{output}");
        };
        reload(0);
        assert_eq!(shortfalls(net), NONE);
        daemon.rewrite("");
        reload(2);
        assert_eq!(shortfalls(net), ["config-changed", "reload-failed"]);
        daemon.rewrite(DOOR);
        reload(0);
        assert_eq!(shortfalls(net), NONE);
        daemon.leave(SIGTERM);
        daemon::detach(&net.server);
    });
}

/// Doors that can't be opened yet, and a secret that is not in force.
#[test]
fn time_based_doors_that_wait_or_have_a_changed_secret_are_shortfalls() {
    net::test(|net| {
        let directory = TempDir::new().unwrap();
        let secret = directory.path().join("secret");
        fs::write(&secret, "correct horse battery staple\n").unwrap();
        let config = |period: &str| {
            format!(
                "[[door]]\nname = \"ssh\"\nopen = [\"tcp/22\"]\n\
                 otp = {{ secret_file = \"{}\", period = \"{period}\" }}\n",
                secret.display()
            )
        };
        // Whether sequences were used is not known.
        for entry in fs::read_dir(net.server.state()).unwrap() {
            fs::remove_file(entry.unwrap().path()).unwrap();
        }
        let daemon = start(net, &config("1h"), &[]);
        assert_eq!(shortfalls(net), ["door-waits"]);
        fs::write(&secret, "another one altogether\n").unwrap();
        assert_eq!(shortfalls(net), ["door-waits", "secret-changed"]);
        let (code, answer) = daemon::ask(&net.server, &["reload"]);
        assert_eq!(code, Some(0), "{answer}");
        assert!(!shortfalls(net).contains(&"secret-changed".to_owned()));
        fs::remove_file(&secret).unwrap();
        let (_, answer) = status(net);
        assert!(
            answer["notes"].to_string().contains("can't be compared"),
            "{answer}"
        );
        daemon.leave(SIGTERM);
        daemon::detach(&net.server);
    });
}

/// Without a process, nothing makes room for further grants.
#[test]
fn a_full_allow_map_without_a_daemon_is_a_shortfall() {
    net::test(|net| {
        let daemon = start(net, DOOR, &[]);
        daemon.leave(SIGTERM);
        assert_eq!(shortfalls(net), NONE);
        let instance = pins::instance(&net.server);
        let mut allow = pins::allow(&instance);
        let mut number = 0_u32;
        let fills = |allow: &mut _, number: u32| {
            let source = std::net::IpAddr::from(std::net::Ipv4Addr::from(0x0a00_0000 + number));
            let key = knock_common::layout::GrantKey {
                source: source.into(),
                port_group: 1,
                target_id: 0,
            };
            let grant = knock_common::grant::Grant {
                until_ms: u64::MAX >> 16,
                door: 0,
            };
            knock_user::kernel::maps::raise(allow, key, grant).is_ok()
        };
        while number <= knock_common::layout::ALLOW_MAX && fills(&mut allow, number) {
            number += 1;
        }
        assert_eq!(shortfalls(net), ["full"]);
        daemon::detach(&net.server);
    });
}

#[test]
fn absent_and_refused_interfaces_are_shortfalls() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let arguments = [
            "--iface",
            "late0",
            "--wait-for-interfaces",
            "--mode",
            "native",
        ];
        let daemon = start(net, DOOR, &arguments);
        assert_eq!(shortfalls(net), ["absent late0"]);
        let source = net.new_source(Family::V4).name();
        let explained = || {
            let (code, text) = daemon::ask(&net.server, &["explain", &source, "tcp/22"]);
            assert_eq!(code, Some(0), "{text}");
            text
        };
        let text = explained();
        assert!(
            text.contains("late0 is not protected, and everything passes there"),
            "{text}"
        );
        assert!(text.contains("would be dropped: no grant"), "{text}");
        net.server.ip("link add late0 type veth peer name late9");
        wait::until("it is protected", || shortfalls(net).is_empty());
        assert!(!explained().contains("not protected"));
        // One that carries no Ethernet frames, which no driver hands to XDP.
        net.server.ip("link delete late0");
        net.server.ip("tuntap add late0 mode tun");
        wait::until("it is refused", || shortfalls(net) == ["refused late0"]);
        // Packets to an address there are not judged.
        net.server.ip("link delete late0");
        net.server.ip("link add late0 type veth peer name late9");
        net.server.ip("address add 203.0.113.1/24 dev late0");
        wait::until("it is protected again", || shortfalls(net).is_empty());
        let verdict_at = |to: &str| {
            let words = ["explain", &source, "tcp/22", "--to", to, "--json"];
            let (code, text) = daemon::ask(&net.server, &words);
            assert_eq!(code, Some(0), "{text}");
            let answer: Value = serde_json::from_str(&text).unwrap();
            answer["verdict"].as_str().unwrap().to_owned()
        };
        assert_eq!(verdict_at("203.0.113.1"), "drop");
        net.server.ip("link delete late0");
        net.server.ip("tuntap add late0 mode tun");
        net.server.ip("address add 203.0.113.1/24 dev late0");
        wait::until("it is refused again", || {
            shortfalls(net) == ["refused late0"]
        });
        assert_eq!(verdict_at("203.0.113.1"), "pass");
        assert_eq!(verdict_at(&Family::V4.server().to_string()), "drop");
        daemon.leave(SIGTERM);
        daemon::detach(&net.server);

        // Nothing at all is in force.
        let arguments = [
            "--json",
            "--iface",
            "late1",
            "--wait-for-interfaces",
            "--config",
        ];
        let directory = TempDir::new().unwrap();
        let config: PathBuf = directory.path().join("seq.toml");
        fs::write(&config, DOOR).unwrap();
        let mut command = Command::new(&binaries().user);
        let process = Process::start(&net.server, command.args(arguments).arg(&config));
        wait::until("it waits", || status(net).1["pid"].is_u64());
        assert_eq!(shortfalls(net), ["absent late1"]);
        let text = explained();
        assert!(text.contains("a new connection would pass"), "{text}");
        assert!(!text.contains("would be dropped"), "{text}");
        assert!(process.stop(SIGTERM).status.success());
    });
}

#[test]
fn a_missing_daemon_is_a_shortfall_only_if_it_is_needed() {
    net::test(|net| {
        let kept = |config: &str| {
            let mut daemon = start(net, config, &[]);
            assert_eq!(shortfalls(net), NONE);
            daemon.process_mut().signal(SIGKILL);
            wait::until("it is gone", || status(net).1["pid"].is_null());
            daemon
        };
        let daemon = kept(DOOR);
        assert_eq!(shortfalls(net), NONE, "nothing needs one");
        let link = pins::instance(&net.server).link(SERVER_LINK);
        fs::remove_file(link).unwrap();
        // The kernel lets go of the program a moment after the file is gone.
        wait::until("the link ends", || {
            status(net).1["shortfalls"][0]["kind"] == "nothing"
        });
        assert_eq!(shortfalls(net), ["nothing"], "maps alone protect nothing");
        drop(daemon);
        daemon::detach(&net.server);

        let daemon = kept(&format!("{DOOR}on_open = [\"/bin/true\"]\n"));
        assert_eq!(shortfalls(net), ["no-process"]);
        drop(daemon);
        daemon::detach(&net.server);
    });
}

#[test]
fn a_hanging_daemon_and_a_used_up_one_time_file_are_shortfalls() {
    net::test(|net| {
        let directory = TempDir::new().unwrap();
        let once = directory.path().join("once");
        fs::write(&once, " 7100:tcp,8100:udp,9100:tcp\n").unwrap();
        let config = format!(
            "{DOOR}[[door]]\nname = \"once\"\none_time = {:?}\nopen = [\"tcp/8080\"]\n",
            once.display().to_string()
        );
        let mut daemon = start(net, &config, &[]);
        assert_eq!(shortfalls(net), NONE);
        daemon.process_mut().signal(SIGSTOP);
        assert_eq!(shortfalls(net), ["no-answer"]);
        daemon.process_mut().signal(SIGCONT);
        assert_eq!(shortfalls(net), NONE);
        fs::write(&once, "").unwrap();
        let (code, output) = daemon::ask(&net.server, &["reload"]);
        assert_eq!(code, Some(0), "{output}");
        assert_eq!(shortfalls(net), ["door-unusable"]);
        daemon.leave(SIGTERM);
        daemon::detach(&net.server);
    });
}

/// What it leaves does not hinder the next start, which removes it.
#[test]
fn a_start_with_a_misspelt_interface_leaves_nothing_behind() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        start(net, DOOR, &[]).leave(SIGTERM);
        let directory = TempDir::new().unwrap();
        let config = directory.path().join("seq.toml");
        fs::write(&config, format!("interfaces = [\"etho\"]\n{DOOR}")).unwrap();
        let run = || {
            let mut command = Command::new(&binaries().user);
            command.args(["--on-exit", "keep", "--wait-for-interfaces", "--config"]);
            let process = Process::start(&net.server, command.arg(&config));
            wait::until("it is there", || {
                let (_, all) = status(net);
                all["pid"].is_u64()
                    || all["instances"]
                        .as_array()
                        .is_some_and(|all| all.len() == 2)
            });
            process
        };
        let process = run();
        let warning = format!("warning: {SERVER_LINK} is still protected by what an earlier");
        wait::until("it is warned of", || process.stderr().contains(&warning));
        assert_eq!(
            shortfalls(net),
            ["absent etho"],
            "and the other one is in force"
        );
        let pid = process.id().to_string();
        let (code, output) = daemon::ask(&net.server, &["reload", "--pid", &pid]);
        assert_eq!(code, Some(0), "{output}");
        assert!(process.stop(SIGTERM).status.success());

        // The leftovers are not an instance.
        assert_eq!(shortfalls(net), NONE);
        let (code, output) = daemon::ask(&net.server, &["list"]);
        assert_eq!(code, Some(0), "{output}");
        net.new_source(Family::V4)
            .finds_closed(SSH, "protected all the time");
        // The next start removes them.
        let daemon = start(net, DOOR, &[]);
        let left: Vec<_> = pins::instances(&net.server);
        assert_eq!(left.len(), 1, "{left:?}");
        assert!(daemon.events_like(&json!({"event": "detached"})).is_empty());
        daemon.leave(SIGTERM);
        daemon::detach(&net.server);
    });
}

/// Without a bpffs the protection ends with the process, although `--on-exit keep` asks for more.
#[test]
fn protection_without_a_pin_is_a_shortfall_if_it_is_meant_to_stay() {
    for (row, on_exit, expected) in [
        ("it is to stay", "keep", &["not-pinned b0"][..]),
        ("it is to end", "detach", &[]),
    ] {
        net::test(|net| {
            let _server = Server::tcp(&net.server, &[SSH]);
            // What is below the bpffs of the test must be none, and that of the machine stays.
            let _nothing = Mounted::new("tmpfs");
            let bpffs = Mounted::new("bpf");
            let arguments = ["--iface", SERVER_LINK, "--on-exit", on_exit];
            let daemon = Daemon::start_with(&net.server, DOOR, &arguments);
            assert_eq!(shortfalls(net), NONE, "{row}: pinned");
            drop(bpffs);
            wait::until(&format!("{row}: nothing is pinned"), || {
                status(net).1["interfaces"][0]["ends_with_process"] == true
            });
            assert_eq!(shortfalls(net), expected, "{row}");
            let (_, answer) = status(net);
            let notes = answer["notes"].to_string();
            let is_note = notes.contains("the protection of b0 ends with the process");
            assert_eq!(is_note, expected.is_empty(), "{row}: {notes}");
            net.new_source(Family::V4)
                .finds_closed(SSH, &format!("{row}: it is attached all the same"));
            let ended = daemon.end_by(SIGTERM);
            assert!(ended.status.success(), "{row}: {ended:?}");
            assert!(attached_programs(&net.server).is_empty(), "{row}");
            net.new_source(Family::V4)
                .finds(true, SSH, &format!("{row}: open, as reported"));
            assert_eq!(
                shortfalls(net),
                ["nothing"],
                "{row}: and `status` reports it"
            );
        });
    }
}

/// The registry of one instance is missing, and the others are still reported.
#[test]
fn an_instance_without_a_registry_hides_no_other() {
    net::test(|net| {
        net.add_second_link();
        start(net, DOOR, &[]).leave(SIGTERM);
        fs::remove_file(pins::instance(&net.server).registry()).unwrap();
        let daemon = Daemon::start_with(&net.server, DOOR, &["--iface", SERVER_LINK_2]);
        assert_eq!(shortfalls(net), ["unknown"]);
        let (_, all) = status(net);
        let all = all["instances"].as_array().unwrap();
        let in_force: Vec<_> = all.iter().map(|one| &one["in_force"]).collect();
        assert_eq!(in_force, [false, true], "{all:?}");
        let (_, text) = daemon::ask(&net.server, &["status"]);
        for words in ["interfaces  b0 ", "b1@ns", ".json is missing"] {
            assert!(text.contains(words), "no {words} in {text}");
        }
        daemon.leave(SIGTERM);
        daemon::detach(&net.server);
    });
}

/// Returns the answer of `status --json`, and whether its exit code is 0.
#[track_caller]
fn status(net: &Net) -> (bool, Value) {
    let user = binaries().user.display().to_string();
    let output = net.server.try_run(&user, &["status", "--json"]);
    let answer = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {output:?}"));
    let code = output.status.code();
    assert!(matches!(code, Some(0 | 1)), "{output:?}");
    (code == Some(0), answer)
}

/// Returns the shortfalls: their kinds and interfaces.
#[track_caller]
fn shortfalls(net: &Net) -> Vec<String> {
    let (is_good, answer) = status(net);
    assert_eq!(answer["in_force"], is_good, "{answer}");
    let all = answer["shortfalls"].as_array().unwrap();
    assert_eq!(all.is_empty(), is_good, "{answer}");
    // The text has one line for each.
    let (code, text) = daemon::ask(&net.server, &["status"]);
    assert_eq!(code == Some(0), is_good, "{text}");
    let words = all.iter().map(|one| {
        let expected = one["text"].as_str().unwrap();
        // How long these last differs from one status to the next.
        let is_timed = one["kind"] == "on-trial" || one["kind"] == "door-waits";
        assert!(
            text.contains(expected) || is_timed,
            "no {expected} in {text}"
        );
        match one["interface"].as_str() {
            Some(interface) => format!("{} {interface}", one["kind"].as_str().unwrap()),
            None => one["kind"].as_str().unwrap().to_owned(),
        }
    });
    words.collect()
}

#[track_caller]
fn start(net: &Net, config: &str, arguments: &[&str]) -> Daemon {
    let arguments = [&["--iface", SERVER_LINK, "--on-exit", "keep"], arguments].concat();
    Daemon::start_with(&net.server, config, &arguments)
}

/// A file system mounted over the place for pins until this is dropped.
struct Mounted;

impl Mounted {
    fn new(kind: &str) -> Self {
        let none = MsFlags::empty();
        mount(Some(kind), MOUNT_POINT, Some(kind), none, None::<&str>).unwrap();
        Self
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Err(error) = umount2(MOUNT_POINT, MntFlags::MNT_DETACH) {
            eprintln!("unmounting {MOUNT_POINT}: {error}");
        }
    }
}
