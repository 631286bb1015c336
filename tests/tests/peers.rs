//! Doors opened with common programs: knockd's `knock`, `nmap`, `hping3`, `nc`, a shell.

use knock_tests::{
    daemon::Daemon,
    namespace::text,
    net::{self, Family, Net},
    server::Server,
};
use serde_json::json;

const SSH: u16 = 22;

const WEB: u16 = 80;

const CONFIG: &str = r#"
    [[door]]
    name = "ssh"
    knock = ["tcp/7000", "udp/8000", "tcp/9000"]
    open = ["tcp/22"]
    [[door]]
    name = "away"
    knock = ["tcp/9100", "tcp/7100", "tcp/8100"]
    close = ["tcp/22"]
"#;

const V4_ONLY: &[Family] = &[Family::V4];

const BOTH: &[Family] = &Family::ALL;

const CLIENTS: &[Client] = &[
    Client {
        name: "knock",
        families: BOTH,
        commands: |_, host| vec![format!("knock {host} 7000:tcp 8000:udp 9000:tcp")],
    },
    Client {
        name: "knock, with a delay",
        families: BOTH,
        commands: |family, host| {
            let flag = family.pick("-4", "-6");
            vec![format!("knock {flag} -d 100 {host} 7000 8000:udp 9000")]
        },
    },
    Client {
        name: "nmap",
        families: BOTH,
        commands: |family, host| {
            let scan = |kind: &str, port: u16| {
                let flag = family.pick("", "-6");
                format!("nmap {flag} -n -Pn --max-retries 0 {kind} -p {port} {host}")
            };
            vec![scan("-sS", 7000), scan("-sU", 8000), scan("-sS", 9000)]
        },
    },
    Client {
        name: "hping3",
        // It does not support IPv6.
        families: V4_ONLY,
        commands: |_, host| {
            let packet = |kind: &str, port: u16| format!("hping3 {kind} -c 1 -p {port} {host}");
            vec![packet("-S", 7000), packet("-2", 8000), packet("-S", 9000)]
        },
    },
    Client {
        name: "nc",
        families: BOTH,
        commands: |_, host| {
            let syn = |port: u16| format!("nc -z -w1 {host} {port}");
            let datagram = format!("echo | nc -u -w1 {host} 8000");
            vec![syn(7000), datagram, syn(9000)]
        },
    },
    Client {
        name: "a shell",
        families: BOTH,
        commands: |_, host| {
            let to = |protocol: &str, port: u16| {
                format!("timeout 0.2 bash -c 'echo > /dev/{protocol}/{host}/{port}'")
            };
            vec![to("tcp", 7000), to("udp", 8000), to("tcp", 9000)]
        },
    },
];

#[test]
fn common_clients_open_the_door() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH, WEB]);
        let daemon = Daemon::start(&net.server, CONFIG);
        for client in CLIENTS {
            for &family in client.families {
                let row = format!("{}, {family}", client.name);
                let source = net.native(family);
                let host = family.server().to_string();
                source.finds_closed(SSH, &row);
                for command in (client.commands)(family, &host) {
                    run(net, &command);
                }
                drop(source.finds_open(SSH, &row));
                daemon.wait_for_event(
                    &json!({"event": "opened", "source": source.name(), "door": "ssh"}),
                );
                source.knock("tcp/9100 tcp/7100 tcp/8100");
                source.finds_closed(SSH, &row);
            }
        }
        daemon.stop();
    });
}

#[test]
fn nmap_sees_a_port_only_when_it_is_open() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH, WEB]);
        let daemon = Daemon::start(&net.server, CONFIG);
        for family in Family::ALL {
            let seen = |port| state(net, family, port);
            let rows = [
                (SSH, "filtered"),
                (7000, "filtered"),
                (WEB, "open"),
                (81, "closed"),
            ];
            for (port, expected) in rows {
                assert_eq!(seen(port), expected, "{family}: {port} before");
            }
            net.native(family).knock("tcp/7000 udp/8000 tcp/9000");
            let rows = [(SSH, "open"), (7000, "filtered"), (9000, "filtered")];
            for (port, expected) in rows {
                assert_eq!(seen(port), expected, "{family}: {port} after");
            }
        }
        daemon.stop();
    });
}

#[test]
fn nc_talks_through_an_open_door() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let daemon = Daemon::start(&net.server, CONFIG);
        for family in Family::ALL {
            let host = family.server();
            let talk = format!("echo hello | nc -N -w 2 {host} 22");
            let shell = |script: &str| text(&net.client.try_run("bash", &["-c", script]));
            assert_eq!(shell(&talk), "", "{family}: closed");
            let knock = format!("knock {host} 7000 8000:udp 9000 && {talk}");
            assert_eq!(shell(&knock), "hello\n", "{family}: open, with no pause");
        }
        daemon.stop();
    });
}

/// A client: a shell command for each knock, or for all at once.
struct Client {
    name: &'static str,
    families: &'static [Family],
    commands: fn(family: Family, host: &str) -> Vec<String>,
}

/// Runs a command, which may fail: a knock is never answered.
fn run(net: &Net, command: &str) -> String {
    let output = net.client.try_run("bash", &["-c", command]);
    let printed = text(&output);
    let usage = [
        "unrecognized option",
        "invalid option",
        "QUITTING",
        "Usage:",
        "usage:",
    ];
    let is_usage = usage.iter().any(|word| printed.contains(word));
    assert!(!is_usage, "`{command}`: {printed}");
    printed
}

/// Returns the state of a port by nmap.
#[track_caller]
fn state(net: &Net, family: Family, port: u16) -> String {
    let flag = family.pick("", "-6");
    let host = family.server();
    let report = run(net, &format!("nmap {flag} -n -Pn -sS -p {port} {host}"));
    let line = report
        .lines()
        .find(|line| line.starts_with(&format!("{port}/tcp")));
    let state = line.and_then(|line| line.split_whitespace().nth(1));
    state
        .map(ToOwned::to_owned)
        .unwrap_or_else(|| panic!("no state of {port}: {report}"))
}
