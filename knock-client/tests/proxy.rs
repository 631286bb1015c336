//! `knock-client proxy`: knocks, connects, and relays both directions to their ends.

#![cfg(unix)]
#![expect(clippy::expect_used, reason = "a test stops at what it did not expect")]

mod peers;

use peers::{KnockPort, LOOPBACKS, ReservedPort};
use std::fs::File;
use std::io::{Read, Write as _};
use std::net::{IpAddr, Shutdown, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// Longer than any step takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// More bytes than all buffers on the path hold.
const MUCH: usize = 8 << 20;

/// As in `ssh host command < file`: the host answers after the end of its input.
#[test]
fn after_the_end_of_the_input_the_answer_is_still_relayed() {
    for ip in LOOPBACKS {
        let (knock_port, (listener, port)) = (KnockPort::bind(ip), listener(ip));
        let mut child = proxy(ip, &port, &format!("udp/{}", knock_port.port()), &[]);
        let server = thread::spawn(move || {
            let mut stream = accept(&listener);
            let mut received = Vec::new();
            stream.read_to_end(&mut received).expect("all of it");
            stream.write_all(&received).expect("an answer");
        });
        assert_eq!(knock_port.receive(), [0], "{ip}");
        let mut input = child.stdin.take().expect("piped");
        let writer = thread::spawn(move || input.write_all(&pattern()).expect("read"));
        let answer = read(child.stdout.take().expect("piped"), usize::MAX);
        assert!(answer == pattern(), "{ip}: {} bytes", answer.len());
        writer.join().expect("no panic");
        server.join().expect("no panic");
        assert_eq!(ends_well(child), "", "{ip}");
    }
}

/// The other direction: the host has sent everything, and still reads.
#[test]
fn after_the_end_of_the_output_the_input_is_still_relayed() {
    let ip = LOOPBACKS[0];
    let (knock_port, (listener, port)) = (KnockPort::bind(ip), listener(ip));
    let mut child = proxy(ip, &port, &format!("udp/{}", knock_port.port()), &[]);
    let mut stream = accept(&listener);
    stream.write_all(b"bye").expect("received");
    stream.shutdown(Shutdown::Write).expect("connected");

    let received = read(child.stdout.take().expect("piped"), usize::MAX);
    assert_eq!(received, b"bye");
    let mut input = child.stdin.take().expect("piped");
    input.write_all(b"one more thing").expect("passed on");
    drop(input);
    let mut received = String::new();
    stream.read_to_string(&mut received).expect("to its end");
    assert_eq!(received, "one more thing");
    assert_eq!(ends_well(child), "");
}

/// Half a line arrives while both sides wait for the other.
#[test]
fn bytes_are_relayed_at_once() {
    let ip = LOOPBACKS[0];
    let (knock_port, (listener, port)) = (KnockPort::bind(ip), listener(ip));
    let mut child = proxy(ip, &port, &format!("udp/{}", knock_port.port()), &[]);
    let mut stream = accept(&listener);
    let mut input = child.stdin.take().expect("piped");
    let output = File::from(OwnedFd::from(child.stdout.take().expect("piped")));
    for _ in 0..3 {
        let mut two = [0; 2];
        input.write_all(b"hi").expect("passed on");
        stream.read_exact(&mut two).expect("it comes");
        stream.write_all(b"ho").expect("passed on");
        assert_eq!(read(output.try_clone().expect("a file"), 2), b"ho");
    }
    drop((input, stream));
    ends_well(child);
}

/// The proxy ends when the client or the host is gone.
#[test]
fn a_broken_connection_ends_the_proxy() {
    let ip = LOOPBACKS[0];
    let (knock_port, (listener, port)) = (KnockPort::bind(ip), listener(ip));
    let mut child = proxy(ip, &port, &format!("udp/{}", knock_port.port()), &[]);
    let mut stream = accept(&listener);
    drop(child.stdout.take());
    drop(child.stdin.take());
    // Nothing accepts it.
    let _refused = stream.write_all(&pattern());
    let status = child.wait().expect("it ends");
    assert_eq!(status.code(), Some(1));
}

#[test]
fn the_proxy_waits_for_the_port_and_reports_on_standard_error() {
    let ip = LOOPBACKS[0];
    let (knock_port, port) = (KnockPort::bind(ip), ReservedPort::new(ip));
    let (number, knock) = (
        port.port().to_string(),
        format!("udp/{}", knock_port.port()),
    );
    let options = ["-v", "--retries", "50", "--timeout", "100ms"];
    let child = proxy(ip, &number, &knock, &options);
    for _ in 0..2 {
        assert_eq!(knock_port.receive(), [0], "it knocks again");
    }
    let listener = port.open();
    drop(accept(&listener));
    let message = ends_well(child);
    assert!(
        message.starts_with(&format!("knocking on {ip}\nknock 1 of 1: {knock}\n")),
        "{message}"
    );
    assert!(
        message.contains("knocking again, 1 of 50: cannot connect"),
        "{message}"
    );
    assert!(
        message.contains(&format!("connected to tcp/{number} on {ip} ")),
        "{message}"
    );
}

#[test]
fn a_port_that_stays_closed_is_reported() {
    let ip = LOOPBACKS[0];
    let (knock_port, nobody) = (KnockPort::bind(ip), ReservedPort::new(ip));
    let (port, knock) = (
        nobody.port().to_string(),
        format!("udp/{}", knock_port.port()),
    );
    let child = proxy(ip, &port, &knock, &["--timeout", "50ms"]);
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(output.stdout, b"");
    let message = String::from_utf8_lossy(&output.stderr);
    let error = format!("knock-client: cannot connect to tcp/{port} on {ip} within 50ms: refused");
    assert!(message.starts_with(&error), "{message}");
}

fn listener(ip: IpAddr) -> (TcpListener, String) {
    let listener = TcpListener::bind((ip, 0)).expect("loopback");
    let port = listener.local_addr().expect("bound").port();
    (listener, port.to_string())
}

fn proxy(ip: IpAddr, port: &str, knock: &str, options: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_knock-client"));
    command.args(["proxy", &ip.to_string(), port, knock]);
    command.args(options).env("XDG_CONFIG_HOME", "/nonexistent");
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    command
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command runs")
}

fn accept(listener: &TcpListener) -> TcpStream {
    let (stream, _) = listener.accept().expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream
}

#[track_caller]
fn ends_well(child: Child) -> String {
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    String::from_utf8(output.stderr).expect("text")
}

/// Reads `most` bytes, or to the end; fails if they do not arrive in time.
#[track_caller]
fn read(mut from: impl Read + Send + 'static, most: usize) -> Vec<u8> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut read = Vec::new();
        let done = from.by_ref().take(most as u64).read_to_end(&mut read);
        let _nobody_waits = sender.send(done.map(|_| read));
    });
    let read = receiver.recv_timeout(PATIENCE).expect("it comes, or ends");
    read.expect("readable")
}

fn pattern() -> Vec<u8> {
    (0..MUCH).map(|index| (index % 251) as u8).collect()
}
