//! Blocks an interface behind XDP while its attach mode is switched: the kernel does not run a native
//! and a generic program at the same time, so the interface has no XDP program for a moment.
//!
//! A shut barrier drops all packets of the interface. It is pinned, so it stays shut if the process
//! is killed in that moment; the next start opens it when the interface is protected again.

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

/// The name of the program, by which [`open`] finds the filter again.
pub const PROGRAM: &str = "knock_barrier";
/// The highest priority, before all other filters.
const PRIORITY: u16 = 1;

/// Drops all packets of an interface until [`open`] is called.
///
/// # Errors
/// The kernel refuses: it has no traffic control, or another filter has the highest priority.
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
    // The qdisc may exist already. If it can't be made, attaching the filter fails below.
    let _exists = qdisc_add_clsact(&interface.name);
    pins::unlink(&pin)?;
    // The pin shows that there is a filter, which outlives this process.
    program.pin(&pin).with_context(pinning)?;
    let first = TcAttachOptions::Netlink(NlOptions {
        priority: PRIORITY,
        ..NlOptions::default()
    });
    let link = program.attach_with_options(&interface.name, ingress, first)?;
    // Dropping the link would detach the filter.
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

/// Opens all barriers of an instance.
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

/// Returns whether the kernel attaches barriers as links, and not as filters.
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

/// Returns whether the barrier of any interface is shut, also in another network namespace.
pub fn is_any_pinned(instance: &Instance) -> bool {
    std::fs::read_dir(instance.barriers()).is_ok_and(|mut pins| pins.next().is_some())
}

/// Returns whether the barrier of any existing interface is shut.
pub fn are_any_shut(instance: &Instance) -> bool {
    // Almost always there is no barrier, and the interfaces need not be listed.
    if !instance.barriers().exists() {
        return false;
    }
    let all = interface::list().unwrap_or_default();
    all.iter().any(|interface| is_shut(interface, instance))
}

/// Returns whether the barrier of an interface is shut.
pub fn is_shut(interface: &Interface, instance: &Instance) -> bool {
    Path::exists(&instance.barrier(interface.index))
}
