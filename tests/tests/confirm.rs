//! A trial that is not confirmed in time is rolled back, whether or not a daemon runs.

use std::{
    thread,
    time::{Duration, Instant},
};

use knock_common::Reason;
use knock_tests::{
    daemon::{self, Daemon},
    net::{self, Family, Net, SERVER_LINK, SERVER_LINK_2},
    pins::{self, attached_programs},
    process::ProcessEnd,
    server::Server,
    ssh::{DOOR, KNOCKS, SSH},
    stream::Stream,
    unauthorized::UnauthorizedSources,
    wait,
};
use nix::sys::signal::Signal::SIGTERM;
use serde_json::{Value, json};

const WEB: u16 = 80;
/// The time of a trial: enough for every check before its end, on a busy machine.
const TRIAL: &str = "4s";
const TRIAL_LASTS: Duration = Duration::from_secs(4);
/// The same port behind other knocks, and another port.
const OTHER: &str = r#"
    [[door]]
    name = "ssh"
    knock = ["tcp/7500", "udp/8500", "tcp/9500"]
    open = ["tcp/22", "tcp/80"]
"#;
const OTHER_KNOCKS: &str = "tcp/7500 udp/8500 tcp/9500";

#[test]
fn an_unconfirmed_first_start_is_rolled_back() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let daemon = start(net, DOOR, &["--confirm", TRIAL]);
        let programs = daemon.programs().to_vec();
        net.new_source(Family::V4).finds_closed(SSH, "on trial");
        is_not_confirmed(daemon);
        pins::nothing_is_left(&net.server, &programs);
        net.new_source(Family::V4).finds(true, SSH, "as before");
    });
}

#[test]
fn a_confirmed_first_start_stays() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let mut unauthorized_sources = UnauthorizedSources::before_protection(net, SSH);
        let started = Instant::now();
        let daemon = start(net, DOOR, &["--confirm", TRIAL]);
        let deadline = started + TRIAL_LASTS + Duration::from_secs(1);
        unauthorized_sources.start(SSH);
        let client = net.new_source(Family::V4);
        client.knock(KNOCKS);
        let (code, output) = daemon::ask(&net.server, &["confirm"]);
        assert_eq!(code, Some(0), "{output}");
        client.finds(true, SSH, "confirmed");
        daemon.wait_for_event(&json!({"event": "opened", "source": client.name()}));
        // The end of the trial has to pass.
        thread::sleep(deadline.saturating_duration_since(Instant::now()));
        unauthorized_sources.stop();
        net.new_source(Family::V4).finds_closed(SSH, "confirmed");
        knocks_lead_in(net, KNOCKS, true, "confirmed");
        client.finds(true, SSH, "confirmed");
        let (code, output) = daemon::ask(&net.server, &["confirm"]);
        assert_eq!(code, Some(1), "nothing awaits a confirmation: {output}");
        assert!(output.contains("was confirmed at"), "{output}");
        daemon.wait_for_event(&json!({"event": "confirmed"}));
        assert_eq!(
            daemon
                .events_like(&json!({"event": "opened", "source": client.name()}))
                .len(),
            1
        );
        daemon.stop();
    });
}

/// The kernel side rolls back by its own clock.
#[test]
fn a_killed_first_start_on_trial_opens_the_ports_at_its_deadline() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let started = Instant::now();
        let daemon = start(net, DOOR, &["--confirm", TRIAL]);
        let programs = daemon.programs().to_vec();
        daemon.kill();
        let source = net.new_source(Family::V4);
        let connected = source.connect(SSH, Duration::from_millis(60));
        let is_early = started.elapsed() < TRIAL_LASTS;
        assert!(connected.is_err() || !is_early, "open before the deadline");
        let instance = pins::instance(&net.server);
        wait::until("everything passes", || {
            source.connect(SSH, Duration::from_millis(60)).is_ok()
        });
        assert!(started.elapsed() >= TRIAL_LASTS, "too early");
        assert!(pins::counted(&instance, Reason::TrialExpired) > 0);

        // The next one is not confirmed either: the roll-back opens the host.
        let second = start(net, OTHER, &["--confirm", TRIAL]);
        net.new_source(Family::V4)
            .finds_closed(SSH, "on trial again");
        let programs = [&programs, second.programs()].concat();
        is_not_confirmed(second);
        net.new_source(Family::V4).finds(true, SSH, "as before");
        pins::nothing_is_left(&net.server, &programs);
    });
}

#[test]
fn a_start_after_a_killed_trial_protects() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let trial = start(net, DOOR, &["--confirm", TRIAL]);
        let client = net.new_source(Family::V4);
        client.knock(KNOCKS);
        trial.kill();
        let source = net.new_source(Family::V4);
        wait::until("everything passes", || {
            source.connect(SSH, Duration::from_millis(60)).is_ok()
        });
        let daemon = start(net, DOOR, &[]);
        source.finds_closed(SSH, "without a trial");
        client.finds(true, SSH, "its grant continues");
        daemon.stop();
    });
}

#[test]
fn an_unconfirmed_restart_rolls_back_to_what_was_kept() {
    net::test(|net| {
        net.add_second_link();
        let _server = Server::tcp(&net.server, &[SSH, WEB]);
        let mut unauthorized_sources = UnauthorizedSources::before_protection(net, SSH);
        let kept = start(net, DOOR, &["--on-exit", "keep"]);
        let client = net.new_source(Family::V4);
        let connected = client.knock_and_connect(KNOCKS, SSH);
        let stream = Stream::begin(connected.unwrap_or_else(|error| panic!("{error}")));
        kept.leave(SIGTERM);
        unauthorized_sources.start(SSH);

        let elsewhere = || net.new_source(Family::V4).to(Family::V4.second_server());
        let trial = start(net, OTHER, &["--iface", SERVER_LINK_2, "--confirm", TRIAL]);
        let on_trial = attached_programs(&net.server);
        knocks_lead_in(net, KNOCKS, false, "on trial");
        knocks_lead_in(net, OTHER_KNOCKS, true, "on trial");
        elsewhere().finds_closed(SSH, "on trial");
        client.finds(true, SSH, "on trial");
        let events = is_not_confirmed(trial);
        for (event, interface) in [("left-on", SERVER_LINK), ("detached", SERVER_LINK_2)] {
            let pattern = json!({"event": event, "interface": interface});
            let is_reported = events.iter().any(|event| daemon::has(event, &pattern));
            assert!(is_reported, "no {pattern} in {events:?}");
        }

        unauthorized_sources.assert_none_got_in("as before");
        let back = attached_programs(&net.server);
        assert!(!on_trial.contains(&back[0]), "{on_trial:?} {back:?}");
        knocks_lead_in(net, KNOCKS, true, "as before");
        knocks_lead_in(net, OTHER_KNOCKS, false, "as before");
        client.finds(true, SSH, "as before");
        net.new_source(Family::V4).finds(true, WEB, "as before");
        elsewhere().finds(true, SSH, "as before");

        // The next one is confirmed.
        let trial = start(net, OTHER, &["--confirm", "1m", "--on-exit", "keep"]);
        let (code, output) = daemon::ask(&net.server, &["confirm"]);
        assert_eq!(code, Some(0), "{output}");
        trial.leave(SIGTERM);
        knocks_lead_in(net, OTHER_KNOCKS, true, "confirmed");
        knocks_lead_in(net, KNOCKS, false, "confirmed");
        client.finds(true, SSH, "confirmed");
        stream.continues("at the end");
        stream.end();
        unauthorized_sources.stop();
    });
}

/// A trial is reported when it begins, and again before it ends.
#[test]
fn the_end_of_a_trial_is_reported_in_advance() {
    net::test(|net| {
        let trial = start(net, DOOR, &["--confirm", "13s"]);
        let announced = json!({"event": "trial"});
        trial.wait_for_event(&announced);
        wait::until("it is announced again", || {
            trial.events_like(&announced).len() == 2
        });
        let events = trial.events_like(&announced);
        let seconds = |number: usize| events[number]["seconds"].as_f64().unwrap_or_default();
        assert!(seconds(0) > 10.0, "{events:?}");
        assert!(seconds(1) <= 10.0, "{events:?}");
        assert_eq!(events[0]["until"], events[1]["until"], "{events:?}");
        let (code, output) = daemon::ask(&net.server, &["confirm"]);
        assert_eq!(code, Some(0), "{output}");
        assert!(
            output.contains("confirmed: the configuration stays in force"),
            "{output}"
        );
        trial.stop();
    });
}

/// A daemon that has been stopped can't be confirmed.
#[test]
fn a_stop_before_the_deadline_ends_the_trial() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let trial = start(net, DOOR, &["--confirm", "1m", "--on-exit", "keep"]);
        let programs = trial.programs().to_vec();
        was_not_confirmed(&trial.end_by(SIGTERM));
        net.new_source(Family::V4)
            .finds(true, SSH, "it was open before");
        pins::nothing_is_left(&net.server, &programs);

        start(net, DOOR, &["--on-exit", "keep"]).leave(SIGTERM);
        let trial = start(net, OTHER, &["--confirm", "1m", "--on-exit", "keep"]);
        knocks_lead_in(net, OTHER_KNOCKS, true, "on trial");
        was_not_confirmed(&trial.end_by(SIGTERM));
        knocks_lead_in(net, OTHER_KNOCKS, false, "as before");
        knocks_lead_in(net, KNOCKS, true, "as before");
    });
}

#[test]
fn an_unconfirmed_reload_is_rolled_back() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH, WEB]);
        let mut unauthorized_sources = UnauthorizedSources::before_protection(net, SSH);
        let daemon = start(net, DOOR, &[]);
        let client = net.new_source(Family::V4);
        let connected = client.knock_and_connect(KNOCKS, SSH);
        let stream = Stream::begin(connected.unwrap_or_else(|error| panic!("{error}")));
        unauthorized_sources.start(SSH);

        let (code, output) = daemon::ask(&net.server, &["confirm"]);
        assert_eq!(code, Some(1), "nothing was on trial: {output}");
        assert!(output.contains("nothing to confirm"), "{output}");
        daemon.rewrite(OTHER);
        let (code, output) = daemon::ask(&net.server, &["reload", "--confirm", TRIAL]);
        assert_eq!(code, Some(0), "{output}");
        let trial = daemon.wait_for_event(&json!({"event": "trial"}));
        let because = trial["because"].as_str().unwrap_or_default();
        assert!(because.contains("`knock-user confirm`"), "{trial}");
        assert!(trial["seconds"].as_f64() > Some(0.0), "{trial}");
        let (code, output) = daemon::ask(&net.server, &["reload"]);
        assert_eq!(code, Some(1), "{output}");
        assert!(output.contains("a configuration is on trial"), "{output}");
        knocks_lead_in(net, OTHER_KNOCKS, true, "on trial");
        client.finds(true, WEB, "on trial: its door opens more");
        wait::until("the old doors are back", || {
            let source = net.new_source(Family::V4);
            source.knock(KNOCKS);
            source.connect(SSH, Duration::from_millis(100)).is_ok()
        });
        knocks_lead_in(net, OTHER_KNOCKS, false, "as before");
        client.finds(true, SSH, "as before");
        net.new_source(Family::V4).finds(true, WEB, "as before");
        let mut output = String::new();
        wait::until("a confirmation is too late", || {
            let (code, answer) = daemon::ask(&net.server, &["confirm"]);
            assert_eq!(code, Some(1), "{answer}");
            output = answer;
            output.contains("too late")
        });
        assert!(output.contains("was restored"), "{output}");

        let (code, output) = daemon::ask(&net.server, &["reload", "--confirm", "1m"]);
        assert_eq!(code, Some(0), "{output}");
        let (code, output) = daemon::ask(&net.server, &["confirm"]);
        assert_eq!(code, Some(0), "{output}");
        knocks_lead_in(net, OTHER_KNOCKS, true, "confirmed");
        knocks_lead_in(net, KNOCKS, false, "confirmed");
        unauthorized_sources.assert_none_got_in("at the end");
        unauthorized_sources.stop();
        stream.continues("at the end");
        stream.end();
        daemon.stop();
    });
}

/// A program that was loaded while none was attached has no end either once it is confirmed.
#[test]
fn a_reload_can_be_confirmed_while_its_interface_is_absent() {
    net::test(|net| {
        net.add_second_link();
        let _server = Server::tcp(&net.server, &[SSH]);
        let arguments = ["--iface", SERVER_LINK_2, "--wait-for-interfaces"];
        let daemon = Daemon::start_with(&net.server, DOOR, &arguments);
        net.server.ip(&format!("link delete {SERVER_LINK_2}"));
        daemon.wait_for_event(&json!({"event": "absent", "interface": SERVER_LINK_2}));
        let (code, output) = daemon::ask(&net.server, &["reload", "--confirm", TRIAL]);
        let deadline = Instant::now() + TRIAL_LASTS;
        assert_eq!(code, Some(0), "{output}");
        let (code, output) = daemon::ask(&net.server, &["confirm"]);
        assert_eq!(code, Some(0), "{output}");
        net.add_second_link();
        wait::until("it is attached", || {
            attached_programs(&net.server).len() == 1
        });
        let elsewhere = || net.new_source(Family::V4).to(Family::V4.second_server());
        elsewhere().finds_closed(SSH, "before the end of the trial");
        thread::sleep(deadline.saturating_duration_since(Instant::now()));
        elsewhere().finds_closed(SSH, "after the end of the trial");
        let instance = pins::instance(&net.server);
        assert_eq!(pins::counted(&instance, Reason::TrialExpired), 0);
        daemon.stop_by(SIGTERM);
    });
}

/// A roll-back to open ports is always allowed, since the trial promised it.
#[test]
fn an_unconfirmed_reload_can_roll_back_to_open_ports() {
    const COMMAND: &str = r#"
        [[door]]
        name = "command"
        knock = ["tcp/7000", "udp/8000", "tcp/9000"]
        on_open = ["/bin/true"]
    "#;
    let on = |link: &str| format!("interfaces = [\"{link}\"]\n{DOOR}");
    let rows = [
        (
            "nothing was protected",
            format!("interfaces = [\"{SERVER_LINK}\"]\n{COMMAND}"),
        ),
        ("the interface before is gone", on(SERVER_LINK_2)),
    ];
    for (row, before) in rows {
        net::test(|net| {
            net.add_second_link();
            let _server = Server::tcp(&net.server, &[SSH]);
            let daemon = Daemon::start_with(&net.server, &before, &["--wait-for-interfaces"]);
            net.new_source(Family::V4).finds(true, SSH, row);
            daemon.rewrite(&on(SERVER_LINK));
            let (code, output) = daemon::ask(&net.server, &["reload", "--confirm", TRIAL]);
            assert_eq!(code, Some(0), "{row}: {output}");
            net.new_source(Family::V4).finds_closed(SSH, row);
            net.server.ip(&format!("link delete {SERVER_LINK_2}"));
            wait::until(row, || {
                let source = net.new_source(Family::V4);
                source.connect(SSH, Duration::from_millis(100)).is_ok()
            });
            wait::until("nothing is on trial", || {
                let (code, output) = daemon::ask(&net.server, &["confirm"]);
                assert_eq!(code, Some(1), "{row}: {output}");
                output.contains("too late")
            });
            daemon.leave(SIGTERM);
        });
    }
}

/// The last line names what is protected now, and not what was on trial.
#[test]
fn a_stop_on_trial_reports_the_ports_that_stay_closed() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH, WEB]);
        let daemon = start(net, DOOR, &["--on-exit", "keep"]);
        daemon.rewrite(OTHER);
        let (code, output) = daemon::ask(&net.server, &["reload", "--confirm", "1m"]);
        assert_eq!(code, Some(0), "{output}");
        net.new_source(Family::V4).finds_closed(WEB, "on trial");
        let ended = daemon.end_by(SIGTERM);
        let events = daemon::events(&ended.stdout);
        let left = events
            .iter()
            .find(|event| daemon::has(event, &json!({"event": "left-on"})));
        let ports = left.map(|left| &left["ports"]);
        assert_eq!(ports, Some(&json!(["tcp/22"])), "{events:?}");
        net.new_source(Family::V4).finds_closed(SSH, "kept");
        net.new_source(Family::V4)
            .finds(true, WEB, "the previous configuration");
    });
}

/// Starts with these additional arguments.
#[track_caller]
fn start(net: &Net, config: &str, arguments: &[&str]) -> Daemon {
    let arguments = [&["--iface", SERVER_LINK], arguments].concat();
    Daemon::start_with(&net.server, config, &arguments)
}

/// Waits for the end of a daemon whose trial is not confirmed.
#[track_caller]
fn is_not_confirmed(daemon: Daemon) -> Vec<Value> {
    was_not_confirmed(&daemon.wait())
}

/// Checks how an unconfirmed trial ended, and returns its events.
#[track_caller]
fn was_not_confirmed(ended: &ProcessEnd) -> Vec<Value> {
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    assert!(ended.stderr.contains("no confirmation came"), "{ended:?}");
    daemon::events(&ended.stdout)
}

/// Lets a new source knock; it is admitted or not.
#[track_caller]
fn knocks_lead_in(net: &Net, knocks: &str, leads_in: bool, row: &str) {
    let source = net.new_source(Family::V4);
    source.knock(knocks);
    source.finds(leads_in, SSH, row);
}
