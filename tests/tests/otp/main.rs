//! Time-based sequences, from the client to the door.
mod clients;
mod restarts;

use std::{
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

use knock_common::{Reason, packet::Protocol};
use knock_tests::{
    daemon::{self, Daemon},
    frame::{SYN, eth},
    kernel::Kernel,
    net::{self, Family, SERVER_LINK},
    otp::{Otp, unix, words},
    random::{Random, number},
    server::Server,
    source::Source,
    ssh::SSH,
    wait,
};
use nix::sys::signal::Signal;
use serde_json::json;

/// Packets cross the link while they are being sent.
const SHORT: Duration = Duration::from_millis(50);

const OTHER: &str = "[[door]]\nname = \"other\"\nknock = [\"tcp/7000\", \"tcp/9000\", \
                     \"tcp/8000\"]\nopen = [\"tcp/23\"]\n";

/// For each source, the knocks that the library derives open the door, and with one port of the second half raised by
/// one they don't.
#[test]
fn the_kernel_derives_the_same_knocks_as_the_library() {
    let seed = number("KNOCK_SEED").unwrap_or(7);
    let mut random = Random::new(seed);
    for length in [1, 13, 26, 31] {
        let secret: String = (0..length)
            .map(|_| random.of(&['a', '%', 'O', '7']))
            .collect();
        let otp = Otp {
            protocols: (0..7)
                .map(|_| random.of(&[Protocol::Tcp, Protocol::Udp]))
                .collect(),
            ..Otp::steady(&secret)
        };
        let mut kernel = Kernel::load(&door(&otp)).unwrap();
        for number in 0..60 {
            let source = address(&mut random);
            let row = format!("seed {seed}, secret {secret:?}, source {number}: {source}");
            let period = otp.now() - 1 + random.below(3) as u64;
            let knocks = otp.knocks(period, source);
            let wrong = knocks.len() - 1 - random.below(otp.protocols.len());
            for (at, &(protocol, port)) in knocks.iter().enumerate().take(wrong) {
                let judged = kernel.judge(&frame(source, (protocol, port))).unwrap();
                let expected = [Reason::FirstKnock, Reason::NextKnock];
                assert!(
                    expected.contains(&judged.reason),
                    "{row}, knock {at}: {judged:?}"
                );
            }
            let (protocol, port) = knocks[wrong];
            let judged = kernel.judge(&frame(source, (protocol, port + 1))).unwrap();
            let passed = [Reason::NextKnock, Reason::Opened, Reason::SequenceReused];
            assert!(
                !passed.contains(&judged.reason),
                "{row}, one higher: {judged:?}"
            );
            // It may have begun another attempt.
            kernel.judge(&frame(source, (Protocol::Tcp, 9))).unwrap();

            for (at, &knock) in knocks.iter().enumerate() {
                let judged = kernel.judge(&frame(source, knock)).unwrap();
                let is_last = at + 1 == knocks.len();
                let rights: &[Reason] = match at {
                    0 => &[Reason::FirstKnock],
                    _ if is_last => &[Reason::Opened, Reason::SequenceReused],
                    _ => &[Reason::NextKnock],
                };
                let right = rights.contains(&judged.reason);
                assert!(right, "{row}, knock {at}: {judged:?}");
            }
        }
    }
}

#[test]
fn a_client_that_knocks_without_a_pause_gets_in() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        for bind_source in [true, false] {
            let otp = Otp {
                bind_source,
                ..Otp::steady("without a pause")
            };
            let daemon = Daemon::start(&net.server, &door(&otp));
            // Each sequence opens once.
            for (family, period) in Family::ALL.into_iter().zip(otp.now()..) {
                let source = net.new_source(family);
                source.finds_closed(SSH, &family.to_string());
                let words = otp.words(period, source.from);
                let connected = source.knock_and_connect(&words, SSH);
                assert!(connected.is_ok(), "{family}, {words}: {connected:?}");
                opens(&daemon, &source, "ssh");
            }
            daemon.stop();
            net.server.forget_used();
        }
    });
}

/// Observed knocks open nothing, neither from another source nor from the same one, also after a reload or a restart.
#[test]
fn a_time_based_sequence_opens_once() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        for bind_source in [true, false] {
            let otp = Otp {
                bind_source,
                skew: 0,
                ..Otp::steady("once")
            };
            let config = door(&otp);
            let mut daemon = Daemon::start(&net.server, &config);
            let period = otp.now();
            let first = net.new_source(Family::V4);
            let seen = otp.words(period, first.from);
            first.knock(&seen);
            opens(&daemon, &first, "ssh");
            let refused = |daemon: &Daemon, when: &str| {
                first.knock(&seen);
                let spent =
                    json!({"reason": "sequence-reused", "source": first.name(), "door": "ssh"});
                daemon.wait_for_event(&spent);
                for family in Family::ALL {
                    let other = net.new_source(family);
                    other.knock(&seen);
                    other.finds_closed(SSH, when);
                    let own = net.new_source(family);
                    knock(&own, &otp, period);
                    own.finds_closed(SSH, when);
                }
            };
            refused(&daemon, "at once");
            daemon.reload(&format!("{config}open_for = \"31s\"\n"));
            refused(&daemon, "after a reload");
            daemon.kill();
            let daemon = Daemon::start(&net.server, &config);
            refused(&daemon, "after a crash");
            daemon.stop();
            net.server.forget_used();
        }
    });
}

#[test]
fn a_half_derived_for_another_source_is_wrong() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let otp = Otp::steady("halves");
        let daemon = Daemon::start(&net.server, &door(&otp));
        for (family, period) in Family::ALL.into_iter().zip(otp.now()..) {
            let (source, other) = (net.new_source(family), net.new_source(family));
            let own = otp.knocks(period, source.from);
            let others = otp.knocks(period, other.from);
            assert_eq!(own[..3], others[..3]);
            other.knock(&words(&own));
            other.finds_closed(SSH, &family.to_string());
            assert!(!has_opened(&daemon, &other));
            // The sequence is still unused.
            source.knock(&words(&own));
            opens(&daemon, &source, "ssh");
        }
        daemon.stop();
    });
}

#[test]
fn sequences_within_the_skew_open() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        for skew in [0, 1, 2] {
            let secrets = ["of IPv4", "of IPv6"];
            let otp = secrets.map(|secret| Otp {
                skew,
                ..Otp::steady(secret)
            });
            let config = named("v4", &otp[0]) + &named("v6", &otp[1]);
            let daemon = Daemon::start(&net.server, &config);
            for (family, otp) in Family::ALL.into_iter().zip(&otp) {
                for away in [-3_i64, -2, -1, 0, 1, 2, 3] {
                    let source = net.new_source(family);
                    knock(&source, otp, otp.now().saturating_add_signed(away));
                    let row = format!("skew {skew}, {family}, {away} periods away");
                    source.finds(away.unsigned_abs() <= skew, SSH, &row);
                }
            }
            daemon.stop();
            net.server.forget_used();
        }
    });
}

/// An attempt that started in time continues after the period; a later one does not.
#[test]
fn an_attempt_continues_when_the_period_changes() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let otp = ["of IPv4", "of IPv6"].map(|secret| Otp {
            skew: 0,
            ..Otp::every(4, secret)
        });
        let daemon = Daemon::start(&net.server, &(named("v4", &otp[0]) + &named("v6", &otp[1])));
        for (family, otp) in Family::ALL.into_iter().zip(&otp) {
            // For each place in the sequence, one client that has reached it when the period changes.
            let begun = |period: u64, source: &Source<'_>, count: usize| {
                let knocks = otp.knocks(period, source.from);
                source.knock(&words(&knocks[..count]));
                let stage = json!({"event": "knock", "source": source.name(), "stage": count});
                let is_reported = || (!daemon.events_like(&stage).is_empty()).then_some(());
                wait::poll(Duration::from_secs(1), is_reported).is_some()
            };
            let (period, sources) = wait::poll(wait::PATIENCE, || {
                let period = otp.now();
                let sources: Vec<_> = (1..6)
                    .map(|count| (net.new_source(family), count))
                    .collect();
                let mut each = sources.iter();
                let all = each.all(|(source, count)| begun(period, source, *count));
                (all && otp.now() == period).then_some((period, sources))
            })
            .unwrap();
            wait::until("the period is over by a second", || {
                unix() > (period + 1) * otp.period
            });
            let late = net.new_source(family);
            knock(&late, otp, period);
            late.finds_closed(SSH, &format!("{family}, too late"));
            wait::until("the next period's sequence opens", || {
                let source = net.new_source(family);
                knock(&source, otp, otp.now());
                source.connect(SSH, SHORT).is_ok()
            });
            let rest = |source: &Source<'_>, count: usize| {
                source.knock(&words(&otp.knocks(period, source.from)[count..]));
            };
            // Each sequence opens once.
            let mut sources = sources.iter();
            let (first, count) = sources.next().unwrap();
            rest(first, *count);
            first.finds_open(SSH, &format!("{family}, in time"));
            for (source, count) in sources {
                rest(source, *count);
                daemon
                    .wait_for_event(&json!({"reason": "sequence-reused", "source": source.name()}));
            }
        }
        daemon.stop();
    });
}

/// The sequences in the kernel are valid for their period, also without a daemon.
#[test]
fn a_suspended_daemon_does_not_extend_a_period() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let otp = Otp {
            skew: 1,
            ..Otp::every(4, "stands still")
        };
        let mut daemon = Daemon::start(&net.server, &door(&otp));
        let period = otp.now();
        daemon.process_mut().signal(Signal::SIGSTOP);
        let good = net.new_source(Family::V4);
        knock(&good, &otp, period);
        good.finds_open(SSH, "its time is not over");
        // The sequences that it had prepared have expired a period later.
        wait::until("all that it knew is over", || {
            unix() > (period + 4) * otp.period
        });
        for family in Family::ALL {
            for known in period - 2..=period + 3 {
                let source = net.new_source(family);
                knock(&source, &otp, known);
                source.finds_closed(SSH, &format!("{family}, period {period}: {known}"));
            }
        }
        daemon.process_mut().signal(Signal::SIGCONT);
        wait::until("it has caught up", || {
            let source = net.new_source(Family::V6);
            knock(&source, &otp, otp.now());
            source.connect(SSH, SHORT).is_ok()
        });
        daemon.stop();
    });
}

#[test]
fn a_hundred_time_based_doors_open() {
    const DOORS: usize = 100;
    net::test(|net| {
        let doors: Vec<Otp> = (0..DOORS)
            .map(|i| Otp::steady(&format!("of door {i}")))
            .collect();
        let named: Vec<String> = (doors.iter().enumerate())
            .map(|(number, otp)| named(&format!("door{number}"), otp))
            .collect();
        let daemon = Daemon::start(&net.server, &named.concat());
        for (number, otp) in doors.iter().enumerate() {
            let family = Family::ALL[number % 2];
            let source = net.new_source(family);
            knock(&source, otp, otp.now());
            opens(&daemon, &source, &format!("door{number}"));
        }
        daemon.stop();
    });
}

/// Two doors have the same knocks in this period: only one of them can be opened, and a third door is not affected.
#[test]
fn only_the_first_of_doors_with_colliding_sequences_opens() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let one = |secret: &str| Otp {
            protocols: vec![Protocol::Tcp],
            skew: 0,
            ..Otp::steady(secret)
        };
        let anybody = Family::V4.client();
        let first = one("first");
        let half = |otp: &Otp| otp.knocks(otp.now(), anybody)[0];
        let twin = (0..).map(|i| one(&format!("twin {i}")));
        let twin = { twin }.find(|twin| half(twin) == half(&first)).unwrap();
        let third = one("third");
        let config = [("first", &first), ("twin", &twin), ("third", &third)];
        let config = config.map(|(name, otp)| named(name, otp)).concat();
        let daemon = Daemon::start(&net.server, &config);
        for (otp, name, opened) in [
            (&twin, "twin", false),
            (&first, "first", true),
            (&third, "third", true),
        ] {
            let source = net.new_source(Family::V4);
            knock(&source, otp, otp.now());
            source.finds(opened, SSH, name);
        }
        daemon.stop();
    });
}

#[test]
fn repeated_knocks_are_harmless_and_reordered_ones_are_wrong() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let otp = Otp {
            protocols: vec![Protocol::Tcp, Protocol::Udp, Protocol::Tcp, Protocol::Udp],
            ..Otp::steady("twice")
        };
        let daemon = Daemon::start(&net.server, &door(&otp));
        for (family, period) in Family::ALL.into_iter().zip(otp.now()..) {
            let source = net.new_source(family);
            let right = otp.knocks(period, source.from);
            for at in 0..right.len() - 1 {
                let mut swapped = right.clone();
                swapped.swap(at, at + 1);
                source.knock(&words(&swapped));
                source.finds_closed(SSH, &format!("{family}: {} swapped", words(&swapped)));
                // The remaining knocks start no attempt.
                source.knock("tcp/9");
            }
            let twice: Vec<_> = right.iter().flat_map(|&knock| [knock, knock]).collect();
            source.knock(&words(&twice));
            source.finds_open(SSH, &format!("{family}: {} twice", words(&right)));
        }
        daemon.stop();
    });
}

/// Neither the daemon's output nor its answers contain the secret.
#[test]
fn no_output_has_the_secret() {
    net::test(|net| {
        let otp = Otp::steady("xyzzy-plugh");
        let config = door(&otp);
        let daemon = Daemon::start_with(&net.server, &config, &["--iface", SERVER_LINK, "-vv"]);
        let source = net.new_source(Family::V4);
        knock(&source, &otp, otp.now());
        opens(&daemon, &source, "ssh");
        let name = source.name();
        let mut all_output = String::new();
        for words in [
            &["status"][..],
            &["status", "--json"],
            &["list"],
            &["explain", &name, "tcp/22"],
        ] {
            all_output += &daemon::ask(&net.server, words).1;
        }
        let file = daemon::config_file(config.as_bytes());
        let path = file.path().to_str().unwrap();
        all_output += &daemon::ask(&net.server, &["check", "--config", path]).1;
        assert!(all_output.contains("ssh"), "{all_output}");
        let ended = daemon.stop();
        all_output += &ended.stdout.concat();
        all_output += &ended.stderr;
        for spelling in ["xyzzy", "78797a7a79", "120, 121, 122"] {
            assert!(!all_output.contains(spelling), "{spelling}: {all_output}");
        }
    });
}

/// A client whose clock is off by more than the skew gets no answer, but the administrator gets the reason.
#[test]
fn a_skewed_clock_is_reported() {
    net::test(|net| {
        let otp = Otp::every(45, "whose clock is wrong");
        let daemon = Daemon::start(&net.server, &door(&otp));
        for (family, away) in [(Family::V4, -16), (Family::V6, 16), (Family::V4, 3)] {
            let source = net.new_source(family);
            knock(&source, &otp, otp.now().saturating_add_signed(away));
            let clock = json!({"event": "clock-skew", "source": source.name(), "door": "ssh"});
            let event = daemon.wait_for_event(&clock);
            let behind = event["seconds_behind"].as_i64().unwrap();
            // A period may have begun meanwhile.
            let expected = -45 * away;
            assert!(
                [expected, expected + 45].contains(&behind),
                "{away}: {event}"
            );
            assert!(!has_opened(&daemon, &source));
        }
        daemon.stop();
    });
}

fn door(otp: &Otp) -> String {
    named("ssh", otp)
}

fn named(name: &str, otp: &Otp) -> String {
    format!(
        "[[door]]\nname = \"{name}\"\nopen = [\"tcp/22\"]\n{}\n",
        otp.key()
    )
}

/// Knocks the sequence of the source itself in a period.
fn knock(source: &Source<'_>, otp: &Otp, period: u64) {
    source.knock(&otp.words(period, source.from));
}

fn opens(daemon: &Daemon, source: &Source<'_>, door: &str) {
    daemon.wait_for_event(&json!({"event": "opened", "source": source.name(), "door": door}));
}

/// Returns whether an opening was reported for a source.
fn has_opened(daemon: &Daemon, source: &Source<'_>) -> bool {
    let opened = json!({"event": "opened", "source": source.name()});
    !daemon.events_like(&opened).is_empty()
}

fn frame(source: IpAddr, (protocol, port): (Protocol, u16)) -> Vec<u8> {
    let from = source.to_string();
    let frame = match source {
        IpAddr::V4(_) => eth().ip4(&from, "192.0.2.2"),
        IpAddr::V6(_) => eth().ip6(&from, "2001:db8::2"),
    };
    match protocol {
        Protocol::Tcp => frame.tcp(40_000, port, SYN).bytes(),
        Protocol::Udp => frame.udp(40_000, port).bytes(),
    }
}

/// Returns an address whose text may be short or long.
fn address(random: &mut Random) -> IpAddr {
    if random.one_in(3) {
        return IpAddr::from((random.next() as u32 & 0x1fff_ffff | 0x4000_0000).to_be_bytes());
    }
    let mut groups = [0; 8];
    for group in &mut groups {
        *group = match random.below(3) {
            0 => 0,
            1 => random.next() as u16 & 0xff,
            _ => random.next() as u16,
        };
    }
    groups[0] = 0x2001;
    Ipv6Addr::from(groups).into()
}
