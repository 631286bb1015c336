//! Finds the interfaces that a configuration names, and decides which of them can be attached to.

use anyhow::{Result, bail};

use super::change::Change;
use crate::{
    host::interface::{self, Interface},
    interfaces::admission::{self, Refusal, Ways},
    kernel::pins,
};

/// The configured interfaces, by whether they can be attached to.
#[derive(Default)]
pub(super) struct FoundInterfaces {
    /// Interfaces that can be attached to. An interface follows those below it.
    pub(super) admitted: Vec<Admitted>,
    /// Interfaces that can't be attached to and do not have to be.
    pub(super) refused: Vec<(String, Refusal)>,
    /// Interfaces that do not exist.
    pub(super) absent: Vec<String>,
}

/// An interface that can be attached to.
pub(super) struct Admitted {
    /// Its configured name.
    pub(super) name: String,
    pub(super) interface: Interface,
    pub(super) ways: Ways,
}

impl Change<'_> {
    /// Finds all interfaces, except those that may be absent or refused.
    ///
    /// # Errors
    /// One line for each interface that does not exist or can't be attached to.
    pub(super) fn find(&self, all: &[Interface]) -> Result<FoundInterfaces> {
        pins::follow_names(self.instance, self.interfaces, all)?;
        let links = pins::links(self.instance)?;
        let mut found = FoundInterfaces::default();
        let mut problems = Vec::new();
        for name in self.interfaces {
            let Some(interface) = interface::named(name, all) else {
                // An interface that was configured before is waited for: its absence is not a mistake.
                if !self.attach_options.may_be_absent && !self.was_asked_for(name) {
                    problems.push(unknown(name, all));
                }
                found.absent.push(name.clone());
                continue;
            };
            let same = |other: &Admitted| other.interface.index == interface.index;
            if found.admitted.iter().any(same) {
                continue;
            }
            let ours = pins::mode(&links, interface);
            match admission::admit(interface, all, self.attach_options.mode, ours) {
                Ok(ways) => found.admitted.push(Admitted {
                    name: name.clone(),
                    interface: interface.clone(),
                    ways,
                }),
                Err(refusal) if self.may_be_refused(name) => {
                    found.refused.push((name.clone(), refusal));
                }
                Err(refusal) => problems.push(refusal.to_string()),
            }
        }
        if !problems.is_empty() {
            bail!("{}", problems.join("\n"));
        }
        let interfaces = found.admitted.iter().map(|one| &one.interface).collect();
        let order = admission::in_order(interfaces, all);
        let order: Vec<_> = order.into_iter().map(|one| one.index).collect();
        let place = |one: &Admitted| order.iter().position(|at| *at == one.interface.index);
        found.admitted.sort_by_key(place);
        let interfaces = found.admitted.iter().map(|one| &one.interface);
        for Interface { name, .. } in interfaces.filter(|one| !one.up) {
            tracing::warn!("{name} is down: it is protected, and stays so when it comes up");
        }
        Ok(found)
    }

    /// Refuses to release protected interfaces in exchange for interfaces of which none exists.
    pub(super) fn require_interface(
        &self,
        found: &FoundInterfaces,
        all: &[Interface],
    ) -> Result<()> {
        if !found.admitted.is_empty() || self.ends_a_trial() {
            return Ok(());
        }
        let links = pins::links(self.instance)?.into_iter();
        let released: Vec<_> = links
            .filter(|link| !self.interfaces.contains(&link.name))
            .filter(|link| all.iter().any(|interface| link.holds(interface)))
            .map(|link| link.name)
            .collect();
        if released.is_empty() {
            return Ok(());
        }
        bail!(
            "none of the interfaces asked for can be protected now ({}), and {} would no longer be \
             protected: nothing was changed; `ip link` shows the interfaces, and `knock-user detach` ends the protection",
            self.interfaces.join(", "),
            released.join(", ")
        )
    }
}

fn unknown(name: &str, all: &[Interface]) -> String {
    let names: Vec<_> = all
        .iter()
        .map(|interface| interface.name.as_str())
        .collect();
    format!(
        "there is no interface {name}: this host has {}; see `ip link`, and if it appears later, \
         start with --wait-for-interfaces",
        names.join(", ")
    )
}
