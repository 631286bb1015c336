//! Finds errors of `[spa]`, users, and doors that only users open.

use std::collections::HashMap;

use knock_sequence::{PortSet, Ports, spa::KeyId};

use super::{places::FileLines, reader::ReadFile};
use crate::model::{
    problem::Problem,
    settings::{Decoys, Otherwise, Settings},
};

/// Keys that only a door with a sequence has.
const OF_SEQUENCES: [&str; 6] = [
    "sequence_timeout",
    "step_timeout",
    "tcp_flags",
    "verify",
    "reply",
    "knock_pass",
];

/// Returns every problem; `knocks` and `protected` are ports of the configuration, and `protector`
/// returns why a port is protected.
pub(super) fn check(
    read: &ReadFile,
    knocks: &PortSet,
    protected: &PortSet,
    protector: impl Fn(Ports) -> String,
) -> Vec<Problem> {
    let ReadFile {
        settings,
        places,
        complete,
    } = read;
    let mut rules = SpaRules {
        settings,
        places,
        found: Vec::new(),
    };
    rules.names();
    rules.keys();
    if *complete {
        rules.doors_of_users();
        rules.without_sequence();
    }
    rules.ports(knocks, protected, protector);
    rules.found
}

struct SpaRules<'a> {
    settings: &'a Settings,
    places: &'a FileLines,
    found: Vec<Problem>,
}

impl SpaRules<'_> {
    fn add(&mut self, line: Option<usize>, key: &str, reason: String) {
        self.found.push(Problem {
            line,
            key: key.to_owned(),
            reason,
        });
    }

    fn names(&mut self) {
        let mut first: HashMap<&str, usize> = HashMap::new();
        for (index, user) in self.settings.users.iter().enumerate() {
            let other = *first.entry(&user.name).or_insert(index);
            if other != index {
                let line = self.places.users.get(other).map_or(1, |user| user.line);
                let place = self.places.sources.on_line(line);
                let reason = format!(
                    "user \"{}\" {place} has the same name: rename one of them, or write \
                     all keys of one user in one list",
                    user.name
                );
                self.add(self.places.of_user(index, "name"), "name", reason);
            }
        }
    }

    /// Reports a key that is listed twice, and keys that packets can't distinguish.
    fn keys(&mut self) {
        let mut first: HashMap<KeyId, (usize, usize)> = HashMap::new();
        for (index, user) in self.settings.users.iter().enumerate() {
            for (place, own) in user.keys.iter().enumerate() {
                let other = *first.entry(own.key.id()).or_insert((index, place));
                if other == (index, place) {
                    continue;
                }
                let Some(owner) = self.settings.users.get(other.0) else {
                    continue;
                };
                let Some(key) = owner.keys.get(other.1) else {
                    continue;
                };
                let line = self.places.of_key(other.0, other.1).unwrap_or(1);
                let on_line = self.places.sources.on_line(line);
                let reason = match key.key == own.key {
                    true => format!(
                        "user \"{}\" has the same key {on_line}: keep it once, and make a \
                         key for each device",
                        owner.name
                    ),
                    false => format!(
                        "it has the same id as the key of user \"{}\" {on_line}, so packets \
                         can't be assigned: make another key",
                        owner.name
                    ),
                };
                self.add(self.places.of_key(index, place), "keys", reason);
            }
        }
    }

    fn doors_of_users(&mut self) {
        let settings = self.settings;
        for (index, user) in settings.users.iter().enumerate() {
            for name in &user.doors {
                if settings.doors.iter().any(|door| door.name == *name) {
                    continue;
                }
                let cure = match self.door_meant(name) {
                    Some(near) => format!("did you mean \"{near}\"?"),
                    None => "define it with [[door]], or remove it".to_owned(),
                };
                let reason = format!("there is no door {name:?}: {cure}");
                self.add(self.places.of_user(index, "doors"), "doors", reason);
            }
        }
    }

    /// Returns the door that was probably meant by a name that no door has.
    fn door_meant(&self, name: &str) -> Option<&str> {
        let doors = self.settings.doors.iter().map(|door| door.name.as_str());
        let near = doors.min_by_key(|door| strsim::damerau_levenshtein(door, name))?;
        (strsim::damerau_levenshtein(near, name) <= near.len().div_ceil(3)).then_some(near)
    }

    /// Reports doors that neither knocks nor users open, and settings of knocks without knocks.
    fn without_sequence(&mut self) {
        for (index, (door, places)) in self
            .settings
            .doors
            .iter()
            .zip(&self.places.doors)
            .enumerate()
        {
            if door.has_sequence() || !places.lacks_sequence {
                continue;
            }
            if self.settings.users_of(door).next().is_none() {
                let mut named = self.settings.users.iter().flat_map(|user| &user.doors);
                if named.any(|name| self.door_meant(name) == Some(&door.name)) {
                    continue;
                }
                let reason = "missing: every door needs a sequence, as in knock = [\"tcp/7000\", \
                              \"udp/8000\"], or a user that has it among its doors";
                self.add(Some(places.line), "knock", reason.to_owned());
                continue;
            }
            for key in OF_SEQUENCES {
                if places.keys.contains_key(key) {
                    let reason = "the door has no sequence, so this has no effect: remove it, or \
                                  add knock";
                    self.add(self.places.of_door(index, key), key, reason.to_owned());
                }
            }
        }
    }

    fn ports(
        &mut self,
        knocks: &PortSet,
        protected: &PortSet,
        protector: impl Fn(Ports) -> String,
    ) {
        let line = self.places.of_spa("ports");
        for &ports in self.settings.spa_ports() {
            if knocks.touches(ports) {
                let reason = format!(
                    "{ports} is a knock port, and can't receive SPA packets too: use another port"
                );
                self.add(line, "ports", reason);
            }
            if let Decoys::Listed(decoys) = &self.settings.decoys
                && decoys.iter().any(|decoy| decoy.overlaps(ports))
            {
                let reason = format!(
                    "{ports} is a decoy, and can't receive SPA packets too: use another port"
                );
                self.add(line, "ports", reason);
            }
            let drops = self
                .settings
                .spa()
                .is_some_and(|spa| spa.otherwise == Otherwise::Drop);
            if drops && protected.touches(ports) {
                let reason = format!(
                    "{ports} is {}, and everything but SPA packets is dropped there: use another \
                     port, or otherwise = \"pass\"",
                    protector(ports)
                );
                self.add(line, "ports", reason);
            }
        }
    }
}

impl FileLines {
    /// Returns the line of a key of a user, or of the user if the key is not written.
    pub(super) fn of_user(&self, user: usize, key: &str) -> Option<usize> {
        let places = self.users.get(user)?;
        Some(places.keys.get(key).copied().unwrap_or(places.line))
    }

    /// Returns the line of one of the public keys of a user.
    pub(super) fn of_key(&self, user: usize, key: usize) -> Option<usize> {
        self.users.get(user)?.items.get(key).copied()
    }

    /// Returns the line of a key of `[spa]`, or of the table, or of the first user without it.
    pub(super) fn of_spa(&self, key: &str) -> Option<usize> {
        let table = || self.keys.get("spa").or_else(|| self.keys.get("user"));
        self.spa.get(key).or_else(table).copied()
    }
}
