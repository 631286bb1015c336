//! Hosts that are cut off, and come back.

use std::time::Duration;

use knock_tests::wait;
use nix::sys::signal::Signal;
use serde_json::json;

use crate::{
    host::{KNOCKS, SSH},
    network::at,
    test, wait_until_closed, wait_until_open,
};

#[test]
fn a_host_that_was_away_during_a_revocation_comes_back_closed() {
    test(|world| {
        let hosts: Vec<_> = [21, 22].map(|octet| world.host(octet, "")).into();
        let [here, away] = [&hosts[0], &hosts[1]];
        let [revoked, kept] = [world.network.new_source(21), world.network.new_source(21)];
        for source in [revoked, kept] {
            source.knock(KNOCKS);
            wait_until_open(source, 22, "before");
        }
        world.engine.set_reachable(away, false);
        let answer = here.ask(&format!("revoke {} --group", revoked.name()));
        assert_eq!(answer["group"]["missing"], json!(["host-22"]), "{answer}");
        wait_until_closed(revoked, 21, "revoked");
        away.wait_until_cut_off();
        at(revoked, 22).finds(true, SSH, "what is open stays open while it is cut off");
        world.engine.set_reachable(away, true);
        wait_until_closed(revoked, 22, "it is back");
        at(kept, 22).finds(true, SSH, "the other grant was not revoked");
        // Nor does its coming back bring anything back.
        away.wait_until_in_sync();
        let later = world.network.new_source(22);
        later.knock(KNOCKS);
        wait_until_open(later, 21, "later");
        at(revoked, 21).finds_closed(SSH, "still revoked");
        for mut host in hosts {
            host.daemon.take().unwrap().leave(Signal::SIGINT);
        }
    });
}

#[test]
fn a_host_that_is_cut_off_does_what_was_chosen() {
    test(|world| {
        let hosts = [
            world.host(21, ""),
            world.host(22, "alone = \"closed\""),
            world.host(23, "alone = \"local\""),
        ];
        for host in &hosts[1..] {
            world.engine.set_reachable(host, false);
            host.wait_until_cut_off();
        }
        let [_, closed, _] = &hosts;
        let source = world.network.new_source(22);
        source.knock(KNOCKS);
        source.finds_closed(SSH, "closed");
        let cut_off = json!({"event": "denied", "reason": "cut-off", "source": source.name()});
        closed.daemon().wait_for_event(&cut_off);
        let explained = closed.ask(&format!("explain {} tcp/22", source.name()));
        assert!(
            explained["steps"]
                .to_string()
                .contains("cut off from the group web since"),
            "{explained}"
        );
        let status = closed.ask("status");
        assert!(
            status["shortfalls"].to_string().contains("\"cut-off\""),
            "{status}"
        );
        closed.daemon().wait_for_event(&json!({"event": "cut-off"}));
        // By hand it opens in any case.
        closed.ask(&format!("grant {} --door ssh", source.name()));
        source.finds(true, SSH, "by hand");
        let source = world.network.new_source(23);
        source.knock_and_connect(KNOCKS, SSH).unwrap();
        at(source, 21).finds_closed(SSH, "elsewhere, before it is back");
        for host in &hosts[1..] {
            world.engine.set_reachable(host, true);
            host.wait_until_in_sync();
        }
        for host in &hosts {
            wait_until_open(source, host.octet, "they are back");
        }
        let again = world.network.new_source(22);
        again.knock_and_connect(KNOCKS, SSH).unwrap();
        for mut host in hosts {
            host.daemon.take().unwrap().leave(Signal::SIGINT);
        }
    });
}

/// Also where no process can inform the kernel side.
#[test]
fn a_dead_daemon_closes_after_the_grace() {
    test(|world| {
        let mut host = world.host(21, "");
        let source = world.network.new_source(21);
        source.knock_and_connect(KNOCKS, SSH).unwrap();
        host.daemon.take().unwrap().kill();
        // Within the grace a knock opens; after it, none does.
        let closed = wait::poll(wait::PATIENCE, || {
            let new = world.network.new_source(21);
            new.knock(KNOCKS);
            std::thread::sleep(Duration::from_millis(300));
            new.connect(SSH, Duration::from_millis(60)).err()
        });
        assert!(closed.is_some(), "it opens for everybody");
        source.finds(true, SSH, "what was given lasts");
        host.begin();
        host.wait_until_in_sync();
        source.finds(true, SSH, "after the start");
        let new = world.network.new_source(21);
        new.knock_and_connect(KNOCKS, SSH).unwrap();
        host.daemon.take().unwrap().leave(Signal::SIGINT);
    });
}
