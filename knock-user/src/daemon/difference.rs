//! Describes the differences between two configurations.

use std::collections::{BTreeMap, BTreeSet};

use knock_sequence::Ports;

use crate::{apply::options::Run, model::settings::Settings};

/// Describes the differences between two configurations, each as a phrase. A key that the command line `run` overrides
/// has no effect, so it does not differ.
pub(super) fn difference(was: &Settings, is: &Settings, run: &Run) -> Vec<String> {
    let mut words = Vec::new();
    let doors = |settings: &'_ Settings| -> Vec<_> {
        let doors = settings.doors.iter();
        doors
            .map(|door| (door.name.clone(), door.clone()))
            .collect()
    };
    words.extend(of_tables("door", doors(was), doors(is)));
    let users = |settings: &'_ Settings| -> Vec<_> {
        let users = settings.users.iter();
        users
            .map(|user| (user.name.clone(), user.clone()))
            .collect()
    };
    words.extend(of_tables("user", users(was), users(is)));
    let (before, after) = (was.protected(), is.protected());
    let texts = |ports: Vec<Ports>| ports.iter().map(ToString::to_string).collect::<Vec<_>>();
    words.extend(named("now protected", texts(after.without(&before)).iter()));
    let open = texts(before.without(&after));
    words.extend(named("no longer protected", open.iter()));
    words.extend(of_host_keys(was, is));
    words.extend(named("changed", other_keys(was, is, run).iter()));
    words
}

/// Describes the differences between the tables of a kind, by name.
fn of_tables<T: PartialEq>(kind: &str, was: Vec<(String, T)>, is: Vec<(String, T)>) -> Vec<String> {
    let was: BTreeMap<_, _> = was.into_iter().collect();
    let is: BTreeMap<_, _> = is.into_iter().collect();
    let changed = is
        .iter()
        .filter(|(name, now)| was.get(*name).is_some_and(|before| before != *now));
    let changed: BTreeSet<_> = changed.map(|(name, _)| name).collect();
    [
        named(
            &format!("new {kind}"),
            is.keys().filter(|name| !was.contains_key(*name)),
        ),
        named(
            &format!("removed {kind}"),
            was.keys().filter(|name| !is.contains_key(*name)),
        ),
        named(&format!("changed {kind}"), changed.into_iter()),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Describes which private keys of the host are others.
fn of_host_keys(was: &Settings, is: &Settings) -> Vec<String> {
    let keys = |settings: &Settings| {
        let spa = settings.spa.iter();
        let keys = spa.flat_map(|spa| &spa.host_keys);
        keys.map(|host_key| host_key.key.public().to_string())
            .collect::<BTreeSet<_>>()
    };
    let (was, is) = (keys(was), keys(is));
    // Without users, no key is read.
    if was.is_empty() || is.is_empty() {
        return Vec::new();
    }
    let added = named("new host key", is.difference(&was));
    let removed = named("removed host key", was.difference(&is));
    added.into_iter().chain(removed).collect()
}

/// Returns the top-level keys whose values differ, except those that are described otherwise.
fn other_keys(was: &Settings, is: &Settings, run: &Run) -> Vec<String> {
    // Without `..`, so that no new key is forgotten.
    let Settings {
        interfaces,
        mode,
        protect: _,
        trust,
        block,
        strict,
        exempt,
        established,
        lockout,
        limits,
        decoys,
        control,
        next_line,
        metrics,
        fleet,
        spa: _,
        users: _,
        doors: _,
    } = was;
    // A file without users and [spa] receives no packets, which is the same setting.
    let spa = |settings: &Settings| {
        let mut spa = settings.spa.clone().unwrap_or_default();
        spa.host_keys.clear();
        spa
    };
    [
        (
            "interfaces",
            run.interfaces.is_empty() && *interfaces != is.interfaces,
        ),
        ("mode", run.mode.is_none() && *mode != is.mode),
        ("trust", *trust != is.trust),
        ("[block]", *block != is.block),
        ("strict", *strict != is.strict),
        ("exempt", *exempt != is.exempt),
        ("[established]", *established != is.established),
        ("[lockout]", *lockout != is.lockout),
        ("[limits]", *limits != is.limits),
        ("decoys", *decoys != is.decoys),
        ("[control]", *control != is.control),
        ("[next_line]", *next_line != is.next_line),
        ("[metrics]", *metrics != is.metrics),
        ("[fleet]", *fleet != is.fleet),
        ("[spa]", spa(was) != spa(is)),
    ]
    .into_iter()
    .filter(|(_, is_changed)| *is_changed)
    .map(|(key, _)| key.to_owned())
    .collect()
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

#[cfg(test)]
mod tests {
    use clap::{Args as _, Command, FromArgMatches as _};
    use knock_sequence::spa::PrivateKey;

    use super::*;
    use crate::config;

    const DOOR: &str = "[[door]]\nname = \"ssh\"\nknock = [\"tcp/7000\", \"udp/9000\", \
                        \"tcp/8000\"]\nopen = [\"tcp/22\"]\n";

    fn user(name: &str, seed: u8) -> String {
        let key = PrivateKey::from_octets([seed; 32]);
        format!(
            "[[user]]\nname = \"{name}\"\nkeys = [\"{}\"]\ndoors = [\"ssh\"]\n",
            key.public()
        )
    }

    fn settings(text: &str, host_key: u8) -> Settings {
        let checked = config::parse(text, "seq.toml").unwrap();
        let key = PrivateKey::from_octets([host_key; 32]);
        checked.with_keys(vec![key]).unwrap().settings
    }

    fn run(options: &[&str]) -> Run {
        let command = Run::augment_args(Command::new("knock-user").no_binary_name(true));
        Run::from_arg_matches(&command.get_matches_from(options)).unwrap()
    }

    #[test]
    fn a_key_that_the_command_line_overrides_is_not_named() {
        let text = format!("interfaces = [\"eth0\"]\nmode = \"tc\"\n{DOOR}");
        for (name, options, expected) in [
            ("no option", vec![], vec!["changed: interfaces, mode"]),
            (
                "another mode",
                vec!["--mode", "skb"],
                vec!["changed: interfaces"],
            ),
            (
                "another interface",
                vec!["--iface", "eth1"],
                vec!["changed: mode"],
            ),
            ("both", vec!["--mode", "skb", "--iface", "eth1"], vec![]),
        ] {
            let words = difference(&settings(DOOR, 9), &settings(&text, 9), &run(&options));
            assert_eq!(words, expected, "{name}");
        }
    }

    #[test]
    fn each_difference_is_named() {
        let alice = user("alice", 1);
        let base = format!("{DOOR}{alice}");
        for (name, text, host_key, expected) in [
            ("nothing", base.clone(), 9, vec![]),
            (
                "a new user",
                format!("{base}{}", user("bob", 2)),
                9,
                vec!["new user: bob"],
            ),
            ("no user", DOOR.to_owned(), 9, vec!["removed user: alice"]),
            (
                "another key of a user",
                format!("{DOOR}{}", user("alice", 2)),
                9,
                vec!["changed user: alice"],
            ),
            (
                "another host key",
                base.clone(),
                8,
                vec!["new host key: ", "removed host key: "],
            ),
            (
                "another window",
                format!("{base}[spa]\nwindow = \"20s\"\n"),
                9,
                vec!["changed: [spa]"],
            ),
            (
                "other top-level keys",
                format!("trust = [\"192.0.2.0/24\"]\nstrict = false\n{base}"),
                9,
                vec!["changed: trust, strict"],
            ),
            (
                "another door",
                base.replace("tcp/8000", "tcp/8001"),
                9,
                vec!["changed door: ssh"],
            ),
        ] {
            let words = difference(&settings(&base, 9), &settings(&text, host_key), &run(&[]));
            let is_as_expected = words.len() == expected.len()
                && words
                    .iter()
                    .zip(&expected)
                    .all(|(word, start)| word.starts_with(start));
            assert!(is_as_expected, "{name}: {words:?}, expected {expected:?}");
        }
    }
}
