//! A change from one configuration to another: what it starts from, and whether it may happen.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, bail};

use super::{options::AttachOptions, plan::Plan};
use crate::{
    compile::{Tables, stable_ids::StableIds},
    config,
    host::netns,
    kernel::{
        instance::Instance,
        registry::{Fallback, Registry},
    },
    model::settings::Mode,
};

/// A change from one configuration to another.
pub(super) struct Change<'a> {
    pub(super) instance: &'a Instance,
    pub(super) before: Option<&'a Registry>,
    pub(super) plan: &'a Plan,
    pub(super) interfaces: &'a [String],
    pub(super) attach_options: AttachOptions,
    /// Whether this process already serves the instance: a refused interface then does not end the
    /// rest.
    pub(super) is_reload: bool,
    /// The ports that the previous program protects by its own table, if there is no registry.
    pub(super) found_protected: Option<Vec<String>>,
}

impl Change<'_> {
    /// Returns whether this change confirms or rolls back the trial of this process. Rolling back
    /// to open ports was promised, so it is allowed.
    pub(super) fn ends_a_trial(&self) -> bool {
        let is_on_trial = self
            .before
            .is_some_and(|before| before.confirm_by_ms.is_some());
        self.is_reload && is_on_trial
    }

    /// Refuses to replace a configuration that closes ports with one that closes none: that is far
    /// more often an emptied file than an intention.
    pub(super) fn require_closed_port(&self) -> Result<()> {
        if self.ends_a_trial() {
            return Ok(());
        }
        if self.instance.linked().is_empty() {
            return Ok(());
        }
        match self.before {
            Some(before) if before.dry_run => Ok(()),
            Some(before) => Ok(self.plan.checked.may_replace(&before.protected)?),
            None => self.require_closed_port_without_registry(),
        }
    }

    /// Does the same if only the port table of the previous program shows what is closed. Whether
    /// that program ran dry is unknown, so it counts as protecting.
    fn require_closed_port_without_registry(&self) -> Result<()> {
        let checked = &self.plan.checked;
        let registry = self.instance.registry();
        let Some(protected) = &self.found_protected else {
            return Ok(checked.may_replace_unknown(&registry)?);
        };
        if self.attach_options.dry_run && !protected.is_empty() {
            bail!(
                "a dry run protects nothing, and {} would be open to everybody; {} can't be read, \
                 so this may not be intended: nothing was changed. `knock-user detach` \
                 opens these ports; start the dry run after it",
                protected.join(", "),
                registry.display()
            );
        }
        Ok(checked.may_replace(protected)?)
    }

    pub(super) fn was_asked_for(&self, name: &str) -> bool {
        let before = self.before.map_or(&[][..], |before| &before.interfaces);
        before.iter().any(|before| before == name)
    }

    /// Returns whether to wait for an interface that can't be attached to, instead of failing.
    pub(super) fn may_be_refused(&self, name: &str) -> bool {
        self.attach_options.may_be_absent || (self.is_reload && self.was_asked_for(name))
    }

    /// Returns the registry until the change is committed: it covers both configurations.
    pub(super) fn registry(
        &self,
        known: &StableIds,
        tables: &Tables,
        limited: Vec<String>,
    ) -> Registry {
        let before = self.before.iter().flat_map(|before| &before.interfaces);
        let interfaces: BTreeSet<_> = self.interfaces.iter().chain(before).cloned().collect();
        let protected = self.plan.settings().protected().ranges();
        let text = config::digest(&self.plan.checked.text);
        let established = self.plan.settings().established;
        let [flow_idle_ms, flow_idle_udp_ms] = match established.keep {
            true => established.idle_ms(),
            false => [0; 2],
        };
        Registry {
            interfaces: interfaces.into_iter().collect(),
            config: self.plan.path.clone(),
            dry_run: self.attach_options.dry_run,
            mode: Some(self.attach_options.mode),
            confirm_by_ms: self.attach_options.confirm_by_ms,
            numbers: known.with(&tables.numbers),
            ports: self.plan.ports_by_door(),
            protected: protected.iter().map(ToString::to_string).collect(),
            needs_process: self.plan.settings().needs_process(),
            config_digest: self.plan.checked.digest,
            flow_idle_ms,
            flow_idle_udp_ms,
            namespace: netns::inode().ok(),
            text: Some(text),
            programs: Vec::new(),
            fallback: None,
            // A trial of the same text may have been rejected.
            rejected: self
                .attach_options
                .rejected
                .filter(|rejected| *rejected != text),
            limited,
            chosen: BTreeMap::new(),
        }
    }

    /// Returns what a rollback restores: the configuration that was committed last.
    pub(super) fn fallback(&self, indices: &[u32]) -> Option<Box<Fallback>> {
        let before = self.before?;
        before.fallback.clone().or_else(|| {
            Some(Box::new(Fallback {
                registry: before.clone(),
                indices: indices.to_vec(),
            }))
        })
    }

    /// Returns the ports that the previous configuration protected and this one leaves open. A dry
    /// run protects nothing.
    pub(super) fn opened(&self) -> Vec<String> {
        let protected: &[String] = match (self.before, &self.found_protected) {
            (Some(before), _) if before.dry_run => &[],
            (Some(before), _) => &before.protected,
            (None, Some(found)) => found,
            (None, None) => &[],
        };
        if self.attach_options.dry_run {
            return protected.to_vec();
        }
        self.plan
            .settings()
            .leaves_open(protected)
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    pub(super) fn mode_before(&self) -> Option<Mode> {
        self.before.and_then(|before| before.mode)
    }
}
