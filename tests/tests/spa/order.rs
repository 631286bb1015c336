//! Closing and opening within one timer tick, where the times of all events are equal.

use std::time::{Duration, Instant};

use knock_sequence::spa::{Channel, DoorAction, DoorId, Request};
use knock_tests::{
    daemon::Daemon,
    net::{self, Family},
    pins,
    server::Server,
    ssh::{DOOR, SSH},
    wait,
    wire::{self, Wire},
};
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};
use serde_json::json;

use crate::{paths::now, users::Users};

const PORT: u16 = 62_201;
const CLOSING: &str = r#"
    [[door]]
    name = "away"
    knock = ["tcp/9100", "tcp/7100"]
    close = ["tcp/22"]
"#;

/// The daemon reads the event of a closing when the kernel side has opened the door again: the new grant stays.
#[test]
fn a_door_that_is_closed_and_opened_in_one_tick_is_open() {
    const ROUNDS: usize = 20;
    /// Longer than one, so that two rounds have different times.
    const TICK: Duration = Duration::from_millis(20);
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let users = Users::new();
        let alice = [("alice", "doors = [\"ssh\"]")];
        let daemon = Daemon::start(
            &net.server,
            &users.config("", &alice, &(DOOR.to_owned() + CLOSING)),
        );
        keep_order();
        let private = users.private("alice").parse().unwrap();
        let channel = Channel::new(&private, &users.host.parse().unwrap()).unwrap();
        let wire = Wire::open(&net.client);
        let allow = pins::allow(&pins::instance(&net.server));
        let is_empty = || allow.iter().next().is_none();
        for family in Family::ALL {
            for by_packet in [true, false] {
                let row = format!("{family}, by a packet: {by_packet}");
                let source = net.new_source(family);
                let path = source.path();
                let frames = |action: DoorAction| match (by_packet, action) {
                    (true, _) => {
                        let packet = channel.seal(&Request {
                            stamp: now(),
                            source: None,
                            door: DoorId::of_name("ssh"),
                            seconds: 0,
                            action,
                            answer: false,
                        });
                        vec![wire::datagram(path, 40_000, PORT, &packet)]
                    }
                    (false, DoorAction::Open) => vec![
                        wire::syn(path, 40_000, 7000),
                        wire::datagram(path, 40_000, 8000, b""),
                        wire::syn(path, 40_000, 9000),
                    ],
                    (false, DoorAction::Close) => {
                        vec![wire::syn(path, 40_000, 9100), wire::syn(path, 40_000, 7100)]
                    }
                };
                let send = |actions: &[DoorAction]| {
                    let all = actions.iter().flat_map(|&action| frames(action));
                    let all: Vec<_> = all.map(|payload| wire::whole(path, &payload)).collect();
                    for frame in &all {
                        wire.send(frame);
                    }
                };
                // Where the event limit suppresses that of a closing, the door is only refreshed.
                let reported = || {
                    let pattern = json!({"source": source.name(), "door": "ssh"});
                    let events = daemon.events_like(&pattern).into_iter();
                    let opened = ["opened", "refreshed"].map(|name| json!(name));
                    events
                        .filter(|event| opened.contains(&event["event"]))
                        .count()
                };
                let next_tick = || {
                    let begun = Instant::now();
                    wait::until("the next timer tick", || begun.elapsed() > TICK);
                };
                send(&[DoorAction::Open, DoorAction::Close]);
                wait::until(&row, || reported() > 0);
                let what = format!("{row}: the ended grant is removed");
                wait::until(&what, is_empty);
                // The grant after a removal is the one that the daemon may have to write again.
                send(&[DoorAction::Open]);
                wait::until(&row, || reported() > 1);
                for round in 0..ROUNDS {
                    let row = format!("{row}, round {round}");
                    next_tick();
                    let before = reported();
                    send(&[DoorAction::Close, DoorAction::Open]);
                    wait::until(&row, || reported() > before);
                    drop(source.finds_open(SSH, &row));
                }
                send(&[DoorAction::Close]);
                source.finds_closed(SSH, &row);
                wait::until(&row, is_empty);
            }
        }
        daemon.stop();
    });
}

/// Keeps this thread on one CPU: frames that two CPUs send may arrive in another order.
fn keep_order() {
    let this = Pid::from_raw(0);
    let allowed = sched_getaffinity(this).unwrap();
    let mut cpus = 0..CpuSet::count();
    let cpu = cpus.find(|&cpu| allowed.is_set(cpu).unwrap()).unwrap();
    let mut one = CpuSet::new();
    one.set(cpu).unwrap();
    sched_setaffinity(this, &one).unwrap();
}
