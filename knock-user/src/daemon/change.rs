//! Changes of the configuration and of interfaces while the daemon runs.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
};

use anyhow::Result;
use knock_common::layout::FlowKey;
use knock_sequence::Ports;

use super::{Daemon, making::Ready, ports, trial::Trial};
use crate::{
    apply::{Deployed, Ended, plan::Plan},
    host::{clock, os_error},
    interfaces::{admission::Refusal, attach::Attached},
    model::settings::{Door, Settings},
    sequences::clock_skew::SkewDetector,
};

/// Grants that a reload ended and that are logged, each in its own line.
const ENDED_LOGGED: usize = 64;

/// The result of a reload.
#[derive(Clone, Debug, Default)]
pub(crate) struct Changes {
    /// The file of the configuration.
    pub(crate) config: String,
    /// The changes, each as a phrase.
    pub(crate) words: Vec<String>,
    /// Warnings about the new configuration, as lines.
    pub(crate) warnings: Vec<String>,
}

impl<W: Write> Daemon<W> {
    /// Puts a configuration in force that was read again and prepared.
    pub(super) fn reload(&mut self, ready: Ready) -> Result<Changes> {
        let (old, deployed) = self.put_in_place(ready)?;
        let mut changes = Changes {
            config: self.plan.path.display().to_string(),
            words: difference(&old, &self.plan),
            warnings: self.plan.warnings.clone(),
        };
        for Attached { interface, .. } in deployed.attached.iter().filter(|new| !new.replaced) {
            changes.words.push(format!("{interface} is protected"));
        }
        for moved in deployed
            .attached
            .iter()
            .filter(|attached| attached.switched)
        {
            let now = if moved.native { "native" } else { "skb" };
            let because = moved.refused.as_ref();
            let because = because.map(|because| format!(" because {because}"));
            changes.words.push(format!(
                "{} is {now} now{}",
                moved.interface,
                because.unwrap_or_default()
            ));
        }
        match self.protection.registry().confirm_by_ms {
            Some(until_ms) => self.trial = Some(Trial::new(until_ms, Some(old))),
            None => {
                let released = self.commit()?.into_iter();
                changes
                    .words
                    .extend(released.map(|name| format!("{name} is no longer protected")));
            }
        }
        self.report_new(deployed);
        for warning in &changes.warnings {
            tracing::warn!("{warning}");
        }
        self.console.reloaded(&changes.words, clock::boot_ns());
        self.report_trial();
        Ok(changes)
    }

    /// Puts a prepared configuration in force, and returns the previous one.
    pub(super) fn put_in_place(&mut self, ready: Ready) -> Result<(Plan, Deployed)> {
        let Ready {
            plan,
            attach_options,
            prepared,
            ..
        } = ready;
        let interfaces = plan.interfaces(&self.run)?;
        let mut deployed = self
            .protection
            .change(&plan, &interfaces, attach_options, prepared)?;
        if let Err(error) = self.protection.follow_attachments() {
            tracing::warn!("{}", os_error::describe(&error));
        }
        let actions = self
            .ledger
            .set_doors(std::mem::take(&mut deployed.doors), clock::boot_ms());
        // Before the doors are replaced: removed doors still have their names and commands.
        self.act(&actions, clock::boot_ns());
        let old = std::mem::replace(&mut self.plan, plan);
        self.doors = super::Doors::new(self.plan.settings(), &deployed.names);
        self.ports = ports(self.plan.settings());
        self.attempt_max_ticks = deployed.attempt_max_ticks;
        self.console
            .set_doors(self.doors.texts(self.plan.settings()));
        self.name_users();
        self.reopen_files();
        self.skew_detector = SkewDetector::new(self.plan.settings());
        self.log = super::ring::program_log(&mut self.protection)?;
        Ok((old, deployed))
    }

    /// Names users on the console, by the numbers of both configurations during a change.
    pub(super) fn name_users(&mut self) {
        let names = self.protection.registry().numbers.user_names();
        let names = names
            .into_iter()
            .map(|(number, name)| (number, name.to_owned()));
        self.console.set_users(names.collect());
    }

    fn report_new(&mut self, deployed: Deployed) {
        self.report_found(&deployed.found);
        let mut attached = deployed.attached;
        attached.retain(|attached| !attached.replaced || attached.switched);
        self.report_protecting(attached);
        for interface in deployed.absent {
            self.console.awaited(&interface, clock::boot_ns());
        }
        self.report_refused(deployed.refused);
    }

    /// Releases the previous configuration; returns the interfaces that are no longer protected.
    pub(super) fn commit(&mut self) -> Result<Vec<String>> {
        let Ended { released, grants } = self.protection.commit()?;
        for interface in &released {
            self.console
                .detached(&self.ports, interface, clock::boot_ns());
        }
        let more = grants.len().saturating_sub(ENDED_LOGGED);
        for (source, door) in grants.into_iter().take(ENDED_LOGGED) {
            let source = std::net::IpAddr::from(source);
            match door {
                Some(door) => tracing::warn!(
                    "the grant of {source} ended: door {door} was removed from the configuration"
                ),
                None => tracing::warn!(
                    "the grant of {source} ended: it is not known which door gave it"
                ),
            }
        }
        if more > 0 {
            tracing::warn!("{more} more grants ended for the same reasons");
        }
        Ok(released)
    }

    /// Attaches to interfaces that have become available, and reports what changed.
    pub(super) fn follow_interfaces(&mut self) -> Result<()> {
        let followed = self.protection.follow_interfaces()?;
        self.console.set_interfaces(followed.names);
        let is_changed = !followed.attached.is_empty()
            || !followed.gone.is_empty()
            || !followed.refused.is_empty();
        if is_changed {
            self.notify_state();
        }
        if let Some(because) = followed.unpinned {
            tracing::warn!(
                "nothing can be pinned, so the protection ends with this process: {because}"
            );
        }
        if followed.is_pinned_again {
            tracing::warn!("everything is pinned again: the protection outlives this process");
        }
        let at_ns = clock::boot_ns();
        for interface in followed.gone {
            self.console.gone(&interface, at_ns);
        }
        for (old, now) in followed.renamed {
            let lasts = match self.protection.registry().interfaces.contains(&now) {
                true => String::new(),
                false => format!(
                    " until another interface is named {old}; to keep it protected, write {now} in \
                     `interfaces` and reload"
                ),
            };
            tracing::warn!("{old} was renamed to {now} and stays protected{lasts}");
        }
        for interface in followed.released {
            self.console.detached(&self.ports, &interface, at_ns);
        }
        for interface in followed.lost {
            self.console.lost(&interface, at_ns);
        }
        self.report_refused(followed.refused);
        self.report_protecting(followed.attached);
        if self.failures != followed.failures {
            for failure in &followed.failures {
                tracing::warn!("{failure}");
            }
            self.failures = followed.failures;
        }
        Ok(())
    }

    /// Reports interfaces that can't be protected, with the reason.
    pub(super) fn report_refused(&mut self, refused: Vec<(String, Refusal)>) {
        for (name, refusal) in refused {
            self.console.refused(&name, &refusal, clock::boot_ns());
        }
    }

    /// Reports connections from before the start: they continue if `keep` is set.
    pub(super) fn report_found(&mut self, found: &[FlowKey]) {
        if self.run.dry_run || self.plan.settings().established.keep {
            self.console.kept(found, clock::boot_ns());
        } else if !found.is_empty() {
            tracing::warn!(
                "{} connections to protected ports stop until their source knocks: \
                 [established] keep = false",
                found.len()
            );
        }
    }
}

type DoorsByName<'a> = BTreeMap<&'a str, &'a Door>;

fn by_name(settings: &Settings) -> DoorsByName<'_> {
    let doors = settings.doors.iter();
    doors.map(|door| (door.name.as_str(), door)).collect()
}

/// Describes the differences between two configurations, each as a phrase.
pub(super) fn difference(old: &Plan, new: &Plan) -> Vec<String> {
    let (was, is) = (old.settings(), new.settings());
    let (old_doors, new_doors) = (by_name(was), by_name(is));
    let only_in = |these: &DoorsByName<'_>, others: &DoorsByName<'_>| {
        let names = these.keys().filter(|name| !others.contains_key(*name));
        names
            .map(|name| (*name).to_owned())
            .collect::<BTreeSet<_>>()
    };
    let mut words = Vec::new();
    words.extend(named("new door", only_in(&new_doors, &old_doors).iter()));
    words.extend(named(
        "removed door",
        only_in(&old_doors, &new_doors).iter(),
    ));
    let is_changed =
        |(name, door): &(&&str, &&Door)| old_doors.get(**name).is_some_and(|old| old != *door);
    let changed = new_doors.iter().filter(is_changed);
    let changed: BTreeSet<_> = changed.map(|(name, _)| (*name).to_owned()).collect();
    words.extend(named("changed door", changed.iter()));
    let (before, after) = (was.protected(), is.protected());
    let texts = |ports: Vec<Ports>| ports.iter().map(ToString::to_string).collect::<Vec<_>>();
    words.extend(named("now protected", texts(after.without(&before)).iter()));
    let open = texts(before.without(&after));
    words.extend(named("no longer protected", open.iter()));
    let others = |settings: &Settings| {
        let mut others = settings.clone();
        others.doors.clear();
        others.protect.clear();
        others
    };
    if others(was) != others(is) {
        words.push("other settings".to_owned());
    }
    words
}

fn named<'a>(what: &str, names: impl Iterator<Item = &'a String>) -> Option<String> {
    /// More names would make the line unreadable.
    const MOST: usize = 10;
    let names: Vec<_> = names.map(String::as_str).collect();
    let more = names.len().saturating_sub(MOST);
    let shown = names.get(..MOST).unwrap_or(&names).join(", ");
    match (names.is_empty(), more) {
        (true, _) => None,
        (false, 0) => Some(format!("{what}: {shown}")),
        (false, more) => Some(format!("{what}: {shown} and {more} more")),
    }
}
