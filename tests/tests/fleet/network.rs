//! Members, hosts and a client, each in a namespace of its own, on one bridge:
//!
//! ```text
//!   members  10.78.0.11 to .13        hosts  10.78.0.21 and on        client  10.78.0.100 to .199
//!       └───────────────────────── a bridge in a namespace ──────────────────────┘
//! ```

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::atomic::{AtomicU8, Ordering},
};

use knock_tests::{namespace::Namespace, source::Source};

/// The interface of each namespace.
pub(crate) const LINK: &str = "eth0";
const FIRST_SOURCE: u8 = 100;
const LAST_SOURCE: u8 = 199;

/// The bridge, and the namespace from which knocks come.
pub(crate) struct Network {
    hub: Namespace,
    client: Namespace,
    next_source: AtomicU8,
}

/// Returns an address of the network.
pub(crate) fn address(octet: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 78, 0, octet)
}

impl Network {
    pub(crate) fn new() -> Self {
        let hub = Namespace::new("hub");
        hub.ip("link add bridge0 type bridge");
        hub.ip("link set bridge0 up");
        let client = Namespace::new("client");
        let network = Self {
            hub,
            client,
            next_source: AtomicU8::new(FIRST_SOURCE),
        };
        network.join(&network.client, 1);
        for octet in FIRST_SOURCE..=LAST_SOURCE {
            network
                .client
                .ip(&format!("addr add {}/32 dev {LINK}", address(octet)));
        }
        network
    }

    /// Makes a namespace with an address.
    pub(crate) fn add(&self, role: &str, octet: u8) -> Namespace {
        let namespace = Namespace::new(role);
        self.join(&namespace, octet);
        namespace
    }

    fn join(&self, namespace: &Namespace, octet: u8) {
        let name = namespace.name();
        self.hub.ip(&format!(
            "link add p{octet} type veth peer name {LINK} netns {name}"
        ));
        self.hub.ip(&format!("link set p{octet} master bridge0 up"));
        namespace.ip("link set lo up");
        namespace.ip(&format!("addr add {}/24 dev {LINK}", address(octet)));
        namespace.ip(&format!("link set {LINK} up"));
    }

    /// Returns a source that was never used before, which knocks at the host with this address.
    #[track_caller]
    pub(crate) fn new_source(&self, octet: u8) -> Source<'_> {
        let number = self.next_source.fetch_add(1, Ordering::Relaxed);
        assert!(number <= LAST_SOURCE, "a test has at most 100 sources");
        Source {
            namespace: &self.client,
            from: IpAddr::from(address(number)),
            to: IpAddr::from(address(octet)),
        }
    }
}

/// Returns the same source, at another host.
pub(crate) fn at(source: Source<'_>, octet: u8) -> Source<'_> {
    source.to(IpAddr::from(address(octet)))
}
