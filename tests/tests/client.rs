//! knock-client's own means, against a real door: files, one-time lines, both families, retries.

#![expect(
    clippy::unwrap_used,
    reason = "clippy.toml's exception does not reach helpers of tests"
)]

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Output},
};

use knock_tests::{
    binary::binaries,
    daemon::Daemon,
    namespace::text,
    net::{self, Family, Net},
    process::Process,
    server::Server,
    ssh::{DOOR, KNOCKS, SSH},
};
use serde_json::json;
use tempfile::tempdir;

const WEB: u16 = 80;

/// The daemon and the client both read the files that `generate` writes.
#[test]
fn a_generated_file_opens_its_door() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let directory = tempdir().unwrap();
        for (number, options) in [
            "--knocks 10..100 --range 1025-2024 --protocol udp",
            "--knocks 10..100 --range 1025-2024",
            "",
        ]
        .into_iter()
        .enumerate()
        {
            let file = directory.path().join(number.to_string());
            let file = file.to_str().unwrap();
            let mut generate = Command::new(&binaries().user);
            generate.args(["generate", "--export", file]);
            let output = generate.args(options.split_whitespace()).output().unwrap();
            assert!(output.status.success(), "{}", text(&output));
            let door = String::from_utf8(output.stdout).unwrap();
            let daemon = Daemon::start(&net.server, &door);
            for family in Family::ALL {
                let host = family.server().to_string();
                net.native(family).finds_closed(SSH, &host);
                knocks(net, &[&host, "--file", file, "--then-connect", "22"]);
            }
            daemon.stop();
        }
    });
}

#[test]
fn each_one_time_line_is_knocked_once() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH, WEB]);
        let config = format!(
            "{DOOR}\n[[door]]\nname = \"web\"\nknock = [\"udp/7100\", \"udp/8100\", \"tcp/7101\"]\n\
             open = [\"tcp/80\"]\n"
        );
        let daemon = Daemon::start(&net.server, &config);
        let directory = tempdir().unwrap();
        let file = directory.path().join("once");
        for family in Family::ALL {
            let host = family.server().to_string();
            let source = net.native(family);
            fs::write(&file, " 7000,8000:udp,9000\n 7100:udp,8100:udp,7101\n").unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
            for (door, port) in [("ssh", SSH), ("web", WEB)] {
                source.finds_closed(port, &host);
                let words = [
                    &host,
                    "--one-time",
                    file.to_str().unwrap(),
                    "--then-connect",
                ];
                knocks(net, &[&words[..], &[&port.to_string()]].concat());
                daemon.wait_for_event(
                    &json!({"event": "opened", "source": source.name(), "door": door}),
                );
            }
            let used = fs::read_to_string(&file).unwrap();
            assert_eq!(used, "#7000,8000:udp,9000\n#7100:udp,8100:udp,7101\n");
        }
        daemon.stop();
    });
}

#[test]
fn dual_stack_opens_for_both_families() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let daemon = Daemon::start(&net.server, DOOR);
        let directory = tempdir().unwrap();
        let hosts = directory.path().join("hosts");
        let lines = Family::ALL.map(|family| format!("{} gate.example\n", family.server()));
        fs::write(&hosts, lines.concat()).unwrap();
        // A name with two addresses, for this process alone, whether or not there is such a file.
        let script = format!(
            "mount -t tmpfs hosts /etc && echo hosts: files >/etc/nsswitch.conf && echo multi on >/etc/host.conf \
             && cp {} /etc/hosts && exec {} gate.example {KNOCKS} --dual-stack --then-connect 22",
            hosts.display(),
            binaries().client.display()
        );
        let output = net
            .client
            .try_run("unshare", &["--mount", "sh", "-c", &script]);
        assert!(output.status.success(), "{}", text(&output));
        for family in Family::ALL {
            let source = net.native(family);
            daemon.wait_for_event(
                &json!({"event": "opened", "source": source.name(), "door": "ssh"}),
            );
            drop(source.finds_open(SSH, &family.to_string()));
        }
        daemon.stop();
    });
}

/// The classroom example, as its script shows it.
#[test]
fn the_shell_script_knockknock_opens_its_door() {
    net::test(|net| {
        let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
        let config = fs::read_to_string(examples.join("demo.toml")).unwrap();
        let _server = Server::tcp(&net.server, &[8080]);
        let daemon = Daemon::start(&net.server, &config);
        for family in Family::ALL {
            let mut script = Command::new(examples.join("knockknock.sh"));
            script.arg(family.server().to_string());
            script.env("KNOCK_CLIENT", &binaries().client);
            script.env("XDG_CONFIG_HOME", "/nonexistent");
            let output = net.client.enter(|| script.output()).unwrap();
            assert!(output.status.success(), "{family}: {}", text(&output));
            assert_eq!(
                String::from_utf8(output.stdout).unwrap(),
                "\
before                                                  8080 is filtered
  a scan of 1123/udp says open|filtered
  a scan of 1234/udp says open|filtered
  a scan of 1456/udp says open|filtered
two knocks of three (1234 1456)                         8080 is filtered
a scan of 1100 to 1500, which has the third one         8080 is filtered
three in another order (1123 1456 1234)                 8080 is filtered
a slip, and three right ones (1234 1456 1234 1456 1123) 8080 is open
",
                "{family}"
            );
            let source = net.native(family).name();
            let opened = json!({"event": "opened", "source": source, "door": "web"});
            assert_eq!(daemon.events_like(&opened).len(), 1, "{family}");
        }
        daemon.stop();
    });
}

/// The daemon starts while the client knocks, so the first knocks are lost.
#[test]
fn lost_knocks_are_retried() {
    net::test(|net| {
        let family = Family::V4;
        let host = family.server().to_string();
        let mut words = vec![host.as_str()];
        words.extend(KNOCKS.split_whitespace());
        words.extend(["--then-connect", "22", "--json"]);
        words.extend(["--timeout", "500ms", "--retries", "1000"]);
        let process = Process::start(&net.client, &mut client(&words));
        knock_tests::wait::until("it has knocked without effect", || {
            let retried = |line: &String| line.contains("\"retry\"");
            process.stdout().iter().any(retried)
        });
        let daemon = Daemon::start(&net.server, DOOR);
        let _server = Server::tcp(&net.server, &[SSH]);
        let ended = process.wait();
        assert!(ended.status.success(), "{ended:?}");
        let last = ended.stdout.last().unwrap();
        assert!(last.contains("\"connected\""), "{last}");
        let source = net.native(family).name();
        daemon.wait_for_event(&json!({"event": "opened", "source": source, "door": "ssh"}));
        daemon.stop();
    });
}

/// Returns the client with these arguments, and without the profiles of the user who runs the tests.
fn client(words: &[&str]) -> Command {
    let mut command = Command::new(&binaries().client);
    command.args(words).env("XDG_CONFIG_HOME", "/nonexistent");
    command
}

fn knocks(net: &Net, words: &[&str]) -> Output {
    let output = net.client.enter(|| client(words).output()).unwrap();
    assert!(output.status.success(), "{words:?}: {}", text(&output));
    output
}
