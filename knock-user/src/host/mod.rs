//! Reads the state of this machine: clock, interfaces, addresses, sockets, capabilities, and the
//! service manager.
//!
//! May use `model`. Must not know configurations, BPF objects or instances.

pub mod addresses;
pub mod clock;
pub(crate) mod credentials;
pub mod files;
mod gateways;
pub mod interface;
pub mod link_events;
pub mod listener;
pub mod memory;
pub mod netlink;
pub mod netns;
pub mod os_error;
pub mod paths;
pub mod private_files;
pub mod privileges;
pub mod programs;
pub mod random;
pub mod service_manager;
pub mod sockets;
pub mod tracked;
mod translations;

use std::{
    collections::BTreeSet,
    fs,
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
};

pub use self::{
    addresses::{Link, links},
    clock::WallClock,
    gateways::gateways,
    translations::{Reading, Translation},
};

use anyhow::{Context as _, Result};
use knock_common::packet::Protocol;
use knock_sequence::Knock;

const EPHEMERAL: &str = "/proc/sys/net/ipv4/ip_local_port_range";
const RESERVED: &str = "/proc/sys/net/ipv4/ip_local_reserved_ports";

/// The switches for IPv4 and IPv6.
const FORWARDING: [&str; 2] = [
    "/proc/sys/net/ipv4/ip_forward",
    "/proc/sys/net/ipv6/conf/all/forwarding",
];

/// Facts about a host that a configuration depends on.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Host {
    /// The range of local ports for its own connections.
    pub ephemeral: RangeInclusive<u16>,
    /// Ports in this range that it does not use.
    pub reserved: Vec<RangeInclusive<u16>>,
    /// Ports on which it listens for others, without those that only it can reach.
    ///
    /// For others, the port of a loopback listener is as closed as one without a listener, so a
    /// source that touches it is scanning.
    pub served: BTreeSet<Knock>,
    /// Its interfaces with their addresses, by their numbers.
    pub links: Vec<Link>,
    /// Whether it forwards packets, as a router or for containers.
    pub forwards: bool,
    /// Its port translations, as far as its rules can be read.
    pub rules: Reading,
    /// Its gateways.
    pub gateways: BTreeSet<IpAddr>,
    /// Its wall clock, unless nothing depends on it.
    pub wall_clock: Option<WallClock>,
    /// The memory that this process may use, in octets, if it is known.
    pub memory: Option<u64>,
}

impl Default for Host {
    /// Returns a host that listens nowhere, with the default ephemeral range of Linux.
    fn default() -> Self {
        Self {
            ephemeral: 32_768..=60_999,
            reserved: Vec::new(),
            served: BTreeSet::new(),
            links: Vec::new(),
            forwards: false,
            rules: Reading::default(),
            gateways: BTreeSet::new(),
            wall_clock: None,
            memory: None,
        }
    }
}

impl Host {
    /// Reads the facts of the network namespace of this thread.
    ///
    /// # Errors
    /// The kernel refuses, or its answer can't be parsed.
    pub fn inspect() -> Result<Self> {
        let text = fs::read_to_string(EPHEMERAL).with_context(|| format!("reading {EPHEMERAL}"))?;
        let ephemeral = ephemeral(&text).with_context(|| format!("parsing {EPHEMERAL}"))?;
        let text = fs::read_to_string(RESERVED).with_context(|| format!("reading {RESERVED}"))?;
        let reserved = reserved(&text).with_context(|| format!("parsing {RESERVED}"))?;
        Ok(Self {
            ephemeral,
            reserved,
            served: served().unwrap_or_else(|error| {
                tracing::warn!(
                    "can't list the ports on which this host listens ({}): with exempt = \"listening\" no \
                     port is exempt",
                    os_error::describe(&error)
                );
                BTreeSet::new()
            }),
            links: links()?,
            forwards: FORWARDING.iter().any(|path| is_on(path)),
            rules: Reading::now(),
            gateways: gateways(),
            wall_clock: Some(WallClock::now()),
            memory: memory::available(),
        })
    }

    /// Returns the ports that are exempt with `exempt = "listening"`: those on which it listens,
    /// and those that it translates, which are as open.
    pub fn open_ports(&self) -> BTreeSet<Knock> {
        let translations = self.rules.translations.iter();
        let translated = translations.filter(|translation| translation.is_served());
        let translated = translated.flat_map(|Translation { from, .. }| {
            let protocol = from.protocol;
            (from.first..=from.last).map(move |port| Knock { protocol, port })
        });
        self.served.iter().copied().chain(translated).collect()
    }

    /// Returns the addresses of this host.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        let links = self.links.iter();
        links.flat_map(|link| link.addresses.iter().copied())
    }

    /// Returns whether an address is one of this host's own.
    pub fn has_address(&self, address: IpAddr) -> bool {
        self.addresses().any(|own| own == address)
    }

    /// Returns the interface with this name or alternative name.
    pub fn link(&self, name: &str) -> Option<&Link> {
        self.links.iter().find(|link| link.is_called(name))
    }

    /// Returns whether one of these configured names stands for an interface: its name, an alternative name,
    /// or the one under which it was protected before it was renamed, unless another interface has that name.
    pub fn is_among(&self, link: &Link, names: &[String]) -> bool {
        let was_renamed =
            |name: &String| link.guarded_as.as_ref() == Some(name) && self.link(name).is_none();
        names
            .iter()
            .any(|name| link.is_called(name) || was_renamed(name))
    }

    /// Returns the interfaces through which unauthorized sources reach addresses of this host, without
    /// those that this instance protects, given by their configured names, or that another instance
    /// protects.
    pub fn unprotected<'a>(
        &'a self,
        protected: &'a [String],
    ) -> impl Iterator<Item = &'a Link> + 'a {
        let is_protected = |link: &Link| self.is_among(link, protected);
        let own = self.links.iter().filter(|link| is_protected(link));
        let own: BTreeSet<_> = own.filter_map(|link| link.guard.as_ref()).collect();
        // An interface that this instance releases is no longer protected.
        let is_guarded = move |link: &Link| {
            let guard = link.guard.as_ref();
            guard.is_some_and(|guard| !own.contains(guard))
        };
        let exposed = self.links.iter().filter(|link| link.is_exposed());
        exposed.filter(move |link| !is_protected(link) && !is_guarded(link))
    }

    /// Returns whether a program listens on a TCP port.
    pub fn listens_on_tcp(&self, port: u16) -> bool {
        self.served.contains(&Knock {
            protocol: Protocol::Tcp,
            port,
        })
    }

    /// Returns whether a port may become the local port of one of the host's own connections.
    pub fn may_use(&self, port: u16) -> bool {
        self.ephemeral.contains(&port) && !self.reserved.iter().any(|range| range.contains(&port))
    }
}

/// Returns whether a switch of the kernel is on; a missing one is off.
fn is_on(path: &str) -> bool {
    fs::read_to_string(path).is_ok_and(|text| text.trim() == "1")
}

/// Parses `32768\t60999`.
fn ephemeral(text: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = text.trim().split_once(char::is_whitespace)?;
    Some(first.parse().ok()?..=last.trim().parse().ok()?)
}

/// Parses `7000,8000-8010` or an empty list.
fn reserved(text: &str) -> Option<Vec<RangeInclusive<u16>>> {
    let items = text.trim().split(',').filter(|item| !item.is_empty());
    items
        .map(|item| {
            let (first, last) = item.split_once('-').unwrap_or((item, item));
            Some(first.parse().ok()?..=last.parse().ok()?)
        })
        .collect()
}

/// Returns the ports of listening TCP sockets, and of UDP sockets that accept datagrams from any
/// address, in the network namespace of this thread.
///
/// # Errors
/// The kernel refuses to list them.
pub fn served() -> Result<BTreeSet<Knock>> {
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

/// Returns the port of a socket, if others can reach it.
fn reachable(protocol: Protocol, bound_to: SocketAddr) -> Option<Knock> {
    let port = bound_to.port();
    let reachable = port != 0 && !bound_to.ip().is_loopback();
    reachable.then_some(Knock { protocol, port })
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;

    fn link(name: &str, up: bool, addresses: &[&str]) -> Link {
        let addresses = addresses.iter().map(|address| address.parse().unwrap());
        Link {
            name: name.to_owned(),
            up,
            addresses: addresses.collect(),
            ..Link::default()
        }
    }

    #[test]
    fn exposed_interfaces_without_protection_are_found() {
        let host = Host {
            links: vec![
                Link {
                    loopback: true,
                    ..link("lo", true, &["127.0.0.1", "::1"])
                },
                Link {
                    altnames: vec!["enp6s18".to_owned()],
                    ..link("eth0", true, &["192.0.2.1"])
                },
                link("eth1", true, &["198.51.100.1", "2001:db8::1"]),
                link("eth2", false, &["203.0.113.1"]),
                link("eth3", true, &[]),
            ],
            ..Host::default()
        };
        let rows: [(&str, &[&str], &[&str]); 5] = [
            ("no interface", &[], &["eth0", "eth1"]),
            ("one", &["eth0"], &["eth1"]),
            ("one by its other name", &["enp6s18"], &["eth1"]),
            ("all", &["eth0", "eth1"], &[]),
            ("one that is not there", &["eth9"], &["eth0", "eth1"]),
        ];
        for (name, protected, expected) in rows {
            let protected: Vec<_> = protected.iter().map(ToString::to_string).collect();
            let found = host.unprotected(&protected).map(|link| link.name.as_str());
            assert_eq!(found.collect::<Vec<_>>(), expected, "{name}");
        }
        // eth0 is protected by the same instance as eth1, or by another one.
        for (name, guards, expected) in [
            ("another instance", ["a", "b"], &[][..]),
            ("the same instance", ["a", "a"], &["eth0"]),
        ] {
            let mut host = host.clone();
            for (link, guard) in host.links.iter_mut().skip(1).zip(guards) {
                link.guard = Some(guard.to_owned());
            }
            let protected = ["eth1".to_owned()];
            let found = host.unprotected(&protected).map(|link| link.name.as_str());
            assert_eq!(found.collect::<Vec<_>>(), expected, "{name}");
        }
        // One instance protects eth0 and eth1, and eth0 was called lan0 when it was attached to.
        for (name, protected, expected) in [
            ("renamed", &["lan0", "eth1"][..], &[][..]),
            ("renamed, and the only one", &["lan0"], &["eth1"]),
            ("released after a rename", &["eth1"], &["eth0"]),
        ] {
            let mut host = host.clone();
            for (link, guarded_as) in host.links.iter_mut().skip(1).zip(["lan0", "eth1"]) {
                link.guard = Some("a".to_owned());
                link.guarded_as = Some(guarded_as.to_owned());
            }
            let protected: Vec<_> = protected.iter().map(ToString::to_string).collect();
            let found = host.unprotected(&protected).map(|link| link.name.as_str());
            assert_eq!(found.collect::<Vec<_>>(), expected, "{name}");
        }
        // eth3 has got the name that eth0 had.
        let mut taken = host.clone();
        for link in &mut taken.links {
            match link.name.as_str() {
                "eth0" => {
                    link.guard = Some("a".to_owned());
                    link.guarded_as = Some("lan0".to_owned());
                }
                "eth1" => link.guard = Some("a".to_owned()),
                "eth3" => link.name = "lan0".to_owned(),
                _ => {}
            }
        }
        let protected = ["lan0".to_owned(), "eth1".to_owned()];
        let found = taken.unprotected(&protected).map(|link| link.name.as_str());
        assert_eq!(found.collect::<Vec<_>>(), ["eth0"], "the name is taken");
        for (address, expected) in [
            ("192.0.2.1", true),
            ("2001:db8::1", true),
            ("203.0.113.1", true),
            ("192.0.2.2", false),
        ] {
            assert_eq!(
                host.has_address(address.parse().unwrap()),
                expected,
                "{address}"
            );
        }
    }

    #[test]
    fn the_loopback_interface_is_listed_with_its_addresses() {
        let host = Host::inspect().unwrap();
        let lo = host.link("lo").unwrap();
        assert!(lo.loopback && lo.ethernet, "{lo:?}");
        assert_eq!(lo.kind, None);
        assert!(host.has_address("127.0.0.1".parse().unwrap()), "{lo:?}");
        assert!(!lo.is_exposed());
    }

    #[test]
    fn lists_of_ports_are_read_as_the_kernel_writes_them() {
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
