//! The program at traffic control: what happens to its interface, and programs of other owners before
//! and behind it.

#![expect(
    clippy::unwrap_used,
    reason = "what a test can't do, it says by a panic"
)]

use knock_common::Reason;
use knock_tests::{
    daemon::{self, Daemon, config_file},
    namespace::Namespace,
    net::{self, CLIENT_LINK, Family, Net, SERVER_LINK},
    other_program,
    pins::{self, attached_programs},
    process::Process,
    server::Server,
    source::echoes,
    ssh::{DOOR, KNOCKS, SSH},
    unauthorized::UnauthorizedSources,
    wait,
};
use knock_user::{
    host::interface,
    kernel::tcx::{self, Placed},
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

/// How often the daemon is killed while unauthorized sources send.
const KILLS: usize = 4;

/// Each change of the interface, and its end.
const CHANGES: [(&str, &str, &str); 4] = [
    ("down and up", "link set b0 down", "link set b0 up"),
    (
        "renamed",
        "link set b0 down\nlink set b0 name x0\nlink set x0 up",
        "link set x0 down\nlink set x0 name b0\nlink set b0 up",
    ),
    (
        "another MTU",
        "link set b0 mtu 9000",
        "link set b0 mtu 1500",
    ),
    (
        "a filter beside it is added and removed",
        "link set b0 promisc on",
        "link set b0 promisc off",
    ),
];

#[test]
fn an_interface_stays_protected_whatever_happens_to_it() {
    net::test(|net| {
        let mut unauthorized_sources = UnauthorizedSources::before_protection(net, SSH);
        let _server = Server::tcp(&net.server, &[SSH]);
        let daemon = Daemon::start_with(&net.server, &with_mode("tc"), &[]);
        daemon.wait_for_event(&json!({"event": "protecting", "mode": "tc"}));
        unauthorized_sources.start(SSH);
        for (row, change, back) in CHANGES {
            net.server.ip_batch(change);
            unauthorized_sources.assert_none_got_in(row);
            net.server.ip_batch(back);
            restore_neighbours(net);
            unauthorized_sources.assert_none_got_in(row);
            for family in Family::ALL {
                let source = net.new_source(family);
                source.finds_closed(SSH, row);
                source.knock(KNOCKS);
                source.finds(true, SSH, row);
            }
        }
        // In another network namespace the link still judges.
        let client = net.client.name().to_owned();
        net.server.ip(&format!("link set b0 netns {client}"));
        net.client
            .ip(&format!("link set b0 netns {}", net.server.name()));
        wait::until("it is protected in its own namespace again", || {
            status(&net.server)["attached"] == true
        });
        unauthorized_sources.stop();
        assert!(daemon.events_like(&json!({"event": "lost"})).is_empty());
        daemon.stop();
        wait::until("nothing is attached", || {
            attached_programs(&net.server).is_empty()
        });
    });
}

#[test]
fn kills_and_takeovers_let_nobody_in() {
    net::test(|net| {
        let mut unauthorized_sources = UnauthorizedSources::before_protection(net, SSH);
        let _server = Server::tcp(&net.server, &[SSH]);
        let mut daemon = Daemon::start_with(&net.server, &with_mode("tc"), &[]);
        let client = net.new_source(Family::V4);
        client.knock(KNOCKS);
        let mut stream = client.finds_open(SSH, "knocked");
        unauthorized_sources.start(SSH);
        for number in 0..KILLS {
            daemon.kill();
            unauthorized_sources.assert_none_got_in("no process");
            daemon = Daemon::start_with(&net.server, &with_mode("tc"), &[]);
            unauthorized_sources.assert_none_got_in("taken over");
            assert!(
                echoes(&mut stream),
                "kill {number}: the connection continues"
            );
        }
        let sent = unauthorized_sources.stop();
        let instance = pins::instance(&net.server);
        wait::until("each packet is counted once", || {
            pins::counted(&instance, Reason::NoGrant) == sent
        });
        let programs = daemon.programs().to_vec();
        assert_eq!(attached_programs(&net.server), programs, "one at a time");
        daemon.stop();
        pins::nothing_is_left(&net.server, &programs);
    });
}

/// It may be there before the start, and come and go later.
#[test]
fn an_xdp_program_of_another_owner_does_not_matter() {
    for (mode, is_first) in [("tc", true), ("auto", true), ("tc", false)] {
        let row = format!("mode {mode}, it is first: {is_first}");
        net::test(|net| {
            let _server = Server::tcp(&net.server, &[SSH]);
            let first = is_first.then(|| passing(&net.server, "native"));
            let daemon = Daemon::start_with(&net.server, &with_mode(mode), &[]);
            let other = first.unwrap_or_else(|| passing(&net.server, "native"));
            let check = |moment: &str| {
                let row = format!("{row}, {moment}");
                for family in Family::ALL {
                    let source = net.new_source(family);
                    source.finds_closed(SSH, &row);
                    source.knock(KNOCKS);
                    source.finds(true, SSH, &row);
                }
                let status = status(&net.server);
                assert_eq!(status["mode"], "tc", "{row}");
                // The reason is that of the choice.
                let because = status["mode_because"].as_str().unwrap_or_default();
                let is_reason = because.starts_with("it has another XDP program: `another`, id ");
                assert_eq!(is_reason, mode == "auto", "{row}: {because}");
            };
            check("behind another XDP program");
            other.stop(Signal::SIGTERM);
            check("without it");
            let other = passing(&net.server, "native");
            check("with it again");
            daemon.kill();
            let daemon = Daemon::start_with(&net.server, &with_mode(mode), &[]);
            check("after a restart");
            let fallback = daemon.events_like(&json!({"event": "fallback", "mode": "tc"}));
            assert_eq!(fallback.len(), usize::from(mode == "auto"), "{row}");
            other.stop(Signal::SIGTERM);
            daemon.stop();
        });
    }
}

/// Behind an XDP program in generic mode, it is unknown where the packet begins. Such an
/// interface is refused; where that program comes later, nothing gets in, and everything that reports the state
/// reports that.
#[test]
fn a_generic_xdp_program_of_another_owner_opens_nothing() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let other = passing(&net.server, "skb");
        let config = config_file(with_mode("tc").as_bytes());
        let ended = Process::start(&net.server, &mut daemon::command(&config)).wait();
        assert_eq!(ended.status.code(), Some(1), "{ended:?}");
        assert!(ended.stderr.contains("(skb)"), "{ended:?}");
        other.stop(Signal::SIGTERM);
        let refused = json!({"event": "refused", "interface": SERVER_LINK, "reason": "occupied"});
        let protecting = json!({"event": "protecting", "interface": SERVER_LINK});
        let arguments = ["--on-exit", "keep"];
        let daemon = Daemon::start_with(&net.server, &with_mode("tc"), &arguments);
        let other = passing(&net.server, "skb");
        daemon.wait_for_event(&refused);
        for family in Family::ALL {
            let source = net.new_source(family);
            source.finds_closed(SSH, "behind it");
            source.knock(KNOCKS);
            source.finds_closed(SSH, "knocks are not read either");
        }
        assert_eq!(status(&net.server)["state"], "refused");
        daemon.rewrite(&format!("{}[limits]\nflows = 65536\n", with_mode("tc")));
        let (code, output) = daemon::ask(&net.server, &["reload"]);
        assert_eq!(code, Some(0), "{output}");
        assert!(
            output.contains("b0 is NOT protected: it has another XDP"),
            "{output}"
        );
        assert_eq!(daemon.events_like(&protecting).len(), 1, "at the start");
        daemon.leave(Signal::SIGTERM);

        let daemon = Process::start(&net.server, daemon::command(&config).arg("--json"));
        daemon::wait_for_event(&daemon, &refused);
        assert!(!daemon.printed().contains("\"protecting\""), "{daemon:?}");
        net.new_source(Family::V4)
            .finds_closed(SSH, "behind it, after a restart");
        assert_eq!(status(&net.server)["state"], "refused");
        other.stop(Signal::SIGTERM);
        daemon::wait_for_event(&daemon, &protecting);
        assert_eq!(status(&net.server)["attached"], true);
        for family in Family::ALL {
            let source = net.new_source(family);
            source.finds_closed(SSH, "without it");
            source.knock(KNOCKS);
            source.finds(true, SSH, "without it");
        }
        let printed = daemon.printed();
        assert_eq!(printed.matches("\"refused\"").count(), 1, "{printed}");
        assert!(daemon.stop(Signal::SIGTERM).status.success());
    });
}

/// What runs before the program may pass packets that are then not judged. That is reported once, and
/// shown as long as it is so.
#[test]
fn a_program_before_ours_is_reported() {
    for (name, verdict, is_open) in [("passes", "0", true), ("leaves it open", "-1", false)] {
        net::test(|net| {
            let _server = Server::tcp(&net.server, &[SSH]);
            let daemon = Daemon::start_with(&net.server, &with_mode("tc"), &[]);
            assert!(status(&net.server).get("behind").is_none());
            let other = other_program::attach(&net.server, "tcx", SERVER_LINK, verdict);
            let first = net.server.enter(|| {
                let all = interface::list().unwrap();
                let index = interface::named(SERVER_LINK, &all).unwrap().index;
                tcx::ingress(index).unwrap()[0]
            });
            let Placed { program, link } = first;
            let preceded = json!({"event": "preceded", "interface": SERVER_LINK});
            let event = daemon.wait_for_event(&preceded);
            let because = event["because"].as_str().unwrap();
            assert!(
                because.contains(&format!("program {program} ")),
                "{because}"
            );
            let cure = format!("`bpftool link detach id {link}`");
            assert!(because.contains(&cure), "{because}");
            let shown = status(&net.server);
            assert_eq!(shown["behind"], json!([program]), "{name}");
            assert_eq!(shown["preceding"][0]["name"], "another", "{name}");
            let (code, output) = daemon::ask(&net.server, &["status"]);
            assert_eq!(code, Some(1), "{output}");
            for words in [&cure, "(`another`) of another owner runs before it"] {
                assert!(output.contains(words), "no {words:?} in {output}");
            }
            net.new_source(Family::V4).finds(is_open, SSH, name);
            other.stop(Signal::SIGTERM);
            wait::until("ours is the first again", || {
                status(&net.server).get("behind").is_none()
            });
            net.new_source(Family::V4)
                .finds_closed(SSH, "the first again");
            assert_eq!(daemon.events_like(&preceded).len(), 1, "reported once");
            daemon.stop();
        });
    }
}

/// Filters of `tc` run behind the program, and nothing that is done to them detaches it.
#[test]
fn filters_of_tc_do_not_matter() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let tc = |words: &str| {
            let words: Vec<_> = words.split(' ').collect();
            net.server.run("tc", &words);
        };
        tc("qdisc add dev b0 clsact");
        let daemon = Daemon::start_with(&net.server, &with_mode("tc"), &[]);
        net.new_source(Family::V4)
            .finds_closed(SSH, "beside filters");
        tc("qdisc del dev b0 clsact");
        net.new_source(Family::V4)
            .finds_closed(SSH, "without the qdisc");
        tc("qdisc add dev b0 clsact");
        let source = net.new_source(Family::V4);
        source.finds_closed(SSH, "beside later filters");
        source.knock(KNOCKS);
        source.finds(true, SSH, "beside later filters");
        daemon.stop();
    });
}

/// A trial that is not confirmed ends in the mode from before, whether a process or the next one ends it.
#[test]
fn an_unconfirmed_mode_is_rolled_back() {
    for (from, to) in [
        ("native", "tc"),
        ("skb", "tc"),
        ("tc", "native"),
        ("tc", "skb"),
    ] {
        for is_killed in [false, true] {
            let row = format!("{from} to {to}, killed: {is_killed}");
            net::test(|net| {
                let mut unauthorized_sources = UnauthorizedSources::before_protection(net, SSH);
                let _server = Server::tcp(&net.server, &[SSH]);
                let daemon = Daemon::start_with(&net.server, &with_mode(from), &[]);
                let client = net.new_source(Family::V4);
                client.knock(KNOCKS);
                let mut stream = client.finds_open(SSH, &row);
                unauthorized_sources.start(SSH);
                daemon.rewrite(&with_mode(to));
                let (code, output) = daemon::ask(&net.server, &["reload", "--confirm", "2s"]);
                assert_eq!(code, Some(0), "{row}: {output}");
                // The kernel detaches the old link a moment after its pin is replaced.
                wait::until(&format!("{row}: in force"), || place(&net.server) == to);
                let daemon = match is_killed {
                    false => daemon,
                    true => {
                        daemon.kill();
                        let expired = || {
                            let (_, status) = daemon::ask(&net.server, &["status"]);
                            status.contains("no confirmation came in time")
                        };
                        wait::until("the trial has expired", expired);
                        Daemon::start_with(&net.server, &with_mode(to), &[])
                    }
                };
                wait::until(&format!("{row}: rolled back"), || {
                    place(&net.server) == from
                });
                unauthorized_sources.assert_none_got_in(&row);
                assert!(echoes(&mut stream), "{row}: the connection continues");
                let source = net.new_source(Family::V4);
                source.finds_closed(SSH, &row);
                source.knock(KNOCKS);
                source.finds(true, SSH, &row);
                unauthorized_sources.stop();
                let instance = pins::instance(&net.server);
                assert_eq!(instance.linked(), [SERVER_LINK], "{row}");
                daemon.stop();
                wait::until(&format!("{row}: nothing is attached"), || {
                    attached_programs(&net.server).is_empty()
                });
            });
        }
    }
}

/// A daemon that is killed while it moves the program leaves two links; the next one keeps one of them.
#[test]
fn two_links_of_an_interrupted_move_are_tidied() {
    net::test(|net| {
        let mut unauthorized_sources = UnauthorizedSources::before_protection(net, SSH);
        let _server = Server::tcp(&net.server, &[SSH]);
        let first = Daemon::start_with(&net.server, &with_mode("tc"), &[]);
        unauthorized_sources.start(SSH);
        first.kill();
        let instance = pins::instance(&net.server);
        std::fs::rename(instance.link(SERVER_LINK), instance.link("%new")).unwrap();
        unauthorized_sources.assert_none_got_in("under the other name");
        let second = Daemon::start_with(&net.server, &with_mode("tc"), &[]);
        assert_eq!(pins::instance(&net.server).linked(), [SERVER_LINK]);
        assert_eq!(attached_programs(&net.server), second.programs());
        unauthorized_sources.assert_none_got_in("taken over");
        unauthorized_sources.stop();
        second.stop();
    });
}

/// The kernel of a virtual machine may have none.
#[test]
fn a_kernel_without_tcx_is_named() {
    net::test(|net| {
        let has_tcx = net.server.enter(|| {
            let all = interface::list().unwrap();
            tcx::ingress(interface::named(SERVER_LINK, &all).unwrap().index).is_ok()
        });
        let config = config_file(with_mode("tc").as_bytes());
        if has_tcx {
            let daemon = Daemon::start_with(&net.server, &with_mode("tc"), &[]);
            assert_eq!(place(&net.server), "tc");
            daemon.stop();
            return;
        }
        let ended = Process::start(&net.server, &mut daemon::command(&config)).wait();
        assert_eq!(ended.status.code(), Some(1), "{ended:?}");
        let words = "this kernel has no TCX, which came with Linux 6.6; boot Linux 6.6 or later";
        assert!(ended.stderr.contains(words), "{ended:?}");
    });
}

fn with_mode(mode: &str) -> String {
    format!("interfaces = [\"b0\"]\nmode = \"{mode}\"\n{DOOR}")
}

/// Restores what setting an interface down removes: its addresses of IPv6, routes and neighbours.
fn restore_neighbours(net: &Net) {
    let address = net.server.try_run(
        "ip",
        &["address", "replace", "2001:db8::2/64", "dev", "b0", "nodad"],
    );
    assert!(address.status.success(), "{address:?}");
    net.server.ip_batch(
        "route replace 198.51.100.0/24 via 192.0.2.1
         neighbour replace 192.0.2.1 lladdr 02:00:00:00:00:a0 dev b0 nud permanent",
    );
    net.server.ip_batch(
        "route replace 2001:db8:a::/56 via 2001:db8::1
         neighbour replace 2001:db8::1 lladdr 02:00:00:00:00:a0 dev b0 nud permanent",
    );
    wait::until("the link is up", || {
        let shown = net
            .client
            .run("ip", &["-br", "link", "show", CLIENT_LINK, "up"]);
        shown.contains("LOWER_UP")
    });
    net.client.ip_batch(
        "neighbour replace 192.0.2.2 lladdr 02:00:00:00:00:b0 dev a0 nud permanent
         neighbour replace 2001:db8::2 lladdr 02:00:00:00:00:b0 dev a0 nud permanent",
    );
}

/// Attaches an XDP program of another owner that passes everything.
#[track_caller]
fn passing(namespace: &Namespace, place: &str) -> Process {
    other_program::attach(namespace, place, SERVER_LINK, "2")
}

/// Returns where the program is, by the kernel.
#[track_caller]
fn place(namespace: &Namespace) -> &'static str {
    namespace.enter(|| {
        let all = interface::list().unwrap();
        let found = interface::named(SERVER_LINK, &all).unwrap();
        match (found.program, found.native) {
            (Some(_), true) => "native",
            (Some(_), false) => "skb",
            (None, _) => match tcx::ingress(found.index).unwrap_or_default().as_slice() {
                [] => "nowhere",
                _ => "tc",
            },
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
