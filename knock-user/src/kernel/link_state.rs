//! What a link does: on which interface it runs which program, and what runs before that.

use std::fs;

use anyhow::{Context as _, Result};
use aya::programs::links::{FdLink, LinkType};
use nix::errno::Errno;

use crate::{
    host::interface::Interface,
    kernel::tcx::{self, Placed},
    model::attach_mode::AttachMode,
};

/// What a link does at the moment in which it was read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LinkState {
    /// The number of its interface; 0 if the interface is gone, or if the link was detached.
    pub index: u32,
    /// Id of its program.
    pub program: u32,
    /// Its place at traffic control; none if it is an XDP link.
    tc: Option<TcPlace>,
}

/// The place of a TCX link.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct TcPlace {
    /// Whether it is on the interface with its number in this network namespace.
    is_here: bool,
    /// The programs that run before it.
    before: Vec<Placed>,
}

impl LinkState {
    /// Reads the state of a link.
    ///
    /// # Errors
    /// The kernel does not report it.
    pub fn of(link: &FdLink) -> Result<Self> {
        let info = link.info()?;
        let index = index(link)?;
        let is_tc = matches!(info.link_type(), Ok(LinkType::Tcx));
        // Where the order can't be read, the link counts as absent: nothing is claimed of it.
        let tc = is_tc.then(|| TcPlace::of(info.id(), index));
        Ok(Self {
            index,
            program: info.program_id(),
            tc: tc.transpose()?,
        })
    }

    /// Returns whether the link keeps the program on this interface.
    pub fn holds(&self, interface: &Interface) -> bool {
        self.is_on(interface.index, interface.program)
    }

    /// Returns whether the link keeps the program on the interface with this number, which has this
    /// XDP program.
    pub(crate) fn is_on(&self, index: u32, xdp: Option<u32>) -> bool {
        // The same number is another interface in another network namespace.
        let is_here = match &self.tc {
            Some(place) => place.is_here,
            None => xdp == Some(self.program),
        };
        self.index == index && is_here
    }

    /// Returns where it runs its program, on an interface that it holds.
    pub const fn mode(&self, interface: &Interface) -> AttachMode {
        match (&self.tc, interface.native) {
            (Some(_), _) => AttachMode::Tc,
            (None, true) => AttachMode::Native,
            (None, false) => AttachMode::Generic,
        }
    }

    /// Returns whether it runs its program at traffic control.
    pub const fn is_at_tc(&self) -> bool {
        self.tc.is_some()
    }

    /// Returns the programs that run before it at traffic control: what they drop, pass or redirect never
    /// gets to it.
    pub fn before(&self) -> &[Placed] {
        self.tc.as_ref().map_or(&[], |place| &place.before)
    }
}

impl TcPlace {
    fn of(link: u32, index: u32) -> Result<Self> {
        if index == 0 {
            return Ok(Self::default());
        }
        let all = match tcx::ingress(index) {
            Ok(all) => all,
            // No interface of this network namespace has the number.
            Err(error) if error.raw_os_error() == Some(Errno::ENODEV as i32) => Vec::new(),
            Err(error) => {
                return Err(error).with_context(|| {
                    format!("reading the order of the programs at interface {index}")
                });
            }
        };
        let at = all.iter().position(|placed| placed.link == link);
        Ok(Self {
            is_here: at.is_some(),
            before: (all.iter().take(at.unwrap_or_default())).copied().collect(),
        })
    }
}

/// Returns the number of the interface that a link is on; 0 if it is detached.
///
/// aya does not expose `bpf_link_info`, but fdinfo has the number, too
/// (`bpf_xdp_link_show_fdinfo`, `tcx_link_show_fdinfo`).
///
/// # Errors
/// It can't be read.
pub fn index(link: &FdLink) -> Result<u32> {
    let path = format!("/proc/self/fdinfo/{}", tcx::descriptor(link)?);
    let text = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    let index = text.lines().find_map(|line| line.strip_prefix("ifindex:"));
    let index = index.and_then(|index| index.trim().parse().ok());
    index.with_context(|| {
        format!("{path} has no ifindex: is it the link of a program of an interface?")
    })
}
