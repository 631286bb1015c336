//! Follows the group: its process, its engine, and what the kernel side may open meanwhile.

use std::io::Write;

use anyhow::Result;
use knock_sequence::duration::millis;
use knock_wire::Report;

use super::{
    super::state::Daemon,
    child::Told,
    link::{FleetLink, now},
};
use crate::{
    fleet::{Facts, LinkState},
    host::clock,
    model::{fleet::Alone, text::count},
};

/// How long further warnings of records that can't be read are held back, in milliseconds.
const UNREADABLE_PAUSE_MS: u64 = 60_000;
/// Reports that are handled before the loop looks at anything else.
const BATCH: usize = 64;

impl<W: Write> Daemon<W> {
    /// Begins to follow the group of the configuration, or another one than before. Call it before the ledger
    /// receives events, and after a reload.
    pub(in crate::daemon) fn follow_group(&mut self) {
        let checked = &self.plan.checked;
        let wanted = checked.settings.fleet.clone().zip(checked.keyring.clone());
        let is_same = match (&self.fleet, &wanted) {
            (None, None) => true,
            (Some(held), Some((settings, keyring))) => {
                held.settings == *settings && held.keyring == *keyring
            }
            (None, Some(_)) | (Some(_), None) => false,
        };
        if !is_same {
            // Entries of the ledger have the numbers of hosts.
            let hosts = self.fleet.take().map(|held| held.hosts);
            self.fleet = wanted.map(|(settings, keyring)| {
                let mut link = FleetLink::new(settings, keyring);
                link.hosts = hosts.unwrap_or_default();
                link
            });
            let open: Vec<_> = self.ledger.open().collect();
            for open in open {
                self.adopt_for_group(open.source, open.door, open.until_ms);
            }
        }
        self.describe_host();
    }

    /// Describes this host to the group, and its doors to the rules.
    fn describe_host(&mut self) {
        let doors = self.covered_by_doors();
        let Some(fleet) = &mut self.fleet else {
            return;
        };
        let facts = Facts {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            is_alone: fleet.settings.alone == Alone::Local,
            ..Facts::default()
        };
        let steps = fleet.exchange.act(|group| {
            group.set_doors(doors);
            group.describe(facts, now())
        });
        self.take_steps(steps);
    }

    /// Handles a report of the process, and those that have come since.
    pub(in crate::daemon) fn take_told(&mut self, told: Option<Told>) -> Result<()> {
        let mut next = told;
        for _ in 0..BATCH {
            let Some(told) = next else {
                break;
            };
            self.take_one(told);
            next = self
                .fleet
                .as_mut()
                .and_then(|fleet| fleet.keeper.told_already());
        }
        // The rest of a batch that is full would be lost otherwise.
        if let Some(told) = next {
            self.take_one(told);
        }
        self.follow_engine()
    }

    fn take_one(&mut self, told: Told) {
        let Some(fleet) = &mut self.fleet else {
            return;
        };
        let steps = match told {
            Told::Started(outgoing) => {
                outgoing.send(knock_wire::Request::Open(fleet.open()));
                outgoing.send(fleet.exchange.begin());
                fleet.outgoing = Some(outgoing);
                return;
            }
            Told::Report(report) => fleet.exchange.take(*report, now()),
            Told::Ended(reason) => {
                fleet.outgoing = None;
                fleet.exchange.take(Report::Lost { reason }, now())
            }
        };
        self.take_steps(steps);
    }

    /// Does what is due each second.
    pub(in crate::daemon) fn tend_group(&mut self) -> Result<()> {
        let Some(fleet) = &mut self.fleet else {
            return Ok(());
        };
        let steps = fleet.exchange.act(|group| group.expire(now()));
        let (told, told_ms) = fleet.unreadable;
        let (unreadable, now_ms) = (fleet.exchange.unreadable(), clock::boot_ms());
        if unreadable > told && (told == 0 || now_ms.saturating_sub(told_ms) >= UNREADABLE_PAUSE_MS)
        {
            fleet.unreadable = (unreadable, now_ms);
            tracing::warn!(
                "{} of the group {} can't be read and change nothing: another host has another key in seal, or \
                 somebody else writes to the engine",
                count(unreadable - told, "record"),
                fleet.settings.group
            );
        }
        for line in fleet.left_outs.due(std::time::Instant::now()) {
            tracing::warn!("{line}");
        }
        self.take_steps(steps);
        self.follow_engine()
    }

    /// Moves the time on until which the kernel side may open doors of the group, and reports whether the engine is
    /// followed.
    fn follow_engine(&mut self) -> Result<()> {
        let Some(fleet) = &mut self.fleet else {
            return Ok(());
        };
        let now_ms = clock::boot_ms();
        let good_until_ms = fleet.exchange.group().good_until_ms();
        let is_in_sync = now_ms < good_until_ms;
        if is_in_sync {
            fleet.lost_since_ms = None;
        } else if fleet.lost_since_ms.is_none() {
            fleet.lost_since_ms = Some(now_ms);
        }
        // A start that takes no longer than an absence does not report one.
        let has_waited = now_ms.saturating_sub(fleet.lost_since_ms.unwrap_or(now_ms))
            >= millis(fleet.settings.grace);
        let is_news = fleet.reported != Some(is_in_sync)
            && (is_in_sync || fleet.reported.is_some() || has_waited);
        if is_news {
            fleet.reported = Some(is_in_sync);
            let (group, reason) = (fleet.settings.group.clone(), fleet.reason());
            let through = match fleet.exchange.state() {
                LinkState::Linked { member, version } => {
                    format!("through {member} (etcd {version})")
                }
                LinkState::Starting | LinkState::Lost { .. } => String::new(),
            };
            let alone = fleet.settings.alone;
            self.console.followed_group(
                &group,
                is_in_sync.then_some(through.as_str()),
                alone,
                &reason,
                clock::boot_ns(),
            );
        }
        self.answer_confirmed();
        self.set_fleet_until(false)
    }

    /// Writes until when the kernel side may open doors of the group; `is_new` after another program was loaded.
    pub(in crate::daemon) fn set_fleet_until(&mut self, is_new: bool) -> Result<()> {
        let Some(fleet) = &mut self.fleet else {
            return Ok(());
        };
        let until_ms = match fleet.settings.alone {
            Alone::Closed => fleet.exchange.group().good_until_ms(),
            Alone::Local => u64::MAX,
        };
        if !is_new && until_ms == fleet.until_ms {
            return Ok(());
        }
        fleet.until_ms = until_ms;
        self.protection.program().set_fleet_until(until_ms)
    }
}
