//! Attaches a loaded program to an interface. This needs no more than the program, which may be the
//! pinned one of an instance.

mod loaded;

use std::{path::Path, thread, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use aya::programs::{ProgramError, SchedClassifier, Xdp, XdpMode, links::FdLink, xdp::XdpLinkId};
use nix::errno::Errno;

use crate::{
    host::interface::{self, Interface},
    interfaces::{admission, driver},
    kernel::{barrier, bpffs, instance::Instance, pins, program},
    model::settings::Mode,
};

/// The result of attaching to an interface.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Attached {
    /// The configured name of the interface.
    pub interface: String,
    /// Its current name, if that differs.
    pub now: Option<String>,
    /// Whether the driver runs the program.
    pub native: bool,
    /// The reason why the driver does not, if the mode is `auto`.
    pub refused: Option<String>,
    /// Whether it replaced another program of this instance.
    pub replaced: bool,
    /// Whether the attach mode was switched.
    pub switched: bool,
}

/// Attaches a program to an interface that has none, and pins the link under the configured name.
/// Returns the link if it can't be pinned because bpffs is gone; the program stays attached as long
/// as the link is held.
///
/// # Errors
/// A [`admission::Refusal`] if the interface can't be attached to, or the error of another step.
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
        switched: false,
    };
    Ok((attached, held))
}

/// Pins a link, or returns it if its path is not on a bpffs: a failed pin would end the link.
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

/// Switches the pinned link of a configured name to a program in one step: no packet passes
/// unjudged.
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
    let link =
        pins::open(&path)?.with_context(|| format!("there is no link {}", path.display()))?;
    program::give(program, link)
        .with_context(|| format!("replacing the program on {}", interface.name))?;
    Ok(Attached {
        interface: asked_for.to_owned(),
        now: (interface.name != asked_for).then(|| interface.name.clone()),
        native: interface.native,
        refused: None,
        replaced: true,
        switched: false,
    })
}

/// Returns whether the program runs in another mode than the configured one. `before` is the
/// previously configured mode, if it is known: a native attach that failed with `auto` is not tried
/// again.
pub fn is_misplaced(interface: &Interface, mode: Mode, before: Option<Mode>) -> bool {
    match mode {
        Mode::Native => !interface.native,
        Mode::Skb => interface.native,
        Mode::Auto if driver::prefers_generic(interface).is_some() => interface.native,
        Mode::Auto => !interface.native && before.is_some_and(|before| before != Mode::Auto),
    }
}

/// Switches the attach mode of an interface and attaches `program` there. The kernel has no atomic
/// step for this, so a barrier drops all packets meanwhile.
///
/// # Errors
/// A [`admission::Refusal`] if the kernel or the driver refuses; the program then has its previous
/// mode again. If that failed too, the barrier stays shut, and the error reports it.
pub fn switch(
    (program, barrier): (&mut Xdp, &mut SchedClassifier),
    asked_for: &str,
    interface: &Interface,
    mode: Mode,
    instance: &Instance,
) -> Result<Attached> {
    let name = &interface.name;
    barrier::shut(barrier, interface, instance).with_context(|| {
        format!(
            "{name} can't change its mode without a moment in which its ports are open, and the \
             barrier for that moment can't be attached. Keep the mode, or accept that moment: \
             `knock-user detach`, then start again"
        )
    })?;
    pins::unlink(&instance.link(asked_for))?;
    wait_for_end(interface)?;
    let switched = attach(program, asked_for, interface, mode, instance);
    let (done, refusal) = match switched {
        Ok(done) => (Ok(done), None),
        Err(error) => {
            let back = match interface.native {
                true => Mode::Native,
                false => Mode::Skb,
            };
            (
                attach(program, asked_for, interface, back, instance),
                Some(error),
            )
        }
    };
    let (attached, held) = done.with_context(|| {
        format!(
            "{name} lost its program, so nothing gets in through it until it is attached again, \
             or until `knock-user detach`, which opens its ports"
        )
    })?;
    ensure!(
        held.is_none(),
        "the link of {name} can't be pinned: bpffs is gone"
    );
    barrier::open(interface, instance)?;
    let attached = Attached {
        replaced: true,
        switched: true,
        ..attached
    };
    refusal.map_or(Ok(attached), Err)
}

/// Waits until an interface has no program: the kernel detaches a link a moment after its file is
/// removed.
fn wait_for_end(interface: &Interface) -> Result<()> {
    const TRIES: u32 = 400;
    const PAUSE: Duration = Duration::from_millis(5);
    for _ in 0..TRIES {
        let all = interface::list()?;
        let now = all.iter().find(|now| now.index == interface.index);
        if now.is_none_or(|now| now.program.is_none()) {
            return Ok(());
        }
        thread::sleep(PAUSE);
    }
    bail!(
        "{0} keeps its program, because another process holds its link, and nothing gets in \
         through it: end that process and reload; `knock-user detach` opens {0}",
        interface.name
    )
}

/// Attaches, and returns the link, whether the driver runs the program, and the reason if `auto`
/// chose generic.
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
                // The generic mode would be refused for the same reason.
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

/// Returns whether another program, here or above, is in the way.
fn is_taken(error: &ProgramError) -> bool {
    matches!(error, ProgramError::SyscallError(error)
    if error.io_error.raw_os_error().map(Errno::from_raw).is_some_and(|errno| {
        matches!(errno, Errno::EBUSY | Errno::EEXIST | Errno::ENODEV)
    }))
}
