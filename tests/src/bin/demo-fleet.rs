//! Hosts that open together, shown step by step: three members of etcd, three hosts with knock-user, and a client, each
//! in a network namespace. Needs root, etcd, and about half a minute.

#![expect(
    clippy::unwrap_used,
    reason = "the helpers of tests, which this program shows, report their errors by panics"
)]

#[path = "../../tests/fleet/engine.rs"]
#[expect(dead_code, reason = "the tests use all of it")]
mod engine;
#[path = "../../tests/fleet/host.rs"]
#[expect(dead_code, reason = "the tests use all of it")]
mod host;
#[path = "../../tests/fleet/network.rs"]
mod network;

use std::{
    io::{self, IsTerminal as _},
    panic,
    process::ExitCode,
    time::{Duration, Instant},
};

use knock_tests::{namespace, source::Source, wait};
use nix::{sys::signal::Signal, unistd::Uid};
use tempfile::TempDir;

use crate::{
    engine::Engine,
    host::{Host, KNOCKS, SSH, Settings, new_key},
    network::{Network, at},
};

/// How long a port must be silent to count as closed.
const SILENCE: Duration = Duration::from_millis(500);
const HOSTS: [u8; 3] = [21, 22, 23];

fn main() -> ExitCode {
    if !Uid::effective().is_root() {
        eprintln!("demo: namespaces and XDP need root: `cargo xtask demo fleet` asks for it");
        return ExitCode::FAILURE;
    }
    namespace::panic_in_plain_words();
    // The helpers report their errors by panics; everything has been removed by the time they arrive here.
    match panic::catch_unwind(play) {
        Err(_) => ExitCode::FAILURE,
        Ok(missing) if missing.is_empty() => {
            println!("\nEvery step was seen; everything is removed.");
            ExitCode::SUCCESS
        }
        Ok(missing) => {
            println!("\nNot seen: {}", missing.join("; "));
            ExitCode::FAILURE
        }
    }
}

/// Plays all steps; returns what was expected and not seen.
fn play() -> Vec<String> {
    let network = Network::new();
    let mut stage = Stage::default();
    println!("etcd 10.78.0.11, .12, .13 ──┬── client 10.78.0.1\nhosts 10.78.0.21, .22, .23 ─┘");

    stage.step("Start three members of etcd, draw the key of the group, protect three hosts");
    let engine = Engine::new(&network);
    let directory = TempDir::new_in("/run").unwrap();
    stage.command("knock-user fleet key --out web.seal");
    let seal = new_key(directory.path(), "web.seal");
    let settings = Settings {
        group: "web",
        seal: &seal,
        more: "",
    };
    let mut hosts = HOSTS.map(|octet| Host::start(&network, &engine, octet, settings));
    stage.answer("fleet status", &hosts[0]);

    stage.step("Connect without knocking: nobody answers");
    let client = network.new_source(21);
    for octet in HOSTS {
        stage.silence(client, octet, "closed before the knock");
    }

    stage.step("Knock at one host, and connect to all");
    stage.command(&format!("knock-client {} {KNOCKS}", client.to));
    let began = Instant::now();
    let first = client.knock_and_connect(KNOCKS, SSH).is_ok();
    stage.seen(
        first,
        "open where it knocked",
        "open for the very next packet",
    );
    for octet in [22, 23] {
        stage.opens(client, octet, began);
    }
    stage.answer("list --group", &hosts[2]);

    stage.step("Cut host-23 off from etcd, and revoke the grant at host-21");
    engine.set_reachable(&hosts[2], false);
    stage.answer(&format!("revoke {} --group", client.from), &hosts[0]);
    for octet in [21, 22] {
        stage.closes(client, octet);
    }
    hosts[2].wait_until_cut_off();
    stage.answer("fleet status", &hosts[2]);

    stage.step("A host that is cut off opens for no new source");
    let other = network.new_source(23);
    stage.command(&format!("knock-client {} {KNOCKS}", other.to));
    other.knock(KNOCKS);
    stage.silence(other, 23, "no new grant while it is cut off");

    stage.step("It comes back: the revocation comes first");
    engine.set_reachable(&hosts[2], true);
    stage.closes(client, 23);
    hosts[2].wait_until_in_sync();
    stage.answer("fleet status", &hosts[2]);

    stage.step("Stop");
    for host in &mut hosts {
        if let Some(daemon) = host.daemon.take() {
            daemon.leave(Signal::SIGINT);
        }
    }
    stage.missing
}

/// Prints the steps.
#[derive(Default)]
struct Stage {
    steps: u32,
    missing: Vec<String>,
}

impl Stage {
    fn step(&mut self, title: &str) {
        self.steps += 1;
        println!("\n{}", paint("1", &format!("{}. {title}", self.steps)));
    }

    fn command(&self, line: &str) {
        println!("   {} {line}", paint("2", "$"));
    }

    /// Runs a command at a host, and prints what it answers.
    fn answer(&self, words: &str, host: &Host) {
        self.command(&format!(
            "knock-user {words}          # at host-{}",
            host.octet
        ));
        let words: Vec<_> = words.split(' ').collect();
        let (_, answer) = knock_tests::daemon::ask(&host.namespace, &words);
        for line in answer.lines() {
            println!("   {line}");
        }
    }

    fn seen(&mut self, seen: bool, what: &str, words: &str) {
        if seen {
            println!("   {} {words}", paint("32", "✓"));
        } else {
            println!("   {} {what}", paint("31", "✗ not seen:"));
            self.missing.push(what.to_owned());
        }
    }

    /// Expects no answer on tcp/22.
    fn silence(&mut self, source: Source<'_>, octet: u8, what: &str) {
        let there = at(source, octet);
        let silent = matches!(there.connect(SSH, SILENCE),
            Err(error) if error.kind() == io::ErrorKind::TimedOut);
        self.seen(silent, what, &format!("host-{octet} does not answer"));
    }

    /// Expects that tcp/22 opens soon.
    fn opens(&mut self, source: Source<'_>, octet: u8, began: Instant) {
        let there = at(source, octet);
        let open = wait::poll(wait::PATIENCE, || {
            there.connect(SSH, Duration::from_millis(10)).ok()
        });
        let words = format!(
            "host-{octet} is open after {} ms",
            began.elapsed().as_millis()
        );
        self.seen(open.is_some(), "open at the other hosts", &words);
    }

    /// Expects that tcp/22 closes soon.
    fn closes(&mut self, source: Source<'_>, octet: u8) {
        let there = at(source, octet);
        let closed = wait::poll(wait::PATIENCE, || there.connect(SSH, SILENCE).err());
        self.seen(
            closed.is_some(),
            "closed after the revocation",
            &format!("host-{octet} is closed again"),
        );
    }
}

fn paint(code: &str, text: &str) -> String {
    match io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none() {
        true => format!("\u{1b}[{code}m{text}\u{1b}[0m"),
        false => text.to_owned(),
    }
}
