//! Doors with `reply = true`: a client that has knocked correctly gets the opened port, and no other source does.
#![expect(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

use std::{net::UdpSocket, process::Command, time::Duration};

use knock_tests::{
    binary::binaries,
    daemon::{Daemon, ask},
    namespace::text,
    net::{self, CLIENT_LINK, Family, Net},
    other_end::OtherEnd,
    server::Server,
    source::Source,
};
use serde_json::json;

const CONFIG: &str = r#"
    [[door]]
    name = "udp"
    reply = true
    knock = ["udp/7000", "tcp/9000", "udp/8000"]
    open = ["udp/53", "tcp/2222", "tcp/22"]
    [[door]]
    name = "tcp"
    reply = true
    knock = ["udp/7100", "tcp/9100", "tcp/8100"]
    open = ["tcp/22"]
    [[door]]
    name = "proved"
    verify = "handshake"
    reply = true
    knock = ["tcp/7200", "tcp/9200", "tcp/8200"]
    open = ["tcp/80"]
    [[door]]
    name = "silent"
    knock = ["udp/7300", "udp/9300", "udp/8300"]
    open = ["tcp/23"]
    [[door]]
    name = "short"
    reply = true
    knock = ["udp/7400", "udp/6400"]
    open = ["tcp/22"]
    sequence_timeout = "300ms"
"#;
/// How long to wait for an answer that must not arrive.
const NOTHING: Duration = Duration::from_millis(60);
const LONG: Duration = Duration::from_secs(10);

#[test]
fn the_client_connects_to_the_replied_port() {
    let rows = [
        ("udp", "udp/7000 tcp/9000 udp/8000", "", 2222),
        ("tcp", "udp/7100 tcp/9100 tcp/8100", "", 22),
        ("proved", "tcp/7200 tcp/9200 tcp/8200", "--handshake", 80),
    ];
    test(|net, daemon| {
        for family in Family::ALL {
            let host = family.server();
            for (door, knocks, options, port) in rows {
                let row = format!("{door}, {family}");
                let words = format!("{host} {knocks} {options} --then-connect reply -v");
                let (done, output) = client(net, &words);
                assert!(done, "{row}: {output}");
                let reply = format!("the reply is tcp/{port}, ");
                assert!(output.contains(&reply), "{row}: {output}");
                let connected = format!("connected to tcp/{port} on {host}");
                assert!(output.contains(&connected), "{row}: {output}");
                let source = net.native(family).name();
                daemon.wait_for_event(&json!({"event": "opened", "source": source, "door": door}));
                // The doors share a port, and a grant that is only refreshed is not replied to.
                let (code, output) = ask(&net.server, &["revoke", &source]);
                assert_eq!(code, Some(0), "{row}: {output}");
            }
        }
    });
}

#[test]
fn the_client_reports_that_no_reply_came() {
    let rows = [
        ("order", "udp/7000 udp/8000 tcp/9000"),
        ("one is missing", "udp/7000 udp/8000"),
        ("no reply", "udp/7300 udp/9300 udp/8300"),
    ];
    test(|net, _| {
        let host = Family::V4.server();
        for (name, knocks) in rows {
            let words = format!("{host} {knocks} --then-connect reply --timeout 300ms --json");
            let (done, output) = client(net, &words);
            assert!(!done, "{name}: {output}");
            assert!(
                output.contains("\"reason\":\"no_reply\""),
                "{name}: {output}"
            );
        }
    });
}

#[test]
fn only_a_whole_sequence_is_replied_to() {
    test(|net, _| {
        for family in Family::ALL {
            let port = || Some((8000, "2222".to_owned()));
            for (name, knocks, octets, reply) in [
                ("whole", &[7000, 9000, 8000][..], 8, port()),
                ("just long enough", &[7000, 9000, 8000], 4, port()),
                ("a byte too short", &[7000, 9000, 8000], 3, None),
                ("knockd's client", &[7000, 9000, 8000], 1, None),
                ("first", &[7000], 8, None),
                ("second", &[7000, 9000], 8, None),
                ("last", &[8000], 8, None),
                ("order", &[9000, 7000, 8000], 8, None),
                ("wrong in between", &[7000, 9000, 7300, 8000], 8, None),
                ("a door without a reply", &[7300, 9300, 8300], 8, None),
            ] {
                let source = net.new_source(family);
                let limit = if reply.is_some() { LONG } else { NOTHING };
                let row = format!("{name}, {family}");
                assert_eq!(reply_to(&source, knocks, octets, limit), reply, "{row}");
            }
            let source = net.new_source(family);
            source.knock("udp/7400 wait/400ms");
            assert_eq!(
                reply_to(&source, &[6400], 8, NOTHING),
                None,
                "too late, {family}"
            );
            // While the door is open, no second reply is sent.
            let whole = &[7000, 9000, 8000];
            assert_eq!(reply_to(&source, whole, 8, LONG), port(), "{family}");
            assert_eq!(reply_to(&source, whole, 8, NOTHING), None, "{family}");
            let (code, revoked) = ask(&net.server, &["revoke", &source.name()]);
            assert_eq!(code, Some(0), "{revoked}");
            assert_eq!(reply_to(&source, whole, 8, LONG), port(), "{family}");
        }
    });
}

/// Sources without a complete sequence get no reply, whatever arrives.
#[test]
fn a_grant_by_command_sends_no_reply() {
    test(|net, _| {
        let source = net.native(Family::V4);
        let (code, output) = ask(&net.server, &["grant", &source.name(), "--door", "udp"]);
        assert_eq!(code, Some(0), "{output}");
        drop(source.finds_open(2222, "granted"));
        assert_eq!(reply_to(&source, &[8000], 8, NOTHING), None);
    });
}

#[track_caller]
fn test(test: impl FnOnce(&Net, &Daemon)) {
    net::test(|net| {
        let other_end = OtherEnd::of(net);
        // As from a network: behind the driver, a frame whose checksum is not computed yet can't be turned into one of
        // another protocol.
        net.offload(CLIENT_LINK, &["tx"], false);
        let _server = Server::tcp(&net.server, &[22, 23, 80, 2222]);
        let daemon = Daemon::start(&net.server, CONFIG);
        test(net, &daemon);
        daemon.stop();
        drop(other_end);
    });
}

/// Returns the client with these arguments, and without the profiles of the user who runs the tests.
fn client(net: &Net, words: &str) -> (bool, String) {
    let mut command = Command::new(&binaries().client);
    command.args(words.split_whitespace());
    command.env("XDG_CONFIG_HOME", "/nonexistent");
    let output = net.client.enter(|| command.output()).unwrap();
    (output.status.success(), text(&output))
}

/// Knocks from one socket, with this many octets in each datagram.
fn reply_to(
    source: &Source<'_>,
    knocks: &[u16],
    octets: usize,
    limit: Duration,
) -> Option<(u16, String)> {
    let reply = source.namespace.enter(|| {
        let socket = UdpSocket::bind((source.from, 0))?;
        for &port in knocks {
            match port {
                9000 => source.knock("tcp/9000"),
                _ => drop(socket.send_to(&vec![0; octets], (source.to, port))?),
            }
        }
        socket.set_read_timeout(Some(limit))?;
        let mut buffer = [0; 64];
        let (length, from) = socket.recv_from(&mut buffer)?;
        assert_eq!(from.ip(), source.to);
        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
        Ok::<_, std::io::Error>((from.port(), text))
    });
    reply.ok()
}
