//! Finds connections that this host forwards or translates and that a change would cut, so that they
//! continue like those of its own sockets.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::Result;
use knock_common::{
    layout::{FlowKey, PortKind},
    packet::Protocol,
};
use knock_sequence::{PortSet, Ports};

use crate::{
    compile::Tables,
    host::{
        Host, Link, interface, os_error,
        sockets::{self, TcpConnection},
        tracked::{self, Packets, TrackedConnection},
    },
    kernel::{instance::Instance, pins, registry::Registry},
    model::{prefix::Prefix, text::count},
};

/// The time limit of a search.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the previous configuration has judged: only connections to other ports, or through other
/// interfaces, are recorded.
#[derive(Clone, Debug, Default)]
pub(super) struct Judged {
    /// The interfaces that its program is attached to: their numbers, and the names for which they were attached to,
    /// which other interfaces may have now.
    pub(super) interfaces: BTreeMap<u32, String>,
    /// The ports that it protects.
    pub(super) ports: Vec<Ports>,
}

/// The place and the kind of the connections that are searched for.
#[derive(Clone, Debug)]
pub(super) struct Search {
    /// The networks of this host's interfaces, and the number of the interface of each.
    networks: Vec<(Prefix, u32)>,
    own: HashSet<IpAddr>,
    /// The numbers of the interfaces whose packets are judged.
    judged: BTreeSet<u32>,
    /// Those of them whose packets were not judged before.
    newly_judged: BTreeSet<u32>,
    /// The ports that were protected before.
    protected: PortSet,
    forwards: bool,
    /// The most connections that are recorded: the other half of the table is for grants of other sources, and for the
    /// host's own connections.
    most: usize,
}

/// The result of a search.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct TrackedFlows {
    /// The connections that can be recorded.
    pub(super) flows: Vec<FlowKey>,
    /// How many more there are than fit in.
    pub(super) left_out: u64,
    /// How many connections have replies that arrive at knock ports and are dropped there.
    pub(super) at_knock_ports: u64,
    /// Whether the search ended before it had seen all connections.
    pub(super) is_cut_short: bool,
}

impl Judged {
    /// Returns what the configuration with this registry judges.
    pub(super) fn by(before: Option<&Registry>, instance: &Instance) -> Self {
        let dropping = before.filter(|before| !before.dry_run);
        let ports = dropping.map_or(&[][..], |before| &before.protected);
        let links = pins::links(instance).unwrap_or_default();
        // The pin of a link outlives its interface, and its number may be another interface's in this namespace.
        let all = interface::list().unwrap_or_default();
        let attached = links.into_iter().filter_map(|link| {
            let interface = all.iter().find(|interface| link.holds(interface))?;
            Some((interface.index, link.name))
        });
        Self {
            interfaces: attached.collect(),
            ports: ports
                .iter()
                .filter_map(|ports| ports.parse().ok())
                .collect(),
        }
    }
}

impl Search {
    /// Searches for connections through these interfaces of a host. The table of flows has room for `flows`.
    pub(super) fn new(host: &Host, interfaces: &[String], before: &Judged, flows: u32) -> Self {
        let is_named = |link: &&Link| interfaces.iter().any(|name| link.is_called(name));
        let named = host.links.iter().filter(is_named).map(|link| link.index);
        // A renamed interface stays protected under its old name.
        let renamed = before
            .interfaces
            .iter()
            .filter(|(_, name)| interfaces.contains(name))
            .filter(|(_, name)| !host.links.iter().any(|link| link.is_called(name)))
            .map(|(index, _)| *index);
        let judged = carried(&host.links, named.chain(renamed).collect());
        let judged_before = carried(&host.links, before.interfaces.keys().copied().collect());
        let networks = host.links.iter().filter(|link| link.up).flat_map(|link| {
            let networks = link.networks.iter();
            networks.map(move |network| (*network, link.index))
        });
        Self {
            networks: networks.collect(),
            own: host.addresses().collect(),
            newly_judged: judged.difference(&judged_before).copied().collect(),
            judged,
            protected: PortSet::new(before.ports.iter().copied()),
            forwards: host.forwards,
            most: flows as usize / 2,
        }
    }

    /// Returns the connections that exist now.
    ///
    /// # Errors
    /// The kernel tracks connections and refuses to list them.
    pub(super) fn run(&self, tables: &Tables) -> Result<TrackedFlows> {
        let mut found = TrackedFlows::default();
        if tracked::count() == Some(0) || !self.concerns(tables) {
            return Ok(found);
        }
        let sockets: HashSet<_> = sockets::connections()?.into_iter().collect();
        let is_whole = tracked::list(PATIENCE, |connection| {
            for packets in self.arriving(&connection, &sockets) {
                found.take(packets, tables, self.most);
            }
        })?;
        found.is_cut_short = !is_whole;
        Ok(found)
    }

    /// Searches before the program is attached, and warns of what will be cut. A dry run cuts nothing.
    pub(super) fn run_first(&self, tables: &Tables, dry_run: bool) -> Vec<FlowKey> {
        let (flows, warnings) = match self.run(tables) {
            Ok(found) => {
                let warnings = found.warnings(self.most);
                (found.flows, warnings)
            }
            Err(error) => (Vec::new(), vec![unreadable(&error, tracked::count())]),
        };
        for warning in warnings.iter().filter(|_| !dry_run) {
            tracing::warn!("{warning}");
        }
        flows
    }

    /// Searches again after the program was attached, if connections may have been made in the
    /// meantime.
    pub(super) fn run_again(&self, tables: &Tables, has_found: bool) -> Vec<FlowKey> {
        if !self.forwards && !has_found {
            return Vec::new();
        }
        // The first search has warned of an error.
        self.run(tables).unwrap_or_default().flows
    }

    /// Returns whether any packet is judged differently from before.
    fn concerns(&self, tables: &Tables) -> bool {
        let mut ports = tables.ports.iter();
        !self.newly_judged.is_empty()
            || ports.any(|(&(protocol, port), rule)| {
                rule.kind() == PortKind::Protected && !self.protected.has(protocol, port)
            })
    }

    /// Returns the directions of a connection whose packets arrive through an interface and are newly
    /// judged. `sockets` are the host's own connections: one that the kernel still tracks may have
    /// ended.
    fn arriving(
        &self,
        connection: &TrackedConnection,
        sockets: &HashSet<TcpConnection>,
    ) -> impl Iterator<Item = Packets> {
        let TrackedConnection { first, reply } = *connection;
        let is_alive = |local: SocketAddr, peer| {
            let is_own = first.protocol == Protocol::Tcp && self.own.contains(&local.ip());
            !is_own || sockets.contains(&TcpConnection { local, peer })
        };
        let inward = is_alive(reply.source, reply.target).then_some(first);
        let outward = is_alive(first.source, first.target).then_some(reply);
        [inward, outward]
            .into_iter()
            .flatten()
            .filter(|packets| self.is_newly_judged(packets))
    }

    fn is_newly_judged(&self, packets: &Packets) -> bool {
        let Packets {
            protocol,
            source,
            target,
        } = packets;
        if self.own.contains(&source.ip()) {
            return false;
        }
        let near: Vec<_> = self
            .networks
            .iter()
            .filter(|(network, _)| network.has(source.ip()))
            .collect();
        let longest = near.iter().map(|(network, _)| network.bits).max();
        // A source in no network is behind a gateway, which may be in any.
        let is_through = |interfaces: &BTreeSet<u32>| {
            !interfaces.is_empty()
                && longest.is_none_or(|longest| {
                    near.iter().any(|(network, interface)| {
                        network.bits == longest && interfaces.contains(interface)
                    })
                })
        };
        is_through(&self.newly_judged)
            || (is_through(&self.judged) && !self.protected.has(*protocol, target.port()))
    }
}

impl TrackedFlows {
    fn take(&mut self, packets: Packets, tables: &Tables, most: usize) {
        if let Some(flow) = tables.flow_of(&packets) {
            match self.flows.len() < most {
                true => self.flows.push(flow),
                false => self.left_out += 1,
            }
        } else if tables.drops_at_knock_port(&packets) {
            self.at_knock_ports += 1;
        }
    }

    /// Returns warnings about connections that are cut.
    fn warnings(&self, most: usize) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.left_out > 0 {
            warnings.push(format!(
                "{} to protected ports that this host forwards or translates are cut, because only {most} are \
                 recorded: their clients have to knock and to connect again",
                count(self.left_out, "connection")
            ));
        }
        if self.is_cut_short {
            warnings.push(format!(
                "the connections that this host forwards or translates were not all listed within {} s: of \
                 those on protected ports, the others are cut, and their clients have to knock and to \
                 connect again",
                PATIENCE.as_secs()
            ));
        }
        if self.at_knock_ports > 0 {
            warnings.push(format!(
                "packets of {} arrive at knock ports or decoys, where they are judged as knocks and \
                 dropped: choose knock ports outside the range from which this host takes ports \
                 (`sysctl net.ipv4.ip_local_port_range`)",
                count(self.at_knock_ports, "existing connection")
            ));
        }
        warnings
    }
}

/// Returns the numbers of the interfaces whose packets a program on those with these numbers judges: also those of
/// a VLAN or macvlan on them, and those of the bridge or bond that they belong to.
fn carried(links: &[Link], mut carried: BTreeSet<u32>) -> BTreeSet<u32> {
    /// The kinds of interfaces whose frames arrive at their carrier as they are, but for a tag.
    const CARRIED: [&str; 5] = ["vlan", "macvlan", "macvtap", "ipvlan", "ipvtap"];
    loop {
        let above = links.iter().flat_map(|link| {
            let kind = link.kind.as_deref().unwrap_or_default();
            let carrier = link.carrier.filter(|_| CARRIED.contains(&kind));
            let is_carried = carrier.is_some_and(|carrier| carried.contains(&carrier));
            let group = link.master.filter(|_| carried.contains(&link.index));
            [is_carried.then_some(link.index), group]
        });
        let above: Vec<_> = above.flatten().collect();
        let before = carried.len();
        carried.extend(above);
        if carried.len() == before {
            return carried;
        }
    }
}

/// Returns the warning if the kernel refuses to list the connections that it tracks.
fn unreadable(error: &anyhow::Error, tracked: Option<u64>) -> String {
    let tracked = tracked.map_or_else(
        || "connections".to_owned(),
        |tracked| count(tracked, "connection"),
    );
    format!(
        "this host tracks {tracked}, and can't list them ({}): those on protected ports that it forwards or \
         translates, such as to containers, are cut, and their clients have to knock and to connect again; \
         to keep them, load the module nf_conntrack_netlink before knock-user starts",
        os_error::describe(error)
    )
}

#[cfg(test)]
mod tests;
