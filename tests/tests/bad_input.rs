//! Bad input ends with an error that names the cure, and leaves nothing attached.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, process::Command};

use aya::programs::XdpMode;
use knock_tests::{
    binary::binaries,
    daemon::{Daemon, config_file},
    kernel,
    net::{self, Net, SERVER_LINK},
    pins::{self, attached_programs},
    process::Process,
    server::Server,
    ssh::{DOOR, SSH},
};
use knock_user::kernel::{
    bpffs::DIRECTORY,
    program::{LoadOptions, XdpProgram},
};
use tempfile::TempDir;

#[test]
fn missing_interfaces_are_named() {
    let rows: [(&str, &[&str], &[&str]); 5] = [
        ("one", &["eth7"], &["eth7", "b0", "b1"]),
        ("one of two", &[SERVER_LINK, "eth7"], &["eth7"]),
        ("the first of two", &["eth7", SERVER_LINK], &["eth7"]),
        (
            "two of three",
            &["eth7", SERVER_LINK, "eth8"],
            &["eth7", "eth8"],
        ),
        ("not a name", &["../../etc/passwd"], &["../../etc/passwd"]),
    ];
    net::test(|net| {
        net.add_second_link();
        let config = config_file(DOOR.as_bytes());
        let path = config.path().display().to_string();
        for (row, interfaces, words) in rows {
            let mut command = user(&["--config", &path]);
            for interface in interfaces {
                command.args(["--iface", interface]);
            }
            // A name that no interface can have is bad usage. A missing interface may appear.
            let code = if row == "not a name" { 2 } else { 1 };
            let output = refused(net, row, code, &mut command);
            assert_names(row, &output, words);
            assert_eq!(pins::instances(&net.server), [], "{row}");
        }
        let output = refused(net, "none named", 2, &mut user(&["--config", &path]));
        assert_names("none named", &output, &["--iface"]);
    });
}

/// The program of a knock-user that has pinned nothing here; see upgrade.rs for one whose pins are
/// here.
#[test]
fn an_interface_with_a_foreign_program_is_refused() {
    net::test(|net| {
        net.add_second_link();
        let _server = Server::tcp(&net.server, &[SSH]);
        let tables = kernel::compile(DOOR).unwrap();
        let others = net.server.enter(|| {
            let mut loaded = XdpProgram::load(&tables, LoadOptions::default()).unwrap();
            let program = loaded.xdp().unwrap();
            program.attach(SERVER_LINK, XdpMode::Skb).unwrap();
            loaded
        });
        let theirs = attached_programs(&net.server);
        let config = config_file(DOOR.as_bytes());
        let path = config.path().display().to_string();
        let id = theirs[0].to_string();
        for (row, interfaces) in [("alone", &["b0"][..]), ("the second of two", &["b1", "b0"])] {
            let mut command = user(&["--config", &path]);
            for interface in interfaces {
                command.args(["--iface", interface]);
            }
            let (status, output) = ended(net, &mut command);
            assert_eq!(status, Some(1), "{row}: {output}");
            let words = ["another knock-user: id", "opens what it protects on b0"];
            assert_names(row, &output, &[&id, words[0], words[1]]);
            assert_eq!(
                attached_programs(&net.server),
                theirs,
                "{row}: what is attached"
            );
            assert_eq!(pins::instances(&net.server), [], "{row}");
        }
        drop(others);
        Daemon::start(&net.server, DOOR).stop();
    });
}

#[test]
fn a_start_without_privileges_is_refused() {
    net::test(|net| {
        // Both where other users can't read them, independent of the checkout's modes.
        let directory = TempDir::new().unwrap();
        let all = fs::Permissions::from_mode(0o755);
        fs::set_permissions(directory.path(), all.clone()).unwrap();
        let program = directory.path().join("knock-user");
        fs::copy(&binaries().user, &program).unwrap();
        fs::set_permissions(&program, all).unwrap();
        let config = directory.path().join("seq.toml");
        fs::write(&config, DOOR).unwrap();

        let nobody = |program: &str| {
            let mut command = Command::new("setpriv");
            command.args([
                "--reuid",
                "65534",
                "--regid",
                "65534",
                "--clear-groups",
                program,
            ]);
            command
        };
        let program = program.display().to_string();
        let config = config.display().to_string();
        let mut run = nobody(&program);
        let output = refused(
            net,
            "nobody",
            1,
            run.args(["--config", &config, "--iface", "b0"]),
        );
        assert_names(
            "nobody",
            &output,
            &["CAP_BPF", "CAP_NET_ADMIN", "CAP_PERFMON", "sudo", "setcap"],
        );

        // Without rights a file can still be checked.
        let mut check = nobody(&program);
        let (status, output) = ended(net, check.args(["check", "--config", &config]));
        assert_eq!(status, Some(0), "{output}");
        // A directory of an ordinary user would keep root from pinning there.
        assert!(!Path::new(DIRECTORY).exists(), "check creates nothing");

        fs::set_permissions(&config, fs::Permissions::from_mode(0o600)).unwrap();
        let mut run = nobody(&program);
        let output = refused(
            net,
            "unreadable",
            2,
            run.args(["--config", &config, "--iface", "b0"]),
        );
        assert_names("unreadable", &output, &[&config, "ermission"]);
    });
}

#[test]
fn files_that_are_not_configurations_are_refused() {
    let noise: Vec<u8> = (0..4096_u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let rows: [(&str, Vec<u8>, &[&str]); 7] = [
        ("noise", noise, &[]),
        ("a program", fs::read("/bin/true").unwrap(), &[]),
        ("zeros", vec![0; 1024], &[]),
        ("not TOML", b"[[door]\nname = ssh\n".to_vec(), &[":1"]),
        (
            "UTF-16",
            "name".encode_utf16().flat_map(u16::to_le_bytes).collect(),
            &[],
        ),
        ("brackets", vec![b'['; 100_000], &[]),
        (
            "three errors",
            br#"
                strickt = true
                [[door]]
                name = "ssh"
                knock = ["tcp/70000", "udp/8000"]
                open = ["tcp/22"]
                open_for = "soon"
            "#
            .to_vec(),
            &["strict", "tcp/70000", "soon", ":2", ":5", ":7"],
        ),
    ];
    net::test(|net| {
        for (row, bytes, words) in rows {
            let config = config_file(&bytes);
            let path = config.path().display().to_string();
            let output = refused(
                net,
                row,
                2,
                &mut user(&["--config", &path, "--iface", "b0"]),
            );
            assert_names(row, &output, &[&path]);
            assert_names(row, &output, words);
            let checked = refused(net, row, 2, &mut user(&["check", "--config", &path]));
            assert_names(row, &checked, &[&path]);
            assert!(
                output.len() < 4_000,
                "{row}: {} octets of errors",
                output.len()
            );
            let control = |c: char| c.is_control() && c != '\n';
            assert!(
                !output.contains(control),
                "{row}: control characters: {output:?}"
            );
        }
    });
}

#[test]
fn files_that_cannot_be_read_are_refused() {
    let directory = TempDir::new().unwrap();
    let missing = directory.path().join("no.toml").display().to_string();
    let rows = [
        ("missing", missing.as_str()),
        ("a directory", directory.path().to_str().unwrap()),
        ("a device without an end", "/dev/zero"),
    ];
    net::test(|net| {
        for (row, path) in rows {
            let output = refused(net, row, 2, &mut user(&["--config", path, "--iface", "b0"]));
            assert_names(row, &output, &[path]);
        }
    });
}

#[test]
fn wrong_usage_exits_with_2() {
    let rows: [(&str, &[&str]); 5] = [
        ("unknown option", &["--interface", "b0"]),
        ("unknown mode", &["--iface", "b0", "--mode", "fast"]),
        ("no value", &["--config"]),
        ("unknown verb", &["protect"]),
        ("a verb's options before it", &["--iface", "b0", "check"]),
    ];
    net::test(|net| {
        for (row, arguments) in rows {
            let output = refused(net, row, 2, &mut user(arguments));
            assert_names(row, &output, &["error: ", "try '--help'"]);
        }
    });
}

/// Runs a command to its end; returns its exit code and output.
#[track_caller]
fn ended(net: &Net, command: &mut Command) -> (Option<i32>, String) {
    let ended = Process::start(&net.server, command).wait();
    let output = format!("{}\n{}", ended.stdout.join("\n"), ended.stderr);
    (ended.status.code(), output)
}

/// Asserts that knock-user refuses to run, and returns its error.
#[track_caller]
fn refused(net: &Net, row: &str, code: i32, command: &mut Command) -> String {
    let (status, output) = ended(net, command);
    assert_eq!(status, Some(code), "{row}: {output}");
    assert!(!output.contains("panicked"), "{row}: {output}");
    assert!(!output.contains("protecting"), "{row}: {output}");
    let attached = attached_programs(&net.server);
    assert_eq!(
        attached,
        [] as [u32; 0],
        "{row}: something is attached: {output}"
    );
    output
}

#[track_caller]
fn assert_names(row: &str, output: &str, words: &[&str]) {
    for word in words {
        assert!(output.contains(word), "{row}: no {word:?} in: {output}");
    }
}

fn user(arguments: &[&str]) -> Command {
    let mut command = Command::new(&binaries().user);
    command.args(arguments);
    command
}
