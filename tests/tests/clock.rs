//! How the clocks affect grants and knocks: the wall clock is set, and the machine sleeps.
//!
//! `cargo xtask vm` runs these, and nothing else does: elsewhere they would happen to the host.

#![expect(
    clippy::unwrap_used,
    reason = "what a test can't do, it says by a panic"
)]

use std::{
    thread,
    time::{Duration, SystemTime},
};

use jiff::Timestamp;
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
use serde_json::json;

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
        let otp = Otp::every(45, "of the clock");
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

/// Waits until the grant that was given before `knocked` has ended: the kernel counts in ticks.
fn sleep_until_it_ended(knocked: Duration) {
    let end = knocked + OPEN_FOR + Duration::from_millis(100);
    thread::sleep(end.saturating_sub(read(ClockId::CLOCK_BOOTTIME)));
}

fn turn_the_clock(hours: i64) {
    let now = clock_gettime(ClockId::CLOCK_REALTIME).unwrap();
    clock_settime(ClockId::CLOCK_REALTIME, now + TimeSpec::hours(hours)).unwrap();
}

/// The console prints the current time.
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
