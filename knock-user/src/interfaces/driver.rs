//! Drivers in which `mode = "auto"` does not run the program, and why.

use std::{fs, path::Path};

use crate::host::interface::Interface;

/// A driver, or a kind of virtual interface, where generic is the better choice.
struct Known {
    /// The name of the driver, or the kind.
    name: &'static str,
    /// Why `auto` does not take native.
    because: &'static str,
}

/// All of them. What is not here is tried natively.
const GENERIC: [Known; 2] = [
    // veth_enable_xdp(): with a program, NETIF_F_GSO_SOFTWARE is taken from the peer and each segment
    // is a frame of its own.
    Known {
        name: "veth",
        because: "native XDP on veth takes segmentation offload from its peer, which costs a bulk \
                  TCP stream two thirds of its throughput",
    },
    // vmxnet3_rq_cleanup_all() ends with adapter->xdp_bpf_prog = NULL, and nothing puts it back.
    Known {
        name: "vmxnet3",
        because: "the driver vmxnet3 forgets a native program whenever the interface goes down, \
                  changes its MTU or is reset",
    },
];

/// Why `auto` does not run the program in the driver of this interface, if it does not.
pub fn prefers_generic(interface: &Interface) -> Option<&'static str> {
    let name = name(interface)?;
    let known = GENERIC.iter().find(|known| known.name == name);
    known.map(|known| known.because)
}

/// Drivers that take the link down, or close it, for each program that they are handed, also in the place of another;
/// all of them keep it over whatever they do (docs/drivers.md).
const RESETS: [&str; 7] = ["bnxt_en", "fec", "gve", "igc", "nicvf", "qede", "rvu_nicpf"];

/// Whether the driver of this interface disturbs it for each program that it is handed.
pub fn resets_for_a_program(interface: &Interface) -> bool {
    name(interface).is_some_and(|name| RESETS.contains(&name.as_str()))
}

/// The name of the driver of a device, or the kind of a virtual interface; none if the kernel does
/// not tell.
pub fn name(interface: &Interface) -> Option<String> {
    if let Some(kind) = &interface.kind {
        return Some(kind.to_string());
    }
    let (bus, device) = interface.device.as_ref()?;
    // Not /sys/class/net: that shows the network namespace in which sysfs was mounted.
    let device = Path::new("/sys/bus").join(bus).join("devices").join(device);
    let driver = fs::read_link(device.join("driver")).ok()?;
    Some(driver.file_name()?.to_string_lossy().into_owned())
}
