//! Frames of which the kernel has less than the headers in the head of their buffer, as some drivers leave them.

use std::{fs, net::IpAddr, path::PathBuf, process::Command};

use knock_common::Reason;
use knock_tests::{
    daemon::Daemon,
    frame::{ACK, SYN, eth},
    net::{self, Family, Net, mac},
    pins,
    process::Process,
    ssh::{DOOR, SSH},
    wait,
};
use nix::{sys::stat::Mode, unistd::mkfifo};
use serde_json::json;

/// The interface.
const TAP: &str = "f0";
/// The octets in the head: an Ethernet header, that and the header of IPv4, and all.
const HEADS: [usize; 3] = [14, 34, 1500];
/// How many packets to the protected port each family sends.
const PACKETS: u16 = 20;

/// With GRO, the kernel pulls the headers into the head before any program sees the packet.
#[test]
fn frames_with_short_heads_are_judged() {
    for mode in ["tc", "skb"] {
        for head in HEADS {
            net::test(|net| {
                let row = format!("mode {mode}, {head} octets in the head");
                let directory = tempfile::tempdir().unwrap();
                let pipe = directory.path().join("frames");
                mkfifo(&pipe, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
                let tap = Process::start(
                    &net.server,
                    Command::new("python3")
                        .arg(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("oracle/tap_frags.py"))
                        .arg(TAP)
                        .arg(&pipe),
                );
                wait::until("the interface is made", || tap.stdout() == ["ready"]);
                set_up(net);
                let config = format!("interfaces = [\"{TAP}\"]\nmode = \"{mode}\"\n{DOOR}");
                let daemon = Daemon::start_with(&net.server, &config, &[]);
                let instance = pins::instance(&net.server);
                fs::write(&pipe, lines(head)).unwrap();
                wait::until("the frames are sent", || tap.stdout().len() == 2);
                for family in Family::ALL {
                    let source = client(family).to_string();
                    daemon.wait_for_event(&json!({"event": "opened", "source": source}));
                }
                let count = |reason| pins::counted(&instance, reason);
                let unauthorized = u64::from(PACKETS) * 2;
                wait::until(&format!("{row}: each is counted"), || {
                    count(Reason::NoGrant) == unauthorized
                });
                assert_eq!(count(Reason::Granted), 2, "{row}");
                for reason in [Reason::Truncated, Reason::BadHeader, Reason::TinyFragment] {
                    assert_eq!(count(reason), 0, "{row}: {}", reason.name());
                }
                daemon.stop();
            });
        }
    }
}

/// Sets the interface up, without GRO.
fn set_up(net: &Net) {
    net.server.run("ethtool", &["-K", TAP, "gro", "off"]);
    let address = eth().bytes();
    let address = mac([
        address[0], address[1], address[2], address[3], address[4], address[5],
    ]);
    net.server.ip_batch(&format!(
        "link set {TAP} address {address}\nlink set {TAP} up"
    ));
}

/// Returns the source that knocks.
fn client(family: Family) -> IpAddr {
    family.source(200)
}

/// Returns the lines for the sender: packets of sources without a grant, of a client that knocks, and one after that.
fn lines(head: usize) -> String {
    let mut frames = Vec::new();
    for family in Family::ALL {
        let ip = |source| eth().ip(source, family.server());
        for number in 0..PACKETS {
            let flags = if number % 2 == 0 { SYN } else { ACK };
            frames.push(ip(family.source(7)).tcp(40_000 + number, SSH, flags));
        }
        let client = client(family);
        frames.push(ip(client).tcp(40_000, 7000, SYN));
        frames.push(ip(client).udp(40_000, 8000));
        frames.push(ip(client).tcp(40_000, 9000, SYN));
        frames.push(ip(client).tcp(40_000, SSH, SYN));
    }
    let line = |frame: Vec<u8>| {
        let digits: String = frame.iter().map(|octet| format!("{octet:02x}")).collect();
        format!("{head} {digits}\n")
    };
    frames.iter().map(|frame| line(frame.bytes())).collect()
}
