//! Protects interfaces while a start compiles its configuration, which may take long: the program
//! of the previous configuration, if it is still pinned, is attached to the interfaces that it
//! names.

use std::{collections::BTreeSet, sync::Mutex, thread, time::Duration};

use super::preparation::{Preparation, PreparedConfiguration};
use crate::{
    apply::plan::Plan,
    host::{interface, os_error},
    interfaces::{
        admission,
        attach::{self, Attached},
    },
    kernel::{
        entry::Entry,
        instance::Instance,
        pins,
        program::{PinnedPrograms, Programs as _},
        registry::Registry,
    },
    model::settings::Mode,
};
use anyhow::{Result, anyhow};

/// The longest time until a new interface is noticed.
const PAUSE: Duration = Duration::from_millis(100);

/// The program of the previous configuration.
struct PreviousProgram<'a> {
    instance: &'a Instance,
    registry: &'a Registry,
    programs: PinnedPrograms<'a>,
    /// The numbers of interfaces that were attached to or can't be.
    tried: BTreeSet<u32>,
}

/// Compiles and loads a configuration. In the meantime the previous program protects the interfaces
/// that it names, including those that appear.
///
/// # Errors
/// As for [`Preparation::make`].
pub(super) fn prepare(
    preparation: &Preparation,
    plan: &Plan,
    interfaces: &[String],
    instance: &Instance,
    before: Option<&Registry>,
) -> Result<PreparedConfiguration> {
    let kept = before.and_then(|before| PreviousProgram::open(instance, before));
    thread::scope(|scope| {
        let making = thread::Builder::new().spawn_scoped(scope, || {
            preparation.make(plan, interfaces, &Mutex::new(false))
        })?;
        if let Some(mut kept) = kept {
            loop {
                if let Err(error) = kept.look() {
                    tracing::warn!("{}", os_error::describe(&error));
                }
                if making.is_finished() {
                    break;
                }
                thread::sleep(PAUSE);
            }
        }
        let made = making.join();
        made.map_err(|_| anyhow!("the thread that prepares the configuration has panicked"))?
    })
}

impl<'a> PreviousProgram<'a> {
    /// Opens the pinned program; none if nothing is pinned, or if it drops nothing.
    fn open(instance: &'a Instance, registry: &'a Registry) -> Option<Self> {
        if instance.linked().is_empty() || registry.dry_run {
            return None;
        }
        // A configuration on trial is pinned as the next one.
        let programs = match registry.fallback {
            Some(_) => PinnedPrograms::next(instance),
            None => PinnedPrograms::committed(instance),
        };
        let has_any = Entry::ALL.iter().any(|entry| programs.has(*entry));
        has_any.then_some(Self {
            instance,
            registry,
            programs,
            tried: BTreeSet::new(),
        })
    }

    /// Attaches to existing interfaces that have no program.
    fn look(&mut self) -> Result<()> {
        let all = interface::list()?;
        for name in &self.registry.interfaces {
            let Some(interface) = interface::named(name, &all) else {
                continue;
            };
            let links = pins::links(self.instance)?;
            let mode = self.registry.mode.unwrap_or(Mode::Auto);
            let admitted = match pins::is_ours(&links, interface) {
                true => None,
                false => admission::admit(interface, &all, mode, None).ok(),
            };
            let Some(ways) = admitted else {
                continue;
            };
            if !self.tried.insert(interface.index) {
                continue;
            }
            // The link of this name may be on an interface that was renamed.
            if links
                .iter()
                .any(|link| link.name == *name && link.index != 0)
            {
                continue;
            }
            match attach::attach(&mut self.programs, name, interface, &ways, self.instance) {
                Ok((Attached { .. }, None)) => tracing::warn!(
                    "{name} has appeared: the previous configuration protects it until the new one is \
                     ready"
                ),
                Ok((Attached { .. }, Some(_))) => {}
                Err(error) => tracing::warn!(
                    "{name} is not protected until the new configuration is ready: {}",
                    os_error::describe(&error)
                ),
            }
        }
        Ok(())
    }
}
