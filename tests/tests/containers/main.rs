//! Ports that Debian's container engines publish, and knock-user in a container of theirs.
//!
//! `cargo xtask containers` installs the engines and runs these tests with mounts of their own.

#![expect(
    clippy::unwrap_used,
    reason = "clippy.toml's exception does not reach helpers of tests"
)]

mod engine;

use std::{fs, net::TcpStream, time::Duration};

use knock_tests::{
    daemon::Daemon,
    net::{self, Family, Net},
    source::{Source, echoes},
    wait,
};
use serde_json::json;

use engine::{Engine, Kind, PORT};

/// A door of the published port, in strict mode. Its grants outlast the restart of an engine.
const DOOR: &str = r#"
    [[door]]
    name = "web"
    knock = ["tcp/7000", "udp/7001", "tcp/7002"]
    open = ["tcp/8080"]
    open_for = "5m"
"#;
const KNOCKS: &str = "tcp/7000 udp/7001 tcp/7002";

#[test]
fn published_ports_open_by_knocks_and_existing_connections_continue() {
    for (name, kind, families) in [
        ("podman", Kind::Podman { ipv6: false }, &[Family::V4][..]),
        (
            "podman with IPv6",
            Kind::Podman { ipv6: true },
            &Family::ALL,
        ),
        ("podman without root", Kind::Rootless, &Family::ALL),
        ("docker", Kind::Docker { proxy: true }, &Family::ALL),
        (
            "docker without a proxy",
            Kind::Docker { proxy: false },
            &Family::ALL,
        ),
    ] {
        net::test(|net| {
            let mut engine = Engine::start(net, kind);
            engine.publish();
            let sources = families.iter().map(|&family| net.new_source(family));
            let before = sources.map(|source| (source, serves(&source, name)));
            let mut before: Vec<_> = before.collect();
            let daemon = Daemon::start(&net.server, DOOR);
            for (source, connection) in &mut before {
                daemon.wait_for_event(&json!({
                    "event": "kept",
                    "source": source.name(),
                    "port": PORT,
                    "source_port": connection.local_addr().unwrap().port(),
                }));
                source.finds_closed(PORT, name);
                assert!(echoes(connection), "{name}: {} continues", source.from);
            }
            let granted: Vec<_> = families
                .iter()
                .map(|&family| opens(net, family, name))
                .collect();
            let still = |row: &str| {
                for source in &granted {
                    drop(serves(source, row));
                }
                for &family in families {
                    net.new_source(family).finds_closed(PORT, row);
                }
            };
            engine.restart_container();
            still(&format!("{name}, after a restart of the container"));
            if engine.restart() {
                still(&format!("{name}, after a restart of the engine"));
            }
            daemon.stop();
            engine.stop();
        });
    }
}

/// Which capabilities and profiles of an engine let knock-user run.
#[test]
fn it_runs_in_a_container_or_names_what_is_missing() {
    const PODMAN: Kind = Kind::Podman { ipv6: false };
    const DOCKER: Kind = Kind::Docker { proxy: true };
    const FEW: &[&str] = &["BPF", "NET_ADMIN", "PERFMON"];
    const ADMIN: &[&str] = &["SYS_ADMIN", "NET_ADMIN"];
    const DEFAULT: Option<&str> = None;
    const UNCONFINED: Option<&str> = Some("seccomp=unconfined");
    for (name, kind, capabilities, profile, refused) in [
        (
            "podman, its profile",
            PODMAN,
            FEW,
            DEFAULT,
            &["a seccomp filter refuses bpf(2)", "seccomp=unconfined"][..],
        ),
        ("podman, no profile", PODMAN, FEW, UNCONFINED, &[]),
        ("podman, SYS_ADMIN", PODMAN, ADMIN, DEFAULT, &[]),
        ("docker, SYS_ADMIN", DOCKER, ADMIN, DEFAULT, &[]),
        (
            "docker, too few",
            DOCKER,
            &["NET_ADMIN"],
            UNCONFINED,
            &["CAP_BPF", "CAP_PERFMON"],
        ),
    ] {
        net::test(|net| {
            let engine = Engine::start(net, kind);
            let source = net.new_source(Family::V4);
            let printed = || engine.logs();
            engine.run_knock_user(DOOR, capabilities, profile);
            let word = refused
                .first()
                .copied()
                .unwrap_or("protecting tcp/8080 on b0");
            wait::until(&format!("{name}: {word:?}"), || printed().contains(word));
            for word in refused {
                assert!(
                    printed().contains(word),
                    "{name}: no {word:?} in {}",
                    printed()
                );
            }
            if refused.is_empty() {
                source.finds_closed(PORT, name);
            }
            engine.stop();
        });
    }
}

/// The commands of the guide, with the configuration of the guide.
#[test]
fn the_sidecar_of_the_guide_protects_its_container() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/guides/containers.md");
    let page = fs::read_to_string(page).unwrap();
    let (_, section) = page.split_once("## As a sidecar\n").unwrap();
    let block = |kind: &str| {
        let (_, rest) = section.split_once(&format!("```{kind}\n")).unwrap();
        rest.split_once("```\n").unwrap().0.to_owned()
    };
    let commands = block("sh").replace("\\\n", " ");
    let (commands, status) = commands.trim().rsplit_once('\n').unwrap();
    net::test(|net| {
        let engine = Engine::start(net, Kind::Podman { ipv6: false });
        engine.tag_for_guide();
        fs::create_dir_all("/etc/knock").unwrap();
        fs::write("/etc/knock/seq.toml", block("toml")).unwrap();
        let (is_done, printed) = engine.shell(commands);
        assert!(is_done, "{printed}");
        wait::until("the sidecar is in force", || engine.shell(status).0);
        opens(net, Family::V4, "sidecar");
        engine.stop();
    });
}

/// Waits until the container serves a source, and returns its connection.
fn serves(source: &Source<'_>, row: &str) -> TcpStream {
    let found = wait::poll(Duration::from_secs(30), || {
        // A proxy accepts before the service listens.
        let mut connection = source.connect(PORT, Duration::from_secs(1)).ok()?;
        echoes(&mut connection).then_some(connection)
    });
    found.unwrap_or_else(|| panic!("{row}: {} is not served", source.from))
}

/// Knocks from a new source, and returns it once it is served.
fn opens<'n>(net: &'n Net, family: Family, row: &str) -> Source<'n> {
    let source = net.new_source(family);
    source.finds_closed(PORT, row);
    source.knock(KNOCKS);
    drop(serves(&source, row));
    net.new_source(family).finds_closed(PORT, row);
    source
}
