//! Decides which grants another configuration keeps, moves or ends.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use knock_common::{grant::Grant, layout::GrantKey};

use crate::{
    compile::{
        Tables, grant_keys,
        stable_ids::{PortGroup, PortRange, StableIds, range},
    },
    model::settings::Prefix,
};

/// The changes of the allow map that a new configuration needs.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Carried {
    /// Entries that the new configuration needs, or needs for longer.
    pub write: BTreeMap<GrantKey, Grant>,
    /// Entries that have no meaning in the new configuration, with the values that were read.
    pub remove: BTreeMap<GrantKey, Grant>,
    /// The sources of valid grants that end, and the reasons.
    pub ended: BTreeSet<(Prefix, EndCause)>,
}

/// Why a grant ends with a change of the configuration.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum EndCause {
    /// The door with this name is no longer configured.
    DoorRemoved(String),
    /// The grants of the door with this name cover a longer prefix now, and it is unknown which address of the earlier
    /// one asked.
    Narrowed(String),
    /// It is unknown which door gave it.
    UnknownDoor,
}

/// Compares entries of the allow map with what the new `tables` need. `known` maps the door numbers
/// of the entries to names; `before` are the numbers of the previous configuration.
///
/// A grant belongs to a door and opens what that door opens now, for the prefix that its grants cover now. If that is
/// narrower than before, the grant ends. Expired entries of doors that still exist are left to the ledger, which
/// reports them.
///
/// If a closing sequence has closed a part of a grant, none of it is opened again: the grant is kept for ports that
/// the rest opens, and does not extend to ports that the door opens only now.
pub fn grants(
    entries: &[(GrantKey, Grant)],
    before: &StableIds,
    known: &StableIds,
    tables: &Tables,
    now_ms: u64,
) -> Carried {
    let names = known.door_names();
    let prefixes = known.grant_prefixes();
    let mut carried = Carried::default();
    let held: HashMap<GrantKey, Grant> = entries.iter().copied().collect();
    let mut groups_before: HashMap<u16, Vec<&PortGroup>> = HashMap::new();
    for port_group in &before.port_groups {
        for &door in &port_group.doors {
            groups_before.entry(door).or_default().push(port_group);
        }
    }
    for &(key, grant) in entries {
        let name = names.get(&grant.door).copied();
        let prefix = prefixes.get(&key.port_group).copied().unwrap_or_default();
        let covered = Prefix::covered(key.source, prefix);
        let number = name.and_then(|name| tables.numbers.doors.get(name).copied());
        let door = number.and_then(|number| tables.doors.get(usize::from(number)));
        let (Some(number), Some(door)) = (number, door) else {
            carried.remove.insert(key, grant);
            let cause = match name {
                Some(name) => EndCause::DoorRemoved(name.to_owned()),
                None => EndCause::UnknownDoor,
            };
            carried.ended.insert((covered, cause));
            continue;
        };
        if door.grant_prefix.bits_for(key.source) > covered.bits {
            carried.remove.insert(key, grant);
            if let Some(name) = name.filter(|_| now_ms < grant.until_ms) {
                let cause = EndCause::Narrowed(name.to_owned());
                carried.ended.insert((covered, cause));
            }
            continue;
        }
        let meant: Vec<_> = grant_keys(door, key.source).collect();
        if !meant.contains(&key) {
            carried.remove.insert(key, grant);
        }
        let grant = Grant {
            door: number,
            ..grant
        };
        if grant.until_ms <= now_ms {
            continue;
        }
        let is_held = |key: &GrantKey| {
            let held = held.get(key);
            held.is_some_and(|held| grant.until_ms <= held.until_ms)
        };
        let parts = groups_before.get(&grant.door).into_iter().flatten();
        let parts = parts.filter(|part| part.grant_prefix() == prefix);
        let (open, closed): (Vec<&PortGroup>, Vec<_>) = parts.partition(|part| {
            is_held(&GrantKey {
                port_group: part.number,
                ..key
            })
        });
        let is_open = |port: &PortRange| is_covered(*port, &open);
        let is_whole =
            closed.iter().flat_map(|part| &part.ports).all(is_open) || meant.iter().all(is_held);
        for key in meant {
            let ports = tables.port_groups.get(&key.port_group);
            let mut ports = ports.into_iter().flatten().copied().map(range);
            if !is_whole && !ports.all(|port| is_open(&port)) {
                continue;
            }
            let longest = carried.write.entry(key).or_insert(grant);
            if longest.until_ms < grant.until_ms {
                *longest = grant;
            }
        }
    }
    for (key, grant) in entries {
        if carried.write.get(key).is_some_and(|new| new == grant) {
            carried.write.remove(key);
        }
    }
    carried
}

/// Returns whether port groups have all ports of a range.
fn is_covered((protocol, first, last): PortRange, port_groups: &[&PortGroup]) -> bool {
    let ranges = || port_groups.iter().flat_map(|port_group| &port_group.ports);
    let mut next = u32::from(first);
    while next <= u32::from(last) {
        let mut ranges = ranges();
        let here = ranges.find(|(of, first, last)| {
            *of == protocol && (u32::from(*first)..=u32::from(*last)).contains(&next)
        });
        let Some(&(_, _, last)) = here else {
            return false;
        };
        next = u32::from(last) + 1;
    }
    true
}

#[cfg(test)]
mod tests {
    use knock_common::Address;
    use knock_sequence::Ports;

    use super::*;
    use crate::{compile, config, host::Host};

    const SOURCE: Address = Address { words: [1; 4] };
    const NOW_MS: u64 = 1_000;

    fn tables(text: &str, known: &StableIds) -> Tables {
        let checked = config::parse(text, "test.toml").unwrap();
        let mut input = compile::Input {
            host: &Host::default(),
            cell_key: [1; 12],
            known,
            draw: &mut || 0,
            sequences: &crate::model::settings::Sequences::new(),
            before: None,
        };
        compile::compile(&checked.settings, &mut input).unwrap()
    }

    fn door(name: &str, first: u16, open: &str) -> String {
        let knock = format!(
            "[\"tcp/{first}\", \"udp/{}\", \"tcp/{}\"]",
            first + 7,
            first - 5
        );
        format!("[[door]]\nname = \"{name}\"\nknock = {knock}\nopen = [{open}]\n")
    }

    /// Returns the entries of a grant of the door.
    fn entries(tables: &Tables, door: &str, until_ms: u64) -> Vec<(GrantKey, Grant)> {
        let number = tables.numbers.doors[door];
        let grant = Grant {
            until_ms,
            door: number,
        };
        let keys = grant_keys(&tables.doors[usize::from(number)], SOURCE);
        keys.map(|key| (key, grant)).collect()
    }

    #[test]
    fn a_grant_opens_what_its_door_opens_now() {
        const SSH: &str = "\"tcp/22\"";
        const BOTH: &str = "\"tcp/22\", \"tcp/443\"";
        let old = [door("ssh", 7000, SSH), door("web", 8000, "\"tcp/443\"")].concat();
        let none = StableIds::default();
        let before = tables(&old, &none);
        for (name, new, ends_ms, write, remove, ended) in [
            ("the same doors", old.clone(), 2_000, 0, 0, false),
            (
                "in another order",
                [door("web", 8000, "\"tcp/443\""), door("ssh", 7000, SSH)].concat(),
                2_000,
                0,
                0,
                false,
            ),
            ("other knocks", door("ssh", 9000, SSH), 2_000, 0, 0, false),
            (
                "another port",
                door("ssh", 7000, "\"tcp/2222\""),
                2_000,
                1,
                1,
                false,
            ),
            (
                "shared with another door",
                [door("ssh", 7000, BOTH), door("web", 8000, BOTH)].concat(),
                2_000,
                1,
                1,
                false,
            ),
            (
                "shared in part",
                [door("ssh", 7000, BOTH), door("web", 8000, "\"tcp/443\"")].concat(),
                2_000,
                1,
                0,
                false,
            ),
            (
                "ended, shared in part",
                [door("ssh", 7000, BOTH), door("web", 8000, "\"tcp/443\"")].concat(),
                500,
                0,
                0,
                false,
            ),
            ("no such door", door("web", 8000, SSH), 2_000, 0, 1, true),
        ] {
            let after = tables(&new, &before.numbers);
            let held = entries(&before, "ssh", ends_ms);
            let carried = grants(&held, &before.numbers, &before.numbers, &after, NOW_MS);
            assert_eq!(carried.write.len(), write, "{name}");
            assert_eq!(carried.remove.len(), remove, "{name}");
            assert_eq!(!carried.ended.is_empty(), ended, "{name}");
            let mut now: BTreeMap<_, _> = held.into_iter().collect();
            now.retain(|key, _| !carried.remove.contains_key(key));
            now.extend(carried.write);
            if !ended && ends_ms > NOW_MS {
                let meant = entries(&after, "ssh", ends_ms).into_iter().collect();
                assert_eq!(now, meant, "{name}");
            }
        }
    }

    #[test]
    fn a_grant_is_never_wider_than_its_door_was() {
        let ssh = |prefix: &str| {
            let prefix = match prefix {
                "" => String::new(),
                prefix => format!("grant_prefix = {{ {prefix} }}\n"),
            };
            door("ssh", 7000, "\"tcp/22\"") + &prefix
        };
        let none = StableIds::default();
        let kept = |covered| (vec![covered], false);
        let ended = || (vec![], true);
        for (name, old, new, source, (covered, is_reported)) in [
            (
                "the same",
                "ipv6 = 64",
                "ipv6 = 64",
                "2001:db8:1:2::9",
                kept("2001:db8:1:2::/64"),
            ),
            (
                "wider",
                "",
                "ipv6 = 64",
                "2001:db8:1:2::9",
                kept("2001:db8:1:2::/64"),
            ),
            (
                "wider still",
                "ipv6 = 64",
                "ipv6 = 56",
                "2001:db8:1:2::9",
                kept("2001:db8:1::/56"),
            ),
            (
                "narrower",
                "ipv6 = 56",
                "ipv6 = 64",
                "2001:db8:1:2::9",
                ended(),
            ),
            (
                "a single address",
                "ipv6 = 64",
                "",
                "2001:db8:1:2::9",
                ended(),
            ),
            (
                "its first address",
                "ipv6 = 64",
                "",
                "2001:db8:1:2::",
                ended(),
            ),
            (
                "the other family",
                "ipv6 = 64",
                "",
                "203.0.113.9",
                kept("203.0.113.9"),
            ),
            (
                "IPv4, wider",
                "",
                "ipv4 = 24",
                "203.0.113.9",
                kept("203.0.113.0/24"),
            ),
            (
                "IPv4, narrower",
                "ipv4 = 24",
                "ipv4 = 25",
                "203.0.113.9",
                ended(),
            ),
        ] {
            let before = tables(&ssh(old), &none);
            let after = tables(&ssh(new), &before.numbers);
            let source = source.parse::<std::net::IpAddr>().unwrap().into();
            let number = before.numbers.doors["ssh"];
            let grant = Grant {
                until_ms: 2_000,
                door: number,
            };
            let keys = grant_keys(&before.doors[usize::from(number)], source);
            let held: Vec<_> = keys.map(|key| (key, grant)).collect();
            let both = before.numbers.with(&after.numbers);
            // The second pass of a change sees the entries that the first one has written.
            let first = grants(&held, &before.numbers, &before.numbers, &after, NOW_MS);
            let mut now: BTreeMap<_, _> = held.into_iter().collect();
            now.extend(first.write);
            let held: Vec<_> = now.iter().map(|(&key, &grant)| (key, grant)).collect();
            let second = grants(&held, &before.numbers, &both, &after, NOW_MS);
            now.extend(second.write);
            now.retain(|key, _| !second.remove.contains_key(key));
            let prefixes = after.numbers.grant_prefixes();
            let found: Vec<_> = now
                .keys()
                .map(|key| Prefix::covered(key.source, prefixes[&key.port_group]).to_string())
                .collect();
            assert_eq!(found, covered, "{name}");
            let causes: Vec<_> = second.ended.into_iter().map(|(_, cause)| cause).collect();
            let narrowed = EndCause::Narrowed("ssh".to_owned());
            assert_eq!(causes, vec![narrowed; usize::from(is_reported)], "{name}");
        }
    }

    /// Whichever way a part of the grant was closed: its entry has ended, or the ledger has removed it.
    #[test]
    fn a_closed_part_of_a_grant_stays_closed() {
        let close = |ports: &str| {
            format!(
                "[[door]]\nname = \"shut\"\nknock = [\"tcp/9100\", \"udp/9107\", \"tcp/9095\"]\nclose = [{ports}]\n"
            )
        };
        const BOTH: &str = "\"tcp/22\", \"tcp/443\"";
        let old = door("ssh", 7000, BOTH) + &close("\"tcp/443\"");
        let none = StableIds::default();
        let before = tables(&old, &none);
        let open = |tables: &Tables, entries: &BTreeMap<GrantKey, Grant>| {
            let valid = entries.iter().filter(|(_, grant)| NOW_MS < grant.until_ms);
            let ports = valid.filter_map(|(key, _)| tables.port_groups.get(&key.port_group));
            let mut ports: Vec<_> = ports.flatten().map(ToString::to_string).collect();
            ports.sort();
            ports.join(" ")
        };
        let held = entries(&before, "ssh", 2_000);
        let all: BTreeMap<_, _> = held.iter().copied().collect();
        assert_eq!(open(&before, &all), "tcp/22 tcp/443");
        let is_443 = |key: &GrantKey| before.port_groups[&key.port_group][0] == Ports::tcp(443);
        for (name, new, expected) in [
            ("the same", old.clone(), "tcp/22"),
            (
                "another door shares the ports",
                old.clone() + &door("web", 8000, BOTH),
                "tcp/22",
            ),
            ("without the closing door", door("ssh", 7000, BOTH), ""),
            (
                "it closes the other port",
                door("ssh", 7000, BOTH) + &close("\"tcp/22\""),
                "tcp/22",
            ),
            (
                "a third port",
                door("ssh", 7000, "\"tcp/22\", \"tcp/443\", \"tcp/80\"")
                    + &close("\"tcp/443\", \"tcp/80\""),
                "tcp/22",
            ),
        ] {
            let after = tables(&new, &before.numbers);
            let both = before.numbers.with(&after.numbers);
            for (row, is_removed) in [("ended", false), ("removed", true)] {
                let mut now = all.clone();
                now.retain(|key, _| !is_removed || !is_443(key));
                for (_, grant) in now.iter_mut().filter(|(key, _)| is_443(key)) {
                    grant.until_ms = NOW_MS - 10;
                }
                for known in [&before.numbers, &both] {
                    let held: Vec<_> = now.iter().map(|(&key, &grant)| (key, grant)).collect();
                    let carried = grants(&held, &before.numbers, known, &after, NOW_MS);
                    now.extend(carried.write);
                    assert_eq!(open(&after, &now), expected, "{name}, {row}");
                }
                let held: Vec<_> = now.iter().map(|(&key, &grant)| (key, grant)).collect();
                let carried = grants(&held, &both, &both, &after, NOW_MS);
                now.retain(|key, _| !carried.remove.contains_key(key));
                assert_eq!(open(&after, &now), expected, "{name}, {row}, committed");
            }
        }
    }

    #[test]
    fn grants_under_unknown_numbers_end() {
        let none = StableIds::default();
        let before = tables(&door("ssh", 7000, "\"tcp/22\""), &none);
        let held = entries(&before, "ssh", 2_000);
        let carried = grants(&held, &none, &none, &before, NOW_MS);
        assert_eq!(carried.remove.len(), 1);
        let unknown = (Prefix::of(SOURCE.into()), EndCause::UnknownDoor);
        assert_eq!(carried.ended.into_iter().next(), Some(unknown));
    }
}
