//! Processes that are killed: knock-fleet, the daemon, the leader of the engine.

use std::time::Duration;

use knock_tests::wait;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    host::{KNOCKS, SSH},
    network::at,
    test, wait_until_closed, wait_until_open,
};

#[test]
fn nothing_is_lost_or_brought_back_when_processes_die() {
    test(|world| {
        let mut hosts = [21, 22, 23].map(|octet| world.host(octet, ""));
        let revoked = world.network.new_source(21);
        revoked.knock(KNOCKS);
        for host in &hosts {
            wait_until_open(revoked, host.octet, "before");
        }
        hosts[0].ask(&format!("revoke {} --group", revoked.name()));
        let mut kept = Vec::new();
        for (name, killed) in [
            ("knock-fleet", Killed::Child),
            ("the daemon", Killed::Daemon),
            ("the leader", Killed::Leader),
            ("knock-fleet again", Killed::Child),
        ] {
            let source = world.network.new_source(21);
            source.knock_and_connect(KNOCKS, SSH).unwrap();
            wait_until_open(source, 22, name);
            let mut member = None;
            match killed {
                Killed::Child => {
                    let [child] = hosts[1].children()[..] else {
                        panic!("{name}: {:?}", hosts[1].children());
                    };
                    kill(Pid::from_raw(child), Signal::SIGKILL).unwrap();
                    wait::until(
                        "another knock-fleet is started",
                        || matches!(hosts[1].children()[..], [other] if other != child),
                    );
                }
                Killed::Daemon => {
                    hosts[1].daemon.take().unwrap().kill();
                    at(source, 22).finds(true, SSH, "without a daemon");
                    hosts[1].begin();
                }
                Killed::Leader => {
                    let leader = world.engine.leader();
                    world.engine.kill(leader);
                    member = Some(leader);
                }
            }
            // While it is dead or coming back, the host that is knocked at opens at once.
            let meanwhile = world.network.new_source(21);
            meanwhile.knock_and_connect(KNOCKS, SSH).unwrap();
            for source in [source, meanwhile] {
                for host in &hosts {
                    wait_until_open(source, host.octet, name);
                }
                kept.push(source);
            }
            if let Some(member) = member {
                world.engine.start(member);
                world.engine.leader();
            }
            hosts[1].wait_until_in_sync();
            for host in &hosts {
                at(revoked, host.octet).finds_closed(SSH, name);
            }
        }
        for source in &kept {
            for host in &hosts {
                at(*source, host.octet).finds(true, SSH, "at the end");
            }
        }
        for host in &mut hosts {
            host.daemon.take().unwrap().leave(Signal::SIGINT);
        }
    });
}

#[derive(Clone, Copy)]
enum Killed {
    Child,
    Daemon,
    Leader,
}

/// A majority that is gone is as a cut: what is open lasts, and revocations come later.
#[test]
fn without_a_majority_hosts_are_cut_off_and_come_back() {
    test(|world| {
        let hosts: Vec<_> = [21, 22].map(|octet| world.host(octet, "")).into();
        let source = world.network.new_source(21);
        source.knock(KNOCKS);
        wait_until_open(source, 22, "before");
        for member in [0, 1] {
            world.engine.kill(member);
        }
        for host in &hosts {
            host.wait_until_cut_off();
            at(source, host.octet).finds(true, SSH, "what is open lasts");
            let new = world.network.new_source(host.octet);
            new.knock(KNOCKS);
            new.finds_closed(SSH, "no new grant");
        }
        let answer = hosts[0].ask(&format!("revoke {} --group", source.name()));
        assert_eq!(
            answer["group"]["is_written"],
            serde_json::json!(false),
            "{answer}"
        );
        source.finds_closed(SSH, "revoked here");
        at(source, 22).finds(true, SSH, "not there yet");
        for member in [0, 1] {
            world.engine.start(member);
        }
        wait_until_closed(source, 22, "they are back");
        for host in &hosts {
            host.wait_until_in_sync();
        }
        std::thread::sleep(Duration::from_millis(50));
        source.finds_closed(SSH, "not brought back");
        for mut host in hosts {
            host.daemon.take().unwrap().leave(Signal::SIGINT);
        }
    });
}
