//! Reloads while packets arrive.

use std::{
    collections::HashSet,
    fmt::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};

use knock_common::{
    Address,
    layout::{ALLOW_MAX, GrantKey},
};
use knock_tests::{
    daemon::{self, Daemon},
    net::{self, Family, Net, SERVER_LINK, SERVER_LINK_2},
    pins::{self, attached_programs},
    record::CommandLog,
    server::Server,
    source::{Source, echoes},
    ssh::{DOOR, KNOCKS, SSH},
    stop_flag::StopFlag,
    stream::Stream,
    unauthorized::UnauthorizedSources,
    wait,
};
use knock_user::kernel::maps::{self, Plain};
use nix::sys::signal::Signal::SIGHUP;
use serde_json::{Value, json};

const WEB: u16 = 80;
const DB: u16 = 443;

#[test]
fn a_file_with_errors_changes_nothing() {
    const BEFORE: &str = r#"
        interfaces = ["b0"]
        [[door]]
        name = "ssh"
        knock = ["tcp/7000", "udp/8000", "tcp/9000"]
        open = ["tcp/22"]
    "#;
    let rows: [(&str, &str, i32, &[&str]); 6] = [
        ("no TOML", "[[door", 2, &[":1"]),
        (
            "nothing",
            "",
            2,
            &["protects no port", "`knock-user detach`"],
        ),
        (
            "no interface",
            "[[door]]\nname = \"ssh\"\nknock = [\"tcp/7000\", \"udp/8000\", \"tcp/9000\"]\nopen = [\"tcp/22\"]\n",
            2,
            &["no interface", "interfaces"],
        ),
        (
            "three errors",
            "interfaces = [\"b0\"]\n[[door]]\nnam = \"ssh\"\nknock = [\"tcp/70000\"]\nopen = [\"tcp/22\"]\nopen_for = \"soon\"",
            2,
            &[":3", "tcp/70000", "soon"],
        ),
        (
            "two doors with one sequence",
            "interfaces = [\"b0\"]\n\
             [[door]]\nname = \"a\"\nknock = [\"tcp/7000\", \"udp/8000\", \"tcp/9000\"]\nopen = [\"tcp/22\"]\n\
             [[door]]\nname = \"b\"\nknock = [\"tcp/7000\", \"udp/8000\", \"tcp/9000\"]\nopen = [\"tcp/80\"]\n",
            2,
            &["\"a\""],
        ),
        (
            "an interface that is not there",
            "interfaces = [\"b0\", \"eth7\"]\n\
             [[door]]\nname = \"b\"\nknock = [\"tcp/7100\", \"udp/8000\", \"tcp/9000\"]\nopen = [\"tcp/80\"]\n",
            1,
            &["eth7"],
        ),
    ];
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let mut daemon = Daemon::start_with(&net.server, BEFORE, &[]);
        let source = net.new_source(Family::V4);
        let mut connection = source
            .knock_and_connect(KNOCKS, SSH)
            .unwrap_or_else(|error| panic!("{error}"));
        let programs = attached_programs(&net.server);
        for (row, config, code, words) in rows {
            daemon.rewrite(config);
            // On the terminal of the command.
            let (status, output) = daemon::ask(&net.server, &["reload"]);
            assert_eq!(status, Some(code), "{row}: {output}");
            for word in words {
                assert!(output.contains(word), "{row}: no {word:?} in: {output}");
            }
            // In the daemon's output, if a signal causes the reload.
            let before = daemon.process().stderr().len();
            daemon.process_mut().signal(SIGHUP);
            wait::until(&format!("{row}: all is reported"), || {
                let stderr = daemon.process().stderr();
                words.iter().all(|word| stderr[before..].contains(word))
            });

            assert_eq!(attached_programs(&net.server), programs, "{row}");
            source.finds(true, SSH, row);
            assert!(echoes(&mut connection), "{row}");
            let other = net.new_source(Family::V6);
            other.finds_closed(SSH, row);
            other.knock(KNOCKS);
            other.finds(true, SSH, row);
        }
        assert_eq!(
            daemon.events_like(&json!({"event": "reloaded"})),
            [] as [Value; 0]
        );
        let reloaded = daemon.reload(BEFORE);
        assert_eq!(changes(&reloaded), "[]", "no changes");
        daemon.stop();
    });
}

#[test]
fn a_reload_changes_doors_and_keeps_connections() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH, WEB, DB]);
        let record = CommandLog::new();
        let keys = &record.keys();
        let before = door("ssh", 7000, "\"tcp/22\"", keys)
            + &door("web", 7100, "\"tcp/80\"", keys)
            + &door("db", 7200, "\"tcp/443\"", keys);
        let mut daemon = Daemon::start(&net.server, &before);
        let [client, second_client, third_client] = [0, 1, 2].map(|_| net.new_source(Family::V4));
        for (source, first, name) in [
            (client, 7000, "ssh"),
            (second_client, 7100, "web"),
            (third_client, 7200, "db"),
        ] {
            source.knock(&knocks(first));
            record.gets(&format!("open {name} {}", source.name()));
        }
        let streams = [
            client.finds_open(SSH, "in"),
            second_client.finds_open(WEB, "in"),
            third_client.finds_open(DB, "in"),
        ]
        .map(Stream::begin);

        // Another order, other knocks, a port that two doors share, one door removed and one added.
        let after = "protect = [\"tcp/80\"]\n".to_owned()
            + &door("new", 7400, "\"tcp/8080\"", keys)
            + &door("db", 7200, "\"tcp/443\"", keys)
            + &door("ssh", 7300, "\"tcp/443\", \"tcp/22\"", keys);
        let reloaded = daemon.reload(&after);
        for words in [
            "new door: new",
            "removed door: web",
            "changed door: ssh",
            "tcp/8080",
        ] {
            assert!(
                changes(&reloaded).contains(words),
                "no {words} in {reloaded}"
            );
        }
        for stream in &streams {
            stream.continues("connections are kept");
        }
        client.finds(true, SSH, "its door is still there");
        client.finds(true, DB, "its door opens more now");
        third_client.finds(true, DB, "nothing changed for this one");
        third_client.finds_closed(SSH, "nor did this");
        let closed = json!({"event": "closed", "source": second_client.name(), "door": "web",
            "reason": "removed", "ports": ["tcp/80"]});
        daemon.wait_for_event(&closed);
        record.gets(&format!("close web {}", second_client.name()));
        for port in [SSH, WEB, DB] {
            second_client.finds_closed(port, "its door is gone");
        }

        // The old knocks open nothing, and the new ones open the door.
        let late = net.new_source(Family::V6);
        late.knock(&knocks(7000));
        late.finds_closed(SSH, "old knocks");
        late.knock(&knocks(7100));
        late.finds_closed(WEB, "old knocks");
        late.knock(&knocks(7300));
        late.finds(true, SSH, "new knocks");
        daemon.wait_for_event(&json!({"event": "opened", "source": late.name(), "door": "ssh"}));

        // After the first configuration returns, kept grants exist, others do not, and no event was reported twice.
        daemon.reload(&before);
        client.finds(true, SSH, "back");
        client.finds_closed(DB, "its door opens less now");
        third_client.finds(true, DB, "back");
        second_client.finds_closed(WEB, "ended is ended");
        for (source, name) in [
            (client, "ssh"),
            (third_client, "db"),
            (second_client, "web"),
        ] {
            assert_eq!(
                record.count(&format!("open {name} {}", source.name())),
                1,
                "{name}"
            );
        }
        for source in [client, third_client] {
            assert!(
                daemon
                    .events_like(&json!({"event": "closed", "source": source.name()}))
                    .is_empty()
            );
        }
        assert_eq!(daemon.events_like(&closed).len(), 1);
        for stream in streams {
            stream.continues("at the end");
            stream.end();
        }
        daemon.stop();
    });
}

/// Exactly the doors that are open are reported as open.
#[test]
fn a_reload_reports_changed_ports_and_not_ranges() {
    let two =
        |first: &str, second: &str| door("one", 7000, first, "") + &door("two", 7100, second, "");
    net::test(|net| {
        let mut daemon = Daemon::start(&net.server, &two("\"tcp/22\"", "\"tcp/2222\""));
        for (row, config, expected, absent) in [
            (
                "a port moves to another door beside a new one",
                two("\"tcp/22\", \"tcp/2222\"", "\"tcp/2223\""),
                &["now protected: tcp/2223"][..],
                "no longer protected",
            ),
            (
                "a range becomes shorter",
                two("\"tcp/22\"", "\"tcp/2223\""),
                &["no longer protected: tcp/2222\""],
                "now protected",
            ),
        ] {
            let changes = changes(&daemon.reload(&config));
            for words in expected {
                assert!(changes.contains(words), "{row}: no {words} in {changes}");
            }
            assert!(!changes.contains(absent), "{row}: {changes}");
        }
        daemon.stop();
    });
}

#[test]
fn a_reload_adds_and_removes_interfaces() {
    let on = |interfaces: &str| format!("interfaces = [{interfaces}]\n{DOOR}");
    net::test(|net| {
        net.add_second_link();
        let _server = Server::tcp(&net.server, &[SSH]);
        let mut daemon = Daemon::start_with(&net.server, &on("\"b0\""), &[]);
        let here = net.new_source(Family::V4);
        let there = here.to(Family::V4.second_server());
        let stream = Stream::begin(
            here.knock_and_connect(KNOCKS, SSH)
                .unwrap_or_else(|error| panic!("{error}")),
        );
        let unauthorized = || net.new_source(Family::V4);
        let elsewhere = || unauthorized().to(Family::V4.second_server());
        elsewhere().finds(true, SSH, "not protected");

        let reloaded = daemon.reload(&on("\"b0\", \"b1\""));
        assert!(changes(&reloaded).contains("b1 is protected"), "{reloaded}");
        daemon.wait_for_event(&json!({"event": "protecting", "interface": SERVER_LINK_2}));
        unauthorized().finds_closed(SSH, "both");
        elsewhere().finds_closed(SSH, "both");
        there.finds(true, SSH, "grants are shared");
        stream.continues("both");

        let reloaded = daemon.reload(&on("\"b1\""));
        assert!(
            changes(&reloaded).contains("b0 is no longer protected"),
            "{reloaded}"
        );
        daemon.wait_for_event(&json!({"event": "detached", "interface": SERVER_LINK}));
        unauthorized().finds(true, SSH, "no longer protected");
        elsewhere().finds_closed(SSH, "the other one");
        there.finds(true, SSH, "grants stay");
        stream.continues("one");
        assert_eq!(pins::instance(&net.server).linked(), [SERVER_LINK_2]);

        daemon.reload(&on("\"b0\""));
        unauthorized().finds_closed(SSH, "back");
        elsewhere().finds(true, SSH, "back");
        here.finds(true, SSH, "back");
        stream.continues("back");
        daemon.stop();
    });
}

/// The door that all configurations have opens to a client that knocks between reloads, and to one that knocks again
/// after a reload has ended its attempt.
#[test]
fn a_reload_under_load_loses_no_packet() {
    const RELOADS: u64 = 20;
    /// The pause, so that other tests get processor time.
    const PAUSE: Duration = Duration::from_millis(2);
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH, WEB]);
        let mut unauthorized_sources = UnauthorizedSources::before_protection(net, SSH);
        let others = |number: u64| {
            // Longer than the test may take on a busy machine.
            let mut text = format!("{DOOR}\nopen_for = \"1h\"\n");
            for other in 0..=number % 4 {
                let first = 10_000 + 100 * (number as u16 % 7) + 20 * other as u16;
                text += &door(
                    &format!("other-{number}-{other}"),
                    first,
                    "\"tcp/22\", \"tcp/80\"",
                    "",
                );
            }
            text
        };
        let mut daemon = Daemon::start(&net.server, &others(0));
        let holder = net.new_source(Family::V4);
        let stream = Stream::begin(
            holder
                .knock_and_connect(KNOCKS, SSH)
                .unwrap_or_else(|error| panic!("{error}")),
        );
        unauthorized_sources.start(SSH);

        // Odd while a reload happens.
        let reloads = AtomicU64::new(0);
        let stop = AtomicBool::new(false);
        let [knocked, cut] = thread::scope(|scope| {
            let _stop = StopFlag(&stop);
            let knocks = scope.spawn(|| {
                let [mut knocked, mut cut] = [0, 0];
                while !stop.load(Ordering::Relaxed) {
                    knocked += 1;
                    thread::sleep(PAUSE);
                    let source = numbered_source(net, knocked);
                    let before = reloads.load(Ordering::SeqCst);
                    let connected = source.knock_and_connect(KNOCKS, SSH);
                    let is_calm =
                        before.is_multiple_of(2) && before == reloads.load(Ordering::SeqCst);
                    if let Err(error) = connected {
                        assert!(
                            !is_calm,
                            "no reload, and {} stays outside: {error}",
                            source.name()
                        );
                        cut += 1;
                        source.knock(KNOCKS);
                        source.finds(true, SSH, "knocked again");
                    }
                }
                [knocked, cut]
            });
            for number in 1..=RELOADS {
                reloads.fetch_add(1, Ordering::SeqCst);
                daemon.reload(&others(number));
                reloads.fetch_add(1, Ordering::SeqCst);
                let row = format!("reload {number}");
                unauthorized_sources.assert_none_got_in(&row);
                stream.continues(&row);
                holder.finds(true, SSH, &row);
            }
            stop.store(true, Ordering::Relaxed);
            match knocks.join() {
                Ok(counts) => counts,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        });
        let packets = unauthorized_sources.stop();
        stream.end();
        println!(
            "{RELOADS} reloads, {knocked} knocked, {cut} of them twice; {packets} packets of unauthorized sources"
        );
        assert!(knocked > RELOADS, "only {knocked} knocked");
        daemon.stop();
    });
}

/// For a moment the table has grants for both configurations. Without room for them the reload fails and changes
/// nothing, and no client is refused because of it.
#[test]
fn a_reload_without_room_for_its_grants_is_refused() {
    const GRANTS: u32 = ALLOW_MAX / 2 + 1;
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let daemon = Daemon::start(&net.server, &with_all_grants(DOOR));
        let client = net.new_source(Family::V4);
        client.knock(KNOCKS);
        client.finds(true, SSH, "knocked");
        let mut allow = pins::allow(&pins::instance(&net.server));
        let [(like, grant)] = maps::entries(&allow, ALLOW_MAX)[..] else {
            panic!("not one grant");
        };
        let key = |number: u32| GrantKey {
            source: Address::from(IpAddr::from(Ipv4Addr::from(0x0a00_0000 + number))),
            ..like
        };
        for number in 1..GRANTS {
            allow.insert(Plain(key(number)), Plain(grant), 0).unwrap();
        }

        // Another door beside it puts the port into another port group.
        daemon.rewrite(&(with_all_grants(DOOR) + &door("two", 7100, "\"tcp/22\"", "")));
        let (code, output) = daemon::ask(&net.server, &["reload"]);
        assert_eq!(code, Some(1), "{output}");
        for words in ["no room", "32769", "`knock-user revoke`"] {
            assert!(output.contains(words), "no {words} in {output}");
        }
        let entries = maps::entries::<_, GrantKey, u64>(&allow, ALLOW_MAX).len();
        assert_eq!(entries, GRANTS as usize, "something was written");
        client.finds(true, SSH, "nothing changed");
        let other = net.new_source(Family::V4);
        other.knock(KNOCKS);
        other.finds(true, SSH, "there is room for new grants");

        for number in 1..GRANTS / 2 {
            allow.remove(&Plain(key(number))).unwrap();
        }
        let (code, output) = daemon::ask(&net.server, &["reload"]);
        assert_eq!(code, Some(0), "{output}");
        for source in [client, other] {
            source.finds(true, SSH, "carried over");
        }
        let all: HashSet<_> = maps::entries::<_, GrantKey, u64>(&allow, ALLOW_MAX)
            .into_iter()
            .map(|(key, _)| key.source)
            .collect();
        assert!(all.contains(&key(GRANTS - 1).source), "carried over");
        daemon.stop();
    });
}

#[test]
fn a_reload_of_a_thousand_doors_succeeds() {
    const DOORS: u16 = 1_000;
    let doors = |from: u16| {
        let mut text = String::new();
        for number in from..from + DOORS {
            let [low, high] = [number % 100, number / 100];
            let _infallible = writeln!(
                text,
                "[[door]]\nname = \"door-{number}\"\nknock = [\"tcp/{}\", \"udp/{}\", \"tcp/{}\"]\nopen = [\"tcp/22\"]",
                20_000 + low,
                21_000 + high,
                19_000 + low
            );
        }
        text
    };
    let knocks = |number: u16| {
        let [low, high] = [number % 100, number / 100];
        format!(
            "tcp/{} udp/{} tcp/{}",
            20_000 + low,
            21_000 + high,
            19_000 + low
        )
    };
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let mut daemon = Daemon::start(&net.server, DOOR);
        let client = net.new_source(Family::V4);
        client.knock(KNOCKS);
        daemon.reload(&(DOOR.to_owned() + &doors(0)));
        client.finds(true, SSH, "let in before");
        let last = net.new_source(Family::V4);
        last.knock(&knocks(DOORS - 1));
        last.finds(true, SSH, "the last one");
        daemon
            .wait_for_event(&json!({"event": "opened", "source": last.name(), "door": "door-999"}));

        // Half of the doors are replaced by others.
        let reloaded = daemon.reload(&(DOOR.to_owned() + &doors(DOORS / 2)));
        assert!(changes(&reloaded).contains("and 490 more"), "{reloaded}");
        client.finds(true, SSH, "let in before");
        last.finds(true, SSH, "its door stays");
        let [new, old] = [net.new_source(Family::V4), net.new_source(Family::V4)];
        new.knock(&knocks(DOORS + DOORS / 2 - 1));
        new.finds(true, SSH, "a new one");
        daemon
            .wait_for_event(&json!({"event": "opened", "source": new.name(), "door": "door-1499"}));
        old.knock(&knocks(0));
        old.finds_closed(SSH, "an old one");
        daemon.stop();
    });
}

/// Returns a door; its knocks are `tcp/FIRST udp/FIRST+10 tcp/FIRST+5`.
fn door(name: &str, first: u16, open: &str, more: &str) -> String {
    format!(
        "[[door]]\nname = \"{name}\"\nknock = [\"tcp/{first}\", \"udp/{}\", \"tcp/{}\"]\n\
         open = [{open}]\nopen_for = \"1h\"\n{more}\n",
        first + 10,
        first + 5
    )
}

fn knocks(first: u16) -> String {
    format!("tcp/{first} udp/{} tcp/{}", first + 10, first + 5)
}

/// Returns the changes that a reload reports.
fn changes(reloaded: &Value) -> String {
    reloaded["changes"].to_string()
}

/// Sources without number.
fn numbered_source(net: &Net, number: u64) -> Source<'_> {
    let host = u128::from(number) | 0x2001_0db8_000a << 80 | 1 << 48;
    net.source(IpAddr::from(Ipv6Addr::from(host)), Family::V6.server())
}

/// Returns a configuration with as many grants as there can be, whatever the memory of the machine.
fn with_all_grants(config: &str) -> String {
    format!("[limits]\ngrants = {ALLOW_MAX}\n{config}")
}
