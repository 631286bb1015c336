//! Drivers that lose the program while the kernel still reports it as attached.
//!
//! `cargo xtask vm` runs these tests: they need its network cards, and suspend it.

use std::time::{Duration, Instant};

use knock_tests::{
    daemon::Daemon,
    kernel,
    net::{self, Family, Net, SERVER_LINK_2},
    nics,
    pins::attached_programs,
    server::Server,
    sleep,
    source::Source,
    ssh::{DOOR, KNOCKS, SSH},
    wait,
};
use nix::sys::signal::Signal;

/// An unused port: a source that reaches it has sent frames that arrive.
const FREE: u16 = 7777;
/// How long a successful connection may take, since frames wait for the emulated card.
const POSSIBLE: Duration = Duration::from_secs(2);

/// An action on the cards, and its name.
type Step<'a> = (&'a str, &'a dyn Fn(&Net));

#[test]
fn a_suspended_virtio_net_is_protected_again() {
    is_cured(
        "virtio_net",
        (4, 10),
        &[("suspended", &|_| {
            sleep::fall_asleep();
        })],
    );
}

#[test]
fn vmxnet3_is_protected_again_after_a_restart_and_a_change_of_mtu() {
    is_cured(
        "vmxnet3",
        (6, 6),
        &[
            ("down and up", &|net| {
                set(net, "down");
                set(net, "up");
            }),
            ("MTU 1400", &|net| set(net, "mtu 1400")),
            ("MTU 1500", &|net| set(net, "mtu 1500")),
        ],
    );
}

/// Returns whether a source without a grant gets in; checks before and after that its frames arrive.
#[track_caller]
fn is_open(unauthorized: &Source<'_>, row: &str) -> bool {
    wait::until(&format!("{row}: frames arrive"), || {
        unauthorized.connect(FREE, POSSIBLE).is_ok()
    });
    let is_open = unauthorized
        .connect(SSH, Duration::from_millis(500))
        .is_ok();
    wait::until(&format!("{row}: frames still arrive"), || {
        unauthorized.connect(FREE, POSSIBLE).is_ok()
    });
    is_open
}

/// Waits until a source without a grant is refused, prints how long that took, and checks that one that knocks gets in.
#[track_caller]
fn closes(net: &Net, daemon: &Daemon, row: &str) {
    let start = Instant::now();
    let unauthorized = net.new_source(Family::V4).to(Family::V4.second_server());
    let closed = wait::poll(wait::PATIENCE, || {
        (!is_open(&unauthorized, row)).then(|| start.elapsed())
    });
    let Some(closed) = closed else {
        panic!(
            "{row}: open\n{}\n{}",
            net.server.run("ip", &["link", "show", "b1"]),
            daemon.process().printed()
        );
    };
    println!("{row}: closed after {closed:.1?}");
    assert!(!is_open(&unauthorized, row), "{row}: open again");
    let client = net.new_source(Family::V4).to(Family::V4.second_server());
    client.knock(KNOCKS);
    client.finds(true, SSH, row);
}

/// Protects the cards of a driver, makes the driver lose the program, and expects that this is reported and cured.
#[track_caller]
fn is_cured(driver: &str, native_since: (u32, u32), done: &[Step<'_>]) {
    sleep::assert_it_may_be_done();
    net::test(|net| {
        nics::second_link(net, driver);
        let _server = Server::tcp(&net.server, &[SSH, FREE]);
        let is_native = kernel::version() >= native_since;
        let mode = if is_native { "native" } else { "auto" };
        let daemon = Daemon::start_with(
            &net.server,
            DOOR,
            &["-v", "--iface", SERVER_LINK_2, "--mode", mode],
        );
        if is_native {
            // Loading it takes seconds here, and the steps below need it.
            wait::until("the second copy of the program is loaded", || {
                daemon.process().printed().contains("loaded a second time")
            });
        }
        closes(net, &daemon, &format!("{driver}, attached"));
        for (name, what) in done {
            what(net);
            closes(net, &daemon, &format!("{driver}, {name}"));
            assert_eq!(attached_programs(&net.server).len(), 1, "{name}");
            let shown = net.server.run("ip", &["link", "show", SERVER_LINK_2]);
            let is_generic = shown.contains("xdpgeneric");
            assert_eq!(is_generic, !is_native, "{driver}, {name}: {shown}");
        }
        // Not `stop`: vmxnet3 does not give back the programs that it lost, so they stay loaded.
        daemon.leave(Signal::SIGINT);
    });
}

fn set(net: &Net, what: &str) {
    net.server.ip(&format!("link set {SERVER_LINK_2} {what}"));
}
