//! A start over existing protection: another configuration or program replaces the previous one, or is refused with the
//! reason.

use std::{fs, path::Path, process::Command};

use knock_tests::{
    binary::binaries,
    daemon::{self, Daemon, config_file},
    namespace::Namespace,
    net::{self, Family, Net, SERVER_LINK, SERVER_LINK_2},
    pins::{self, attached_programs},
    process::Process,
    server::Server,
    ssh::{DOOR, KNOCKS, SSH},
    stream::{self, Stream},
    unauthorized::UnauthorizedSources,
    wait,
};
use knock_user::kernel::bpffs;
use nix::sys::signal::Signal::SIGTERM;
use serde_json::json;

const KEEP: [&str; 4] = ["--iface", SERVER_LINK, "--on-exit", "keep"];
/// A map layout that no version of this program has.
const OTHER_LAYOUT: &str = "999";

#[test]
fn an_upgrade_loses_no_packet_and_lets_nobody_in() {
    // Longer than all rows take.
    let door = format!("{DOOR}\nopen_for = \"1h\"\n");
    let more = format!(
        "{door}\n[[door]]\nname = \"web\"\nknock = [\"tcp/7001\", \"udp/8001\", \"tcp/9001\"]\n\
         open = [\"tcp/22\", \"tcp/80\"]\n"
    );
    let others = format!(
        "protect = [\"tcp/25\"]\ntrust = [\"10.0.0.0/8\"]\nlockout.failures = 3\n\
         decoys.count = 9\n{door}"
    );
    let directory = tempfile::tempdir().unwrap();
    let copy = directory.path().join("knock-user");
    fs::copy(&binaries().user, &copy).unwrap();
    let rows: [(&str, &Path, &str, &[&str]); 6] = [
        ("the same", &binaries().user, &door, &[]),
        ("another binary", &copy, &door, &[]),
        ("another door", &binaries().user, &more, &[]),
        ("another program", &binaries().user, &more, &["-v"]),
        ("other features", &copy, &others, &["-vv"]),
        ("unchanged", &binaries().user, &door, &[]),
    ];
    net::test(|net| {
        stream::repeat_only_what_is_lost(net);
        let _server = Server::tcp(&net.server, &[SSH]);
        let mut unauthorized_sources = UnauthorizedSources::before_protection(net, SSH);
        let first = Daemon::start_with(&net.server, &door, &KEEP);
        let source = net.new_source(Family::V4);
        let connection = source.knock_and_connect(KNOCKS, SSH).unwrap();
        first.leave(SIGTERM);
        let repeated = || [&net.client, &net.server].map(stream::sent_twice);
        let before = repeated();
        let stream = Stream::begin(connection);
        unauthorized_sources.start(SSH);

        let mut programs = Vec::new();
        for (row, binary, config, arguments) in rows {
            stream.continues(row);
            let file = config_file(config.as_bytes());
            let mut command = Command::new(binary);
            command.args(["--json", "--config"]).arg(file.path());
            let process = Process::start(&net.server, command.args(KEEP).args(arguments));
            let kept = json!({"event": "kept", "source": source.name(), "door": "ssh"});
            daemon::wait_for_event(&process, &kept);
            stream.continues(row);
            unauthorized_sources.assert_none_got_in(row);
            let [program] = attached_programs(&net.server)[..] else {
                panic!("{row}: not one program");
            };
            assert!(!programs.contains(&program), "{row}: it was not replaced");
            programs.push(program);
            let ended = process.stop(SIGTERM);
            assert!(ended.status.success(), "{row}: {ended:?}");
            source.finds(true, SSH, row);
        }
        let sent = unauthorized_sources.stop();
        let round_trips = stream.round_trips();
        let slowest = stream.end();
        assert_eq!(repeated(), before, "a segment was lost and sent twice");
        println!(
            "{round_trips} round trips, the slowest {slowest:?}; {sent} packets of unauthorized sources"
        );
        detach(&net.server, &programs);
    });
}

#[test]
fn a_map_of_another_shape_is_refused() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        Daemon::start_with(&net.server, DOOR, &KEEP).leave(SIGTERM);
        let programs = attached_programs(&net.server);
        let maps = pins::instance(&net.server).maps();
        // Another kind of map, with other keys and another size.
        fs::rename(maps.join("FLOWS"), maps.join("ALLOW")).unwrap();
        let output = refused(net, &[SERVER_LINK]);
        let allow = maps.join("ALLOW").display().to_string();
        assert_names(
            &output,
            &[&allow, "`knock-user detach`", "LruHash", "layout"],
        );
        net.new_source(Family::V4).finds_closed(SSH, "still there");

        detach(&net.server, &programs);
        let daemon = Daemon::start(&net.server, DOOR);
        let connected = net.new_source(Family::V4).knock_and_connect(KNOCKS, SSH);
        assert!(connected.is_ok(), "{connected:?}");
        daemon.stop();
    });
}

#[test]
fn another_map_layout_is_refused() {
    let _other = OtherLayout;
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        net.add_second_link();
        Daemon::start_with(&net.server, DOOR, &KEEP).leave(SIGTERM);
        let programs = attached_programs(&net.server);
        let pins = pins::instance(&net.server).pins();
        let others = Path::new(bpffs::DIRECTORY).join(OTHER_LAYOUT);
        fs::create_dir_all(&others).unwrap();
        fs::rename(&pins, others.join(pins.file_name().unwrap())).unwrap();

        for interfaces in [&[SERVER_LINK][..], &[SERVER_LINK_2, SERVER_LINK]] {
            let output = refused(net, interfaces);
            assert_names(&output, &[OTHER_LAYOUT, "`knock-user detach`", SERVER_LINK]);
            net.new_source(Family::V4).finds_closed(SSH, "still there");
        }
        // An interface that it does not protect can be used.
        Daemon::start_with(&net.server, DOOR, &["--iface", SERVER_LINK_2]).leave(SIGTERM);

        detach(&net.server, &programs);
        let daemon = Daemon::start(&net.server, DOOR);
        let connected = net.new_source(Family::V4).knock_and_connect(KNOCKS, SSH);
        assert!(connected.is_ok(), "{connected:?}");
        daemon.stop();
    });
}

#[test]
fn a_second_process_is_refused_and_names_the_first() {
    net::test(|net| {
        net.add_second_link();
        let _server = Server::tcp(&net.server, &[SSH]);
        let first = Daemon::start(&net.server, DOOR);
        let id = first.process().id().to_string();
        for interfaces in [&[SERVER_LINK][..], &[SERVER_LINK_2, SERVER_LINK]] {
            let output = refused(net, interfaces);
            assert_names(&output, &[SERVER_LINK, &id, "`knock-user reload`"]);
        }
        let source = net.new_source(Family::V4);
        source.knock(KNOCKS);
        source.finds(true, SSH, "the first one continues");
        // Neither socket nor lock was touched.
        let (code, output) = daemon::ask(&net.server, &["status"]);
        assert_eq!(code, Some(0), "{output}");
        first.stop();
    });
}

#[test]
fn two_instances_live_side_by_side() {
    const OTHER: &str = r#"
        [[door]]
        name = "other"
        knock = ["tcp/7500", "udp/8500", "tcp/9500"]
        open = ["tcp/22"]
    "#;
    const OTHER_KNOCKS: &str = "tcp/7500 udp/8500 tcp/9500";
    net::test(|net| {
        net.add_second_link();
        let _server = Server::tcp(&net.server, &[SSH]);
        let first = Daemon::start(&net.server, DOOR);
        let second = Daemon::start_with(&net.server, OTHER, &["--iface", SERVER_LINK_2]);
        assert_eq!(pins::instances(&net.server).len(), 2);

        // The answers go through the first link: the client takes them from there as well.
        let here = net.new_source(Family::V4);
        let there = here.to(Family::V4.second_server());
        here.knock(KNOCKS);
        here.finds(true, SSH, "knocked here");
        there.finds_closed(SSH, "not knocked there");
        there.knock(KNOCKS);
        there.finds_closed(SSH, "the knocks of the other one");
        there.knock(OTHER_KNOCKS);
        there.finds(true, SSH, "knocked there");
        second.wait_for_event(&json!({"event": "opened", "source": here.name(), "door": "other"}));
        assert!(first.events_like(&json!({"door": "other"})).is_empty());

        // A command selects one of them.
        let (code, output) = daemon::ask(&net.server, &["confirm"]);
        assert_ne!(code, Some(0), "{output}");
        assert_names(&output, &[SERVER_LINK, SERVER_LINK_2, "--iface"]);

        // No command applies to both together.
        let output = refused(net, &[SERVER_LINK, SERVER_LINK_2]);
        assert_names(
            &output,
            &["several instances", "`knock-user detach --iface"],
        );

        // One ends, and the other continues; then the first starts again on its interface.
        second.kill();
        there.finds(true, SSH, "killed");
        first.stop();
        net.new_source(Family::V4).finds(true, SSH, "detached");
        let unauthorized = net.new_source(Family::V4).to(Family::V4.second_server());
        unauthorized.finds_closed(SSH, "the other one was not detached");
        let again = Daemon::start_with(&net.server, OTHER, &["--iface", SERVER_LINK_2]);
        again.wait_for_event(&json!({"event": "kept", "source": here.name(), "door": "other"}));
        let programs = again.programs().to_vec();
        again.stop();
        pins::nothing_is_left(&net.server, &programs);
    });
}

#[test]
fn a_grant_is_carried_over_by_its_door() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH, 80, 443]);
        let door = |name: &str, first: u16, open: &str| {
            format!(
                "[[door]]\nname = \"{name}\"\nknock = [\"tcp/{first}\", \"udp/{}\", \"tcp/{}\"]\n\
                 open = [{open}]\nopen_for = \"1h\"\n",
                first + 10,
                first + 5
            )
        };
        let ssh = door("ssh", 7000, "\"tcp/22\"");
        let web = door("web", 7100, "\"tcp/80\"");
        let first = Daemon::start_with(&net.server, &(ssh.clone() + &web), &KEEP);
        let [client, other_client] = [net.new_source(Family::V4), net.new_source(Family::V4)];
        client.knock("tcp/7000 udp/7010 tcp/7005");
        client.finds(true, SSH, "knocked");
        other_client.knock("tcp/7100 udp/7110 tcp/7105");
        other_client.finds(true, 80, "knocked");
        first.leave(SIGTERM);

        // Other doors before it, other knocks, another port, and the other door is gone.
        let db = door("db", 7200, "\"tcp/443\"");
        let ssh = door("ssh", 7300, "\"tcp/443\", \"tcp/22\"");
        let both = db
            + &ssh
            + "[[door]]\nname = \"all\"\nknock = [\"udp/7400\", \"tcp/7410\"]\n\
             open = [\"tcp/22\", \"tcp/80\"]\n";
        let second = Daemon::start_with(&net.server, &both, &KEEP);
        second.wait_for_event(&json!({"event": "kept", "source": client.name(), "door": "ssh"}));
        for port in [SSH, 443] {
            client.finds(true, port, "its door is still there");
        }
        client.finds_closed(80, "it never opened that");
        for port in [SSH, 80, 443] {
            other_client.finds_closed(port, "its door is gone");
        }
        let words = [other_client.name(), "web".to_owned()];
        wait::until("the end of a grant is reported", || {
            let output = second.process().printed();
            output
                .lines()
                .any(|line| words.iter().all(|word| line.contains(word)))
        });
        let old = net.new_source(Family::V4);
        old.knock("tcp/7000 udp/7010 tcp/7005");
        old.finds_closed(SSH, "the old knocks");
        let programs = second.programs().to_vec();
        second.leave(SIGTERM);
        detach(&net.server, &programs);
    });
}

/// Asserts that a start is refused and changes nothing; returns the error.
#[track_caller]
fn refused(net: &Net, interfaces: &[&str]) -> String {
    let before = attached_programs(&net.server);
    let config = config_file(DOOR.as_bytes());
    let mut command = daemon::command(&config);
    for interface in interfaces {
        command.args(["--iface", interface]);
    }
    let ended = Process::start(&net.server, &mut command).wait();
    let output = format!("{}\n{}", ended.stdout.join("\n"), ended.stderr);
    assert_eq!(ended.status.code(), Some(1), "{output}");
    assert!(!output.contains("panicked"), "{output}");
    assert_eq!(attached_programs(&net.server), before, "{output}");
    output
}

#[track_caller]
fn assert_names(output: &str, words: &[&str]) {
    for word in words {
        assert!(output.contains(word), "no {word:?} in: {output}");
    }
}

/// Runs `knock-user detach`, twice: the second time there is nothing to do.
#[track_caller]
fn detach(namespace: &Namespace, programs: &[u32]) {
    let (code, output) = daemon::ask(namespace, &["detach"]);
    assert_eq!(code, Some(0), "{output}");
    pins::nothing_is_left(namespace, programs);
    let (code, again) = daemon::ask(namespace, &["detach"]);
    assert_eq!(code, Some(0), "{again}");
}

/// The directory of another map layout, removed at the end.
struct OtherLayout;

impl Drop for OtherLayout {
    fn drop(&mut self) {
        // Other instances may be in there, which must not be removed with it.
        let _not_empty = fs::remove_dir(Path::new(bpffs::DIRECTORY).join(OTHER_LAYOUT));
    }
}
