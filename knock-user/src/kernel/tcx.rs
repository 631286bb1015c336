//! Asks the kernel which programs run at the ingress of an interface, and in which order.
//!
//! aya's `SchedClassifier::query_tcx` opens each program, which takes CAP_SYS_ADMIN. Their numbers can
//! be read with CAP_NET_ADMIN, which the daemon keeps.

use std::{io, sync::OnceLock};

use anyhow::{Context as _, Result};
use aya::programs::links::{FdLink, Link as _};
use nix::{errno::Errno, libc};

/// `BPF_PROG_QUERY` of `enum bpf_cmd`.
const BPF_PROG_QUERY: libc::c_long = 16;
/// `BPF_LINK_DETACH` of it.
const BPF_LINK_DETACH: libc::c_long = 34;
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
    // The arrays have room for `count` numbers.
    bpf(BPF_PROG_QUERY, &mut query)?;
    let all = programs.into_iter().zip(links);
    let all = all.map(|(program, link)| Placed { program, link });
    Ok(all.take(query.count as usize).collect())
}

/// Takes the program of a link off its interface at once, and not when its last descriptor and its pin are gone.
///
/// # Errors
/// The kernel refuses.
pub fn detach(link: &FdLink) -> Result<()> {
    bpf(BPF_LINK_DETACH, &mut descriptor(link)?)?;
    Ok(())
}

/// Makes the system call `bpf` with the part of its attribute that belongs to a command.
fn bpf<T>(command: libc::c_long, attribute: &mut T) -> io::Result<()> {
    // SAFETY: the attribute has the length that is passed, and addresses in it are those of arrays of its caller.
    let done =
        unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attribute, size_of::<T>()) };
    Errno::result(done)?;
    Ok(())
}

/// Returns the number of the descriptor of a link, which aya shows in the text of its id alone.
///
/// # Errors
/// The text has no number.
pub(super) fn descriptor(link: &FdLink) -> Result<u32> {
    let text = format!("{:?}", link.id());
    let number: String = text.chars().filter(char::is_ascii_digit).collect();
    number
        .parse()
        .with_context(|| format!("{text} names no descriptor"))
}
