//! A gate behind XDP, for the moment in which an interface can have no program of ours: the kernel
//! runs native and generic programs not at once, and attaches none below one that is attached.
//!
//! While it is shut, nothing gets in through the interface. It is pinned, so whoever is killed in that
//! moment leaves it shut, and the next start opens it when the interface is protected.

use std::path::Path;

use anyhow::{Context as _, Result};
use aya::{
    programs::{
        LinkOrder, SchedClassifier, TcAttachType,
        links::FdLink,
        tc::{NlOptions, TcAttachOptions, TcError, qdisc_add_clsact, qdisc_detach_program},
    },
    util::KernelVersion,
};

use crate::{
    host::interface::{self, Interface},
    kernel::{instance::Instance, pins},
};

/// The name of the program, by which a filter is found again.
pub const PROGRAM: &str = "knock_barrier";
/// Before all other filters.
const PRIORITY: u16 = 1;

/// Lets nothing in through an interface any more. [`open`] ends that.
///
/// # Errors
/// The kernel refuses: it has no traffic control, or another filter has the first place.
pub fn shut(
    program: &mut SchedClassifier,
    interface: &Interface,
    instance: &Instance,
) -> Result<()> {
    if program.fd().is_err() {
        program
            .load()
            .context("loading the program of the barrier")?;
    }
    let pin = instance.barrier(interface.index);
    std::fs::create_dir_all(instance.barriers())
        .with_context(|| format!("making {}", instance.barriers().display()))?;
    let pinning = || format!("pinning the barrier {}", pin.display());
    let ingress = TcAttachType::Ingress;
    if has_links() {
        let first = TcAttachOptions::TcxOrder(LinkOrder::first());
        let link = program.attach_with_options(&interface.name, ingress, first)?;
        let link = FdLink::try_from(program.take_link(link)?)?;
        pins::unlink(&pin)?;
        link.pin(&pin).with_context(pinning)?;
        return Ok(());
    }
    // It may be there already, and if it can't be made, the filter can't either.
    let _exists = qdisc_add_clsact(&interface.name);
    pins::unlink(&pin)?;
    // Says that there is a filter: it outlives whoever made it.
    program.pin(&pin).with_context(pinning)?;
    let first = TcAttachOptions::Netlink(NlOptions {
        priority: PRIORITY,
        ..NlOptions::default()
    });
    let link = program.attach_with_options(&interface.name, ingress, first)?;
    // Dropping it would end it.
    std::mem::forget(program.take_link(link)?);
    Ok(())
}

/// Opens the barrier of an interface, if it is shut.
///
/// # Errors
/// The kernel refuses.
pub fn open(interface: &Interface, instance: &Instance) -> Result<()> {
    let pin = instance.barrier(interface.index);
    if !pin.exists() {
        return Ok(());
    }
    remove_filter(interface)?;
    pins::unlink(&pin)?;
    Ok(())
}

/// Opens all gates of an instance.
///
/// # Errors
/// The kernel refuses, or the pins can't be read.
pub fn open_all(instance: &Instance) -> Result<()> {
    if !instance.barriers().exists() {
        return Ok(());
    }
    for interface in interface::list()? {
        open(&interface, instance)?;
    }
    Ok(())
}

/// Whether gates are links, and not filters.
fn has_links() -> bool {
    KernelVersion::current().is_ok_and(|version| version >= KernelVersion::new(6, 6, 0))
}

fn remove_filter(interface: &Interface) -> Result<()> {
    if has_links() {
        return Ok(());
    }
    match qdisc_detach_program(&interface.name, TcAttachType::Ingress, PROGRAM) {
        Err(TcError::IoError(error)) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        removed => {
            removed.with_context(|| format!("removing the filter {PROGRAM} of {}", interface.name))
        }
    }
}

/// Whether the barrier of any interface that is there is shut.
pub fn are_any_shut(instance: &Instance) -> bool {
    // Without a barrier, as almost always, the kernel is not asked.
    if !instance.barriers().exists() {
        return false;
    }
    let all = interface::list().unwrap_or_default();
    all.iter().any(|interface| is_shut(interface, instance))
}

/// Whether the barrier of an interface is shut.
pub fn is_shut(interface: &Interface, instance: &Instance) -> bool {
    Path::exists(&instance.barrier(interface.index))
}
