//! Keys and secrets that the service manager passes on.

use std::{
    fs,
    path::Path,
    process::{Command, Output, Stdio},
};

use knock_tests::{
    binary::binaries,
    daemon,
    namespace::text,
    net::{self, Family, Net, SERVER_LINK},
    process::Process,
    server::Server,
    ssh::SSH,
    wait,
};
use nix::sys::signal::Signal::SIGTERM;
use tempfile::tempdir;

use crate::users::{DOORS, Users};

const VARIABLE: &str = "CREDENTIALS_DIRECTORY";
const CONFIG: &str = "[spa]\nkey = \"credential:host.key\"\n";
/// Each kind of secret that can be a credential.
const OTHERS: &str = "[[door]]\nname = \"timed\"\nopen = [\"tcp/443\"]\n\
                      otp = { secret_file = \"credential:timed\" }\n\
                      [[user]]\nname = \"bob\"\nfwknop = \"credential:bob.fwknop\"\ndoors = [\"ssh\"]\n";

#[test]
fn keys_and_secrets_are_read_from_the_directory_of_the_service_manager() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH, 80]);
        let users = Users::new();
        let alice = users.keygen("alice");
        let credentials = tempdir().unwrap();
        let at = credentials.path();
        fs::copy(users.file("host.key"), at.join("host.key")).unwrap();
        fs::write(at.join("timed"), "correct horse battery staple\n").unwrap();
        let keys = "KEY a passphrase\nHMAC_KEY an HMAC key\n";
        fs::write(at.join("bob.fwknop"), keys).unwrap();
        let user = format!("[[user]]\nname = \"alice\"\n{alice}\ndoors = [\"ssh\", \"wiki\"]\n");
        let config = users.file("seq.toml");
        fs::write(&config, format!("{CONFIG}{user}{OTHERS}{DOORS}")).unwrap();

        let found = check(net, &config, Some(at));
        assert_eq!(found.status.code(), Some(0), "{}", text(&found));
        let found = check(net, &config, None);
        assert_eq!(found.status.code(), Some(2), "{}", text(&found));
        assert_eq!(
            text(&found).matches("LoadCredential=").count(),
            3,
            "{}",
            text(&found)
        );
        assert!(!text(&found).contains("keygen"), "{}", text(&found));
        for name in ["host.key", "timed", "bob.fwknop"] {
            let expected = format!("add LoadCredential={name}:FILE to the unit of the service");
            assert!(text(&found).contains(&expected), "{}", text(&found));
        }

        let mut command = Command::new(&binaries().user);
        command
            .arg("--config")
            .arg(&config)
            .args(["--json", "--iface", SERVER_LINK])
            .env(VARIABLE, at)
            .stdin(Stdio::null());
        let process = Process::start(&net.server, &mut command);
        wait::until("it protects", || {
            let lines = process.stdout();
            lines.iter().any(|line| line.contains("\"protecting\""))
        });
        let source = net.new_source(Family::V4);
        source.finds_closed(SSH, "without a packet");
        let to = source.to.to_string();
        users.opens(&net.client, "alice", &[&to, "--then-connect", "22"]);

        // A reload reads them again; one that is missing changes nothing.
        let (code, output) = daemon::ask(&net.server, &["reload"]);
        assert_eq!(code, Some(0), "{output}");
        fs::remove_file(at.join("timed")).unwrap();
        let (code, output) = daemon::ask(&net.server, &["reload"]);
        let expected = format!(
            "secret_file: there is no credential timed in {}: add LoadCredential=timed:FILE",
            at.display()
        );
        assert_eq!(code, Some(2), "{output}");
        assert!(output.contains(&expected), "{output}");
        users.opens(
            &net.client,
            "alice",
            &[&to, "--door", "wiki", "--then-connect", "80"],
        );
        process.stop(SIGTERM);
        daemon::detach(&net.server);
    });
}

/// Runs `knock-user check`, with the directory or without one.
fn check(net: &Net, config: &Path, directory: Option<&Path>) -> Output {
    let mut command = Command::new(&binaries().user);
    command.args(["check", "--config"]).arg(config);
    match directory {
        Some(directory) => command.env(VARIABLE, directory),
        None => command.env_remove(VARIABLE),
    };
    net.server.enter(|| command.output()).unwrap()
}
