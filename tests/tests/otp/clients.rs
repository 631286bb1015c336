//! Time-based sequences of `knock-client` and of the shell script in the guide.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, process::Command};

use knock_common::packet::Protocol;
use knock_tests::{
    binary::binaries,
    daemon::Daemon,
    namespace::text,
    net::{self, Family},
    other_end::OtherEnd,
    otp::Otp,
    server::Server,
    ssh::SSH,
};
use tempfile::tempdir;

use crate::{door, knock, named, opens};

/// The client reads secrets from each place, and determines its source or takes it from an option.
#[test]
fn knock_client_gets_in() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let directory = tempdir().unwrap();
        let [secret, profiles] =
            ["secret", "profiles.toml"].map(|name| directory.path().join(name));
        let [secret_file, profile_file] = [&secret, &profiles].map(|path| path.to_str().unwrap());
        let otp = Otp {
            protocols: vec![Protocol::Udp, Protocol::Tcp],
            base: 31_000,
            ..Otp::steady("for the client %$ \"")
        };
        fs::write(&secret, format!("{}\n", otp.secret)).unwrap();
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
        let period = format!("{}s", otp.period);
        let made = [
            "--otp-period",
            &period,
            "--otp-port-base",
            "31000",
            "--otp-protocols",
            "udp,tcp",
        ];
        for family in Family::ALL {
            let host = family.server().to_string();
            let address = family.client().to_string();
            fs::write(
                &profiles,
                format!(
                    "[profile.gate]\nhost = \"{host}\"\nthen_connect = 22\notp = {{ secret_file = \
                     \"secret\", period = \"{period}\", port_base = 31000, protocols = [\"udp\", \
                     \"tcp\"] }}\n"
                ),
            )
            .unwrap();
            let given: [&[&str]; 4] = [
                &[&host, "--otp", secret_file],
                &[&host, "--otp-env", "KNOCK_TEST_SECRET"],
                &[&host, "--otp-secret", &otp.secret, "--source", &address],
                &["gate", "--config", profile_file],
            ];
            for (number, given) in given.into_iter().enumerate() {
                // A door is opened once in each period.
                let daemon = Daemon::start(&net.server, &named(&format!("door{number}"), &otp));
                let mut words = given.to_vec();
                if number < 3 {
                    words.extend(made);
                    words.extend(["--then-connect", "22"]);
                }
                let mut command = client(&words);
                command.env("KNOCK_TEST_SECRET", &otp.secret);
                let output = net.client.enter(|| command.output()).unwrap();
                assert!(
                    output.status.success(),
                    "{family}, {words:?}: {}",
                    text(&output)
                );
                opens(&daemon, &net.native(family), &format!("door{number}"));
                daemon.stop();
                net.server.forget_used();
            }
        }
    });
}

/// A sequence that was used is not tried again: the next retry has another period's.
#[test]
fn knock_client_retries_with_another_period() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let otp = Otp {
            bind_source: false,
            ..Otp::steady("used")
        };
        let daemon = Daemon::start(&net.server, &door(&otp));
        let other = net.new_source(Family::V4);
        knock(&other, &otp, otp.now());
        opens(&daemon, &other, "ssh");
        let (host, period) = (Family::V4.server().to_string(), format!("{}s", otp.period));
        let words = [
            &host,
            "--otp-secret",
            "used",
            "--otp-period",
            &period,
            "--otp-no-bind-source",
            "--then-connect",
            "22",
            "--timeout",
            "1s",
            "--retries",
            "2",
        ];
        let output = net.client.enter(|| client(&words).output()).unwrap();
        assert!(output.status.success(), "{}", text(&output));
        opens(&daemon, &net.native(Family::V4), "ssh");
        daemon.stop();
    });
}

/// The script uses openssl, and knock or nmap.
#[test]
fn the_shell_script_gets_in() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let otp = Otp {
            base: 65_000,
            ..Otp::steady("AAgR%XXx30O")
        };
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/otp-knock.sh");
        for family in Family::ALL {
            for with in ["knock", "nmap"] {
                for bind_source in [true, false] {
                    let otp = Otp {
                        bind_source,
                        ..otp.clone()
                    };
                    let row = format!("{family}, {with}, bound {bind_source}");
                    let name = format!("{family}-{with}-{bind_source}");
                    let daemon = Daemon::start(&net.server, &named(&name, &otp));
                    let source = net.native(family);
                    source.finds_closed(SSH, &row);
                    let mut command = Command::new(&script);
                    command.arg(family.server().to_string());
                    if bind_source {
                        command.arg(family.client().to_string());
                    }
                    command.env("OTP_SECRET", &otp.secret).env("OTP_WITH", with);
                    command.env("OTP_PERIOD", otp.period.to_string());
                    command.env("OTP_BASE", otp.base.to_string());
                    let output = net.client.enter(|| command.output()).unwrap();
                    assert!(output.status.success(), "{row}: {}", text(&output));
                    opens(&daemon, &source, &name);
                    drop(source.finds_open(SSH, &row));
                    daemon.stop();
                    net.server.forget_used();
                }
            }
        }
    });
}

/// A time-based sequence whose knocks are each verified with a handshake.
#[test]
fn time_based_knocks_can_need_handshakes() {
    net::test(|net| {
        let other_end = OtherEnd::of(net);
        let _server = Server::tcp(&net.server, &[SSH]);
        let otp = Otp {
            protocols: vec![Protocol::Tcp; 3],
            ..Otp::steady("proved")
        };
        let config = format!("{}verify = \"handshake\"\n", door(&otp));
        let daemon = Daemon::start(&net.server, &config);
        let period = format!("{}s", otp.period);
        for family in Family::ALL {
            let host = family.server().to_string();
            let words = [
                &host,
                "--otp-secret",
                "proved",
                "--otp-protocols",
                "tcp,tcp,tcp",
                "--otp-period",
                &period,
                "--then-connect",
                "22",
                "--timeout",
                "2s",
                "--retries",
                "2",
            ];
            let output = net.client.enter(|| client(&words).output()).unwrap();
            assert!(output.status.success(), "{family}: {}", text(&output));
            opens(&daemon, &net.native(family), "ssh");
        }
        daemon.stop();
        drop(other_end);
    });
}

/// Returns the client with these words, and without the profiles of the user who runs this.
fn client(words: &[&str]) -> Command {
    let mut command = Command::new(&binaries().client);
    command.args(words).env("XDG_CONFIG_HOME", "/nonexistent");
    command
}
