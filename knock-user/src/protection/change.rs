//! One configuration that takes the place of another.

use std::{
    collections::{BTreeSet, HashSet},
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context as _, Result, bail};
use knock_common::layout::{ALLOW_MAX, FlowKey, GrantKey};

use super::{How, Put, Unsettled};
use crate::{
    admission::{self, Refusal},
    attach::{self, Attached},
    carry::{self, Carried},
    clock,
    compile::{self, Numbers, Tables},
    config::checked::Mode,
    firewall::{self, Firewall, Options},
    gate,
    instance::Instance,
    interface::{self, Interface},
    maps,
    moving::Kept,
    netns, pins, refused,
    registry::Registry,
    replay::{Floor, Opened, Replay},
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
    /// Whether this process has it in its hands already: what is refused does not end what goes on.
    pub(super) is_reload: bool,
}

/// The interfaces that are asked for, as they are found.
#[derive(Default)]
struct Found {
    /// Those that can be taken, with the names under which they are asked for; what is below another
    /// comes before it.
    admitted: Vec<(String, Interface)>,
    /// Those that can't, and need not.
    refused: Vec<(String, Refusal)>,
    /// Those that are not there.
    absent: Vec<String>,
}

/// What came of it.
pub(super) struct Made {
    pub(super) firewall: Firewall,
    pub(super) kept: Kept,
    pub(super) registry: Registry,
    pub(super) put: Put,
    pub(super) unsettled: Unsettled,
}

/// What is needed to make a configuration ready. That takes long for a large one, changes nothing,
/// and can be done by another thread while the configuration before is in force.
#[derive(Debug)]
pub struct Preparation {
    instance: Instance,
    known: Numbers,
    how: How,
    replay: Arc<Replay>,
    /// As far as this process knows by itself.
    floor: Option<Floor>,
    /// Whether there is no confirmed program of ours to go back to.
    is_first: bool,
}

/// A configuration that is compiled and loaded, and not in force yet.
#[derive(Debug)]
pub struct Prepared {
    kept: Kept,
    tables: Tables,
    firewall: Firewall,
    is_first: bool,
}

impl Preparation {
    pub(super) fn new(
        instance: &Instance,
        before: Option<&Registry>,
        how: How,
        replay: Arc<Replay>,
        floor: Option<Floor>,
    ) -> Self {
        Self {
            instance: instance.clone(),
            known: numbers(before),
            how,
            replay,
            floor,
            // What was never settled is nothing to go back to.
            is_first: instance.linked().is_empty() || !instance.program().exists(),
        }
    }

    /// The same for a process that has the instance in its hands: its configuration is what to go
    /// back to, also where none of its interfaces is there at the moment.
    pub(super) fn in_place_of_one(self) -> Self {
        Self {
            is_first: false,
            ..self
        }
    }

    /// Compiles and loads a configuration, unless it was given up meanwhile, which `is_given_up`
    /// says. That is locked while pins may be made: whoever sets it afterwards finds none of them
    /// half made.
    ///
    /// # Errors
    /// A [`crate::config::Problems`] with what this host can't do of it, the kernel refuses, or it
    /// was given up.
    pub fn make(
        &self,
        plan: &Plan,
        interfaces: &[String],
        is_given_up: &Mutex<bool>,
    ) -> Result<Prepared> {
        let listed = interface::list()?;
        let mut loopback = listed.iter().filter(|found| found.is_loopback());
        let is_named = |found: &Interface| interfaces.iter().any(|name| found.is_called(name));
        let moves = (plan.settings().doors.iter()).any(|door| door.moving.is_some());
        let replay = match moves {
            true => self.replay.open(),
            false => Opened::default(),
        };
        let floor = self.floor.unwrap_or(replay.floor);
        let (kept, tables) = plan.compile(&self.known, floor)?;
        let is_given_up = is_given_up.lock().unwrap_or_else(PoisonError::into_inner);
        if *is_given_up {
            bail!("the new configuration is given up");
        }
        let options = Options {
            dry_run: self.how.dry_run,
            log_level: self.how.log_level,
            // Where there was protection, letting everything pass would not be going back.
            confirm_by_ms: self.how.confirm_by_ms.filter(|_| self.is_first),
            loopback: loopback.any(is_named),
            instance: Some(&self.instance),
        };
        let mut firewall = Firewall::load(&tables, options)?;
        if let Some(walked) = firewall.verified_instructions()? {
            tracing::debug!("the verifier walked {walked} instructions");
        }
        let mut used = replay.used;
        used.retain(|key| kept.may_come(key));
        firewall.note_used(&used)?;
        let waits_ms = kept.waits_ms(clock::boot_ms());
        if waits_ms > 0 {
            tracing::warn!(
                "time-based doors can be opened in {} s: which of their sequences were used before \
                 is not known, so only those that begin now are good",
                waits_ms.div_ceil(1_000)
            );
        }
        Ok(Prepared {
            kept,
            tables,
            firewall,
            is_first: self.is_first,
        })
    }
}

impl Prepared {
    /// Whether there is no program to go back to, so that this one lets everything pass by itself
    /// when its confirmation does not come.
    pub const fn is_first(&self) -> bool {
        self.is_first
    }
}

fn numbers(before: Option<&Registry>) -> Numbers {
    let numbers = before.map(|before| before.numbers.clone());
    numbers.unwrap_or_default()
}

impl Change<'_> {
    /// Makes it, or leaves everything as it was.
    pub(super) fn make(&self, prepared: impl FnOnce() -> Result<Prepared>) -> Result<Made> {
        let made = prepared().and_then(|prepared| self.try_to_make(prepared));
        if made.is_err() {
            let undone = match self.before {
                Some(before) => before.write(&self.instance.registry()),
                None if self.instance.linked().is_empty() => self.instance.remove(),
                None => Ok(()),
            };
            if let Err(error) = undone {
                tracing::warn!("{}", refused::told(&error));
            }
        }
        made
    }

    fn try_to_make(&self, prepared: Prepared) -> Result<Made> {
        self.keeps_something_closed()?;
        let known = numbers(self.before);
        let Prepared {
            kept,
            tables,
            mut firewall,
            is_first,
        } = prepared;
        let mut found = self.find()?;
        self.keeps_an_interface(&found)?;
        let registry = self.registry(&known, &tables);
        registry.write(&self.instance.registry())?;
        if self.before.is_none() {
            // Nothing says what the numbers in left-over grants stand for.
            let entries = firewall.grants()?;
            remove_all(&mut firewall, entries.into_iter().map(|(key, _)| key))?;
        }
        give(&mut firewall, &known, &tables)?;
        let mut connections = keep_connections(&mut firewall, &tables)?;
        let mut attached = Vec::new();
        let done = self.attach(&mut firewall, &mut found, &mut attached);
        // What was given and connected between the first look and the attaching.
        let done = done.and_then(|()| {
            give(&mut firewall, &registry.numbers, &tables)?;
            connections.extend(keep_connections(&mut firewall, &tables)?);
            Ok(())
        });
        if let Err(error) = done {
            self.take_back(&mut firewall, &attached)?;
            return Err(error.context("nothing is changed"));
        }
        attached.sort_by(|a, b| a.interface.cmp(&b.interface));
        let fresh = attached.iter().filter(|attached| !attached.replaced);
        let fresh = fresh.map(|attached| attached.interface.clone()).collect();
        let switched = attached.iter().filter(|attached| attached.switched);
        let switched = switched.cloned().collect();
        gate::open_all(self.instance)?;
        let put = Put {
            doors: tables.doors.clone(),
            names: tables.names.clone(),
            horizon_ticks: tables.config.horizon_ticks,
            attached,
            absent: found.absent,
            refused: found.refused,
            opened: self.opened(),
            found: connections,
        };
        let unsettled = Unsettled {
            tables,
            interfaces: self.interfaces.to_vec(),
            fresh,
            switched,
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

    /// Whether this confirms what this process has on trial, or goes back to what was before: going
    /// back to open ports is what was promised.
    fn ends_a_trial(&self) -> bool {
        let is_on_trial = self
            .before
            .is_some_and(|before| before.confirm_by_ms.is_some());
        self.is_reload && is_on_trial
    }

    /// Where ports are closed, a configuration that closes none does not take the place of the one
    /// before: it is far more often a file that was emptied than a wish.
    fn keeps_something_closed(&self) -> Result<()> {
        if self.ends_a_trial() {
            return Ok(());
        }
        if self.instance.linked().is_empty() {
            return Ok(());
        }
        match self.before {
            Some(before) if before.dry_run => Ok(()),
            Some(before) => Ok(self.plan.checked.may_replace(&before.protected)?),
            // What is closed now is not known, so it counts as something.
            None => Ok((self.plan.checked).may_replace_unknown(&self.instance.registry())?),
        }
    }

    /// The same for interfaces: those that are protected are not let go for others of which none
    /// is there.
    fn keeps_an_interface(&self, found: &Found) -> Result<()> {
        if !found.admitted.is_empty() || self.ends_a_trial() {
            return Ok(());
        }
        let all = interface::list()?;
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
             protected: nothing is changed; `ip link` shows the interfaces, and `knock-user detach` ends the protection",
            self.interfaces.join(", "),
            released.join(", ")
        )
    }

    /// Finds the interfaces: all of them, but for those that may be absent or refused.
    ///
    /// # Errors
    /// One line for each that is not there or can't be taken.
    fn find(&self) -> Result<Found> {
        let all = interface::list()?;
        pins::follow_names(self.instance, self.interfaces, &all)?;
        let links = pins::links(self.instance)?;
        let mut found = Found::default();
        let mut problems = Vec::new();
        for name in self.interfaces {
            let Some(interface) = interface::named(name, &all) else {
                // One that went away is waited for, and not a mistake.
                if !self.how.may_be_absent && !self.was_asked_for(name) {
                    problems.push(unknown(name, &all));
                }
                found.absent.push(name.clone());
                continue;
            };
            let same = |(_, other): &(String, Interface)| other.index == interface.index;
            if found.admitted.iter().any(same) {
                continue;
            }
            match admission::admit(interface, &all, pins::is_ours(&links, interface)) {
                Ok(()) => found.admitted.push((name.clone(), interface.clone())),
                Err(refusal) if self.may_be_refused(name) => {
                    found.refused.push((name.clone(), refusal));
                }
                Err(refusal) => problems.push(refusal.to_string()),
            }
        }
        if !problems.is_empty() {
            bail!("{}", problems.join("\n"));
        }
        let order = admission::in_order(found.admitted.iter().map(|(_, one)| one).collect(), &all);
        let order: Vec<_> = order.into_iter().map(|one| one.index).collect();
        let place = |(_, one): &(String, Interface)| order.iter().position(|at| *at == one.index);
        found.admitted.sort_by_key(place);
        for (_, Interface { name, .. }) in found.admitted.iter().filter(|(_, one)| !one.up) {
            tracing::warn!("{name} is down: it is protected, and stays so when it comes up");
        }
        Ok(found)
    }

    fn was_asked_for(&self, name: &str) -> bool {
        let before = self.before.map_or(&[][..], |before| &before.interfaces);
        before.iter().any(|before| before == name)
    }

    /// Whether an interface that can't be taken is waited for, and no reason to give up.
    fn may_be_refused(&self, name: &str) -> bool {
        self.how.may_be_absent || (self.is_reload && self.was_asked_for(name))
    }

    /// What the registry says until the change is settled: both configurations.
    fn registry(&self, known: &Numbers, tables: &Tables) -> Registry {
        let before = self.before.iter().flat_map(|before| &before.interfaces);
        let interfaces: BTreeSet<_> = self.interfaces.iter().chain(before).cloned().collect();
        let protected = compile::protected(self.plan.settings()).ranges();
        let established = self.plan.settings().established;
        let [flow_idle_ms, flow_idle_udp_ms] = match established.keep {
            true => established.idle_ms(),
            false => [0; 2],
        };
        Registry {
            interfaces: interfaces.into_iter().collect(),
            config: self.plan.path.clone(),
            dry_run: self.how.dry_run,
            mode: Some(self.how.mode),
            confirm_by_ms: self.how.confirm_by_ms,
            numbers: known.with(&tables.numbers),
            ports: self.plan.ports_by_door(),
            protected: protected.iter().map(ToString::to_string).collect(),
            needs_process: self.plan.settings().needs_process(),
            config_digest: self.plan.checked.digest,
            flow_idle_ms,
            flow_idle_udp_ms,
            namespace: netns::inode().ok(),
        }
    }

    /// Attaches to all interfaces: first where the kernel may refuse, then where the program takes
    /// the place of another. What is attached is noted, also if that comes to an end; what is
    /// refused and need not be taken is noted in `found`.
    fn attach(
        &self,
        firewall: &mut Firewall,
        found: &mut Found,
        attached: &mut Vec<Attached>,
    ) -> Result<()> {
        // What another interface has the name of stays protected until this is settled.
        pins::step_aside(self.instance, &interface::list()?)?;
        let links = pins::links(self.instance)?;
        let is_ours = |(_, interface): &&(String, Interface)| pins::is_ours(&links, interface);
        for (name, interface) in found.admitted.iter().filter(|one| !is_ours(one)) {
            match firewall.attach(name, interface, self.how.mode, self.instance) {
                Ok((new, None)) => attached.push(new),
                Ok((_, Some(_))) => bail!(
                    "{} is gone since this began, so nothing can be pinned there",
                    self.instance.links().display()
                ),
                Err(error) => match error.downcast::<Refusal>() {
                    Ok(refusal) if self.may_be_refused(name) => {
                        found.refused.push((name.clone(), refusal));
                    }
                    Ok(refusal) => return Err(refusal.into()),
                    Err(error) => return Err(error),
                },
            }
        }
        let all = interface::list()?;
        let mut misplaced = Vec::new();
        for link in &links {
            // Also one that has another name now, for which nobody asks.
            if let Some(interface) = all.iter().find(|interface| link.holds(interface)) {
                let is_refused =
                    |(_, refusal): &(String, Refusal)| refusal.interface() == interface.name;
                if found.refused.iter().any(is_refused) {
                    pins::unlink(&self.instance.link(&link.name))?;
                    continue;
                }
                let replaced = firewall.replace(&link.name, interface, self.instance)?;
                if self.interfaces.contains(&link.name) {
                    found.absent.retain(|name| *name != link.name);
                    attached.push(replaced);
                    if attach::is_misplaced(interface, self.how.mode, self.mode_before()) {
                        misplaced.push((link.name.clone(), interface));
                    }
                }
            }
        }
        // A link ends when nobody holds it.
        drop(links);
        // What can't be done in one step comes last.
        for (name, interface) in misplaced {
            let switched = firewall.switch(&name, interface, self.how.mode, self.instance)?;
            attached.retain(|replaced| replaced.interface != name);
            attached.push(switched);
        }
        Ok(())
    }

    /// What the configuration before protected and this one does not; a dry run protects nothing.
    fn opened(&self) -> Vec<String> {
        let before = self.before.filter(|before| !before.dry_run);
        let protected = before.map_or(&[][..], |before| &before.protected);
        if self.how.dry_run {
            return protected.to_vec();
        }
        let open = self.plan.settings().leaves_open(protected);
        open.iter().map(ToString::to_string).collect()
    }

    fn mode_before(&self) -> Option<Mode> {
        self.before.and_then(|before| before.mode)
    }

    /// Undoes [`Change::attach`].
    fn take_back(&self, firewall: &mut Firewall, attached: &[Attached]) -> Result<()> {
        for new in attached.iter().filter(|attached| !attached.replaced) {
            pins::unlink(&self.instance.link(&new.interface))?;
        }
        let program = self.instance.program();
        if self.instance.linked().is_empty() || !program.exists() {
            return Ok(());
        }
        firewall::put_back(&program, &interface::list()?, self.instance)?;
        move_back(firewall, attached, self.instance)
    }
}

/// Moves the program that is pinned, and in its links again, to where it was before these were
/// switched.
///
/// # Errors
/// The kernel refuses.
pub(super) fn move_back(
    firewall: &mut Firewall,
    attached: &[Attached],
    instance: &Instance,
) -> Result<()> {
    for switched in attached.iter().filter(|attached| attached.switched) {
        let mode = match switched.native {
            true => Mode::Skb,
            false => Mode::Native,
        };
        let all = interface::list()?;
        if let Some(interface) = interface::named(&switched.interface, &all) {
            firewall.switch_back(&switched.interface, interface, mode, instance)?;
        }
    }
    Ok(())
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
    let connections = sockets::connections().unwrap_or_else(|error| {
        tracing::warn!(
            "which connections there are can't be seen ({error:#}): those to protected ports stop \
             until their source knocks"
        );
        Vec::new()
    });
    let flows = connections
        .iter()
        .filter_map(|connection| tables.flow_of(connection));
    firewall.keep(flows.collect(), clock::boot_ms())
}
