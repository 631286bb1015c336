//! Two network cards of the virtual machine that a cable connects, as the second link of a network.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{net::Net, wait};

const INTERFACES: &str = "/sys/class/net";
/// Part of the virtual machine's busybox.
const MODPROBE: &str = "modprobe";

/// Loads a driver and puts its two cards in the place of the second link: `a1` at the client, `b1` at the server.
///
/// # Panics
/// The machine has no two cards of this driver, or `ip` refuses.
#[track_caller]
pub fn second_link(net: &Net, driver: &str) {
    // The bus of virtio's cards: a module of Linux 6.1, built in later, where there is no such module.
    let _built_in = Command::new(MODPROBE).arg("virtio_pci").status();
    run(MODPROBE, &[driver]);
    let mut cards = Vec::new();
    wait::until(&format!("two cards of {driver} are there"), || {
        cards = of_driver(driver);
        cards.len() == 2
    });
    // Their own MAC addresses: a card forgets others when it is suspended.
    let macs: Vec<_> = cards.iter().map(|card| mac(card)).collect();
    for (card, name, namespace) in [
        (&cards[0], "a1", &net.client),
        (&cards[1], "b1", &net.server),
    ] {
        run("ip", &["link", "set", card, "netns", namespace.name()]);
        namespace.ip(&format!("link set {card} name {name}"));
    }
    net.address_second_link([&macs[0], &macs[1]]);
    wait::until("both cards have a carrier", || {
        [(&net.client, "a1"), (&net.server, "b1")]
            .iter()
            .all(|(namespace, name)| {
                let shown = namespace.run("ip", &["-br", "link", "show", name]);
                shown.contains("LOWER_UP")
            })
    });
}

/// Returns the interfaces of this thread's network namespace that have this driver, in the order of their names.
fn of_driver(driver: &str) -> Vec<String> {
    let is_its = |path: &PathBuf| {
        let link = fs::read_link(path.join("device/driver"));
        link.is_ok_and(|link| link.file_name().is_some_and(|name| name == driver))
    };
    let entries = fs::read_dir(INTERFACES).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries
        .filter(|entry| is_its(&entry.path()))
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    names
}

#[track_caller]
fn mac(interface: &str) -> String {
    let path = Path::new(INTERFACES).join(interface).join("address");
    match fs::read_to_string(&path) {
        Ok(mac) => mac.trim().to_owned(),
        Err(error) => panic!("reading {}: {error}", path.display()),
    }
}

#[track_caller]
fn run(program: &str, arguments: &[&str]) {
    let path = Path::new(program);
    match Command::new(path).args(arguments).status() {
        Ok(status) => assert!(status.success(), "{program} {arguments:?}: {status}"),
        Err(error) => panic!("{program} {arguments:?}: {error}"),
    }
}
