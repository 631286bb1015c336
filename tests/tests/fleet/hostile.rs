//! Hosts that have another key, or belong to another group.

use knock_tests::wait;
use nix::sys::signal::Signal;

use crate::{
    host::{Host, KNOCKS, SSH, Settings, new_key},
    network::at,
    test, wait_until_open,
};

#[test]
fn a_host_with_another_key_or_group_opens_nothing_elsewhere() {
    test(|world| {
        let other = new_key(world.directory.path(), "other.seal");
        let db = new_key(world.directory.path(), "db.seal");
        let web: Vec<_> = [21, 22].map(|octet| world.host(octet, "")).into();
        for (name, group, seal) in [("another key", "web", &other), ("another group", "db", &db)] {
            let unreadable = || web[1].ask("fleet status")["unreadable"].as_u64();
            let before = unreadable();
            let settings = Settings {
                group,
                seal,
                more: "",
            };
            let octet = if group == "web" { 23 } else { 24 };
            let mut foreign = Host::start(&world.network, &world.engine, octet, settings);
            let source = world.network.new_source(octet);
            source.knock_and_connect(KNOCKS, SSH).unwrap();
            let own = world.network.new_source(21);
            own.knock_and_connect(KNOCKS, SSH).unwrap();
            // Its record is there before the next one.
            wait::until(&format!("{name}: its record is written"), || {
                let prefix = format!("/knock/1/{group}/h/host-{octet}/g/");
                world.engine.records(&prefix).contains(&prefix)
            });
            wait_until_open(own, 22, name);
            let later = world.network.new_source(21);
            later.knock(KNOCKS);
            wait_until_open(later, 22, name);
            for octet in [21, 22] {
                at(source, octet).finds_closed(SSH, name);
            }
            for own in [own, later] {
                at(own, foreign.octet).finds_closed(SSH, name);
            }
            assert_eq!(unreadable() > before, group == "web", "{name}: {before:?}");
            foreign.daemon.take().unwrap().leave(Signal::SIGINT);
        }
        for mut host in web {
            host.daemon.take().unwrap().leave(Signal::SIGINT);
        }
    });
}

#[test]
fn hosts_with_the_old_and_the_new_key_understand_each_other() {
    test(|world| {
        let new = world.directory.path().join("new.seal");
        let (code, printed) = knock_tests::daemon::ask(
            &world.network.add("admin", 30),
            &[
                "fleet",
                "key",
                "--renew",
                &world.seal.display().to_string(),
                "--out",
                &new.display().to_string(),
            ],
        );
        assert_eq!(code, Some(0), "{printed}");
        let hosts: Vec<_> = [21, 22].map(|octet| world.host(octet, "")).into();
        let mut hosts = hosts;
        let seals =
            |first: &std::path::Path, rest: &str| format!("seal = [\"{}\"{rest}]", first.display());
        let before = seals(&world.seal, "");
        let (old, renewed) = (world.seal.display().to_string(), new.display().to_string());
        for (name, host, seal) in [
            (
                "one reads both",
                0,
                seals(&world.seal, &format!(", \"{renewed}\"")),
            ),
            (
                "both read both",
                1,
                seals(&world.seal, &format!(", \"{renewed}\"")),
            ),
            (
                "one seals with the new one",
                0,
                seals(&new, &format!(", \"{old}\"")),
            ),
            ("both do", 1, seals(&new, &format!(", \"{old}\""))),
            ("one forgets the old one", 0, seals(&new, "")),
            ("both do", 1, seals(&new, "")),
        ] {
            let config = hosts[host].config.replace(&before, &seal);
            hosts[host].daemon.as_mut().unwrap().reload(&config);
            for host in &hosts {
                host.wait_until_in_sync();
            }
            for (from, to) in [(21, 22), (22, 21)] {
                let source = world.network.new_source(from);
                source.knock_and_connect(KNOCKS, SSH).unwrap();
                wait_until_open(source, to, name);
            }
        }
        for mut host in hosts {
            host.daemon.take().unwrap().leave(Signal::SIGINT);
        }
    });
}
