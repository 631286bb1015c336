//! Keeps the numbers of doors, port groups, targets and users stable across configurations.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use knock_common::GrantPrefix;
use knock_sequence::Ports;
use serde::{Deserialize, Serialize};

/// The numbers that maps use which outlive a configuration.
///
/// Grants and flows stay in force under a new configuration, and for a moment two programs write to
/// the same maps. So doors, port groups and targets of both have the same numbers in both.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
pub struct StableIds {
    /// Doors by name.
    pub doors: BTreeMap<String, u16>,
    /// Port groups by the doors that open or close them, their prefixes and ports; the list is sorted.
    pub port_groups: BTreeSet<PortGroup>,
    /// Targets by address; id 0 is every other address.
    pub targets: BTreeMap<IpAddr, u16>,
    /// Users by name, from 1: events that were not read yet have their numbers.
    pub users: BTreeMap<String, u16>,
}

/// The number of a protocol, and the first and the last port.
pub type PortRange = (u8, u16, u16);

/// The identity of a port group: doors, prefixes and ports, as in [`PortGroup`].
type PortGroupKey<'k> = (&'k [u16], [u8; 2], &'k [PortRange]);

/// A group of ports that the same doors open.
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub struct PortGroup {
    /// The numbers of these doors, in order; empty if no door opens the ports.
    pub doors: Vec<u16>,
    /// The lengths of the prefixes that grants for it cover, for IPv4 and IPv6. A group whose grants become wider or
    /// narrower is another one, since the source of a grant is the first address of its prefix.
    #[serde(default = "single")]
    pub prefix: [u8; 2],
    /// The ports, in order; none in files of older versions. A group with other ports is another one, so that a grant
    /// of which a part was closed is not one for ports that join the rest.
    #[serde(default)]
    pub ports: Vec<PortRange>,
    /// The number of the group.
    pub number: u16,
}

/// Returns the prefixes of groups in files that have none.
const fn single() -> [u8; 2] {
    [GrantPrefix::SINGLE.ipv4(), GrantPrefix::SINGLE.ipv6()]
}

/// Returns ports as plain numbers.
pub const fn range(ports: Ports) -> PortRange {
    (ports.protocol as u8, ports.first, ports.last)
}

impl PortGroup {
    /// Returns the prefixes that grants for it cover.
    pub const fn grant_prefix(&self) -> GrantPrefix {
        let [ipv4, ipv6] = self.prefix;
        GrantPrefix::new(ipv4, ipv6)
    }
}

impl StableIds {
    /// Returns the union with others, which must agree about common numbers.
    #[must_use]
    pub fn with(&self, others: &Self) -> Self {
        let mut all = self.clone();
        all.doors.extend(others.doors.clone());
        all.port_groups.extend(others.port_groups.iter().cloned());
        all.targets.extend(others.targets.clone());
        all.users.extend(others.users.clone());
        all
    }

    /// Returns the prefixes that grants for each numbered port group cover.
    pub fn grant_prefixes(&self) -> BTreeMap<u16, GrantPrefix> {
        let port_groups = self.port_groups.iter();
        port_groups
            .map(|port_group| (port_group.number, port_group.grant_prefix()))
            .collect()
    }

    /// Returns the name of each numbered user.
    pub fn user_names(&self) -> BTreeMap<u16, &str> {
        let users = self.users.iter();
        users
            .map(|(name, &number)| (number, name.as_str()))
            .collect()
    }

    /// Returns the name of each numbered door.
    pub fn door_names(&self) -> BTreeMap<u16, &str> {
        let doors = self.doors.iter();
        doors
            .map(|(name, &number)| (number, name.as_str()))
            .collect()
    }
}

/// Assigns numbers to the parts of a configuration: the known ones, or free ones.
pub(super) struct IdAssigner<'k> {
    known: &'k StableIds,
    port_groups: BTreeMap<PortGroupKey<'k>, u16>,
    free_doors: Free,
    free_port_groups: Free,
    free_targets: Free,
    free_users: Free,
    /// The numbers that were requested.
    pub(super) used: StableIds,
}

impl<'k> IdAssigner<'k> {
    pub(super) fn new(known: &'k StableIds) -> Self {
        let port_groups = known.port_groups.iter();
        Self {
            known,
            port_groups: port_groups
                .clone()
                .map(|port_group| {
                    let PortGroup {
                        doors,
                        prefix,
                        ports,
                        number,
                    } = port_group;
                    ((doors.as_slice(), *prefix, ports.as_slice()), *number)
                })
                .collect(),
            free_doors: Free::besides(known.doors.values().copied()),
            free_port_groups: Free::besides(port_groups.map(|port_group| port_group.number)),
            // Id 0 is every other address.
            free_targets: Free::besides(known.targets.values().copied().chain([0])),
            // Number 0 is not a user.
            free_users: Free::besides(known.users.values().copied().chain([0])),
            used: StableIds::default(),
        }
    }

    /// Returns the number of a door; `None` if none is left.
    pub(super) fn door(&mut self, name: &str) -> Option<u16> {
        let number = match self.known.doors.get(name) {
            Some(&number) => number,
            None => self.free_doors.next()?,
        };
        self.used.doors.insert(name.to_owned(), number);
        Some(number)
    }

    /// Returns the number of the port group of these doors, which are in order, with these prefixes
    /// and ports; `None` if none is left.
    pub(super) fn port_group(
        &mut self,
        doors: Vec<u16>,
        grant_prefix: GrantPrefix,
        ports: &[Ports],
    ) -> Option<u16> {
        let prefix = [grant_prefix.ipv4(), grant_prefix.ipv6()];
        let ports: Vec<_> = ports.iter().copied().map(range).collect();
        let number = match self
            .port_groups
            .get(&(doors.as_slice(), prefix, ports.as_slice()))
        {
            Some(&number) => number,
            None => self.free_port_groups.next()?,
        };
        self.used.port_groups.insert(PortGroup {
            doors,
            prefix,
            ports,
            number,
        });
        Some(number)
    }

    /// Returns the number of a user, from 1; `None` if none is left.
    pub(super) fn user(&mut self, name: &str) -> Option<u16> {
        let number = match self.known.users.get(name) {
            Some(&number) => number,
            None => self.free_users.next()?,
        };
        self.used.users.insert(name.to_owned(), number);
        Some(number)
    }

    /// Keeps the numbers of removed users while all users are at most this many: grants that they asked for still have
    /// them, and are listed with the name of the user that has the number.
    pub(super) fn keep_removed_users(&mut self, most: usize) {
        let room = most.saturating_sub(self.used.users.len());
        let removed = self.known.users.iter();
        let removed: Vec<_> = removed
            .filter(|(name, _)| !self.used.users.contains_key(*name))
            .take(room)
            .map(|(name, &number)| (name.clone(), number))
            .collect();
        self.used.users.extend(removed);
    }

    /// Returns the id of a target; `None` if none is left.
    pub(super) fn target(&mut self, address: IpAddr) -> Option<u16> {
        let number = match self.known.targets.get(&address) {
            Some(&number) => number,
            None => self.free_targets.next()?,
        };
        self.used.targets.insert(address, number);
        Some(number)
    }
}

/// Yields unused numbers, from the lowest.
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

    /// Returns the next number; the highest is never assigned, since doors use it for "none".
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
    fn known_parts_keep_their_number_and_new_ones_get_a_free_one() {
        let none = StableIds::default();
        let mut first = IdAssigner::new(&none);
        let names = ["ssh", "web", "vpn"];
        assert_eq!(names.map(|name| first.door(name)), [0, 1, 2].map(Some));
        assert_eq!(
            first.port_group(vec![0, 1], GrantPrefix::SINGLE, &[]),
            Some(0)
        );
        assert_eq!(first.port_group(vec![2], GrantPrefix::SINGLE, &[]), Some(1));
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
        assert_eq!(
            second.port_group(vec![2], GrantPrefix::SINGLE, &[]),
            Some(1)
        );
        assert_eq!(
            second.port_group(vec![2, 3], GrantPrefix::SINGLE, &[]),
            Some(2)
        );
        let wide = GrantPrefix::new(24, 64);
        assert_eq!(
            second.port_group(vec![2], wide, &[]),
            Some(3),
            "wider grants"
        );
        let other = [Ports::tcp(22)];
        assert_eq!(
            second.port_group(vec![2], GrantPrefix::SINGLE, &other),
            Some(4),
            "other ports"
        );
        assert_eq!(second.target(here), Some(1));
        assert!(!second.used.doors.contains_key("web"));
        let both = known.with(&second.used);
        assert_eq!(both.doors.len(), 4);
        assert_eq!(both.door_names()[&3], "db");
    }

    #[test]
    fn removed_users_keep_their_number() {
        let mut known = StableIds::default();
        for (users, most, expected) in [
            (&["alice", "bob"][..], 9, &[("alice", 1), ("bob", 2)][..]),
            (&["bob"], 9, &[("alice", 1), ("bob", 2)]),
            (&["carol"], 9, &[("alice", 1), ("bob", 2), ("carol", 3)]),
            (&["alice"], 9, &[("alice", 1), ("bob", 2), ("carol", 3)]),
            (&["alice", "dave"], 2, &[("alice", 1), ("dave", 4)]),
        ] {
            let mut id_assigner = IdAssigner::new(&known);
            for name in users {
                id_assigner.user(name);
            }
            id_assigner.keep_removed_users(most);
            let used = id_assigner.used;
            let found: Vec<_> = used
                .users
                .iter()
                .map(|(name, &n)| (name.as_str(), n))
                .collect();
            assert_eq!(found, expected, "{users:?}, at most {most}");
            known = used;
        }
    }

    #[test]
    fn no_number_is_assigned_beyond_the_limit() {
        let mut free = Free::besides([3].into_iter());
        let input = std::iter::from_fn(|| free.next()).count();
        assert_eq!(input, usize::from(u16::MAX) - 1);
        assert_eq!(free.next(), None);
    }

    #[test]
    fn numbers_are_unchanged_after_writing_and_reading() {
        let mut id_assigner = IdAssigner::new(
            const {
                &StableIds {
                    doors: BTreeMap::new(),
                    port_groups: BTreeSet::new(),
                    targets: BTreeMap::new(),
                    users: BTreeMap::new(),
                }
            },
        );
        id_assigner.door("ssh");
        id_assigner.port_group(vec![], GrantPrefix::SINGLE, &[]);
        id_assigner.port_group(vec![0], GrantPrefix::new(24, 64), &[Ports::tcp(22)]);
        id_assigner.target("2001:db8::1".parse().unwrap());
        let text = serde_json::to_string(&id_assigner.used).unwrap();
        assert_eq!(
            serde_json::from_str::<StableIds>(&text).unwrap(),
            id_assigner.used
        );
    }
}
