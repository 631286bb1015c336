//! Holds the documentation of knock-client against the program.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails with the test")]

#[path = "../../knock-common/tests/pages/command_lines.rs"]
mod command_lines;
#[path = "../../knock-common/tests/pages/help.rs"]
mod help;
#[path = "../../knock-common/tests/pages/mod.rs"]
mod pages;
#[path = "../../knock-common/tests/pages/words.rs"]
mod words;

use std::{env, fs, path::Path};

use clap::{Command, CommandFactory as _};
use knock_client::{cli::Cli, profile};
use serde_json::{Map, Value, json};

const PAGE: &str = include_str!("../../docs/client.md");

#[test]
fn every_option_is_on_the_page() {
    let command = Cli::command();
    command_lines::check_arguments(&command, PAGE, "## Options");
    let names: Vec<_> = command.get_subcommands().map(Command::get_name).collect();
    assert_eq!(
        names,
        [
            "proxy",
            "keygen",
            "profiles",
            "ssh-config",
            "share",
            "add",
            "completions",
            "import-fwknop"
        ],
        "a new subcommand needs a place on the page"
    );
    let options = |command: &Command| {
        let arguments = command.get_arguments();
        let options = arguments.filter(|arg| !arg.is_positional());
        options.map(|arg| arg.get_id().clone()).collect::<Vec<_>>()
    };
    let proxy = command.find_subcommand("proxy").unwrap();
    // The page names these as the options that proxy lacks.
    let lacks = [
        "then_connect",
        "print",
        "json",
        "keep",
        "open_for",
        "give_up_after",
    ];
    let mut expected = options(&command);
    expected.retain(|id| !lacks.contains(&id.as_str()));
    assert_eq!(options(proxy), expected);
}

#[test]
fn the_program_accepts_its_command_lines() {
    let count = command_lines::check_command_lines(&Cli::command());
    assert!(count > 20, "{count} command lines");
}

#[test]
fn every_help_line_is_short_and_imperative() {
    help::check_help(&Cli::command());
}

#[test]
fn every_key_of_a_profile_is_on_the_page() {
    for (before, heading) in [
        ("[profile.x]\n", "## Profiles"),
        ("[profile.x.otp]\n", "### Time-based sequences"),
    ] {
        let mut found: Vec<_> = pages::rows(PAGE, heading)
            .into_iter()
            .map(|row| row[0].trim_matches('`').to_owned())
            .collect();
        let mut expected = keys(before);
        found.sort();
        expected.sort();
        assert_eq!(found, expected, "{heading}");
    }
}

/// The JSON schema of the file of profiles, for editors: it is made of the page and of what the reader accepts.
#[test]
fn the_schema_of_profiles_is_that_of_the_reader() {
    let mut profile = table("[profile.x]\n", "## Profiles");
    profile["properties"]["otp"] = table("[profile.x.otp]\n", "### Time-based sequences");
    let schema = json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "config.toml",
        "description": "The profiles of knock-client; docs/client.md explains them.",
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "profile": { "type": "object", "additionalProperties": profile },
        },
    });
    let text = serde_json::to_string_pretty(&schema).unwrap() + "\n";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dist/schema/client.schema.json");
    if env::var_os("KNOCK_BLESS").is_some() {
        fs::write(&path, &text).unwrap();
        return;
    }
    let kept = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        kept == text,
        "{} is out of date: KNOCK_BLESS=1 cargo test -p knock-client --test docs schema",
        path.display()
    );
}

/// Returns the schema of a table with the keys of the rows below a heading.
fn table(before: &str, heading: &str) -> Value {
    let rows = pages::rows(PAGE, heading);
    let properties: Map<_, _> = rows
        .into_iter()
        .map(|row| {
            let key = row[0].trim_matches('`');
            (key.to_owned(), property(before, key, row[1], row[2]))
        })
        .collect();
    json!({ "type": "object", "additionalProperties": false, "properties": properties })
}

/// Returns the schema of a key: its types are those that the reader does not refuse as such.
fn property(before: &str, key: &str, default: &str, meaning: &str) -> Value {
    let types: Vec<_> = [
        ("string", "\"zzzzzzzz\""),
        ("integer", "99999"),
        ("boolean", "true"),
        ("array", "[\"zzzzzzzz\"]"),
    ]
    .into_iter()
    .filter(|(_, value)| {
        let error = error(&format!("{before}{key} = {value}"));
        let refusals = ["invalid type", "did not match", "wanted string or table"];
        !refusals.iter().any(|refusal| error.contains(refusal))
    })
    .map(|(name, _)| name)
    .collect();
    let types = match types.as_slice() {
        [one] => json!(one),
        all => {
            assert_eq!(all.len(), 2, "{key}: {all:?}");
            json!(all)
        }
    };
    let meaning: String = meaning.split("](").map(without_target).collect();
    let mut property = json!({
        "type": types,
        "description": meaning.replace(['`', '['], ""),
    });
    let error = error(&format!("{before}{key} = \"zzzzzzzz\""));
    if property["type"] == "array" {
        property["items"] = json!({ "type": "string" });
    }
    if let Some((_, words)) = error.split_once("unknown variant `zzzzzzzz`, expected ") {
        let words: Vec<_> = words.split('`').skip(1).step_by(2).collect();
        property["enum"] = json!(words);
    }
    let literal = default
        .strip_prefix('`')
        .and_then(|rest| rest.strip_suffix('`'));
    if let Some(literal) = literal {
        property["default"] =
            toml::from_str::<Value>(&format!("it = {literal}")).unwrap()["it"].take();
    }
    property
}

/// Returns what is behind the target of a link, whose text came before.
fn without_target(part: &str) -> &str {
    let target = part.split_once(')');
    target
        .filter(|(target, _)| !target.contains(' '))
        .map_or(part, |(_, rest)| rest)
}

/// The schema accepts what the page shows, and refuses what the reader refuses.
#[test]
fn the_schema_of_profiles_accepts_the_examples_of_the_page() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dist/schema/client.schema.json");
    let schema: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let profile = &schema["properties"]["profile"]["additionalProperties"]["properties"];
    let examples: Vec<_> = PAGE
        .split("```toml\n")
        .skip(1)
        .map(|text| text.split("```").next().unwrap())
        .filter(|text| text.contains("[profile."))
        .collect();
    assert!(examples.len() > 2, "{examples:?}");
    for text in examples {
        let value: Value = toml::from_str(text).unwrap();
        let profiles = value["profile"].as_object().unwrap();
        for (key, value) in profiles.values().flat_map(|keys| keys.as_object().unwrap()) {
            match value.as_object() {
                Some(table) => {
                    for (inner, value) in table {
                        assert_is_of(value, &profile[key]["properties"][inner], inner);
                    }
                }
                None => assert_is_of(value, &profile[key], key),
            }
        }
    }
}

/// Asserts that a value has a type, and is one of the words, of a schema.
#[track_caller]
fn assert_is_of(value: &Value, schema: &Value, key: &str) {
    let is = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let types = &schema["type"];
    let listed = types
        .as_array()
        .is_some_and(|types| types.contains(&json!(is)));
    assert!(
        *types == json!(is) || listed,
        "{key}: {value} is none of {types}"
    );
    if let Some(words) = schema["enum"].as_array() {
        assert!(words.contains(value), "{key}: {value} is none of {words:?}");
    }
}

/// Returns the error about a text; empty if there is none.
fn error(text: &str) -> String {
    let found = profile::find_in(text, Path::new("config.toml"), "x");
    found.map_or_else(|error| error.to_string(), |_| String::new())
}

/// Returns the keys of a section, as the error about an unknown key lists them.
fn keys(before: &str) -> Vec<String> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("config.toml");
    fs::write(&path, format!("{before}zzzzzz = 1")).unwrap();
    let error = profile::find(&path, "x", true).unwrap_err().to_string();
    let (_, known) = error.split_once("the keys here are ").unwrap();
    known.split(", ").map(str::to_owned).collect()
}
