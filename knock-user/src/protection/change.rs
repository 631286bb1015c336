//! One configuration that takes the place of another.

use std::collections::{BTreeSet, HashSet};

use anyhow::{Context as _, Result, bail};
use knock_common::layout::{ALLOW_MAX, FlowKey, GrantKey};

use super::{How, Put, Unsettled};
use crate::{
    carry::{self, Carried},
    clock,
    compile::{self, Numbers, Tables},
    firewall::{self, Attached, Firewall, Options},
    instance::Instance,
    interface::{self, Interface, Search},
    maps,
    moving::Kept,
    pins,
    registry::Registry,
    sockets,
    start::Plan,
};

/// What takes which place.
pub(super) struct Change<'a> {
    pub(super) instance: &'a Instance,
    pub(super) before: Option<&'a Registry>,
    pub(super) plan: &'a Plan,
    pub(super) interfaces: &'a [String],
    pub(super) how: How,
}

/// What came of it.
pub(super) struct Made {
    pub(super) firewall: Firewall,
    pub(super) kept: Kept,
    pub(super) registry: Registry,
    pub(super) put: Put,
    pub(super) unsettled: Unsettled,
}

impl Change<'_> {
    /// Makes it, or leaves everything as it was.
    pub(super) fn make(&self) -> Result<Made> {
        let made = self.try_to_make();
        if made.is_err() {
            let undone = match self.before {
                Some(before) => before.write(&self.instance.registry()),
                None if self.instance.linked().is_empty() => self.instance.remove(),
                None => Ok(()),
            };
            if let Err(error) = undone {
                tracing::warn!("{error:#}");
            }
        }
        made
    }

    fn try_to_make(&self) -> Result<Made> {
        let known = self.before.map(|before| before.numbers.clone());
        let known = known.unwrap_or_default();
        let (kept, tables) = self.plan.compile(&known)?;
        let interfaces = self.find()?;
        let registry = self.registry(&known, &tables);
        registry.write(&self.instance.registry())?;
        // What was never settled is nothing to go back to.
        let is_first = self.instance.linked().is_empty() || !self.instance.program().exists();
        let options = Options {
            dry_run: self.how.dry_run,
            log_level: self.how.log_level,
            // Where there was protection, letting everything pass would not be going back.
            confirm_by_ms: self.how.confirm_by_ms.filter(|_| is_first),
            instance: Some(self.instance),
        };
        let mut firewall = Firewall::load(&tables, options)?;
        if let Some(walked) = firewall.verified_instructions()? {
            tracing::debug!("the verifier walked {walked} instructions");
        }
        if self.before.is_none() {
            // Nothing says what the numbers in left-over grants stand for.
            let entries = firewall.grants()?;
            remove_all(&mut firewall, entries.into_iter().map(|(key, _)| key))?;
        }
        give(&mut firewall, &known, &tables)?;
        let mut found = keep_connections(&mut firewall, &tables)?;
        let mut attached = Vec::new();
        let done = self.attach(&mut firewall, &interfaces, &mut attached);
        // What was given and connected between the first look and the attaching.
        let done = done.and_then(|absent| {
            give(&mut firewall, &registry.numbers, &tables)?;
            found.extend(keep_connections(&mut firewall, &tables)?);
            Ok(absent)
        });
        let absent = match done {
            Ok(absent) => absent,
            Err(error) => {
                self.take_back(&attached)?;
                return Err(error.context("nothing is changed"));
            }
        };
        attached.sort_by(|a, b| a.interface.cmp(&b.interface));
        let fresh = attached.iter().filter(|attached| !attached.replaced);
        let fresh = fresh.map(|attached| attached.interface.clone()).collect();
        let put = Put {
            doors: tables.doors.clone(),
            names: tables.names.clone(),
            horizon_ticks: tables.config.horizon_ticks,
            attached,
            absent,
            found,
        };
        let unsettled = Unsettled {
            tables,
            interfaces: self.interfaces.to_vec(),
            fresh,
            before: self.before.cloned(),
            is_first,
        };
        Ok(Made {
            firewall,
            kept,
            registry,
            put,
            unsettled,
        })
    }

    fn find(&self) -> Result<Vec<Interface>> {
        pins::follow_names(self.instance, self.interfaces, &interface::list()?)?;
        let before = self.before.map_or(&[][..], |before| &before.interfaces);
        // One that went away is waited for, and not a mistake.
        let was_there = |name: &str| before.iter().any(|before| before == name);
        let search = Search {
            may_be_absent: &|name| self.how.may_be_absent || was_there(name),
            is_ours: &|interface| pins::is_ours(self.instance, interface),
        };
        let interfaces = interface::find(self.interfaces, search)?;
        for Interface { name, .. } in interfaces.iter().filter(|interface| !interface.up) {
            tracing::warn!("{name} is down: it is protected, and stays so when it comes up");
        }
        Ok(interfaces)
    }

    /// What the registry says until the change is settled: both configurations.
    fn registry(&self, known: &Numbers, tables: &Tables) -> Registry {
        let before = self.before.iter().flat_map(|before| &before.interfaces);
        let interfaces: BTreeSet<_> = self.interfaces.iter().chain(before).cloned().collect();
        let protected = compile::protected(self.plan.settings()).ranges();
        let established = self.plan.settings().established;
        Registry {
            interfaces: interfaces.into_iter().collect(),
            config: self.plan.path.clone(),
            dry_run: self.how.dry_run,
            confirm_by_ms: self.how.confirm_by_ms,
            numbers: known.with(&tables.numbers),
            ports: self.plan.ports_by_door(),
            protected: protected.iter().map(ToString::to_string).collect(),
            flow_idle_ms: match established.keep {
                true => compile::millis(established.idle),
                false => 0,
            },
        }
    }

    /// Attaches to all interfaces: first where the kernel may refuse, then where the program takes
    /// the place of another. What is attached is noted, also if that comes to an end; those that
    /// are not there are returned.
    fn attach(
        &self,
        firewall: &mut Firewall,
        interfaces: &[Interface],
        attached: &mut Vec<Attached>,
    ) -> Result<Vec<String>> {
        let is_ours = |interface: &&Interface| pins::is_ours(self.instance, interface);
        let (ours, others): (Vec<_>, Vec<_>) = interfaces.iter().partition(is_ours);
        for interface in others.into_iter().chain(ours) {
            attached.push(firewall.attach(interface, self.how.mode, self.instance)?);
        }
        let all = interface::list()?;
        let is_there = |name: &&String| interfaces.iter().any(|there| there.name == **name);
        let mut absent = Vec::new();
        for name in self.interfaces.iter().filter(|name| !is_there(name)) {
            match pins::live(self.instance, name, &all)? {
                // It has another name now.
                Some((link, _)) => firewall.replace(link)?,
                None => absent.push(name.clone()),
            }
        }
        Ok(absent)
    }

    /// Undoes [`Change::attach`].
    fn take_back(&self, attached: &[Attached]) -> Result<()> {
        for new in attached.iter().filter(|attached| !attached.replaced) {
            pins::unlink(&self.instance.link(&new.interface))?;
        }
        let program = self.instance.program();
        if self.instance.linked().is_empty() || !program.exists() {
            return Ok(());
        }
        firewall::put_back(&program, &interface::list()?, self.instance)
    }
}

/// Writes the entries that grants of before need in this configuration; those that they needed stay
/// until it is settled.
fn give(firewall: &mut Firewall, known: &Numbers, tables: &Tables) -> Result<()> {
    let held = firewall.grants()?;
    let Carried { write, .. } = carry::grants(&held, known, tables, clock::boot_ms());
    let there: HashSet<_> = held.iter().map(|(key, _)| *key).collect();
    let more = write.keys().filter(|key| !there.contains(key)).count();
    if there.len().saturating_add(more) > ALLOW_MAX as usize {
        bail!(
            "there is no room for the grants under both configurations: {} of {ALLOW_MAX} entries \
             are in use, and {more} more are needed; `knock-user revoke` ends grants, and others \
             end by themselves",
            there.len()
        );
    }
    let sources = write.keys().map(|key| key.source);
    firewall.expect(sources.collect::<BTreeSet<_>>())?;
    let mut allow = firewall.allow()?;
    for (key, grant) in write {
        maps::raise(&mut allow, key, grant).context("writing a grant")?;
    }
    Ok(())
}

pub(super) fn remove_all(
    firewall: &mut Firewall,
    keys: impl IntoIterator<Item = GrantKey>,
) -> Result<()> {
    let mut allow = firewall.allow()?;
    for key in keys {
        maps::delete(&mut allow, key).context("removing a grant")?;
    }
    Ok(())
}

/// Records the connections to protected ports that exist, so that they go on if connections are
/// kept at all; tells which were not recorded before.
fn keep_connections(firewall: &mut Firewall, tables: &Tables) -> Result<Vec<FlowKey>> {
    let connections = sockets::connections()?;
    let flows = connections
        .iter()
        .filter_map(|connection| tables.flow_of(connection));
    firewall.keep(flows.collect(), clock::boot_ms())
}
