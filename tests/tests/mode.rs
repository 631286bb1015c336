//! The program is moved from one mode to another, while unauthorized sources send.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails with the test")]

use knock_tests::{
    daemon::{self, Daemon},
    kernel,
    namespace::Namespace,
    net::{self, Family, SERVER_LINK},
    pins,
    server::Server,
    ssh::{DOOR, KNOCKS, SSH},
    stream::{self, Stream},
    unauthorized::UnauthorizedSources,
    wait,
};
use knock_user::{
    host::interface,
    kernel::{
        barrier,
        program::{LoadOptions, XdpProgram},
        tcx,
    },
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

/// The configured modes before and after, and the mode in which the program then is. Where the kernel has no links at
/// traffic control, rows with them are left out.
const ROWS: [(&str, &str, &str); 8] = [
    ("native", "skb", "skb"),
    ("native", "tc", "tc"),
    ("native", "auto", "tc"),
    ("skb", "native", "native"),
    ("skb", "auto", "tc"),
    ("tc", "native", "native"),
    ("tc", "skb", "skb"),
    ("tc", "auto", "tc"),
];

#[test]
fn a_reload_changes_the_mode_and_lets_nobody_in() {
    for (from, to, expected) in rows() {
        let row = format!("{from} to {to}");
        net::test(|net| {
            let mut unauthorized_sources = UnauthorizedSources::before_protection(net, SSH);
            let _server = Server::tcp(&net.server, &[SSH]);
            let mut daemon = Daemon::start_with(&net.server, &with_mode(from), &[]);
            let client = net.new_source(Family::V4);
            client.knock(KNOCKS);
            client.finds(true, SSH, &row);
            unauthorized_sources.start(SSH);
            let reloaded = daemon.reload(&with_mode(to));
            assert_eq!(place(&net.server), expected, "{row}");
            assert_eq!(status(&net.server)["mode"], expected, "{row}");
            let is_moved = from != expected;
            let moved = format!("b0 is {expected} now");
            assert_eq!(
                reloaded["changes"].to_string().contains(&moved),
                is_moved,
                "{row}: {reloaded}"
            );
            unauthorized_sources.assert_none_got_in(&row);
            client.finds(true, SSH, &format!("{row}: a grant from before"));
            let late = net.new_source(Family::V4);
            late.knock(KNOCKS);
            late.finds(true, SSH, &format!("{row}: knocked since"));
            unauthorized_sources.stop();
            daemon.stop();
        });
    }
}

/// Behind a generic program, the one at traffic control can't see where a frame begins, so from and to skb some
/// packets are lost.
#[test]
fn between_native_and_tc_no_packet_is_lost() {
    if !has_tcx() {
        return;
    }
    for (from, to) in [("tc", "native"), ("native", "tc")] {
        let row = format!("{from} to {to}");
        net::test(|net| {
            stream::repeat_only_what_is_lost(net);
            let _server = Server::tcp(&net.server, &[SSH]);
            let mut daemon = Daemon::start_with(&net.server, &with_mode(from), &[]);
            let client = net.new_source(Family::V4);
            let connection = client.knock_and_connect(KNOCKS, SSH).unwrap();
            let repeated = || [&net.client, &net.server].map(stream::sent_twice);
            let before = repeated();
            let stream = Stream::begin(connection);
            stream.continues(&row);
            daemon.reload(&with_mode(to));
            stream.continues(&row);
            stream.end();
            assert_eq!(repeated(), before, "{row}: a segment was lost");
            daemon.stop();
        });
    }
}

#[test]
fn a_restart_changes_the_mode_and_lets_nobody_in() {
    for (from, to, expected) in rows() {
        let row = format!("{from} to {to}");
        net::test(|net| {
            let mut unauthorized_sources = UnauthorizedSources::before_protection(net, SSH);
            let _server = Server::tcp(&net.server, &[SSH]);
            let first = Daemon::start_with(&net.server, &with_mode(from), &["--on-exit", "keep"]);
            let client = net.new_source(Family::V4);
            client.knock(KNOCKS);
            client.finds(true, SSH, &row);
            unauthorized_sources.start(SSH);
            first.leave(Signal::SIGTERM);
            let second = Daemon::start_with(&net.server, &with_mode(to), &[]);
            assert_eq!(place(&net.server), expected, "{row}");
            second.wait_for_event(&json!({"event": "protecting", "mode": expected}));
            unauthorized_sources.assert_none_got_in(&row);
            client.finds(true, SSH, &format!("{row}: a grant from before"));
            unauthorized_sources.stop();
            second.stop();
        });
    }
}

/// Checks a veth with too few queues: it wants a receive queue for each queue into which the other end sends, in the
/// driver.
#[test]
fn a_driver_that_refuses_leaves_the_mode_unchanged() {
    net::test(|net| {
        net.client.ip(&format!(
            "link add a2 numtxqueues 4 numrxqueues 1 type veth \
             peer name b2 numtxqueues 1 numrxqueues 1 netns {}",
            net.server.name()
        ));
        net.client.ip("link set a2 up");
        net.server.ip("link set b2 up");
        let config = |mode: &str| with_mode(mode).replace("\"b0\"", "\"b0\", \"b2\"");
        let mut unauthorized_sources = UnauthorizedSources::before_protection(net, SSH);
        let _server = Server::tcp(&net.server, &[SSH]);
        let daemon = Daemon::start_with(&net.server, &config("skb"), &[]);
        unauthorized_sources.start(SSH);
        daemon.rewrite(&config("native"));
        let (code, output) = daemon::ask(&net.server, &["reload"]);
        assert_eq!(code, Some(1), "{output}");
        for word in ["b2", "too few queues", "nothing was changed"] {
            assert!(output.contains(word), "no {word:?} in: {output}");
        }
        let all = net.server.enter(interface::list).unwrap();
        for name in ["b0", "b2"] {
            let found = interface::named(name, &all).unwrap();
            assert!(found.program.is_some() && !found.native, "{found:?}");
        }
        unauthorized_sources.assert_none_got_in("refused");
        let client = net.new_source(Family::V4);
        client.knock(KNOCKS);
        client.finds(true, SSH, "no barrier is left");
        unauthorized_sources.stop();
        daemon.stop();
    });
}

/// A process that was killed during a change of mode leaves it shut.
#[test]
fn a_barrier_that_was_left_shut_is_opened_by_the_next_start_and_by_detach() {
    let tables = kernel::compile(DOOR).unwrap();
    for next in ["start", "detach"] {
        net::test(|net| {
            let mut unauthorized_sources = UnauthorizedSources::before_protection(net, SSH);
            let _server = Server::tcp(&net.server, &[SSH]);
            let arguments = ["--iface", SERVER_LINK, "--on-exit", "keep"];
            let first = Daemon::start_with(&net.server, DOOR, &arguments);
            first.kill();
            let instance = pins::instance(&net.server);
            net.server.enter(|| {
                let mut loaded = XdpProgram::load(&tables, LoadOptions::default()).unwrap();
                let barrier = loaded.ebpf().program_mut(barrier::PROGRAM).unwrap();
                let all = interface::list().unwrap();
                let found = interface::named(SERVER_LINK, &all).unwrap();
                barrier::shut(barrier.try_into().unwrap(), found, &instance).unwrap();
                knock_user::kernel::pins::unlink(&instance.link(SERVER_LINK)).unwrap();
            });
            wait::until("nothing is attached", || {
                pins::attached_programs(&net.server).is_empty()
            });
            unauthorized_sources.start(SSH);
            let source = net.new_source(Family::V4);
            source.finds_closed(81, "nothing comes in");
            unauthorized_sources.assert_none_got_in("the barrier is shut");
            let output = daemon::ask(&net.server, &["status"]);
            assert_eq!(output.0, Some(1), "{}", output.1);
            assert!(
                output.1.contains("b0 is blocked: nothing gets in"),
                "{}",
                output.1
            );
            if next == "start" {
                let second = Daemon::start_with(&net.server, DOOR, &arguments[..2]);
                source.knock(KNOCKS);
                source.finds(true, SSH, "the barrier is open, and the door, too");
                unauthorized_sources.stop();
                second.stop();
            } else {
                unauthorized_sources.stop();
                let (code, printed) = daemon::ask(&net.server, &["detach"]);
                assert_eq!(code, Some(0), "{printed}");
                source.finds(true, SSH, "detached");
            }
        });
    }
}

/// Returns the rows that this kernel can run.
fn rows() -> Vec<(&'static str, &'static str, &'static str)> {
    let needs_tcx = |row: &(&str, &str, &str)| [row.0, row.1, row.2].contains(&"tc");
    let rows = ROWS.into_iter();
    rows.filter(|row| has_tcx() || !needs_tcx(row)).collect()
}

fn has_tcx() -> bool {
    tcx::is_available() == Some(true)
}

/// Returns a configuration with this mode. Its grants outlast a reload on a slow machine.
fn with_mode(mode: &str) -> String {
    format!("interfaces = [\"b0\"]\nmode = \"{mode}\"\n{DOOR}\nopen_for = \"1h\"\n")
}

/// Returns the mode in which the program is attached, by the kernel.
#[track_caller]
fn place(namespace: &Namespace) -> &'static str {
    namespace.enter(|| {
        let all = interface::list().unwrap();
        let found = interface::named(SERVER_LINK, &all).unwrap();
        match (found.program, found.native) {
            (Some(_), true) => "native",
            (Some(_), false) => "skb",
            (None, _) if !tcx::ingress(found.index).unwrap().is_empty() => "tc",
            (None, _) => panic!("nothing is attached"),
        }
    })
}

/// Returns the entry of the interface in `status --json`.
#[track_caller]
fn status(namespace: &Namespace) -> Value {
    let (_, output) = daemon::ask(namespace, &["status", "--json"]);
    let line = output.lines().find(|line| line.starts_with('{'));
    let status: Value = serde_json::from_str(line.unwrap_or(&output)).unwrap();
    status["interfaces"][0].clone()
}
