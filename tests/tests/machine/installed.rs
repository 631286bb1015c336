//! The package, installed on a running system, and machines that booted with it.

use std::{
    path::{Path, PathBuf},
    sync::{LazyLock, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use knock_tests::{
    ssh::{DOOR, SSH},
    wait,
};

use crate::{
    outside::{self, MACHINE, ONCE, Outside},
    qemu::{self, Card, Machine, ShellResult, parts},
};

/// The sequences of the one-time door.
pub(crate) const LINES: [&str; 4] = [
    "tcp/7100 udp/8100 tcp/6100",
    "tcp/7200 udp/8200 tcp/6200",
    "tcp/7300 udp/8300 tcp/6300",
    "tcp/7400 udp/8400 tcp/6400",
];

/// What each step of the installation showed.
pub(crate) struct Installed {
    disk: PathBuf,
    /// The output of dpkg.
    pub(crate) printed: String,
    /// The unit after dpkg: enabled or not, active or not.
    pub(crate) unit: [String; 2],
    /// The process of the unit and its version, once it is started.
    pub(crate) status: ShellResult,
    pub(crate) check: ShellResult,
}

/// Returns the other machine, which all rows share.
pub(crate) fn outside() -> &'static Outside {
    static OUTSIDE: LazyLock<Outside> = LazyLock::new(Outside::new);
    &OUTSIDE
}

/// Locks the machine, which one row at a time has: there is one tap.
pub(crate) fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Installs the earlier version on a running system, configures it and starts the service.
pub(crate) fn installed() -> &'static Installed {
    static INSTALLED: LazyLock<Installed> = LazyLock::new(install);
    &INSTALLED
}

fn install() -> Installed {
    let outside = outside();
    let disk = qemu::disk("installed", qemu::pristine());
    let mut machine = Machine::boot(&outside.namespace, Card::VirtioNet, &disk);
    machine.is_booted();
    let key = outside.ssh_key();
    machine.succeeds(&format!(
        "echo '{}' >/root/.ssh/authorized_keys",
        key.trim()
    ));
    let printed = machine.succeeds(&format!(
        "dpkg --install /root/{}",
        package(&parts().earlier)
    ));
    let unit = ["is-enabled", "is-active"].map(|question| {
        machine
            .run(&format!("systemctl {question} knock-user"))
            .text
    });
    for source in outside.new_sources() {
        outside::finds(&source, true, SSH, "installed and not configured");
    }
    configure(&mut machine, outside);
    let check = machine.run("knock-user check --config /etc/knock/seq.toml");
    machine.succeeds("systemctl enable --now knock-user");
    let status = machine.run("knock-user status");
    for source in outside.new_sources() {
        outside::finds(&source, false, SSH, "started");
    }
    machine.shut_down();
    Installed {
        disk,
        printed,
        unit,
        status,
        check,
    }
}

/// Writes the configuration as in docs/guides: a door by one packet or by knocks, and a one-time door.
fn configure(machine: &mut Machine, outside: &Outside) {
    let config = format!(
        "interfaces = [\"eth0\"]\n\
         [[user]]\nname = \"alice\"\nkeys = [\"{}\"]\ndoors = [\"ssh\"]\n\
         {DOOR}\nopen_for = \"10m\"\n\
         [[door]]\nname = \"once\"\none_time = \"/var/lib/knock/once\"\nopen = [\"tcp/{ONCE}\"]\n",
        outside.alice()
    );
    let lines = LINES.join("\n");
    let host = outside.host_key();
    machine.succeeds(&format!(
        "cat >/etc/knock/seq.toml <<'END'\n{config}END\n\
         (umask 077; echo '{host}' >/etc/knock/host.key)\n\
         chgrp knock /etc/knock/host.key; chmod 640 /etc/knock/host.key\n\
         echo '{lines}' | install -m 600 -o knock -g knock /dev/stdin /var/lib/knock/once"
    ));
}

/// Returns the file of a version of the package.
pub(crate) fn package(version: &str) -> String {
    format!("knock_{version}-1_amd64.deb")
}

/// Returns a machine with a card that booted from the installed disk, and the disk that has its state.
pub(crate) fn booted(card: Card) -> &'static Path {
    static VIRTIO: LazyLock<PathBuf> = LazyLock::new(|| boot(Card::VirtioNet));
    static E1000E: LazyLock<PathBuf> = LazyLock::new(|| boot(Card::E1000e));
    static VMXNET3: LazyLock<PathBuf> = LazyLock::new(|| boot(Card::Vmxnet3));
    match card {
        Card::VirtioNet => &VIRTIO,
        Card::E1000e => &E1000E,
        Card::Vmxnet3 => &VMXNET3,
    }
}

/// Boots from the installed disk while sources try to get in.
fn boot(card: Card) -> PathBuf {
    let outside = outside();
    let disk = qemu::disk(&format!("{card:?}"), &installed().disk);
    let attempts = outside.attempts();
    let mut machine = Machine::boot(&outside.namespace, card, &disk);
    machine.is_booted();
    machine.until(
        "the address",
        "ip -brief address show dev eth0 | grep -q 192.0.2.1",
    );
    for source in outside.new_sources() {
        outside::finds(&source, false, SSH, "booted");
    }
    attempts.all_failed("boot");
    machine.save();
    disk
}

/// Returns a booted machine, in the state right after its boot, with the time of now.
pub(crate) fn restored(card: Card) -> Machine {
    let outside = outside();
    let machine = Machine::restore(&outside.namespace, card, booted(card));
    // The clock was set: until the program in the kernel has the time, packets are from the future.
    wait::until("the program has the time", || {
        let source = outside.new_source(MACHINE[0]);
        outside.send(&source, &outside.packet());
        source.connect(SSH, Duration::from_secs(2)).is_ok()
    });
    machine
}
