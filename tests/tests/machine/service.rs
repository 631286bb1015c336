//! The service on a running machine: boot, logins, reloads, restarts, crashes.

use knock_tests::ssh::{KNOCKS, SSH};

use crate::{
    installed::{outside, restored, turn},
    outside::{MACHINE, finds, printed},
    qemu::{Card, Machine},
};

/// Checks the protection from the boot on. The boot itself is asserted while it happens; see `installed::booted`.
pub(crate) fn is_protected_from_its_boot_on(card: Card, mode: &str) {
    let _turn = turn();
    let mut machine = restored(card);
    let order = "systemctl show --property ActiveEnterTimestampMonotonic --value";
    let time = |machine: &mut Machine, unit: &str| -> u64 {
        machine
            .succeeds(&format!("{order} {unit}"))
            .parse()
            .unwrap()
    };
    let ready = time(&mut machine, "knock-user.service");
    let target = time(&mut machine, "network-pre.target");
    let network = time(&mut machine, "systemd-networkd.service");
    assert!(
        ready > 0 && ready <= target && target <= network,
        "{ready} {target} {network}"
    );
    let status = machine.succeeds("knock-user status");
    let line = status.lines().find(|line| line.starts_with("interfaces"));
    assert_eq!(
        line,
        Some(format!("interfaces     eth0 {mode}").as_str()),
        "{status}"
    );
}

pub(crate) fn lets_ssh_in(card: Card) {
    let _turn = turn();
    let outside = outside();
    let mut machine = restored(card);
    let in_journal = |machine: &mut Machine, name: &str| {
        let entries = "journalctl --quiet --output cat KNOCK_DOOR=ssh KNOCK_EVENT=opened";
        let what = format!("the journal has the opening for {name}");
        machine.until(
            &what,
            &format!("{entries} KNOCK_SOURCE={name} | grep -q '^opened '"),
        );
    };
    for to in MACHINE {
        let row = format!("one packet, {to}");
        outside.client_opens(to, SSH);
        let first = outside.first_source(to);
        in_journal(&mut machine, &first.name());
        assert_eq!(printed(&outside.ssh(&first, "hostname"), &row), "machine\n");
        finds(&outside.new_source(to), false, SSH, &row);

        let row = format!("knocks, {to}");
        let source = outside.new_source(to);
        finds(&source, false, SSH, &row);
        source.knock(KNOCKS);
        assert_eq!(
            printed(&outside.ssh(&source, "hostname"), &row),
            "machine\n"
        );
        in_journal(&mut machine, &source.name());
        finds(&outside.new_source(to), false, SSH, &row);
    }
    let of_the_other = machine.succeeds("journalctl --quiet --output cat KNOCK_DOOR=once");
    assert!(
        !of_the_other.contains("opened "),
        "another door: {of_the_other}"
    );
}

pub(crate) fn reloads(card: Card) {
    let _turn = turn();
    let outside = outside();
    let mut machine = restored(card);
    let source = outside.new_source(MACHINE[0]);
    source.knock(KNOCKS);
    let session = outside.session(&source);
    let attempts = outside.attempts();
    machine.succeeds(
        "printf '[[door]]\\nname = \"web\"\\nknock = [\"tcp/7500\", \"udp/8500\", \"tcp/9500\"]\\n\
         open = [\"tcp/80\"]\\n' >>/etc/knock/seq.toml && systemctl reload knock-user",
    );
    let status = machine.succeeds("knock-user status");
    assert!(status.contains("3 doors"), "{status}");
    session.continues("reloaded");
    for source in outside.new_sources() {
        finds(&source, false, 80, "a new door");
    }
    // A configuration with a fault changes nothing.
    machine.succeeds("echo 'knock = 1' >>/etc/knock/seq.toml");
    let ran = machine.run("systemctl reload knock-user");
    assert_ne!(ran.code, 0, "a configuration with a fault: {}", ran.text);
    let state = machine.succeeds("systemctl is-active knock-user");
    assert_eq!(state, "active");
    session.continues("a configuration with a fault");
    for source in outside.new_sources() {
        finds(&source, false, SSH, "a configuration with a fault");
        source.knock(KNOCKS);
        finds(&source, true, SSH, "a configuration with a fault");
    }
    attempts.all_failed("reload");
}

/// Checks a host whose key is a file that only root can read, and a credential of the service.
pub(crate) fn reads_a_credential(card: Card) {
    let _turn = turn();
    let outside = outside();
    let mut machine = restored(card);
    machine.succeeds(
        "install -m 600 /etc/knock/host.key /root/host.key && rm /etc/knock/host.key && \
         printf '[spa]\\nkey = \"credential:host.key\"\\n' >>/etc/knock/seq.toml && \
         mkdir -p /etc/systemd/system/knock-user.service.d && \
         printf '[Service]\\nLoadCredential=host.key:/root/host.key\\n' \
         >/etc/systemd/system/knock-user.service.d/credentials.conf && \
         systemctl daemon-reload && systemctl restart knock-user",
    );
    let source = outside.new_source(MACHINE[0]);
    finds(&source, false, SSH, "without a packet");
    outside.send(&source, &outside.packet());
    finds(&source, true, SSH, "a packet");
    machine.succeeds("systemctl reload knock-user");
    let status = machine.succeeds("knock-user status");
    assert!(status.contains("eth0"), "{status}");
    // Without the environment of the service.
    let check = machine.succeeds("knock-user check --config /etc/knock/seq.toml");
    assert!(check.contains("user alice"), "{check}");
    // Without the credential nothing is changed, and nothing is open.
    machine.succeeds(
        "rm /etc/systemd/system/knock-user.service.d/credentials.conf && systemctl daemon-reload",
    );
    let ran = machine.run("systemctl restart knock-user");
    assert_ne!(ran.code, 0, "without the credential: {}", ran.text);
    let log = machine.succeeds("journalctl --unit knock-user --lines 20 --output cat");
    assert!(log.contains("add LoadCredential=host.key:FILE"), "{log}");
    finds(
        &outside.new_source(MACHINE[0]),
        false,
        SSH,
        "without the credential",
    );
}

pub(crate) fn restarts(card: Card) {
    let _turn = turn();
    let outside = outside();
    let mut machine = restored(card);
    let before = main_process(&mut machine);
    let source = outside.new_source(MACHINE[0]);
    source.knock(KNOCKS);
    let session = outside.session(&source);
    let attempts = outside.attempts();
    machine.succeeds("systemctl restart knock-user");
    assert_ne!(main_process(&mut machine), before);
    session.continues("restarted");
    finds(&source, true, SSH, "the grant is taken over");
    machine.succeeds("systemctl stop knock-user");
    session.continues("stopped");
    for source in outside.new_sources() {
        finds(&source, false, SSH, "stopped");
    }
    machine.succeeds("systemctl start knock-user");
    session.continues("started");
    attempts.all_failed("restart");
    for source in outside.new_sources() {
        source.knock(KNOCKS);
        finds(&source, true, SSH, "started");
    }
}

pub(crate) fn survives_link_changes(card: Card) {
    let _turn = turn();
    let outside = outside();
    let mut machine = restored(card);
    for change in ["down", "up", "mtu 1400", "mtu 1500"] {
        machine.succeeds(&format!("ip link set eth0 {change}"));
    }
    machine.until(
        "a carrier",
        "ip -brief link show dev eth0 | grep -q LOWER_UP",
    );
    // networkd gives the addresses again.
    machine.succeeds("networkctl reconfigure eth0");
    machine.until(
        "the address",
        "ip -brief address show dev eth0 | grep -q 2001:db8::1",
    );
    for source in outside.new_sources() {
        finds(&source, false, SSH, "down and up");
        source.knock(KNOCKS);
        finds(&source, true, SSH, "down and up");
    }
}

#[test]
fn a_crash_loop_lets_nobody_in() {
    let _turn = turn();
    let outside = outside();
    let mut machine = restored(Card::VirtioNet);
    let source = outside.new_source(MACHINE[1]);
    source.knock(KNOCKS);
    let session = outside.session(&source);
    let attempts = outside.attempts();
    for round in 1..=3 {
        let before = main_process(&mut machine);
        machine.succeeds(&format!("kill -9 {before}"));
        machine.until(
            &format!("round {round}: another process"),
            &format!(
                "[ \"$(systemctl is-active knock-user)\" = active ] && \
                 [ \"$(systemctl show --property MainPID --value knock-user)\" != {before} ]"
            ),
        );
        session.continues(&format!("round {round}"));
    }
    // From now on it can't start at all.
    machine.succeeds(
        "mv /usr/bin/knock-user /usr/bin/knock-user.kept; ln -s /bin/false /usr/bin/knock-user; \
         systemctl kill -s KILL knock-user",
    );
    machine.until(
        "starts that fail",
        "[ $(systemctl show --property NRestarts --value knock-user) -ge 6 ]",
    );
    session.continues("starts that fail");
    for source in outside.new_sources() {
        finds(&source, false, SSH, "starts that fail");
    }
    machine.succeeds("mv /usr/bin/knock-user.kept /usr/bin/knock-user");
    machine.until("the service is back", "knock-user status");
    session.continues("back");
    attempts.all_failed("crash loop");
    for source in outside.new_sources() {
        source.knock(KNOCKS);
        finds(&source, true, SSH, "back");
    }
}

#[test]
fn vmxnet3_is_protected_in_native_mode_too() {
    let _turn = turn();
    let outside = outside();
    let mut machine = restored(Card::Vmxnet3);
    let attempts = outside.attempts();
    machine.succeeds(
        "sed -i '1i mode = \"native\"' /etc/knock/seq.toml && systemctl restart knock-user",
    );
    let status = machine.succeeds("knock-user status");
    assert!(status.contains("eth0 native"), "{status}");
    for source in outside.new_sources() {
        finds(&source, false, SSH, "native");
        source.knock(KNOCKS);
        finds(&source, true, SSH, "native");
    }
    attempts.all_failed("native");
}

/// Returns the process of the service.
pub(crate) fn main_process(machine: &mut Machine) -> u32 {
    let id = machine.succeeds("systemctl show --property MainPID --value knock-user");
    let id = id.parse().unwrap();
    assert_ne!(id, 0);
    id
}
