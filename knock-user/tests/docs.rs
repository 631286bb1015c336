//! The documentation agrees with knock-user.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails with the test")]

#[path = "../../knock-common/tests/pages/command_lines.rs"]
mod command_lines;
#[path = "../../knock-common/tests/pages/help.rs"]
mod help;
#[path = "../../knock-common/tests/pages/mod.rs"]
mod pages;
mod schema;
#[path = "../../knock-common/tests/pages/words.rs"]
mod words;

use std::collections::BTreeMap;

use clap::CommandFactory as _;
use knock_common::Verdict;
use knock_user::{
    admin::{
        block, confirm, detach, fleet, grant, list, metrics, reload, report, revoke,
        status::{self, Counter, InterfaceAnswer, OneTimeStatus, Shortfall, TablesAnswer},
        unblock, users,
    },
    cli::Cli,
    config,
    explain::Explanation,
    interfaces::preceding::Preceding,
    model::settings::Settings,
};
use pages::rows;
use serde::de::DeserializeOwned;
use serde_aux::serde_introspection::serde_introspect;

const CONFIG: &str = concat!(
    include_str!("../../docs/config.md"),
    include_str!("../../docs/fleet.md")
);
const CONTROL: &str = include_str!("../../docs/control.md");
const COMMANDS: &str = include_str!("../../docs/commands.md");

const UNKNOWN: &str = "zzzzzzzzzzzz";

/// Keys that a part can't be without.
const NEEDED: [(&str, &str, &str); 11] = [
    ("fleet", "servers", "servers = [\"http://10.0.0.11:2379\"]"),
    ("fleet", "group", "group = \"web\""),
    ("fleet", "seal", "seal = [\"web.seal\"]"),
    ("door", "name", "name = \"ssh\""),
    (
        "door",
        "knock",
        "knock = [\"tcp/7000\", \"udp/9000\", \"tcp/8000\"]",
    ),
    ("door", "open", "open = [\"tcp/22\"]"),
    ("door.otp", "secret", "secret = \"0123456789abcdef\""),
    ("lockout", "failures", "failures = 5"),
    ("block", "prefixes", "prefixes = [\"203.0.113.0/24\"]"),
    ("user", "name", "name = \"alice\""),
    (
        "user",
        "keys",
        "keys = [\"knock1:D6poSU7Yi2e5bNRqLV3uic6XTna3AY4_IqHEz3xXDyA\"]",
    ),
];

/// Keys that go only with another, or only without one of the needed ones.
const COMPANIONS: [(&str, &str, &str, &str); 12] = [
    // part, key, with, without
    ("decoys", "range", "count = 5", ""),
    ("door", "one_time", "", "knock"),
    ("door", "lookahead", "one_time = \"once\"", "knock"),
    ("door", "close", "", "open"),
    ("door", "command_timeout", "on_open = [\"true\"]", ""),
    ("door.otp", "secret_file", "", "secret"),
    ("door.otp", "secret_env", "", "secret"),
    ("user", "source", "fwknop = \"bob.fwknop\"", ""),
    ("user", "username", "fwknop = \"bob.fwknop\"", ""),
    ("fleet", "ca", HTTPS, "servers"),
    (
        "fleet",
        "cert",
        "servers = [\"https://10.0.0.11:2379\"]\nca = \"ca.pem\"\nkey = \"own.key\"",
        "servers",
    ),
    (
        "fleet",
        "key",
        "servers = [\"https://10.0.0.11:2379\"]\nca = \"ca.pem\"\ncert = \"own.pem\"",
        "servers",
    ),
];

/// A member of an engine that needs a certificate.
const HTTPS: &str = "servers = [\"https://10.0.0.11:2379\"]";

/// Their examples name things that this host does not have.
const ELSEWHERE: [&str; 3] = ["secret_file", "secret_env", "doors"];

/// Behind every text: without a door there is no configuration, and without one that opens none that closes.
const LAST_DOOR: &str = "\n[[door]]\nname = \"last\"\nknock = [\"tcp/1\", \"udp/3\", \"tcp/2\"]\n\
                         open = [\"tcp/22\"]\n";

/// Words in the column of defaults for keys that have none.
const NO_DEFAULT: [&str; 8] = [
    "none",
    "nobody",
    "nowhere",
    "any address",
    "everywhere",
    "value of `--iface`",
    "none but these",
    "by memory",
];
/// Words for keys of which one is needed, or whose default no text has.
const ALTERNATIVES: [&str; 3] = ["", "one of these three", "the host's name"];

#[test]
fn every_command_and_option_is_on_a_page() {
    let command = Cli::command();
    command_lines::check_arguments(&command, COMMANDS, "### `knock-user`");
    let lines = rows(CONTROL, "# Controlling a running knock-user");
    let mut asked: Vec<_> = lines.iter().map(|row| row[0].trim_matches('`')).collect();
    for subcommand in command.get_subcommands() {
        let name = format!("knock-user {}", subcommand.get_name());
        let heading = format!("### `{name}`");
        if COMMANDS.lines().any(|line| line == heading) {
            command_lines::check_arguments(subcommand, COMMANDS, &heading);
            continue;
        }
        let words = |line: &&str| line.split(' ').take(2).eq(name.split(' '));
        let index = asked.iter().position(words);
        let line = asked.remove(index.unwrap_or_else(|| panic!("{name} is on no page")));
        for arg in subcommand.get_arguments() {
            // All of them have these, which the page lists once.
            if let Some(long) = arg.get_long()
                && !["iface", "json", "pid"].contains(&long)
            {
                assert!(line.contains(&format!("--{long}")), "{line} lacks --{long}");
            }
        }
    }
    assert!(asked.is_empty(), "no commands: {asked:?}");
}

#[test]
fn the_program_accepts_its_command_lines() {
    let count = command_lines::check_command_lines(&Cli::command());
    assert!(count > 60, "{count} command lines");
}

#[test]
fn every_help_line_is_short_and_imperative() {
    help::check_help(&Cli::command());
}

#[test]
fn every_key_is_on_the_page() {
    let keys = parts().into_iter().flat_map(|(part, keys)| {
        let keyed = move |key| (part.name.clone(), key);
        keys.into_iter().map(keyed)
    });
    let mut expected: Vec<_> = keys.collect();
    expected.sort();
    let found: Vec<_> = documented().into_keys().collect();
    assert_eq!(found, expected);
}

#[test]
fn every_example_and_default_is_right() {
    let parts = parts();
    // A table without the one key that it must have is left out.
    let no_table = |_| settings(&ConfigPart::file(), "", None);
    for ((name, key), row) in documented() {
        let (part, _) = parts.iter().find(|(part, _)| part.name == name).unwrap();
        let Row {
            example, default, ..
        } = row;
        let absent = settings(part, &key, None);
        let given = settings(part, &key, Some(example));
        if let Err(error) = &given {
            assert!(ELSEWHERE.contains(&key.as_str()), "{name} {key}: {error}");
        }
        let literal = default
            .strip_prefix('`')
            .and_then(|rest| rest.split_once('`'));
        let explicit = match literal {
            Some((value, _)) => format!("{key} = {value}"),
            None if default == "shown" => example.to_owned(),
            None if default == "needed" => {
                let error = absent.expect_err(&key);
                assert!(error.contains("missing"), "{name} {key}: {error}");
                continue;
            }
            None if NO_DEFAULT.contains(&default) => {
                let (absent, given) = (
                    format!("{:?}", absent.or_else(no_table)),
                    format!("{given:?}"),
                );
                let mut both = absent.char_indices().zip(given.chars());
                let ((first, _), _) = both.find(|((_, a), b)| a != b).expect(&key);
                let is_nothing = absent[first..].starts_with("None")
                    || absent[first..].starts_with("[]")
                    || absent[first..].starts_with(']');
                assert!(
                    is_nothing,
                    "{name} {key} has a default: {}",
                    &absent[first..]
                );
                continue;
            }
            None => {
                assert!(
                    ALTERNATIVES.contains(&default),
                    "{name} {key}: {default:?}?"
                );
                continue;
            }
        };
        let explicit = settings(part, &key, Some(&explicit));
        assert_eq!(explicit, absent.or_else(no_table), "{name} {key}");
    }
}

#[test]
fn every_field_of_an_answer_is_on_the_page() {
    let answers = rows(CONTROL, "## As JSON");
    // With the fields of what is in them, and the values that are named.
    let mut verdicts = verdicts();
    let mut state = fields::<status::Answer>();
    state.extend(fields::<InterfaceAnswer>());
    state.extend(fields::<Preceding>());
    state.extend(fields::<Shortfall>());
    state.extend([
        "protected",
        "bypassed",
        "blocked",
        "absent",
        "refused",
        "missing",
    ]);
    state.extend(["native", "skb", "tc"]);
    state.extend(fields::<OneTimeStatus>());
    state.extend(fields::<TablesAnswer>());
    state.extend(fields::<Counter>());
    state.extend(&verdicts);
    let mut grants = fields::<list::Answer>();
    grants.extend(fields::<list::ListedGrant>());
    grants.push("--blocked");
    grants.extend(fields::<list::ListedBlock>());
    let mut accounts = fields::<users::Answer>();
    accounts.extend(fields::<users::ListedUser>());
    accounts.extend(fields::<users::ListedKey>());
    accounts.extend(fields::<users::FwknopFile>());
    verdicts.extend(fields::<Explanation>());
    let mut scraped = fields::<metrics::Answer>();
    scraped.extend(["classic", "openmetrics"]);
    let mut group = with(fields::<fleet::Answer>(), &["closed", "local"]);
    group.extend(fields::<fleet::MemberHost>());
    let mut revoked = with(fields::<revoke::Answer>(), &["--group"]);
    revoked.extend(fields::<revoke::OfGroup>());
    let expected = [
        ("status", state),
        ("users", accounts),
        ("list", grants),
        ("grant", with(fields::<grant::Answer>(), &["--group"])),
        ("revoke", revoked),
        ("block", fields::<block::Answer>()),
        ("unblock", fields::<unblock::Answer>()),
        ("explain", verdicts),
        ("metrics", scraped),
        ("report", fields::<report::Answer>()),
        ("fleet", group),
        ("reload", fields::<reload::Answer>()),
        ("confirm", fields::<confirm::Answer>()),
        ("detach", fields::<detach::Answer>()),
    ];
    assert_eq!(answers.len(), expected.len());
    for (row, (command, mut fields)) in answers.iter().zip(expected) {
        assert_eq!(row[0].trim_matches('`'), command);
        fields.sort_unstable();
        assert_eq!(names(row[1]), fields, "{command}");
    }
}

fn with(mut fields: Vec<&'static str>, values: &[&'static str]) -> Vec<&'static str> {
    fields.extend(values);
    fields
}

/// A part of the configuration: the file itself, or a table in it.
struct ConfigPart {
    /// Such as `door.otp`; empty for the file itself.
    name: String,
    /// The text before and after its keys.
    before: String,
    after: &'static str,
}

impl ConfigPart {
    fn file() -> Self {
        Self {
            name: String::new(),
            before: String::new(),
            after: "",
        }
    }

    /// Returns its keys, as the error about an unknown one names them.
    fn keys(&self) -> Vec<String> {
        let reason = self.reason(UNKNOWN, &format!("{UNKNOWN} = 1")).unwrap();
        let (_, keys) = reason.split_once(" are ").unwrap();
        keys.split(", ").map(str::to_owned).collect()
    }

    /// Returns the table that the value of a key is, if it is one.
    fn table(&self, key: &str) -> Option<Self> {
        let reason = self.reason(key, &format!("{key} = 1"))?;
        let (before, after) = match (reason.contains("expected a table"), self.name.as_str()) {
            (false, _) => return None,
            (true, "") if reason.contains("double brackets") => (format!("[[{key}]]\n"), ""),
            (true, "") => (format!("[{key}]\n"), ""),
            (true, _) => (format!("{}{key} = {{ ", self.before), " }"),
        };
        Some(Self {
            name: [self.name.as_str(), key]
                .join(".")
                .trim_matches('.')
                .to_owned(),
            before,
            after,
        })
    }

    /// Returns the error about a key if the part has no other.
    fn reason(&self, key: &str, text: &str) -> Option<String> {
        let text = format!("{}{text}{}", self.before, self.after);
        let problems = config::parse(&text, "seq.toml").err()?.list;
        let wrong = problems.into_iter().find(|problem| problem.key == key);
        wrong.map(|problem| problem.reason)
    }
}

/// Returns all parts of a configuration, with the keys that are not tables.
fn parts() -> Vec<(ConfigPart, Vec<String>)> {
    let mut todo = vec![ConfigPart::file()];
    let mut parts = Vec::new();
    while let Some(part) = todo.pop() {
        let mut keys = part.keys();
        keys.retain(|key| match part.table(key) {
            Some(table) => {
                todo.push(table);
                false
            }
            None => true,
        });
        parts.push((part, keys));
    }
    parts
}

/// A key as docs/config.md has it.
struct Row {
    /// Such as `open_for = "30s"`.
    example: &'static str,
    default: &'static str,
    meaning: &'static str,
}

/// Returns the rows of docs/config.md by part and key.
fn documented() -> BTreeMap<(String, String), Row> {
    let mut found = BTreeMap::new();
    let headings = CONFIG.lines().filter(|line| line.starts_with("##"));
    for heading in headings {
        let part = match heading {
            "## Doors" => "door".to_owned(),
            "### `otp`" => "door.otp".to_owned(),
            "### `grant_prefix`" => "door.grant_prefix".to_owned(),
            "### `[[user]]`" => "user".to_owned(),
            _ => match heading
                .split_once("`[")
                .and_then(|(_, rest)| rest.split_once("]`"))
            {
                Some((table, _)) => table.to_owned(),
                None => String::new(),
            },
        };
        for row in rows(CONFIG, heading) {
            let example = row[0].trim_matches('`');
            // Other tables have another number of columns, or no keys.
            let key = example.split_once(" = ").filter(|_| row.len() == 3);
            let Some((key, _)) = key.filter(|(key, _)| is_key(key)) else {
                continue;
            };
            let row = Row {
                example,
                default: row[1],
                meaning: row[2],
            };
            let before = found.insert((part.clone(), key.to_owned()), row);
            assert!(before.is_none(), "{part} {key} twice");
        }
    }
    found
}

fn is_key(word: &str) -> bool {
    word.chars()
        .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

/// Returns the settings of a file with this value of a key, or without the key.
fn settings(part: &ConfigPart, key: &str, value: Option<&str>) -> Result<Settings, String> {
    let companions = COMPANIONS
        .iter()
        .filter(|row| (row.0, row.1) == (&part.name, key));
    let companions: Vec<_> = companions.collect();
    let is_left_out = |needed| needed == key || companions.iter().any(|row| row.3 == needed);
    let in_part = |name: &str| {
        let needed = NEEDED.iter().filter(move |row| row.0 == name);
        let needed = needed.filter(|row| name != part.name || !is_left_out(row.1));
        needed.map(|row| row.2.to_owned()).collect::<Vec<_>>()
    };
    let mut lines = in_part(&part.name);
    lines.extend(companions.iter().map(|row| row.2.to_owned()));
    lines.extend(value.map(str::to_owned));
    lines.retain(|line| !line.is_empty());
    let text = match part.name.as_str() {
        "door.otp" => {
            let mut door = in_part("door");
            door.retain(|line| !line.starts_with("knock"));
            let otp = lines.join(", ");
            format!("[[door]]\n{}\notp = {{ {otp} }}", door.join("\n"))
        }
        "door.grant_prefix" => {
            let mut door = in_part("door");
            door.retain(|line| !line.starts_with("open"));
            // Doors that open the same port agree on the prefix.
            door.push("open = [\"tcp/23\"]".to_owned());
            let prefix = lines.join(", ");
            format!(
                "[[door]]\n{}\ngrant_prefix = {{ {prefix} }}",
                door.join("\n")
            )
        }
        _ => format!("{}{}{}", part.before, lines.join("\n"), part.after),
    };
    let checked = config::parse(&format!("{text}{LAST_DOOR}"), "seq.toml");
    checked
        .map(|checked| checked.settings)
        .map_err(|problems| format!("{text}\n{problems}"))
}

/// Returns the names in backquotes, without `: ` and what follows (the values), in the order of the alphabet.
fn names(cell: &str) -> Vec<&str> {
    let mut names: Vec<_> = cell.split('`').skip(1).step_by(2).collect();
    names.sort_unstable();
    names
}

fn fields<T: DeserializeOwned>() -> Vec<&'static str> {
    serde_introspect::<T>().to_vec()
}

fn verdicts() -> Vec<&'static str> {
    let all = [Verdict::Pass, Verdict::Drop, Verdict::Answer];
    // A new verdict does not compile here until it is in the list above.
    match all[0] {
        Verdict::Pass | Verdict::Drop | Verdict::Answer => {}
    }
    all.map(Verdict::name).to_vec()
}
