//! `knock-user revoke`.

use std::{collections::BTreeMap, io::Write, iter, net::IpAddr};

use anyhow::Result;
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
    daemon::{Daemon, fleet::Outcome},
    host::clock::Clock,
    ledger::By,
    model::{settings::Prefix, text::list, value},
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
    /// End them at all hosts of the group
    #[arg(long)]
    group: bool,
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
    /// Whether they end at all hosts of the group.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    group: bool,
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
    /// What the hosts of the group did, if they were asked to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<OfGroup>,
}

/// What the hosts of a group did.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct OfGroup {
    /// The group.
    pub name: String,
    /// Whether the engine of the group has the revocation: hosts that are cut off get it when they are back.
    pub is_written: bool,
    /// How many hosts have ended the grants.
    pub confirmed: usize,
    /// How many hosts the group has.
    pub of: usize,
    /// The names of those that have not confirmed it within a second.
    pub missing: Vec<String>,
    /// Why the engine does not have it, if this host is cut off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub because: Option<String>,
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
            group: self.group,
        }
    }

    fn render(answer: &Answer, _: &LocalTime) -> Vec<String> {
        let Answer {
            source,
            doors,
            covered,
            flows,
            group,
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
        let mut lines = vec![match flows {
            0 => revoked,
            1 => format!("{revoked}; 1 connection from it continues"),
            _ => format!("{revoked}; {flows} connections from it continue"),
        }];
        lines.extend(group.as_ref().map(OfGroup::text));
        lines
    }

    fn answer<W: Write>(request: Request, daemon: &mut Daemon<W>, caller: Caller<Answer>) {
        match (revoke(&request, daemon, caller.peer().uid), request.group) {
            (Ok(answer), true) => revoke_in_group(&request, answer, daemon, caller),
            (revoked, _) => caller.answer(revoked),
        }
    }
}

impl OfGroup {
    fn text(&self) -> String {
        let Self {
            name,
            is_written,
            confirmed,
            of,
            missing,
            because,
        } = self;
        if let Some(because) = because.as_ref().filter(|_| !is_written) {
            return format!(
                "the group {name} does not know yet, and learns of it when this host is no longer cut off: {because}"
            );
        }
        if !is_written {
            return format!(
                "the group {name} has not confirmed it yet; it is repeated until it has"
            );
        }
        let by = format!("confirmed by {confirmed} of {of} hosts of the group {name}");
        match missing.as_slice() {
            [] => by,
            missing => format!("{by}, and not yet by {}", list(missing)),
        }
    }
}

/// Ends the grants in the group, and answers when its hosts have confirmed that, or after a second.
fn revoke_in_group<W: Write>(
    request: &Request,
    answer: Answer,
    daemon: &mut Daemon<W>,
    caller: Caller<Answer>,
) {
    let uid = caller.peer().uid;
    // It is about all grants that let the address in.
    let source = Prefix::of(request.source);
    match daemon.revoke_in_group(request.door.as_deref(), source, Some(uid)) {
        Err(error) => caller.answer(Err(error)),
        Ok(id) => daemon.when_confirmed(id, move |outcome: Outcome| {
            let Outcome {
                group,
                is_written,
                confirmed,
                because,
            } = outcome;
            let group = OfGroup {
                name: group,
                is_written,
                confirmed: confirmed.by,
                of: confirmed.of,
                missing: confirmed.missing,
                because,
            };
            caller.answer(Ok(Answer {
                group: Some(group),
                ..answer
            }));
        }),
    }
}

fn revoke<W: Write>(request: &Request, daemon: &mut Daemon<W>, uid: u32) -> Result<Answer> {
    let source = request.source;
    let door = request.door.as_deref();
    let number = door.map(|door| opening(daemon, door)).transpose()?;
    let number = number.map(|(number, ..)| number);
    if request.group {
        match door {
            Some(door) => daemon.shared(door)?,
            None => drop(daemon.group()?),
        }
    }
    let address = Address::from(source);
    let revocation = daemon.shut_out(address, number, By::Hand(uid))?;
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
        group: None,
    })
}
