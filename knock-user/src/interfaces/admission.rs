//! Decides whether the program can be attached to an interface, and how. Start, reload, late appearance,
//! re-creation, rename and retry all use this one function, and so do `status` and `check`.

use std::{collections::BTreeMap, sync::OnceLock};

use aya::programs::{ProgramError, loaded_programs};
use netlink_packet_route::link::InfoKind;
use nix::errno::Errno;

use crate::{
    host::{
        interface::{FirstHeader, Interface},
        os_error,
    },
    interfaces::driver,
    kernel::{
        entry::Entry,
        tcx::{self, Placed},
    },
    model::{attach_mode::AttachMode, settings::Mode},
};

mod refusal;

pub use refusal::Refusal;

/// The names of the loaded programs, read while this process had all its capabilities.
static SEEN: OnceLock<BTreeMap<u32, String>> = OnceLock::new();

/// The ways in which the program can be attached to an interface.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Ways {
    /// The configured mode.
    pub mode: Mode,
    /// The ways, best first.
    pub list: Vec<Way>,
}

/// A way to attach the program.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Way {
    /// The place.
    pub mode: AttachMode,
    /// The reason why `auto` takes it without trying the driver.
    pub because: Option<String>,
}

impl Way {
    /// Returns the way to a place that `auto` does not choose without trying the driver.
    pub const fn of(mode: AttachMode) -> Self {
        Self {
            mode,
            because: None,
        }
    }
}

impl Ways {
    /// Returns the ways for a configured mode, if nothing is in the way of XDP.
    pub fn of(interface: &Interface, mode: Mode) -> Self {
        Self::on(interface, mode, None, may_have_tcx())
    }

    /// Returns the ways for a configured mode. `obstacle` is in the way of XDP, and `has_tcx` is whether the kernel
    /// has links at traffic control.
    fn on(interface: &Interface, mode: Mode, obstacle: Option<&Refusal>, has_tcx: bool) -> Self {
        let modes = match mode {
            Mode::Native => vec![Way::of(AttachMode::Native)],
            Mode::Skb => vec![Way::of(AttachMode::Generic)],
            Mode::Tc => vec![Way::of(AttachMode::Tc)],
            Mode::Auto => {
                let against_native = match interface.first_header() {
                    FirstHeader::Ip => Some("it has no Ethernet frames".to_owned()),
                    FirstHeader::Ethernet | FirstHeader::Other => {
                        driver::against_native(interface).map(str::to_owned)
                    }
                };
                let against_xdp = obstacle.map(|refusal| format!("it {}", refusal.because()));
                let because = against_xdp.or(against_native);
                let natively = because.is_none().then_some(AttachMode::Native);
                let at_tc = has_tcx.then_some(AttachMode::Tc);
                let behind = obstacle.is_none().then_some(AttachMode::Generic);
                let modes = [natively, at_tc, behind].into_iter().flatten();
                let way = |mode| Way {
                    mode,
                    because: because.clone(),
                };
                modes.map(way).collect()
            }
        };
        Self { mode, list: modes }
    }

    /// Returns the reason for which `auto` takes this mode without trying the driver.
    pub fn reason(&self, mode: AttachMode) -> Option<String> {
        let way = self.list.iter().find(|way| way.mode == mode);
        way.and_then(|way| way.because.clone())
    }

    /// Returns the best one.
    pub fn best(&self) -> Option<AttachMode> {
        self.list.first().map(|way| way.mode)
    }
}

/// Returns whether the kernel has links at traffic control; true if this process may not ask, as in `check` without
/// privileges.
fn may_have_tcx() -> bool {
    tcx::is_available().unwrap_or(true)
}

/// Decides whether the program can be attached to an interface, and how. `all` are the interfaces of
/// this network namespace, and `ours` is the place of our program, if the interface has it.
///
/// # Errors
/// It can't. If it has our program, its frames are not what the program reads.
pub fn admit(
    interface: &Interface,
    all: &[Interface],
    mode: Mode,
    ours: Option<AttachMode>,
) -> Result<Ways, Refusal> {
    let placed = tcx::ingress(interface.index).unwrap_or_default();
    let at_tc = may_have_tcx().then_some(placed.as_slice());
    admit_on(interface, all, mode, ours, at_tc)
}

/// Does the work of [`admit`]. `at_tc` are the programs at the ingress of the interface; none if the kernel has
/// no links at traffic control.
fn admit_on(
    interface: &Interface,
    all: &[Interface],
    mode: Mode,
    ours: Option<AttachMode>,
    at_tc: Option<&[Placed]>,
) -> Result<Ways, Refusal> {
    let name = || interface.name.clone();
    let kind = || interface.kind.as_ref().map(ToString::to_string);
    match (interface.first_header(), mode) {
        (FirstHeader::Ethernet, _) | (FirstHeader::Ip, Mode::Auto | Mode::Skb | Mode::Tc) => {}
        (FirstHeader::Ip, Mode::Native) | (FirstHeader::Other, _) => {
            return Err(Refusal::NotEthernet {
                interface: name(),
                layer: interface.layer,
                kind: kind(),
                is_ip: interface.first_header() == FirstHeader::Ip,
            });
        }
    }
    // vrf_l3_rcv() and ipvlan_l3_rcv() run in the IP layer; ifb returns frames to the receive path
    // without XDP and traffic control.
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
    let obstacle = match ours {
        // It would be our own program.
        Some(AttachMode::Native | AttachMode::Generic) => None,
        Some(AttachMode::Tc) | None => obstacle(interface, all),
    };
    let ways = Ways::on(interface, mode, obstacle.as_ref(), at_tc.is_some());
    if ours.is_some() {
        return Ok(ways);
    }
    if let Some(refusal) = hidden(interface, at_tc.unwrap_or_default()) {
        return Err(refusal);
    }
    let refusal = match mode {
        Mode::Tc => hides_headers(interface),
        Mode::Auto if at_tc.is_some() => hides_headers(interface),
        Mode::Auto | Mode::Native | Mode::Skb => obstacle,
    };
    refusal.map_or(Ok(ways), Err)
}

/// Returns the program of another knock-user on an interface without ours. The kernel would attach ours beside a
/// program at the other hook, and packets would be judged by both, whatever the mode.
fn hidden(interface: &Interface, at_tc: &[Placed]) -> Option<Refusal> {
    let at_tc = at_tc.iter().map(|placed| (placed.program, "tc"));
    let at_xdp = interface.program.map(|id| (id, xdp_place(interface)));
    let mut programs = at_xdp.into_iter().chain(at_tc);
    let (program, place) = programs.find(|(program, _)| {
        let name = name_of(*program);
        name.is_some_and(|name| Entry::is_named(&name))
    })?;
    Some(Refusal::Hidden {
        interface: interface.name.clone(),
        program,
        place,
    })
}

/// Returns where the XDP program of an interface runs.
const fn xdp_place(interface: &Interface) -> &'static str {
    if interface.native { "native" } else { "skb" }
}

/// Returns the reason why a program of ours at traffic control can't read the packets of an interface:
/// behind another XDP program in generic mode the kernel may not know where a frame begins
/// (`skb_pp_cow_data` does not copy `mac_len`), and ours drops what it can't read.
pub fn hides_headers(interface: &Interface) -> Option<Refusal> {
    let is_ethernet = interface.first_header() == FirstHeader::Ethernet;
    let id = interface
        .program
        .filter(|_| is_ethernet && !interface.native)?;
    Some(occupied(interface, id, "skb"))
}

/// Returns the reason why no XDP program of ours can be attached to an interface that has none.
fn obstacle(interface: &Interface, all: &[Interface]) -> Option<Refusal> {
    if let Some(id) = interface.offloaded {
        return Some(occupied(interface, id, "offloaded"));
    }
    if let Some(id) = interface.program {
        return Some(occupied(interface, id, xdp_place(interface)));
    }
    let above = above(interface, all).find(|above| has_program(above))?;
    Some(Refusal::Above {
        interface: interface.name.clone(),
        above: Some(above.name.clone()),
        is_port: interface.master == Some(above.index),
    })
}

/// Sorts interfaces into the order in which the kernel can attach to all of them: each follows
/// those below it.
pub fn in_order<'i>(
    mut interfaces: Vec<&'i Interface>,
    all: &'i [Interface],
) -> Vec<&'i Interface> {
    interfaces.sort_by_key(|interface| height(interface, all, all.len()));
    interfaces
}

/// Returns how many interfaces are below one. `most` ends a circle, which may appear because the
/// list was read in parts.
fn height(interface: &Interface, all: &[Interface], most: usize) -> usize {
    let carrier = interface.carrier.filter(|_| lies_above(interface));
    let below = all.iter().filter(|below| {
        below.index != interface.index
            && (below.master == Some(interface.index) || carrier == Some(below.index))
    });
    below
        .map(|below| match most {
            0 => 0,
            _ => 1 + height(below, all, most - 1),
        })
        .max()
        .unwrap_or(0)
}

/// Returns the interfaces right above one, whose programs the kernel checks.
fn above<'i>(interface: &Interface, all: &'i [Interface]) -> impl Iterator<Item = &'i Interface> {
    let (index, master) = (interface.index, interface.master);
    all.iter().filter(move |other| {
        Some(other.index) == master || (other.carrier == Some(index) && lies_above(other))
    })
}

/// Returns whether the kernel links an interface above the one that carries it
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
    let interface = interface.name.clone();
    match name_of(program) {
        Some(name) if Entry::is_named(&name) => Refusal::Hidden {
            interface,
            program,
            place,
        },
        name => Refusal::Occupied {
            interface,
            program,
            name,
            place,
        },
    }
}

/// Returns the name of a program; none if this process may not ask and did not see it at its start.
pub fn name_of(program: u32) -> Option<String> {
    let seen = || SEEN.get().and_then(|seen| seen.get(&program)).cloned();
    names().remove(&program).or_else(seen)
}

/// Records the names of all loaded programs. Reading them takes CAP_SYS_ADMIN, which the process
/// drops before it attaches.
pub fn note_names() {
    SEEN.get_or_init(names);
}

/// Returns the names of the loaded programs by id; none without CAP_SYS_ADMIN.
fn names() -> BTreeMap<u32, String> {
    loaded_programs()
        .flatten()
        .filter_map(|loaded| Some((loaded.id(), loaded.name_as_str()?.to_owned())))
        .collect()
}

/// Returns the reason why the kernel refused to attach to an admitted interface. `all` are the
/// interfaces after that.
pub fn refused(
    interface: &Interface,
    mode: Mode,
    error: &ProgramError,
    all: &[Interface],
) -> Refusal {
    let errno = errno(error);
    if matches!(errno, Some(Errno::EBUSY | Errno::EEXIST)) {
        let now = all.iter().find(|now| now.index == interface.index);
        if let Some(refusal) = now.and_then(|now| obstacle(now, all)) {
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
        Mode::Native => ", or take `mode = \"auto\"`, which runs the program elsewhere then",
        Mode::Auto | Mode::Skb | Mode::Tc => "",
    };
    if mode == Mode::Tc && errno == Some(Errno::EINVAL) {
        return Refusal::Kernel {
            interface: name.clone(),
            mode,
            because: NO_TCX.to_owned(),
            cure: "boot Linux 6.6 or later, or take `mode = \"skb\"`".to_owned(),
        };
    }
    let cure = match errno {
        Some(Errno::ERANGE) => format!("make its MTU smaller{generic}"),
        Some(Errno::EOPNOTSUPP) => format!(
            "`dmesg` may show why; large receive offload is a common reason: \
             `ethtool -K {name} lro off`{generic}"
        ),
        Some(Errno::ENOSPC | Errno::EINVAL) => {
            format!("give it more queues, `ethtool -l {name}` shows them{generic}")
        }
        Some(Errno::EPERM | Errno::EACCES) => {
            "give knock-user CAP_NET_ADMIN and CAP_BPF in the namespace of the interface".to_owned()
        }
        Some(Errno::ENODEV) => "it no longer exists: it is attached to when it is back".to_owned(),
        Some(_) | None => format!("`dmesg` may show why{generic}"),
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

/// The reason for which a kernel refuses all programs at traffic control that are links.
pub const NO_TCX: &str = "this kernel has no TCX, which came with Linux 6.6";

/// Describes what the error of an attach means for XDP.
pub fn cause(error: &ProgramError) -> String {
    let ProgramError::SyscallError(call) = error else {
        return error.to_string();
    };
    let means = match errno(error) {
        Some(Errno::ERANGE) => "the MTU is too large for XDP in this driver",
        Some(Errno::EOPNOTSUPP) => "the driver runs no XDP programs, or not with these settings",
        Some(Errno::ENOSPC) => "the driver has too few queues for XDP",
        Some(Errno::ENODEV) => "the interface no longer exists",
        Some(_) | None => return os_error::plain(&call.io_error).to_lowercase(),
    };
    means.to_owned()
}

#[cfg(test)]
mod tests;
