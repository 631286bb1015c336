//! Lists drivers in which `mode = "auto"` does not run the program, with the reason.

use std::{fs, path::Path};

use crate::host::interface::Interface;

/// A driver, or a kind of virtual interface, in which the program is not the best choice.
struct DriverEntry {
    /// The name of the driver, or the kind.
    name: &'static str,
    /// The reason against native.
    because: &'static str,
}

/// All of them. Others are tried natively.
const AGAINST_NATIVE: [DriverEntry; 2] = [
    // veth_enable_xdp(): a program clears NETIF_F_GSO_SOFTWARE of the peer, so each segment is a
    // frame of its own.
    DriverEntry {
        name: "veth",
        because: "native XDP on veth takes segmentation offload from its peer, which costs a bulk \
                  TCP stream two thirds of its throughput",
    },
    // vmxnet3_rq_cleanup_all() sets adapter->xdp_bpf_prog to NULL, and nothing sets it again.
    DriverEntry {
        name: "vmxnet3",
        because: "the driver vmxnet3 forgets a native program whenever the interface goes down, \
                  changes its MTU or is reset",
    },
];

/// Returns the reason why `auto` does not run the program in the driver of this interface.
pub fn against_native(interface: &Interface) -> Option<&'static str> {
    let name = name(interface)?;
    let known = AGAINST_NATIVE.iter().find(|known| known.name == name);
    known.map(|known| known.because)
}

/// Drivers that take the link down, or close it, for each program that they get, also for a
/// replacement. None of them loses the program on other occasions (docs/drivers.md).
const RESETS: [&str; 7] = ["bnxt_en", "fec", "gve", "igc", "nicvf", "qede", "rvu_nicpf"];

/// Returns whether the driver of this interface resets it for each program.
pub fn resets_for_a_program(interface: &Interface) -> bool {
    name(interface).is_some_and(|name| RESETS.contains(&name.as_str()))
}

/// Returns the driver of a device, or the kind of a virtual interface; none if the kernel does not
/// report it.
pub fn name(interface: &Interface) -> Option<String> {
    if let Some(kind) = &interface.kind {
        return Some(kind.to_string());
    }
    let (bus, device) = interface.device.as_ref()?;
    // /sys/class/net would show the network namespace in which sysfs was mounted.
    let device = Path::new("/sys/bus").join(bus).join("devices").join(device);
    let driver = fs::read_link(device.join("driver")).ok()?;
    Some(driver.file_name()?.to_string_lossy().into_owned())
}
