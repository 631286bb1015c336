//! The package on a running machine: installation, upgrade, removal.

use knock_tests::ssh::{KNOCKS, SSH};

use crate::{
    installed::{installed, outside, package, restored, turn},
    outside::{MACHINE, finds, finds_nothing},
    qemu::{Card, Machine, parts},
    service::main_process,
};

/// What happened before the configuration was edited, and after.
#[test]
fn an_installation_protects_nothing_until_it_is_configured() {
    let _turn = turn();
    let installed = installed();
    assert_eq!(
        installed.unit,
        ["disabled", "inactive"],
        "{}",
        installed.printed
    );
    assert!(!installed.printed.contains("rror"), "{}", installed.printed);
    assert_eq!(installed.check.code, 0, "{}", installed.check.text);
    assert_eq!(installed.status.code, 0, "{}", installed.status.text);
}

#[test]
fn an_upgrade_under_traffic_lets_nobody_in() {
    let _turn = turn();
    let outside = outside();
    let mut machine = restored(Card::VirtioNet);
    assert_eq!(version(&mut machine), format!("{}-1", parts().earlier));
    let before = main_process(&mut machine);
    let config = machine.succeeds("sha256sum /etc/knock/seq.toml");
    let source = outside.new_source(MACHINE[0]);
    source.knock(KNOCKS);
    let session = outside.session(&source);
    let blocked = outside.new_source(MACHINE[0]);
    machine.succeeds(&format!("knock-user block {} --for 1h", blocked.name()));
    let attempts = outside.attempts();
    machine.succeeds(&format!(
        "dpkg --install /root/{}",
        package(&parts().version)
    ));
    assert_eq!(version(&mut machine), format!("{}-1", parts().version));
    let after = main_process(&mut machine);
    assert_ne!(after, before);
    let exe = machine.succeeds(&format!("readlink /proc/{after}/exe"));
    assert_eq!(exe, "/usr/bin/knock-user");
    assert_eq!(machine.succeeds("sha256sum /etc/knock/seq.toml"), config);
    session.continues("upgraded");
    finds(&source, true, SSH, "the grant is taken over");
    attempts.all_failed("upgrade");
    let list = machine.succeeds("knock-user list --blocked");
    let mut lines = list.lines();
    assert!(
        lines.any(|line| line.starts_with(&blocked.name())),
        "{list}"
    );
    blocked.knock(KNOCKS);
    let other = outside.new_source(MACHINE[0]);
    finds_nothing(&blocked, &other, "blocked over the upgrade");
    machine.succeeds(&format!("knock-user unblock {}", blocked.name()));
    blocked.knock(KNOCKS);
    finds(&blocked, true, SSH, "unblocked");
    for source in outside.new_sources() {
        finds(&source, false, SSH, "upgraded");
        source.knock(KNOCKS);
        finds(&source, true, SSH, "upgraded");
    }
}

#[test]
fn a_removal_reports_what_it_opens() {
    let _turn = turn();
    let outside = outside();
    let mut machine = restored(Card::VirtioNet);
    let printed = machine.succeeds("dpkg --remove knock");
    let line = "tcp/22, tcp/2222 are no longer protected on eth0";
    assert!(printed.lines().any(|printed| printed == line), "{printed}");
    for source in outside.new_sources() {
        finds(&source, true, SSH, "removed");
    }
    let link = machine.succeeds("ip -details link show dev eth0");
    assert!(!link.contains("xdp"), "{link}");
    // The memory of used packets stays for a later installation.
    let pins = machine.run("find /sys/fs/bpf/knock ! -type d ! -path '*/spa/*' 2>/dev/null");
    assert_eq!(pins.text, "", "pins");
    // Its files of state stay until it is purged, and what the administrator made stays then, too.
    machine.succeeds("test -e /var/lib/knock/once && test -e /etc/knock/seq.toml");
    let printed = machine.succeeds("dpkg --purge knock");
    assert!(
        printed.contains("/etc/knock has files that are not from this package"),
        "{printed}"
    );
    machine.succeeds("test ! -e /var/lib/knock && test ! -e /etc/knock/seq.toml");
    machine.succeeds("test -e /etc/knock/host.key");
}

fn version(machine: &mut Machine) -> String {
    machine.succeeds("dpkg-query --show --showformat '${Version}' knock")
}
