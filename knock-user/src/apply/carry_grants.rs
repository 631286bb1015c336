//! Decides which grants another configuration keeps, moves or ends.

use std::collections::{BTreeMap, BTreeSet};

use knock_common::{Address, grant::Grant, layout::GrantKey};

use crate::compile::{Tables, grant_keys, stable_ids::StableIds};

/// The changes of the allow map that a new configuration needs.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Carried {
    /// Entries that the new configuration needs, or needs for longer.
    pub write: BTreeMap<GrantKey, Grant>,
    /// Entries that have no meaning in the new configuration.
    pub remove: Vec<GrantKey>,
    /// Sources whose door is no longer configured, with its name if it is known.
    pub ended: BTreeSet<(Address, Option<String>)>,
}

/// Compares entries of the allow map with what the new `tables` need. `known` maps the door numbers
/// of the entries to names.
///
/// A grant belongs to a door and opens what that door opens now. Expired entries of doors that
/// still exist are left to the ledger, which reports them.
pub fn grants(
    entries: &[(GrantKey, Grant)],
    known: &StableIds,
    tables: &Tables,
    now_ms: u64,
) -> Carried {
    let names = known.door_names();
    let mut carried = Carried::default();
    for &(key, grant) in entries {
        let name = names.get(&grant.door).copied();
        let number = name.and_then(|name| tables.numbers.doors.get(name).copied());
        let door = number.and_then(|number| tables.doors.get(usize::from(number)));
        let (Some(number), Some(door)) = (number, door) else {
            carried.remove.push(key);
            let ended = (key.source, name.map(str::to_owned));
            carried.ended.insert(ended);
            continue;
        };
        let grant = Grant {
            door: number,
            ..grant
        };
        let meant: Vec<_> = grant_keys(door, key.source).collect();
        if !meant.contains(&key) {
            carried.remove.push(key);
        }
        if grant.until_ms <= now_ms {
            continue;
        }
        for key in meant {
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

#[cfg(test)]
mod tests {
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
                0,
                0,
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
            let carried = grants(&held, &before.numbers, &after, NOW_MS);
            assert_eq!(carried.write.len(), write, "{name}");
            assert_eq!(carried.remove.len(), remove, "{name}");
            assert_eq!(!carried.ended.is_empty(), ended, "{name}");
            let mut now: BTreeMap<_, _> = held.into_iter().collect();
            now.retain(|key, _| !carried.remove.contains(key));
            now.extend(carried.write);
            if !ended && ends_ms > NOW_MS {
                let meant = entries(&after, "ssh", ends_ms).into_iter().collect();
                assert_eq!(now, meant, "{name}");
            }
        }
    }

    #[test]
    fn grants_under_unknown_numbers_end() {
        let none = StableIds::default();
        let before = tables(&door("ssh", 7000, "\"tcp/22\""), &none);
        let held = entries(&before, "ssh", 2_000);
        let carried = grants(&held, &none, &before, NOW_MS);
        assert_eq!(carried.remove.len(), 1);
        assert_eq!(carried.ended.into_iter().next(), Some((SOURCE, None)));
    }
}
