//! Single packet authorization: how the client uses the host's answer.

#![expect(clippy::expect_used, reason = "a test stops at what it did not expect")]

mod peers;

use knock_common::reason::Reason;
use peers::machine::{ClientMachine, content_of, ended, outcome};
use peers::spa::AnswerContent;
use peers::{LOOPBACKS, ReservedPort, SilentPort};
use std::time::{Duration, Instant};

#[test]
fn the_answer_decides_about_the_exit_code() {
    let machine = ClientMachine::new(LOOPBACKS[0]);
    let minute = 60_000_000_000;
    type Row<'a> = (&'a str, &'a [&'a str], AnswerContent, i32, &'a str, &'a str);
    let rows: [Row<'_>; 14] = [
        (
            "opened",
            &["--door", "ssh"],
            outcome(Reason::Opened, 22, 30),
            0,
            "the door ssh on 127.0.0.1 is open for 30s for 127.0.0.1 (tcp/22)\n",
            "",
        ),
        (
            "refreshed, without a TCP port",
            &[],
            outcome(Reason::Refreshed, 0, 90),
            0,
            "the door on 127.0.0.1 is open for 1m30s for 127.0.0.1\n",
            "",
        ),
        (
            "closed",
            &["--door", "ssh", "--close"],
            outcome(Reason::Closed, 22, 0),
            0,
            "the door ssh on 127.0.0.1 is closed for 127.0.0.1\n",
            "",
        ),
        (
            "no room",
            &[],
            outcome(Reason::GrantsFull, 0, 0),
            1,
            "",
            "knock-client: 127.0.0.1 has no room for another grant: try again later\n",
        ),
        (
            "another reason",
            &["--door", "ssh"],
            outcome(Reason::Decoy, 0, 0),
            1,
            "",
            "knock-client: 127.0.0.1 does not open the door ssh: it answers decoy; see its log\n",
        ),
        (
            "a reason of the future",
            &[],
            AnswerContent {
                outcome: 255,
                ..outcome(Reason::Opened, 0, 0)
            },
            1,
            "",
            "knock-client: 127.0.0.1 does not open the door: it answers a reason that this version of \
             knock-client does not know; see its log\n",
        ),
        (
            "another user's door",
            &["--door", "wiki"],
            outcome(Reason::SpaNotAllowed, 0, 0),
            1,
            "",
            "knock-client: 127.0.0.1 does not open the door wiki for this key: name another door with --door, \
             or have its administrator add the door to this key's user\n",
        ),
        (
            "another address",
            &["--source", "203.0.113.7"],
            outcome(Reason::SpaElsewhere, 0, 0),
            1,
            "",
            "knock-client: 127.0.0.1 opens the door only for the address that the packet comes from, which is \
             127.0.0.1 there and not 203.0.113.7: send it again with --source 127.0.0.1\n",
        ),
        (
            "no address",
            &[],
            outcome(Reason::SpaElsewhere, 0, 0),
            1,
            "",
            "knock-client: 127.0.0.1 opens the door only for an address that the packet names: send it again \
             with --source 127.0.0.1, which this machine's address is there\n",
        ),
        (
            "an expired key",
            &[],
            outcome(Reason::SpaExpired, 0, 0),
            1,
            "",
            "knock-client: this key or its user has expired on 127.0.0.1: ask its administrator for a later \
             date\n",
        ),
        (
            "a stale packet",
            &[],
            AnswerContent {
                time: 200_000_000_000,
                ..outcome(Reason::SpaStale, 0, 0)
            },
            1,
            "",
            "knock-client: this machine's clock is 3m20s earlier than that of 127.0.0.1: set the clock, then try \
             again\n",
        ),
        (
            "a shorter time than asked for",
            &["--for", "2h"],
            outcome(Reason::Opened, 0, 30),
            0,
            "the door on 127.0.0.1 is open for 30s for 127.0.0.1\n127.0.0.1 opens the door for 30s, and not for \
             2h as --for asks: its open_for_max, or the end of this key, allows no more\n",
            "",
        ),
        (
            "as long as asked for",
            &["--for", "30s"],
            outcome(Reason::Opened, 0, 30),
            0,
            "the door on 127.0.0.1 is open for 30s for 127.0.0.1\n",
            "",
        ),
        (
            "a clock that is behind",
            &[],
            AnswerContent {
                time: minute,
                ..outcome(Reason::Opened, 0, 30)
            },
            0,
            "the door on 127.0.0.1 is open for 30s for 127.0.0.1\nthis machine's clock is 1m earlier than \
             that of 127.0.0.1: set it, since packets are refused if clocks differ by more than 30s, or what \
             the host has as its window\n",
            "",
        ),
    ];
    for (name, words, content, code, out, err) in rows {
        let found = machine.is_answered(words, content);
        assert_eq!(
            (found.out.as_str(), found.err.as_str()),
            (out, err),
            "{name}"
        );
        assert_eq!(found.code, Some(code), "{name}");
    }
}

#[test]
fn only_the_hosts_own_answer_counts() {
    let machine = ClientMachine::new(LOOPBACKS[0]);
    let earlier = {
        let child = machine.start(&[]);
        let opened = machine.host.receive();
        let content = content_of(&opened, outcome(Reason::Opened, 22, 30));
        machine.host.answer(&opened, content);
        assert_eq!(ended(child).code, Some(0));
        machine.host.sealed(&opened, content)
    };
    let child = machine.start(&["--timeout", "300ms"]);
    let opened = machine.host.receive();
    machine.host.send(&opened, &earlier);
    machine.host.send(&opened, &opened.datagram);
    machine.host.send(&opened, b"22");
    let found = ended(child);
    assert_eq!(found.code, Some(1), "{}", found.out);
    let expected = format!(
        "knock-client: no answer from udp/{} on 127.0.0.1",
        machine.host.port()
    );
    assert!(found.err.starts_with(&expected), "{}", found.err);
}

#[test]
fn a_closed_port_is_reported_at_the_end() {
    let machine = ClientMachine::new(LOOPBACKS[0]);
    // Below the ephemeral ports, because the system could give a freed one to another test.
    let nobody = "1";
    let key = machine.host.key();
    let words = [
        "127.0.0.1",
        "--spa",
        &key,
        "--port",
        nobody,
        "--timeout",
        "100ms",
    ];
    let found = ended(machine.command(&words).spawn().expect("the command runs"));
    assert_eq!(found.code, Some(1));
    let expected = format!(
        "knock-client: udp/{nobody} on 127.0.0.1 is closed: knock-user does not run there, "
    );
    assert!(found.err.starts_with(&expected), "{}", found.err);
}

#[test]
fn a_retry_sends_another_packet() {
    let machine = ClientMachine::new(LOOPBACKS[0]);
    let child = machine.start(&["--retries", "2", "--timeout", "100ms"]);
    let [first, second] = [0; 2].map(|_| machine.host.receive());
    assert!(first.stamp < second.stamp);
    assert_ne!(first.datagram[..72], second.datagram[..72]);
    machine.host.answer(
        &second,
        content_of(&second, outcome(Reason::Opened, 22, 30)),
    );
    let found = ended(child);
    assert_eq!(found.code, Some(0), "{}", found.err);
    assert!(
        found
            .out
            .starts_with("sending another packet, 1 of 2: no answer from "),
        "{}",
        found.out
    );
    assert!(machine.host.is_silent());
}

#[test]
fn the_connection_is_made_behind_the_packet() {
    for ip in LOOPBACKS {
        let machine = ClientMachine::new(ip);
        let door = ReservedPort::new(ip);
        let port = door.port();
        let child = machine.start(&["--then-connect", &port.to_string(), "-v"]);
        let opened = machine.host.receive();
        assert_eq!(opened.action, 0x80, "an answer is wanted");
        let _listener = door.open();
        let found = ended(child);
        assert_eq!(found.code, Some(0), "without an answer, too: {}", found.err);
        let line = format!("connected to tcp/{port} on {ip} ");
        assert!(found.out.contains(&line), "{}", found.out);
        assert!(
            found.out.contains(" ms after the packet (attempt "),
            "{}",
            found.out
        );
    }
}

#[test]
fn a_refusal_ends_the_attempts_to_connect() {
    let machine = ClientMachine::new(LOOPBACKS[0]);
    let silent = SilentPort::new(machine.ip);
    let port = silent.port().to_string();
    let begin = Instant::now();
    let words = ["--then-connect", &port, "--timeout", "60s"];
    let found = machine.is_answered(&words, outcome(Reason::Decoy, 0, 0));
    assert_eq!(found.code, Some(1));
    assert!(
        found
            .err
            .contains("does not open the door: it answers decoy"),
        "{}",
        found.err
    );
    assert!(
        begin.elapsed() < Duration::from_secs(30),
        "it did not wait for the timeout"
    );

    let words = ["--then-connect", &port, "--timeout", "200ms"];
    let found = machine.is_answered(&words, outcome(Reason::Opened, 22, 30));
    assert_eq!(found.code, Some(1));
    let expected = format!(
        "knock-client: the door on 127.0.0.1 is open for 30s for 127.0.0.1 (tcp/22), but tcp/{port} does not \
         answer within 200ms: check that the door opens this port, and firewalls on the way\n"
    );
    assert_eq!(found.err, expected);
}

#[test]
fn the_answer_names_the_port() {
    let machine = ClientMachine::new(LOOPBACKS[0]);
    let door = ReservedPort::new(machine.ip);
    let port = door.port();
    let _listener = door.open();
    let words = ["--then-connect", "reply"];
    let found = machine.is_answered(&words, outcome(Reason::Opened, port, 30));
    assert_eq!(found.code, Some(0), "{}", found.err);
    assert!(
        found
            .out
            .starts_with(&format!("connected to tcp/{port} on 127.0.0.1")),
        "{}",
        found.out
    );

    let found = machine.is_answered(&words, outcome(Reason::Opened, 0, 30));
    assert_eq!(found.code, Some(1));
    let expected = "knock-client: the door is open, but 127.0.0.1 names no TCP port of it: name one with \
                    --then-connect PORT\n";
    assert_eq!(found.err, expected);
}

#[test]
fn json_has_the_packet_and_the_answer() {
    let machine = ClientMachine::new(LOOPBACKS[0]);
    let words = [
        "--json",
        "--door",
        "ssh",
        "--for",
        "10m",
        "--source",
        "203.0.113.7",
    ];
    let found = machine.is_answered(&words, outcome(Reason::Opened, 22, 30));
    assert_eq!(found.code, Some(0), "{}", found.err);
    let mut lines = found
        .out
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("an object"));
    let packet = serde_json::json!({
        "event": "packet", "protocol": "udp", "port": machine.host.port(), "address": "127.0.0.1",
        "action": "open", "door": "ssh", "seconds": 600, "source": "203.0.113.7",
    });
    assert_eq!(lines.next(), Some(packet));
    let mut answered = lines.next().expect("a line");
    for field in ["after_us", "clock_ahead_ms"] {
        let value = answered
            .as_object_mut()
            .and_then(|object| object.remove(field));
        assert!(value.is_some_and(|value| value.is_i64()), "{field}");
    }
    let expected = serde_json::json!({
        "event": "answered", "outcome": "opened", "port": 22, "seconds": 30, "source": "127.0.0.1",
        "address": "127.0.0.1",
    });
    assert_eq!(answered, expected);
    assert_eq!(lines.next(), None);
}
