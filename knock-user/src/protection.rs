//! An instance in the hands of this process: puts configurations in place, one after the other.
//!
//! Start, restart, upgrade and reload are one operation. A program is loaded with maps of its own
//! for everything that a configuration says, and with the pinned maps that all configurations
//! share; then each interface's link is given to the new program in one step. A packet is judged by
//! the old program with the old maps or by the new one with the new maps, never by half of each.

mod change;

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use knock_common::{
    Address,
    layout::{Door, FlowKey},
};

use self::change::{Change, Made, remove_all};
use crate::{
    carry::{self, Carried},
    clock,
    compile::Tables,
    config::checked::Mode,
    firewall::{self, Attached, Firewall},
    instance::{Instance, Locked},
    interface,
    moving::Kept,
    one_time::Standing,
    pins,
    registry::Registry,
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
