//! Asks the kernel which programs run at the ingress of an interface, and in which order.
//!
//! aya's `SchedClassifier::query_tcx` opens each program, which takes CAP_SYS_ADMIN. Their numbers can
//! be read with CAP_NET_ADMIN, which the daemon keeps.

use std::{io, sync::OnceLock};

use nix::{errno::Errno, libc};

/// `BPF_PROG_QUERY` of `enum bpf_cmd`.
const BPF_PROG_QUERY: libc::c_long = 16;
/// `BPF_TCX_INGRESS` of `enum bpf_attach_type`.
const BPF_TCX_INGRESS: u32 = 46;
/// The most programs at one place (`BPF_MPROG_MAX`).
const MOST: usize = 64;

/// The loopback interface of each network namespace.
const LOOPBACK_IFINDEX: u32 = 1;

/// A program at the ingress of an interface.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Placed {
    /// The id of the program.
    pub program: u32,
    /// The id of its link; 0 if it was attached without one.
    pub link: u32,
}

/// The part of `union bpf_attr` that belongs to `BPF_PROG_QUERY`.
#[repr(C)]
#[derive(Debug, Default)]
struct Query {
    target_ifindex: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    count: u32,
    padding: u32,
    prog_attach_flags: u64,
    link_ids: u64,
    link_attach_flags: u64,
    revision: u64,
}

/// Returns whether this kernel has TCX, which came with Linux 6.6; `None` if this process may not ask.
pub fn is_available() -> Option<bool> {
    static KNOWN: OnceLock<bool> = OnceLock::new();
    if let Some(known) = KNOWN.get() {
        return Some(*known);
    }
    // Kernels without it know no such place, whatever the interface.
    let known = match ingress(LOOPBACK_IFINDEX) {
        Ok(_) => true,
        Err(error) => match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::EINVAL) => false,
            Some(_) | None => return None,
        },
    };
    Some(*KNOWN.get_or_init(|| known))
}

/// Returns the TCX programs at the ingress of the interface with this number in this network
/// namespace, in the order in which they run.
///
/// # Errors
/// The kernel refuses: it has no TCX (before Linux 6.6), the interface does not exist, or this process
/// lacks CAP_NET_ADMIN.
pub fn ingress(index: u32) -> io::Result<Vec<Placed>> {
    let mut programs = [0_u32; MOST];
    let mut links = [0_u32; MOST];
    let mut query = Query {
        target_ifindex: index,
        attach_type: BPF_TCX_INGRESS,
        prog_ids: programs.as_mut_ptr().expose_provenance() as u64,
        count: MOST as u32,
        link_ids: links.as_mut_ptr().expose_provenance() as u64,
        ..Query::default()
    };
    // SAFETY: the attribute has the length that is passed, and the arrays have room for `count` numbers.
    let done = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_PROG_QUERY,
            &raw mut query,
            size_of::<Query>(),
        )
    };
    Errno::result(done)?;
    let all = programs.into_iter().zip(links);
    let all = all.map(|(program, link)| Placed { program, link });
    Ok(all.take(query.count as usize).collect())
}
