//! `knock-user grant`.

use std::{io::Write, net::IpAddr, ops::RangeInclusive, time::Duration};

use anyhow::Result;
use knock_common::{Address, grant::Grant};
use knock_sequence::{
    Ports,
    duration::{self, millis},
};
use serde::{Deserialize, Serialize};

use super::{
    command::{Caller, Command},
    instances::At,
    text::{LocalTime, short},
};
use crate::{
    daemon::{Daemon, fleet::FleetLink},
    host::clock::{self, Clock},
    ledger::{By, Open},
    model::{
        problem::Misuse,
        settings::{Effect, Prefix},
        text::list,
        value,
    },
};

/// How long a grant by hand may last: as long as a door's `open_for` may be.
const LASTS: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(30 * 86_400);
/// Names of doors that an error lists.
const DOORS_SHOWN: usize = 10;

/// Admit a source without knocks
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Admit this source address
    #[arg(value_name = "SOURCE", value_parser = value::address)]
    source: IpAddr,
    /// Open the ports of this door
    #[arg(long, value_name = "NAME")]
    door: String,
    /// End the grant after TIME, such as 10m [default: the door's open_for]
    #[arg(long = "for", value_name = "TIME", value_parser = duration::parse)]
    lasts: Option<Duration>,
    /// Admit it at all hosts of the group
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
    door: String,
    /// In milliseconds; the door's `open_for` if it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    for_ms: Option<u64>,
    /// Whether all hosts of the group admit it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    group: bool,
}

/// The answer.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Answer {
    /// The source that has the grant, or the prefix that it covers.
    pub source: Prefix,
    /// Name of the door.
    pub door: String,
    /// The ports that are open now: `tcp/22`.
    pub ports: Vec<String>,
    /// When it ends: later than requested, if a longer grant existed. RFC 3339.
    pub until: String,
    /// In how many seconds it ends.
    pub seconds: f64,
    /// The group whose hosts admit the source, if they were asked to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Why the group does not know of it yet, if this host is cut off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub because: Option<String>,
}

impl Command for Args {
    const NAME: &'static str = "grant";
    const ANSWER: &'static str = "granted";
    type Request = Request;
    type Answer = Answer;

    fn at(&self) -> &At {
        &self.at
    }

    fn request(&self) -> Request {
        Request {
            source: self.source,
            door: self.door.clone(),
            for_ms: self.lasts.map(millis),
            group: self.group,
        }
    }

    fn render(answer: &Answer, _: &LocalTime) -> Vec<String> {
        let Answer {
            source,
            door,
            ports,
            seconds,
            until: _,
            group,
            because,
        } = answer;
        let (ports, left) = (list(ports), short(*seconds));
        let granted = format!("{source} may use {door} ({ports}) for {left}");
        vec![match (group, because) {
            (None, _) => granted,
            (Some(group), None) => {
                format!("{granted} here; the other hosts of the group {group} follow")
            }
            (Some(group), Some(because)) => format!(
                "{granted} here; the group {group} learns of it when this host is no longer cut off: {because}"
            ),
        }]
    }

    fn answer<W: Write>(request: Request, daemon: &mut Daemon<W>, caller: Caller<Answer>) {
        let granted = grant(&request, daemon, caller.peer().uid);
        caller.answer(granted);
    }
}

/// Grants, and reports it as if the source had knocked.
fn grant<W: Write>(request: &Request, daemon: &mut Daemon<W>, uid: u32) -> Result<Answer> {
    let source = request.source;
    let door = request.door.as_str();
    let (number, ports, open_for) = opening(daemon, door)?;
    let lasts = request.for_ms.map_or(open_for, Duration::from_millis);
    let lasts =
        duration::within(lasts, LASTS).map_err(|error| Misuse(format!("--for: {error}")))?;
    if request.group {
        daemon.shared(door)?;
    }
    let address = Address::from(source);
    if !daemon.protection.program().may_come_from(address) {
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
    daemon.let_in(address, grant, By::Hand(uid))?;
    if request.group {
        daemon.share_grant(address, number, grant.until_ms, Some(uid));
    }
    let mut open = daemon.ledger.open();
    let is_held = |open: &Open| open.door == number && open.prefix.covers(open.source, address);
    let held = open.find(is_held);
    let prefix = held.map_or_else(Default::default, |open| open.prefix);
    let until_ms = held.map_or(grant.until_ms, |open| open.until_ms);
    let clock = Clock::now();
    let fleet = daemon.fleet.as_ref().filter(|_| request.group);
    Ok(Answer {
        source: Prefix::covered(address, prefix),
        door: door.to_owned(),
        ports: ports.iter().map(ToString::to_string).collect(),
        until: clock.wall(until_ms),
        seconds: clock.seconds_until(until_ms),
        because: fleet
            .filter(|fleet| !fleet.is_in_sync())
            .map(FleetLink::reason),
        group: fleet.map(|fleet| fleet.settings.group.clone()),
    })
}

/// Returns a door that gives grants: its number, what it opens, and for how long.
///
/// # Errors
/// There is no such door, or it gives none.
pub(super) fn opening<W: Write>(
    daemon: &Daemon<W>,
    name: &str,
) -> Result<(u16, Vec<Ports>, Duration), Misuse> {
    let doors = &daemon.settings().doors;
    let Some(door) = doors.iter().find(|door| door.name == name) else {
        let names: Vec<_> = doors.iter().map(|door| door.name.as_str()).collect();
        let shown = names.get(..DOORS_SHOWN).unwrap_or(&names).join(", ");
        let more = if names.len() > DOORS_SHOWN {
            ", ..."
        } else {
            ""
        };
        return Err(Misuse(format!(
            "no door is named {name}: the doors are {shown}{more}"
        )));
    };
    let number = daemon
        .protection
        .registry()
        .numbers
        .doors
        .get(name)
        .copied();
    match (&door.effect, number) {
        (Effect::Open(ports), Some(number)) => Ok((number, ports.clone(), door.open_for)),
        (Effect::Close(_), _) | (_, None) => Err(Misuse(format!(
            "door {name} ends grants and gives none: name the door that opens the ports"
        ))),
    }
}
