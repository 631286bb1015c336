//! Puts a loaded program in front of an interface. It takes no more than that program, which may be
//! the one that an instance has pinned.

use std::path::Path;

use anyhow::{Context as _, Result};
use aya::programs::{
    ProgramError, Xdp, XdpMode,
    links::FdLink,
    xdp::{XdpLink, XdpLinkId},
};
use nix::errno::Errno;

use crate::{
    admission, bpffs,
    config::checked::Mode,
    driver,
    instance::Instance,
    interface::{self, Interface},
    pins,
};

/// How an interface was attached.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Attached {
    /// The name under which it was asked for.
    pub interface: String,
    /// The name that it has, if that is another.
    pub now: Option<String>,
    /// Whether the driver runs the program.
    pub native: bool,
    /// Why it does not, if `auto` could not take that or did not want to.
    pub refused: Option<String>,
    /// Whether it took the place of another program of ours.
    pub replaced: bool,
}

/// Puts a program in front of an interface that has none, and pins what keeps it there under the
/// name that is asked for. Where nothing can be pinned because bpffs is gone, the link is handed out:
/// as long as it is held, the program is attached.
///
/// # Errors
/// A [`admission::Refusal`] if the interface can't be taken, or what else failed.
pub fn attach(
    program: &mut Xdp,
    asked_for: &str,
    interface: &Interface,
    mode: Mode,
    instance: &Instance,
) -> Result<(Attached, Option<FdLink>)> {
    let pin = instance.link(asked_for);
    pins::unlink(&pin)?;
    let (link, native, refused) = link(program, interface, mode)?;
    let held = pin_if_possible(link, &pin)?;
    let attached = Attached {
        interface: asked_for.to_owned(),
        now: (interface.name != asked_for).then(|| interface.name.clone()),
        native,
        refused,
        replaced: false,
    };
    Ok((attached, held))
}

/// Pins a link, or hands it back if there is no bpffs where it belongs: pinning it there would end it.
///
/// # Errors
/// The kernel refuses to pin it on a bpffs.
pub fn pin_if_possible(link: FdLink, pin: &Path) -> Result<Option<FdLink>> {
    if !pin.parent().is_some_and(bpffs::is_one) {
        return Ok(Some(link));
    }
    link.pin(pin)
        .with_context(|| format!("pinning the link {}", pin.display()))?;
    Ok(None)
}

/// Gives the link that is pinned under a name to a program, in one step: no packet goes by in
/// between.
///
/// # Errors
/// There is no such link, or the kernel refuses.
pub fn replace(
    program: &mut Xdp,
    asked_for: &str,
    interface: &Interface,
    instance: &Instance,
) -> Result<Attached> {
    let path = instance.link(asked_for);
    let link = pins::open(&path)?;
    let link = link.with_context(|| format!("there is no link {}", path.display()))?;
    give(program, link)
        .with_context(|| format!("replacing the program in front of {}", interface.name))?;
    Ok(Attached {
        interface: asked_for.to_owned(),
        now: (interface.name != asked_for).then(|| interface.name.clone()),
        native: interface.native,
        refused: None,
        replaced: true,
    })
}

/// Gives a link to another program. The link stays where it is pinned, not in this process.
pub(crate) fn give(program: &mut Xdp, link: FdLink) -> Result<()> {
    let link = program.attach_to_link(XdpLink::try_from(link)?)?;
    drop(program.take_link(link)?);
    Ok(())
}

/// Attaches, and hands out the link: whether the driver runs the program, and why not if `auto`
/// might have.
fn link(
    program: &mut Xdp,
    interface: &Interface,
    mode: Mode,
) -> Result<(FdLink, bool, Option<String>)> {
    let mut attach = |mode| program.attach_to_if_index(interface.index, mode);
    let (link, native, refused): (Result<XdpLinkId, _>, _, _) = match mode {
        Mode::Native => (attach(XdpMode::Driver), true, None),
        Mode::Skb => (attach(XdpMode::Skb), false, None),
        Mode::Auto => match driver::prefers_generic(interface) {
            Some(because) => (attach(XdpMode::Skb), false, Some(because.to_owned())),
            None => match attach(XdpMode::Driver) {
                Ok(link) => (Ok(link), true, None),
                // Generic would be refused for the same reason.
                Err(error) if is_taken(&error) => (Err(error), true, None),
                Err(error) => (attach(XdpMode::Skb), false, Some(admission::cause(&error))),
            },
        },
    };
    let link = match link {
        Ok(link) => link,
        Err(error) => {
            let all = interface::list()?;
            return Err(admission::refused(interface, mode, &error, &all).into());
        }
    };
    Ok((FdLink::try_from(program.take_link(link)?)?, native, refused))
}

/// Whether a program stands in the way, here or above.
fn is_taken(error: &ProgramError) -> bool {
    matches!(error, ProgramError::SyscallError(error)
    if error.io_error.raw_os_error().map(Errno::from_raw).is_some_and(|errno| {
        matches!(errno, Errno::EBUSY | Errno::EEXIST | Errno::ENODEV)
    }))
}
