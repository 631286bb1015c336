//! knock-user is killed at random moments, while sources knock, connect and scan: no source gets in without a grant,
//! and no source with a grant is refused.
//!
//! `KNOCK_KILLS` is the number of kills (100 in a full run). `KNOCK_SEED` repeats the random choices of a run.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails with the test")]

use std::{
    fs,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use knock_common::packet::Protocol;
use knock_tests::{
    daemon::{self, Daemon, config_file},
    kernel::now,
    net::{self, Family, Net, SERVER_LINK},
    pins::{self, attached_programs},
    process::Process,
    random::{Random, number},
    record::CommandLog,
    server::Server,
    source::{FIRST_SYN, Source},
    ssh::{KNOCKS, SSH},
    stop_flag::StopFlag,
    stream::Stream,
    unauthorized::UnauthorizedSources,
    wait,
};
use knock_user::kernel::instance::Instance;
use nix::sys::signal::Signal;
use serde_json::json;
use tempfile::NamedTempFile;

const KILLS: u64 = 25;
/// How long a connection may take on a machine that is busy with other things.
const SLOWLY: Duration = Duration::from_secs(5);
/// How often something is tried again on a machine that is busy with other things.
const ATTEMPTS: u32 = 10;
/// How long the door `brief` is open.
const BRIEF: Duration = Duration::from_secs(1);
const BRIEF_KNOCKS: &str = "udp/7100 tcp/8100 udp/9100";
const WEB: u16 = 80;
/// The port of a door that an ascending scan would open without strict mode.
const UPWARDS: u16 = 23;
const UPWARDS_DOOR: &str = r#"
    [[door]]
    name = "upwards"
    knock = ["tcp/7010", "tcp/7020", "tcp/7030"]
    open = ["tcp/23"]
"#;
/// The door that only every second configuration has.
const MORE: &str = r#"
    [[door]]
    name = "more"
    knock = ["tcp/7200", "udp/8200", "tcp/9200"]
    open = ["tcp/80", "tcp/8080"]
"#;

#[test]
fn a_kill_at_any_moment_lets_nobody_in() {
    let seed = number("KNOCK_SEED").unwrap_or_else(|| now().unwrap().nanos());
    let kills = number("KNOCK_KILLS").unwrap_or(KILLS);
    println!("KNOCK_SEED={seed} KNOCK_KILLS={kills}");
    net::test(|net| {
        let server = Server::tcp(&net.server, &[SSH, WEB, UPWARDS]);
        let mut unauthorized_sources = UnauthorizedSources::before_protection(net, SSH);
        let mut host = CrashingHost::new(net, seed);
        // Without earlier protection, a start has either no effect or all of it.
        for _ in 0..3 {
            host.kill_a_start();
        }
        let first = host.start();
        unauthorized_sources.start(SSH);

        let [holder, scanner, prober] = [0, 1, 2].map(|_| net.new_source(Family::V4));
        let stream = Stream::begin(holder.knock_and_connect(KNOCKS, SSH).unwrap());
        daemon::wait_for_event(&first, &json!({"event": "opened", "source": holder.name()}));
        kill(first);
        host.kills.running += 1;

        let stop = AtomicBool::new(false);
        let scans = AtomicUsize::new(0);
        let working = || !stop.load(Ordering::Relaxed);
        thread::scope(|scope| {
            let _stop = StopFlag(&stop);
            scope.spawn(|| {
                while working() {
                    scan_upwards(scanner);
                    scans.fetch_add(1, Ordering::Relaxed);
                }
            });
            scope.spawn(|| {
                while working() {
                    prober.finds_closed(SSH, "an unauthorized source");
                }
            });
            while host.kills.all() < kills {
                round(&mut host, holder, &stream);
                unauthorized_sources.assert_none_got_in("after a round");
                assert!(
                    ![scanner, prober].iter().any(|source| [SSH, WEB, UPWARDS]
                        .iter()
                        .any(|&port| server.met(source.from, port))),
                    "an unauthorized source was let in"
                );
            }
        });

        let last = host.start();
        takes_over(&last, holder);
        stream.continues("the last start");
        let packets = unauthorized_sources.stop();
        let round_trips = stream.round_trips();
        stream.end();
        let programs = attached_programs(&net.server);
        let ended = last.stop(Signal::SIGINT);
        assert!(ended.status.success(), "{ended:?}");
        pins::nothing_is_left(&net.server, &programs);
        println!(
            "{} kills ({:?}); meanwhile {packets} packets of unauthorized sources, {} scans, {round_trips} \
             round trips",
            host.kills.all(),
            host.kills,
            scans.load(Ordering::Relaxed)
        );
    });
}

/// The next start removes its leftovers.
#[test]
fn a_kill_at_the_very_beginning_leaves_nothing_in_the_way() {
    net::test(|net| {
        let begun = net.server.enter(|| Instance::of(&[SERVER_LINK.to_owned()]));
        let begun = begun.unwrap();
        for directory in [begun.maps(), begun.links()] {
            fs::create_dir_all(directory).unwrap();
        }
        let daemon = Daemon::start(&net.server, UPWARDS_DOOR);
        assert_eq!(pins::instances(&net.server), [begun]);
        daemon.stop();
        pins::nothing_is_left(&net.server, &[]);
    });
}

/// A host whose knock-user is killed again and again.
struct CrashingHost<'n> {
    net: &'n Net,
    config: NamedTempFile,
    record: CommandLog,
    random: Random,
    rounds: usize,
    kills: Kills,
}

#[derive(Debug, Default)]
struct Kills {
    starting: u64,
    running: u64,
    reloading: u64,
}

impl Kills {
    const fn all(&self) -> u64 {
        self.starting + self.running + self.reloading
    }
}

impl<'n> CrashingHost<'n> {
    fn new(net: &'n Net, seed: u64) -> Self {
        let host = Self {
            net,
            config: config_file(&[]),
            record: CommandLog::new(),
            random: Random::new(seed),
            rounds: 0,
            kills: Kills::default(),
        };
        host.write(false);
        host
    }

    fn write(&self, more: bool) {
        let commands = self.record.keys();
        let text = format!(
            r#"
            [[door]]
            name = "ssh"
            knock = ["tcp/7000", "udp/8000", "tcp/9000"]
            open = ["tcp/22"]
            open_for = "1h"
            {commands}
            [[door]]
            name = "brief"
            knock = ["udp/7100", "tcp/8100", "udp/9100"]
            open = ["tcp/80"]
            open_for = "1s"
            {commands}
            {UPWARDS_DOOR}
            {}"#,
            if more { MORE } else { "" }
        );
        fs::write(self.config.path(), text).unwrap();
    }

    /// Waits for a random time.
    fn sleep(&mut self, most: Duration) {
        let micros = usize::try_from(most.as_micros()).unwrap();
        thread::sleep(Duration::from_micros(self.random.below(micros) as u64));
    }

    fn spawn(&self) -> Process {
        let mut command = daemon::command(&self.config);
        command.args(["--json", "--iface", SERVER_LINK]);
        Process::start(&self.net.server, &mut command)
    }

    fn start(&self) -> Process {
        let process = self.spawn();
        daemon::wait_for_event(&process, &json!({"event": "protecting"}));
        process
    }

    /// Kills it before it is ready, most of the time.
    fn kill_a_start(&mut self) {
        let process = self.spawn();
        self.sleep(Duration::from_millis(150));
        process.stop(Signal::SIGKILL);
        self.kills.starting += 1;
    }

    /// Kills it during a reload.
    fn kill_a_reload(&mut self, mut running: Process) {
        self.write(self.rounds.is_multiple_of(2));
        running.signal(Signal::SIGHUP);
        self.sleep(Duration::from_millis(150));
        kill(running);
        self.kills.reloading += 1;
    }

    fn new_source(&self) -> Source<'n> {
        let families = [Family::V4, Family::V6];
        self.net.new_source(families[self.rounds % families.len()])
    }
}

/// Waits until a start has reported a grant from an earlier process.
///
/// It is kept, or opened once more: an event stays in the ring until it has been acted on, so a
/// process that is killed right after it has reported one leaves it to the next.
#[track_caller]
fn takes_over(process: &Process, source: Source<'_>) {
    let of = |event| json!({"event": event, "source": source.name(), "door": "ssh"});
    let patterns = ["kept", "opened"].map(of);
    let is_reported = || {
        let events = daemon::events(&process.stdout());
        let mut events = events.iter();
        events.any(|event| patterns.iter().any(|pattern| daemon::has(event, pattern)))
    };
    wait::until(&format!("{} is kept or opened", source.from), is_reported);
}

/// Returns a function that reports whether the link has lost packets since its last call. A busy machine has no room
/// for all packets there, and lost ones are not judged.
fn losses(net: &Net) -> impl FnMut() -> bool {
    let mut before = net.lost();
    move || {
        let now = net.lost();
        std::mem::replace(&mut before, now) < now
    }
}

/// Returns a client that has knocked and is admitted; tries another client while `is_explained` accounts for the
/// failure.
#[track_caller]
fn is_let_in<'n>(
    host: &CrashingHost<'n>,
    knocks: &str,
    port: u16,
    row: &str,
    mut is_explained: impl FnMut() -> bool,
) -> Source<'n> {
    let mut attempts = 0;
    loop {
        let source = host.new_source();
        let connected = source.knock_and_connect(knocks, port);
        let Err(error) = connected.or_else(|_| source.connect(port, SLOWLY)) else {
            return source;
        };
        attempts += 1;
        let retries = is_explained() && attempts < ATTEMPTS;
        assert!(retries, "{row}: tcp/{port} for {}: {error}", source.from);
    }
}

/// Kills one that runs.
#[track_caller]
fn kill(process: Process) {
    let ended = process.stop(Signal::SIGKILL);
    assert!(!ended.status.success(), "it ended before: {ended:?}");
    assert!(!ended.stderr.contains("panicked"), "{ended:?}");
}

/// Scans every port of a sequence and its neighbours in ascending order, and checks that no door has opened.
fn scan_upwards(scanner: Source<'_>) {
    for ports in [6_995..7_045, 7_995..8_005, 8_995..9_005] {
        scanner.scan(Protocol::Tcp, ports);
    }
    for port in [SSH, UPWARDS] {
        scanner.finds_closed(port, "after a scan");
    }
}

/// Runs one round: from a time without a process to the next.
fn round(host: &mut CrashingHost<'_>, holder: Source<'_>, stream: &Stream) {
    host.rounds += 1;
    let row = format!("round {}, {:?}", host.rounds, host.kills);
    if host.random.one_in(3) {
        host.kill_a_start();
    }

    // Without a process clients are admitted all the same, and for no longer than promised.
    let has_lost = losses(host.net);
    let unattended = is_let_in(host, KNOCKS, SSH, &row, has_lost);
    holder.finds(true, SSH, &row);
    let brief = host.rounds.is_multiple_of(5).then(|| {
        // A busy machine may take longer for the connection than the door is open.
        let source = is_let_in(host, BRIEF_KNOCKS, WEB, &row, || true);
        let knocked = Instant::now();
        (source, knocked)
    });
    if let Some((source, knocked)) = brief {
        let end = knocked + BRIEF + Duration::from_millis(50);
        thread::sleep(end.saturating_duration_since(Instant::now()));
        source.finds_closed(WEB, &row);
    }

    // The next start knows of all these grants.
    let running = host.start();
    let of = |event: &str, door: &str, source: Source<'_>| json!({"event": event, "door": door, "source": source.name()});
    takes_over(&running, holder);
    daemon::wait_for_event(&running, &of("opened", "ssh", unattended));
    host.record.gets(&format!("open ssh {}", unattended.name()));
    if let Some((source, _)) = brief {
        daemon::wait_for_event(&running, &of("opened", "brief", source));
        let closed = daemon::wait_for_event(&running, &of("closed", "brief", source));
        assert_eq!(closed["reason"], "expired", "{row}: {closed}");
        host.record.gets(&format!("open brief {}", source.name()));
        host.record.gets(&format!("close brief {}", source.name()));
    }

    // Killed while a source knocks.
    let source = host.new_source();
    let delay = Duration::from_micros(host.random.below(20_000) as u64);
    let mut has_lost = losses(host.net);
    let reloads = host.random.one_in(2);
    thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(delay);
            source.knock(KNOCKS);
        });
        if reloads {
            host.kill_a_reload(running);
        } else {
            host.sleep(Duration::from_millis(30));
            kill(running);
            host.kills.running += 1;
        }
    });
    // With a reload, the old program may have seen the first knocks and the new one the others.
    let mut may_knock_again = reloads;
    let mut limit = if reloads { FIRST_SYN } else { SLOWLY };
    while source.connect(SSH, limit).is_err() {
        let is_explained = may_knock_again || has_lost();
        assert!(
            is_explained,
            "{row}: knocked while it was killed, and not let in"
        );
        may_knock_again = false;
        limit = SLOWLY;
        source.knock(KNOCKS);
    }
    stream.continues(&row);
}
