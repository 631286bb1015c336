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
                | State::Blocked
                | State::Absent
                | State::Missing => {}
            }
        }
        names.extend(self.protection.instance().linked());
        names
    }
}

/// What becomes of the protection of an interface when the process has ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Fate {
    /// The program stays attached.
    Stays,
    /// Whether it does can't be seen from here.
    Unknown,
    /// Nothing keeps it.
    Ends,
}

/// What stays when the process has ended.
pub(super) struct Stays {
    /// None if they can't be read.
    links: Option<Vec<Pinned>>,
    all: Vec<Interface>,
    lifetime: Lifetime,
}

impl Stays {
    /// Looks at the links that are pinned now.
    pub(super) fn find(instance: &Instance, persistence: Option<Persistence>) -> Self {
        let (links, all) = match (pins::links(instance), interface::list()) {
            (Ok(links), Ok(all)) => (Some(links), all),
            (Err(_), _) | (_, Err(_)) => (None, Vec::new()),
        };
        Self {
            links,
            all,
            lifetime: persistence.map_or(Lifetime::Unknown, Persistence::now),
        }
    }

    /// What becomes of an interface.
    pub(super) fn fate(&self, name: &str) -> Fate {
        let is_attached = self.links.as_ref().map(|links| {
            let mut links = links.iter().filter(|link| link.name == name);
            links.any(|link| self.all.iter().any(|interface| link.holds(interface)))
        });
        fate(is_attached, self.lifetime)
    }

    /// Says what may come otherwise.
    pub(super) fn warn(&self) {
        if self.links.as_ref().is_none_or(Vec::is_empty) {
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

/// `is_attached` is `None` where that can't be seen.
const fn fate(is_attached: Option<bool>, lifetime: Lifetime) -> Fate {
    match (is_attached, lifetime) {
        (Some(true), Lifetime::Host | Lifetime::Container) => Fate::Stays,
        (Some(true), Lifetime::Unknown) | (None, _) => Fate::Unknown,
        (Some(true), Lifetime::Mounts) | (Some(false), _) => Fate::Ends,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_seen_is_promised() {
        use Lifetime::{Container, Host, Mounts, Unknown};
        for (name, is_attached, lifetime, expected) in [
            ("on the host", Some(true), Host, Fate::Stays),
            ("in a container", Some(true), Container, Fate::Stays),
            ("a bpffs of its own", Some(true), Mounts, Fate::Ends),
            (
                "nobody knows the mounts",
                Some(true),
                Unknown,
                Fate::Unknown,
            ),
            ("detached", Some(false), Host, Fate::Ends),
            (
                "detached, and nobody knows",
                Some(false),
                Unknown,
                Fate::Ends,
            ),
            ("links that can't be read", None, Host, Fate::Unknown),
        ] {
            assert_eq!(fate(is_attached, lifetime), expected, "{name}");
        }
    }
}
