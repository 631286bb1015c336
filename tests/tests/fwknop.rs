//! Stock clients of fwknop: what `fwknop` of Debian sends opens a door before the client's next packet.

#![expect(
    clippy::unwrap_used,
    reason = "clippy.toml's exception does not reach helpers of tests"
)]

use std::{
    fs,
    net::{IpAddr, SocketAddr, UdpSocket},
    path::Path,
    process::{Command, Output},
    thread,
    time::Duration,
};

use knock_tests::{
    daemon::{Daemon, detach},
    kernel::now,
    namespace::text,
    net::{self, Family, Net},
    server::Server,
    ssh::SSH,
    wait,
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};
use tempfile::{TempDir, tempdir};

const WEB: u16 = 80;
const PORT: u16 = 62201;

const ASK_SSH: &[&str] = &["-A", "tcp/22", "-s"];

#[test]
fn a_stock_client_opens_a_door_before_its_next_packet() {
    wait_since_boot(250);
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH, WEB]);
        let keys = ClientKeys::new();
        let daemon = Daemon::start(&net.server, &keys.config(""));
        let client = net.native(Family::V4);
        client.finds_closed(SSH, "before");
        send(net, &keys, ASK_SSH);
        let opened = daemon.wait_for_event(&json!({"event": "opened", "door": "ssh"}));
        assert_eq!(opened["user"], "bob");
        client.finds_open(SSH, "after");
        client.finds_closed(WEB, "the other door");
        daemon.stop();
    });
}

/// 100 sources, each with a packet and a SYN right behind it, while no daemon runs.
#[test]
fn the_first_syns_of_a_hundred_sources_pass() {
    wait_since_boot(250);
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let keys = ClientKeys::new();
        let daemon = Daemon::start(&net.server, &keys.config(""));
        daemon.kill();
        let packets: Vec<_> = (0..100).map(|_| packet(&keys, ASK_SSH)).collect();
        for (number, packet) in (1..).zip(&packets) {
            let source = Family::V4.source(number);
            let stream = net.client.enter(|| {
                let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
                socket.bind(&SocketAddr::from((source, 0)).into()).unwrap();
                replay(net, source, packet);
                // A SYN that is lost is repeated after a second.
                let to = SocketAddr::from((Family::V4.server(), SSH));
                socket.connect_timeout(&to.into(), Duration::from_millis(900))
            });
            assert!(stream.is_ok(), "packet {number}: {stream:?}");
        }
        detach(&net.server);
    });
}

/// Each option of the client, and the result. The user's name has as many characters as fwknop admits.
#[test]
fn options_of_the_stock_client_are_understood() {
    wait_since_boot(250);
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH, WEB]);
        let keys = ClientKeys::new();
        let user = "x".repeat(63);
        let daemon = Daemon::start(&net.server, &keys.config(&format!("username = {user:?}\n")));
        let client = Family::V4.client().to_string();
        let ask = |words: &str| {
            let words: Vec<&str> = words.split(' ').collect();
            let mut command = fwknop(&keys, &[&["-n", "host"], &words[..]].concat());
            // The option -U cuts a name after 29 characters.
            command.env("SPOOF_USER", &user);
            let output = net.client.enter(|| command.output()).unwrap();
            assert!(output.status.success(), "{words:?}: {}", text(&output));
        };
        for (name, words, expected) in [
            (
                "another user",
                "-A tcp/22 -s -U carol",
                json!({"reason": "spa-not-allowed"}),
            ),
            (
                "no port of a door",
                "-A tcp/23 -s",
                json!({"reason": "spa-not-allowed", "ports": ["tcp/23"]}),
            ),
            (
                "a port of a door and another one",
                "-A tcp/22,tcp/24 -s",
                json!({"reason": "spa-not-allowed", "ports": ["tcp/24"]}),
            ),
            (
                "a slow clock",
                "-A tcp/22 -s --time-offset-minus 200sec",
                json!({"reason": "spa-stale"}),
            ),
            ("a command", "-C touch -s", json!({"reason": "spa-command"})),
            (
                "NAT",
                "-A tcp/22 -s -N 10.0.0.1:22",
                json!({"reason": "spa-nat"}),
            ),
            (
                "another HMAC",
                "-A tcp/22 -s --hmac-digest-type sha512",
                json!({"reason": "spa-unsigned"}),
            ),
        ] {
            ask(words);
            let event = daemon.wait_for_event(&expected);
            assert_eq!(event["event"], "denied", "{name}: {event}");
            assert_eq!(event["source"], client.as_str(), "{name}: {event}");
            if event["reason"] == "spa-stale" {
                let behind = event["seconds_behind"].as_i64();
                // The packet takes a moment.
                let is_right = behind.is_some_and(|behind| (199..240).contains(&behind));
                assert!(is_right, "{name}: {event}");
            }
            net.native(Family::V4).finds_closed(SSH, name);
        }
        let [other, timed] = [(); 2].map(|()| net.new_source(Family::V4));
        let native = net.native(Family::V4);
        for (name, words, source, opened) in [
            (
                "another source",
                format!("-A tcp/22 -a {}", other.name()),
                &other,
                &[("ssh", SSH, 30)][..],
            ),
            (
                "a fast clock",
                "-A tcp/22 -s --time-offset-plus 100sec".to_owned(),
                &native,
                &[("ssh", SSH, 30)],
            ),
            (
                "four ports, another digest, and a time that one of the doors admits",
                format!(
                    "-A tcp/22,tcp/80,udp/443,udp/500 -a {} -m sha512 -f 100",
                    timed.name()
                ),
                &timed,
                &[("ssh", SSH, 100), ("web", WEB, 30)],
            ),
        ] {
            ask(&words);
            for &(door, port, seconds) in opened {
                let event = daemon.wait_for_event(&json!({
                    "event": "opened", "source": source.name(), "door": door, "user": "bob",
                }));
                let given = event["seconds"].as_f64().unwrap();
                assert!((given - f64::from(seconds)).abs() < 0.5, "{name}: {event}");
                source.finds_open(port, name);
            }
        }
        daemon.stop();
    });
}

/// Where the packets of a user may come from, for whom they may ask, and until when.
#[test]
fn a_user_of_fwknop_is_limited_as_configured() {
    wait_since_boot(250);
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let keys = ClientKeys::new();
        let mut daemon = Daemon::start(&net.server, &keys.config(""));
        let native = net.native(Family::V4);
        let named = net.new_source(Family::V4);
        let name = named.name();
        let ask_for_other = ["-A", "tcp/22", "-a", &name];
        for (row, limit, arguments, source, refused) in [
            (
                "another source",
                "source = [\"203.0.113.0/24\"]",
                ASK_SSH,
                &native,
                Some("spa-forged"),
            ),
            (
                "no address, where one is needed",
                "bind = true",
                ASK_SSH,
                &native,
                Some("spa-elsewhere"),
            ),
            (
                "an expired user",
                "until = 2020-01-01",
                ASK_SSH,
                &native,
                Some("spa-expired"),
            ),
            (
                "an address, where one is needed",
                "bind = true",
                &ask_for_other[..],
                &named,
                None,
            ),
            (
                "one of the sources",
                "source = [\"203.0.113.0/24\", \"192.0.2.0/24\"]\nuntil = 2099-12-31",
                ASK_SSH,
                &native,
                None,
            ),
        ] {
            daemon.reload(&keys.config(&format!("{limit}\n")));
            send(net, &keys, arguments);
            match refused {
                Some(reason) => {
                    daemon.wait_for_event(&json!({"event": "denied", "reason": reason}));
                }
                None => {
                    daemon.wait_for_event(&json!({"event": "opened", "source": source.name()}));
                }
            }
            source.finds(refused.is_none(), SSH, row);
        }
        daemon.stop();
    });
}

#[test]
fn a_packet_without_hmac_opens_nothing() {
    wait_since_boot(250);
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let keys = ClientKeys::new();
        let daemon = Daemon::start(&net.server, &keys.config(""));
        let rc = fs::read_to_string(keys.rc()).unwrap();
        let without: String = rc
            .lines()
            .filter(|line| !line.contains("HMAC"))
            .map(|line| format!("{line}\n"))
            .collect();
        // The legacy mode derives another key, so no key of a user decrypts its packets.
        for (name, rc, options, reason) in [
            ("no HMAC", &without, &[][..], "spa-unsigned"),
            ("legacy", &without, &["-M", "legacy"], "spa-forged"),
            ("MD5", &rc, &["--hmac-digest-type", "md5"], "spa-unsigned"),
            (
                "SHA-1",
                &rc,
                &["--hmac-digest-type", "sha1"],
                "spa-unsigned",
            ),
            (
                "SHA-384",
                &rc,
                &["--hmac-digest-type", "sha384"],
                "spa-unsigned",
            ),
            (
                "SHA-512",
                &rc,
                &["--hmac-digest-type", "sha512"],
                "spa-unsigned",
            ),
        ] {
            fs::write(keys.rc(), rc).unwrap();
            let refused = json!({"event": "denied", "reason": reason});
            let before = daemon.events_like(&refused).len();
            send(net, &keys, &[ASK_SSH, options].concat());
            wait::until(&format!("the packet is reported: {name}"), || {
                daemon.events_like(&refused).len() > before
            });
            net.native(Family::V4).finds_closed(SSH, name);
        }
        daemon.stop();
    });
}

/// A recorded packet is used up for good: after a kill, a restart, a reload, and with the prefix that the client leaves
/// out.
#[test]
fn a_recorded_packet_opens_nothing() {
    wait_since_boot(250);
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let keys = ClientKeys::new();
        let mut daemon = Daemon::start(&net.server, &keys.config(""));
        let packet = packet(&keys, ASK_SSH);
        let [first, second] = [1, 2].map(|number| Family::V4.source(number));
        replay(net, first, &packet);
        daemon.wait_for_event(&json!({"event": "opened", "source": first.to_string()}));
        let is_refused = |name: &str, payload: &[u8]| {
            replay(net, second, payload);
            let source = net.source(second, Family::V4.server());
            source.finds_closed(SSH, name);
        };
        is_refused("at once", &packet);
        is_refused("with its prefix", &[b"U2FsdGVkX1", &packet[..]].concat());
        daemon.reload(&keys.config("until = 2099-12-31\n"));
        is_refused("after a reload", &packet);
        daemon.kill();
        is_refused("without a daemon", &packet);
        let daemon = Daemon::start(&net.server, &keys.config(""));
        is_refused("after a restart", &packet);
        daemon.leave(Signal::SIGTERM);
        detach(&net.server);
        let daemon = Daemon::start(&net.server, &keys.config(""));
        is_refused("after detach", &packet);
        daemon.stop();
    });
}

/// Two CPUs get each packet at the same time: it opens once. Fewer packets than an event limit hides.
#[test]
fn a_packet_that_arrives_twice_at_the_same_time_opens_once() {
    wait_since_boot(250);
    net::test(|net| {
        let keys = ClientKeys::new();
        let daemon = Daemon::start(&net.server, &keys.config(""));
        let for_one = |number| {
            let source = Family::V4.source(number).to_string();
            packet(&keys, &["-A", "tcp/22", "-a", &source])
        };
        let packets: Vec<_> = (1..=25).map(for_one).collect();
        let sources = [101, 102].map(|number| Family::V4.source(number));
        thread::scope(|scope| {
            for source in sources {
                let packets = &packets;
                scope.spawn(move || {
                    packets
                        .iter()
                        .for_each(|packet| replay(net, source, packet))
                });
            }
        });
        let count = |pattern: Value| daemon.events_like(&pattern).len();
        let replayed = || count(json!({"event": "denied", "reason": "spa-replayed"}));
        wait::until("each packet was judged twice", || {
            replayed() >= packets.len()
        });
        assert_eq!(count(json!({"event": "opened"})), packets.len());
        assert_eq!(count(json!({"event": "refreshed"})), 0);
        assert_eq!(replayed(), packets.len());
        daemon.stop();
    });
}

/// Keys that `fwknop --key-gen` makes, at both ends.
struct ClientKeys {
    directory: TempDir,
}

impl ClientKeys {
    fn new() -> Self {
        let keys = Self {
            directory: tempdir().unwrap(),
        };
        let made = fwknop(&keys, &["--key-gen"]).output().unwrap();
        assert!(made.status.success(), "{}", text(&made));
        fs::write(keys.file(), &made.stdout).unwrap();
        let printed = String::from_utf8(made.stdout).unwrap();
        let lines = printed.lines().filter(|line| line.contains("KEY"));
        let rc: String = lines.map(|line| line.replace(':', " ") + "\n").collect();
        let rc = format!("[host]\nSPA_SERVER 192.0.2.2\nUSE_HMAC Y\n{rc}");
        fs::write(keys.rc(), rc).unwrap();
        keys
    }

    fn file(&self) -> String {
        self.directory
            .path()
            .join("bob.fwknop")
            .display()
            .to_string()
    }

    fn rc(&self) -> String {
        self.directory.path().join("rc").display().to_string()
    }

    /// Returns a configuration with two doors that nobody knocks at.
    fn config(&self, user: &str) -> String {
        let file = self.file();
        format!(
            "[[door]]\nname = \"ssh\"\nopen = [\"tcp/22\"]\nopen_for_max = \"2m\"\n\
             [[door]]\nname = \"web\"\nopen = [\"tcp/80\", \"udp/443\", \"udp/500\"]\n\
             [[user]]\nname = \"bob\"\nfwknop = \"{file}\"\ndoors = [\"ssh\", \"web\"]\n{user}"
        )
    }
}

/// Returns the stock client, without the files of the user who runs the tests.
fn fwknop(keys: &ClientKeys, arguments: &[&str]) -> Command {
    let mut command = Command::new("fwknop");
    let home = keys.directory.path();
    command.arg("--rc-file").arg(keys.rc());
    command.args(arguments).env("HOME", home).current_dir(home);
    command
}

fn send(net: &Net, keys: &ClientKeys, arguments: &[&str]) -> Output {
    let stanza = ["-n", "host"];
    let output = net
        .client
        .enter(|| fwknop(keys, &[&stanza, arguments].concat()).output())
        .unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", text(&output));
    output
}

/// Waits until packets are accepted: after a boot without a record of used packets, those that may have been used are
/// refused.
fn wait_since_boot(seconds: u64) {
    let is_long_ago = || now().unwrap().millis() > seconds * 1_000;
    wait::poll(Duration::from_secs(seconds), || is_long_ago().then_some(()));
    assert!(is_long_ago(), "{seconds} s since the boot");
}

/// Returns the packet that the client would send.
fn packet(keys: &ClientKeys, arguments: &[&str]) -> Vec<u8> {
    let file = keys.directory.path().join("packet");
    let _result = fs::remove_file(&file);
    let path = file.display().to_string();
    let common = ["-n", "host", "--test", "--save-packet", &path];
    let output = fwknop(keys, &[&common, arguments].concat())
        .output()
        .unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", text(&output));
    fs::read(Path::new(&file)).unwrap().trim_ascii().to_vec()
}

fn replay(net: &Net, source: IpAddr, packet: &[u8]) {
    net.client.enter(|| {
        let socket = UdpSocket::bind((source, 0)).unwrap();
        socket.send_to(packet, (Family::V4.server(), PORT)).unwrap();
    });
}
