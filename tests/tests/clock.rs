//! How the clocks affect grants and knocks: the wall clock is set, and the machine sleeps.
//!
//! `cargo xtask vm` runs these, and nothing else does: elsewhere they would happen to the host.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails with the test")]

use std::{
    fs,
    net::UdpSocket,
    thread,
    time::{Duration, SystemTime},
};

use jiff::Timestamp;
use knock_sequence::spa::{Channel, DoorAction, DoorId, PORT, PrivateKey, Request};
use knock_tests::{
    daemon::Daemon,
    net::{self, Family},
    otp::Otp,
    server::Server,
    sleep::{assert_it_may_be_done, fall_asleep, read},
    source::{Source, echoes},
    ssh::{DOOR, KNOCKS, SSH},
    wait,
};
use nix::{
    sys::time::{TimeSpec, TimeValLike as _},
    time::{ClockId, clock_gettime, clock_settime},
};
use serde_json::{Value, json};

const OPEN_FOR: Duration = Duration::from_secs(6);

#[test]
fn grants_last_when_the_wall_clock_is_set() {
    assert_it_may_be_done();
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let config = format!("{DOOR}\nopen_for = \"{}s\"", OPEN_FOR.as_secs());
        let daemon = Daemon::start(&net.server, &config);
        for (row, hours) in [("an hour back", -1), ("an hour forward", 1)] {
            let sources =
                Family::ALL.map(|family| (net.new_source(family), net.new_source(family)));
            for (inside, halfway) in &sources {
                inside.knock(KNOCKS);
                halfway.knock("tcp/7000 udp/8000");
            }
            let knocked = read(ClockId::CLOCK_BOOTTIME);
            turn_the_clock(hours);
            for (inside, halfway) in &sources {
                inside.finds(true, SSH, row);
                halfway.knock("tcp/9000");
                halfway.finds(true, SSH, row);
                daemon.wait_for_event(&json!({"event": "opened", "source": halfway.name()}));
            }
            times_are_right(&daemon, &net.new_source(Family::V4), row);
            sleep_until_it_ended(knocked);
            for (inside, _) in &sources {
                inside.finds_closed(SSH, row);
                daemon.wait_for_event(
                    &json!({"event": "closed", "source": inside.name(), "reason": "expired"}),
                );
            }
        }
        daemon.stop();
    });
}

/// Knocks that change with the time follow it, and those of the time before are void.
#[test]
fn time_based_sequences_follow_the_wall_clock() {
    assert_it_may_be_done();
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        // Longer than the test takes: otherwise the end of a period would hide that the change was not noticed.
        let otp = Otp::every(600, "of the clock");
        let config = format!(
            "[[door]]\nname = \"ssh\"\nopen = [\"tcp/{SSH}\"]\n{}\n",
            otp.key()
        );
        let daemon = Daemon::start(&net.server, &config);
        for (row, hours) in [("back", -2), ("forward", 1), ("forward again", 1)] {
            let before = otp.now();
            turn_the_clock(hours);
            wait::until(row, || {
                let source = net.new_source(Family::V4);
                source.knock(&otp.words(otp.now(), source.from));
                source.connect(SSH, Duration::from_millis(300)).is_ok()
            });
            for family in Family::ALL {
                let source = net.new_source(family);
                source.knock(&otp.words(before, source.from));
                source.finds_closed(SSH, row);
            }
        }
        daemon.stop();
    });
}

#[test]
fn grants_expire_while_the_machine_sleeps() {
    assert_it_may_be_done();
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let config = format!(
            "{DOOR}\nopen_for = \"{}s\"\nsequence_timeout = \"5s\"",
            OPEN_FOR.as_secs()
        );
        let daemon = Daemon::start(&net.server, &config);
        let (inside, halfway) = (net.new_source(Family::V4), net.new_source(Family::V6));
        let mut connection = inside.knock_and_connect(KNOCKS, SSH).unwrap();
        assert!(echoes(&mut connection), "before");
        halfway.knock("tcp/7000 udp/8000");
        let knocked = read(ClockId::CLOCK_BOOTTIME);
        fall_asleep();

        // Mostly it has ended long since.
        sleep_until_it_ended(knocked);
        inside.finds_closed(SSH, "the grant ended meanwhile");
        daemon.wait_for_event(
            &json!({"event": "closed", "source": inside.name(), "reason": "expired"}),
        );
        halfway.knock("tcp/9000");
        halfway.finds_closed(SSH, "half of the knocks were long before");
        assert!(echoes(&mut connection), "established connections continue");
        inside.knock(KNOCKS);
        inside.finds(true, SSH, "knocked again");
        daemon.stop();
    });
}

/// A packet that was used stays used when the clock is set, and the packets of a client with a right clock count
/// whenever that of the host is right within the window.
#[test]
fn used_packets_stay_used_when_the_wall_clock_is_set() {
    assert_it_may_be_done();
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let directory = tempfile::tempdir().unwrap();
        let [host, client, other] = [(); 3].map(|()| PrivateKey::generate().unwrap());
        let file = directory.path().join("host.key");
        fs::write(&file, host.line().as_str()).unwrap();
        let config = format!(
            "[spa]\nkey = {file:?}\nwindow = \"30s\"\n\
             [[user]]\nname = \"alice\"\nkeys = [\"{}\"]\ndoors = [\"ssh\"]\n\
             [[user]]\nname = \"bob\"\nkeys = [\"{}\"]\ndoors = [\"ssh\"]\n\
             [[door]]\nname = \"ssh\"\nopen = [\"tcp/{SSH}\"]\n",
            client.public(),
            other.public()
        );
        let [alice, bob] =
            [&client, &other].map(|client| Channel::new(client, host.public()).unwrap());
        let difference = read(ClockId::CLOCK_REALTIME) - read(ClockId::CLOCK_BOOTTIME);
        let right = || read(ClockId::CLOCK_BOOTTIME) + difference;
        let daemon = Daemon::start(&net.server, &config);
        let mut used: Vec<Vec<u8>> = Vec::new();
        for (row, seconds, opens) in [
            ("right", 0_i64, true),
            ("a minute back", -60, false),
            ("ten seconds back", -10, true),
            ("ten seconds forward", 10, true),
            ("a minute forward", 60, false),
            ("right after a minute", 0, true),
            ("two hours forward", 7_200, false),
            ("right after two hours", 0, true),
            ("a day back", -86_400, false),
            ("right at the end", 0, true),
        ] {
            let now = TimeSpec::from_duration(right()) + TimeSpec::seconds(seconds);
            clock_settime(ClockId::CLOCK_REALTIME, now).unwrap();
            // The other user's packets show when the program has the time.
            let mut last = None;
            wait::until(row, || {
                let source = net.new_source(Family::V4);
                let packet = packet(&bob, right());
                send(&source, &packet);
                let is_open = source.connect(SSH, Duration::from_millis(300)).is_ok();
                if opens {
                    last = Some(packet);
                    return is_open;
                }
                let stale = json!({"reason": "spa-stale", "source": source.name()});
                let behind = |event: &Value| event["seconds_behind"].as_i64().unwrap();
                let mut stale = daemon.events_like(&stale).into_iter();
                !is_open && stale.any(|event| (behind(&event) - seconds).abs() <= 5)
            });
            used.extend(last);
            let source = net.new_source(Family::V6);
            used.iter().for_each(|packet| send(&source, packet));
            source.finds_closed(SSH, &format!("{row}: used packets"));
            let packet = packet(&alice, right());
            send(&source, &packet);
            source.finds(opens, SSH, row);
            if opens {
                used.push(packet);
            }
        }
        daemon.stop();
    });
}

/// Returns a packet of a client whose clock shows this time.
fn packet(channel: &Channel, now: Duration) -> Vec<u8> {
    let request = Request {
        stamp: now.as_nanos().try_into().unwrap(),
        source: None,
        door: DoorId::FIRST,
        seconds: 0,
        action: DoorAction::Open,
        answer: false,
    };
    channel.seal(&request).to_vec()
}

fn send(source: &Source<'_>, packet: &[u8]) {
    let sent = source.namespace.enter(|| {
        let socket = UdpSocket::bind((source.from, 0))?;
        socket.send_to(packet, (source.to, PORT))
    });
    assert_eq!(sent.unwrap(), packet.len());
}

/// Waits until the grant that was given before `knocked` has ended: the kernel counts in ticks.
fn sleep_until_it_ended(knocked: Duration) {
    let end = knocked + OPEN_FOR + Duration::from_millis(100);
    thread::sleep(end.saturating_sub(read(ClockId::CLOCK_BOOTTIME)));
}

fn turn_the_clock(hours: i64) {
    let now = clock_gettime(ClockId::CLOCK_REALTIME).unwrap();
    clock_settime(ClockId::CLOCK_REALTIME, now + TimeSpec::hours(hours)).unwrap();
}

/// Checks that the console prints the current time.
#[track_caller]
fn times_are_right(daemon: &Daemon, unauthorized: &Source<'_>, row: &str) {
    wait::until(&format!("{row}: right times"), || {
        unauthorized.finds_closed(SSH, row);
        let events = daemon.events_like(&json!({"event": "denied", "source": unauthorized.name()}));
        let Some(event) = events.last() else {
            return false;
        };
        let time: Timestamp = event["time"].as_str().unwrap().parse().unwrap();
        let now = Timestamp::try_from(SystemTime::now()).unwrap();
        now.duration_since(time).abs().as_secs() < 60
    });
}
