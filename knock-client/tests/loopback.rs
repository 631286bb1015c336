//! Knocks and connections over loopback, without root.

#![expect(clippy::expect_used, reason = "a test stops at what it did not expect")]

mod peers;

use knock_client::{Destination, FailedConnect, Knock, Protocol, connect, send};
use peers::{KnockPort, LOOPBACKS, OpenPort, ReservedPort};
use std::net::{IpAddr, TcpListener};
use std::thread;
use std::time::{Duration, Instant};

const GENEROUS: Duration = Duration::from_secs(10);

/// Each datagram arrives right after its knock was sent, before later ones.
#[test]
fn datagrams_of_one_byte_arrive_in_order() {
    for ip in LOOPBACKS {
        let knock_ports: Vec<KnockPort> = (0..4).map(|_| KnockPort::bind(ip)).collect();
        let knocks: Vec<Knock> = knock_ports
            .iter()
            .map(|knock_port| udp(knock_port.port()))
            .collect();

        send(&target(ip), &knocks, Duration::ZERO, |number, knock| {
            assert_eq!(knock, knocks[number - 1], "{ip}");
            assert_eq!(
                knock_ports[number - 1].receive(),
                [0],
                "{ip}, knock {number}"
            );
            for later in &knock_ports[number - 1..] {
                assert!(
                    later.is_silent(),
                    "{ip}, something came after or before knock {number}"
                );
            }
        })
        .expect("loopback can be knocked on");
    }
}

/// The ports are unused, so ICMP refuses each datagram, and a reset each TCP knock.
#[test]
fn refused_knocks_are_sent() {
    for ip in LOOPBACKS {
        let nobody = ReservedPort::new(ip);
        let port = nobody.port();
        let knocks = [udp(port), udp(port), tcp(port), tcp(port), udp(port)];
        let mut sent = Vec::new();

        send(&target(ip), &knocks, Duration::ZERO, |number, knock| {
            sent.push((number, knock))
        })
        .expect("a refusal is an answer");

        let all: Vec<(usize, Knock)> = (1..).zip(knocks).collect();
        assert_eq!(sent, all, "{ip}");
    }
}

/// The handshake can complete after the client has closed its socket; the listener then gets no
/// connection, so the client may knock again.
#[test]
fn a_listener_sees_a_connection() {
    for ip in LOOPBACKS {
        let listener = OpenPort::new(ip);
        let knocks = [tcp(listener.port())];
        let received = (0..20).any(|_| {
            send(&target(ip), &knocks, Duration::ZERO, |_, _| {}).expect("loopback");
            listener.accepts_within(Duration::from_millis(500))
        });
        assert!(received, "{ip}");
    }
}

/// A socket that still waits for its answer would send its SYN again after a second, as a wrong
/// knock. Linux lists it in state 02.
#[cfg(target_os = "linux")]
#[test]
fn a_tcp_knock_leaves_no_socket_that_could_knock_again() {
    for (ip, table) in LOOPBACKS
        .into_iter()
        .zip(["/proc/net/tcp", "/proc/net/tcp6"])
    {
        let silent = peers::SilentPort::new(ip);
        let remote = format!(":{:04X} 02 ", silent.port());

        send(
            &target(ip),
            &[tcp(silent.port())],
            Duration::ZERO,
            |_, _| {
                let sockets = std::fs::read_to_string(table).expect("a table of sockets");
                let waiting = sockets.lines().find(|line| line.contains(&remote));
                assert_eq!(waiting, None, "{ip}");
            },
        )
        .expect("loopback can be knocked on");
    }
}

#[test]
fn the_delay_separates_the_knocks() {
    let delay = Duration::from_millis(20);
    let knock_port = KnockPort::bind(LOOPBACKS[0]);
    let knocks = [udp(knock_port.port()); 3];
    let mut moments = Vec::new();

    let begin = Instant::now();
    send(&target(LOOPBACKS[0]), &knocks, delay, |_, _| {
        moments.push(Instant::now())
    })
    .expect("loopback");

    assert_eq!(moments.len(), 3);
    assert!(moments[1] - begin >= delay, "{:?}", moments[1] - begin);
    assert!(moments[2] - begin >= 2 * delay, "{:?}", moments[2] - begin);
}

#[test]
fn an_open_port_is_found_at_the_first_attempt() {
    for ip in LOOPBACKS {
        let listener = TcpListener::bind((ip, 0)).expect("loopback");
        let port = listener.local_addr().expect("bound").port();
        let (_stream, connected) =
            connect(&target(ip), port, Instant::now(), GENEROUS).expect("somebody listens");
        assert_eq!(connected.attempt, 1, "{ip}");
    }
}

#[test]
fn a_port_that_opens_later_is_found() {
    const OPENS_AFTER: Duration = Duration::from_millis(300);
    for ip in LOOPBACKS {
        let port = ReservedPort::new(ip);
        let (address, last_knock) = (port.port(), Instant::now());
        let opener = thread::spawn(move || {
            thread::sleep(OPENS_AFTER);
            port.open()
        });

        let (_stream, connected) =
            connect(&target(ip), address, last_knock, GENEROUS).expect("it opens");
        drop(opener.join().expect("it opened"));

        assert!(connected.attempt > 1, "{ip}: {connected:?}");
        assert!(connected.after >= OPENS_AFTER, "{ip}: {connected:?}");
    }
}

#[test]
fn a_refusing_port_is_distinguished_from_a_silent_one() {
    let limit = Duration::from_millis(500);
    for ip in LOOPBACKS {
        let nobody = ReservedPort::new(ip);
        let begin = Instant::now();
        let error = connect(&target(ip), nobody.port(), begin, limit).expect_err("nobody listens");

        assert!(
            matches!(error.closed, FailedConnect::Refused),
            "{ip}: {error:?}"
        );
        assert!(error.attempts > 1, "{ip}: {error:?}");
        assert!(error.after >= limit, "{ip}: {error:?}");
    }
}

/// Linux drops the SYNs to a listener whose queue is full, as a closed door does.
#[cfg(target_os = "linux")]
#[test]
fn a_silent_port_is_tried_again_before_the_system_would() {
    let limit = Duration::from_millis(600);
    for ip in LOOPBACKS {
        let silent = peers::SilentPort::new(ip);
        let begin = Instant::now();
        let error = connect(&target(ip), silent.port(), begin, limit).expect_err("no answer");

        assert!(
            matches!(error.closed, FailedConnect::NoAnswer),
            "{ip}: {error:?}"
        );
        // The system would retransmit after a second. A busy machine may leave no time for a third.
        assert!(error.attempts >= 2, "{ip}: {error:?}");
    }
}

/// The client gives up a silent first attempt, and finds the port open in a later one.
#[cfg(target_os = "linux")]
#[test]
fn a_silent_port_that_starts_to_answer_is_found_later() {
    let silent = peers::SilentPort::new(LOOPBACKS[0]);
    let (port, last_knock) = (silent.port(), Instant::now());
    let opener = thread::spawn(move || {
        thread::sleep(Duration::from_millis(300));
        silent.answer()
    });

    let (_stream, connected) =
        connect(&target(LOOPBACKS[0]), port, last_knock, GENEROUS).expect("it opens");
    drop(opener.join().expect("it opened"));

    assert!(connected.attempt > 1, "{connected:?}");
}

fn target(ip: IpAddr) -> Destination {
    Destination::from(std::net::SocketAddr::new(ip, 0))
}

fn tcp(port: u16) -> Knock {
    Knock {
        protocol: Protocol::Tcp,
        port,
    }
}

fn udp(port: u16) -> Knock {
    Knock {
        protocol: Protocol::Udp,
        port,
    }
}
