//! The network of a test: a client and a server, nothing else.
//!
//! ```text
//!  knock-a-PID-N                                           knock-b-PID-N
//!  client                                                  server
//!
//!  a0 192.0.2.1   2001:db8::1   ──────── veth ────────  b0 192.0.2.2   2001:db8::2
//!                                                          192.0.2.3   2001:db8::3   (other address)
//!  a1 192.0.2.129 2001:db8:1::1 ──────── veth ────────  b1 192.0.2.130 2001:db8:1::2 (if asked for)
//!
//!  lo 198.51.100.0/24 and 2001:db8:a::/64, all local: as many sources as a test needs;
//!     the server reaches them through a0
//! ```
//!
//! Neighbours are permanent, addresses are used at once (no duplicate address detection), routers are
//! not asked for, so that the link carries only what a test sends. Segmentation offload is off at the
//! client, so that the server receives frames as a network would deliver them.

use std::{
    fmt, fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU8, Ordering},
    },
};

use nix::unistd::Uid;

use crate::{
    namespace::{self, Namespace},
    source::Source,
    wait,
};

/// The server's interface.
pub const SERVER_LINK: &str = "b0";
/// The client's interface.
pub const CLIENT_LINK: &str = "a0";
/// The server's second interface, if there is one.
pub const SERVER_LINK_2: &str = "b1";

const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0xa0];
const SERVER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0xb0];

/// The two kinds of addresses.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// Returns the one of these two that is for this family.
    pub fn pick<T>(self, v4: T, v6: T) -> T {
        match self {
            Self::V4 => v4,
            Self::V6 => v6,
        }
    }

    fn address(self, v4: [u8; 4], v6: [u16; 8]) -> IpAddr {
        self.pick(Ipv4Addr::from(v4).into(), Ipv6Addr::from(v6).into())
    }

    /// Returns the server's address.
    pub fn server(self) -> IpAddr {
        self.address([192, 0, 2, 2], [0x2001, 0xdb8, 0, 0, 0, 0, 0, 2])
    }

    /// Returns the server's other address.
    pub fn other_server(self) -> IpAddr {
        self.address([192, 0, 2, 3], [0x2001, 0xdb8, 0, 0, 0, 0, 0, 3])
    }

    /// Returns the server's address on its second interface.
    pub fn second_server(self) -> IpAddr {
        self.address([192, 0, 2, 130], [0x2001, 0xdb8, 1, 0, 0, 0, 0, 2])
    }

    /// Returns the client's own address, for programs that can't be given another.
    pub fn client(self) -> IpAddr {
        self.address([192, 0, 2, 1], [0x2001, 0xdb8, 0, 0, 0, 0, 0, 1])
    }

    /// Returns one of the client's many addresses.
    pub fn source(self, number: u8) -> IpAddr {
        let low = u16::from(number);
        self.address(
            [198, 51, 100, number],
            [0x2001, 0xdb8, 0xa, 0, 0, 0, 0, low],
        )
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.pick("IPv4", "IPv6"))
    }
}

/// The two namespaces and the links between them.
#[derive(Debug)]
pub struct Net {
    /// The namespace from which knocks come.
    pub client: Namespace,
    /// The namespace that is protected.
    pub server: Namespace,
    next_source: AtomicU8,
    /// Dropped last, so that the next test begins when everything else is gone.
    _turn: MutexGuard<'static, ()>,
}

impl Net {
    /// Makes the network.
    ///
    /// # Panics
    /// This process is not root, or `ip` refuses.
    #[track_caller]
    pub fn new() -> Self {
        static TURN: Mutex<()> = Mutex::new(());
        assert!(
            Uid::effective().is_root(),
            "tests on real packets need root: `cargo xtask test` shows how"
        );
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        namespace::remove_leftovers();
        let net = Self {
            client: Namespace::new("a"),
            server: Namespace::new("b"),
            next_source: AtomicU8::new(1),
            _turn: turn,
        };
        net.build();
        net
    }

    fn build(&self) {
        let (a, b) = (&self.client, &self.server);
        // Before there are links, which start with these defaults.
        for namespace in [a, b] {
            namespace.sysctl("ipv6/conf/default/accept_dad", "0");
            namespace.sysctl("ipv6/conf/default/router_solicitations", "0");
            namespace.sysctl("ipv6/conf/default/accept_ra", "0");
            // No reverse path is checked, since all sources use one link.
            namespace.sysctl("ipv4/conf/all/rp_filter", "0");
            namespace.sysctl("ipv4/conf/default/rp_filter", "0");
            // A host limits its answers to scans by default.
            namespace.sysctl("ipv4/icmp_ratelimit", "0");
        }
        a.sysctl("ipv4/ip_nonlocal_bind", "1");
        a.sysctl("ipv6/ip_nonlocal_bind", "1");
        a.ip(&format!(
            "link add a0 address {} type veth peer name b0 address {} netns {}",
            mac(CLIENT_MAC),
            mac(SERVER_MAC),
            b.name()
        ));
        a.ip_batch(&format!(
            "address add 192.0.2.1/25 dev a0
             address add 2001:db8::1/64 dev a0 nodad
             link set lo up
             link set a0 up
             route add local 198.51.100.0/24 dev lo
             route add local 2001:db8:a::/56 dev lo
             {}",
            neighbours("a0", Family::server, Family::other_server, SERVER_MAC)
        ));
        b.ip_batch(&format!(
            "address add 192.0.2.2/25 dev b0
             address add 192.0.2.3/25 dev b0
             address add 2001:db8::2/64 dev b0 nodad
             address add 2001:db8::3/64 dev b0 nodad
             link set lo up
             link set b0 up
             route add 198.51.100.0/24 via 192.0.2.1
             route add 2001:db8:a::/56 via 2001:db8::1
             {}",
            neighbours("b0", Family::client, Family::client, CLIENT_MAC)
        ));
        self.offload(CLIENT_LINK, &["tso", "gso", "gro"], false);
        wait::until("both ends of the link are up", || {
            a.try_run("ip", &["-br", "link", "show", "a0", "up"])
                .stdout
                .windows(8)
                .any(|word| word == b"LOWER_UP")
        });
    }

    /// Adds a second link between the two.
    ///
    /// # Panics
    /// `ip` refuses.
    #[track_caller]
    pub fn add_second_link(&self) {
        let (a, b) = (&self.client, &self.server);
        a.ip(&format!(
            "link add a1 address 02:00:00:00:00:a1 type veth \
             peer name b1 address 02:00:00:00:00:b1 netns {}",
            b.name()
        ));
        self.address_second_link(["02:00:00:00:00:a1", "02:00:00:00:00:b1"]);
    }

    /// Gives the ends of the second link, `a1` and `b1`, their addresses; `macs` are the MAC addresses that they
    /// have.
    ///
    /// # Panics
    /// `ip` refuses.
    #[track_caller]
    pub fn address_second_link(&self, macs: [&str; 2]) {
        let [a1, b1] = macs;
        self.client.ip_batch(&format!(
            "address add 192.0.2.129/25 dev a1
             address add 2001:db8:1::1/64 dev a1 nodad
             link set a1 up
             neighbour replace 192.0.2.130 lladdr {b1} dev a1 nud permanent
             neighbour replace 2001:db8:1::2 lladdr {b1} dev a1 nud permanent",
        ));
        self.server.ip_batch(&format!(
            "address add 192.0.2.130/25 dev b1
             address add 2001:db8:1::2/64 dev b1 nodad
             link set b1 up
             neighbour replace 192.0.2.129 lladdr {a1} dev b1 nud permanent
             neighbour replace 2001:db8:1::1 lladdr {a1} dev b1 nud permanent",
        ));
    }

    /// Switches features of the client's interfaces, by their names in `ethtool -K`.
    ///
    /// # Panics
    /// `ethtool` refuses.
    #[track_caller]
    pub fn offload(&self, link: &str, features: &[&str], on: bool) {
        let mut arguments = vec!["-K", link];
        for feature in features {
            arguments.extend([*feature, if on { "on" } else { "off" }]);
        }
        self.client.run("ethtool", &arguments);
    }

    /// Returns how many TCP segments the server's stack has taken, and how many datagrams its sockets, over
    /// both families: what the program drops is not among them.
    ///
    /// # Panics
    /// `nstat` fails.
    #[track_caller]
    pub fn server_packets(&self) -> String {
        self.server.run(
            "nstat",
            &["-asz", "TcpInSegs", "UdpInDatagrams", "Udp6InDatagrams"],
        )
    }

    /// Returns a source that was never used before in this network.
    ///
    /// # Panics
    /// No address is left.
    #[track_caller]
    pub fn new_source(&self, family: Family) -> Source<'_> {
        let number = self.next_source.fetch_add(1, Ordering::Relaxed);
        assert!(number < 255, "a test has at most 254 sources");
        self.source(family.source(number), family.server())
    }

    /// Returns how many packets of the client the link had no room for: where the other end is too busy to
    /// receive them, they are dropped before any program sees them.
    ///
    /// # Panics
    /// The kernel does not report it.
    #[track_caller]
    pub fn lost(&self) -> u64 {
        let name = format!("{CLIENT_LINK}:");
        let counters = self
            .client
            .enter(|| fs::read_to_string("/proc/thread-self/net/dev"));
        let counters =
            counters.unwrap_or_else(|error| panic!("/proc/thread-self/net/dev: {error}"));
        let line = counters
            .lines()
            .find_map(|line| line.trim().strip_prefix(&name));
        // Eight numbers about what was received, then packets, octets, errors and drops of what was sent.
        let dropped = line.and_then(|line| line.split_whitespace().nth(11)?.parse().ok());
        dropped.unwrap_or_else(|| panic!("{CLIENT_LINK} is not in\n{counters}"))
    }

    /// Returns the client's own address.
    pub fn native(&self, family: Family) -> Source<'_> {
        self.source(family.client(), family.server())
    }

    /// Returns a source with these addresses.
    pub fn source(&self, from: IpAddr, to: IpAddr) -> Source<'_> {
        Source {
            namespace: &self.client,
            from,
            to,
        }
    }
}

impl Default for Net {
    #[track_caller]
    fn default() -> Self {
        Self::new()
    }
}

/// Runs a test in a network of its own and checks that it leaves nothing behind.
///
/// # Panics
/// `test` panics, or leaves something behind.
#[track_caller]
pub fn test(test: impl FnOnce(&Net)) {
    let net = Net::new();
    test(&net);
    drop(net);
    let leftovers = namespace::leftovers();
    assert!(leftovers.is_empty(), "left behind: {leftovers:?}");
}

/// Returns the MAC addresses of client and server.
pub const fn macs() -> ([u8; 6], [u8; 6]) {
    (CLIENT_MAC, SERVER_MAC)
}

fn neighbours(
    link: &str,
    one: impl Fn(Family) -> IpAddr,
    other: impl Fn(Family) -> IpAddr,
    lladdr: [u8; 6],
) -> String {
    let mut lines = String::new();
    for family in Family::ALL {
        for address in [one(family), other(family)] {
            lines += &format!(
                "neighbour replace {address} lladdr {} dev {link} nud permanent\n",
                mac(lladdr)
            );
        }
    }
    lines
}

/// Returns a MAC address as text.
pub fn mac(octets: [u8; 6]) -> String {
    octets.map(|octet| format!("{octet:02x}")).join(":")
}
