//! Lines that can't be written, events that are not read, full tables, and a daemon that does not run for a while.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails with the test")]

use std::{
    fs,
    net::Ipv4Addr,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use aya::maps::{Map, MapData, PerCpuArray};
use knock_common::{
    Address, Stat,
    grant::Grant,
    layout::{ALLOW_MAX, GrantKey},
};
use knock_tests::{
    binary::binaries,
    daemon::{self, Daemon, config_file},
    namespace::Namespace,
    net::{self, Family, SERVER_LINK},
    path::Path,
    process::Process,
    server::Server,
    ssh::{DOOR, KNOCKS, SSH},
    wait,
    wire::{Wire, datagram, whole},
};
use knock_user::{
    host::clock,
    kernel::{
        instance::Instance,
        maps::{self, Table},
    },
};
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::signal::Signal,
};
use serde_json::json;

#[test]
fn a_full_disk_for_the_log_changes_nothing_for_packets() {
    net::test(|net| {
        let disk = SmallDisk::new();
        let (log, filler) = (disk.0.path().join("log"), disk.0.path().join("filler"));
        let config = config_file(DOOR.as_bytes());
        let mut command = Command::new("sh");
        command
            .args(["-c", "exec \"$0\" --iface \"$1\" --config \"$2\" >> \"$3\""])
            .arg(&binaries().user)
            .arg(SERVER_LINK)
            .args([config.path(), &log]);
        let _server = Server::tcp(&net.server, &[SSH]);
        let daemon = Process::start(&net.server, &mut command);
        let logged = |words: &str| fs::read_to_string(&log).unwrap_or_default().contains(words);
        wait::until("it protects", || logged("protecting"));
        // The log has one page.
        let _full = fs::write(&filler, [0; 8192]);
        let source = net.new_source(Family::V4);
        source.finds_closed(SSH, "the disk is full");
        source.knock(KNOCKS);
        source.finds(true, SSH, "the disk is full");
        wait::until("it is reported", || {
            // Lines are written until the log's own page is full.
            net.new_source(Family::V4).finds_closed(SSH, "filling");
            daemon.stderr().contains("can't be written for now")
        });
        fs::remove_file(&filler).unwrap();
        wait::until("it writes again", || {
            net.new_source(Family::V4).finds_closed(SSH, "room again");
            daemon.stderr().contains("can be written again")
        });
        assert!(daemon.stop(Signal::SIGINT).status.success());
    });
}

#[test]
fn events_that_overrun_the_ring_buffer_are_counted_and_nothing_else_is_lost() {
    /// The ring buffer holds less than 19 000 events.
    const SOURCES: u16 = 25_000;
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let one_knock = "[[door]]\nname = \"one\"\nknock = [\"udp/4000\"]\nopen = [\"tcp/443\"]\n";
        let mut daemon = Daemon::start(&net.server, &format!("{DOOR}\n{one_knock}"));
        daemon.process_mut().signal(Signal::SIGSTOP);
        let wire = Wire::open(&net.client);
        for number in 0..SOURCES {
            let [high, low] = number.to_be_bytes();
            let path = Path {
                from: Ipv4Addr::new(203, 0, high, low).into(),
                to: Family::V4.server(),
            };
            wire.send(&whole(path, &datagram(path, 40_000, 4000, &[0])));
        }
        assert!(events_lost(&net.server) > 0, "all events found room");
        let source = net.new_source(Family::V4);
        source.knock(KNOCKS);
        source.finds(true, SSH, "while no daemon reads events");
        daemon.process_mut().signal(Signal::SIGCONT);
        // Lines are left out only while this many events wait.
        wait::until("events are reported again", || {
            let source = net.new_source(Family::V6);
            source.knock(KNOCKS);
            let opened = json!({"event": "opened", "source": source.name(), "door": "ssh"});
            wait::poll(Duration::from_millis(500), || {
                daemon.events_like(&opened).pop()
            })
            .is_some()
        });
        daemon.stop();
    });
}

/// A client that knows a sequence can open its door for any number of forged sources. The lines about that are limited
/// and the others counted, and all lines about another door are printed.
#[test]
fn a_flood_of_grants_prints_a_limited_number_of_lines() {
    const SOURCES: u16 = 12_000;
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let one_knock = "[[door]]\nname = \"one\"\nknock = [\"udp/4000\"]\nopen = [\"tcp/443\"]\n";
        let daemon = Daemon::start(&net.server, &format!("{DOOR}\n{one_knock}"));
        let wire = Wire::open(&net.client);
        let began = Instant::now();
        let client = net.new_source(Family::V4);
        for number in 0..SOURCES {
            let [high, low] = number.to_be_bytes();
            let path = Path {
                from: Ipv4Addr::new(203, high, low, 1).into(),
                to: Family::V4.server(),
            };
            wire.send(&whole(path, &datagram(path, 40_000, 4000, &[0])));
            if number == SOURCES / 2 {
                client.knock(KNOCKS);
            }
        }
        let knocked = daemon::ask(&net.server, &["status", "--json"]);
        let status: serde_json::Value = serde_json::from_str(&knocked.1).unwrap();
        let counters = status["counters"].as_array().unwrap();
        let opened = counters.iter().find(|it| it["name"] == "opened").unwrap();
        let opened = opened["count"].as_u64().unwrap();
        assert_eq!(opened, u64::from(SOURCES) + 1, "counters are exact");
        let of_one = json!({"event": "opened", "door": "one"});
        let left_out = json!({"event": "suppressed", "kind": "opened"});
        let sum = || {
            let left_out = daemon.events_like(&left_out);
            let left_out = left_out
                .iter()
                .map(|it| it["events_suppressed"].as_u64().unwrap());
            let left_out: u64 = left_out.sum();
            daemon.events_like(&of_one).len() as u64 + left_out
        };
        wait::until("each opening is written or counted", || {
            sum() == u64::from(SOURCES)
        });
        let lines = daemon.events_like(&of_one).len() as u64;
        let seconds = began.elapsed().as_secs() + 2;
        assert!(lines <= 128 * seconds, "{lines} lines in {seconds} s");
        assert!(lines < u64::from(SOURCES), "{lines}");
        let clients = daemon.events_like(&json!({"event": "opened", "source": client.name()}));
        assert_eq!(clients.len(), 1, "the line of another door");
        daemon.stop();
    });
}

#[test]
fn a_full_allow_map_makes_room() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let daemon = Daemon::start(&net.server, &with_all_grants(DOOR));
        let client = net.new_source(Family::V4);
        client.knock(KNOCKS);
        daemon.wait_for_event(&json!({"event": "opened", "source": client.name()}));
        let mut allow = allow(&net.server);
        let until_ms = clock::boot_ms() + 3_600_000;
        let grant = Grant { until_ms, door: 0 };
        let mut fill = || {
            (1..=ALLOW_MAX)
                .map(|number| GrantKey {
                    source: Address::from_v4((0xcb00_0000 + number).to_be_bytes()),
                    port_group: 0,
                    target_id: 0,
                })
                .filter(|key| maps::insert_new(&mut allow, *key, grant.to_word()).is_ok())
                .count()
        };
        let filled = fill();
        assert!(filled > ALLOW_MAX as usize / 2, "{filled}");
        // There is always room for grants by hand.
        let by_hand = net.new_source(Family::V4);
        let grants = ["grant", &by_hand.name(), "--door", "ssh", "--for", "1h"];
        let (code, text) = daemon::ask(&net.server, &grants);
        assert_eq!(code, Some(0), "{text}");
        by_hand.finds(true, SSH, "granted by hand");
        fill();
        let late = net.new_source(Family::V4);
        late.knock(KNOCKS);
        late.finds_closed(SSH, "there is no room");
        client.knock(KNOCKS);
        client.finds(
            true,
            SSH,
            "a client with a grant keeps it, and can refresh it",
        );
        daemon.wait_for_event(&json!({"event": "full", "source": late.name()}));
        daemon.wait_for_event(&json!({"event": "pressure"}));
        wait::until("room is made", || {
            late.knock(KNOCKS);
            late.connect(SSH, Duration::from_millis(100)).is_ok()
        });
        client.finds(true, SSH, "a network with one grant makes no room");
        by_hand.finds(true, SSH, "a grant by hand makes no room");
        daemon.stop();
    });
}

/// One door is flooded with forged sources from all networks. They differ from a connected client only in that it has
/// received answers, which its flow shows.
#[test]
fn a_connected_client_keeps_its_grant_while_its_door_is_flooded() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let daemon = Daemon::start(&net.server, &with_all_grants(DOOR));
        let [connected, idle] = [(); 2].map(|()| net.new_source(Family::V4));
        for client in [&connected, &idle] {
            client.knock(KNOCKS);
            daemon.wait_for_event(&json!({"event": "opened", "source": client.name()}));
        }
        let connection = connected.connect(SSH, Duration::from_secs(5)).unwrap();
        assert!(flood_grants(&net.server) > ALLOW_MAX as usize / 2);
        let late = net.new_source(Family::V4);
        wait::until("room is made", || {
            late.knock(KNOCKS);
            late.connect(SSH, Duration::from_millis(100)).is_ok()
        });
        connected.finds(true, SSH, "the grant of a client that is connected stays");
        drop(connection);
        daemon.stop();
    });
}

/// Without a daemon nothing makes room, and `status` reports it.
#[test]
fn a_full_allow_map_without_a_daemon_is_noted_and_takes_no_new_grants() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let daemon = Daemon::start(&net.server, &with_all_grants(DOOR));
        assert!(!notes(&net.server).contains("table of grants"));
        let client = net.new_source(Family::V4);
        client.knock(KNOCKS);
        daemon.wait_for_event(&json!({"event": "opened", "source": client.name()}));
        daemon.kill();
        flood_grants(&net.server);
        assert!(notes(&net.server).contains("the table of grants is full (65536)"));
        let late = net.new_source(Family::V4);
        late.knock(KNOCKS);
        late.finds_closed(SSH, "there is no room");
        client.knock(KNOCKS);
        client.finds(
            true,
            SSH,
            "a client with a grant keeps it, and can refresh it",
        );
        let daemon = Daemon::start(&net.server, DOOR);
        wait::until("the next start makes room", || {
            late.knock(KNOCKS);
            late.connect(SSH, Duration::from_millis(100)).is_ok()
        });
        assert!(!notes(&net.server).contains("is full"));
        daemon.stop();
    });
}

#[test]
fn a_suspended_daemon_reports_what_it_missed() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let config = DOOR.to_owned() + "open_for = \"1s\"\n";
        let mut daemon = Daemon::start(&net.server, &config);
        let source = net.new_source(Family::V4);
        daemon.process_mut().signal(Signal::SIGSTOP);
        let knocked = Instant::now();
        source.knock(KNOCKS);
        source.finds(true, SSH, "no daemon runs");
        // The grant has to expire.
        thread::sleep(Duration::from_millis(1_100).saturating_sub(knocked.elapsed()));
        source.finds_closed(SSH, "the grant has ended, by the kernel's clock alone");
        daemon.process_mut().signal(Signal::SIGCONT);
        daemon.wait_for_event(&json!({"event": "opened", "source": source.name()}));
        daemon.wait_for_event(
            &json!({"event": "closed", "source": source.name(), "reason": "expired"}),
        );
        daemon.stop();
    });
}

/// A file system with room for two pages, which is unmounted when this is dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let options = Some("size=8k");
        mount(
            Some("none"),
            directory.path(),
            Some("tmpfs"),
            MsFlags::empty(),
            options,
        )
        .unwrap();
        Self(directory)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        if let Err(error) = umount2(self.0.path(), MntFlags::MNT_DETACH) {
            eprintln!("unmounting {}: {error}", self.0.path().display());
        }
    }
}

/// Returns a pinned map of the only instance in a namespace.
fn pinned(server: &Namespace, name: &str) -> MapData {
    server.enter(|| {
        let instance = Instance::all_here().unwrap().pop().unwrap();
        MapData::from_pin(instance.maps().join(name)).unwrap()
    })
}

fn allow(server: &Namespace) -> Table<MapData, GrantKey, u64> {
    Table::try_from(Map::HashMap(pinned(server, "ALLOW"))).unwrap()
}

/// Returns how many events the ring buffer had no room for.
fn events_lost(server: &Namespace) -> u64 {
    let counters = pinned(server, "COUNTERS");
    let counters = PerCpuArray::<_, u64>::try_from(Map::PerCpuArray(counters)).unwrap();
    let lost = counters.get(&(Stat::EventsLost as u32), 0).unwrap();
    lost.iter().sum()
}

/// Fills the table with grants of the only door, each in a network of its own, that last longer than
/// any other; returns how many.
fn flood_grants(server: &Namespace) -> usize {
    let mut allow = allow(server);
    let until_ms = clock::boot_ms() + 3_600_000;
    let grant = Grant { until_ms, door: 0 };
    (1..=ALLOW_MAX)
        .map(|number| GrantKey {
            source: Address::from_v4((0x1400_0001 + (number << 8)).to_be_bytes()),
            port_group: 0,
            target_id: 0,
        })
        .filter(|key| maps::insert_new(&mut allow, *key, grant.to_word()).is_ok())
        .count()
}

fn notes(server: &Namespace) -> String {
    let (_, text) = daemon::ask(server, &["status", "--json"]);
    let status: serde_json::Value = serde_json::from_str(&text).unwrap();
    status["notes"].to_string()
}

/// Returns a configuration with as many grants as there can be, whatever the memory of the machine.
fn with_all_grants(config: &str) -> String {
    format!("[limits]\ngrants = {ALLOW_MAX}\n{config}")
}
