//! A configuration that was not confirmed is not in force for good because its process was killed, and one that was
//! put in place halfway is not reported as in force.
//!
//! `KNOCK_KILLS` is the number of kills. `KNOCK_SEED` repeats their moments.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails with the test")]

use std::{fs, thread, time::Duration};

use knock_tests::{
    binary::binaries,
    daemon::{self, config_file},
    kernel::now,
    net::{self, Family, Net, SERVER_LINK},
    pins::{self, attached_programs},
    process::Process,
    random::{Random, number},
    server::Server,
    ssh::{DOOR, KNOCKS, SSH},
    unauthorized::UnauthorizedSources,
    wait,
};
use knock_user::kernel::registry::Registry;
use nix::sys::signal::Signal::{SIGHUP, SIGKILL, SIGTERM};
use serde_json::{Value, json};
use tempfile::NamedTempFile;

const WEB: u16 = 80;
const KILLS: u64 = 14;
/// The same port behind other knocks, and another port.
const OTHER: &str = r#"
    [[door]]
    name = "ssh"
    knock = ["tcp/7500", "udp/8500", "tcp/9500"]
    open = ["tcp/22", "tcp/80"]
"#;
const OTHER_KNOCKS: &str = "tcp/7500 udp/8500 tcp/9500";
/// A third configuration.
const THIRD: &str = r#"
    [[door]]
    name = "ssh"
    knock = ["tcp/7700", "udp/8700", "tcp/9700"]
    open = ["tcp/22", "tcp/80", "tcp/8080"]
"#;

/// A start before the deadline continues the trial.
#[test]
fn a_trial_continues_when_its_daemon_is_killed_and_started_in_time() {
    net::test(|net| {
        let mut unauthorized_sources = UnauthorizedSources::before_protection(net, SSH);
        let host = TrialHost::new(net);
        let first = host.on_trial("1m");
        unauthorized_sources.start(SSH);
        kill(first);
        host.is_in_force(OTHER_KNOCKS, "no process");
        assert_eq!(host.shortfalls(), ["on-trial"], "no process");
        let answer = host.asks(&["confirm"], 1);
        assert!(answer.contains("start knock-user"), "{answer}");

        // A file that was changed meanwhile is neither confirmed nor on trial.
        host.write(THIRD);
        let again = host.start(&[]);
        let trial = daemon::wait_for_event(&again, &json!({"event": "trial"}));
        assert!(trial["seconds"].as_f64() < Some(60.0), "{trial}");
        assert_eq!(host.shortfalls(), ["on-trial", "config-changed"]);
        host.is_in_force(OTHER_KNOCKS, "started again");
        let answer = host.asks(&["confirm"], 0);
        assert!(answer.contains("stays in force"), "{answer}");
        let answer = host.asks(&["confirm"], 1);
        assert!(answer.contains("was confirmed at"), "{answer}");
        host.write(OTHER);
        assert!(host.shortfalls().is_empty(), "{:?}", host.status());
        kill(again);

        let last = host.start(&[]);
        assert!(host.shortfalls().is_empty(), "{:?}", host.status());
        host.is_in_force(OTHER_KNOCKS, "confirmed, and started again");
        unauthorized_sources.assert_none_got_in("at the end");
        unauthorized_sources.stop();
        last.stop(SIGTERM);
    });
}

/// The process that continued the trial rolls back, and later processes keep that.
#[test]
fn a_trial_that_a_new_daemon_continues_is_rolled_back_at_its_deadline() {
    net::test(|net| {
        let mut unauthorized_sources = UnauthorizedSources::before_protection(net, SSH);
        let host = TrialHost::new(net);
        let first = host.on_trial("8s");
        unauthorized_sources.start(SSH);
        kill(first);
        let mut running = host.start(&[]);
        daemon::wait_for_event(&running, &json!({"event": "trial"}));
        daemon::wait_for_event(&running, &json!({"event": "reloaded"}));
        wait::until("it is settled", || host.shortfalls() == ["config-changed"]);
        host.is_in_force(KNOCKS, "gone back");
        let answer = host.asks(&["confirm"], 1);
        assert!(answer.contains("too late"), "{answer}");

        for row in ["killed", "killed once more", "stopped"] {
            match row {
                "stopped" => assert!(running.stop(SIGTERM).status.success(), "{row}"),
                _ => kill(running),
            }
            host.is_in_force(KNOCKS, row);
            running = host.start(&[]);
            let warned = running.stderr();
            assert!(warned.contains("was not confirmed"), "{row}: {warned}");
            host.is_in_force(KNOCKS, row);
            assert_eq!(host.shortfalls(), ["config-changed"], "{row}");
        }
        unauthorized_sources.assert_none_got_in("at the end");
        unauthorized_sources.stop();
        // A signal, as a rotation of log files sends it, applies only a file that has changed since.
        running.signal(SIGHUP);
        wait::until("the signal is refused", || {
            let refused = "the configuration is not reloaded";
            running.stderr().contains(refused)
        });
        host.is_in_force(KNOCKS, "SIGHUP");
        assert_eq!(host.shortfalls(), ["config-changed"], "SIGHUP");
        host.write(&format!("{OTHER}# changed\n"));
        running.signal(SIGHUP);
        wait::until("a changed file is applied", || host.shortfalls().is_empty());
        host.is_in_force(OTHER_KNOCKS, "SIGHUP after a change");
        kill(running);
        let last = host.start(&[]);
        host.is_in_force(OTHER_KNOCKS, "reloaded, and started again");
        last.stop(SIGTERM);
    });
}

/// A restart and a signal do not apply that file.
#[test]
fn a_reload_on_request_applies_a_file_that_was_not_confirmed() {
    net::test(|net| {
        let host = TrialHost::new(net);
        let running = host.on_trial("1s");
        wait::until("it is settled", || host.shortfalls() == ["config-changed"]);
        host.asks(&["reload"], 0);
        host.is_in_force(OTHER_KNOCKS, "reloaded");
        assert!(host.shortfalls().is_empty(), "{:?}", host.status());
        kill(running);
        let last = host.start(&[]);
        host.is_in_force(OTHER_KNOCKS, "reloaded, and started again");
        last.stop(SIGTERM);
    });
}

/// A start on trial that is killed before it has put anything in place: the next start applies what
/// was in force.
#[test]
fn a_start_on_trial_that_is_killed_early_leaves_the_previous_configuration() {
    net::test(|net| {
        let host = TrialHost::new(net);
        assert!(host.start(&[]).stop(SIGTERM).status.success());
        // As another instance does: a process that starts to use time-based doors waits for it.
        let lock = net.server.hold("used-sequences.lock");
        host.write(&format!(
            "{OTHER}[[door]]\nname = \"timed\"\nopen = [\"tcp/8080\"]\n\
             otp = {{ secret = \"correct horse battery\" }}\n"
        ));
        let first = host.spawn(&["--confirm", "1m"]);
        wait::until("it compiles", || {
            let registry = Registry::read(&pins::instance(&net.server).registry());
            registry.is_ok_and(|registry| registry.is_some_and(|one| one.rejected.is_some()))
        });
        kill(first);
        drop(lock);
        host.is_in_force(KNOCKS, "killed");
        let again = host.start(&[]);
        host.is_in_force(KNOCKS, "started again");
        assert_eq!(host.shortfalls(), ["config-changed"]);
        host.asks(&["reload"], 0);
        host.is_in_force(OTHER_KNOCKS, "reloaded");
        again.stop(SIGTERM);
    });
}

/// A start after the end of the trial first rolls back.
#[test]
fn a_daemon_that_starts_after_the_deadline_rolls_back() {
    // What the file has when the next process starts, and whether that can start.
    for (row, text, starts) in [
        ("the file on trial", OTHER, true),
        ("the file before", DOOR, true),
        ("a broken file", "[[door]]\nname = 7", false),
        ("an empty file", "", false),
    ] {
        net::test(|net| {
            let mut unauthorized_sources = UnauthorizedSources::before_protection(net, SSH);
            let host = TrialHost::new(net);
            let first = host.on_trial("4s");
            unauthorized_sources.start(SSH);
            kill(first);
            host.waits_for_the_end();
            let status = host.status().to_string();
            assert!(status.contains("no process rolls back"), "{row}: {status}");
            let answer = host.asks(&["confirm"], 1);
            assert!(answer.contains("rolls back"), "{row}: {answer}");
            host.is_in_force(OTHER_KNOCKS, row);

            host.write(text);
            if starts {
                let again = host.start(&[]);
                assert!(
                    daemon::events(&again.stdout())
                        .iter()
                        .all(|event| event["event"] != "trial")
                );
                let expected = match text == DOOR {
                    true => &[][..],
                    false => &["config-changed"],
                };
                assert_eq!(host.shortfalls(), expected, "{row}");
                host.is_in_force(KNOCKS, row);
                again.stop(SIGTERM);
            } else {
                let ended = host.spawn(&[]).wait();
                assert_eq!(ended.status.code(), Some(2), "{row}: {ended:?}");
            }
            host.is_in_force(KNOCKS, row);
            unauthorized_sources.assert_none_got_in(row);
            unauthorized_sources.stop();
        });
    }
}

/// The earlier text in the file ends the trial.
#[test]
fn the_previous_file_ends_a_trial_whose_daemon_was_killed() {
    net::test(|net| {
        let host = TrialHost::new(net);
        kill(host.on_trial("1m"));
        host.write(DOOR);
        let again = host.start(&[]);
        assert!(host.shortfalls().is_empty(), "{:?}", host.status());
        host.is_in_force(KNOCKS, "the file before");
        host.asks(&["confirm"], 1);
        again.stop(SIGTERM);
    });
}

/// A new trial replaces an abandoned one, and its roll-back restores the confirmed configuration.
#[test]
fn a_new_trial_after_a_kill_rolls_back_to_the_confirmed_configuration() {
    net::test(|net| {
        let host = TrialHost::new(net);
        kill(host.on_trial("1m"));
        let again = host.start(&["--confirm", "10s"]);
        host.is_in_force(OTHER_KNOCKS, "on trial again");
        let ended = again.wait();
        assert_eq!(ended.status.code(), Some(1), "{ended:?}");
        let expected = "no confirmation came in time: the previous configuration is in force again, \
                        with tcp/22, and no daemon is running";
        assert!(ended.stderr.contains(expected), "{ended:?}");
        host.is_in_force(KNOCKS, "gone back");
    });
}

/// Where nothing was protected, a trial continues, too, and it ends with open ports.
#[test]
fn the_trial_of_a_first_start_continues_after_a_kill() {
    net::test(|net| {
        let host = TrialHost::new(net);
        let first = host.start(&["--confirm", "6s"]);
        kill(first);
        let again = host.start(&[]);
        let programs = attached_programs(&net.server);
        daemon::wait_for_event(&again, &json!({"event": "trial"}));
        net.new_source(Family::V4).finds_closed(SSH, "on trial");
        let ended = again.wait();
        assert_eq!(ended.status.code(), Some(1), "{ended:?}");
        let expected = "no confirmation came in time: nothing is protected now";
        assert!(ended.stderr.contains(expected), "{ended:?}");
        net.new_source(Family::V4)
            .finds(true, SSH, "it was open before");
        pins::nothing_is_left(&net.server, &programs);
    });
}

/// A daemon that ends on trial reports what is then in force.
#[test]
fn a_stop_on_trial_rolls_back() {
    for (row, on_exit, expected) in [
        (
            "kept",
            "keep",
            "the previous configuration is in force again, with tcp/22",
        ),
        ("detached", "detach", "nothing is protected now"),
    ] {
        net::test(|net| {
            let host = TrialHost::new(net);
            let first = host.start(&[]);
            assert!(first.stop(SIGTERM).status.success(), "{row}");
            host.write(OTHER);
            let trial = host.start(&["--confirm", "1m", "--on-exit", on_exit]);
            let ended = trial.stop(SIGTERM);
            let answer = format!("no confirmation came before the process was ended: {expected}");
            assert!(ended.stderr.contains(&answer), "{row}: {ended:?}");
            let source = net.new_source(Family::V4);
            source.finds(on_exit == "detach", SSH, row);
        });
    }
}

/// Killed at any moment of a reload, `status` describes what is in force, and the next start puts in
/// force what was confirmed, or what the file has if nothing was on trial.
#[test]
fn a_daemon_killed_in_a_reload_leaves_one_of_two_configurations() {
    let seed = number("KNOCK_SEED").unwrap_or_else(|| now().unwrap().nanos());
    let kills = number("KNOCK_KILLS").unwrap_or(KILLS);
    println!("KNOCK_SEED={seed} KNOCK_KILLS={kills}");
    let mut random = Random::new(seed);
    net::test(|net| {
        let mut unauthorized_sources = UnauthorizedSources::before_protection(net, SSH);
        let host = TrialHost::new(net);
        let mut seen = [0_u32; 3];
        let mut running = host.start(&[]);
        unauthorized_sources.start(SSH);
        for kill_number in 0..kills {
            let is_trial = kill_number % 2 == 0;
            let row = format!("kill {kill_number}, on trial: {is_trial}");
            host.write(OTHER);
            let user = binaries().user.display().to_string();
            let arguments: &[&str] = match is_trial {
                true => &["reload", "--confirm", "1m"],
                false => &["reload"],
            };
            let delay = Duration::from_micros(random.below(60_000) as u64);
            thread::scope(|scope| {
                let reload = scope.spawn(|| net.server.try_run(&user, arguments));
                thread::sleep(delay);
                kill(running);
                reload.join().unwrap();
            });
            let registry = Registry::read(&pins::instance(&net.server).registry());
            // Whether the request was read before the process ended.
            let is_noted = registry
                .unwrap()
                .is_some_and(|registry| registry.rejected.is_some());
            let status = host.status();
            let is_new = status["ports"] == json!(["tcp/22", "tcp/80"]);
            let is_interrupted = host.shortfalls().contains(&"interrupted".to_owned());
            seen[usize::from(is_new) + 2 * usize::from(is_interrupted)] += 1;
            let in_force = if is_new { OTHER_KNOCKS } else { KNOCKS };
            host.is_in_force(in_force, &format!("{row}: {status}"));
            assert!(!(is_new && is_interrupted), "{row}: {status}");

            running = host.start(&[]);
            // A complete change continues; an incomplete one is rolled back if it was a trial.
            let expected = match (is_trial, is_new) {
                (true, false) if is_noted => KNOCKS,
                (false, _) | (true, _) => OTHER_KNOCKS,
            };
            let was_on_trial = is_trial && is_new;
            let is_reported = host.shortfalls().contains(&"on-trial".to_owned());
            assert_eq!(is_reported, was_on_trial, "{row}: {}", host.status());
            host.is_in_force(expected, &row);
            if was_on_trial {
                host.asks(&["confirm"], 0);
            }
            host.write(DOOR);
            host.asks(&["reload"], 0);
        }
        println!("before, after, interrupted: {seen:?}");
        unauthorized_sources.assert_none_got_in("at the end");
        unauthorized_sources.stop();
        running.stop(SIGTERM);
    });
}

/// A trial of what is in force already refuses nothing.
#[test]
fn a_trial_of_an_unchanged_configuration_leaves_no_shortfall() {
    net::test(|net| {
        let host = TrialHost::new(net);
        let running = host.start(&[]);
        host.asks(&["reload", "--confirm", "1s"], 0);
        assert_eq!(host.shortfalls(), ["on-trial"]);
        wait::until("it is settled", || host.shortfalls().is_empty());
        let answer = host.asks(&["confirm"], 1);
        assert!(answer.contains("was restored"), "{answer}");
        kill(running);
        let again = host.start(&[]);
        let answer = again.stderr();
        assert!(!answer.contains("not confirmed"), "{answer}");
        assert!(host.shortfalls().is_empty(), "{:?}", host.status());
        again.stop(SIGTERM);
    });
}

/// A host with one configuration file, on which processes come and go.
struct TrialHost<'n> {
    net: &'n Net,
    config: NamedTempFile,
    _server: Server,
}

impl<'n> TrialHost<'n> {
    fn new(net: &'n Net) -> Self {
        Self {
            net,
            config: config_file(DOOR.as_bytes()),
            _server: Server::tcp(&net.server, &[SSH, WEB]),
        }
    }

    fn write(&self, text: &str) {
        fs::write(self.config.path(), text).unwrap();
    }

    /// Starts a process, whose protection outlives it unless an argument asks for another end.
    fn spawn(&self, arguments: &[&str]) -> Process {
        let mut command = daemon::command(&self.config);
        command.args(["--json", "--iface", SERVER_LINK]);
        if !arguments.contains(&"--on-exit") {
            command.args(["--on-exit", "keep"]);
        }
        command.args(arguments);
        Process::start(&self.net.server, &mut command)
    }

    /// Starts a process, and waits until it protects.
    #[track_caller]
    fn start(&self, arguments: &[&str]) -> Process {
        let process = self.spawn(arguments);
        daemon::wait_for_event(&process, &json!({"event": "protecting"}));
        process
    }

    /// Returns the configuration in force, by the knocks that open its door.
    #[track_caller]
    fn is_in_force(&self, knocks: &str, row: &str) {
        for known in [KNOCKS, OTHER_KNOCKS] {
            let source = self.net.new_source(Family::V4);
            source.knock(known);
            source.finds(known == knocks, SSH, row);
        }
        // Only one of the two protects tcp/80.
        let web = self.net.new_source(Family::V4);
        web.finds(knocks == KNOCKS, WEB, row);
    }

    #[track_caller]
    fn asks(&self, arguments: &[&str], code: i32) -> String {
        let (ended, answer) = daemon::ask(&self.net.server, arguments);
        assert_eq!(ended, Some(code), "{arguments:?}: {answer}");
        answer
    }

    #[track_caller]
    fn status(&self) -> Value {
        let user = binaries().user.display().to_string();
        let output = self.net.server.try_run(&user, &["status", "--json"]);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
    }

    /// Returns the kinds of shortfalls in the status.
    #[track_caller]
    fn shortfalls(&self) -> Vec<String> {
        let status = self.status();
        let all = status["shortfalls"].as_array().unwrap().iter();
        all.map(|one| one["kind"].as_str().unwrap().to_owned())
            .collect()
    }

    /// Returns a process that runs with `DOOR` and has put `OTHER` on trial for a time.
    #[track_caller]
    fn on_trial(&self, lasts: &str) -> Process {
        self.write(DOOR);
        let process = self.start(&[]);
        self.write(OTHER);
        self.asks(&["reload", "--confirm", lasts], 0);
        process
    }

    #[track_caller]
    fn waits_for_the_end(&self) {
        wait::until("the trial is over", || {
            self.status()["trial_seconds"] == json!(0.0)
        });
    }
}

#[track_caller]
fn kill(process: Process) {
    let ended = process.stop(SIGKILL);
    assert!(!ended.status.success(), "it ended before: {ended:?}");
    assert!(!ended.stderr.contains("panicked"), "{ended:?}");
}
