//! Hosts that open together: real daemons with their knock-fleet, three members of Debian's etcd, and packets.
//!
//! `cargo xtask fleet` installs etcd and runs these tests.

#![expect(
    clippy::unwrap_used,
    reason = "clippy.toml's exceptions do not reach helpers of tests"
)]

mod away;
mod deaths;
mod engine;
mod host;
mod hostile;
mod network;

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use knock_tests::{namespace, source::Source, wait};
use nix::sys::signal::Signal;
use serde_json::json;
use tempfile::TempDir;

use crate::{
    engine::Engine,
    host::{Host, KNOCKS, SSH, Settings, new_key},
    network::{Network, at},
};

/// A network with an engine and the key of a group.
pub(crate) struct World {
    pub(crate) network: Network,
    pub(crate) engine: Engine,
    pub(crate) seal: PathBuf,
    pub(crate) directory: TempDir,
}

impl World {
    fn new() -> Self {
        let network = Network::new();
        let engine = Engine::new(&network);
        let directory = TempDir::new_in("/run").unwrap();
        let seal = new_key(directory.path(), "web.seal");
        Self {
            network,
            engine,
            seal,
            directory,
        }
    }

    /// Starts a host of the group, with more keys of `[fleet]`.
    #[track_caller]
    pub(crate) fn host(&self, octet: u8, more: &str) -> Host {
        let settings = Settings {
            group: "web",
            seal: &self.seal,
            more,
        };
        Host::start(&self.network, &self.engine, octet, settings)
    }
}

/// Runs a test and checks that it leaves nothing behind.
#[track_caller]
pub(crate) fn test(test: impl FnOnce(&mut World)) {
    let mut world = World::new();
    test(&mut world);
    drop(world);
    let left = namespace::leftovers();
    assert!(left.is_empty(), "left behind: {left:?}");
}

/// Waits until a source can connect to a host.
#[track_caller]
pub(crate) fn wait_until_open(source: Source<'_>, octet: u8, what: &str) -> Duration {
    let began = Instant::now();
    let there = at(source, octet);
    let open = wait::poll(wait::PATIENCE, || {
        there.connect(SSH, Duration::from_millis(10)).ok()
    });
    assert!(
        open.is_some(),
        "{what}: {} is not let in at host-{octet}",
        source.from
    );
    began.elapsed()
}

/// Waits until a source can't connect to a host.
#[track_caller]
pub(crate) fn wait_until_closed(source: Source<'_>, octet: u8, what: &str) {
    let there = at(source, octet);
    let closed = wait::poll(wait::PATIENCE, || {
        there.connect(SSH, Duration::from_millis(60)).err()
    });
    assert!(
        closed.is_some(),
        "{what}: {} is let in at host-{octet}",
        source.from
    );
}

#[test]
fn a_knock_at_one_host_opens_all_and_a_revocation_closes_all() {
    test(|world| {
        let hosts: Vec<_> = [21, 22, 23].map(|octet| world.host(octet, "")).into();
        let [a, b, c] = [&hosts[0], &hosts[1], &hosts[2]];
        let mut took = Vec::new();
        for round in 0..20 {
            let source = world.network.new_source(21);
            at(source, 22).finds_closed(SSH, "before");
            source.knock_and_connect(KNOCKS, SSH).unwrap();
            for octet in [22, 23] {
                took.push(wait_until_open(source, octet, &format!("round {round}")));
            }
        }
        took.sort_unstable();
        eprintln!(
            "knock to connection elsewhere: median {:?}, slowest {:?}",
            took[20], took[39]
        );
        let source = world.network.new_source(22);
        source.knock(KNOCKS);
        for host in &hosts {
            wait_until_open(source, host.octet, "before the revocation");
        }
        b.daemon()
            .wait_for_event(&json!({"event": "opened", "source": source.name()}));
        let by = json!({"event": "opened", "source": source.name(), "by": "host host-22"});
        for host in [a, c] {
            host.daemon().wait_for_event(&by);
        }
        let listed = a.ask("list --group");
        let found = listed["grants"].as_array().unwrap().iter().find(|grant| {
            grant["source"] == json!(source.name()) && grant["by"] == json!("host host-22")
        });
        assert!(found.is_some(), "{listed}");
        let revoked = a.ask(&format!("revoke {} --group", source.name()));
        let confirmed =
            json!({"name": "web", "is_written": true, "confirmed": 3, "of": 3, "missing": []});
        assert_eq!(revoked["group"], confirmed, "{revoked}");
        for host in &hosts {
            wait_until_closed(source, host.octet, "revoked");
        }
        // It was revoked there, so a new knock opens again.
        at(source, 23).knock(KNOCKS);
        for host in &hosts {
            wait_until_open(source, host.octet, "knocked again");
        }
        // A closing sequence at one host closes at all.
        source.knock("tcp/7001 udp/8001 tcp/6001");
        for host in &hosts {
            wait_until_closed(source, host.octet, "closed by a sequence");
        }
        let by_hand = world.network.new_source(21);
        let granted = c.ask(&format!(
            "grant {} --door ssh --for 10m --group",
            by_hand.name()
        ));
        assert_eq!(granted["group"], json!("web"), "{granted}");
        for host in &hosts {
            wait_until_open(by_hand, host.octet, "by hand");
        }
        let alone = world.network.new_source(21);
        a.ask(&format!("grant {} --door ssh", alone.name()));
        wait_until_open(alone, 21, "by hand, here alone");
        // Behind what was given in the group since.
        let later = world.network.new_source(21);
        later.knock(KNOCKS);
        wait_until_open(later, 22, "later");
        at(alone, 22).finds_closed(SSH, "by hand, elsewhere");
        // Nobody who reads the engine learns who may do what.
        let records = world.engine.records("/knock/1/web/");
        assert!(records.contains("/knock/1/web/h/host-22/g/"), "{records}");
        assert!(
            !records.contains(&later.name()) && !records.contains("ssh"),
            "{records}"
        );
        for mut host in hosts {
            host.daemon.take().unwrap().leave(Signal::SIGINT);
        }
    });
}
