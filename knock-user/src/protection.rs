//! An instance in the hands of this process: puts configurations in place, one after the other.
//!
//! Start, restart, upgrade and reload are one operation. A program is loaded with maps of its own
//! for everything that a configuration says, and with the pinned maps that all configurations
//! share; then each interface's link is given to the new program in one step. A packet is judged by
//! the old program with the old maps or by the new one with the new maps, never by half of each.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use anyhow::{Context as _, Result, bail};
use knock_common::{
    Address,
    layout::{ALLOW_MAX, Door, FlowKey, GrantKey},
};

use crate::{
    carry::{self, Carried},
    clock,
    compile::{self, Numbers, Tables},
    config::checked::Mode,
    firewall::{self, Attached, Firewall, Options},
    instance::{Instance, Locked},
    interface::{self, Interface, Search},
    maps,
    moving::Kept,
    one_time::Standing,
    pins,
    registry::Registry,
    sockets,
    start::Plan,
};

/// How a program is put in place.
#[derive(Clone, Copy, Debug)]
pub struct How {
    /// How it is attached where none of ours is yet.
    pub mode: Mode,
    /// Whether packets are only judged.
    pub dry_run: bool,
    /// The aya-log level of the program.
    pub log_level: u8,
    /// Whether an interface that is not there is waited for.
    pub may_be_absent: bool,
    /// Until when a confirmation is waited for, in milliseconds since boot.
    pub confirm_by_ms: Option<u64>,
}

/// What was put in place.
#[derive(Debug)]
pub struct Put {
    /// The doors by number.
    pub doors: Vec<Door>,
    /// Their names; empty where no door has the number.
    pub names: Vec<String>,
    /// The longest that any attempt lives.
    pub horizon_ticks: u32,
    /// Where, and how.
    pub attached: Vec<Attached>,
    /// Interfaces that are waited for.
    pub absent: Vec<String>,
    /// Connections to protected ports that were there and not known: they go on if connections are
    /// kept at all.
    pub found: Vec<FlowKey>,
}

/// What ended with the configuration before.
#[derive(Debug, Default)]
pub struct Ended {
    /// Interfaces that are no longer protected.
    pub released: Vec<String>,
    /// Grants of doors that are no more, with the door's name if it is known.
    pub grants: BTreeSet<(Address, Option<String>)>,
}

/// What became of interfaces.
#[derive(Debug, Default)]
pub struct Followed {
    /// Those that appeared, unless the kernel refused.
    pub attached: Vec<Result<Attached>>,
    /// Those that went away.
    pub gone: Vec<String>,
    /// Those that have another name, which is the second one: they stay protected.
    pub renamed: Vec<(String, String)>,
    /// Those that are no longer protected, since another one has their old name.
    pub released: Vec<String>,
}

/// A protected instance.
#[derive(Debug)]
pub struct Protection {
    instance: Locked,
    firewall: Firewall,
    registry: Registry,
    kept: Kept,
    mode: Mode,
    unsettled: Option<Unsettled>,
    /// Names that interfaces had, and those that they have.
    renamed: BTreeMap<String, String>,
}

/// What is needed to let go of the configuration before, or to go back to it.
#[derive(Debug)]
struct Unsettled {
    tables: Tables,
    interfaces: Vec<String>,
    /// Interfaces that had no program of ours.
    fresh: Vec<String>,
    before: Option<Registry>,
    /// Whether no program of ours was there, or only one that nobody ever confirmed.
    is_first: bool,
}

impl Protection {
    /// Takes an instance over, or begins one, and puts a configuration in place: on all interfaces
    /// or on none.
    ///
    /// # Errors
    /// Whatever stands in the way; everything is then as it was before.
    pub fn begin(
        instance: Locked,
        plan: &Plan,
        interfaces: &[String],
        how: How,
    ) -> Result<(Self, Put)> {
        let before = Registry::read(&instance.registry()).unwrap_or_else(|error| {
            tracing::warn!("{error:#}; grants that were given before end");
            None
        });
        let change = Change {
            instance: &instance,
            before: before.as_ref(),
            plan,
            interfaces,
            how,
        };
        let Made {
            firewall,
            kept,
            registry,
            put,
            unsettled,
        } = change.make()?;
        let protection = Self {
            instance,
            firewall,
            kept,
            registry,
            mode: how.mode,
            unsettled: Some(unsettled),
            renamed: BTreeMap::new(),
        };
        Ok((protection, put))
    }

    /// Puts another configuration in place of the one that is there.
    ///
    /// # Errors
    /// As for [`Protection::begin`].
    pub fn change(&mut self, plan: &Plan, interfaces: &[String], how: How) -> Result<Put> {
        let change = Change {
            instance: &self.instance,
            before: Some(&self.registry),
            plan,
            interfaces,
            how,
        };
        let Made {
            firewall,
            kept,
            registry,
            put,
            unsettled,
        } = change.make()?;
        self.firewall = firewall;
        self.kept = kept;
        self.registry = registry;
        self.mode = how.mode;
        self.unsettled = Some(unsettled);
        Ok(put)
    }

    /// Lets go of the configuration before: there is no way back to it.
    ///
    /// # Errors
    /// The maps, the pins or the registry can't be written.
    pub fn settle(&mut self) -> Result<Ended> {
        let Some(unsettled) = self.unsettled.take() else {
            return Ok(Ended::default());
        };
        let Unsettled {
            tables, interfaces, ..
        } = unsettled;
        let held = self.firewall.grants()?;
        let now_ms = clock::boot_ms();
        let Carried { remove, ended, .. } =
            carry::grants(&held, &self.registry.numbers, &tables, now_ms);
        remove_all(&mut self.firewall, remove)?;
        self.firewall.pin_program(&self.instance)?;
        let mut released = Vec::new();
        for interface in self.instance.linked() {
            if !interfaces.contains(&interface) && pins::unlink(&self.instance.link(&interface))? {
                released.push(interface);
            }
        }
        self.registry.interfaces = interfaces;
        self.registry.numbers = tables.numbers;
        self.registry.confirm_by_ms = None;
        self.registry.write(&self.instance.registry())?;
        Ok(Ended {
            released,
            grants: ended,
        })
    }

    /// Goes back to what was before this process: to the program that was attached then, or to none.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn go_back(self) -> Result<()> {
        let Some(unsettled) = self.unsettled else {
            return Ok(());
        };
        if unsettled.is_first {
            return self.instance.remove();
        }
        let program = self.instance.program();
        firewall::put_back(&program, &interface::list()?, &self.instance)?;
        for interface in unsettled.fresh {
            pins::unlink(&self.instance.link(&interface))?;
        }
        match unsettled.before {
            Some(before) => before.write(&self.instance.registry()),
            None => Ok(()),
        }
    }

    /// Ends the protection; what is returned are the interfaces that were protected.
    ///
    /// # Errors
    /// The pins can't be removed.
    pub fn detach(self) -> Result<Vec<String>> {
        let interfaces = self.instance.linked();
        self.instance.remove()?;
        Ok(interfaces)
    }

    /// Looks at the interfaces: attaches to those that appeared, and forgets the links of those
    /// that went away; tells about both.
    ///
    /// # Errors
    /// The kernel does not tell, or refuses.
    pub fn follow_interfaces(&mut self) -> Result<Followed> {
        let all = interface::list()?;
        let wanted = &self.registry.interfaces;
        let mut followed = Followed {
            renamed: pins::follow_names(&self.instance, wanted, &all)?,
            ..Followed::default()
        };
        for name in wanted {
            if let Some(interface) = all.iter().find(|interface| interface.name == *name) {
                let old = self.renamed.remove(name);
                if !pins::is_ours(&self.instance, interface) {
                    let attached = self.firewall.attach(interface, self.mode, &self.instance);
                    followed.attached.push(attached);
                    followed.released.extend(old);
                }
            } else if let Some((_, interface)) = pins::live(&self.instance, name, &all)? {
                let now = interface.name.clone();
                let known = self.renamed.insert(name.clone(), now.clone());
                if known.as_ref() != Some(&now) {
                    followed.renamed.push((name.clone(), now));
                }
            } else if pins::unlink(&self.instance.link(name))? {
                self.renamed.remove(name);
                followed.gone.push(name.clone());
            }
        }
        Ok(followed)
    }

    /// Puts away sequences that were used, and puts in place those that are listened to now.
    ///
    /// # Errors
    /// As for [`Kept::follow`].
    pub fn follow_sequences(&mut self, plan: &Plan) -> Result<()> {
        self.kept.follow(plan, &mut self.firewall)
    }

    /// Listens to one-time sequences no more, since nobody will be there to put them away.
    ///
    /// # Errors
    /// As for [`Kept::follow`].
    pub fn withdraw_sequences(&mut self, plan: &Plan) -> Result<()> {
        self.kept.withdraw(plan, &mut self.firewall)
    }

    /// How it is with the files of one-time sequences, by the places of their doors.
    pub fn files(&self) -> BTreeMap<usize, Standing> {
        self.kept.files()
    }

    /// Whether sequences ever change.
    pub fn has_moving_doors(&self) -> bool {
        self.kept.is_moving()
    }

    /// When sequences change by themselves, in milliseconds since boot.
    pub fn sequences_change_ms(&self, now_ms: u64) -> Option<u64> {
        self.kept.changes_ms(now_ms)
    }

    /// The kernel side.
    pub fn firewall(&mut self) -> &mut Firewall {
        &mut self.firewall
    }

    /// What is known about it besides its pins.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Where it lives.
    pub fn instance(&self) -> &Instance {
        &self.instance
    }

    /// Whether [`Protection::go_back`] goes back to a program that protects.
    pub fn goes_back_to_protection(&self) -> bool {
        let unsettled = self.unsettled.as_ref();
        unsettled.is_some_and(|unsettled| !unsettled.is_first)
    }

    /// Whether the program lets everything pass if the confirmation does not come.
    pub fn lets_pass_unconfirmed(&self) -> bool {
        let unsettled = self.unsettled.as_ref();
        self.registry.confirm_by_ms.is_some()
            && unsettled.is_some_and(|unsettled| unsettled.is_first)
    }
}

/// One configuration that takes another one's place.
struct Change<'a> {
    instance: &'a Instance,
    before: Option<&'a Registry>,
    plan: &'a Plan,
    interfaces: &'a [String],
    how: How,
}

/// What came of it.
struct Made {
    firewall: Firewall,
    kept: Kept,
    registry: Registry,
    put: Put,
    unsettled: Unsettled,
}

impl Change<'_> {
    /// Makes it, or leaves everything as it was.
    fn make(&self) -> Result<Made> {
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

fn remove_all(firewall: &mut Firewall, keys: impl IntoIterator<Item = GrantKey>) -> Result<()> {
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
