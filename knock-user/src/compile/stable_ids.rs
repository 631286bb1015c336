//! Numbers that doors, services and destination classes keep from one configuration to the next.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use serde::{Deserialize, Serialize};

/// What stands under which number in the maps that outlive a configuration.
///
/// Grants and flows of an old configuration go on under a new one, and for a moment two programs
/// write to the same maps: what both know has the same number in both.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
pub struct StableIds {
    /// Doors by name.
    pub doors: BTreeMap<String, u16>,
    /// Services by the doors that open or close them; the list is sorted.
    pub port_groups: BTreeSet<PortGroup>,
    /// Classes by destination address; class 0 is every other address.
    pub targets: BTreeMap<IpAddr, u16>,
}

/// A group of ports that the same doors open.
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub struct PortGroup {
    /// The numbers of these doors, in order; none if the ports are protected and no door opens them.
    pub doors: Vec<u16>,
    /// Its own number.
    pub number: u16,
}

impl StableIds {
    /// These and others, which must agree about what both know.
    #[must_use]
    pub fn with(&self, others: &Self) -> Self {
        let mut all = self.clone();
        all.doors.extend(others.doors.clone());
        all.port_groups.extend(others.port_groups.iter().cloned());
        all.targets.extend(others.targets.clone());
        all
    }

    /// The name of each numbered door.
    pub fn door_names(&self) -> BTreeMap<u16, &str> {
        let doors = self.doors.iter();
        doors
            .map(|(name, &number)| (number, name.as_str()))
            .collect()
    }
}

/// Gives numbers to what a configuration has: those that are known, otherwise free ones.
pub(super) struct IdAssigner<'k> {
    known: &'k StableIds,
    port_groups: BTreeMap<&'k [u16], u16>,
    free_doors: Free,
    free_port_groups: Free,
    free_targets: Free,
    /// What was asked for.
    pub(super) used: StableIds,
}

impl<'k> IdAssigner<'k> {
    pub(super) fn new(known: &'k StableIds) -> Self {
        let port_groups = known.port_groups.iter();
        Self {
            known,
            port_groups: port_groups
                .clone()
                .map(|port_group| (port_group.doors.as_slice(), port_group.number))
                .collect(),
            free_doors: Free::besides(known.doors.values().copied()),
            free_port_groups: Free::besides(port_groups.map(|port_group| port_group.number)),
            // Class 0 is every other address.
            free_targets: Free::besides(known.targets.values().copied().chain([0])),
            used: StableIds::default(),
        }
    }

    /// The number of a door; `None` if there is none left.
    pub(super) fn door(&mut self, name: &str) -> Option<u16> {
        let number = match self.known.doors.get(name) {
            Some(&number) => number,
            None => self.free_doors.next()?,
        };
        self.used.doors.insert(name.to_owned(), number);
        Some(number)
    }

    /// The number of the service of these doors, which are in order; `None` if there is none left.
    pub(super) fn port_group(&mut self, doors: Vec<u16>) -> Option<u16> {
        let number = match self.port_groups.get(doors.as_slice()) {
            Some(&number) => number,
            None => self.free_port_groups.next()?,
        };
        self.used.port_groups.insert(PortGroup { doors, number });
        Some(number)
    }

    /// The class of a destination address; `None` if there is none left.
    pub(super) fn target(&mut self, address: IpAddr) -> Option<u16> {
        let number = match self.known.targets.get(&address) {
            Some(&number) => number,
            None => self.free_targets.next()?,
        };
        self.used.targets.insert(address, number);
        Some(number)
    }
}

/// Numbers that are not taken, from the lowest.
struct Free {
    taken: BTreeSet<u16>,
    next: u16,
}

impl Free {
    fn besides(taken: impl Iterator<Item = u16>) -> Self {
        Self {
            taken: taken.collect(),
            next: 0,
        }
    }

    /// The next one; the highest is never given, since doors use it for "none".
    fn next(&mut self) -> Option<u16> {
        while self.taken.contains(&self.next) {
            self.next = self.next.checked_add(1)?;
        }
        let number = self.next;
        self.next = self.next.checked_add(1)?;
        Some(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_keeps_its_number_and_what_is_new_gets_a_free_one() {
        let none = StableIds::default();
        let mut first = IdAssigner::new(&none);
        let names = ["ssh", "web", "vpn"];
        assert_eq!(names.map(|name| first.door(name)), [0, 1, 2].map(Some));
        assert_eq!(first.port_group(vec![0, 1]), Some(0));
        assert_eq!(first.port_group(vec![2]), Some(1));
        let here: IpAddr = "192.0.2.1".parse().unwrap();
        assert_eq!(first.target(here), Some(1), "0 is every other address");

        let known = first.used;
        let mut second = IdAssigner::new(&known);
        assert_eq!(
            second.door("db"),
            Some(3),
            "web's number may still be in use"
        );
        assert_eq!(second.door("vpn"), Some(2));
        assert_eq!(second.port_group(vec![2]), Some(1));
        assert_eq!(second.port_group(vec![2, 3]), Some(2));
        assert_eq!(second.target(here), Some(1));
        assert!(!second.used.doors.contains_key("web"));
        let both = known.with(&second.used);
        assert_eq!(both.doors.len(), 4);
        assert_eq!(both.door_names()[&3], "db");
    }

    #[test]
    fn numbers_run_out() {
        let mut free = Free::besides([3].into_iter());
        let input = std::iter::from_fn(|| free.next()).count();
        assert_eq!(input, usize::from(u16::MAX) - 1);
        assert_eq!(free.next(), None);
    }

    #[test]
    fn numbers_survive_a_file() {
        let mut id_assigner = IdAssigner::new(
            const {
                &StableIds {
                    doors: BTreeMap::new(),
                    port_groups: BTreeSet::new(),
                    targets: BTreeMap::new(),
                }
            },
        );
        id_assigner.door("ssh");
        id_assigner.port_group(vec![]);
        id_assigner.target("2001:db8::1".parse().unwrap());
        let text = serde_json::to_string(&id_assigner.used).unwrap();
        assert_eq!(
            serde_json::from_str::<StableIds>(&text).unwrap(),
            id_assigner.used
        );
    }
}
