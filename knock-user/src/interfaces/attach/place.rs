//! Makes the link that attaches a program to an interface.

use anyhow::{Context as _, Result, bail};
use aya::programs::{
    LinkOrder, Program, ProgramError, SchedClassifier, TcAttachType, Xdp, XdpMode, links::FdLink,
    tc::TcAttachOptions,
};
use nix::errno::Errno;

use crate::{
    host::interface::{self, Interface},
    interfaces::admission::{self, Way, Ways},
    kernel::{entry::Entry, link_state, program::Programs},
    model::attach_mode::AttachMode,
};

/// Attaches a program in the first way that works, and returns the link and that way, with the reason
/// for it.
///
/// # Errors
/// A [`admission::Refusal`] if no way works.
pub(super) fn link(
    programs: &mut impl Programs,
    interface: &Interface,
    ways: &Ways,
) -> Result<(FdLink, Way)> {
    let mut because = None;
    let mut last = None;
    let mut is_xdp_taken = false;
    for way in &ways.list {
        let entry = Entry::of(way.mode, interface.first_header());
        let Some(entry) = entry.filter(|entry| programs.has(*entry)) else {
            continue;
        };
        // It would be refused for the same reason.
        if way.mode.is_xdp() && is_xdp_taken {
            continue;
        }
        let program = programs.entry(entry)?;
        match at(program, interface, way.mode)? {
            Ok(link) => {
                let because = way.because.clone().or(because);
                let mode = way.mode;
                return Ok((link, Way { mode, because }));
            }
            Err(error) => {
                is_xdp_taken |= way.mode.is_xdp() && is_taken(&error);
                because.get_or_insert_with(|| admission::cause(&error));
                last = Some(error);
            }
        }
    }
    let Some(error) = last else {
        bail!(
            "there is no program for {} in mode {:?}",
            interface.name,
            ways.mode
        );
    };
    let all = interface::list()?;
    Err(admission::refused(interface, ways.mode, &error, &all).into())
}

/// Attaches a program at a place; the inner error is that of the kernel.
fn at(
    program: &mut Program,
    interface: &Interface,
    mode: AttachMode,
) -> Result<Result<FdLink, ProgramError>> {
    if let Program::Xdp(program) = program {
        let mode = match mode {
            AttachMode::Native => XdpMode::Driver,
            AttachMode::Generic | AttachMode::Tc => XdpMode::Skb,
        };
        at_xdp(program, interface, mode)
    } else if let Program::SchedClassifier(program) = program {
        at_tc(program, interface)
    } else {
        bail!("the program belongs neither to XDP nor to traffic control")
    }
}

fn at_xdp(
    program: &mut Xdp,
    interface: &Interface,
    mode: XdpMode,
) -> Result<Result<FdLink, ProgramError>> {
    Ok(match program.attach_to_if_index(interface.index, mode) {
        Ok(link) => Ok(FdLink::try_from(program.take_link(link)?)?),
        Err(error) => Err(error),
    })
}

/// Attaches in front of all other TCX programs.
fn at_tc(
    program: &mut SchedClassifier,
    interface: &Interface,
) -> Result<Result<FdLink, ProgramError>> {
    let first = TcAttachOptions::TcxOrder(LinkOrder::first());
    let attached = program.attach_with_options(&interface.name, TcAttachType::Ingress, first);
    let link = match attached {
        Ok(link) => FdLink::try_from(program.take_link(link)?)?,
        Err(error) => return Ok(Err(error)),
    };
    // aya takes the name, which another interface may have got meanwhile.
    let index =
        link_state::index(&link).context("looking at the link of a program at traffic control")?;
    if index != interface.index {
        bail!(
            "{} was renamed while the program was attached to it: that is tried again",
            interface.name
        );
    }
    Ok(Ok(link))
}

/// Returns whether another program, here or above, is in the way.
fn is_taken(error: &ProgramError) -> bool {
    matches!(error, ProgramError::SyscallError(error)
    if error.io_error.raw_os_error().map(Errno::from_raw).is_some_and(|errno| {
        matches!(errno, Errno::EBUSY | Errno::EEXIST | Errno::ENODEV)
    }))
}
