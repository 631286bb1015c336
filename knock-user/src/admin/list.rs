//! `knock-user list`.

use std::{collections::BTreeMap, io::Write};

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::{
    command::{Caller, Command, NoFields},
    facts::{self, Doors, HeldGrant},
    instances::At,
    pinned,
    text::{LocalTime, Side, short, table},
};
use crate::{
    daemon::Daemon,
    host::clock::{self, Clock},
    kernel::instance::Instance,
    ledger::Giver,
    model::settings::Prefix,
};

/// List grants and how long they last
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    #[command(flatten)]
    at: At,
}

/// The answer.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Answer {
    /// The grants, by source and door.
    pub grants: Vec<ListedGrant>,
}

/// A grant.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct ListedGrant {
    /// The source that has it, or the prefix that it covers: `2001:db8:1:2::/64`.
    pub source: Prefix,
    /// Name of the door.
    pub door: String,
    /// What it opens: `tcp/22`.
    pub ports: Vec<String>,
    /// When it ends: RFC 3339.
    pub until: String,
    /// In how many seconds it ends.
    pub seconds: f64,
    /// When it was given, if that is known: RFC 3339.
    pub since: Option<String>,
    /// What gave it, if that is known: `knock`, `user alice`, or who did it by hand as `uid 0`.
    pub by: Option<String>,
}

impl Command for Args {
    const NAME: &'static str = "list";
    const ANSWER: &'static str = "list";
    type Request = NoFields;
    type Answer = Answer;

    fn at(&self) -> &At {
        &self.at
    }

    fn request(&self) -> NoFields {
        NoFields {}
    }

    fn render(answer: &Answer, time: &LocalTime) -> Vec<String> {
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

    fn answer<W: Write>(_: NoFields, daemon: &mut Daemon<W>, caller: Caller<Answer>) {
        let doors = facts::doors(daemon.protection.registry());
        let grants = daemon.ledger.open().map(Into::into);
        let users = daemon.protection.registry().numbers.user_names();
        let answer = answer(grants, &doors, &users, Clock::now());
        caller.answer(Ok(answer));
    }

    fn offline(&self, instance: &Instance) -> Result<Answer> {
        clock::check()?;
        let doors = facts::doors(&pinned::registry(instance)?);
        let users = BTreeMap::new();
        Ok(answer(
            pinned::grants(instance)?,
            &doors,
            &users,
            Clock::now(),
        ))
    }
}

/// Returns the valid grants, one for each source and door: the one that ends last.
pub fn answer(
    grants: impl IntoIterator<Item = HeldGrant>,
    doors: &Doors,
    users: &BTreeMap<u16, &str>,
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
                        let name = users.get(&number).copied().unwrap_or("?");
                        format!("user {name}")
                    }
                    Giver::Hand(uid) => format!("uid {uid}"),
                }),
            }
        })
        .collect();
    grants.sort_by(|a, b| (a.source, &a.door).cmp(&(b.source, &b.door)));
    Answer { grants }
}
