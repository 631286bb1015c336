//! Attaches a loaded program to an interface. This needs no more than the program, which may be the
//! pinned one of an instance.

mod loaded;
mod place;
mod through_tc;

use std::{fs, iter, path::Path, thread, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use aya::programs::links::FdLink;

use crate::{
    host::interface::{self, Interface},
    interfaces::{
        admission::{Refusal, Way, Ways},
        driver,
    },
    kernel::{
        barrier, bpffs,
        entry::Entry,
        instance::Instance,
        pins::{self, Pinned},
        program::{self, PinnedPrograms, Programs},
        tcx,
    },
    model::{attach_mode::AttachMode, settings::Mode},
};

/// The result of attaching to an interface.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Attached {
    /// The configured name of the interface.
    pub interface: String,
    /// Its current name, if that differs.
    pub now: Option<String>,
    /// Where the program runs.
    pub mode: AttachMode,
    /// The reason why the driver does not run it, if the mode is `auto`.
    pub because: Option<String>,
    /// Whether it replaced another program of this instance.
    pub replaced: bool,
    /// Where the program ran before, if that changed.
    pub before: Option<AttachMode>,
}

/// The result of an attempt to attach a program at another place before the old one is detached.
#[derive(Debug)]
pub enum Moved {
    /// It runs at the other place alone.
    Done(Attached),
    /// It stays where it is, which is the best place that works.
    Stays,
    /// The kernel does not run programs at both places at once: the change takes a barrier.
    NeedsBarrier,
}

/// Attaches a program to an interface that has none, and pins the link under the configured name.
/// Returns the link if it can't be pinned because bpffs is gone; the program stays attached as long
/// as the link is held.
///
/// # Errors
/// A [`Refusal`] if the interface can't be attached to, or the error of another step.
pub fn attach(
    programs: &mut impl Programs,
    asked_for: &str,
    interface: &Interface,
    ways: &Ways,
    instance: &Instance,
) -> Result<(Attached, Option<FdLink>)> {
    let pin = instance.link(asked_for);
    pins::unlink(&pin)?;
    let (link, way) = place::link(programs, interface, ways)?;
    let held = pin_if_possible(link, &pin)?;
    Ok((attached(asked_for, interface, way), held))
}

fn attached(asked_for: &str, interface: &Interface, way: Way) -> Attached {
    Attached {
        interface: asked_for.to_owned(),
        now: (interface.name != asked_for).then(|| interface.name.clone()),
        mode: way.mode,
        because: way.because,
        replaced: false,
        before: None,
    }
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
/// unjudged. `mode` is where the link runs its program.
///
/// # Errors
/// There is no such link, no program reads the packets of the interface there, or the kernel refuses.
pub fn replace(
    programs: &mut impl Programs,
    asked_for: &str,
    interface: &Interface,
    mode: AttachMode,
    instance: &Instance,
) -> Result<Attached> {
    let path = instance.link(asked_for);
    let link =
        pins::open(&path)?.with_context(|| format!("there is no link {}", path.display()))?;
    let name = &interface.name;
    let entry = Entry::of(mode, interface.first_header()).with_context(|| {
        format!(
            "{name} no longer has Ethernet frames, and no program reads its packets in mode {}: take \
             `mode = \"auto\"`",
            mode.name()
        )
    })?;
    program::give(programs.entry(entry)?, link)
        .with_context(|| format!("replacing the program on {name}"))?;
    Ok(Attached {
        replaced: true,
        ..attached(asked_for, interface, Way::of(mode))
    })
}

/// Returns whether the program runs at another place than the configured one. `before` is the
/// previously configured mode, if it is known: `auto` does not try again what failed, and keeps the
/// place of a program that it replaces.
pub fn is_misplaced(
    current: AttachMode,
    interface: &Interface,
    ways: &Ways,
    before: Option<Mode>,
) -> bool {
    if Entry::of(current, interface.first_header()).is_none() {
        return true;
    }
    match ways.mode {
        Mode::Native | Mode::Skb | Mode::Tc => ways.best() != Some(current),
        Mode::Auto => {
            let decides_again = before.is_some_and(|before| before != Mode::Auto);
            current == AttachMode::Native && driver::against_native(interface).is_some()
                || decides_again && ways.best() != Some(current)
        }
    }
}

/// Attaches the program at another place, and then removes the link of the old one: for a moment both
/// judge, so no packet passes unjudged.
///
/// # Errors
/// A [`Refusal`] if no place works, or the error of another step; the program stays where it is.
pub fn move_over(
    programs: &mut impl Programs,
    asked_for: &str,
    interface: &Interface,
    current: AttachMode,
    ways: &Ways,
    instance: &Instance,
) -> Result<Moved> {
    let mut refused: Option<Refusal> = None;
    for way in &ways.list {
        if way.mode == current {
            return Ok(Moved::Stays);
        }
        if way.mode.is_xdp() && current.is_xdp() {
            return Ok(Moved::NeedsBarrier);
        }
        let only = Ways {
            list: vec![way.clone()],
            ..ways.clone()
        };
        match place::link(programs, interface, &only) {
            Ok((link, way)) => {
                let done = take_place(link, asked_for, instance);
                done.with_context(|| format!("moving the program on {}", interface.name))?;
                return Ok(Moved::Done(Attached {
                    replaced: true,
                    before: Some(current),
                    ..attached(asked_for, interface, way)
                }));
            }
            Err(error) => refused = Some(error.downcast::<Refusal>()?),
        }
    }
    match refused {
        Some(refusal) => Err(refusal.into()),
        None => Ok(Moved::Stays),
    }
}

/// Pins a link in place of another one, and ends that.
fn take_place(link: FdLink, asked_for: &str, instance: &Instance) -> Result<()> {
    // No interface has this name, so a process that is killed here leaves both links, and the next one
    // keeps the new one.
    let next = instance.link("%new");
    pins::unlink(&next)?;
    ensure!(
        pin_if_possible(link, &next)?.is_none(),
        "the link can't be pinned: bpffs is gone"
    );
    let path = instance.link(asked_for);
    // Without its pin it would end milliseconds later, and behind a generic program the one at traffic control can't
    // see where frames begin.
    if let Some(old) = pins::open(&path)? {
        let _ends_without_its_pin = tcx::detach(&old);
    }
    fs::rename(&next, &path).with_context(|| format!("pinning the link {}", path.display()))
}

/// Switches between native and generic, and attaches a program there. The kernel has no atomic step
/// for this, so the caller has shut the barrier, which drops all packets meanwhile.
///
/// # Errors
/// A [`Refusal`] if the kernel or the driver refuses; the program then has its previous
/// mode again. If that failed too, the barrier stays shut, and the error reports it.
pub fn switch(
    programs: &mut impl Programs,
    asked_for: &str,
    interface: &Interface,
    current: AttachMode,
    ways: &Ways,
    instance: &Instance,
) -> Result<Attached> {
    let name = &interface.name;
    pins::unlink(&instance.link(asked_for))?;
    wait_for_end(interface)?;
    let switched = attach(programs, asked_for, interface, ways, instance);
    let (done, refusal) = match switched {
        Ok(done) => (Ok(done), None),
        Err(error) => {
            let back = Ways::of(interface, current.setting());
            (
                attach(programs, asked_for, interface, &back, instance),
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
        before: Some(current),
        ..attached
    };
    refusal.map_or(Ok(attached), Err)
}

/// Gives the pinned programs of an instance, which are those of the last committed configuration,
/// back to all its links, in one step for each interface. Where that configuration has no program for
/// the place of a link, its program is attached at another place before the link is removed.
///
/// # Errors
/// The kernel refuses.
pub fn restore(instance: &Instance) -> Result<()> {
    let mut programs = PinnedPrograms::committed(instance);
    let all = interface::list()?;
    for link in pins::links(instance)? {
        let Some(interface) = all.iter().find(|interface| link.holds(interface)) else {
            continue;
        };
        let current = link.mode(interface);
        let entry = Entry::of(current, interface.first_header());
        match entry.filter(|entry| programs.has(*entry)) {
            Some(entry) => program::give(programs.entry(entry)?, link.link),
            None => put_elsewhere(&mut programs, &link.name, interface, current, instance),
        }
        .with_context(|| format!("attaching the previous program to {}", interface.name))?;
    }
    Ok(())
}

/// Attaches a program at any place for which there is one. A link of a configuration that did not
/// have the interface keeps its program: it is removed with that configuration.
fn put_elsewhere(
    programs: &mut PinnedPrograms<'_>,
    name: &str,
    interface: &Interface,
    current: AttachMode,
    instance: &Instance,
) -> Result<()> {
    let has = |mode: AttachMode| {
        let entry = Entry::of(mode, interface.first_header());
        mode != current && entry.is_some_and(|entry| programs.has(entry))
    };
    let listed = Ways::of(interface, Mode::Auto).list.into_iter();
    let modes = iter::once(AttachMode::Tc).chain(listed.map(|way| way.mode));
    let ways = Ways {
        mode: Mode::Auto,
        list: modes.filter(|mode| has(*mode)).map(Way::of).collect(),
    };
    move_over(programs, name, interface, current, &ways, instance).map(drop)
}

/// Returns the programs that these configured interfaces and the pinned links need first.
pub fn entries(names: &[String], mode: Mode, links: &[Pinned], all: &[Interface]) -> Vec<Entry> {
    let mut entries = Vec::new();
    for interface in all {
        let header = interface.first_header();
        let current = pins::mode(links, interface);
        let is_named = names.iter().any(|name| interface.is_called(name));
        let ways = Ways::of(interface, mode);
        let first = match (current, mode) {
            _ if !is_named => None,
            (Some(_), Mode::Auto) => None,
            (Some(_) | None, _) => ways.best(),
        };
        // See move_through_tc.
        let is_switched = current
            .zip(first)
            .is_some_and(|(current, first)| current != first && current.is_xdp() && first.is_xdp());
        let between = (is_switched && tcx::is_available() == Some(true)).then_some(AttachMode::Tc);
        let modes = current.into_iter().chain(first).chain(between);
        entries.extend(modes.filter_map(|mode| Entry::of(mode, header)));
    }
    entries.sort_unstable();
    entries.dedup();
    entries
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
