//! What an administrator is told, and lets in and out.

use std::{io::Write, net::IpAddr, time::Duration};

use anyhow::{Context as _, Result};
use knock_common::{
    Address,
    access::Grant,
    layout::{ALLOW_MAX, FLOWS_MAX, Features, FlowKey},
    time::Moment,
};
use knock_sequence::{
    Knock, Ports,
    duration::{self, millis},
};

use super::Daemon;
use crate::{
    admin::{
        facts::{self, Process},
        health::{self, Circumstances},
    },
    compile,
    control::{
        Peer,
        answers::{Granted, Grants, Revoked, Status},
    },
    explain::{self, Explanation, Known, Query},
    host::{
        self,
        clock::{self, Clock},
    },
    kernel::{
        maps::{self, Plain},
        persistence::OnExit,
    },
    model::{problem::Misuse, settings::Effect},
};

/// How long somebody may be let in: as long as a door's `open_for` may be.
const LASTS: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(30 * 86_400);
/// Names of doors that an error lists.
const DOORS_SHOWN: usize = 10;

impl<W: Write> Daemon<W> {
    pub(super) fn status(&mut self) -> Result<Status> {
        let clock = Clock::now();
        let counts = self.protection.firewall().counters()?;
        let idle_ms = self.protection.registry().idle_ms();
        let flows = facts::kept(&self.flows()?, idle_ms, clock);
        let process = Process {
            pid: std::process::id(),
            since_ms: self.since_ns / 1_000_000,
            watchers: self.console.watchers().count(),
        };
        let open = self.ledger.open();
        let grants = open.filter(|open| clock.now_ms < open.until_ms).count();
        let entries = maps::entries(&self.protection.firewall().allow()?, ALLOW_MAX).len();
        let held = (grants, flows, &counts[..]);
        let interfaces = facts::interfaces(self.protection.coverage()?);
        let instance = self.protection.instance();
        let registry = self.protection.registry();
        let status = facts::status(
            instance.name(),
            registry,
            interfaces,
            Some(process),
            held,
            clock,
        );
        let status = Status {
            one_time: self.file_answers(),
            ..status
        };
        let circumstances = Circumstances {
            entries,
            reload_failed: self.reload_failed.clone(),
            under_way: self.making.as_ref().map(super::Making::told),
            is_to_stay: self.run.on_exit == OnExit::Keep,
            unpinned: self.protection.unpinned().map(str::to_owned),
            is_mute: self.is_mute,
            interrupted: None,
            is_hanging: false,
            waiting_doors: self.waiting_doors(clock.now_ms),
            other_secrets: self.plan.checked.other_secrets(),
            commands: self.commands.pending(),
            notes: self.host_notes(),
        };
        let mut status = health::judged(status, registry, &circumstances);
        status.notes.extend(facts::room(entries, true));
        Ok(status)
    }

    /// Time-based doors that nobody can open yet, and for how long, in milliseconds.
    fn waiting_doors(&self, now_ms: u64) -> Vec<(String, u64)> {
        let doors = &self.plan.settings().doors;
        let waits = self.protection.waits_ms(now_ms).into_iter();
        let waits = waits.filter(|(_, wait_ms)| *wait_ms > 0);
        let named =
            waits.filter_map(|(place, wait_ms)| Some((doors.get(place)?.name.clone(), wait_ms)));
        named.collect()
    }

    pub(super) fn list(&self) -> Grants {
        let doors = facts::doors(self.protection.registry());
        facts::list(self.ledger.open().map(Into::into), &doors, Clock::now())
    }

    /// Lets a source through a door, and tells it as if the source had knocked.
    pub(super) fn grant(
        &mut self,
        source: IpAddr,
        door: &str,
        lasts: Option<Duration>,
        peer: &Peer,
    ) -> Result<Granted> {
        let (number, ports, open_for) = self.opening(door)?;
        let lasts = lasts.unwrap_or(open_for);
        let lasts =
            duration::within(lasts, LASTS).map_err(|error| Misuse(format!("--for: {error}")))?;
        let address = Address::from(source);
        if !self.protection.firewall().may_come_from(address) {
            return Err(Misuse(format!(
                "{source}: no host on the network has this address, so the grant would let nobody \
                 in; name the address that the client is seen with"
            ))
            .into());
        }
        let now_ms = clock::boot_ms();
        let grant = Grant {
            until_ms: now_ms.saturating_add(millis(lasts)),
            door: number,
        };
        self.protection.firewall().mark_present([address])?;
        for key in self.ledger.entries_of(address, number) {
            self.give_by_hand(key, grant)?;
        }
        let actions = self.ledger.granted(address, grant, peer.uid, now_ms);
        self.act(&actions, now_ms * 1_000_000);
        let mut open = self.ledger.open();
        let held = open.find(|open| open.source == address && open.door == number);
        let until_ms = held.map_or(grant.until_ms, |open| open.until_ms);
        let clock = Clock::now();
        Ok(Granted {
            source,
            door: door.to_owned(),
            ports: ports.iter().map(ToString::to_string).collect(),
            until: clock.wall(until_ms),
            seconds: clock.seconds_until(until_ms),
        })
    }

    /// Ends a source's grants.
    pub(super) fn revoke(
        &mut self,
        source: IpAddr,
        door: Option<&str>,
        peer: &Peer,
    ) -> Result<Revoked> {
        let number = door.map(|door| self.opening(door)).transpose()?;
        let number = number.map(|(number, ..)| number);
        let address = Address::from(source);
        let entries = self.protection.firewall().grants()?;
        let now_ms = clock::boot_ms();
        let revocation = self.ledger.revoke(address, number, &entries, now_ms);
        let mut allow = self.protection.firewall().allow()?;
        for &(key, grant) in &revocation.write {
            let written = allow.insert(Plain(key), Plain(grant.to_word()), 0);
            written.context("ending a grant")?;
        }
        let now_ms = clock::boot_ms();
        let actions = self.ledger.revoked(address, &revocation, peer.uid, now_ms);
        self.act(&actions, clock::boot_ns());
        let known = facts::doors(self.protection.registry());
        let doors = revocation.doors.iter().filter_map(|door| known.get(door));
        let idle_ms = self.protection.registry().idle_ms();
        let mut flows = self.flows()?;
        flows.retain(|(flow, _)| flow.source == address);
        Ok(Revoked {
            source,
            doors: doors.map(|facts| facts.name.clone()).collect(),
            flows: facts::kept(&flows, idle_ms, Clock::now()),
        })
    }

    /// Explains what would happen to a packet.
    pub(super) fn explain(
        &mut self,
        source: IpAddr,
        port: &str,
        to: Option<IpAddr>,
    ) -> Result<Explanation> {
        let port: Knock = port.parse().map_err(|error| Misuse(format!("{error}")))?;
        let query = Query {
            source,
            port,
            destination: to,
        };
        let now_ms = clock::boot_ms();
        let registry = self.protection.registry();
        let numbers = registry.numbers.doors.clone();
        let mut features = compile::features(self.plan.settings());
        if registry.dry_run {
            features = features.with(Features::DRY_RUN);
        }
        if self.protection.lets_pass_unconfirmed() {
            features = features.with(Features::CONFIRM);
        }
        let settings = self.plan.settings();
        let opens = |ports: &&Ports| ports.overlaps(port.into());
        let doors = settings.doors.iter();
        let doors = doors.filter(|door| door.opened().iter().any(|ports| opens(&ports)));
        let ended = doors.filter_map(|door| {
            let number = *numbers.get(&door.name)?;
            self.ledger.ended_ms(source.into(), number, now_ms)
        });
        let known = Known {
            settings,
            numbers: &numbers,
            features,
            now: Moment::from_nanos(clock::boot_ns()),
            ended_ms: ended.max(),
        };
        let mut explanation = explain::explain(&query, &known, self.protection.firewall().ebpf())?;
        // What can't be listed leaves the answer that is right for most addresses.
        let links = to.map_or_else(Vec::new, |_| host::links().unwrap_or_default());
        let has_it = |link: &&host::Link| to.is_some_and(|to| link.addresses.contains(&to));
        let arrives = links.iter().find(has_it).map(|link| link.index);
        explain::where_in_force(&mut explanation, &self.protection.coverage()?, arrives);
        Ok(explanation)
    }

    pub(super) fn flows(&mut self) -> Result<Vec<(FlowKey, u64)>> {
        Ok(maps::entries(
            &self.protection.firewall().flows()?,
            FLOWS_MAX,
        ))
    }

    /// A door that gives grants: its number, what it opens, and for how long.
    fn opening(&self, name: &str) -> Result<(u16, Vec<Ports>, Duration), Misuse> {
        let doors = &self.settings().doors;
        let Some(door) = doors.iter().find(|door| door.name == name) else {
            let names: Vec<_> = doors.iter().map(|door| door.name.as_str()).collect();
            let shown = names.get(..DOORS_SHOWN).unwrap_or(&names).join(", ");
            let more = if names.len() > DOORS_SHOWN {
                ", ..."
            } else {
                ""
            };
            return Err(Misuse(format!(
                "there is no door {name}: there is {shown}{more}"
            )));
        };
        let number = self.protection.registry().numbers.doors.get(name).copied();
        match (&door.effect, number) {
            (Effect::Open(ports), Some(number)) => Ok((number, ports.clone(), door.open_for)),
            (Effect::Close(_), _) | (_, None) => Err(Misuse(format!(
                "door {name} ends grants and gives none: name the door that opens the ports"
            ))),
        }
    }
}
