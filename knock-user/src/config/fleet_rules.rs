//! Finds doors whose group contradicts the rest of the file.

use knock_sequence::duration::spell;

use super::places::DoorProblem;
use crate::model::settings::{Effect, Settings};

/// Returns the doors that can't be in the group that they name.
pub(super) fn check(settings: &Settings) -> Vec<DoorProblem> {
    let mut found = Vec::new();
    // Revocations are kept for as long as a grant may last.
    if let Some(fleet) = &settings.fleet {
        for (index, door) in settings.doors.iter().enumerate() {
            let key = match door.open_for > fleet.longest {
                true => "open_for",
                false => "open_for_max",
            };
            if settings.is_shared(door) && door.open_for_max > fleet.longest {
                let reason = format!(
                    "longer than the longest grant of the group, {}: lower it, raise longest in [fleet] at all \
                     hosts, or write group = \"\" for a door of this host alone",
                    spell(fleet.longest)
                );
                found.push((index, key, reason));
            }
        }
    }
    for (index, door) in settings.doors.iter().enumerate() {
        let Some(group) = door.group.as_deref().filter(|group| !group.is_empty()) else {
            continue;
        };
        let reason = match (&settings.fleet, &door.effect) {
            (None, _) => "there is no [fleet], so this host is in no group: add [fleet], or remove group".to_owned(),
            (Some(fleet), _) if fleet.group != group => format!(
                "this host is in the group {}: write group = \"{}\", or group = \"\" for a door of this host alone",
                fleet.group, fleet.group
            ),
            (Some(_), Effect::Close(_)) => {
                "a door that closes has no group: it ends the grants of the group wherever it ends those of this \
                 host; remove group"
                    .to_owned()
            }
            (Some(_), Effect::Open(_)) if door.target.is_some() => {
                "a door with target opens at one address of this host, and so at this host alone: remove group \
                 or target"
                    .to_owned()
            }
            (Some(_), Effect::Open(_)) => continue,
        };
        found.push((index, "group", reason));
    }
    found
}
