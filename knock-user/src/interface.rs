//! Network interfaces, as the kernel describes them over netlink.

use anyhow::{Result, anyhow, bail};
use aya::programs::{ProgramError, loaded_programs};
use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{
        InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage, LinkXdp,
        XdpAttached,
    },
};
use netlink_sys::protocols::NETLINK_ROUTE;

use crate::{config::checked::Mode, netlink};

/// An interface.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its number in this network namespace.
    pub index: u32,
    /// Whether it is up.
    pub up: bool,
    /// Id of the XDP program that is attached to it.
    pub program: Option<u32>,
    /// Whether the driver runs that program.
    pub native: bool,
    /// Whether its frames begin with an Ethernet header.
    ethernet: bool,
    /// The other end, if it is one end of a veth pair.
    other_end: Option<OtherEnd>,
}

/// Where the other end of a pair is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum OtherEnd {
    /// In this network namespace, under this number.
    Here(u32),
    /// In another one.
    Elsewhere,
}

impl Interface {
    /// Why answers of a program in the driver may never leave here, if they may not.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub fn keeps_answers(&self) -> Result<Option<String>> {
        // Frames that are sent back wake the other end only if it has a program (veth_xdp_flush).
        const WAY_OUT: &str = "put one there that passes everything, or take mode = \"skb\"";
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

/// How interfaces are looked for.
#[derive(Clone, Copy)]
pub struct Search<'a> {
    /// Whether one that is not there is no problem: it may appear.
    pub may_be_absent: &'a dyn Fn(&str) -> bool,
    /// Whether the program that is attached to one may be replaced.
    pub is_ours: &'a dyn Fn(&Interface) -> bool,
}

/// Finds interfaces by name, all of them or none.
///
/// # Errors
/// One line for each that can't be attached to: it does not exist, has no Ethernet frames, or has
/// another XDP program.
pub fn find(names: &[String], search: Search<'_>) -> Result<Vec<Interface>> {
    let all = list()?;
    let mut found = Vec::new();
    let mut problems = Vec::new();
    for name in names {
        match all.iter().find(|interface| interface.name == *name) {
            None if (search.may_be_absent)(name) => {}
            None => problems.push(unknown(name, &all)),
            Some(interface) => match usable(interface, search) {
                Ok(()) => found.push(interface.clone()),
                Err(problem) => problems.push(problem.to_string()),
            },
        }
    }
    if problems.is_empty() {
        return Ok(found);
    }
    bail!("{}", problems.join("\n"))
}

fn unknown(name: &str, all: &[Interface]) -> String {
    let names: Vec<_> = all
        .iter()
        .map(|interface| interface.name.as_str())
        .collect();
    format!(
        "there is no interface {name}: this host has {}; see `ip link`, and if it appears later, \
         start with --wait-for-interfaces",
        names.join(", ")
    )
}

fn usable(interface: &Interface, search: Search<'_>) -> Result<()> {
    let Interface { name, .. } = interface;
    if !interface.ethernet {
        bail!(
            "{name} has no Ethernet frames, which the program reads: protect the interface that carries it"
        );
    }
    match interface.program {
        Some(id) if !(search.is_ours)(interface) => Err(occupied(name, id)),
        Some(_) | None => Ok(()),
    }
}

fn occupied(name: &str, id: u32) -> anyhow::Error {
    let program = loaded_programs()
        .flatten()
        .find(|program| program.id() == id)
        .and_then(|program| Some(format!("`{}` (id {id})", program.name_as_str()?)))
        .unwrap_or_else(|| format!("id {id}"));
    anyhow!(
        "{name} has another XDP program: {program}; see `bpftool prog show id {id}`. Stop what \
         attached it, such as another knock-user, or detach it: `bpftool link` names its link, \
         `bpftool link detach id LINK` ends it, and without a link `ip link set dev {name} xdp off`"
    )
}

/// Why an interface could not be attached to.
pub fn not_attached(interface: &Interface, mode: Mode, error: &ProgramError) -> anyhow::Error {
    let name = &interface.name;
    let nobodys = Search {
        may_be_absent: &|_| false,
        is_ours: &|_| false,
    };
    let now = find(std::slice::from_ref(name), nobodys);
    let advice = match mode {
        Mode::Native => "; `--mode skb` works on every interface",
        Mode::Auto | Mode::Skb => "",
    };
    match now {
        Err(problem) => problem,
        Ok(_) => anyhow!("attaching to {name}: {}{advice}", cause(error)),
    }
}

/// What the kernel said, without the system call's name around it.
pub fn cause(error: &ProgramError) -> String {
    /// What a driver says whose buffers can't hold a frame of this MTU in one piece.
    const TOO_LONG: i32 = nix::libc::ERANGE;
    let ProgramError::SyscallError(error) = error else {
        return error.to_string();
    };
    match error.io_error.raw_os_error() {
        Some(TOO_LONG) => format!(
            "{}: the MTU is too large for XDP in this driver",
            error.io_error
        ),
        _ => error.io_error.to_string(),
    }
}

/// All interfaces of this network namespace.
///
/// # Errors
/// The kernel does not tell.
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

pub(crate) fn described(link: &LinkMessage) -> Option<Interface> {
    let mut name = None;
    let mut program = None;
    let mut native = false;
    let mut is_veth = false;
    let mut other_end = None;
    let mut is_elsewhere = false;
    for attribute in &link.attributes {
        if let LinkAttribute::IfName(text) = attribute {
            name = Some(text.clone());
        } else if let LinkAttribute::Xdp(xdp) = attribute {
            program = xdp.iter().find_map(program_id);
            native = xdp.iter().any(is_native);
        } else if let LinkAttribute::LinkInfo(info) = attribute {
            is_veth = info.contains(&LinkInfo::Kind(InfoKind::Veth));
        } else if let LinkAttribute::Link(index) = attribute {
            other_end = Some(OtherEnd::Here(*index));
        } else if let LinkAttribute::LinkNetNsId(_) = attribute {
            is_elsewhere = true;
        }
    }
    Some(Interface {
        name: name?,
        index: link.header.index,
        up: link.header.flags.contains(LinkFlags::Up),
        program,
        native,
        ethernet: matches!(
            link.header.link_layer_type,
            LinkLayerType::Ether | LinkLayerType::Loopback
        ),
        other_end: match is_elsewhere {
            true => Some(OtherEnd::Elsewhere),
            false => other_end,
        }
        .filter(|_| is_veth),
    })
}

fn program_id(xdp: &LinkXdp) -> Option<u32> {
    if let LinkXdp::ProgId(id) = xdp {
        (*id != 0).then_some(*id)
    } else {
        None
    }
}

fn is_native(xdp: &LinkXdp) -> bool {
    matches!(xdp, LinkXdp::Attached(XdpAttached::Driver))
}
