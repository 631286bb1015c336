//! A pair of tun interfaces, which have no Ethernet header, between the client and the server.

use std::{path::PathBuf, process::Command};

use nix::sys::signal::Signal;

use crate::{namespace::Namespace, net::Net, process::Process, wait};

/// The name of both.
pub const TUN_LINK: &str = "t0";

/// Two tun interfaces that are joined as long as this lives. They have the addresses of the second
/// link.
#[derive(Debug)]
pub struct TunLink(Process);

impl TunLink {
    /// Makes and addresses them.
    ///
    /// # Panics
    /// The kernel, `ip` or Python refuses.
    #[track_caller]
    pub fn of(net: &Net) -> Self {
        let link = Self::named(net, TUN_LINK);
        Self::address(net);
        link
    }

    /// Makes them under another name, without addresses.
    ///
    /// # Panics
    /// The kernel or Python refuses.
    #[track_caller]
    pub fn named(net: &Net, name: &str) -> Self {
        let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("oracle/tun.py");
        let mut command = Command::new("python3");
        command
            .arg(script)
            .args([net.client.name(), net.server.name(), name]);
        let process = Process::start(&net.client, &mut command);
        wait::until("the tun interfaces are joined", || {
            process.stdout() == ["ready"]
        });
        Self(process)
    }

    /// Gives them the addresses of the second link, and sets them up.
    ///
    /// # Panics
    /// `ip` refuses.
    #[track_caller]
    pub fn address(net: &Net) {
        let lines = |address: &str| {
            format!(
                "address add 192.0.2.{address} dev {TUN_LINK}
                 link set {TUN_LINK} up"
            )
        };
        let v6 = |namespace: &Namespace, low: u8| {
            namespace.ip(&format!(
                "address add 2001:db8:1::{low}/64 dev {TUN_LINK} nodad"
            ));
        };
        net.client.ip_batch(&lines("129/25"));
        net.server.ip_batch(&lines("130/25"));
        v6(&net.client, 1);
        v6(&net.server, 2);
    }

    /// Gives the server's one, which must be down, a link-layer type that no program reads, or its own
    /// one.
    ///
    /// # Panics
    /// The process has ended.
    #[track_caller]
    pub fn set_readable(&mut self, is_readable: bool) {
        self.0.signal(match is_readable {
            true => Signal::SIGUSR2,
            false => Signal::SIGUSR1,
        });
    }
}
