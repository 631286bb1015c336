//! Describes what differs between two configurations.

use std::collections::{BTreeMap, BTreeSet};

use knock_sequence::Ports;

use crate::{
    apply::plan::Plan,
    model::settings::{Door, Settings},
};

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

type DoorsByName<'a> = BTreeMap<&'a str, &'a Door>;

fn by_name(settings: &Settings) -> DoorsByName<'_> {
    let doors = settings.doors.iter();
    doors.map(|door| (door.name.as_str(), door)).collect()
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
