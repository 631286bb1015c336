//! What is protected when the process ends, as the kernel has it then.

use std::{collections::BTreeSet, io::Write};

use super::Daemon;
use crate::{
    coverage::State,
    instance::Instance,
    interface::{self, Interface},
    persistence::{Lifetime, Persistence},
    pins::{self, Pinned},
};

impl<W: Write> Daemon<W> {
    /// The interfaces whose end must be reported: those that are linked, and those that should be
    /// and exist. A refused interface was never protected, so nothing ends there.
    pub(super) fn protected_interfaces(&self) -> BTreeSet<String> {
        let all = interface::list().unwrap_or_default();
        let wanted = self.protection.registry().interfaces.iter();
        let there = wanted.filter(|name| all.iter().any(|interface| interface.is_called(name)));
        let mut names: BTreeSet<_> = there.cloned().collect();
        for one in self.protection.coverage().unwrap_or_default() {
            match one.state {
                State::Refused(_) => {
                    names.remove(&one.name);
                }
                State::Protected { .. }
                | State::Bypassed { .. }
                | State::Absent
                | State::Missing => {}
            }
        }
        names.extend(self.protection.instance().linked());
        names
    }
}

/// What stays when the process has ended.
pub(super) struct Stays {
    links: Vec<Pinned>,
    all: Vec<Interface>,
    lifetime: Lifetime,
}

impl Stays {
    /// Looks at the links that are pinned now.
    pub(super) fn find(instance: &Instance, persistence: Option<Persistence>) -> Self {
        Self {
            // What can't be seen is not promised.
            links: pins::links(instance).unwrap_or_default(),
            all: interface::list().unwrap_or_default(),
            lifetime: persistence.map_or(Lifetime::Unknown, Persistence::now),
        }
    }

    /// Whether a program is attached to an interface and stays so.
    pub(super) fn has(&self, name: &str) -> bool {
        let is_attached = self.links.iter().any(|link| {
            link.name == name && self.all.iter().any(|interface| link.holds(interface))
        });
        is_attached && self.lifetime != Lifetime::Mounts
    }

    /// Says what may come otherwise.
    pub(super) fn warn(&self) {
        if self.links.is_empty() {
            return;
        }
        match self.lifetime {
            Lifetime::Host | Lifetime::Container => {}
            Lifetime::Mounts => tracing::warn!(
                "the program is detached when the last process in this mount namespace ends: its \
                 pins are in a file system that is mounted nowhere else"
            ),
            Lifetime::Unknown => tracing::warn!(
                "whether the ports stay closed can't be seen from here: they do if the file system \
                 with the pins is mounted on the host, too"
            ),
        }
    }
}
