//! Lists the interfaces of this host with their addresses.

use std::{collections::BTreeMap, net::IpAddr};

use anyhow::{Context as _, Result};
use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::{
    RouteNetlinkMessage,
    address::{AddressAttribute, AddressMessage},
    link::{LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage, LinkXdp, Prop},
};
use netlink_sys::protocols::NETLINK_ROUTE;

use crate::{host::netlink, model::prefix::Prefix};

/// An interface, as far as warnings depend on it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Link {
    /// Its name.
    pub name: String,
    /// Other names that the kernel accepts for it.
    pub altnames: Vec<String>,
    /// Its number in this network namespace.
    pub index: u32,
    /// Whether an administrator has set it up.
    pub up: bool,
    /// Whether it is the loopback interface, whose packets come from this host alone.
    pub loopback: bool,
    /// Whether its frames begin with an Ethernet header.
    pub ethernet: bool,
    /// Its kind in the kernel (`bridge`, `veth`, `tun`); none for hardware.
    pub kind: Option<String>,
    /// The number of the bridge, bond or VRF that it belongs to.
    pub master: Option<u32>,
    /// The number of the interface that carries it, as that of a VLAN.
    pub carrier: Option<u32>,
    /// The id of the XDP program that is attached to it.
    pub program: Option<u32>,
    /// The addresses that the host has on it.
    pub addresses: Vec<IpAddr>,
    /// The networks whose hosts are reached through it without a gateway.
    pub networks: Vec<Prefix>,
    /// The instance of knock-user that protects it, if known.
    pub guard: Option<String>,
    /// The name under which that instance protects it: the configured one, also after a rename.
    pub guarded_as: Option<String>,
}

impl Link {
    /// Returns whether it has this name or alternative name.
    pub fn is_called(&self, name: &str) -> bool {
        self.name == name || self.altnames.iter().any(|other| other == name)
    }

    /// Returns whether unauthorized sources can reach addresses of this host through it.
    pub fn is_exposed(&self) -> bool {
        self.up && !self.loopback && !self.addresses.is_empty()
    }
}

/// Returns the interfaces of the network namespace of this thread, by number.
///
/// # Errors
/// The kernel refuses to list them.
pub fn links() -> Result<Vec<Link>> {
    let mut links = BTreeMap::new();
    dump(
        RouteNetlinkMessage::GetLink(LinkMessage::default()),
        |answer| {
            if let RouteNetlinkMessage::NewLink(message) = answer {
                links.insert(message.header.index, link(message));
            }
        },
    )
    .context("listing interfaces")?;
    dump(
        RouteNetlinkMessage::GetAddress(AddressMessage::default()),
        |answer| {
            if let RouteNetlinkMessage::NewAddress(message) = answer
                && let Some(link) = links.get_mut(&message.header.index)
            {
                link.addresses.extend(address(&message));
                link.networks.extend(network(&message));
            }
        },
    )
    .context("listing addresses")?;
    Ok(links.into_values().collect())
}

fn dump(request: RouteNetlinkMessage, take: impl FnMut(RouteNetlinkMessage)) -> Result<()> {
    let request = NetlinkMessage::new(NetlinkHeader::default(), NetlinkPayload::from(request));
    netlink::dump(NETLINK_ROUTE, request, NLM_F_REQUEST | NLM_F_DUMP, take)
}

fn link(message: LinkMessage) -> Link {
    let layer = message.header.link_layer_type;
    let mut link = Link {
        index: message.header.index,
        up: message.header.flags.contains(LinkFlags::Up),
        loopback: layer == LinkLayerType::Loopback,
        ethernet: matches!(layer, LinkLayerType::Ether | LinkLayerType::Loopback),
        ..Link::default()
    };
    for attribute in message.attributes {
        if let LinkAttribute::IfName(name) = attribute {
            link.name = name;
        } else if let LinkAttribute::PropList(properties) = attribute {
            link.altnames
                .extend(properties.into_iter().filter_map(|property| {
                    if let Prop::AltIfName(name) = property {
                        Some(name)
                    } else {
                        None
                    }
                }));
        } else if let LinkAttribute::Link(carrier) = attribute {
            link.carrier = Some(carrier);
        } else if let LinkAttribute::Controller(master) = attribute {
            link.master = Some(master);
        } else if let LinkAttribute::Xdp(xdp) = attribute {
            link.program = xdp.iter().find_map(program_id);
        } else if let LinkAttribute::LinkInfo(info) = attribute {
            link.kind = info.iter().find_map(kind);
        }
    }
    link
}

fn program_id(xdp: &LinkXdp) -> Option<u32> {
    if let LinkXdp::ProgId(id) = xdp {
        Some(*id).filter(|&id| id != 0)
    } else {
        None
    }
}

fn kind(info: &LinkInfo) -> Option<String> {
    if let LinkInfo::Kind(kind) = info {
        Some(kind.to_string())
    } else {
        None
    }
}

/// Returns the address of this host: on a point-to-point link, `Address` is the other end.
fn address(message: &AddressMessage) -> Option<IpAddr> {
    let mut found = None;
    for attribute in &message.attributes {
        if let AddressAttribute::Local(address) = attribute {
            return Some(*address);
        } else if let AddressAttribute::Address(address) = attribute {
            found = Some(*address);
        }
    }
    found
}

/// Returns the network of an address, which on a point-to-point link is the other end.
fn network(message: &AddressMessage) -> Option<Prefix> {
    let mut attributes = message.attributes.iter();
    let address = attributes.find_map(|attribute| {
        if let AddressAttribute::Address(address) = attribute {
            Some(*address)
        } else {
            None
        }
    })?;
    let network = Prefix {
        bits: message.header.prefix_len,
        ..Prefix::of(address)
    };
    Some(network.cleared())
}
