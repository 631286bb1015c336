//! The JSON schema of the configuration, for editors: it is made of docs/config.md and of what the reader accepts.

use std::{env, fs, path::Path, sync::LazyLock};

use serde_json::{Map, Value, json};

use super::{ConfigPart, documented, parts};

const FILE: &str = "../dist/schema/seq.schema.json";
/// The keys without which a table is an error, whatever else it has.
const REQUIRED: [(&str, &str); 8] = [
    ("door", "name"),
    ("user", "name"),
    ("block", "prefixes"),
    ("fleet", "group"),
    ("fleet", "seal"),
    ("fleet", "servers"),
    ("metrics", "listen"),
    ("next_line", "listen"),
];
/// Parts that are arrays of tables.
const ARRAYS: [&str; 2] = ["door", "user"];
/// A text, number or list that no key accepts.
const WORD: &str = "zzzzzzzz";

/// Values of each type of TOML that a schema names. A schema has no dates: editors show them as texts.
const TYPES: [(&str, &str); 5] = [
    ("string", "\"zzzzzzzz\""),
    ("integer", "99999999"),
    ("boolean", "true"),
    ("array", "[\"zzzzzzzz\"]"),
    ("string", "2027-01-31"),
];

#[test]
fn the_schema_is_that_of_the_reader() {
    let schema = schema();
    let text = serde_json::to_string_pretty(&schema).unwrap() + "\n";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(FILE);
    if env::var_os("KNOCK_BLESS").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &text).unwrap();
        return;
    }
    let kept = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        kept == text,
        "{} is out of date: KNOCK_BLESS=1 cargo test -p knock-user --test docs schema",
        path.display()
    );
}

#[test]
fn the_schema_accepts_the_examples() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let examples = fs::read_dir(root.join("examples")).unwrap();
    let mut files: Vec<_> = examples.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|is| is == "toml"));
    assert!(files.len() > 5);
    files.push(root.join("dist/seq.toml"));
    for path in files {
        let text = fs::read_to_string(&path).unwrap();
        let directive = text.lines().next().unwrap_or_default();
        let named = directive.strip_prefix("#:schema ").unwrap_or_else(|| {
            panic!("{} does not begin with #:schema", path.display());
        });
        if !named.starts_with("file://") {
            let named = path.parent().unwrap().join(named);
            assert!(named.exists(), "{}", named.display());
        }
        let problems = problems(&text);
        assert_eq!(problems, Vec::<String>::new(), "{}", path.display());
    }
}

#[test]
fn the_schema_refuses_what_the_reader_refuses() {
    for (name, text, expected) in [
        ("an unknown key", "wat = 1", ": wat"),
        ("another type", "strict = \"yes\"", "strict: type"),
        ("another word", "mode = \"fast\"", "mode: enum"),
        (
            "no name",
            "[[door]]\nopen = [\"tcp/22\"]",
            "door: lacks name",
        ),
        (
            "a key of a table",
            "[lockout]\nfailure = 5",
            "lockout: failure",
        ),
        (
            "a number out of range",
            "[lockout]\nfailures = 2000",
            "failures: range",
        ),
        ("an item of another type", "trust = [7]", "trust: type"),
        ("one table", "door = { name = \"ssh\" }", "door: type"),
    ] {
        let problems = problems(text);
        assert_eq!(problems, [expected], "{name}");
    }
}

/// The schema that is published, which is that of the reader.
static KEPT: LazyLock<Value> = LazyLock::new(|| {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(FILE);
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
});

/// Returns what the schema finds wrong with a text.
fn problems(text: &str) -> Vec<String> {
    let value: toml::Table = toml::from_str(text).unwrap();
    let mut found = Vec::new();
    check(&serde_json::to_value(value).unwrap(), &KEPT, "", &mut found);
    found
}

/// Checks a value by those parts of JSON schema that the schema uses.
fn check(value: &Value, schema: &Value, name: &str, found: &mut Vec<String>) {
    let types: Vec<_> = match schema["type"].as_array() {
        Some(all) => all.iter().filter_map(Value::as_str).collect(),
        None => schema["type"].as_str().into_iter().collect(),
    };
    let is = match value {
        Value::Object(_) if value.get("$__toml_private_datetime").is_some() => "string",
        Value::Object(_) => "object",
        Value::Array(_) => "array",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Null => "null",
    };
    if !types.contains(&is) {
        found.push(format!("{name}: type"));
        return;
    }
    if let (Some(all), Value::String(_)) = (schema["enum"].as_array(), value)
        && !all.contains(value)
    {
        found.push(format!("{name}: enum"));
    }
    if let (Some(number), Some(most)) = (value.as_i64(), schema["maximum"].as_i64())
        && !(schema["minimum"].as_i64().unwrap()..=most).contains(&number)
    {
        found.push(format!("{name}: range"));
    }
    if let (Value::Array(items), schema @ Value::Object(_)) = (value, &schema["items"]) {
        for item in items {
            check(item, schema, name, found);
        }
    }
    if let Value::Object(entries) = value
        && is == "object"
    {
        for (key, value) in entries {
            match schema["properties"].get(key) {
                None => found.push(format!("{name}: {key}")),
                Some(schema) => check(value, schema, key, found),
            }
        }
        for key in schema["required"].as_array().into_iter().flatten() {
            let key = key.as_str().unwrap();
            if !entries.contains_key(key) {
                found.push(format!("{name}: lacks {key}"));
            }
        }
    }
}

/// Returns the schema of docs/config.md and of the reader.
fn schema() -> Value {
    let parts = parts();
    let mut root = table("", &parts);
    let head = json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "seq.toml",
        "description": "The configuration of knock-user; docs/config.md explains it.",
    });
    let Value::Object(mut all) = head else {
        unreachable!("an object was written");
    };
    all.append(root.as_object_mut().unwrap());
    all.into()
}

/// Returns the schema of a table, with those of the tables in it.
fn table(name: &str, parts: &[(ConfigPart, Vec<String>)]) -> Value {
    let (part, keys) = parts.iter().find(|(part, _)| part.name == name).unwrap();
    let documented = documented();
    let mut properties = Map::new();
    for key in keys {
        let row = &documented[&(name.to_owned(), key.clone())];
        let mut property = property(part, key);
        property.insert("description".to_owned(), plain(row.meaning).into());
        let literal = row
            .default
            .strip_prefix('`')
            .and_then(|rest| rest.split_once('`'));
        if let Some((literal, "")) = literal {
            let value: toml::Table = toml::from_str(&format!("it = {literal}")).unwrap();
            let value = serde_json::to_value(&value["it"]).unwrap();
            property.insert("default".to_owned(), value);
        }
        properties.insert(key.clone(), property.into());
    }
    let inner = parts.iter().filter_map(|(part, _)| {
        let (before, last) = part.name.rsplit_once('.').unwrap_or(("", &part.name));
        (before == name && !part.name.is_empty()).then_some((&part.name, last))
    });
    for (whole, last) in inner {
        let schema = table(whole, parts);
        let schema = match ARRAYS.contains(&last) {
            true => json!({ "type": "array", "items": schema }),
            false => schema,
        };
        properties.insert(last.to_owned(), schema);
    }
    let mut schema = json!({
        "type": "object",
        "additionalProperties": false,
        "properties": properties,
    });
    let required = REQUIRED.iter().filter(|(part, _)| *part == name);
    let required: Vec<_> = required.map(|(_, key)| *key).collect();
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    schema
}

/// Returns the types of a key, from what the reader finds wrong with a value of each.
fn property(part: &ConfigPart, key: &str) -> Map<String, Value> {
    let mut property = Map::new();
    let mut types: Vec<&str> = Vec::new();
    for (name, value) in TYPES {
        let reason = part
            .reason(key, &format!("{key} = {value}"))
            .unwrap_or_default();
        let is_refused = reason.starts_with("expected ") || reason.contains("has no unit");
        if !is_refused && !types.contains(&name) {
            types.push(name);
        }
        if let Some((_, words)) = reason.split_once("is not known: write ")
            && name == "string"
        {
            let words = words
                .split_once(", or a list")
                .map_or(words, |(words, _)| words);
            let words: Vec<_> = words.split('"').skip(1).step_by(2).collect();
            property.insert("enum".to_owned(), json!(words));
        }
        if let Some((_, range)) = reason.split_once("is out of range: use ") {
            let (least, most) = range.split_once(" to ").unwrap();
            for (bound, number) in [("minimum", least), ("maximum", most)] {
                property.insert(bound.to_owned(), json!(number.parse::<i64>().unwrap()));
            }
        }
    }
    assert!(!types.is_empty(), "{} {key} has no type; {WORD}", part.name);
    if types.contains(&"array") && part.name != "user" {
        property.insert("items".to_owned(), json!({ "type": "string" }));
    }
    // Words are only for texts.
    if types.len() > 1
        && let Some(words) = property.remove("enum")
    {
        let others = types.iter().filter(|name| **name != "string");
        let others = others.map(|name| json!({ "type": name, "items": { "type": "string" } }));
        let all: Vec<_> = [json!({ "enum": words })]
            .into_iter()
            .chain(others)
            .collect();
        property.insert("anyOf".to_owned(), all.into());
        property.remove("items");
    }
    let types = match types.as_slice() {
        [one] => json!(one),
        all => json!(all),
    };
    property.insert("type".to_owned(), types);
    property
}

/// Returns a cell of a page without its markup.
fn plain(cell: &str) -> String {
    let mut text = String::new();
    let mut rest = cell;
    while let Some((before, link)) = rest.split_once('[') {
        let Some((label, after)) = link.split_once("](") else {
            break;
        };
        let Some((_, after)) = after.split_once(')') else {
            break;
        };
        // A bracket may also be that of a table, as in `[[user]]`.
        if label.contains('[') {
            text += before;
            text.push('[');
            rest = link;
            continue;
        }
        text += before;
        text += label;
        rest = after;
    }
    (text + rest).replace(['`', '*'], "")
}
