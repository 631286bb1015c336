//! The client for Windows, under Wine on the loopback interface.
//!
//! `cargo xtask elsewhere` builds it and runs these tests; nothing else does.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "clippy.toml's exception does not reach helpers of tests"
)]

use std::{
    env, fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    process::{Command, Output},
    time::Duration,
};

use knock_sequence::spa::PrivateKey;
use knock_tests::{
    binary::binaries,
    daemon::{config_file, detach},
    namespace::{Namespace, text},
    process::Process,
    server::Server,
    source::Source,
    ssh::{KNOCKS, SSH},
    wait,
};
use nix::sys::signal::Signal;

/// How long a program may take, of which the first one makes Wine's directory.
const PATIENCE: &str = "240";

#[test]
fn it_runs_knocks_and_sends_packets() {
    let namespace = Namespace::new("wine");
    namespace.ip("link set lo up");
    let printed = client(&namespace, &["--version"]);
    let version = format!("knock-client {}", env!("CARGO_PKG_VERSION"));
    // The first start also reports that Wine made its directory.
    let printed = text(&printed);
    assert_eq!(printed.lines().next(), Some(version.as_str()), "{printed}");

    let directory = tempfile::tempdir().unwrap();
    let [host, alice] = [(); 2].map(|()| PrivateKey::generate().unwrap());
    let [host_key, alice_key] = [("host.key", &host), ("alice.key", &alice)].map(|(name, key)| {
        let path = directory.path().join(name);
        fs::write(&path, key.line().as_str()).unwrap();
        path
    });
    let config = config_file(
        format!(
            "[spa]\nkey = {host_key:?}\n\
             [[user]]\nname = \"alice\"\nkeys = [\"{}\"]\ndoors = [\"ssh\"]\n\
             [[door]]\nname = \"ssh\"\nknock = [\"tcp/7000\", \"udp/8000\", \"tcp/9000\"]\n\
             open = [\"tcp/{SSH}\"]\nopen_for = \"2s\"\n",
            alice.public()
        )
        .as_bytes(),
    );
    let _server = Server::tcp(&namespace, &[SSH]);
    let mut user = Command::new(&binaries().user);
    user.args(["--iface", "lo", "--config"]).arg(config.path());
    let mut process = Process::start(&namespace, &mut user);
    // Wine shows the files of this system on the drive Z.
    let key = format!("Z:{}", alice_key.display());
    let host = host.public().to_string();
    let port = SSH.to_string();
    let knocks: Vec<&str> = KNOCKS.split(' ').collect();
    let packet = ["--spa", &host, "--key", &key];
    for to in [
        IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(Ipv6Addr::LOCALHOST),
    ] {
        let source = Source {
            namespace: &namespace,
            from: to,
            to,
        };
        let is_open = || source.connect(SSH, Duration::from_millis(200)).is_ok();
        for (row, words) in [("knocks", &knocks[..]), ("one packet", &packet)] {
            wait::until("closed", || {
                assert!(process.is_running(), "{}", process.printed());
                !is_open()
            });
            let address = to.to_string();
            let words = [&[address.as_str()][..], words, &["--then-connect", &port]].concat();
            let output = client(&namespace, &words);
            let printed = text(&output);
            assert!(output.status.success(), "{row}, {to}: {printed}");
            let connected = format!("connected to tcp/{SSH} on {to}");
            assert!(printed.contains(&connected), "{row}, {to}: {printed}");
        }
    }
    process.stop(Signal::SIGTERM);
    detach(&namespace);
}

/// Runs the client in a namespace.
fn client(namespace: &Namespace, words: &[&str]) -> Output {
    let program = env::var_os("KNOCK_WINDOWS_CLIENT");
    let program = program.expect("run `cargo xtask elsewhere`, which builds the client");
    let mut wine = Command::new("timeout");
    wine.args(["--kill-after=5", PATIENCE]);
    wine.arg(env::var_os("KNOCK_WINE").unwrap())
        .arg(program)
        .args(words);
    wine.env_remove("DISPLAY").env("WINEDEBUG", "-all");
    // The library beside the program takes the place of one that Wine lacks.
    wine.env("WINEDLLOVERRIDES", "bcryptprimitives=n;mscoree=;mshtml=");
    namespace
        .enter(|| wine.stdin(std::process::Stdio::null()).output())
        .unwrap()
}
