//! Whether an interface may be taken. One function decides; start, reload, late appearance,
//! re-creation, rename and retry all ask it, and so do `status` and `check`.

use std::{error::Error, fmt};

use aya::programs::{ProgramError, loaded_programs};
use netlink_packet_route::link::{InfoKind, LinkLayerType};
use nix::errno::Errno;

use crate::{config::checked::Mode, interface::Interface};

/// Why an interface can't be protected, and what cures that.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Refusal {
    /// Its frames do not begin with an Ethernet header: the program can't read them.
    NotEthernet {
        /// Its name.
        interface: String,
        /// What its frames begin with (`ARPHRD_*`).
        layer: LinkLayerType,
        /// Its kind, such as `tun` or `wireguard`.
        kind: Option<String>,
    },
    /// Its packets are given to it behind XDP, or come in elsewhere: a program there judges nothing.
    BehindXdp {
        /// Its name.
        interface: String,
        /// Its kind.
        kind: String,
    },
    /// It carries frames with the tags of a switch chip.
    Switch {
        /// Its name.
        interface: String,
        /// The ports of the switch.
        ports: Vec<String>,
    },
    /// It has another XDP program.
    Occupied {
        /// Its name.
        interface: String,
        /// Id of the program.
        program: u32,
        /// The name of the program, if the kernel tells.
        name: Option<String>,
        /// Where it runs: `native`, `generic` or `offloaded`.
        place: &'static str,
    },
    /// An interface above it has a program, so the kernel attaches none here.
    Above {
        /// Its name.
        interface: String,
        /// The interface above it; none if it is in another network namespace.
        above: Option<String>,
        /// How they belong together: `port of`, or `carries`.
        is_port: bool,
    },
    /// The kernel or the driver refuses.
    Kernel {
        /// Its name.
        interface: String,
        /// How it was to be attached.
        mode: Mode,
        /// Why, with the number of the error if there is one.
        because: String,
        /// What to do.
        cure: String,
    },
}

impl Refusal {
    /// The interface.
    pub fn interface(&self) -> &str {
        match self {
            Self::NotEthernet { interface, .. }
            | Self::BehindXdp { interface, .. }
            | Self::Switch { interface, .. }
            | Self::Occupied { interface, .. }
            | Self::Above { interface, .. }
            | Self::Kernel { interface, .. } => interface,
        }
    }

    /// One word for programs: `not-ethernet`, `behind-xdp`, `switch`, `occupied`, `above`, `kernel`.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::NotEthernet { .. } => "not-ethernet",
            Self::BehindXdp { .. } => "behind-xdp",
            Self::Switch { .. } => "switch",
            Self::Occupied { .. } => "occupied",
            Self::Above { .. } => "above",
            Self::Kernel { .. } => "kernel",
        }
    }

    /// The reason, as what follows the name of the interface: `has no Ethernet frames`.
    pub fn because(&self) -> String {
        match self {
            Self::NotEthernet { layer, kind, .. } => {
                let kind = kind.as_ref().map(|kind| format!("{kind}, "));
                format!(
                    "has no Ethernet frames ({}link layer {}), and the program reads no others",
                    kind.unwrap_or_default(),
                    layer_name(*layer)
                )
            }
            Self::BehindXdp { kind, .. } => format!(
                "is of kind {kind}: packets get to it behind XDP, so a program there judges none"
            ),
            Self::Switch { ports, .. } => format!(
                "carries the frames of a switch with the tags of its chip ({}), which the program \
                 can't read",
                ports.join(", ")
            ),
            Self::Occupied {
                program,
                name,
                place,
                ..
            } => {
                let name = name.as_ref().map(|name| format!("`{name}`, "));
                format!(
                    "has another XDP program: {}id {program} ({place})",
                    name.unwrap_or_default()
                )
            }
            Self::Above { above, is_port, .. } => match (above, is_port) {
                (Some(above), true) => format!(
                    "is a port of {above}, which has an XDP program: the kernel attaches none to \
                     a port then"
                ),
                (Some(above), false) => format!(
                    "carries {above}, which has an XDP program: the kernel attaches none below it \
                     then"
                ),
                (None, _) => "is below an interface that has an XDP program, such as a bridge, a \
                              bond or a VLAN, perhaps in another network namespace: the kernel \
                              attaches none below it then"
                    .to_owned(),
            },
            Self::Kernel { mode, because, .. } => {
                format!("can't be attached to ({}): {because}", mode_name(*mode))
            }
        }
    }

    /// What cures it.
    pub fn cure(&self) -> String {
        match self {
            Self::NotEthernet { interface, .. } => format!(
                "protect the interface that carries it, and close the ports that can be reached \
                 through {interface} with another firewall, such as nftables"
            ),
            Self::BehindXdp { .. } => {
                "protect the interfaces through which its packets come in".to_owned()
            }
            Self::Switch { ports, .. } => {
                format!("protect the ports of the switch: {}", ports.join(", "))
            }
            Self::Occupied {
                interface,
                program,
                name,
                ..
            } => match name.as_deref() {
                Some("xdp_dispatcher") => format!(
                    "it is libxdp's: `xdp-loader status {interface}` names what runs in it, and \
                     `xdp-loader unload {interface} --all` ends that"
                ),
                Some(_) | None => format!(
                    "see `bpftool prog show id {program}`. Stop what attached it, such as another \
                     knock-user, or detach it: `bpftool link` names its link, `bpftool link detach \
                     id LINK` ends it, and without a link `ip link set dev {interface} xdp off`"
                ),
            },
            Self::Above {
                interface, above, ..
            } => match above {
                Some(above) => format!(
                    "protect {above} alone, where frames that reach this host through {interface} \
                     are judged, or attach to {interface} first: `knock-user detach`, then start \
                     with both"
                ),
                None => format!(
                    "detach the program above it, `ip -d link` shows which has one, or protect \
                     that interface in place of {interface}"
                ),
            },
            Self::Kernel { cure, .. } => cure.clone(),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {}; {}",
            self.interface(),
            self.because(),
            self.cure()
        )
    }
}

impl Error for Refusal {}

/// Decides whether an interface may be taken; `all` are those of this network namespace, and
/// `is_ours` says whether the program that it has is ours.
///
/// # Errors
/// It may not, or, if it has our program, its frames are not what the program reads.
pub fn admit(interface: &Interface, all: &[Interface], is_ours: bool) -> Result<(), Refusal> {
    let name = || interface.name.clone();
    let kind = || interface.kind.as_ref().map(ToString::to_string);
    if !matches!(
        interface.layer,
        LinkLayerType::Ether | LinkLayerType::Loopback
    ) {
        return Err(Refusal::NotEthernet {
            interface: name(),
            layer: interface.layer,
            kind: kind(),
        });
    }
    // vrf_l3_rcv() and ipvlan_l3_rcv() run in the IP layer; ifb gives frames back to where they came
    // from, without XDP.
    let is_behind = matches!(interface.kind, Some(InfoKind::Vrf | InfoKind::Ifb));
    if is_behind || interface.is_behind_xdp {
        let mode = if interface.is_behind_xdp {
            " in mode l3s"
        } else {
            ""
        };
        return Err(Refusal::BehindXdp {
            interface: name(),
            kind: kind().unwrap_or_default() + mode,
        });
    }
    let ports = all.iter().filter(|other| {
        other.kind == Some(InfoKind::Dsa) && other.carrier == Some(interface.index)
    });
    let ports: Vec<_> = ports.map(|port| port.name.clone()).collect();
    if !ports.is_empty() {
        return Err(Refusal::Switch {
            interface: name(),
            ports,
        });
    }
    if let Some(id) = interface.offloaded {
        return Err(occupied(interface, id, "offloaded"));
    }
    if is_ours {
        return Ok(());
    }
    if let Some(id) = interface.program {
        let place = if interface.native {
            "native"
        } else {
            "generic"
        };
        return Err(occupied(interface, id, place));
    }
    match above(interface, all).find(|above| has_program(above)) {
        Some(above) => Err(Refusal::Above {
            interface: name(),
            above: Some(above.name.clone()),
            is_port: interface.master == Some(above.index),
        }),
        None => Ok(()),
    }
}

/// Puts interfaces into the order in which the kernel attaches to all of them: what is below another
/// comes before it.
pub fn in_order<'i>(
    mut interfaces: Vec<&'i Interface>,
    all: &'i [Interface],
) -> Vec<&'i Interface> {
    interfaces.sort_by_key(|interface| height(interface, all, all.len()));
    interfaces
}

/// How many interfaces are below one; `most` ends what is a circle because it was read in parts.
fn height(interface: &Interface, all: &[Interface], most: usize) -> usize {
    let below = all.iter().filter(|below| {
        below.index != interface.index
            && above(below, all).any(|above| above.index == interface.index)
    });
    let heights = below.map(|below| match most {
        0 => 0,
        _ => 1 + height(below, all, most - 1),
    });
    heights.max().unwrap_or(0)
}

/// The interfaces right above one, which the kernel asks for programs.
fn above<'i>(interface: &Interface, all: &'i [Interface]) -> impl Iterator<Item = &'i Interface> {
    let (index, master) = (interface.index, interface.master);
    all.iter().filter(move |other| {
        Some(other.index) == master || (other.carrier == Some(index) && lies_above(other))
    })
}

/// Whether an interface lies above the one that carries it, as the kernel sees it
/// (`netdev_upper_dev_link`): tunnels, for example, only send through it.
const fn lies_above(interface: &Interface) -> bool {
    matches!(
        interface.kind,
        Some(
            InfoKind::Vlan
                | InfoKind::MacVlan
                | InfoKind::MacVtap
                | InfoKind::IpVlan
                | InfoKind::IpVtap
                | InfoKind::MacSec
                | InfoKind::VirtWifi
                | InfoKind::RmNet
        )
    )
}

const fn has_program(interface: &Interface) -> bool {
    interface.program.is_some() || interface.offloaded.is_some()
}

fn occupied(interface: &Interface, program: u32, place: &'static str) -> Refusal {
    let loaded = loaded_programs().flatten();
    let mut named = loaded.filter(|loaded| loaded.id() == program);
    let name = named.next().and_then(|loaded| {
        let name = loaded.name_as_str()?;
        Some(name.to_owned())
    });
    Refusal::Occupied {
        interface: interface.name.clone(),
        program,
        name,
        place,
    }
}

/// Why the kernel did not attach to an interface that was admitted; `all` are the interfaces as they
/// are since.
pub fn refused(
    interface: &Interface,
    mode: Mode,
    error: &ProgramError,
    all: &[Interface],
) -> Refusal {
    let errno = errno(error);
    if matches!(errno, Some(Errno::EBUSY | Errno::EEXIST)) {
        let now = all.iter().find(|now| now.index == interface.index);
        if let Some(Err(refusal)) = now.map(|now| admit(now, all, false)) {
            return refusal;
        }
        if errno == Some(Errno::EEXIST) {
            return Refusal::Above {
                interface: interface.name.clone(),
                above: None,
                is_port: false,
            };
        }
    }
    let name = &interface.name;
    let generic = match mode {
        Mode::Native => ", or take `mode = \"skb\"`, which works on every Ethernet interface",
        Mode::Auto | Mode::Skb => "",
    };
    let cure = match errno {
        Some(Errno::ERANGE) => format!("make its MTU smaller{generic}"),
        Some(Errno::EOPNOTSUPP) => format!(
            "`dmesg` may have the driver's words; large receive offload is a common reason: \
             `ethtool -K {name} lro off`{generic}"
        ),
        Some(Errno::ENOSPC | Errno::EINVAL) => {
            format!("give it more queues, `ethtool -l {name}` shows them{generic}")
        }
        Some(Errno::EPERM | Errno::EACCES) => {
            "give knock-user CAP_NET_ADMIN and CAP_BPF in the namespace of the interface".to_owned()
        }
        Some(Errno::ENODEV) => "it went away: it is taken when it is back".to_owned(),
        Some(_) | None => format!("`dmesg` may have the driver's words{generic}"),
    };
    Refusal::Kernel {
        interface: name.clone(),
        mode,
        because: cause(error),
        cure,
    }
}

fn errno(error: &ProgramError) -> Option<Errno> {
    let ProgramError::SyscallError(error) = error else {
        return None;
    };
    error.io_error.raw_os_error().map(Errno::from_raw)
}

/// What the kernel said, with what that means for XDP, and without the system call around it.
pub fn cause(error: &ProgramError) -> String {
    let ProgramError::SyscallError(call) = error else {
        return error.to_string();
    };
    let means = match errno(error) {
        Some(Errno::ERANGE) => "the MTU is too large for XDP in this driver",
        Some(Errno::EOPNOTSUPP) => "the driver runs no XDP programs, or not with these settings",
        Some(Errno::ENOSPC) => "the driver has too few queues for XDP",
        Some(Errno::ENODEV) => "there is no such interface any more",
        Some(_) | None => return call.io_error.to_string(),
    };
    format!("{}: {means}", call.io_error)
}

const fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::Auto => "native or generic",
        Mode::Native => "native",
        Mode::Skb => "generic",
    }
}

/// As `ip link` has it, for those that people meet.
fn layer_name(layer: LinkLayerType) -> String {
    const NAMES: [(LinkLayerType, &str); 8] = [
        (LinkLayerType::Tunnel, "ipip"),
        (LinkLayerType::Ipgre, "gre"),
        (LinkLayerType::Ip6gre, "gre6"),
        (LinkLayerType::Ieee80211, "ieee802.11"),
        (LinkLayerType::Ieee80211Prism, "ieee802.11/prism"),
        (LinkLayerType::Ieee80211Radiotap, "ieee802.11/radiotap"),
        (LinkLayerType::Ieee802154, "ieee802.15.4"),
        (LinkLayerType::Ieee802154Monitor, "ieee802.15.4/monitor"),
    ];
    let name = NAMES.iter().find(|(known, _)| *known == layer);
    name.map_or_else(
        || format!("{layer:?}").to_lowercase(),
        |(_, name)| (*name).to_owned(),
    )
}
