//! The reasons why an interface can't be protected, with their cures.

use std::{error::Error, fmt};

use netlink_packet_route::link::LinkLayerType;

use crate::kernel::PROGRAM;
use crate::{host::paths::MOUNT_POINT, kernel::persistence, model::settings::Mode};

/// A reason why an interface can't be protected.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Refusal {
    /// Its packets do not begin with an Ethernet header: the program can't read them, or not in the
    /// configured mode.
    NotEthernet {
        /// Its name.
        interface: String,
        /// The link-layer type of its frames (`ARPHRD_*`).
        layer: LinkLayerType,
        /// Its kind, such as `tun` or `wireguard`.
        kind: Option<String>,
        /// Whether they begin with the IP header, which the program reads in other modes.
        is_ip: bool,
    },
    /// Its packets reach it behind XDP or in another place, so a program there judges nothing.
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
        /// The name of the program, if the kernel reports it.
        name: Option<String>,
        /// The attach mode: `native`, `skb` or `offloaded`.
        place: &'static str,
    },
    /// It has the program of a knock-user whose pins are not in the bpffs of this mount namespace.
    Hidden {
        /// Its name.
        interface: String,
        /// Id of the program.
        program: u32,
        /// The attach mode: `native`, `skb`, `tc` or `offloaded`.
        place: &'static str,
    },
    /// An interface above it has a program, so the kernel attaches none here.
    Above {
        /// Its name.
        interface: String,
        /// The interface above it; none if it is in another network namespace.
        above: Option<String>,
        /// Whether the interface is a port of the other one, or carries it.
        is_port: bool,
    },
    /// The kernel or the driver refuses.
    Kernel {
        /// Its name.
        interface: String,
        /// The configured attach mode.
        mode: Mode,
        /// The reason, in words.
        because: String,
        /// The cure, in words.
        cure: String,
    },
}

impl Refusal {
    /// Returns the name of the interface.
    pub fn interface(&self) -> &str {
        match self {
            Self::NotEthernet { interface, .. }
            | Self::BehindXdp { interface, .. }
            | Self::Switch { interface, .. }
            | Self::Occupied { interface, .. }
            | Self::Hidden { interface, .. }
            | Self::Above { interface, .. }
            | Self::Kernel { interface, .. } => interface,
        }
    }

    /// Returns the word for JSON: `not-ethernet`, `behind-xdp`, `switch`, `occupied`, `hidden`,
    /// `above`, `kernel`.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::NotEthernet { .. } => "not-ethernet",
            Self::BehindXdp { .. } => "behind-xdp",
            Self::Switch { .. } => "switch",
            Self::Occupied { .. } => "occupied",
            Self::Hidden { .. } => "hidden",
            Self::Above { .. } => "above",
            Self::Kernel { .. } => "kernel",
        }
    }

    /// Returns the reason in words that follow the name of the interface: `has no Ethernet frames`.
    pub fn because(&self) -> String {
        match self {
            Self::NotEthernet {
                layer, kind, is_ip, ..
            } => {
                let kind = kind.as_ref().map(|kind| format!("{kind}, "));
                let reads = match is_ip {
                    true => "a program in the driver reads no others",
                    false => "the program reads only those and IP packets",
                };
                format!(
                    "has no Ethernet frames ({}link layer {}), and {reads}",
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
            Self::Hidden { program, place, .. } => format!(
                "has the program of another knock-user: id {program} ({place}), whose pins are \
                 not in this {MOUNT_POINT}"
            ),
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

    /// Returns the cure.
    pub fn cure(&self) -> String {
        match self {
            Self::NotEthernet { is_ip: true, .. } => {
                "take `mode = \"auto\"`, or `mode = \"tc\"` (Linux 6.6 and later), or `mode = \"skb\"`".to_owned()
            }
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
                place,
            } => {
                // Behind a program in generic mode, tc may be refused too.
                let beside = if *place == "skb" { "" } else { BESIDE };
                match name.as_deref() {
                    Some("xdp_dispatcher") => format!(
                        "it is libxdp's: `xdp-loader status {interface}` names what runs in it, \
                         and `xdp-loader unload {interface} --all` ends that, and whatever it \
                         filters is open then{beside}"
                    ),
                    Some(_) => detached(interface) + beside,
                    None => format!(
                        "`bpftool prog show id {program}` names it. If it is `{PROGRAM}`, a \
                         knock-user protects {interface} whose pins are not in this \
                         {MOUNT_POINT}: {}. If it is another one, {}{beside}",
                        persistence::cure(),
                        detached(interface)
                    ),
                }
            }
            Self::Hidden { interface, .. } => format!(
                "{}, where that one was started: it is taken over there, or ended by `knock-user \
                 detach`. Detaching its program in another way opens what it protects on \
                 {interface}",
                persistence::cure()
            ),
            Self::Above {
                interface, above, ..
            } => match above {
                Some(above) => format!(
                    "protect {above} alone, where frames that reach this host through {interface} \
                     are judged, or attach to {interface} first: if the program of {above} \
                     is knock-user's, `knock-user detach`, which opens its ports, and then start \
                     with both{BESIDE}"
                ),
                None => format!(
                    "protect the interface above it in place of {interface}: `ip -d link` shows \
                     which has a program. Detaching that program opens what it filters{BESIDE}"
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

/// The cure that leaves another XDP program in its place.
const BESIDE: &str =
    "; or take `mode = \"auto\"` or `mode = \"tc\"`, which runs beside it on Linux 6.6 and later";

/// Returns how to detach a program of another owner.
fn detached(interface: &str) -> String {
    format!(
        "stop what attached it, or detach it, which opens whatever it filters: `bpftool link` names \
         its link, `bpftool link detach id LINK` ends that, and without a link `ip link set dev \
         {interface} xdp off`"
    )
}

const fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::Auto => "native, tc or skb",
        Mode::Native => "native",
        Mode::Skb => "skb",
        Mode::Tc => "tc",
    }
}

/// Returns the name that `ip link` prints, for common types.
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
