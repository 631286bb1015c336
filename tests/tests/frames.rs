//! Frames that arrive must reach the program: an attached link does not prove that they do.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails with the test")]

use std::time::Duration;

use aya::programs::xdp::XdpLink;
use knock_tests::{
    daemon::{Daemon, ask},
    kernel::compile,
    net::{self, Family, Net, SERVER_LINK},
    pins::{self, attached_programs},
    server::Server,
    ssh::{DOOR, KNOCKS, SSH},
    wait,
    wire::Wire,
};
use knock_user::kernel::program::{LoadOptions, XdpProgram};
use serde_json::{Value, json};

const NATIVE: [&str; 4] = ["--iface", SERVER_LINK, "--mode", "native"];
/// More than any threshold.
const MANY: u32 = 150;

#[test]
fn frames_that_bypass_the_program_are_reported() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let daemon = Daemon::start_with(&net.server, DOOR, &NATIVE);
        is_protected(net, "at first");
        bypass_until_reported(net, &daemon, 1);
        let events = daemon.events_like(&bypassed());
        assert!(events[0]["count"].as_u64().unwrap() >= 8, "{events:?}");
        is_protected(net, "handed to the driver again");
        daemon.wait_for_event(&json!({"event": "recovered", "interface": SERVER_LINK}));
        let (code, status) = ask(&net.server, &["status"]);
        assert_eq!(code, Some(0), "{status}");
        daemon.stop();
    });
}

#[test]
fn a_program_that_the_driver_loses_is_attached_behind_it() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let daemon = Daemon::start_with(&net.server, DOOR, &NATIVE);
        let generic = json!({"event": "protecting", "interface": SERVER_LINK, "mode": "skb"});
        for times in 1..=2 {
            bypass_until_reported(net, &daemon, times);
        }
        daemon.wait_for_event(&generic);
        let links = net.server.run("ip", &["link", "show", SERVER_LINK]);
        assert!(links.contains("xdpgeneric"), "{links}");
        is_protected(net, "behind the driver");
        daemon.wait_for_event(&json!({"event": "recovered", "interface": SERVER_LINK}));
        daemon.leave(nix::sys::signal::Signal::SIGINT);
    });
}

#[test]
fn frames_without_ip_are_reported_unless_they_serve_the_link() {
    net::test(|net| {
        let daemon = Daemon::start_with(&net.server, DOOR, &NATIVE);
        let wire = Wire::open(&net.client);
        let frame = |ethertype: u16| {
            let mut frame = vec![0xff; 6];
            frame.extend([2, 0, 0, 0, 0, 0xa0]);
            frame.extend(ethertype.to_be_bytes());
            frame.resize(60, 0);
            frame
        };
        let send = |ethertype| (0..MANY).for_each(|_| wire.send(&frame(ethertype)));
        // Marked by the tick of the daemon's clock: an unauthorized source's event comes after it has looked.
        let marker = net.new_source(Family::V4);
        send(0x0806);
        daemon.catches_up(&marker, SSH);
        assert!(daemon.events_like(&bypassed()).is_empty(), "ARP");
        wait::until("PPPoE is reported", || {
            send(0x8864);
            !daemon.events_like(&bypassed()).is_empty()
        });
        let because = daemon.events_like(&bypassed())[0]["because"].to_string();
        assert!(because.contains("0x8864 (PPPoE)"), "{because}");
        let (_, status) = ask(&net.server, &["status"]);
        assert!(status.contains("NOT protected"), "{status}");
        let judged = json!({"event": "recovered", "interface": SERVER_LINK});
        wait::until("other frames end that", || {
            send(0x0806);
            !daemon.events_like(&judged).is_empty()
        });
        daemon.stop();
    });
}

/// What happens to a link while the second copy is still being loaded is handled as soon as that copy is there, at the
/// start and after a reload.
#[test]
fn events_before_the_second_copy_are_not_lost() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let mut daemon = Daemon::start_with(&net.server, DOOR, &NATIVE);
        for (row, mtu) in [("the start", 1400), ("a reload", 1500)] {
            let before = attached_programs(&net.server);
            net.server.ip(&format!("link set {SERVER_LINK} mtu {mtu}"));
            let (code, answer) = ask(&net.server, &["status"]);
            assert_eq!(code, Some(0), "{row}: {answer}");
            // A further event of the link may bring the first copy back, so nothing delays these looks.
            wait::until(&format!("another copy after {row}"), || {
                attached_programs(&net.server) != before
            });
            net.new_source(Family::V4).finds_closed(SSH, row);
            daemon.reload(&DOOR.replace("7000", "7500"));
        }
        daemon.leave(nix::sys::signal::Signal::SIGINT);
    });
}

/// Two copies are attached in turn, and no packet passes meanwhile.
#[test]
fn a_driver_is_handed_another_copy_after_each_event_of_its_link() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let daemon = Daemon::start_with(&net.server, DOOR, &NATIVE);
        let unauthorized = net.new_source(Family::V4);
        let mut ids = vec![attached_programs(&net.server)];
        for mtu in [1400, 1500, 1400, 1500] {
            net.server.ip(&format!("link set {SERVER_LINK} mtu {mtu}"));
            let before = ids.last().unwrap().clone();
            wait::until(&format!("another copy after MTU {mtu}"), || {
                unauthorized.finds_closed(SSH, "between two copies");
                attached_programs(&net.server) != before
            });
            ids.push(attached_programs(&net.server));
        }
        is_protected(net, "after all of it");
        let all: std::collections::BTreeSet<_> = ids.iter().flatten().copied().collect();
        assert!(all.len() <= 3, "more than two copies: {ids:?}");
        daemon.leave(nix::sys::signal::Signal::SIGINT);
        let all: Vec<_> = all.into_iter().collect();
        pins::are_unloaded(&all);
    });
}

/// Replaces our program by one that passes everything. From then on ours does not see the frames that arrive, while
/// the kernel reports an attached program, as it does when a driver has lost it.
#[track_caller]
fn bypass(net: &Net) {
    let instance = pins::instance(&net.server);
    let give = || {
        let tables = compile("strict = false\nprotect = [\"udp/1\"]")?;
        let mut loaded = XdpProgram::load(&tables, LoadOptions::default())?;
        let program = loaded.xdp()?;
        for pinned in knock_user::kernel::pins::links(&instance)? {
            let link = program.attach_to_link(XdpLink::try_from(pinned.link)?)?;
            drop(program.take_link(link)?);
        }
        anyhow::Ok(())
    };
    net.server.enter(give).unwrap();
}

fn bypassed() -> Value {
    json!({"event": "bypassed", "interface": SERVER_LINK})
}

/// Makes frames bypass the program until that is reported this many times.
///
/// A late event of the link, such as that of the attachment itself, hands the driver the program again without
/// a report; then the frames bypass it once more.
#[track_caller]
fn bypass_until_reported(net: &Net, daemon: &Daemon, times: usize) {
    let unauthorized = net.new_source(Family::V4);
    let is_reported = || daemon.events_like(&bypassed()).len() >= times;
    wait::until(&format!("{} is reported {times} times", bypassed()), || {
        let gets_in = unauthorized
            .connect(SSH, Duration::from_millis(100))
            .is_ok();
        if !gets_in && wait::poll(Duration::from_secs(1), || is_reported().then_some(())).is_none()
        {
            bypass(net);
        }
        is_reported()
    });
}

#[track_caller]
fn is_protected(net: &Net, row: &str) {
    net.new_source(Family::V4).finds_closed(SSH, row);
    let client = net.new_source(Family::V6);
    client.knock(KNOCKS);
    client.finds(true, SSH, row);
}
