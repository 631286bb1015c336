//! Frames that are larger than a page, and drivers that refuse.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails with the test")]

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    process::Command,
    thread,
};

use knock_common::{Reason, Verdict};
use knock_tests::{
    binary::binaries,
    daemon::{Daemon, config_file},
    frame::{SYN, eth},
    kernel::Kernel,
    net::{self, CLIENT_LINK, Family, Net, SERVER_LINK},
    pins::attached_programs,
    process::Process,
    server::Server,
    source::Source,
    ssh::{DOOR, KNOCKS, SSH},
    wait::{self, PATIENCE},
};
use serde_json::json;
use socket2::SockRef;

/// The MTU of jumbo frames.
const MTU: u32 = 9_000;

/// The octets of some hundred frames, more than a socket's initial buffer holds.
const TRANSFER: usize = 2 << 20;

#[test]
fn frames_larger_than_a_page_are_judged() {
    let rows: [(&str, &str, &str, bool); 6] = [
        ("native", "native", "native", false),
        ("native, segmented by the driver", "native", "native", true),
        ("auto", "auto", "tc", false),
        ("generic", "skb", "skb", false),
        ("generic, segmented by the driver", "skb", "skb", true),
        ("traffic control, segmented by the driver", "tc", "tc", true),
    ];
    for (name, mode, attached, offload) in rows {
        net::test(|net| {
            set_mtu(net, MTU);
            net.offload(CLIENT_LINK, &["tso", "gso"], offload);
            let server = Server::tcp(&net.server, &[SSH]);
            let daemon =
                Daemon::start_with(&net.server, DOOR, &["--iface", SERVER_LINK, "--mode", mode]);
            daemon.wait_for_event(&json!({"event": "protecting", "mode": attached}));
            for family in Family::ALL {
                let row = format!("{name}, {family}");
                let source = net.new_source(family);
                knocks_and_transfers(&source, &row);
                let unauthorized = net.new_source(family);
                unauthorized.finds_closed(SSH, &row);
                assert!(!server.met(unauthorized.from, SSH), "{row}");
            }
            daemon.stop();
        });
    }
}

#[test]
fn a_connection_uses_frames_larger_than_a_page() {
    net::test(|net| {
        set_mtu(net, MTU);
        let _server = Server::tcp(&net.server, &[SSH]);
        let daemon = Daemon::start(&net.server, DOOR);
        let source = net.new_source(Family::V4);
        let stream = source.knock_and_connect(KNOCKS, SSH).unwrap();
        let segment = SockRef::from(&stream).tcp_mss().unwrap();
        assert!(segment > 8_900, "segments of {segment} octets");
        daemon.stop();
    });
}

/// The program sees the first page of a frame. Ports that lie further in could be anything.
#[test]
fn headers_longer_than_a_page_hide_nothing() {
    let mut kernel = Kernel::load(DOOR).unwrap();
    // Extension headers of 2048 octets.
    for (headers, expected) in [
        (1, Reason::NoGrant),
        (2, Reason::Truncated),
        (4, Reason::Truncated),
    ] {
        let frame = (0..headers).fold(eth().ip6("2001:db8::1", "2001:db8::2"), |frame, _| {
            frame.dest_opts(255)
        });
        let frame = frame.tcp(50_000, SSH, SYN).bytes();
        let judged = kernel.judge(&frame).unwrap();
        assert_eq!(judged.reason, expected, "{} octets", frame.len());
        assert_eq!(judged.verdict, Verdict::Drop, "{} octets", frame.len());
    }
}

/// A larger MTU needs no restart of knock-user.
#[test]
fn a_larger_mtu_keeps_the_protection() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let daemon = Daemon::start_with(
            &net.server,
            DOOR,
            &["--iface", SERVER_LINK, "--mode", "native"],
        );
        let source = net.new_source(Family::V4);
        let stream = source.knock_and_connect(KNOCKS, SSH).unwrap();
        set_mtu(net, MTU);
        transfers(stream, "a connection from before");
        knocks_and_transfers(&net.new_source(Family::V4), "a new one");
        daemon.stop();
    });
}

#[test]
fn a_driver_that_refuses_leaves_nothing_attached() {
    net::test(|net| {
        with_too_few_queues(net);
        // The first is attached when the second refuses.
        let config = config_file(DOOR.as_bytes());
        let mut command = Command::new(&binaries().user);
        command.arg("--config").arg(config.path());
        command.args(["--mode", "native", "--iface", "b0", "--iface", "b2"]);
        let ended = Process::start(&net.server, &mut command).wait();
        assert_eq!(ended.status.code(), Some(1), "{ended:?}");
        for word in ["b2", "too few queues", "mode = \"auto\""] {
            assert!(ended.stderr.contains(word), "no {word:?} in {ended:?}");
        }
        // The kernel lets go of a program a moment after its link is gone.
        wait::until("nothing is attached", || {
            attached_programs(&net.server).is_empty()
        });
    });
}

fn set_mtu(net: &Net, mtu: u32) {
    net.client.ip(&format!("link set {CLIENT_LINK} mtu {mtu}"));
    net.server.ip(&format!("link set {SERVER_LINK} mtu {mtu}"));
}

/// Sends many octets and reads them back from the echo.
#[track_caller]
fn transfers(mut stream: TcpStream, row: &str) {
    let sent: Vec<u8> = (0..TRANSFER as u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let mut back = vec![0; TRANSFER];
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut writer = stream.try_clone().unwrap();
    thread::scope(|scope| {
        scope.spawn(|| writer.write_all(&sent));
        if let Err(error) = stream.read_exact(&mut back) {
            panic!("{row}: {error}");
        }
    });
    assert!(back == sent, "{row}: other octets came back");
}

#[track_caller]
fn knocks_and_transfers(source: &Source<'_>, row: &str) {
    source.finds_closed(SSH, row);
    let stream = source.knock_and_connect(KNOCKS, SSH);
    let stream = stream.unwrap_or_else(|error| panic!("{row}: {error}"));
    transfers(stream, row);
}

/// Makes a veth with too few queues: it wants a receive queue for each queue into which the other end sends.
fn with_too_few_queues(net: &Net) {
    net.client.ip(&format!(
        "link add a2 numtxqueues 4 numrxqueues 1 type veth \
         peer name b2 numtxqueues 1 numrxqueues 1 netns {}",
        net.server.name()
    ));
    net.client.ip("link set a2 up");
    net.server.ip("link set b2 up");
}
