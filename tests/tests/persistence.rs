//! Whether kept protection outlives the process, in each kind of mount namespace.

use std::{path::Path, process::Command};

use knock_tests::{
    binary::binaries,
    daemon::{ask, config_file},
    namespace::text,
    net::{self, Family, Net, SERVER_LINK},
    pins::{self, attached_programs},
    process::Process,
    server::Server,
    ssh::{DOOR, SSH},
    wait,
};
use nix::sys::signal::Signal;

const ALONE: &str = "is mounted for this mount namespace alone";

/// A command that starts a program with other mounts.
type Around = fn(&Net) -> Command;

#[test]
fn protection_that_would_end_is_not_promised() {
    let rows: [(&str, Around); 2] = [
        ("ip netns exec", ip_netns_exec),
        ("another bpffs", another_bpffs),
    ];
    let config = config_file(DOOR.as_bytes());
    for (name, around) in rows {
        net::test(|net| {
            let _server = Server::tcp(&net.server, &[SSH]);
            let cure = format!("nsenter --net=/run/netns/{}", net.server.name());
            let keep = ["--on-exit", "keep"];
            let ended = start(net, Some(around), config.path(), &keep).wait();
            assert_eq!(ended.status.code(), Some(1), "{name}: {}", ended.stderr);
            for words in [ALONE, "--on-exit keep can't keep anything", &cure] {
                assert!(ended.stderr.contains(words), "{name}: {}", ended.stderr);
            }
            assert!(attached_programs(&net.server).is_empty(), "{name}");

            let process = start(net, Some(around), config.path(), &[]);
            wait::until("it protects", || !process.stdout().is_empty());
            net.new_source(Family::V4).finds_closed(SSH, name);
            let output = process.stderr();
            for words in [
                ALONE,
                "if this process is killed, the ports are open",
                &cure,
            ] {
                assert!(output.contains(words), "{name}: {output}");
            }
            // The socket is seen from here, the pins are not.
            let (code, output) = ask(&net.server, &["status"]);
            assert_eq!(code, Some(0), "{name}: {output}");
            process.stop(Signal::SIGKILL);
            wait::until("the port is open", || {
                attached_programs(&net.server).is_empty()
            });
            net.new_source(Family::V4).finds_open(SSH, name);
        });
    }
}

/// Where the pins can't be seen, the error names their place, and no command that opens ports.
#[test]
fn ports_stay_closed_by_pins_in_another_mount_namespace() {
    let rows: [(&str, Around, &str, &str); 6] = [
        ("ip netns exec", ip_netns_exec, "auto", "auto"),
        ("another bpffs", another_bpffs, "auto", "auto"),
        ("a program in the driver", ip_netns_exec, "native", "auto"),
        ("native before tc", another_bpffs, "tc", "native"),
        ("skb before tc", another_bpffs, "tc", "skb"),
        ("tc behind native", another_bpffs, "native", "tc"),
    ];
    let config = config_file(DOOR.as_bytes());
    for (name, around, mode, second) in rows {
        net::test(|net| {
            let _server = Server::tcp(&net.server, &[SSH]);
            let arguments = ["--on-exit", "keep", "--mode", mode];
            let process = start(net, None, config.path(), &arguments);
            wait::until("it protects", || !process.stdout().is_empty());
            assert!(process.stop(Signal::SIGTERM).status.success(), "{name}");
            let registry = pins::instance(&net.server).registry();
            let programs = attached_programs(&net.server);

            let arguments = ["--mode", second];
            let ended = start(net, Some(around), config.path(), &arguments).wait();
            assert_eq!(ended.status.code(), Some(1), "{name}: {}", ended.stderr);
            let cure = format!("nsenter --net=/run/netns/{}", net.server.name());
            for words in ["the program of another knock-user", &cure] {
                assert!(ended.stderr.contains(words), "{name}: {}", ended.stderr);
            }
            for words in ["bpftool link detach", "xdp off"] {
                assert!(!ended.stderr.contains(words), "{name}: {}", ended.stderr);
            }
            assert_eq!(attached_programs(&net.server), programs, "{name}");
            net.new_source(Family::V4).finds_closed(SSH, name);
            assert!(registry.exists(), "{name}");

            let process = start(net, None, config.path(), &[]);
            wait::until("it protects", || !process.stdout().is_empty());
            net.new_source(Family::V4).finds_closed(SSH, name);
            assert!(process.stop(Signal::SIGTERM).status.success(), "{name}");
        });
    }
}

#[test]
fn protection_that_stays_is_promised() {
    let rows: [(&str, Option<Around>); 4] = [
        ("the same mounts", None),
        ("copies", Some(|_| unshare("private"))),
        ("copies that follow", Some(|_| unshare("slave"))),
        ("shared copies", Some(|_| unshare("shared"))),
    ];
    let config = config_file(DOOR.as_bytes());
    for (name, around) in rows {
        net::test(|net| {
            let _server = Server::tcp(&net.server, &[SSH]);
            let process = start(net, around, config.path(), &["--on-exit", "keep"]);
            wait::until("it protects", || !process.stdout().is_empty());
            let ended = process.stop(Signal::SIGTERM);
            assert!(ended.status.success(), "{name}: {}", ended.stderr);
            let last = ended.stdout.last().map_or("", String::as_str);
            assert!(
                last.contains("tcp/22 stays protected on b0"),
                "{name}: {last}"
            );
            assert!(
                !ended.stderr.contains("warning"),
                "{name}: {}",
                ended.stderr
            );
            net.new_source(Family::V4).finds_closed(SSH, name);
        });
    }
}

#[test]
fn pins_that_cannot_be_seen_are_not_promised() {
    let config = config_file(DOOR.as_bytes());
    for json in [false, true] {
        net::test(|net| {
            let _server = Server::tcp(&net.server, &[SSH]);
            let arguments = ["--on-exit", "keep", "--json"];
            let arguments = if json {
                &arguments[..]
            } else {
                &arguments[..2]
            };
            let process = start(net, Some(process_1), config.path(), arguments);
            wait::until("it protects", || !process.stdout().is_empty());
            net.new_source(Family::V4).finds_closed(SSH, "it runs");
            let warning = "warning: this process can't determine whether the ports stay closed \
                           without it";
            assert!(process.stderr().contains(warning), "{}", process.stderr());
            // Process 1 gets SIGTERM when its parent is killed.
            let ended = process.stop(Signal::SIGKILL);
            let last = ended.stdout.last().map_or("", String::as_str);
            let words = match json {
                true => "\"event\":\"uncertain\"",
                false => {
                    "it is unknown whether tcp/22 stays protected on b0; check with `knock-user \
                     status`"
                }
            };
            assert!(last.contains(words), "{last}");
            assert!(!last.contains("\"left\""), "{last}");
            wait::until("the port is open", || {
                attached_programs(&net.server).is_empty()
            });
            net.new_source(Family::V4)
                .finds_open(SSH, "the pins are gone");
        });
    }
}

/// Another mount hides the pins, so a command must not report that there are none.
#[test]
fn a_command_that_does_not_see_the_pins_reports_it() {
    let config = config_file(DOOR.as_bytes());
    net::test(|net| {
        let process = start(net, None, config.path(), &["--on-exit", "keep"]);
        wait::until("it protects", || !process.stdout().is_empty());
        process.stop(Signal::SIGTERM);
        for words in [
            &["detach"][..],
            &["status"],
            &["detach", "--iface", SERVER_LINK],
        ] {
            let mut command = ip_netns_exec(net);
            let output = command.arg(&binaries().user).args(words).output();
            let output = match output {
                Ok(output) => output,
                Err(error) => panic!("{words:?}: {error}"),
            };
            let printed = text(&output);
            assert_eq!(output.status.code(), Some(1), "{words:?}: {printed}");
            let cure = format!("nsenter --net=/run/netns/{}", net.server.name());
            for part in ["b0 has a program of knock-user", &cure] {
                assert!(printed.contains(part), "{words:?}: {printed}");
            }
        }
        assert_eq!(attached_programs(&net.server).len(), 1);
    });
}

/// Returns a new /sys and what is mounted there, as in `ip netns exec`.
fn ip_netns_exec(net: &Net) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", net.server.name()]);
    command
}

/// Returns another mount namespace with the same file systems.
fn unshare(propagation: &str) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--mount", &format!("--propagation={propagation}")]);
    command
}

/// Returns another bpffs over the existing one.
fn another_bpffs(_: &Net) -> Command {
    let mut command = unshare("private");
    command.args([
        "sh",
        "-c",
        "mount -t bpf bpf /sys/fs/bpf && exec \"$@\"",
        "sh",
    ]);
    command
}

fn start(net: &Net, around: Option<Around>, config: &Path, arguments: &[&str]) -> Process {
    let program = &binaries().user;
    let mut command = match around {
        Some(around) => {
            let mut command = around(net);
            command.arg(program);
            command
        }
        None => Command::new(program),
    };
    command.arg("--config").arg(config);
    command.args(["--iface", SERVER_LINK]).args(arguments);
    Process::start(&net.server, &mut command)
}

/// Process 1 of its own PID namespace, with a bpffs that was mounted there before it.
fn process_1(_: &Net) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--pid", "--fork", "--kill-child=SIGTERM"]);
    command.args(["--mount-proc", "--propagation=private", "sh", "-c"]);
    command.args(["mount -t bpf bpf /sys/fs/bpf && exec \"$@\"", "sh"]);
    command
}
