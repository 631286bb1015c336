//! `knock-user revoke`.

use std::{collections::BTreeMap, io::Write, iter, net::IpAddr};

use anyhow::{Context as _, Result};
use knock_common::{Address, GrantPrefix};
use serde::{Deserialize, Serialize};

use super::{
    command::{Caller, Command},
    facts,
    grant::opening,
    instances::At,
    text::LocalTime,
};
use crate::{
    daemon::Daemon,
    host::clock::{self, Clock},
    kernel::maps::Plain,
    model::{settings::Prefix, value},
};

/// End a source's grants
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// End the grants of this source address
    #[arg(value_name = "SOURCE", value_parser = value::address)]
    source: IpAddr,
    /// End only grants given by this door
    #[arg(long, value_name = "NAME")]
    door: Option<String>,
    #[command(flatten)]
    at: At,
}

/// The fields of a request.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    source: IpAddr,
    /// All doors if it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    door: Option<String>,
}

/// The answer.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Answer {
    /// The source whose grants were ended.
    pub source: IpAddr,
    /// Names of the doors; none if there was no grant.
    pub doors: Vec<String>,
    /// The source or prefix of the grants of these doors, in the same order. Older
    /// versions do not send it.
    #[serde(default)]
    pub covered: Vec<Prefix>,
    /// Its connections that continue.
    pub flows: usize,
}

impl Command for Args {
    const NAME: &'static str = "revoke";
    const ANSWER: &'static str = "revoked";
    type Request = Request;
    type Answer = Answer;

    fn at(&self) -> &At {
        &self.at
    }

    fn request(&self) -> Request {
        Request {
            source: self.source,
            door: self.door.clone(),
        }
    }

    fn render(answer: &Answer, _: &LocalTime) -> Vec<String> {
        let Answer {
            source,
            doors,
            covered,
            flows,
        } = answer;
        let mut ended: BTreeMap<Prefix, Vec<&str>> = BTreeMap::new();
        let alone = iter::repeat(Prefix::of(*source));
        for (door, covered) in doors.iter().zip(covered.iter().copied().chain(alone)) {
            ended.entry(covered).or_default().push(door);
        }
        let ended = ended.into_iter();
        let ended = ended
            .map(|(covered, doors)| format!("{covered} may no longer use {}", doors.join(", ")));
        let revoked = match doors.is_empty() {
            true => format!("{source} has no such grant"),
            false => ended.collect::<Vec<_>>().join("; "),
        };
        vec![match flows {
            0 => revoked,
            1 => format!("{revoked}; 1 connection from it continues"),
            _ => format!("{revoked}; {flows} connections from it continue"),
        }]
    }

    fn answer<W: Write>(request: Request, daemon: &mut Daemon<W>, caller: Caller<Answer>) {
        let revoked = revoke(&request, daemon, caller.peer().uid);
        caller.answer(revoked);
    }
}

fn revoke<W: Write>(request: &Request, daemon: &mut Daemon<W>, uid: u32) -> Result<Answer> {
    let source = request.source;
    let door = request.door.as_deref();
    let number = door.map(|door| opening(daemon, door)).transpose()?;
    let number = number.map(|(number, ..)| number);
    let address = Address::from(source);
    let entries = daemon.protection.program().grants()?;
    let now_ms = clock::boot_ms();
    let revocation = daemon.ledger.revoke(address, number, &entries, now_ms);
    let mut allow = daemon.protection.program().allow()?;
    for &(key, grant) in &revocation.write {
        let written = allow.insert(Plain(key), Plain(grant.to_word()), 0);
        written.context("ending a grant")?;
    }
    let now_ms = clock::boot_ms();
    let settings = daemon.settings();
    let prefixes: BTreeMap<u16, GrantPrefix> = settings
        .doors
        .iter()
        .filter_map(|door| {
            let numbers = &daemon.protection.registry().numbers.doors;
            Some((*numbers.get(&door.name)?, door.grant_prefix))
        })
        .filter(|(number, _)| revocation.doors.contains(number))
        .collect();
    let actions = daemon.ledger.revoked(address, &revocation, uid, now_ms);
    daemon.act(&actions, clock::boot_ns());
    let known = facts::doors(daemon.protection.registry());
    let (doors, covered) = (revocation.doors.iter())
        .filter_map(|door| {
            let prefix = prefixes.get(door).copied().unwrap_or_default();
            Some((
                known.get(door)?.name.clone(),
                Prefix::covered(address, prefix),
            ))
        })
        .unzip();
    let idle_ms = daemon.protection.registry().idle_ms();
    let mut flows = daemon.flows()?;
    flows.retain(|(flow, _)| {
        let covers =
            |prefix: &GrantPrefix| prefix.first_of(flow.source) == prefix.first_of(address);
        flow.source == address || prefixes.values().any(covers)
    });
    Ok(Answer {
        source,
        doors,
        covered,
        flows: facts::kept(&flows, idle_ms, Clock::now()),
    })
}
