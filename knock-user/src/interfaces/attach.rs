//! Puts a loaded program in front of an interface. It takes no more than that program, which may be
//! the one that an instance has pinned.

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
    /// Whether it was moved from the driver to behind it, or the other way.
    pub switched: bool,
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
        switched: false,
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
    program::give(program, link)
        .with_context(|| format!("replacing the program in front of {}", interface.name))?;
    Ok(Attached {
        interface: asked_for.to_owned(),
        now: (interface.name != asked_for).then(|| interface.name.clone()),
        native: interface.native,
        refused: None,
        replaced: true,
        switched: false,
    })
}

/// Whether the program runs in another place than this mode asks for. `before` is the mode of before,
/// if that is known: what `auto` could not have natively then, it need not try again.
pub fn is_misplaced(interface: &Interface, mode: Mode, before: Option<Mode>) -> bool {
    match mode {
        Mode::Native => !interface.native,
        Mode::Skb => interface.native,
        Mode::Auto if driver::prefers_generic(interface).is_some() => interface.native,
        Mode::Auto => !interface.native && before.is_some_and(|before| before != Mode::Auto),
    }
}

/// Moves a program of ours from the driver to behind it, or the other way. The kernel has no step for
/// that, so nothing gets in through the interface meanwhile. `program` takes its place.
///
/// # Errors
/// A [`admission::Refusal`] if the kernel or the driver refuses: the program is where it was then. If not even
/// that could be done, the barrier stays shut, which is said.
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
            "{name} can't change its mode without a moment in which its ports are open, and \
             nothing can be put in their place for that moment. Keep the mode, or accept that \
             moment: `knock-user detach`, then start again"
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
            let back = attach(program, asked_for, interface, back, instance);
            (back, Some(error))
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

/// Waits until an interface has no program: the kernel ends a link a moment after its file is
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
