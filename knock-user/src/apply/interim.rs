//! What is done with interfaces while a start compiles its configuration, which may take long: the
//! configuration before, if its protection was kept, takes those that it asks for.

use std::{collections::BTreeSet, sync::Mutex, thread, time::Duration};

use anyhow::{Result, anyhow};
use aya::programs::Xdp;

use super::{Preparation, Prepared};
use crate::{
    apply::plan::Plan,
    host::{interface, os_error},
    interfaces::{
        admission,
        attach::{self, Attached},
    },
    kernel::{instance::Instance, pins, program, registry::Registry},
    model::settings::Mode,
};

/// How long an interface may be there before it is noticed.
const PAUSE: Duration = Duration::from_millis(100);

/// The program of the configuration before.
struct Kept<'a> {
    instance: &'a Instance,
    registry: &'a Registry,
    program: Xdp,
    /// The numbers of interfaces that were tried, and can't be taken or were taken.
    tried: BTreeSet<u32>,
}

/// Compiles and loads a configuration; meanwhile what is kept of the one before protects the
/// interfaces that it asks for, also those that appear.
///
/// # Errors
/// As for [`Preparation::make`].
pub(super) fn prepare(
    preparation: &Preparation,
    plan: &Plan,
    interfaces: &[String],
    instance: &Instance,
    before: Option<&Registry>,
) -> Result<Prepared> {
    let kept = before.and_then(|before| Kept::open(instance, before));
    thread::scope(|scope| {
        let making = thread::Builder::new().spawn_scoped(scope, || {
            preparation.make(plan, interfaces, &Mutex::new(false))
        })?;
        if let Some(mut kept) = kept {
            loop {
                if let Err(error) = kept.look() {
                    tracing::warn!("{}", os_error::told(&error));
                }
                if making.is_finished() {
                    break;
                }
                thread::sleep(PAUSE);
            }
        }
        let made = making.join();
        made.map_err(|_| anyhow!("the thread that makes the configuration ready has ended"))?
    })
}

impl<'a> Kept<'a> {
    /// Opens the program; none if nothing is kept, or if what is kept drops nothing.
    fn open(instance: &'a Instance, registry: &'a Registry) -> Option<Self> {
        if instance.linked().is_empty() || registry.dry_run {
            return None;
        }
        // What is on trial is pinned as the next one.
        let path = match registry.fallback {
            Some(_) => instance.next_program(),
            None => instance.program(),
        };
        let program = program::pinned(&path).ok()?;
        Some(Self {
            instance,
            registry,
            program,
            tried: BTreeSet::new(),
        })
    }

    /// Attaches to the interfaces that are there now and have no program.
    fn look(&mut self) -> Result<()> {
        let all = interface::list()?;
        for name in &self.registry.interfaces {
            let Some(interface) = interface::named(name, &all) else {
                continue;
            };
            let is_free =
                interface.program.is_none() && admission::admit(interface, &all, false).is_ok();
            if !is_free || !self.tried.insert(interface.index) {
                continue;
            }
            // Its link may be on an interface that has another name now.
            let links = pins::links(self.instance)?;
            if links
                .iter()
                .any(|link| link.name == *name && link.index != 0)
            {
                continue;
            }
            let mode = self.registry.mode.unwrap_or(Mode::Auto);
            match attach::attach(&mut self.program, name, interface, mode, self.instance) {
                Ok((Attached { .. }, None)) => tracing::warn!(
                    "{name} has appeared: it is protected by the configuration before until the \
                     new one is ready"
                ),
                Ok((Attached { .. }, Some(_))) => {}
                Err(error) => tracing::warn!(
                    "{name} is not protected before the new configuration is ready: {}",
                    os_error::told(&error)
                ),
            }
        }
        Ok(())
    }
}
