//! `knock-user list`.

use std::{collections::BTreeMap, io::Write};

use anyhow::Result;
use knock_common::blocked::Blocked;
use serde::{Deserialize, Serialize};

use super::{
    command::{self, Caller, Command},
    facts::{self, Doors, HeldGrant},
    instances::At,
    pinned,
    text::{LocalTime, Side, short, table},
};
use crate::{
    daemon::Daemon,
    host::clock::{self, Clock},
    kernel::instance::Instance,
    ledger::{Giver, HostId},
    model::{problem::Misuse, settings::Prefix},
};

/// List grants and how long they last
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// List blocked sources instead
    #[arg(long)]
    blocked: bool,
    /// List the grants of all hosts of the group instead
    #[arg(long)]
    group: bool,
    #[command(flatten)]
    at: At,
}

/// The fields of a request.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// Whether blocked sources are listed instead of grants.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    blocked: bool,
    /// Whether the grants of all hosts of the group are listed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    group: bool,
}

/// The answer.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Answer {
    /// The grants, by source and door.
    pub grants: Vec<ListedGrant>,
    /// The blocked sources, if they were asked for; `grants` is then empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocked: Option<Vec<ListedBlock>>,
}

/// A blocked source.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct ListedBlock {
    /// The prefix.
    pub source: Prefix,
    /// When the block ends, if it does: RFC 3339.
    pub until: Option<String>,
    /// In how many seconds it ends.
    pub seconds: Option<f64>,
    /// The origin of the block: `configuration`, or a user such as `uid 0`.
    pub by: String,
}

/// A grant.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct ListedGrant {
    /// The source that has it, or the prefix that it covers: `2001:db8:1:2::/64`.
    pub source: Prefix,
    /// Name of the door.
    pub door: String,
    /// The ports that it opens: `tcp/22`.
    pub ports: Vec<String>,
    /// When it ends: RFC 3339.
    pub until: String,
    /// In how many seconds it ends.
    pub seconds: f64,
    /// When it was given, if that is known: RFC 3339.
    pub since: Option<String>,
    /// The giver, if it is known: `knock`, `user alice`, `host web-17` of the group, or for a grant by hand a user such
    /// as `uid 0`.
    pub by: Option<String>,
}

impl Command for Args {
    const NAME: &'static str = "list";
    const ANSWER: &'static str = "list";
    type Request = Request;
    type Answer = Answer;

    fn at(&self) -> &At {
        &self.at
    }

    fn request(&self) -> Request {
        Request {
            blocked: self.blocked,
            group: self.group,
        }
    }

    fn render(answer: &Answer, time: &LocalTime) -> Vec<String> {
        if let Some(blocked) = &answer.blocked {
            return blocks_table(blocked);
        }
        if answer.grants.is_empty() {
            return vec!["no grants".to_owned()];
        }
        let mut rows = vec![["SOURCE", "DOOR", "PORTS", "LEFT", "SINCE", "BY"].map(str::to_owned)];
        let unknown = || "-".to_owned();
        rows.extend(answer.grants.iter().map(|held| {
            [
                held.source.to_string(),
                held.door.clone(),
                held.ports.join(","),
                short(held.seconds),
                held.since
                    .as_deref()
                    .map_or_else(unknown, |since| time.moment(since)),
                held.by.clone().unwrap_or_else(unknown),
            ]
        }));
        table(&rows, [Side::Left; 6])
    }

    fn answer<W: Write>(request: Request, daemon: &mut Daemon<W>, caller: Caller<Answer>) {
        if request.blocked && request.group {
            let both = "--blocked and --group are two lists: name one of them".to_owned();
            return caller.answer(Err(Misuse(both).into()));
        }
        if request.blocked {
            let listed = &daemon.settings().block;
            let answer = blocked(listed, daemon.blocks.iter(), Clock::now());
            return caller.answer(Ok(answer));
        }
        let doors = facts::doors(daemon.protection.registry());
        if request.group {
            return caller.answer(of_group(daemon, &doors));
        }
        let grants = daemon.ledger.open().map(Into::into);
        let names = Names {
            users: daemon.protection.registry().numbers.user_names(),
            hosts: daemon
                .fleet
                .as_ref()
                .map(|fleet| fleet.hosts.names())
                .unwrap_or_default(),
        };
        let answer = answer(grants, &doors, &names, Clock::now());
        caller.answer(Ok(answer));
    }

    fn offline(&self, instance: &Instance) -> Result<Answer> {
        clock::check()?;
        if self.group {
            return Err(command::no_process(instance));
        }
        if self.blocked {
            return Ok(blocked(&[], pinned::blocks(instance)?, Clock::now()));
        }
        let doors = facts::doors(&pinned::registry(instance)?);
        Ok(answer(
            pinned::grants(instance)?,
            &doors,
            &Names::default(),
            Clock::now(),
        ))
    }
}

/// Returns the grants that the hosts of the group have given, of which this one knows.
fn of_group<W: Write>(daemon: &Daemon<W>, doors: &Doors) -> Result<Answer> {
    let fleet = daemon.group()?;
    let clock = Clock::now();
    let grants = fleet.grants().into_iter().map(|grant| {
        let facts = doors.values().find(|facts| facts.name == grant.door);
        ListedGrant {
            source: grant.source,
            ports: facts.map_or_else(Vec::new, |facts| facts.ports.clone()),
            until: clock.wall(grant.until_ms),
            seconds: clock.seconds_until(grant.until_ms),
            since: None,
            by: Some(match grant.by {
                Some(uid) => format!("host {}, uid {uid}", grant.host),
                None => format!("host {}", grant.host),
            }),
            door: grant.door,
        }
    });
    let mut grants: Vec<_> = grants.collect();
    grants.sort_by(|a, b| (a.source, &a.door, &a.by).cmp(&(b.source, &b.door, &b.by)));
    Ok(Answer {
        grants,
        blocked: None,
    })
}

fn blocks_table(blocked: &[ListedBlock]) -> Vec<String> {
    if blocked.is_empty() {
        return vec!["nothing is blocked".to_owned()];
    }
    let mut rows = vec![["SOURCE", "LEFT", "BY"].map(str::to_owned)];
    rows.extend(blocked.iter().map(|block| {
        [
            block.source.to_string(),
            block.seconds.map_or_else(|| "-".to_owned(), short),
            block.by.clone(),
        ]
    }));
    table(&rows, [Side::Left; 3])
}

/// Returns the prefixes that a configuration blocks, and the valid blocks by commands.
fn blocked(
    listed: &[Prefix],
    blocks: impl IntoIterator<Item = (Prefix, Blocked)>,
    clock: Clock,
) -> Answer {
    let listed = listed.iter().map(|&source| ListedBlock {
        source,
        until: None,
        seconds: None,
        by: "configuration".to_owned(),
    });
    let blocks = blocks.into_iter();
    let valid = blocks.filter(|(_, block)| clock.now_ms < block.own_until_ms);
    let by_commands = valid.map(|(source, block)| {
        let end_ms = (block.own_until_ms != Blocked::NEVER).then_some(block.own_until_ms);
        ListedBlock {
            source,
            until: end_ms.map(|end_ms| clock.wall(end_ms)),
            seconds: end_ms.map(|end_ms| clock.seconds_until(end_ms)),
            by: format!("uid {}", block.by),
        }
    });
    let mut blocked: Vec<_> = listed.chain(by_commands).collect();
    blocked.sort_by_key(|block| block.source);
    Answer {
        grants: Vec::new(),
        blocked: Some(blocked),
    }
}

/// The names of those who may have given a grant.
#[derive(Clone, Debug, Default)]
pub struct Names<'a> {
    /// Those of users, by number.
    pub users: BTreeMap<u16, &'a str>,
    /// Those of other hosts of the group, by number.
    pub hosts: BTreeMap<HostId, &'a str>,
}

/// Returns the valid grants, one for each source and door: the one that ends last.
pub fn answer(
    grants: impl IntoIterator<Item = HeldGrant>,
    doors: &Doors,
    names: &Names<'_>,
    clock: Clock,
) -> Answer {
    let mut longest: BTreeMap<(Prefix, u16), HeldGrant> = BTreeMap::new();
    for grant in grants
        .into_iter()
        .filter(|grant| clock.now_ms < grant.until_ms)
    {
        let held = longest.entry((grant.source, grant.door)).or_insert(grant);
        if held.until_ms < grant.until_ms {
            *held = grant;
        }
    }
    let mut grants: Vec<_> = longest
        .values()
        .map(|grant| {
            let facts = doors.get(&grant.door);
            let number = || format!("number {}", grant.door);
            ListedGrant {
                source: grant.source,
                door: facts.map_or_else(number, |facts| facts.name.clone()),
                ports: facts.map_or_else(Vec::new, |facts| facts.ports.clone()),
                until: clock.wall(grant.until_ms),
                seconds: clock.seconds_until(grant.until_ms),
                since: grant.given.map(|(given_ms, _)| clock.wall(given_ms)),
                by: grant.given.map(|(_, giver)| match giver {
                    Giver::Knocks => "knock".to_owned(),
                    Giver::User(number) => {
                        let name = names.users.get(&number).copied().unwrap_or("?");
                        format!("user {name}")
                    }
                    Giver::Hand(uid) => format!("uid {uid}"),
                    Giver::Host(host) => {
                        format!("host {}", names.hosts.get(&host).copied().unwrap_or("?"))
                    }
                }),
            }
        })
        .collect();
    grants.sort_by(|a, b| (a.source, &a.door).cmp(&(b.source, &b.door)));
    Answer {
        grants,
        blocked: None,
    }
}
