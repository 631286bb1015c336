//! `knock-user report`: what it contains, and that no secret is in it.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails with the test")]

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use knock_tests::{
    daemon::{self, Daemon},
    net::{self, Family, Net},
};
use serde_json::json;
use tempfile::TempDir;

/// The knocks of the door; each number is in no other place.
const KNOCKS: &str = "tcp/47321 udp/48321 tcp/49321";
/// What the report must not contain.
const SECRETS: [&str; 12] = [
    "47321",
    "48321",
    "49321",
    "SECRET",
    "correct horse",
    "D6poSU7Yi2e5bNRqLV3uic6XTna3AY4_IqHEz3xXDyA",
    "knock1:",
    "tcp/45001",
    "tcp/45002",
    "203.0.113.128",
    "a comment about somebody",
    "curl",
];

#[test]
fn no_secret_is_in_a_report() {
    net::test(|net| {
        let directory = TempDir::new().unwrap();
        let daemon = start(net, directory.path());
        let client = net.new_source(Family::V4);
        client.knock(KNOCKS);
        daemon.wait_for_event(&json!({"event": "opened", "source": client.name()}));
        // A wrong knock names its port in an event.
        let other = net.new_source(Family::V6);
        other.knock("tcp/47321 tcp/49321");
        daemon.wait_for_event(&json!({"event": "reset", "source": other.name()}));
        // A failed reload quotes the file.
        daemon.rewrite(
            "[[door]]\nname = \"ssh\"\nknock = [\"tcp/47321 SECRET\"]\nopen = [\"tcp/22\"]\n",
        );
        let (code, output) = daemon::ask(&net.server, &["reload"]);
        assert_eq!(code, Some(2), "{output}");

        let text = report(net, directory.path(), "first");
        for part in [
            "== system",
            "kernel: ",
            "== status",
            "== configuration in force, without secrets",
            "knock = \"<3 hidden>\"",
            "name = \"alice\"",
            "\"event\":\"opened\"",
            "\"source\":\"address-",
            "\"event\":\"reset\"",
            "reload-failed",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        has_no_secret(&text, &[&client.name(), &other.name()]);
        let (code, json) = daemon::ask(&net.server, &["report", "--json"]);
        assert_eq!(code, Some(0), "{json}");
        has_no_secret(&json, &[&client.name(), &other.name()]);

        // Without a process, from what it left.
        daemon.kill();
        let text = report(net, directory.path(), "second");
        assert!(text.contains("knock = \"<3 hidden>\""), "{text}");
        has_no_secret(&text, &[]);
        daemon::detach(&net.server);

        let text = report(net, directory.path(), "third");
        assert!(text.contains("nothing is protected"), "{text}");
    });
}

#[test]
fn a_report_replaces_no_file_and_is_for_its_owner() {
    net::test(|net| {
        let directory = TempDir::new().unwrap();
        let file = directory.path().join("report");
        report(net, directory.path(), "report");
        let mode = fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        fs::write(&file, "mine").unwrap();
        let (code, output) = daemon::ask(&net.server, &["report", "--out", file.to_str().unwrap()]);
        assert_eq!(code, Some(1), "{output}");
        assert!(
            output.contains("choose another file with --out"),
            "{output}"
        );
        assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
    });
}

fn start(net: &Net, directory: &Path) -> Daemon {
    let secret = directory.join("secret");
    fs::write(&secret, "correct horse battery\n").unwrap();
    let once = directory.join("once");
    fs::write(
        &once,
        "tcp/45001 udp/45002 tcp/45003\ntcp/45011 tcp/45002 tcp/45013\n",
    )
    .unwrap();
    let host = directory.join("host.key");
    let host = host.to_str().unwrap();
    let (code, output) = daemon::ask(&net.server, &["keygen", "--out", host]);
    assert_eq!(code, Some(0), "{output}");
    let config = format!(
        r#"
        # a comment about somebody
        trust = ["203.0.113.128/32"]
        [spa]
        key = "{host}"
        [[user]]
        name = "alice"
        keys = ["knock1:D6poSU7Yi2e5bNRqLV3uic6XTna3AY4_IqHEz3xXDyA"]
        doors = ["ssh"]
        [[door]]
        name = "ssh"
        knock = ["tcp/47321", "udp/48321", "tcp/49321"]
        open = ["tcp/22"]
        on_close = ["/bin/true", "curl", "SECRET-token"]
        [[door]]
        name = "otp"
        open = ["tcp/80"]
        otp = {{ secret_file = "{}" }}
        [[door]]
        name = "inline"
        open = ["tcp/81"]
        otp = {{ secret = "SECRET-of-the-door", port_base = 30000 }}
        [[door]]
        name = "once"
        open = ["tcp/443"]
        one_time = "{}"
        "#,
        secret.display(),
        once.display()
    );
    Daemon::start(&net.server, &config)
}

#[track_caller]
fn report(net: &Net, directory: &Path, name: &str) -> String {
    let file = directory.join(name);
    let (code, output) = daemon::ask(&net.server, &["report", "--out", file.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{output}");
    assert!(output.contains("read it before you attach it"), "{output}");
    fs::read_to_string(&file).unwrap()
}

#[track_caller]
fn has_no_secret(text: &str, addresses: &[&str]) {
    for secret in SECRETS.iter().chain(addresses) {
        assert!(!text.contains(secret), "{secret} is in\n{text}");
    }
}
