//! What this host is like, as far as a configuration depends on it.

use std::{collections::BTreeSet, fs, net::SocketAddr, ops::RangeInclusive};

use crate::{config::checked::Knock, sockets};
use anyhow::{Context as _, Result};
use knock_common::packet::Protocol;

const EPHEMERAL: &str = "/proc/sys/net/ipv4/ip_local_port_range";
const RESERVED: &str = "/proc/sys/net/ipv4/ip_local_reserved_ports";

/// Facts about a host.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Host {
    /// Local ports of its own connections.
    pub ephemeral: RangeInclusive<u16>,
    /// Ports of these that it does not use.
    pub reserved: Vec<RangeInclusive<u16>>,
    /// Ports on which it listens for others: not those that only it can reach itself.
    ///
    /// A loopback listener's port is as closed to others as one on which nothing listens, so who
    /// touches it from outside is scanning.
    pub served: BTreeSet<Knock>,
}

impl Default for Host {
    /// A host that listens nowhere, with Linux's own ephemeral range.
    fn default() -> Self {
        Self {
            ephemeral: 32_768..=60_999,
            reserved: Vec::new(),
            served: BTreeSet::new(),
        }
    }
}

impl Host {
    /// Asks the kernel about the network namespace that this thread is in.
    ///
    /// # Errors
    /// The kernel does not tell, or in a form that is not understood.
    pub fn inspect() -> Result<Self> {
        let text = fs::read_to_string(EPHEMERAL).with_context(|| format!("reading {EPHEMERAL}"))?;
        let ephemeral = ephemeral(&text).with_context(|| format!("understanding {EPHEMERAL}"))?;
        let text = fs::read_to_string(RESERVED).with_context(|| format!("reading {RESERVED}"))?;
        let reserved = reserved(&text).with_context(|| format!("understanding {RESERVED}"))?;
        Ok(Self {
            ephemeral,
            reserved,
            served: served()?,
        })
    }

    /// Whether something listens on a TCP port.
    pub fn listens_on_tcp(&self, port: u16) -> bool {
        self.served.contains(&Knock {
            protocol: Protocol::Tcp,
            port,
        })
    }

    /// Whether a port may become the local port of one of the host's own connections.
    pub fn may_use(&self, port: u16) -> bool {
        self.ephemeral.contains(&port) && !self.reserved.iter().any(|range| range.contains(&port))
    }
}

/// `32768\t60999`.
fn ephemeral(text: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = text.trim().split_once(char::is_whitespace)?;
    Some(first.parse().ok()?..=last.trim().parse().ok()?)
}

/// `7000,8000-8010`; nothing if there are none.
fn reserved(text: &str) -> Option<Vec<RangeInclusive<u16>>> {
    let items = text.trim().split(',').filter(|item| !item.is_empty());
    items
        .map(|item| {
            let (first, last) = item.split_once('-').unwrap_or((item, item));
            Some(first.parse().ok()?..=last.parse().ok()?)
        })
        .collect()
}

/// Ports of listening TCP sockets and of UDP sockets that take datagrams from anybody.
fn served() -> Result<BTreeSet<Knock>> {
    let mut served = BTreeSet::new();
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let listeners = sockets::listeners(protocol)?;
        served.extend(
            listeners
                .into_iter()
                .filter_map(|at| reachable(protocol, at)),
        );
    }
    Ok(served)
}

/// The port of a socket, if others can reach it.
fn reachable(protocol: Protocol, bound_to: SocketAddr) -> Option<Knock> {
    let port = bound_to.port();
    let reachable = port != 0 && !bound_to.ip().is_loopback();
    reachable.then_some(Knock { protocol, port })
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;

    #[test]
    fn the_kernels_lists() {
        assert_eq!(ephemeral("32768\t60999\n"), Some(32_768..=60_999));
        assert_eq!(ephemeral("32768"), None);
        assert_eq!(reserved("\n"), Some(vec![]));
        assert_eq!(
            reserved("7000,8000-8010\n"),
            Some(vec![7000..=7000, 8000..=8010])
        );
        assert_eq!(reserved("x"), None);
    }

    #[test]
    fn listeners_that_others_can_reach_are_served() {
        let open = TcpListener::bind("0.0.0.0:0").unwrap();
        let own = TcpListener::bind("127.0.0.1:0").unwrap();
        let udp = UdpSocket::bind("[::]:0").unwrap();
        let connected = UdpSocket::bind("0.0.0.0:0").unwrap();
        connected.connect("127.0.0.1:9").unwrap();
        let host = Host::inspect().unwrap();
        let serves = |protocol, address: SocketAddr| {
            let port = address.port();
            host.served.contains(&Knock { protocol, port })
        };
        assert!(serves(Protocol::Tcp, open.local_addr().unwrap()));
        assert!(!serves(Protocol::Tcp, own.local_addr().unwrap()));
        assert!(serves(Protocol::Udp, udp.local_addr().unwrap()));
        assert!(!serves(Protocol::Udp, connected.local_addr().unwrap()));
    }
}
