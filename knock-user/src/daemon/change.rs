//! Puts a prepared configuration in force while the daemon runs.

use std::{collections::BTreeMap, io::Write};

use anyhow::Result;

use super::{
    difference::difference,
    doors::DoorsByNumber,
    pending::{Changes, Ready},
    ring::program_log,
    state::{Daemon, ports},
    trial::Trial,
};
use crate::apply::carry_grants::EndCause;
use crate::{
    apply::{Deployed, EndedGrants, discard, plan::Plan},
    host::{clock, os_error},
    interfaces::attach::Attached,
    model::text::about,
    sequences::clock_skew::SkewDetector,
};

/// Grants that a reload ended and that are logged, each in its own line.
const ENDED_LOGGED: usize = 64;

impl<W: Write> Daemon<W> {
    /// Puts a configuration in force that was read again and prepared.
    pub(super) fn reload(&mut self, ready: Ready) -> Result<Changes> {
        let (old, deployed) = self.put_in_place(ready)?;
        let mut changes = Changes {
            config: self.plan.path.display().to_string(),
            words: difference(old.settings(), self.plan.settings(), &self.run),
            warnings: self.plan.warnings.clone(),
        };
        changes.warnings.extend(deployed.kept_sizes.clone());
        for Attached { interface, .. } in deployed.attached.iter().filter(|new| !new.replaced) {
            changes.words.push(format!("{interface} is protected"));
        }
        for moved in deployed
            .attached
            .iter()
            .filter(|attached| attached.before.is_some())
        {
            let now = moved.mode.name();
            let because = moved.because.as_ref();
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
                discard(old);
                let released = self.commit()?.into_iter();
                changes
                    .words
                    .extend(released.map(|name| format!("{name} is no longer protected")));
            }
        }
        for warning in &changes.warnings {
            tracing::warn!("{warning}");
        }
        // These are events of their own.
        let refused = deployed.refused.iter();
        let refused: Vec<_> = refused
            .map(|(name, refusal)| {
                let because = about(refusal.interface(), &refusal.to_string());
                format!("{name} is NOT protected: {because}")
            })
            .collect();
        changes.warnings.extend(refused);
        self.report_new(deployed);
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
        // Until then the new program opens no door of the group.
        self.set_fleet_until(true)?;
        if let Err(error) = self.protection.follow_attachments() {
            tracing::warn!("{}", os_error::describe(&error));
        }
        let actions = self
            .ledger
            .set_doors(std::mem::take(&mut deployed.doors), clock::boot_ms());
        // Before the doors are replaced: removed doors still have their names and commands.
        self.act(&actions, clock::boot_ns());
        let held = self.protection.program().grants()?;
        let held = held.into_iter().map(|(key, _)| key).collect();
        let actions = self.ledger.close_without_entries(&held, clock::boot_ms());
        self.act(&actions, clock::boot_ns());
        let shared = self.shared_doors();
        let old = std::mem::replace(&mut self.plan, plan);
        self.doors = DoorsByNumber::new(self.plan.settings(), &deployed.names);
        self.ports = ports(self.plan.settings());
        self.attempt_max_ticks = deployed.attempt_max_ticks;
        self.console
            .set_doors(self.doors.texts(self.plan.settings()));
        self.configured_ms = clock::boot_ms();
        self.name_users();
        self.reopen_files();
        self.skew_detector = SkewDetector::new(self.plan.settings());
        self.log = program_log(&mut self.protection)?;
        self.follow_group();
        self.open_new_doors(&shared);
        Ok((old, deployed))
    }

    /// Names users on the console and in metrics, by the numbers of both configurations during a change.
    pub(super) fn name_users(&mut self) {
        let names = self.protection.registry().numbers.user_names();
        let names = names
            .into_iter()
            .map(|(number, name)| (number, name.to_owned()));
        let users: BTreeMap<_, _> = names.collect();
        let doors = self.plan.settings().doors.iter();
        let doors = doors.map(|door| door.name.as_str()).collect();
        self.tally.retain(&doors, users.clone());
        self.console.set_users(users);
    }

    fn report_new(&mut self, deployed: Deployed) {
        self.report_found(&deployed.found);
        let mut attached = deployed.attached;
        attached.retain(|attached| !attached.replaced || attached.before.is_some());
        self.report_protecting(attached);
        for interface in deployed.absent {
            self.console.awaited(&interface, clock::boot_ns());
        }
        self.report_refused(deployed.refused);
    }

    /// Releases the previous configuration; returns the interfaces that are no longer protected.
    pub(super) fn commit(&mut self) -> Result<Vec<String>> {
        let EndedGrants { released, grants } = self.protection.commit()?;
        for interface in &released {
            self.console
                .detached(&self.ports, interface, clock::boot_ns());
        }
        let more = grants.len().saturating_sub(ENDED_LOGGED);
        for (source, cause) in grants.into_iter().take(ENDED_LOGGED) {
            match cause {
                EndCause::DoorRemoved(door) => tracing::warn!(
                    "the grant of {source} ended: door {door} was removed from the configuration"
                ),
                EndCause::Narrowed(door) => tracing::warn!(
                    "the grant of {source} ended: the grants of door {door} are narrower now"
                ),
                EndCause::UnknownDoor => tracing::warn!(
                    "the grant of {source} ended: it is not known which door gave it"
                ),
            }
        }
        if more > 0 {
            tracing::warn!("{more} more grants ended for the same reasons");
        }
        Ok(released)
    }

    /// Reports the trial, if there is one: how long it lasts, and how it ends.
    pub(super) fn report_trial(&mut self) {
        let Some(trial) = &self.trial else {
            return;
        };
        let restores = trial.back.is_some() || self.protection.rolls_back_to_protection();
        let until_ms = trial.until_ms;
        self.console.trial(until_ms, restores, clock::boot_ns());
    }
}
