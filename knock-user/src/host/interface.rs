//! Reads network interfaces over netlink.

use anyhow::Result;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{
        InfoData, InfoIpVlan, InfoKind, IpVlanMode, LinkAttribute, LinkFlags, LinkInfo,
        LinkLayerType, LinkMessage, LinkXdp, Prop,
    },
};
use netlink_sys::protocols::NETLINK_ROUTE;

use crate::host::netlink;

/// A network interface.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its alternative names (`ip link property add dev eth0 altname enp6s18`).
    pub altnames: Vec<String>,
    /// Its number in this network namespace.
    pub index: u32,
    /// Whether it is up.
    pub up: bool,
    /// Id of the XDP program that is attached to it, in the driver or behind it.
    pub program: Option<u32>,
    /// Whether the driver runs that program.
    pub native: bool,
    /// Id of the XDP program that its hardware runs, which can be there besides the other.
    pub offloaded: Option<u32>,
    /// The link-layer type of its frames (`ARPHRD_*`).
    pub layer: LinkLayerType,
    /// Its kind of virtual interface; none if it is a device.
    pub kind: Option<InfoKind>,
    /// The bus and name of its device, such as `pci` and `0000:00:03.0`.
    pub device: Option<(String, String)>,
    /// The number of the bridge, bond or other interface that it is a port of.
    pub master: Option<u32>,
    /// The number of the interface that carries it, such as that of a VLAN, if that is in this
    /// network namespace.
    pub carrier: Option<u32>,
    /// Whether its packets reach it only behind XDP, as in the mode l3s of ipvlan.
    pub is_behind_xdp: bool,
    /// The peer, if it is one end of a veth pair.
    pub(crate) other_end: Option<OtherEnd>,
}

/// What the packets of an interface begin with, by its link-layer type.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FirstHeader {
    /// An Ethernet header.
    Ethernet,
    /// The IP header.
    Ip,
    /// A header that the program does not read.
    Other,
}

/// The location of the peer of a veth pair.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum OtherEnd {
    /// In this network namespace, under this number.
    Here(u32),
    /// In another one.
    Elsewhere,
}

impl Interface {
    /// Returns what its packets begin with. The type may change while the interface is down
    /// (`TUNSETLINK`), so this holds only for the moment in which the interface was read.
    pub const fn first_header(&self) -> FirstHeader {
        use LinkLayerType as Layer;
        // The types without a link header in dev_is_mac_header_xmit(), except those that never carry
        // packets to a port.
        let is_ip = matches!(
            self.layer,
            Layer::None
                | Layer::Rawip
                | Layer::Ppp
                | Layer::Tunnel
                | Layer::Tunnel6
                | Layer::Sit
                | Layer::Ipgre
                | Layer::Ip6gre
        );
        match (self.layer, is_ip) {
            (Layer::Ether | Layer::Loopback, _) => FirstHeader::Ethernet,
            (_, true) => FirstHeader::Ip,
            (_, false) => FirstHeader::Other,
        }
    }

    /// Returns whether this is its name, or one of its alternative names.
    pub fn is_called(&self, name: &str) -> bool {
        self.name == name || self.altnames.iter().any(|other| other == name)
    }

    /// Returns its name, followed by the configured one if that differs: `s0 (enp6s18)`.
    pub fn shown(&self, asked_for: &str) -> String {
        if self.name == asked_for {
            return self.name.clone();
        }
        format!("{} ({asked_for})", self.name)
    }

    /// Returns whether it is the loopback interface, which has the same number in each network
    /// namespace.
    pub const fn is_loopback(&self) -> bool {
        self.index == 1
    }

    /// Returns why packets that a program in the driver sends may never leave, if so.
    ///
    /// # Errors
    /// The interfaces can't be listed.
    pub fn keeps_answers(&self) -> Result<Option<String>> {
        // A reflected frame wakes the peer only if it has a program (veth_xdp_flush).
        const WAY_OUT: &str = "put one there that passes everything, or take `mode = \"tc\"`";
        let name = &self.name;
        Ok(match self.other_end {
            None => None,
            Some(OtherEnd::Elsewhere) => Some(format!(
                "{name} is veth, and its other end is in another network namespace: answers to \
                 knocks get there only if it has an XDP program too; {WAY_OUT}"
            )),
            Some(OtherEnd::Here(index)) => {
                let all = list()?;
                let other = all.iter().find(|other| other.index == index);
                other.filter(|other| !other.native).map(|other| {
                    format!(
                        "{name} is veth, and its other end, {}, has no XDP program in the driver: \
                         answers to knocks don't get there; {WAY_OUT}",
                        other.name
                    )
                })
            }
        })
    }
}

/// Returns the interface with this name or alternative name.
pub fn named<'i>(name: &str, all: &'i [Interface]) -> Option<&'i Interface> {
    // Both share a name space in the kernel, so at most one is found.
    all.iter().find(|interface| interface.is_called(name))
}

/// Returns all interfaces of this network namespace.
///
/// # Errors
/// The kernel refuses to list them.
pub fn list() -> Result<Vec<Interface>> {
    let request = NetlinkMessage::new(
        NetlinkHeader::default(),
        NetlinkPayload::from(RouteNetlinkMessage::GetLink(LinkMessage::default())),
    );
    let mut interfaces = Vec::new();
    netlink::dump(
        NETLINK_ROUTE,
        request,
        NLM_F_REQUEST | NLM_F_DUMP,
        |answer| {
            if let RouteNetlinkMessage::NewLink(link) = answer {
                interfaces.extend(described(&link));
            }
        },
    )?;
    Ok(interfaces)
}

/// Returns the interface with this number; none if it does not exist.
///
/// # Errors
/// As for [`received`].
pub fn numbered(index: u32) -> Result<Option<Interface>> {
    let mut found = None;
    ask(index, |link| found = described(&link))?;
    Ok(found)
}

/// Returns how many frames the kernel has counted as received on the interface with this number;
/// none if it does not exist.
///
/// # Errors
/// The kernel refuses, or its answer can't be read.
pub fn received(index: u32) -> Result<Option<u64>> {
    let mut received = None;
    ask(index, |link| {
        received = link.attributes.iter().find_map(|attribute| {
            if let LinkAttribute::Stats64(stats) = attribute {
                Some(stats.rx_packets)
            } else {
                None
            }
        });
    })?;
    Ok(received)
}

/// Asks for the interface with this number, and passes the answer on.
fn ask(index: u32, mut take: impl FnMut(LinkMessage)) -> Result<()> {
    let mut link = LinkMessage::default();
    link.header.index = index;
    let request = NetlinkMessage::new(
        NetlinkHeader::default(),
        NetlinkPayload::from(RouteNetlinkMessage::GetLink(link)),
    );
    // The acknowledgement ends the answer.
    let flags = NLM_F_REQUEST | NLM_F_ACK;
    netlink::dump(NETLINK_ROUTE, request, flags, |answer| {
        if let RouteNetlinkMessage::NewLink(link) = answer {
            take(link);
        }
    })
}

pub(crate) fn described(link: &LinkMessage) -> Option<Interface> {
    let mut found = Interface {
        up: link.header.flags.contains(LinkFlags::Up),
        ..Interface::new(link.header.index, link.header.link_layer_type)
    };
    let (mut bus, mut device) = (None, None);
    let mut linked = None;
    let mut is_elsewhere = false;
    for attribute in &link.attributes {
        if let LinkAttribute::IfName(name) = attribute {
            found.name.clone_from(name);
        } else if let LinkAttribute::PropList(properties) = attribute {
            found.altnames = properties.iter().filter_map(altname).collect();
        } else if let LinkAttribute::Xdp(xdp) = attribute {
            found.set_programs(xdp);
        } else if let LinkAttribute::LinkInfo(info) = attribute {
            found.set_kind(info);
        } else if let LinkAttribute::Link(index) = attribute {
            linked = Some(*index);
        } else if let LinkAttribute::LinkNetNsId(_) = attribute {
            is_elsewhere = true;
        } else if let LinkAttribute::Controller(index) = attribute {
            found.master = Some(*index).filter(|index| *index != 0);
        } else if let LinkAttribute::ParentDevName(name) = attribute {
            device = Some(name.clone());
        } else if let LinkAttribute::ParentDevBusName(name) = attribute {
            bus = Some(name.clone());
        }
    }
    let is_veth = found.kind == Some(InfoKind::Veth);
    found.other_end = match is_elsewhere {
        true => Some(OtherEnd::Elsewhere),
        false => linked.map(OtherEnd::Here),
    }
    .filter(|_| is_veth);
    found.carrier = linked.filter(|index| *index != 0 && !is_veth && !is_elsewhere);
    found.device = bus.zip(device);
    (!found.name.is_empty()).then_some(found)
}

impl Interface {
    /// Creates an interface without a name and details.
    pub(crate) const fn new(index: u32, layer: LinkLayerType) -> Self {
        Self {
            name: String::new(),
            altnames: Vec::new(),
            index,
            up: false,
            program: None,
            native: false,
            offloaded: None,
            layer,
            kind: None,
            device: None,
            master: None,
            carrier: None,
            is_behind_xdp: false,
            other_end: None,
        }
    }

    /// Sets its XDP programs: at most one in the driver or behind it, and one in the hardware.
    fn set_programs(&mut self, xdp: &[LinkXdp]) {
        for attribute in xdp {
            if let LinkXdp::DrvProgId(id) = attribute {
                self.program = Some(*id);
                self.native = true;
            } else if let LinkXdp::SkbProgId(id) = attribute {
                self.program = Some(*id);
            } else if let LinkXdp::HwProgId(id) = attribute {
                self.offloaded = Some(*id);
            }
        }
    }

    /// Sets its kind.
    fn set_kind(&mut self, info: &[LinkInfo]) {
        for attribute in info {
            if let LinkInfo::Kind(kind) = attribute {
                self.kind = Some(kind.clone());
            } else if let LinkInfo::Data(InfoData::IpVlan(data)) = attribute {
                self.is_behind_xdp = data.contains(&InfoIpVlan::Mode(IpVlanMode::L3S));
            }
        }
    }
}

fn altname(property: &Prop) -> Option<String> {
    if let Prop::AltIfName(name) = property {
        Some(name.clone())
    } else {
        None
    }
}
