//! `knock-user fleet status`: what this host knows of its group.

use std::{io::Write, time::Duration};

use anyhow::Result;
use knock_sequence::duration::spell_short;
use serde::{Deserialize, Serialize};

use super::super::text::LocalTime;
use crate::{
    daemon::{Daemon, fleet::FleetLink},
    fleet::{HostState, LinkState},
    host::clock::Clock,
    model::text::count,
};

/// Clocks that differ by more than this are reported, in milliseconds.
const CLOCK_MS: u64 = 1_000;

/// The answer.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Answer {
    /// The group.
    pub group: String,
    /// The name of this host in it.
    pub host: String,
    /// Whether the engine has answered within `grace`.
    pub in_sync: bool,
    /// Since when it was not, if so: RFC 3339.
    pub since: Option<String>,
    /// Why it was not.
    pub because: Option<String>,
    /// What knocks do while the host is cut off: `closed` or `local`.
    pub alone: String,
    /// The member of the engine that is watched.
    pub member: Option<String>,
    /// The version of the engine.
    pub version: Option<String>,
    /// The doors that the group opens.
    pub doors: Vec<String>,
    /// How many grants other hosts have in force.
    pub grants: usize,
    /// The hosts of the group, this one included.
    pub hosts: Vec<MemberHost>,
    /// What to look at, a sentence each.
    pub notes: Vec<String>,
    /// How many records wait to be written.
    pub waiting: u64,
    /// How many records could not be read: of another key, or damaged.
    pub unreadable: u64,
}

/// A host of the group.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct MemberHost {
    /// Its name.
    pub name: String,
    /// Whether it is connected to the engine.
    pub is_here: bool,
    /// Since when it is, or is not: RFC 3339.
    pub at: String,
    /// The version of its knock-user.
    pub knock_version: String,
    /// By how many seconds its clock is ahead of this one, if that was seen.
    pub clock_ahead: Option<f64>,
}

/// Returns the status of the group of a daemon.
///
/// # Errors
/// Its configuration has no group.
pub(super) fn of<W: Write>(daemon: &Daemon<W>) -> Result<Answer> {
    let fleet = daemon.group()?;
    let clock = Clock::now();
    let (member, version) = match fleet.exchange.state() {
        LinkState::Linked { member, version } => (Some(member.clone()), Some(version.clone())),
        LinkState::Starting | LinkState::Lost { .. } => (None, None),
    };
    let settings = daemon.settings();
    let doors = settings
        .doors
        .iter()
        .filter(|door| settings.is_shared(door));
    let host = fleet.settings.host.clone();
    let grants = fleet.grants().into_iter();
    Ok(Answer {
        group: fleet.settings.group.clone(),
        grants: grants.filter(|grant| grant.host != host).count(),
        host,
        in_sync: fleet.is_in_sync(),
        since: fleet.lost_since_ms.map(|at_ms| clock.wall(at_ms)),
        because: (!fleet.is_in_sync()).then(|| fleet.reason()),
        alone: fleet.settings.alone.name().to_owned(),
        member,
        version,
        doors: doors.map(|door| door.name.clone()).collect(),
        notes: notes(fleet),
        hosts: fleet
            .exchange
            .group()
            .hosts()
            .into_iter()
            .map(|host| member_host(host, clock))
            .collect(),
        waiting: u64::try_from(fleet.waiting()).unwrap_or(u64::MAX),
        unreadable: fleet.exchange.unreadable(),
    })
}

/// Returns the lines for people.
pub(super) fn lines(answer: &Answer, time: &LocalTime) -> Vec<String> {
    let Answer {
        group,
        host,
        in_sync,
        since,
        because,
        alone,
        member,
        version,
        doors,
        grants,
        hosts,
        notes,
        waiting,
        unreadable,
    } = answer;
    let state = match (in_sync, since) {
        (true, _) => format!("{host} follows the group {group}"),
        (false, Some(since)) => {
            format!(
                "{host} is cut off from the group {group} since {}",
                time.moment(since)
            )
        }
        (false, None) => format!("{host} is cut off from the group {group}"),
    };
    let mut lines = vec![state];
    lines.extend(
        because
            .as_ref()
            .map(|because| format!("  because  {because}")),
    );
    if !in_sync {
        let alone = match alone.as_str() {
            "local" => "knocks open here alone",
            _ => "no knock opens a door of the group",
        };
        lines.push(format!("  so       {alone}"));
    }
    if let (Some(member), Some(version)) = (member, version) {
        lines.push(format!("  through  {member} (etcd {version})"));
    }
    let doors = match doors.as_slice() {
        [] => "none".to_owned(),
        doors => doors.join(" "),
    };
    lines.push(format!("  doors    {doors}"));
    lines.push(format!("  grants   {grants} of other hosts"));
    let (here, away): (Vec<_>, Vec<_>) = hosts.iter().partition(|host| host.is_here);
    let names = |hosts: &[&MemberHost]| {
        let names: Vec<_> = hosts.iter().map(|host| host.name.as_str()).collect();
        names.join(" ")
    };
    if !here.is_empty() {
        lines.push(format!("  hosts    {}", names(&here)));
    }
    for host in &away {
        lines.push(format!(
            "  away     {} since {}",
            host.name,
            time.moment(&host.at)
        ));
    }
    if *waiting > 0 {
        lines.push(format!("  waiting  {}", count(*waiting, "record")));
    }
    if *unreadable > 0 {
        lines.push(format!(
            "  unread   {} that no key of the group has sealed for its place",
            count(*unreadable, "record")
        ));
    }
    lines.extend(notes.iter().map(|note| format!("  note     {note}")));
    lines
}

fn member_host(host: HostState, clock: Clock) -> MemberHost {
    MemberHost {
        name: host.host,
        is_here: host.is_here,
        at: clock.wall(host.since_ms),
        knock_version: host.facts.version,
        clock_ahead: host.clock_offset_ms.map(seconds),
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "clocks differ by less than 2^52 ms"
)]
fn seconds(ms: i64) -> f64 {
    ms as f64 / 1_000.0
}

/// Returns what is unusual: an engine with known holes, and clocks that differ.
fn notes(fleet: &FleetLink) -> Vec<String> {
    let mut notes = Vec::new();
    if let LinkState::Linked { version, .. } = fleet.exchange.state()
        && has_holes(version)
    {
        notes.push(format!(
            "etcd {version} lets a client write outside of its role: upgrade to 3.5.33, 3.6.14 or 3.7.1; the key of \
             the group keeps such records from changing anything"
        ));
    }
    for host in fleet.exchange.group().hosts() {
        let offset_ms = host.clock_offset_ms.unwrap_or(0);
        if offset_ms.unsigned_abs() > CLOCK_MS {
            let which = if offset_ms > 0 { "ahead of" } else { "behind" };
            let apart = spell_short(Duration::from_millis(offset_ms.unsigned_abs()));
            notes.push(format!(
                "the clock of {} is {apart} {which} that of this host, so grants end earlier at the one that is \
                 ahead: synchronise both",
                host.host
            ));
        }
    }
    notes
}

/// Returns whether a version of etcd has holes in its roles (CVE-2026-73499, CVE-2026-44283, CVE-2026-33343).
fn has_holes(version: &str) -> bool {
    let numbers: Vec<u32> = version
        .split('.')
        .map_while(|part| part.parse().ok())
        .collect();
    match numbers.as_slice() {
        [3, minor, patch] => match minor {
            0..=4 => true,
            5 => *patch < 33,
            6 => *patch < 14,
            7 => *patch < 1,
            _ => false,
        },
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_with_holes_are_known() {
        for (version, expected) in [
            ("3.4.23", true),
            ("3.4.44", true),
            ("3.5.32", true),
            ("3.5.33", false),
            ("3.6.13", true),
            ("3.6.14", false),
            ("3.7.0", true),
            ("3.7.1", false),
            ("3.8.0", false),
            ("unknown", false),
        ] {
            assert_eq!(has_holes(version), expected, "{version}");
        }
    }
}
