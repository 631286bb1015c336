//! Metrics: served over HTTP, printed, written to a file, and read by a stock Prometheus and node_exporter.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails with the test")]

mod stock;

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
};

use knock_tests::{
    daemon::{self, Daemon},
    namespace::Namespace,
    net::{self, Family, Net},
    ssh::{DOOR, KNOCKS},
    wait,
};
use serde_json::json;
use tempfile::TempDir;

use self::stock::promtool_accepts;

/// The daemon's page, on the loopback interface of the server's namespace.
const AT: &str = "127.0.0.1:9482";
const METRICS: &str = "[metrics]\nlisten = \"127.0.0.1:9482\"\n";
/// What Prometheus sends.
const ACCEPT: &str = "application/openmetrics-text;version=1.0.0,\
                      application/openmetrics-text;version=0.0.1;q=0.75,\
                      text/plain;version=0.0.4;q=0.5,*/*;q=0.1";

#[test]
fn both_formats_pass_the_checks_of_prometheus() {
    net::test(|net| {
        let daemon = start(net);
        let classic = page(&net.server, "");
        promtool_accepts(&classic);
        assert_eq!(value(&classic, "knock_in_force"), Some(1.0));
        let openmetrics = page(&net.server, ACCEPT);
        assert!(openmetrics.ends_with("\n# EOF\n"), "{openmetrics}");
        let printed = print(net, &[]);
        promtool_accepts(&printed);
        assert_eq!(names(&printed), names(&classic));
        assert!(print(net, &["--format", "openmetrics"]).ends_with("\n# EOF\n"));

        // What is left without a process, too.
        daemon.kill();
        let alone = print(net, &[]);
        promtool_accepts(&alone);
        assert_eq!(value(&alone, "knock_process_up"), Some(0.0));
        assert_eq!(value(&alone, "knock_doors"), Some(1.0));
        let state = "knock_interface_state{interface=\"eth0\",state=\"protected\"}";
        let eth0 = |text: &str| value(&text.replace(net::SERVER_LINK, "eth0"), state);
        assert_eq!(eth0(&alone), Some(1.0), "{alone}");
        daemon::detach(&net.server);
    });
}

#[test]
fn a_knock_is_counted_by_door_and_command() {
    net::test(|net| {
        let text = format!(
            "{METRICS}{DOOR}\n    on_open = [\"/bin/true\"]\n    on_close = [\"/bin/false\"]\n"
        );
        let daemon = Daemon::start(&net.server, &text);
        let client = net.new_source(Family::V4);
        client.knock(KNOCKS);
        daemon.wait_for_event(&json!({"event": "opened", "source": client.name()}));
        let command = "knock_commands_total{door=\"ssh\",command=\"on_open\",outcome=\"success\"}";
        wait_for(net, command, 1.0);
        wait_for(net, "knock_door_openings_total{door=\"ssh\"}", 1.0);
        wait_for(net, "knock_grants{door=\"ssh\"}", 1.0);
        wait_for(
            net,
            "knock_packets_total{reason=\"opened\",verdict=\"drop\"}",
            1.0,
        );
        let (code, output) = daemon::ask(&net.server, &["revoke", &client.name()]);
        assert_eq!(code, Some(0), "{output}");
        wait_for(net, "knock_grants{door=\"ssh\"}", 0.0);
        wait_for(
            net,
            "knock_door_closings_total{door=\"ssh\",ending=\"revoked\"}",
            1.0,
        );
        let command = "knock_commands_total{door=\"ssh\",command=\"on_close\",outcome=\"failure\"}";
        wait_for(net, command, 1.0);
        // No source is in a label.
        assert!(!page(&net.server, "").contains(&client.name()));
        daemon.stop();
    });
}

#[test]
fn a_reload_moves_and_ends_the_page() {
    net::test(|net| {
        let mut daemon = start(net);
        let is_served =
            |at: &str| response(&net.server, at, "GET /metrics HTTP/1.0\r\n\r\n").is_some();
        assert!(is_served(AT));
        daemon.reload(&format!("[metrics]\nlisten = \"[::1]:9483\"\n{DOOR}"));
        wait::until("the page is at another address", || is_served("[::1]:9483"));
        assert!(!is_served(AT));
        daemon.reload(DOOR);
        wait::until("there is no page", || !is_served("[::1]:9483"));
        daemon.stop();
    });
}

#[test]
fn connections_that_send_nothing_do_not_end_the_page() {
    net::test(|net| {
        let daemon = start(net);
        let at: SocketAddr = AT.parse().unwrap();
        let idle: Vec<_> = net
            .server
            .enter(|| (0..64).map(|_| TcpStream::connect(at).unwrap()).collect());
        wait::until("the page is served", || {
            response(&net.server, AT, "GET /metrics HTTP/1.0\r\n\r\n")
                .is_some_and(|response| response.contains("knock_in_force 1"))
        });
        drop(idle);
        // The daemon still answers and ends.
        let (code, output) = daemon::ask(&net.server, &["status"]);
        assert_eq!(code, Some(0), "{output}");
        daemon.stop();
    });
}

#[test]
fn a_page_that_others_can_read_is_a_warning() {
    net::test(|net| {
        for (name, listen, warned) in [
            ("loopback", "127.0.0.1:9482", false),
            ("every address", "0.0.0.0:9482", true),
            ("every address, behind a door", "0.0.0.0:22", false),
        ] {
            let daemon = Daemon::start(
                &net.server,
                &format!("[metrics]\nlisten = \"{listen}\"\n{DOOR}"),
            );
            let expected = "can read the metrics, which name doors and users";
            let link = format!("through the protected {}", net::SERVER_LINK);
            let ended = daemon.stop();
            assert_eq!(
                ended.stderr.contains(expected),
                warned,
                "{name}: {}",
                ended.stderr
            );
            assert_eq!(
                ended.stderr.contains(&link),
                warned,
                "{name}: {}",
                ended.stderr
            );
        }
    });
}

#[test]
fn a_file_is_replaced_in_one_step() {
    net::test(|net| {
        let daemon = start(net);
        let directory = TempDir::new().unwrap();
        let file = directory.path().join("knock.prom");
        fs::write(&file, "old\n").unwrap();
        let (code, output) =
            daemon::ask(&net.server, &["metrics", "--out", file.to_str().unwrap()]);
        assert_eq!((code, output.as_str()), (Some(0), ""));
        let text = fs::read_to_string(&file).unwrap();
        promtool_accepts(&text);
        assert_eq!(value(&text, "knock_process_up"), Some(1.0));
        let missing = directory.path().join("none/knock.prom");
        let (code, output) = daemon::ask(
            &net.server,
            &["metrics", "--out", missing.to_str().unwrap()],
        );
        assert_eq!(code, Some(1), "{output}");
        assert!(output.contains("knock.prom can't be written"), "{output}");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        daemon.stop();
    });
}

/// The loop answers, and ends grants, while pages with many doors and grants are made.
#[test]
fn ten_thousand_grants_and_doors_are_counted() {
    const GRANTS: u32 = 10_000;
    net::test(|net| {
        let mut text = METRICS.to_owned();
        for door in 0..1_000_u32 {
            let [a, b] = [10_000 + door, 20_000 + door];
            text += &format!(
                "[[door]]\nname = \"d{door}\"\nknock = [\"tcp/{a}\", \"udp/{b}\", \"tcp/9001\"]\nopen = [\"tcp/22\"]\n"
            );
        }
        text += DOOR;
        let daemon = Daemon::start(&net.server, &text);
        let instance = knock_tests::pins::instance(&net.server);
        let mut allow = knock_tests::pins::allow(&instance);
        let (code, output) = daemon::ask(
            &net.server,
            &["grant", "192.0.2.77", "--door", "ssh", "--for", "1h"],
        );
        assert_eq!(code, Some(0), "{output}");
        let given = allow.iter().next().unwrap().unwrap();
        let (key, word) = (given.0.0, given.1.0);
        for number in 1..GRANTS {
            let source = std::net::IpAddr::from(std::net::Ipv4Addr::from(0x0a00_0000 + number));
            let key = knock_common::layout::GrantKey {
                source: source.into(),
                ..key
            };
            let grant = knock_common::grant::Grant {
                until_ms: u64::MAX >> 16,
                ..knock_common::grant::Grant::from_word(word)
            };
            knock_user::kernel::maps::raise(&mut allow, key, grant).unwrap();
        }
        wait_for(
            net,
            "knock_table_entries{table=\"grants\"}",
            f64::from(GRANTS),
        );
        // A sweep of the daemon finds them.
        wait_for(net, "knock_grants{door=\"ssh\"}", f64::from(GRANTS));
        let page = page(&net.server, "");
        let doors = page.matches("\nknock_door_openings_total{").count();
        assert_eq!(doors, 1_001);
        promtool_accepts(&page);
        daemon.stop();
    });
}

fn start(net: &Net) -> Daemon {
    let daemon = Daemon::start(&net.server, &format!("{METRICS}{DOOR}"));
    wait::until("the page is served", || {
        response(&net.server, AT, "GET / HTTP/1.0\r\n\r\n").is_some()
    });
    daemon
}

/// Returns the response of a server; none if nothing listens there.
fn response(namespace: &Namespace, at: &str, request: &str) -> Option<String> {
    let at: SocketAddr = at.parse().unwrap();
    namespace.enter(|| {
        let mut stream = TcpStream::connect(at).ok()?;
        stream.set_read_timeout(Some(wait::PATIENCE)).ok()?;
        stream.write_all(request.as_bytes()).ok()?;
        let mut response = String::new();
        stream.read_to_string(&mut response).ok()?;
        Some(response)
    })
}

#[track_caller]
fn page(namespace: &Namespace, accept: &str) -> String {
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {AT}\r\nAccept: {accept}\r\n\r\n");
    let response = response(namespace, AT, &request).unwrap();
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{response}");
    body.to_owned()
}

#[track_caller]
fn print(net: &Net, arguments: &[&str]) -> String {
    let (code, text) = daemon::ask(&net.server, &[&["metrics"], arguments].concat());
    assert_eq!(code, Some(0), "{text}");
    text
}

fn value(text: &str, series: &str) -> Option<f64> {
    text.lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}

/// Returns the names of families.
fn names(text: &str) -> Vec<&str> {
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    types.collect()
}

/// Waits until a series of the page has a value; pages are made once a second.
#[track_caller]
fn wait_for(net: &Net, series: &str, expected: f64) {
    let found = wait::poll(wait::PATIENCE, || {
        value(&page(&net.server, ""), series).filter(|found| *found == expected)
    });
    assert!(
        found.is_some(),
        "{series} is not {expected}:\n{}",
        page(&net.server, "")
    );
}
